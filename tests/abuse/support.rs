//! A relay under attack, its good client, and raw connections to attack with.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::client::Security;
use postrider_testkit::process::Usage;
use postrider_testkit::relay::{Relay, RelayOptions};
use postrider_testkit::{Accept, Client, Sink, load};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// How long anything may take before the test calls it hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an attack may add to the daemon's peak memory.
pub(crate) const MEMORY: u64 = 64 << 20;

/// A relay that is about to be attacked.
pub(crate) struct Siege {
    pub(crate) relay: Relay,
    sink: Sink,
    peak_before: u64,
}

impl Siege {
    /// Starts the relay with these lines in its configuration and sends one
    /// message, so that everything is warm.
    pub(crate) async fn lay(configuration: &str) -> Result<Siege, Box<dyn Error>> {
        let sink = Sink::start(Accept, Clock::system()).await?;
        let options = RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), configuration);
        let relay = Relay::start(options)?;
        let mut siege = Siege { relay, sink, peak_before: 0 };
        let mut client = siege.client().await?;
        deliver(&mut client).await?;
        client.quit().await?;
        siege.sink.wait_for(1).await;
        siege.peak_before = siege.peak()?;
        Ok(siege)
    }

    /// An authenticated client over STARTTLS.
    pub(crate) async fn client(&self) -> io::Result<Client> {
        let mut client = self.relay.endpoint(Security::StartTls, false)?.connect().await?;
        let (user, password) = self.relay.credentials();
        client.login(user, password).await?;
        Ok(client)
    }

    /// A client that sends one message after the other until it is told to stop.
    pub(crate) async fn good_client(&self) -> io::Result<GoodClient> {
        let mut client = self.client().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut sent = 0;
            while !stopped.load(Ordering::SeqCst) {
                deliver(&mut client).await?;
                sent += 1;
            }
            client.quit().await?;
            Ok(sent)
        });
        Ok(GoodClient { stop, task })
    }

    /// The sum of a metric over its labels; `with` must be among them.
    pub(crate) async fn metric(&self, name: &str, with: &str) -> io::Result<u64> {
        let mut stream = TcpStream::connect(self.relay.http()).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        let samples = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(with)
        });
        let values: Vec<u64> = samples.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        if values.is_empty() {
            return Err(io::Error::other(format!("no metric {name} with {with:?}")));
        }
        Ok(values.iter().sum())
    }

    /// Waits until a metric has come to `wanted`; there is no event to wait for.
    pub(crate) async fn until(&self, name: &str, with: &str, wanted: impl Fn(u64) -> bool) -> io::Result<()> {
        let wait = async {
            while !wanted(self.metric(name, with).await?) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(done) => done,
            Err(_) => {
                let now = self.metric(name, with).await?;
                Err(io::Error::other(format!("{name} {with} stays at {now}")))
            }
        }
    }

    /// Asserts that the attack cost no more than this much memory at any moment.
    pub(crate) fn assert_bounded(&self, most: u64) -> io::Result<()> {
        let grown = self.peak()?.saturating_sub(self.peak_before);
        assert!(grown <= most, "memory grew by {grown} bytes");
        Ok(())
    }

    fn peak(&self) -> io::Result<u64> {
        let pid = self.relay.pid().ok_or_else(|| io::Error::other("the relay is gone"))?;
        Ok(Usage::of(pid)?.peak_rss)
    }
}

/// A client that must not notice the attack.
pub(crate) struct GoodClient {
    stop: Arc<AtomicBool>,
    task: JoinHandle<io::Result<u64>>,
}

impl GoodClient {
    /// Ends it; every one of its messages must have been accepted.
    pub(crate) async fn assert_served(self) -> Outcome {
        self.stop.store(true, Ordering::SeqCst);
        let sent = tokio::time::timeout(PATIENCE, self.task).await???;
        assert!(sent > 0, "the good client sent nothing");
        Ok(())
    }
}

async fn deliver(client: &mut Client) -> io::Result<()> {
    let content = load::message("a@good.example", "b@good.example", 1024);
    client.send("a@good.example", &["b@good.example"], &content).await?.expect(250)?;
    Ok(())
}

/// A connection from the loopback address 127.0.`network`.3: not the good client's network.
pub(crate) async fn attack_from(network: u8, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, network, 3)), 0))?;
    socket.connect(target).await
}

/// All that the server says until it closes.
pub(crate) async fn last_words(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<String> {
    let mut said = Vec::new();
    match tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await {
        Err(_) => return Err(io::Error::other("the server does not close")),
        // What was said before a reset counts all the same.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Ok(read) => drop(read?),
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// As much as the server takes; a server that closes in between is not an error here.
pub(crate) async fn pour(stream: &mut (impl tokio::io::AsyncWrite + Unpin), octets: &[u8], times: usize) -> usize {
    for count in 0..times {
        if stream.write_all(octets).await.is_err() {
            return count;
        }
    }
    times
}
