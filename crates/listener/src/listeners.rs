//! All listeners: binding, accepting, reloading, draining.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider_base::metrics::{Gauge, Listener};
use postrider_base::{Clock, Disk, Late, Metrics, Random, Scope, Size, Traces, bind_tcp};
use postrider_feedback::Feedback;
use postrider_smtp::{BareLineFeed, Profile, SessionLimits, TlsMode};
use postrider_submission::Submission;
use tokio::net::TcpListener;

use crate::admission::Admission;
use crate::entrance::Entrance;
use crate::memory::ContentMemory;
use crate::session::Service;
use crate::settings::BareLineFeeds;
use crate::tls::{Home, Tls};
use crate::{Error, Listen, ListenAddress, ListenRole, Settings, TlsSettings};

/// Connections that may wait to be accepted, for each listener.
const BACKLOG: i32 = 1024;

/// What listeners work with.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Who takes the mail.
    pub submission: Submission,
    /// Who takes what comes back; feedback listeners need it.
    pub feedback: Option<Feedback>,
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
    pub(crate) submission: Crowd,
    pub(crate) feedback: Crowd,
    pub(crate) live: ArcSwap<Live>,
    pub(crate) scope: Scope,
}

/// All clients of a role: another role's never take what is theirs.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) admission: Admission,
    pub(crate) memory: ContentMemory,
}

/// What a reload can change.
#[derive(Debug)]
pub(crate) struct Live {
    starttls: Conditions,
    wrapper: Conditions,
    feedback: Conditions,
}

/// What holds for the sessions of a kind of listener.
#[derive(Debug)]
pub(crate) struct Conditions {
    pub(crate) settings: Arc<Settings>,
    pub(crate) profile: Arc<Profile>,
}

impl Listeners {
    /// Binds all addresses, reads the certificate, and takes connections until
    /// `scope` is cancelled. The settings have been validated.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::Certificate`], [`Error::SelfSigned`] or [`Error::NoFeedback`];
    /// nothing listens then.
    pub fn start(
        listen: &[Listen],
        settings: &Settings,
        tls: &TlsSettings,
        deps: Deps,
        scope: &Scope,
    ) -> Result<Listeners, Error> {
        if deps.feedback.is_none()
            && let Some(one) = listen.iter().find(|one| one.role == ListenRole::Feedback)
        {
            return Err(Error::NoFeedback { address: one.address });
        }
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
            feedback: deps.feedback.clone(),
            metrics: deps.metrics.clone(),
            clock: deps.clock.clone(),
            traces: deps.traces.clone(),
        };
        let crowd =
            |gauge: &Gauge| Crowd { admission: Admission::default(), memory: ContentMemory::new(gauge.clone()) };
        let (submission, feedback) =
            (crowd(&deps.metrics.content_memory), crowd(&deps.metrics.feedback_content_memory));
        let shared = Arc::new(Shared { service, tls, submission, feedback, live, scope: scope.clone(), deps });
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

impl Shared {
    /// All clients that come by this kind of listener.
    pub(crate) fn crowd(&self, kind: Listener) -> &Crowd {
        match kind {
            Listener::SubmissionStartTls | Listener::SubmissionTls => &self.submission,
            Listener::Feedback => &self.feedback,
        }
    }
}

impl Live {
    fn new(settings: &Settings, submission: &Submission) -> Live {
        let here = Arc::new(settings.clone());
        let feedback = settings.feedback.within(settings);
        let of = |mode| Conditions { settings: here.clone(), profile: Arc::new(profile(mode, settings, submission)) };
        Live {
            starttls: of(TlsMode::StartTls),
            wrapper: of(TlsMode::Wrapper),
            feedback: Conditions {
                profile: Arc::new(feedback_profile(&feedback, submission)),
                settings: Arc::new(feedback),
            },
        }
    }

    pub(crate) fn of(&self, kind: Listener) -> &Conditions {
        match kind {
            Listener::SubmissionStartTls => &self.starttls,
            Listener::SubmissionTls => &self.wrapper,
            Listener::Feedback => &self.feedback,
        }
    }
}

fn profile(mode: TlsMode, settings: &Settings, submission: &Submission) -> Profile {
    let rules = submission.settings();
    let limits = limits(settings, rules.max_message_bytes, rules.max_recipients);
    let mut profile = Profile { limits, ..Profile::submission(rules.hostname(), mode) };
    profile.extensions.future_release = rules.future_release();
    profile.extensions.binary_mime = rules.binary_mime;
    profile.enhanced_status_codes = settings.enhanced_status_codes;
    profile.bare_line_feed = bare_line_feed(settings.bare_line_feeds);
    profile
}

/// Of the settings that hold for feedback sessions.
fn feedback_profile(settings: &Settings, submission: &Submission) -> Profile {
    let own = &settings.feedback;
    let limits = limits(settings, own.max_message_bytes, own.max_recipients);
    let mut profile = Profile { limits, ..Profile::exchanger(submission.settings().hostname()) };
    profile.enhanced_status_codes = settings.enhanced_status_codes;
    profile.bare_line_feed = bare_line_feed(settings.bare_line_feeds);
    profile
}

fn limits(settings: &Settings, max_message_bytes: Size, max_recipients: u32) -> SessionLimits {
    SessionLimits {
        max_message_bytes: max_message_bytes.bytes(),
        max_recipients: max_recipients as usize,
        max_line_bytes: settings.max_line_bytes,
        max_errors: settings.max_errors,
        max_idle_commands: settings.max_idle_commands,
        max_auth_failures: settings.max_auth_failures,
        max_messages: settings.max_messages,
    }
}

fn bare_line_feed(chosen: BareLineFeeds) -> BareLineFeed {
    match chosen {
        BareLineFeeds::Convert => BareLineFeed::Convert,
        BareLineFeeds::Reject => BareLineFeed::Reject,
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
