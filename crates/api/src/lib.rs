//! HTTP: metrics, health, and the page that mailed links lead to. No logic in handlers, no authentication: what is
//! served here is no secret, and a link is its own proof.
//!
//! `/healthz` answers while the process runs, `/readyz` says whether the
//! relay takes mail and if not why, `/metrics` is for Prometheus.

mod bounded;
mod links;
mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use postrider_base::{Metrics, Scope, bind_tcp};

pub use links::{Confirmation, Links};
pub use settings::Settings;

/// Why the HTTP service did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can not be listened on: taken, or not ours. The
    /// operator's fault; passes when the configuration or the other program
    /// changes.
    #[error("listening on {address} for HTTP: {source}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// What the system answered.
        source: std::io::Error,
    },
}

/// Says why the relay is not ready; an empty list when it is. Asked at each
/// request, so it must be quick and must not block.
pub type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What is served.
#[derive(Clone)]
pub struct Sources {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/verify`; without it there is no such page.
    pub links: Option<Arc<dyn Links>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// Serves until the scope ends; requests that have begun are finished.
/// Returns the address that is listened on, none when the settings say so.
///
/// # Errors
/// [`Error::Bind`]
pub fn start(settings: &Settings, sources: Sources, scope: &Scope) -> Result<Option<SocketAddr>, Error> {
    let Some(address) = settings.listen else {
        return Ok(None);
    };
    let bind = || {
        let listener = bind_tcp(address, BACKLOG)?;
        Ok((listener.local_addr()?, listener))
    };
    let (local, listener) = bind().map_err(|source| Error::Bind { address, source })?;
    let ended = scope.token();
    scope.spawn("http", async move {
        let server = axum::serve(bounded::Bounded::new(listener), router(sources))
            .with_graceful_shutdown(ended.cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!("HTTP on {local} ended: {error}");
        }
    });
    Ok(Some(local))
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

fn router(sources: Sources) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(links::router())
        .with_state(sources)
}

async fn readyz(State(sources): State<Sources>) -> impl IntoResponse {
    let reasons = (sources.readiness)();
    match reasons.is_empty() {
        true => (StatusCode::OK, "ready\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
}

async fn metrics(State(sources): State<Sources>) -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)];
    (headers, sources.metrics.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: SocketAddr, path: &str) -> String {
        send(address, "GET", path).await
    }

    async fn send(address: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn on_any_port() -> Settings {
        Settings { listen: Some("127.0.0.1:0".parse().unwrap()) }
    }

    #[tokio::test]
    async fn serves_health_and_metrics_until_the_scope_ends() {
        let (scope, ready) = (Scope::new("test"), Arc::new(AtomicBool::new(false)));
        let metrics = Metrics::new();
        metrics.messages_accepted.inc();
        let asked = ready.clone();
        let readiness: Readiness = Arc::new(move || match asked.load(Ordering::SeqCst) {
            true => Vec::new(),
            false => vec!["recovering the spool".into()],
        });
        let sources = Sources { metrics, readiness, links: None };
        let address = start(&on_any_port(), sources, &scope).unwrap().unwrap();

        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        let answer = ask(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("recovering the spool\n"));
        ready.store(true, Ordering::SeqCst);
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
        let answer = ask(address, "/metrics").await;
        assert!(answer.contains("application/openmetrics-text"));
        assert!(answer.contains("\npostrider_messages_accepted_total 1\n"));
        assert!(ask(address, "/other").await.starts_with("HTTP/1.1 404 "));

        scope.close(Duration::from_secs(5)).await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    struct OneLink(AtomicBool);

    impl Links for OneLink {
        fn address(&self, token: &str) -> Result<String, String> {
            if token == "good" { Ok("\"<b>\"@example.com".to_owned()) } else { Err("It is <old>.".to_owned()) }
        }

        fn confirm<'a>(&'a self, token: &'a str) -> Confirmation<'a> {
            Box::pin(async move {
                let address = self.address(token)?;
                self.0.store(true, Ordering::SeqCst);
                Ok(address)
            })
        }
    }

    #[tokio::test]
    async fn a_link_is_confirmed_by_its_button_alone() {
        let scope = Scope::new("test");
        let links = Arc::new(OneLink(AtomicBool::new(false)));
        let sources = Sources { metrics: Metrics::new(), readiness: Arc::new(Vec::new), links: Some(links.clone()) };
        let address = start(&on_any_port(), sources, &scope).unwrap().unwrap();
        let page = ask(address, "/verify?t=good").await;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("&quot;&lt;b&gt;&quot;@example.com"), "{page}");
        assert!(page.contains("<form method=\"post\" action=\"?t=good\">"), "{page}");
        assert!(page.contains("no-store") && page.contains("no-referrer") && page.contains("frame-ancestors 'none'"));
        assert!(!links.0.load(Ordering::SeqCst), "looking confirms nothing");
        for wrong in ["/verify?t=old", "/verify?t=%3Cb%3E", "/verify"] {
            let refused = ask(address, wrong).await;
            assert!(refused.starts_with("HTTP/1.1 400 ") && !refused.contains("<old>"), "{refused}");
        }
        let posted = send(address, "POST", "/verify?t=good").await;
        assert!(posted.starts_with("HTTP/1.1 200 ") && posted.contains("is confirmed"), "{posted}");
        assert!(links.0.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_and_off_is_not() {
        let scope = Scope::new("test");
        let sources = Sources { metrics: Metrics::new(), readiness: Arc::new(Vec::new), links: None };
        let taken = start(&on_any_port(), sources.clone(), &scope).unwrap();
        let again = start(&Settings { listen: taken }, sources.clone(), &scope);
        assert!(matches!(again, Err(Error::Bind { .. })));
        let off = start(&Settings { listen: None }, sources, &scope).unwrap();
        assert_eq!(off, None);
    }
}
