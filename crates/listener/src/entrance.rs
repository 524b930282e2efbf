//! From an accepted connection to a session: whose it is, whether there is a
//! place for it, and what its client may do.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use postrider_base::metrics::{Held, Listener, Refusal};
use postrider_submission::{Refusal as Refused, Verdict};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::admission::{Admitted, Bounds, Full};
use crate::connection::Connection;
use crate::listeners::{Conditions, Shared};
use crate::pace::Pace;
use crate::proxy;
use crate::role::Role;
use crate::session::Dialogue;
use crate::{Listen, ListenRole, ListenTls, Settings};

/// Pause after the system could not give a connection.
const BREATH: std::time::Duration = std::time::Duration::from_millis(500);
/// Connections of load balancers whose header is being read, for each listener.
const INTRODUCTIONS: usize = 1_024;
/// Length of a session's id.
const ID_LENGTH: usize = 20;

/// A door: one listener of the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listen: Arc<Listen>,
    kind: Listener,
    introductions: Arc<Semaphore>,
}

/// Who is at the door.
#[derive(Debug, Clone, Copy)]
struct Visitor {
    /// The client's address, as far as we know it.
    address: SocketAddr,
    /// Whether the address is the client's for certain, so that it can stand for a credential.
    certain: bool,
}

impl Entrance {
    pub(crate) fn new(shared: Arc<Shared>, listen: Arc<Listen>) -> Entrance {
        let kind = kind(&listen);
        Entrance { shared, listen, kind, introductions: Arc::new(Semaphore::new(INTRODUCTIONS)) }
    }

    /// Takes connections until the listeners stop.
    pub(crate) async fn accept(self, socket: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = self.shared.scope.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.receive(stream, peer),
                // The client hung up while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(listener = %self.listen.address, "no connection can be accepted: {error}");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    fn receive(&self, stream: TcpStream, peer: SocketAddr) {
        let proxies = &self.listen.proxy_from;
        if proxies.iter().any(|proxy| proxy.contains(peer.ip())) {
            self.shared.scope.spawn("proxied connection", self.clone().introduce(stream, peer));
        } else {
            // Where balancers are, who comes without one is nobody's to vouch for.
            self.welcome(stream, Visitor { address: peer, certain: proxies.is_empty() });
        }
    }

    /// Lets a load balancer say whom it brings.
    async fn introduce(self, mut stream: TcpStream, peer: SocketAddr) {
        let Ok(_place) = self.introductions.clone().try_acquire_owned() else {
            return self.turn_away(stream, peer, Refusal::TooMany);
        };
        let limit = self.shared.live.load().of(self.kind).settings.handshake.as_duration();
        let header = tokio::select! {
            header = timeout(limit, proxy::client(&mut stream)) => header,
            () = self.shared.scope.cancelled() => return,
        };
        let visitor = match header.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Some(address)) => Visitor { address, certain: true },
            Ok(None) => Visitor { address: peer, certain: false },
            Err(error) => {
                tracing::debug!(%peer, "no header of the PROXY protocol: {error}");
                return self.count_refusal(Refusal::NoProxyHeader);
            }
        };
        self.welcome(stream, visitor);
    }

    fn welcome(&self, stream: TcpStream, visitor: Visitor) {
        let peer = visitor.address;
        let live = self.shared.live.load();
        let conditions = live.of(self.kind);
        let place = match self.place(peer.ip(), &conditions.settings) {
            Ok(place) => place,
            Err(reason) => return self.turn_away(stream, peer, reason),
        };
        self.shared.deps.metrics.connections_accepted.of(self.kind).inc();
        // Replies are small and waited for (RFC 896 would hold them back).
        let _ = stream.set_nodelay(true);
        let Some(connection) = self.connection(conditions, visitor, place) else { return };
        let wrapped = self.listen.tls == ListenTls::TlsWrapper;
        self.shared.scope.spawn("session", connection.run(stream, wrapped));
    }

    fn place(&self, address: IpAddr, settings: &Settings) -> Result<Admitted, Refusal> {
        let submission = &self.shared.deps.submission;
        if let Verdict::Banned { .. } = submission.guard().check(address) {
            return Err(Refusal::Banned);
        }
        // After a failed write nothing is accepted any more, until the restart.
        if submission.check_mail(0) == Err(Refused::Unavailable) {
            return Err(Refusal::SpoolFailed);
        }
        let bounds = Bounds {
            total: settings.max_connections,
            address: settings.max_connections_per_address,
            network: settings.max_connections_per_network,
            strangers: settings.max_unauthenticated,
        };
        self.shared.crowd(self.kind).admission.admit(address, &bounds).map_err(|full| match full {
            Full::Total => Refusal::TooMany,
            Full::Address => Refusal::TooManyFromAddress,
            Full::Network => Refusal::TooManyFromNetwork,
        })
    }

    fn connection(&self, conditions: &Conditions, visitor: Visitor, place: Admitted) -> Option<Connection> {
        let Shared { deps, service, tls, scope, .. } = &*self.shared;
        let Conditions { settings, profile } = conditions;
        let peer = visitor.address;
        let (now, feedback) = (deps.clock.instant(), &settings.feedback);
        let pace = Pace::new(now + settings.auth_within.as_duration());
        let pace = match self.listen.role {
            ListenRole::Submission => pace,
            ListenRole::Feedback => pace.until(now + feedback.session_time.as_duration()),
        };
        let role = match self.listen.role {
            ListenRole::Submission => Role::submission(service.submission.clone()),
            // Without one there is no such listener.
            ListenRole::Feedback => Role::feedback(service.feedback.clone()?, feedback.max_unknown_recipients),
        };
        let (id, ip) = (deps.random.alphanumeric(ID_LENGTH), peer.ip().to_canonical());
        let memory = (self.shared.crowd(self.kind).memory.share(), settings.content_memory.bytes());
        let mut dialogue = Dialogue::new(role, profile.clone(), id, ip, memory, service);
        dialogue.ends = pace.ends();
        if visitor.certain {
            self.identify(ip, &mut dialogue);
        }
        Some(Connection {
            dialogue,
            peer,
            kind: self.kind,
            tls: tls.config(&self.listen.client_ca),
            listen: self.listen.clone(),
            pace,
            known: false,
            clock: deps.clock.clone(),
            settings: settings.clone(),
            metrics: deps.metrics.clone(),
            scope: scope.clone(),
            input: BytesMut::new(),
            in_content: false,
            place,
            _open: Held::new(deps.metrics.connections_open.of(self.kind)),
        })
    }

    /// A client whose address stands for a credential needs neither AUTH nor TLS.
    fn identify(&self, ip: IpAddr, dialogue: &mut Dialogue) {
        let Some(credential) = self.listen.credential_of(ip) else { return };
        match self.shared.deps.submission.credential(credential) {
            Ok(who) => {
                dialogue.identify(who);
                dialogue.session.allow_clear();
            }
            Err(_) => tracing::warn!(
                listener = %self.listen.address, client = %ip, credential,
                "relay_from names a credential that is disabled or does not exist"
            ),
        }
    }

    /// Says why, where that costs nothing: never waits, never starts TLS.
    fn turn_away(&self, stream: TcpStream, peer: SocketAddr, reason: Refusal) {
        tracing::debug!(%peer, ?reason, "connection turned away");
        self.count_refusal(reason);
        if self.listen.tls == ListenTls::StartTls
            && let Ok(mut stream) = stream.into_std()
        {
            let (status, text) = match reason {
                Refusal::Banned => ("4.7.0 ", "Too many authentication failures, try again later"),
                Refusal::SpoolFailed => ("4.3.0 ", "Temporary service failure"),
                _ => ("4.7.0 ", "Too many concurrent SMTP connections"),
            };
            let enhanced = self.shared.live.load().of(self.kind).settings.enhanced_status_codes;
            let status = if enhanced { status } else { "" };
            // A fresh connection has room for one line; whoever does not get it sees the close.
            let _ = stream.write(format!("421 {status}{text}\r\n").as_bytes());
        }
    }

    fn count_refusal(&self, reason: Refusal) {
        let metrics = &self.shared.deps.metrics;
        metrics.connections_refused.of(self.kind).inc();
        metrics.connections_refused_reason.of(reason).inc();
    }
}

/// The kind of a listener: who comes by it, and how.
fn kind(listen: &Listen) -> Listener {
    match (listen.role, listen.tls) {
        (ListenRole::Submission, ListenTls::StartTls) => Listener::SubmissionStartTls,
        (ListenRole::Submission, ListenTls::TlsWrapper) => Listener::SubmissionTls,
        (ListenRole::Feedback, _) => Listener::Feedback,
    }
}
