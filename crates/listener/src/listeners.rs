//! All listeners: binding, accepting, reloading, draining.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use postrider_base::metrics::{Held, Listener, Refusal};
use postrider_base::{Clock, Disk, Late, Metrics, Random, Scope, Traces, bind_tcp};
use postrider_smtp::{BareLineFeed, Profile, SessionLimits, TlsMode};
use postrider_submission::{Refusal as Refused, Submission};
use tokio::net::{TcpListener, TcpStream};

use crate::admission::{Admission, Full};
use crate::connection::Connection;
use crate::session::Dialogue;
use crate::settings::BareLineFeeds;
use crate::tls::{Home, Tls};
use crate::{Error, Listen, ListenAddress, ListenTls, Settings, TlsSettings};

/// Connections that may wait to be accepted, for each listener.
const BACKLOG: i32 = 1024;
/// Pause after the system could not give a connection.
const BREATH: Duration = Duration::from_millis(500);
/// Length of a session's id.
const ID_LENGTH: usize = 20;

/// What listeners work with.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Who takes the mail.
    pub submission: Submission,
    /// What time it is.
    pub clock: Clock,
    /// For session ids.
    pub random: Random,
    /// Where to count.
    pub metrics: Metrics,
    /// Where the self-signed certificate is kept, if one is needed.
    pub disk: Arc<dyn Disk>,
    /// Its directory, `keys` in the state directory.
    pub keys: PathBuf,
    /// Where transcripts go.
    pub traces: Traces,
}

/// Listeners that take connections.
#[derive(Debug)]
pub struct Listeners {
    shared: Arc<Shared>,
    listen: Vec<Listen>,
    bound: Vec<(SocketAddr, Listen)>,
}

#[derive(Debug)]
struct Shared {
    deps: Deps,
    tls: Arc<Tls>,
    admission: Admission,
    live: ArcSwap<Live>,
    scope: Scope,
}

/// What a reload can change.
#[derive(Debug)]
struct Live {
    settings: Arc<Settings>,
    starttls: Arc<Profile>,
    wrapper: Arc<Profile>,
}

impl Listeners {
    /// Binds all addresses, reads the certificate, and takes connections until
    /// `scope` is cancelled. The settings have been validated.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::Certificate`] or [`Error::SelfSigned`]; nothing listens then.
    pub fn start(
        listen: &[Listen],
        settings: &Settings,
        tls: &TlsSettings,
        deps: Deps,
        scope: &Scope,
    ) -> Result<Listeners, Error> {
        let hostname = deps.submission.settings().hostname().to_owned();
        let home = Home { disk: deps.disk.clone(), directory: deps.keys.clone(), hostname };
        let tls = Arc::new(Tls::new(tls, home)?);
        let mut sockets = Vec::new();
        for one in listen {
            for socket in bind(one.address)? {
                sockets.push((socket, *one));
            }
        }
        let scope = scope.child("listener");
        let live = ArcSwap::from_pointee(Live::new(settings, &deps.submission));
        let shared = Arc::new(Shared { tls, admission: Admission::default(), live, scope: scope.clone(), deps });
        let mut bound = Vec::new();
        for (socket, one) in sockets {
            let address = socket.local_addr().map_err(|source| Error::Bind { address: one.address, source })?;
            bound.push((address, one));
            scope.spawn(format!("accept {address}"), shared.clone().accept(socket, one));
        }
        scope.spawn("certificate", shared.tls.clone().watch(scope.clone()));
        Ok(Listeners { shared, listen: listen.to_vec(), bound })
    }

    /// The addresses that are listened on, in the order of the configuration;
    /// with the port that the system chose where 0 was asked for.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, Listen)> + '_ {
        self.bound.iter().copied()
    }

    /// Takes over what can change while connections are open: everything in
    /// [`Settings`] for new connections, and the certificate, which is read
    /// again in any case. Returns what needs a restart instead.
    ///
    /// # Errors
    /// [`Error::Certificate`] or [`Error::SelfSigned`]: everything stays as it was.
    pub fn reload(&self, listen: &[Listen], settings: &Settings, tls: &TlsSettings) -> Result<Vec<String>, Error> {
        self.shared.tls.reload(tls)?;
        self.shared.live.store(Arc::new(Live::new(settings, &self.shared.deps.submission)));
        let changed = listen != self.listen;
        Ok(changed.then(|| "listener".to_owned()).into_iter().collect())
    }

    /// Stops: nothing new is accepted, every session finishes the message that
    /// it is in and then gets 421. Waits until all have ended, or the deadline.
    ///
    /// # Errors
    /// The sessions that were late, and have been cut off.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Late> {
        self.shared.scope.clone().close(deadline).await
    }
}

impl Live {
    fn new(settings: &Settings, submission: &Submission) -> Live {
        let rules = submission.settings();
        let profile = |tls| {
            let mut profile = Profile::submission(rules.hostname(), tls);
            profile.limits = SessionLimits {
                max_message_bytes: rules.max_message_bytes.bytes(),
                max_recipients: rules.max_recipients as usize,
                max_line_bytes: settings.max_line_bytes,
                max_errors: settings.max_errors,
                max_idle_commands: settings.max_idle_commands,
                max_auth_failures: settings.max_auth_failures,
                ..SessionLimits::default()
            };
            profile.enhanced_status_codes = settings.enhanced_status_codes;
            profile.bare_line_feed = match settings.bare_line_feeds {
                BareLineFeeds::Convert => BareLineFeed::Convert,
                BareLineFeeds::Reject => BareLineFeed::Reject,
            };
            Arc::new(profile)
        };
        Live {
            settings: Arc::new(settings.clone()),
            starttls: profile(TlsMode::StartTls),
            wrapper: profile(TlsMode::Wrapper),
        }
    }
}

impl Shared {
    async fn accept(self: Arc<Shared>, socket: TcpListener, listen: Listen) {
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = self.scope.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.welcome(stream, peer, listen.tls),
                // The client hung up while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(listener = %listen.address, "no connection can be accepted: {error}");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    fn welcome(&self, stream: TcpStream, peer: SocketAddr, mode: ListenTls) {
        let metrics = &self.deps.metrics;
        let kind = label(mode);
        let live = self.live.load_full();
        let settings = &live.settings;
        let place = self.admission.admit(peer.ip(), settings.max_connections, settings.max_connections_per_address);
        let place = match place {
            Ok(place) if !self.has_failed() => place,
            refused => {
                let (reason, reply) = match refused {
                    Ok(_) => (Refusal::SpoolFailed, "421 Temporary service failure\r\n"),
                    Err(Full::Total) => (Refusal::TooMany, "421 Too many concurrent SMTP connections\r\n"),
                    Err(Full::Address) => (Refusal::TooManyFromAddress, "421 Too many concurrent SMTP connections\r\n"),
                };
                metrics.connections_refused.of(kind).inc();
                metrics.connections_refused_reason.of(reason).inc();
                tracing::debug!(%peer, ?reason, "connection turned away");
                return turn_away(stream, mode, reply);
            }
        };
        metrics.connections_accepted.of(kind).inc();
        let id = self.deps.random.alphanumeric(ID_LENGTH);
        let profile = match mode {
            ListenTls::StartTls => &live.starttls,
            ListenTls::TlsWrapper => &live.wrapper,
        };
        let ip = peer.ip().to_canonical();
        let connection = Connection {
            dialogue: Dialogue::new(profile.clone(), id, ip, self.deps.submission.clone(), metrics.clone()),
            peer,
            kind,
            tls: self.tls.clone(),
            auth_by: self.deps.clock.instant() + settings.auth_within.as_duration(),
            clock: self.deps.clock.clone(),
            settings: settings.clone(),
            metrics: metrics.clone(),
            scope: self.scope.clone(),
            input: BytesMut::new(),
            in_content: false,
            _open: Held::new(metrics.connections_open.of(kind)),
            _place: place,
        };
        // Replies are small and waited for (RFC 896 would hold them back).
        let _ = stream.set_nodelay(true);
        self.scope.spawn("session", connection.run(stream, mode == ListenTls::TlsWrapper));
    }

    /// After a failed write nothing is accepted any more, until the restart.
    fn has_failed(&self) -> bool {
        self.deps.submission.check_mail(0) == Err(Refused::Unavailable)
    }
}

fn label(mode: ListenTls) -> Listener {
    match mode {
        ListenTls::StartTls => Listener::SubmissionStartTls,
        ListenTls::TlsWrapper => Listener::SubmissionTls,
    }
}

/// Says why, where that costs nothing: never waits, never starts TLS.
fn turn_away(stream: TcpStream, mode: ListenTls, reply: &str) {
    if mode == ListenTls::StartTls
        && let Ok(mut stream) = stream.into_std()
    {
        // A fresh connection has room for one line; whoever does not get it sees the close.
        let _ = stream.write(reply.as_bytes());
    }
}

fn bind(address: ListenAddress) -> Result<Vec<TcpListener>, Error> {
    let mut sockets = Vec::new();
    for one in address.to_bind() {
        match bind_tcp(one, BACKLOG) {
            Ok(socket) => sockets.push(socket),
            Err(source) if is_ipv6_missing(address, one, &source) => {
                tracing::info!("listener {address}: not on IPv6, which this machine does not have ({source})");
            }
            Err(source) => return Err(Error::Bind { address, source }),
        }
    }
    Ok(sockets)
}

/// `*` is as much as there is.
fn is_ipv6_missing(asked: ListenAddress, one: SocketAddr, error: &io::Error) -> bool {
    let ours = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
    matches!(asked, ListenAddress::All(_)) && one.is_ipv6() && !ours
}
