//! All listeners: binding, accepting, reloading, draining.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider_base::{Clock, Disk, Late, Metrics, Random, Scope, Traces, bind_tcp};
use postrider_smtp::{BareLineFeed, Profile, SessionLimits, TlsMode};
use postrider_submission::Submission;
use tokio::net::TcpListener;

use crate::admission::Admission;
use crate::entrance::Entrance;
use crate::memory::ContentMemory;
use crate::session::Service;
use crate::settings::BareLineFeeds;
use crate::tls::{Home, Tls};
use crate::{Error, Listen, ListenAddress, Settings, TlsSettings};

/// Connections that may wait to be accepted, for each listener.
const BACKLOG: i32 = 1024;

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
    /// A file for the secrets of all TLS sessions: for debugging alone.
    pub key_log: Option<PathBuf>,
}

/// Listeners that take connections.
#[derive(Debug)]
pub struct Listeners {
    shared: Arc<Shared>,
    listen: Vec<Listen>,
    bound: Vec<(SocketAddr, Arc<Listen>)>,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) deps: Deps,
    pub(crate) service: Service,
    pub(crate) tls: Arc<Tls>,
    pub(crate) admission: Admission,
    pub(crate) live: ArcSwap<Live>,
    pub(crate) scope: Scope,
}

/// What a reload can change.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) settings: Arc<Settings>,
    pub(crate) starttls: Arc<Profile>,
    pub(crate) wrapper: Arc<Profile>,
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
        let tls = Arc::new(Tls::new(tls, listen, deps.key_log.as_deref(), home)?);
        let mut sockets = Vec::new();
        for one in listen {
            let one = Arc::new(one.clone());
            for socket in bind(one.address)? {
                sockets.push((socket, one.clone()));
            }
        }
        let scope = scope.child("listener");
        let live = ArcSwap::from_pointee(Live::new(settings, &deps.submission));
        let service = Service {
            submission: deps.submission.clone(),
            metrics: deps.metrics.clone(),
            clock: deps.clock.clone(),
            traces: deps.traces.clone(),
            memory: ContentMemory::new(deps.metrics.content_memory.clone()),
        };
        let shared =
            Arc::new(Shared { service, tls, admission: Admission::default(), live, scope: scope.clone(), deps });
        let mut bound = Vec::new();
        for (socket, one) in sockets {
            let address = socket.local_addr().map_err(|source| Error::Bind { address: one.address, source })?;
            bound.push((address, one.clone()));
            scope.spawn(format!("accept {address}"), Entrance::new(shared.clone(), one).accept(socket));
        }
        scope.spawn("certificate", shared.tls.clone().watch(scope.clone()));
        Ok(Listeners { shared, listen: listen.to_vec(), bound })
    }

    /// The addresses that are listened on, in the order of the configuration;
    /// with the port that the system chose where 0 was asked for.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &Listen)> + '_ {
        self.bound.iter().map(|(address, listen)| (*address, &**listen))
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
                max_messages: settings.max_messages,
            };
            profile.extensions.future_release = rules.future_release();
            profile.extensions.binary_mime = rules.binary_mime;
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
