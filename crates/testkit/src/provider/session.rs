//! One connection to a host that is acted out.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Act, Conduct, Keep, Point, Shared, Taken};
use crate::sink::{Received, end_of_data, path};

/// Talks until one of the two has enough.
pub(super) async fn serve(stream: TcpStream, shared: &Shared, host: IpAddr, from: IpAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session {
        conduct: shared.conduct(host),
        shared,
        host,
        from,
        stream: Stream::Clear(stream),
        input: BytesMut::with_capacity(16 * 1024),
        output: Vec::new(),
        transaction: None,
        taken: 0,
    };
    session.answer(Point::Banner, "220 mx.test ESMTP").await?;
    loop {
        while let Some(line) = session.line() {
            session.command(line.trim_end()).await?;
        }
        session.flush().await?;
        session.read().await?;
    }
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// While the handshake goes on.
    Between,
}

#[derive(Default)]
struct Transaction {
    sender: String,
    recipients: Vec<String>,
}

struct Session<'s> {
    conduct: Arc<Conduct>,
    shared: &'s Shared,
    host: IpAddr,
    from: IpAddr,
    stream: Stream,
    input: BytesMut,
    output: Vec<u8>,
    /// Since MAIL was answered with yes.
    transaction: Option<Transaction>,
    /// Messages taken over this connection.
    taken: u32,
}

/// The last line of a reply counts.
fn means_yes(reply: &[u8]) -> bool {
    let last = reply.trim_ascii_end().rsplit(|octet| *octet == b'\n').next();
    matches!(last.and_then(<[u8]>::first), Some(b'2' | b'3'))
}

/// What ends a session from inside.
fn over() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl Session<'_> {
    async fn command(&mut self, line: &str) -> io::Result<()> {
        let encrypted = matches!(self.stream, Stream::Tls(_));
        if self.shared.keep == Keep::All {
            self.shared.note(self.host, |seen| seen.commands.push((encrypted, line.to_owned())));
        }
        let verb = line.get(..4).unwrap_or(line).to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                let point = if encrypted { Point::EhloInTls } else { Point::Ehlo };
                self.answer(point, &self.greeting(encrypted)).await.map(drop)
            }
            "HELO" => self.answer(Point::Helo, "250 mx.test").await.map(drop),
            "STAR" if self.conduct.tls.is_some() && !encrypted => self.start_tls().await,
            "MAIL" => self.mail(line).await,
            "RCPT" => self.rcpt(line).await,
            "DATA" => self.data().await,
            "RSET" => {
                self.transaction = None;
                self.answer(Point::Rset, "250 Ok").await.map(drop)
            }
            "NOOP" => self.say("250 Ok"),
            "QUIT" => {
                self.answer(Point::Quit, "221 bye").await?;
                self.close().await
            }
            _ => self.say("502 not implemented"),
        }
    }

    fn greeting(&self, encrypted: bool) -> String {
        let tls = self.conduct.tls.is_some() && !self.conduct.tls_stripped && !encrypted;
        let mut lines = vec!["mx.test"];
        lines.extend(self.conduct.extensions.iter().copied().chain(tls.then_some("STARTTLS")));
        let last = lines.len() - 1;
        let line = |(at, text): (usize, &&str)| format!("250{}{text}", if at == last { ' ' } else { '-' });
        lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\r\n")
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        if !self.answer(Point::StartTls, "220 go").await? {
            return Ok(());
        }
        self.flush().await?;
        if self.conduct.act(Point::Handshake).is_some() {
            self.answer(Point::Handshake, "").await?;
            return self.flush().await;
        }
        let config = self.conduct.tls.clone().ok_or_else(over)?;
        let Stream::Clear(stream) = std::mem::replace(&mut self.stream, Stream::Between) else { return Err(over()) };
        self.input.clear();
        self.stream = Stream::Tls(Box::new(TlsAcceptor::from(config).accept(stream).await?));
        Ok(())
    }

    async fn mail(&mut self, line: &str) -> io::Result<()> {
        if self.conduct.messages_per_connection.is_some_and(|most| self.taken >= most) {
            self.say("421 4.7.0 Too many messages over one connection, come again")?;
            return self.close().await;
        }
        if self.answer(Point::Mail, "250 2.1.0 Ok").await? {
            self.transaction = Some(Transaction { sender: path(line), recipients: Vec::new() });
        }
        Ok(())
    }

    async fn rcpt(&mut self, line: &str) -> io::Result<()> {
        let address = path(line);
        let Some(transaction) = &self.transaction else { return self.say("503 5.5.1 MAIL first") };
        if let Some(wait) = self.conduct.greylist {
            let stranger = (transaction.sender.clone(), address.clone(), self.from, self.host);
            if !self.shared.knows(stranger, wait) {
                return self.say("451 4.7.1 Greylisted, please try again later");
            }
        }
        if self.answer(Point::Rcpt, "250 2.1.5 Ok").await? {
            self.transaction.get_or_insert_default().recipients.push(address);
        }
        Ok(())
    }

    async fn data(&mut self) -> io::Result<()> {
        if self.transaction.as_ref().is_none_or(|transaction| transaction.recipients.is_empty()) {
            return self.say("554 5.5.1 no valid recipients");
        }
        if !self.answer(Point::Data, "354 go on").await? {
            return Ok(());
        }
        self.flush().await?;
        if self.conduct.act(Point::Content).is_some() {
            // Some of it, so that it has begun.
            self.read().await?;
            self.answer(Point::Content, "").await?;
            self.flush().await?;
        }
        let content = self.content().await?;
        self.shared.note(self.host, |seen| seen.dots += 1);
        if self.answer(Point::End, "250 2.0.0 Ok: queued").await? {
            self.take(content);
        }
        Ok(())
    }

    /// Everything up to the final dot.
    async fn content(&mut self) -> io::Result<Bytes> {
        let mut searched = 0;
        loop {
            if let Some(end) = end_of_data(&self.input, &mut searched) {
                let mut content = self.input.split_to(end + 3);
                content.truncate(end);
                return Ok(content.freeze());
            }
            self.read().await?;
        }
    }

    fn take(&mut self, content: Bytes) {
        self.taken += 1;
        let done = self.transaction.take().unwrap_or_default();
        let received = Received { sender: done.sender, recipients: done.recipients, content };
        let encrypted = matches!(self.stream, Stream::Tls(_));
        let taken = Taken { received, encrypted, from: self.from, at: self.shared.clock.instant() };
        let keeps = self.shared.keep == Keep::All;
        self.shared.note(self.host, |seen| {
            seen.taken += 1;
            if keeps {
                seen.messages.push(taken);
            }
        });
    }

    /// Says the usual, or does what the conduct has for this point instead;
    /// true when what was said means yes.
    async fn answer(&mut self, point: Point, usual: &str) -> io::Result<bool> {
        if !self.conduct.tarpit.is_zero() {
            self.flush().await?;
            tokio::time::sleep(self.conduct.tarpit).await;
        }
        let Some(act) = self.conduct.act(point).cloned() else {
            self.say(usual)?;
            return Ok(usual.starts_with(['2', '3']));
        };
        self.flush().await?;
        match act {
            Act::Say(octets) => {
                self.write(&octets).await?;
                Ok(means_yes(&octets))
            }
            Act::Last(octets) => {
                self.write(&octets).await?;
                self.close().await.map(|()| false)
            }
            Act::Close => self.close().await.map(|()| false),
            Act::Reset => self.reset(),
            Act::Silence => loop {
                self.input.clear();
                self.read().await?;
            },
            Act::Stall => std::future::pending().await,
            Act::Drip(octets, wait) => loop {
                for octet in octets {
                    tokio::time::sleep(wait).await;
                    self.write(&[*octet]).await?;
                }
            },
            Act::Flood(octets) => {
                let block = octets.repeat((64 * 1024 / octets.len()).max(1));
                loop {
                    self.write(&block).await?;
                }
            }
        }
    }

    fn say(&mut self, reply: &str) -> io::Result<()> {
        self.output.extend_from_slice(reply.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            let output = std::mem::take(&mut self.output);
            self.write(&output).await?;
        }
        Ok(())
    }

    async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Clear(stream) => stream.write_all(octets).await,
            Stream::Tls(stream) => {
                stream.write_all(octets).await?;
                stream.flush().await
            }
            Stream::Between => Err(over()),
        }
    }

    /// Reads more; the end of the stream is an error.
    async fn read(&mut self) -> io::Result<()> {
        self.input.reserve(16 * 1024);
        let count = match &mut self.stream {
            Stream::Clear(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Tls(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Between => 0,
        };
        if count == 0 { Err(over()) } else { Ok(()) }
    }

    fn line(&mut self) -> Option<String> {
        let end = memchr::memchr(b'\n', &self.input)?;
        let line = self.input.split_to(end + 1);
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    /// Closes in order: what was said arrives.
    async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        match &mut self.stream {
            Stream::Clear(stream) => stream.shutdown().await?,
            Stream::Tls(stream) => stream.shutdown().await?,
            Stream::Between => {}
        }
        // Unread input would turn the end into a reset.
        let rest = async {
            while self.read().await.is_ok() {
                self.input.clear();
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
        Err(over())
    }

    /// The socket answers with RST when it is dropped.
    fn reset(&mut self) -> io::Result<bool> {
        let socket = match &self.stream {
            Stream::Clear(stream) => stream.as_fd(),
            Stream::Tls(stream) => stream.get_ref().0.as_fd(),
            Stream::Between => return Err(over()),
        };
        rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
        Err(over())
    }
}
