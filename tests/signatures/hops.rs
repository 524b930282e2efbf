//! Mail servers between the relay and who verifies.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use postrider_testkit::peers::{self, Peer};
use postrider_testkit::postfix::Postfix;

use crate::varied::Sample;

/// Longest line that a mail server need pass on. RFC 5321 section 4.5.3.1.6
const LAWFUL_LINE: usize = 998;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Hop {
    None,
    Postfix,
    Exim,
}

/// A server that passes all mail on to the sink; none at all, perhaps.
pub(crate) enum Running {
    None(SocketAddr),
    Postfix(Postfix),
    Exim { address: SocketAddr, peer: Peer, _process: peers::Running },
}

impl Hop {
    pub(crate) async fn start(self, sink: SocketAddr) -> Result<Running, Box<dyn Error>> {
        match self {
            Self::None => Ok(Running::None(sink)),
            Self::Postfix => {
                let relayhost = format!("[127.0.0.1]:{}", sink.port());
                let parameters = [
                    ("relayhost", relayhost.as_str()),
                    ("smtp_dns_support_level", "disabled"),
                    ("smtpd_recipient_restrictions", "permit_mynetworks"),
                    // To a host on this machine it would add what its own users left out.
                    ("local_header_rewrite_clients", ""),
                ];
                Ok(Running::Postfix(Postfix::start(&parameters, |_| Ok(()))?))
            }
            Self::Exim => exim(sink).await,
        }
    }
}

async fn exim(sink: SocketAddr) -> Result<Running, Box<dyn Error>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let peer = Peer::new(Path::new(env!("CARGO_MANIFEST_DIR")), &["exim4-daemon-light"])?;
    let own = peer.path("").display().to_string();
    let text = format!(
        "exim_user = Debian-exim\nexim_group = Debian-exim\nspool_directory = {own}spool\nlog_file_path = {own}log/%slog\n\
         primary_hostname = exim.test\ndomainlist local_domains =\nkeep_environment =\ndisable_ipv6 = true\n\
         local_interfaces = 127.0.0.1\ndaemon_smtp_ports = {port}\nacl_smtp_rcpt = all\nacl_smtp_data = all\n\
         tls_advertise_hosts =\nqueue_run_max = 20\nremote_max_parallel = 20\nsmtp_accept_max_per_connection = 5000\n\
         smtp_accept_queue_per_connection = 5000\nsmtp_accept_max = 200\nsmtp_accept_reserve = 0\n\n\
         begin acl\nall:\n  accept\n\n\
         begin routers\nsink:\n  driver = manualroute\n  route_list = * 127.0.0.1 byname\n  transport = sink\n  self = send\n\n\
         begin transports\nsink:\n  driver = smtp\n  port = {}\n  allow_localhost\n  max_rcpt = 1\n\nbegin retry\n\n* * F,1m,1s\n",
        sink.port()
    );
    peer.write("exim.conf", &text)?;
    let script = format!(
        "mkdir {own}spool {own}log; chown Debian-exim: {own}spool {own}log; exec exim4 -C {own}exim.conf -bdf -q5s"
    );
    let process = peer.spawn(&script)?;
    for _ in 0..400 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Ok(Running::Exim { address: ([127, 0, 0, 1], port).into(), peer, _process: process });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("Exim does not listen: {}", std::fs::read_to_string(peer.path("output"))?).into())
}

impl Running {
    /// Where the relay sends to.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::None(address) | Self::Exim { address, .. } => *address,
            Self::Postfix(postfix) => ([127, 0, 0, 1], postfix.port()).into(),
        }
    }

    /// Whether the message comes through as it is. Postfix breaks lines that are too
    /// long, and Exim refuses them.
    pub(crate) fn passes(&self, sample: &Sample) -> bool {
        let longest = sample.content.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
        matches!(self, Self::None(_)) || longest.unwrap_or_default() <= LAWFUL_LINE
    }

    /// What the server has to say.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::None(_) => String::new(),
            Self::Postfix(postfix) => postfix.log().unwrap_or_default(),
            Self::Exim { peer, .. } => std::fs::read_to_string(peer.path("log/mainlog")).unwrap_or_default(),
        }
    }
}
