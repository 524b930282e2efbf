//! The little of HTTPS that policies and reports need: one request over one
//! connection, to a host that strangers name. Redirects are not followed, and
//! the certificate has to be good.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use postrider_base::{BoxStream, Dialer};
use postrider_dns::Resolver;
use postrider_mail::sanitize_text;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::settings::{Settings, is_host_name};
use crate::target::{Permission, by_family, permission};

/// The port of HTTPS.
const PORT: u16 = 443;

/// Addresses of a host that are dialled.
const MOST_ADDRESSES: usize = 4;

/// The most of a reply's header that is read.
const MAX_HEADER: usize = 16 * 1024;

/// Makes requests.
pub(crate) struct Https<'a> {
    pub(crate) resolver: &'a dyn Resolver,
    pub(crate) dialer: &'a dyn Dialer,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) settings: &'a Settings,
}

/// Where a request goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Url {
    /// A name, never an address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query, from the first `/` on.
    pub(crate) path: String,
}

impl Url {
    /// Reads `https://HOST[:PORT][/PATH]`. Nothing else: no user, no fragment,
    /// nothing that is not printable ASCII.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("https://")).and(text.get(8..))?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
            None => (authority, PORT),
        };
        let is_path = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        let is_name = is_host_name(host) && host.parse::<IpAddr>().is_err();
        (is_path && is_name).then(|| Self { host: host.to_ascii_lowercase(), port, path: path.to_owned() })
    }

    fn authority(&self) -> String {
        match self.port {
            PORT => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }
}

/// What a host replied.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Without parameters, lower case; empty when none was given.
    pub(crate) media_type: String,
    pub(crate) body: Bytes,
}

/// Why there is no reply. The texts are printable lines.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum HttpsError {
    /// The host has no address that may be dialled, or none of them answers.
    #[error("no connection: {0}")]
    Connect(String),
    /// The host has not proved its name.
    #[error("certificate: {0}")]
    Certificate(String),
    /// There was no handshake for another reason.
    #[error("TLS: {0}")]
    Tls(String),
    /// What came is no HTTP, or it ended too soon.
    #[error("HTTP: {0}")]
    Http(String),
    /// The reply is longer than it may be.
    #[error("the reply is too long")]
    TooLong,
    /// It took too long.
    #[error("it took longer than allowed")]
    TimedOut,
}

impl Https<'_> {
    /// Fetches what is at `url`, at most `most` bytes.
    pub(crate) async fn get(&self, url: &Url, most: usize) -> Result<Response, HttpsError> {
        self.request(Request::builder().method(Method::GET), url, Bytes::new(), most).await
    }

    /// Hands `body` in at `url`.
    pub(crate) async fn post(&self, url: &Url, media_type: &'static str, body: Bytes) -> Result<Response, HttpsError> {
        let builder = Request::builder().method(Method::POST).header(header::CONTENT_TYPE, media_type);
        // Of the reply only the status counts.
        self.request(builder, url, body, MAX_HEADER).await
    }

    async fn request(
        &self,
        builder: hyper::http::request::Builder,
        url: &Url,
        body: Bytes,
        most: usize,
    ) -> Result<Response, HttpsError> {
        let request = builder
            .uri(&url.path)
            .header(header::HOST, url.authority())
            .header(header::USER_AGENT, HeaderValue::from_static("postrider"))
            .header(header::CONNECTION, HeaderValue::from_static("close"))
            .body(Full::new(body))
            .map_err(|error| HttpsError::Http(line(&error)))?;
        let exchange = async {
            let stream = self.connect(url).await?;
            exchange(stream, request, most).await
        };
        let limit = self.settings.timeouts.https.as_duration();
        timeout(limit, exchange).await.unwrap_or(Err(HttpsError::TimedOut))
    }

    /// A session with a host that has proved its name.
    async fn connect(&self, url: &Url) -> Result<TlsStream<BoxStream>, HttpsError> {
        let name = ServerName::try_from(url.host.clone()).map_err(|error| HttpsError::Connect(line(&error)))?;
        let answer = self.resolver.addresses(&url.host).await.map_err(|error| HttpsError::Connect(line(&error)))?;
        // Strangers do not make us dial inside.
        let allowed = |address: &IpAddr| permission(*address, self.settings) == Permission::Granted;
        let addresses: Vec<_> = answer.value.into_iter().filter(allowed).collect();
        let mut last = HttpsError::Connect("no address that may be dialled".to_owned());
        for address in by_family(addresses, self.settings.prefer_ipv4).into_iter().take(MOST_ADDRESSES) {
            match self.dial(SocketAddr::new(address, url.port)).await {
                Ok(stream) => {
                    let connected = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
                    return connected.map_err(|error| handshake_error(&error));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial(&self, address: SocketAddr) -> Result<BoxStream, HttpsError> {
        let limit = self.settings.timeouts.connect.as_duration();
        match timeout(limit, self.dialer.dial(address, None)).await {
            Ok(Ok(dialed)) => Ok(dialed.stream),
            Ok(Err(error)) => Err(HttpsError::Connect(line(&error))),
            Err(_) => Err(HttpsError::Connect("connection timed out".to_owned())),
        }
    }
}

async fn exchange(
    stream: TlsStream<BoxStream>,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Response, HttpsError> {
    let http = |error: hyper::Error| HttpsError::Http(line(&error));
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEADER).handshake(TokioIo::new(stream)).await.map_err(http)?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status().as_u16();
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        let body = Limited::new(response.into_body(), most).collect().await.map_err(|error| match error
            .is::<LengthLimitError>()
        {
            true => HttpsError::TooLong,
            false => HttpsError::Http(line(&error)),
        })?;
        Ok(Response { status, media_type, body: body.to_bytes() })
    };
    let mut talk = std::pin::pin!(talk);
    // The connection does the work; what it has read may outlive it.
    tokio::select! {
        biased;
        done = &mut talk => done,
        _ = connection => talk.await,
    }
}

fn handshake_error(error: &std::io::Error) -> HttpsError {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match reason {
        Some(rustls::Error::InvalidCertificate(reason)) => HttpsError::Certificate(line(&format!("{reason:?}"))),
        _ => HttpsError::Tls(line(error)),
    }
}

fn line(error: &(impl ToString + ?Sized)) -> String {
    sanitize_text(error.to_string(), 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_name_a_port_and_a_path() {
        let url = |text: &str| Url::parse(text).map(|url| (url.authority(), url.path));
        let shown = |authority: &str, path: &str| Some((authority.to_owned(), path.to_owned()));
        assert_eq!(url("HTTPS://Reports.Example/v1/tls?a=b"), shown("reports.example", "/v1/tls?a=b"));
        assert_eq!(url("https://reports.example:8443"), shown("reports.example:8443", "/"));
        for bad in [
            "http://reports.example/",
            "https://",
            "https:///path",
            "https://user@reports.example/",
            "https://192.0.2.1/",
            "https://[::1]/",
            "https://reports.example:0/",
            "https://reports.example:x/",
            "https://reports.example/a b",
            "https://reports.example/a\r\nX: y",
            "https://reports.example/#top",
            "https://b\u{fc}cher.example/",
            "",
        ] {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }
}
