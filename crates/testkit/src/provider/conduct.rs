//! How a host behaves, as data.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

/// A moment at which a host says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The connection is there.
    Banner,
    /// EHLO, in clear.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// The reply to STARTTLS is out, and the handshake should come.
    Handshake,
    /// EHLO inside TLS.
    EhloInTls,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The content begins.
    Content,
    /// The final dot.
    End,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
}

/// What a host does in place of the usual reply.
#[derive(Debug, Clone)]
pub enum Act {
    /// Says these octets, line ends and all, and goes on as the first octet of
    /// the last line means it.
    Say(Cow<'static, [u8]>),
    /// Says these octets and closes.
    Last(Cow<'static, [u8]>),
    /// Closes.
    Close,
    /// Breaks the connection off (RST).
    Reset,
    /// Reads on and says nothing.
    Silence,
    /// Neither reads nor says anything.
    Stall,
    /// Says these octets over and over, one after each wait.
    Drip(&'static [u8], Duration),
    /// Says these octets over and over, as fast as they are read.
    Flood(&'static [u8]),
}

impl Act {
    /// A reply of one line.
    #[must_use]
    pub fn reply(text: &str) -> Self {
        Self::Say(format!("{text}\r\n").into_bytes().into())
    }

    /// Octets as they are.
    #[must_use]
    pub fn say(octets: impl AsRef<[u8]>) -> Self {
        Self::Say(octets.as_ref().to_vec().into())
    }
}

/// How a host behaves. The default is what a well-behaved host does.
#[derive(Debug, Clone)]
pub struct Conduct {
    /// What it says it can, besides STARTTLS.
    pub extensions: Vec<&'static str>,
    /// With what it does TLS, if it does.
    pub tls: Option<Arc<ServerConfig>>,
    /// It does not say that it does TLS, or somebody on the way cuts that out.
    pub tls_stripped: bool,
    /// How long a sender, recipient and source address that come together for
    /// the first time have to wait before mail is taken.
    pub greylist: Option<Duration>,
    /// Messages that it takes over one connection; then it is 421 and over.
    pub messages_per_connection: Option<u32>,
    /// How long it thinks about each reply.
    pub tarpit: Duration,
    /// Where it does otherwise; the first for a point counts.
    pub acts: Vec<(Point, Act)>,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            extensions: vec!["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 100000000"],
            tls: None,
            tls_stripped: false,
            greylist: None,
            messages_per_connection: None,
            tarpit: Duration::ZERO,
            acts: Vec::new(),
        }
    }
}

impl Conduct {
    /// As usual, but for one thing.
    #[must_use]
    pub fn but(point: Point, act: Act) -> Self {
        Self { acts: vec![(point, act)], ..Self::default() }
    }

    /// Refuses with this reply.
    #[must_use]
    pub fn refusing(point: Point, reply: &str) -> Self {
        Self::but(point, Act::reply(reply))
    }

    /// As usual, with TLS by this certificate.
    #[must_use]
    pub fn with_tls(tls: Arc<ServerConfig>) -> Self {
        Self { tls: Some(tls), ..Self::default() }
    }

    /// And this as well.
    #[must_use]
    pub fn and(mut self, point: Point, act: Act) -> Self {
        self.acts.push((point, act));
        self
    }

    pub(super) fn act(&self, point: Point) -> Option<&Act> {
        self.acts.iter().find(|(at, _)| *at == point).map(|(_, act)| act)
    }
}
