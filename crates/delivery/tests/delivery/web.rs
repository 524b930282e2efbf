//! A web server that replies what a test tells it to, and an authority that
//! signs certificates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{BoxStream, SimNet};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// An authority of a test's own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    /// The file with its certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// What a host of this name takes connections with.
    pub(crate) fn acceptor(&self, host: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What a server replies to every request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These bytes, and the end.
    Bytes(Vec<u8>),
    /// These bytes, one a second.
    Drip(Vec<u8>),
    /// Nothing.
    Silence,
}

impl Reply {
    /// A text with status 200.
    pub(crate) fn text(text: &str) -> Self {
        Self::status("200 OK", "text/plain", text)
    }

    pub(crate) fn status(status: &str, media_type: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n");
        Self::Bytes(format!("{head}{body}").into_bytes())
    }
}

/// A running server.
#[derive(Clone)]
pub(crate) struct Web(Arc<State>);

struct State {
    reply: Mutex<Reply>,
    requests: Mutex<Vec<Request>>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Request line and header.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Web {
    pub(crate) fn start(net: &SimNet, address: &str, acceptor: TlsAcceptor, reply: Reply) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let mut listener = net.listen(address);
        let web = Self(Arc::new(State { reply: Mutex::new(reply), requests: Mutex::default() }));
        let accepting = web.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await;
                tokio::spawn(accepting.clone().serve(acceptor.clone(), stream));
            }
        });
        web
    }

    pub(crate) fn now_replies(&self, reply: Reply) {
        *self.0.reply.lock() = reply;
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.0.requests.lock().clone()
    }

    async fn serve(self, acceptor: TlsAcceptor, stream: BoxStream) -> Option<()> {
        let mut stream = acceptor.accept(stream).await.ok()?;
        let mut read = Vec::new();
        let head = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            (stream.read_buf(&mut read).await.ok()? > 0).then_some(())?;
        };
        let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        while read.len() < head + length {
            (stream.read_buf(&mut read).await.ok()? > 0).then_some(())?;
        }
        let (head, body) = read.split_at(head);
        let head = String::from_utf8_lossy(head).into_owned();
        self.0.requests.lock().push(Request { head, body: body.to_vec() });
        let reply = self.0.reply.lock().clone();
        match reply {
            Reply::Bytes(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                stream.shutdown().await.ok()?;
            }
            Reply::Drip(bytes) => {
                for byte in bytes {
                    stream.write_all(&[byte]).await.ok()?;
                    stream.flush().await.ok()?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Reply::Silence => std::future::pending().await,
        }
        Some(())
    }
}
