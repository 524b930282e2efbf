//! A small SMTP client: enough to submit mail as applications do, and to say
//! things that they should not.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf as _, BytesMut};
use postrider_base::BoxStream;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Plaintext from beginning to end.
    None,
    /// EHLO, STARTTLS, EHLO (RFC 3207).
    StartTls,
    /// TLS from the first byte (RFC 8314).
    Wrapper,
}

/// Where and how to connect.
#[derive(Clone)]
pub struct Endpoint {
    /// The server's address.
    pub address: SocketAddr,
    /// STARTTLS, wrapper or nothing.
    pub security: Security,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.address).field("security", &self.security).finish()
    }
}

impl Endpoint {
    /// An endpoint whose certificate must be signed by one of `roots` for
    /// `name`; TLS sessions are resumed only when `resume`.
    ///
    /// # Errors
    /// A `name` that is neither a DNS name nor an IP address.
    pub fn new(
        address: SocketAddr,
        security: Security,
        name: &str,
        roots: rustls::RootCertStore,
        resume: bool,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resume {
            config.resumption = Resumption::disabled();
        }
        let name = ServerName::try_from(name.to_owned()).map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { address, security, tls: TlsConnector::from(Arc::new(config)), name })
    }

    /// Connects, reads the greeting, says EHLO and starts TLS as the endpoint
    /// asks; afterwards the client stands behind the last EHLO.
    ///
    /// # Errors
    /// The network's, TLS's, or an unexpected reply.
    pub async fn connect(&self) -> io::Result<Client> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let mut client = match self.security {
            Security::Wrapper => self.secure(Box::new(tcp)).await?,
            Security::None | Security::StartTls => Client::new(Box::new(tcp)),
        };
        client.reply().await?.expect(220)?;
        client.hello().await?;
        if self.security == Security::StartTls {
            client.command("STARTTLS").await?.expect(220)?;
            client = self.secure(client.stream).await?;
            client.hello().await?;
        }
        Ok(client)
    }
}

impl Endpoint {
    async fn secure(&self, stream: BoxStream) -> io::Result<Client> {
        let stream = self.tls.connect(self.name.clone(), stream).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let mut client = Client::new(Box::new(stream));
        client.resumed = resumed;
        Ok(client)
    }
}

/// One reply of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The text of each line, without code and separator.
    pub lines: Vec<String>,
}

impl Reply {
    /// The reply itself when it has this code.
    ///
    /// # Errors
    /// Any other code, with the whole reply as the message.
    pub fn expect(self, code: u16) -> io::Result<Self> {
        if self.code == code { Ok(self) } else { Err(io::Error::other(format!("expected {code}, got {self}"))) }
    }

    /// The last line's text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.lines.last().map_or("", String::as_str)
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" / "))
    }
}

/// A connection to an SMTP server.
pub struct Client {
    stream: BoxStream,
    input: BytesMut,
    /// Whether the TLS session of another connection was taken up again.
    pub resumed: bool,
    /// What the server announced last.
    pub capabilities: Vec<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

impl Client {
    /// A client on a stream; nothing is read yet.
    #[must_use]
    pub fn new(stream: BoxStream) -> Self {
        Self { stream, input: BytesMut::new(), resumed: false, capabilities: Vec::new() }
    }

    /// Says EHLO and keeps what the server announces.
    ///
    /// # Errors
    /// The network's, or a reply other than 250.
    pub async fn hello(&mut self) -> io::Result<()> {
        self.capabilities = self.command("EHLO client.test").await?.expect(250)?.lines;
        Ok(())
    }

    /// AUTH PLAIN with an initial response (RFC 4616).
    ///
    /// # Errors
    /// The network's, or a reply other than 235.
    pub async fn login(&mut self, user: &str, password: &str) -> io::Result<()> {
        let response = BASE64.encode(format!("\0{user}\0{password}"));
        self.command(&format!("AUTH PLAIN {response}")).await?.expect(235)?;
        Ok(())
    }

    /// Sends one line and reads its reply.
    ///
    /// # Errors
    /// The network's.
    pub async fn command(&mut self, line: &str) -> io::Result<Reply> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends one message: MAIL, RCPTs and DATA in one write, then the content,
    /// which must be dot-stuffed and end with CRLF. The reply is the last one,
    /// or the first refusal of MAIL or DATA.
    ///
    /// # Errors
    /// The network's.
    pub async fn send(&mut self, sender: &str, recipients: &[&str], content: &[u8]) -> io::Result<Reply> {
        if let Err(refused) = self.begin(sender, recipients).await? {
            return Ok(refused);
        }
        self.finish(content).await
    }

    /// The envelope, up to the 354; the refusal when there is none.
    ///
    /// # Errors
    /// The network's.
    pub async fn begin(&mut self, sender: &str, recipients: &[&str]) -> io::Result<Result<(), Reply>> {
        let mut commands = format!("MAIL FROM:<{sender}>\r\n");
        for recipient in recipients {
            commands.push_str(&format!("RCPT TO:<{recipient}>\r\n"));
        }
        commands.push_str("DATA\r\n");
        self.write(commands.as_bytes()).await?;
        let mail = self.reply().await?;
        for _ in recipients {
            self.reply().await?;
        }
        let data = self.reply().await?;
        Ok(match (mail.code, data.code) {
            (250, 354) => Ok(()),
            (250, _) => Err(data),
            _ => Err(mail),
        })
    }

    /// The content and the final dot, and what the server says to it.
    ///
    /// # Errors
    /// The network's.
    pub async fn finish(&mut self, content: &[u8]) -> io::Result<Reply> {
        self.stream.write_all(content).await?;
        self.write(b".\r\n").await?;
        self.reply().await
    }

    /// QUIT, and waits for the server to close.
    ///
    /// # Errors
    /// The network's, or a reply other than 221.
    pub async fn quit(mut self) -> io::Result<()> {
        self.command("QUIT").await?.expect(221)?;
        Ok(())
    }

    /// Sends these bytes as they are.
    ///
    /// # Errors
    /// The network's.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads one reply, of one line or several (RFC 5321 section 4.2.1).
    ///
    /// # Errors
    /// The network's, the end of the stream, or bytes that are no reply.
    pub async fn reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let Some(code) = code else {
                return Err(io::Error::other(format!("not a reply: {line:?}")));
            };
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line = String::from_utf8_lossy(&self.input[..end]).trim_end().to_owned();
                self.input.advance(end + 1);
                return Ok(line);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
