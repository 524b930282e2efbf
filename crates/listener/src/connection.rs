//! One connection: reading, writing, TLS and time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postrider_base::metrics::{Held, Listener};
use postrider_base::{Clock, Metrics, Scope};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::admission::Admitted;
use crate::pace::Pace;
use crate::session::{Dialogue, Need};
use crate::tls::{ClientCertificate, failure_reason, info};
use crate::{Listen, Settings};

/// Room for commands. A buffer of it is all that a waiting connection holds.
const COMMAND_BUFFER: usize = 4 * 1024;
/// Most room for content at a time.
const MAX_BUFFER: usize = 64 * 1024;
/// RFC 5321 section 3.8: a server that has to stop says 421.
const STOPPING: &str = "4.3.2 Service shutting down, try again later";
/// Time for the last words to leave.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection and everything that bounds it.
pub(crate) struct Connection {
    pub(crate) dialogue: Dialogue,
    pub(crate) peer: SocketAddr,
    pub(crate) kind: Listener,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) listen: Arc<Listen>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Metrics,
    /// Cancelled: finish the message under way, then say goodbye.
    pub(crate) scope: Scope,
    pub(crate) clock: Clock,
    /// How long the client may take.
    pub(crate) pace: Pace,
    /// The client is no stranger any more, and its place knows.
    pub(crate) known: bool,
    pub(crate) input: BytesMut,
    /// The last read was for content.
    pub(crate) in_content: bool,
    pub(crate) place: Admitted,
    pub(crate) _open: Held,
}

/// Why a connection is over without a goodbye.
#[derive(Debug, thiserror::Error)]
enum Gone {
    #[error("closed by the client")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("gave way to another connection")]
    GivenWay,
    #[error("the client does not read")]
    Stuck,
    #[error("stopping")]
    Stopping,
}

impl Connection {
    /// Runs the connection to its end. `wrapped`: it begins with TLS.
    pub(crate) async fn run(mut self, stream: TcpStream, wrapped: bool) {
        tracing::debug!(session = self.dialogue.session.id(), peer = %self.peer, "connected");
        let result = match wrapped {
            true => self.inside_tls(stream).await,
            false => self.in_clear(stream).await,
        };
        match result {
            Ok(()) => tracing::debug!(session = self.dialogue.session.id(), "ended"),
            // Port probes and clients that hang up are daily business.
            Err(gone) => tracing::debug!(session = self.dialogue.session.id(), "ended: {gone}"),
        }
    }

    async fn in_clear(&mut self, mut stream: TcpStream) -> Result<(), Gone> {
        match self.talk(&mut stream).await? {
            Need::Tls => self.inside_tls(stream).await,
            _ => self.close(&mut stream).await,
        }
    }

    async fn inside_tls(&mut self, stream: TcpStream) -> Result<(), Gone> {
        // Boxed: the handshake's state must not stay in the connection's.
        let mut stream = Box::pin(self.handshake(stream)).await?;
        let (_, connection) = stream.get_ref();
        self.dialogue.tls_started(info(connection));
        if let Some([certificate, ..]) = connection.peer_certificates() {
            self.dialogue.certified(ClientCertificate::credential(&self.listen.client_certificates, certificate));
        }
        self.talk(&mut stream).await?;
        self.close(&mut stream).await
    }

    async fn handshake(&mut self, stream: TcpStream) -> Result<Box<TlsStream<TcpStream>>, Gone> {
        let accept = TlsAcceptor::from(self.tls.clone()).accept(stream);
        let limit = self.settings.handshake.as_duration();
        let accepted = tokio::select! {
            biased;
            accepted = timeout(limit, accept) => accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = self.scope.cancelled() => return Err(Gone::Stopping),
            () = self.place.given_way() => {
                self.metrics.connections_given_way.of(self.kind).inc();
                return Err(Gone::GivenWay);
            }
        };
        let counter = if accepted.is_ok() { &self.metrics.tls_handshakes } else { &self.metrics.tls_failures };
        counter.of(self.kind).inc();
        if let Err(error) = &accepted {
            self.metrics.tls_failure_reason.of(failure_reason(error)).inc();
        }
        accepted.map(Box::new).map_err(Gone::Handshake)
    }

    /// The dialogue, until it is over or wants TLS.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> Result<Need, Gone> {
        loop {
            let need = self.dialogue.go_on(&mut self.input).await;
            if !self.known && self.dialogue.is_known() {
                self.known = true;
                self.place.known();
                self.pace.known();
            }
            self.write(stream).await?;
            match need {
                Need::Input => self.read(stream).await?,
                Need::Flush => {}
                Need::Late => self.time_out(),
                Need::Pause(time) => {
                    tokio::select! {
                        () = tokio::time::sleep(time) => self.dialogue.let_fail(),
                        () = self.scope.cancelled() => self.dialogue.let_fail(),
                        () = self.place.given_way(), if !self.known => self.give_way(),
                    }
                }
                Need::Tls | Need::Close => return Ok(need),
            }
        }
    }

    async fn write<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> Result<(), Gone> {
        let output = self.dialogue.session.output();
        if output.is_empty() {
            return Ok(());
        }
        let writing = async {
            stream.write_all(output).await?;
            stream.flush().await
        };
        let patience = if self.known { self.settings.idle } else { self.settings.idle_before_auth };
        timeout(patience.as_duration(), writing).await.map_err(|_| Gone::Stuck)??;
        output.clear();
        let under_way = self.dialogue.session.content_octets() > 0;
        self.pace.answered(under_way, self.clock.instant());
        Ok(())
    }

    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<(), Gone> {
        let interruptible = self.dialogue.session.is_between_messages();
        if interruptible && self.scope.is_cancelled() {
            self.dialogue.end(421, STOPPING);
            return Ok(());
        }
        if self.is_over() {
            self.time_out();
            return Ok(());
        }
        self.make_room();
        let content = self.in_content;
        let deadline = self.pace.deadline(&self.settings, content, self.clock.instant());
        tokio::select! {
            biased;
            read = timeout_at(deadline, stream.read_buf(&mut self.input)) => match read {
                Ok(Ok(0)) => return Err(Gone::Closed),
                Ok(Ok(octets)) => self.pace.received(octets as u64, content, self.clock.instant()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => self.time_out(),
            },
            () = self.place.given_way(), if !self.known => self.give_way(),
            () = self.scope.cancelled(), if interruptible => self.dialogue.end(421, STOPPING),
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.pace.is_over(self.dialogue.session.is_receiving_content(), self.clock.instant())
    }

    /// The client takes too long, for what it is doing or all in all.
    fn time_out(&mut self) {
        self.metrics.connections_timed_out.of(self.kind).inc();
        match self.is_over() {
            // RFC 5321 section 3.8
            true => self.dialogue.end(421, "4.4.2 This session takes too long, connect again"),
            false => self.dialogue.end(451, "4.4.2 Timeout waiting for data from client"),
        }
    }

    /// Another connection needs the place.
    fn give_way(&mut self) {
        self.metrics.connections_given_way.of(self.kind).inc();
        self.dialogue.end(421, "4.7.0 Too many concurrent SMTP connections");
    }

    /// Room in the buffer for the next read: little for commands, more for content.
    fn make_room(&mut self) {
        let content = self.dialogue.session.is_receiving_content();
        if self.input.is_empty() && content != self.in_content {
            // A buffer of the right size for what comes now. The old one may
            // belong to a message: do not hold on to its rest.
            self.input = BytesMut::new();
        }
        let room = match (content, self.in_content) {
            (false, _) => COMMAND_BUFFER,
            (true, false) => self.dialogue.expected_content().clamp(COMMAND_BUFFER, MAX_BUFFER),
            (true, true) => (self.dialogue.room * 2).min(MAX_BUFFER),
        };
        self.in_content = content;
        if self.input.capacity() - self.input.len() < COMMAND_BUFFER / 2 {
            self.input.reserve(room);
            self.dialogue.room = room;
        }
    }

    /// Says goodbye: close_notify inside TLS, and the end of the stream.
    async fn close<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> Result<(), Gone> {
        timeout(GOODBYE, stream.shutdown()).await.map_err(|_| Gone::Stuck)??;
        Ok(())
    }
}
