//! A mail host that says what a test tells it to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{BoxStream, SimListener, SimNet};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// What the host does at some point.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// What a well-behaved host says.
    Usual,
    /// This, line by line.
    Reply(&'static str),
    /// This, after a while; it counts as a positive reply.
    After(Duration, &'static str),
    /// This, then it closes.
    Last(&'static str),
    /// Nothing; it closes.
    Close,
    /// Nothing at all.
    Silence,
    /// This, an octet a second.
    Slow(&'static str),
    /// The same, over and over again; content is read as slowly.
    Drip(&'static str),
    /// Nothing, and nothing more is read.
    Deaf,
}

/// Where a host stands when its script is asked.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// `""` for the banner, `"content"` after its first line, `"."` for the
    /// end of the data, else the line.
    pub(crate) line: String,
    /// Where the connection comes from.
    pub(crate) from: IpAddr,
    /// Connections before this one.
    pub(crate) connection: usize,
    /// Messages taken over this connection before.
    pub(crate) taken: usize,
    /// Recipients taken in this transaction.
    pub(crate) named: usize,
}

type Script = dyn Fn(&Moment) -> Say + Send + Sync;

/// A running host.
#[derive(Clone)]
pub(crate) struct Server(Arc<Inner>);

struct Inner {
    script: Box<Script>,
    extensions: Vec<&'static str>,
    acceptor: Option<TlsAcceptor>,
    implicit: bool,
    seen: Mutex<Seen>,
    changed: Notify,
}

/// What a host has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    /// Open now, and the most at the same time.
    pub(crate) open: (usize, usize),
    /// All commands, over all connections.
    pub(crate) lines: Vec<String>,
    /// The messages taken, as they came over the wire, dots unstuffed.
    pub(crate) messages: Vec<String>,
}

impl Seen {
    /// The commands that begin with `verb`.
    pub(crate) fn with(&self, verb: &str) -> Vec<&str> {
        self.lines.iter().filter(|line| line.starts_with(verb)).map(String::as_str).collect()
    }
}

/// How to set a host up.
pub(crate) struct Setup {
    pub(crate) extensions: Vec<&'static str>,
    pub(crate) acceptor: Option<TlsAcceptor>,
    /// TLS from the first byte.
    pub(crate) implicit: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { extensions: vec!["PIPELINING", "8BITMIME", "SIZE 1000000", "DSN"], acceptor: None, implicit: false }
    }
}

impl Server {
    /// A well-behaved host.
    pub(crate) fn start(net: &SimNet, address: &str) -> Self {
        Self::scripted(net, address, |_| Say::Usual)
    }

    /// A host with this script.
    pub(crate) fn scripted(
        net: &SimNet,
        address: &str,
        script: impl Fn(&Moment) -> Say + Send + Sync + 'static,
    ) -> Self {
        Self::with(net, address, Setup::default(), script)
    }

    pub(crate) fn with(
        net: &SimNet,
        address: &str,
        setup: Setup,
        script: impl Fn(&Moment) -> Say + Send + Sync + 'static,
    ) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        Self::behind(net.listen(address), setup, script)
    }

    /// A host that takes the connections of `listener`.
    pub(crate) fn behind(
        mut listener: SimListener,
        setup: Setup,
        script: impl Fn(&Moment) -> Say + Send + Sync + 'static,
    ) -> Self {
        let server = Self(Arc::new(Inner {
            script: Box::new(script),
            extensions: setup.extensions,
            acceptor: setup.acceptor,
            implicit: setup.implicit,
            seen: Mutex::default(),
            changed: Notify::new(),
        }));
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, from) = listener.accept().await;
                tokio::spawn(accepting.clone().serve(stream, from.ip()));
            }
        });
        server
    }

    pub(crate) fn seen(&self) -> Seen {
        self.0.seen.lock().clone()
    }

    /// Waits until what was seen fulfils `condition`.
    pub(crate) async fn until(&self, condition: impl Fn(&Seen) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition(&self.0.seen.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.seen.lock());
        self.0.changed.notify_waiters();
    }

    async fn serve(self, stream: BoxStream, from: IpAddr) {
        let mut connection = 0;
        self.note(|seen| {
            connection = seen.connections;
            seen.connections += 1;
            seen.open.0 += 1;
            seen.open.1 = seen.open.1.max(seen.open.0);
        });
        let mut moment = Moment { line: String::new(), from, connection, taken: 0, named: 0 };
        let stream = match (&self.0.acceptor, self.0.implicit) {
            (Some(acceptor), true) => acceptor.accept(stream).await.map(|tls| Box::new(tls) as BoxStream).ok(),
            _ => Some(stream),
        };
        if let Some(stream) = stream {
            let rest = self.talk(stream, &mut moment, self.0.implicit).await;
            if let (Some(stream), Some(acceptor)) = (rest, &self.0.acceptor)
                && let Ok(tls) = acceptor.accept(stream).await
            {
                moment.line = "TLS".to_owned();
                self.talk(Box::new(tls), &mut moment, true).await;
            }
        }
        self.note(|seen| seen.open.0 -= 1);
    }

    /// Talks until the end, or gives the stream back for STARTTLS.
    async fn talk(&self, stream: BoxStream, moment: &mut Moment, is_tls: bool) -> Option<BoxStream> {
        let mut stream = BufReader::new(stream);
        if (!is_tls || self.0.implicit) && !self.say(&mut stream, moment, "220 mx ESMTP").await {
            return None;
        }
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            moment.line = line.trim_end().to_owned();
            self.note(|seen| seen.lines.push(moment.line.clone()));
            let verb = moment.line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let usual = match verb.as_str() {
                "DATA" if moment.named == 0 => "554 5.5.1 no valid recipients".to_owned(),
                "BDAT" => self.take_chunk(&mut stream, moment).await?,
                "EHLO" | "LHLO" => self.greeting(is_tls),
                "STARTTLS" => "220 go".to_owned(),
                "AUTH" => "235 ok".to_owned(),
                "DATA" => "354 go".to_owned(),
                "QUIT" => "221 bye".to_owned(),
                _ => "250 ok".to_owned(),
            };
            if !self.say(&mut stream, moment, &usual).await || verb == "QUIT" {
                return None;
            }
            if verb == "STARTTLS" && !matches!((self.0.script)(moment), Say::Reply(_)) {
                return Some(stream.into_inner());
            }
            let is_usual = matches!((self.0.script)(moment), Say::Usual | Say::Slow(_) | Say::After(..));
            match verb.as_str() {
                "MAIL" => moment.named = 0,
                "RCPT" if is_usual => moment.named += 1,
                _ => {}
            }
            if verb == "DATA" && is_usual && moment.named > 0 {
                self.take(&mut stream, moment).await?;
            }
        }
    }

    /// The only chunk of a message (RFC 3030), octet for octet.
    async fn take_chunk<S: AsyncRead + Unpin>(&self, stream: &mut S, moment: &mut Moment) -> Option<String> {
        let size = moment.line.strip_prefix("BDAT ")?.strip_suffix(" LAST")?.parse().ok()?;
        let mut chunk = vec![0; size];
        stream.read_exact(&mut chunk).await.ok()?;
        if moment.named == 0 {
            return Some("503 5.5.1 no valid recipients".to_owned());
        }
        moment.taken += 1;
        self.note(|seen| seen.messages.push(String::from_utf8(chunk).unwrap()));
        Some("250 2.0.0 taken".to_owned())
    }

    fn greeting(&self, is_tls: bool) -> String {
        let starttls = (self.0.acceptor.is_some() && !is_tls).then_some("STARTTLS");
        let mut lines = vec!["mx"];
        lines.extend(self.0.extensions.iter().copied().chain(starttls));
        let last = lines.len() - 1;
        let line = |(at, text): (usize, &&str)| format!("250{}{text}", if at == last { ' ' } else { '-' });
        lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\r\n")
    }

    async fn take<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut BufReader<S>,
        moment: &mut Moment,
    ) -> Option<()> {
        let mut message = String::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if line == ".\r\n" {
                break;
            }
            if message.is_empty() {
                moment.line = "content".to_owned();
                match (self.0.script)(moment) {
                    Say::Usual => {}
                    Say::Drip(_) => sip(stream).await,
                    _ => return self.say(stream, moment, "").await.then_some(()),
                }
            }
            message.push_str(line.strip_prefix('.').unwrap_or(&line));
        }
        moment.line = ".".to_owned();
        if matches!((self.0.script)(moment), Say::Usual) {
            moment.taken += 1;
            self.note(|seen| seen.messages.push(message));
            return self.write(stream, "250 2.0.0 taken").await;
        }
        self.note(|seen| seen.lines.push(".".to_owned()));
        self.say(stream, moment, "").await.then_some(())
    }

    /// Says what the script wants; false when the connection ends with it.
    async fn say<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut BufReader<S>,
        moment: &Moment,
        usual: &str,
    ) -> bool {
        match (self.0.script)(moment) {
            Say::Usual => self.write(stream, usual).await.is_some(),
            Say::Reply(text) => self.write(stream, text).await.is_some(),
            Say::After(wait, text) => {
                tokio::time::sleep(wait).await;
                self.write(stream, text).await.is_some()
            }
            Say::Last(text) => {
                self.write(stream, text).await;
                false
            }
            Say::Close => false,
            Say::Silence => {
                // Until the other side gives up.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                false
            }
            Say::Slow(text) => drip(stream, text.bytes()).await,
            Say::Drip(text) => drip(stream, text.bytes().cycle()).await,
            Say::Deaf => std::future::pending().await,
        }
    }

    async fn write<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut BufReader<S>, text: &str) -> Option<()> {
        stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
        stream.get_mut().flush().await.ok()
    }
}

/// Writes an octet a second. False when nobody listens any more.
async fn drip<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, octets: impl Iterator<Item = u8>) -> bool {
    for octet in octets {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if stream.get_mut().write_all(&[octet]).await.is_err() {
            return false;
        }
    }
    true
}

/// Reads an octet a second, to the end.
async fn sip<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) {
    let stream = stream.get_mut();
    while matches!(stream.read(&mut [0]).await, Ok(1)) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
