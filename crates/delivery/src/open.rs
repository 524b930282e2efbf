//! One address of a host: dialled, greeted, and the session made what it has to
//! be.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use postrider_base::metrics::Held;
use postrider_base::{Dialed, Dialer};
use postrider_mail::{Domain, HostRecord, Recipient, Remote, Stage, TlsInfo};
use postrider_smtp::{Action, ClientConfig, Conversation, Ended};
use tokio::time::timeout;

use crate::Shared;
use crate::config::Config;
use crate::connection::{Connection, Stop, Stopped};
use crate::finding::Finding;
use crate::known::Place;
use crate::lane::{Demand, Lane};
use crate::progress::Progress;
use crate::route::{Host, TlsUse};
use crate::target::{Kind, Target};
use crate::tls::{Failure, FailureKind, HostPolicy, Level, Proof, Required};
use crate::tlsrpt::Session;
use crate::trace;

/// A connection that is being opened.
pub(crate) struct Opening<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) config: &'a Config,
    pub(crate) target: &'a Target,
    pub(crate) lane: &'a Lane,
    pub(crate) place: &'a Place,
    /// `None` for a socket.
    pub(crate) ip: Option<IpAddr>,
    /// What the host's own zone asks.
    pub(crate) found: HostPolicy,
    /// The recipients'.
    pub(crate) domain: &'a Domain,
    pub(crate) progress: &'a Arc<Progress>,
}

/// Why an address does not take mail.
pub(crate) enum Closed {
    /// The handshake failed where TLS was only an offer.
    ClearMayWork,
    /// The host gives itself our name.
    Ourselves,
    /// The host, or the way to it, is in trouble or does not want us.
    Refused {
        finding: Finding,
        remote: Remote,
        /// The host had greeted us.
        greeted: bool,
        /// Why the system could not dial.
        why: Option<io::ErrorKind>,
    },
    /// The relay stops.
    Stopped,
}

impl From<Stopped> for Closed {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl Opening<'_> {
    /// Opens the connection; once more in clear where TLS was only an offer and
    /// does not work.
    pub(crate) async fn open(&self, stop: &mut Stop) -> Result<Connection, Closed> {
        let policy = self.policy();
        let tls = self.tls(&policy);
        let mut opened = self.attempt(tls, &policy, stop).await;
        if let (Ok(connection), true) = (&opened, tls != TlsUse::Never) {
            let Connection { remote, conversation, tls, .. } = connection;
            self.note((remote, conversation), &policy, tls.as_ref(), None);
        }
        if matches!(opened, Err(Closed::ClearMayWork)) {
            self.shared.known.tls_failed(self.place, self.shared.clock.instant());
            opened = self.attempt(TlsUse::Never, &policy, stop).await;
        }
        match &mut opened {
            Ok(connection) => connection.level = Level::of(policy.proof, connection.tls.as_ref()),
            Err(Closed::Refused { finding, .. }) if policy.required.is_tls() && finding.stage == Stage::StartTls => {
                self.shared.metrics.tls_enforced.inc();
                if let Some(who) = policy.wanted_by() {
                    finding.diagnostic.push_str(&format!(" ({who})"));
                }
            }
            Err(_) => {}
        }
        opened
    }

    /// What a session with the host has to be like.
    fn policy(&self) -> HostPolicy {
        let mut policy = match &self.target.kind {
            Kind::Route(service) => service.policy.clone(),
            Kind::BuiltIn(_) => return HostPolicy { proof: Proof::Configured, ..HostPolicy::default() },
            // RFC 8689 section 3: what the recipient's domain asks is not to keep it.
            Kind::Mx if self.lane.demand == Demand::Waived => {
                HostPolicy { required: Required::Nothing, ..self.found.clone() }
            }
            // RFC 8461 section 2: where both are there, TLSA records count.
            Kind::Mx if self.target.sts && !matches!(self.found.required, Required::Dane(_)) => HostPolicy {
                required: Required::Webpki(vec![self.place.0.to_string()]),
                proof: Proof::Sts,
                authorities: None,
            },
            Kind::Mx => self.found.clone(),
        };
        policy.required = match self.lane.demand {
            _ if self.ip.is_none() => policy.required,
            Demand::Encrypted => policy.required.at_least_encryption(),
            Demand::Verified => policy.required.at_least_certificate(&self.place.0.to_string()),
            // A host that does not keep a message's own requirement is told from one that cannot: see `needs`.
            Demand::Authenticated | Demand::Opportunistic | Demand::Waived => policy.required,
        };
        policy
    }

    /// How the session is encrypted. That a handshake failed lately counts only
    /// where nobody asks for one.
    fn tls(&self, policy: &HostPolicy) -> TlsUse {
        let may_be_clear = matches!(self.lane.demand, Demand::Opportunistic | Demand::Waived);
        match self.target.tls {
            TlsUse::Never | TlsUse::Opportunistic if policy.required.is_tls() => TlsUse::Required,
            TlsUse::Opportunistic
                if may_be_clear && self.shared.known.has_broken_tls(self.place, self.shared.clock.instant()) =>
            {
                TlsUse::Never
            }
            tls => tls,
        }
    }

    async fn attempt(&self, tls: TlsUse, policy: &HostPolicy, stop: &mut Stop) -> Result<Connection, Closed> {
        let progress = self.progress;
        progress.waits_for_slot(self.shared.connections.are_taken());
        let slot = tokio::select! {
            biased;
            slot = self.shared.connections.take() => slot.ok_or(Closed::Stopped)?,
            () = stop.wait() => return Err(Closed::Stopped),
        };
        progress.waits_for_slot(false);
        progress.dials(&self.remote());
        let opened = self.shared.clock.instant();
        let dialed = tokio::select! {
            biased;
            dialed = self.dial() => dialed?,
            () = stop.wait() => return Err(Closed::Stopped),
        };
        self.shared.metrics.outbound_opened.inc();
        let counted = Held::new(&self.shared.metrics.outbound_open);
        let remote = Remote { source_ip: dialed.local, ..self.remote() };
        let conversation = Conversation::new(self.client_config(tls));
        let mut connection =
            Connection::new(dialed.stream, conversation, remote, opened, progress.clone(), counted, slot);
        if tls == TlsUse::Implicit {
            connection = self.handshake(connection, tls, policy, stop).await?;
        }
        self.greet(connection, tls, policy, stop).await
    }

    async fn dial(&self) -> Result<Dialed, Closed> {
        let dialer: &dyn Dialer = match &self.target.kind {
            Kind::BuiltIn(dialer) => &**dialer,
            Kind::Mx | Kind::Route(_) => &*self.shared.dialer,
        };
        let dialing = match (&self.place.0, self.ip) {
            (Host::Socket(path), _) => dialer.dial_path(path),
            (_, Some(ip)) => dialer.dial(SocketAddr::new(ip, self.target.port), self.from()),
            (_, None) => return Err(self.refused(Finding::no_connection(), false)),
        };
        let limit = self.config.settings.timeouts.connect.as_duration();
        match timeout(limit, dialing).await {
            Ok(Ok(dialed)) => Ok(dialed),
            Ok(Err(error)) => {
                tracing::debug!(remote = %self.remote(), %error, "cannot connect");
                self.progress.tried(HostRecord::new(&self.remote()).failed(&format!("cannot connect: {error}")));
                let (finding, why) = (Finding::no_connection(), Some(error.kind()));
                Err(Closed::Refused { finding, remote: self.remote(), greeted: false, why })
            }
            Err(_) => {
                let why = format!("cannot connect: no answer in {} s", limit.as_secs_f32());
                self.progress.tried(HostRecord::new(&self.remote()).failed(&why));
                Err(self.refused(Finding::timed_out(Stage::Connect), false))
            }
        }
    }

    async fn greet(
        &self,
        mut connection: Connection,
        tls: TlsUse,
        policy: &HostPolicy,
        stop: &mut Stop,
    ) -> Result<Connection, Closed> {
        let mut nobody = |_: usize, _: &Recipient| false;
        loop {
            let (finding, greeted) = match connection.drive(&mut nobody, stop).await? {
                Action::Ready if self.is_ourselves(&connection) => {
                    let host = trace::setup(
                        &connection.remote,
                        &connection.conversation,
                        connection.tls.as_ref(),
                        policy.proof,
                    );
                    self.progress.tried(host.failed("the host gives itself our name"));
                    return Err(Closed::Ourselves);
                }
                Action::Ready => return Ok(connection),
                Action::StartTls => {
                    connection = self.handshake(connection, tls, policy, stop).await?;
                    connection.conversation.tls_started();
                    continue;
                }
                Action::Closed(ended) => {
                    let finding = connection.ending(&ended);
                    if finding.stage == Stage::StartTls {
                        let failure = Failure::new(FailureKind::StartTlsNotSupported, "");
                        self.note((&connection.remote, &connection.conversation), policy, None, Some(&failure));
                    }
                    let host = trace::setup(
                        &connection.remote,
                        &connection.conversation,
                        connection.tls.as_ref(),
                        policy.proof,
                    );
                    self.progress.tried(trace::with_finding(host, &finding));
                    if tls == TlsUse::Opportunistic && has_broken_over_tls(&connection, &ended) {
                        return Err(Closed::ClearMayWork);
                    }
                    let greeted = finding.stage > Stage::Ehlo;
                    (finding, greeted)
                }
                Action::NeedInput | Action::Done(_) => (connection.loss(Stage::Ehlo), true),
            };
            return Err(Closed::Refused { finding, remote: connection.remote, greeted, why: None });
        }
    }

    /// Whether a host that strangers named calls itself as we do: then what is
    /// sent there comes back. A host that the operator named may be a neighbour
    /// on this machine.
    fn is_ourselves(&self, connection: &Connection) -> bool {
        let Some(name) = connection.conversation.host_name() else { return false };
        let sources = self.config.settings.sources.values();
        let hostname = self.shared.submission.settings().hostname();
        let mut ours = [hostname, &self.config.ehlo_name]
            .into_iter()
            .chain(sources.filter_map(|source| source.ehlo_name.as_deref()));
        self.target.is_found_by_dns() && ours.any(|our| our.eq_ignore_ascii_case(name))
    }

    async fn handshake(
        &self,
        mut connection: Connection,
        tls: TlsUse,
        policy: &HostPolicy,
        stop: &mut Stop,
    ) -> Result<Connection, Closed> {
        let limit = self.config.settings.timeouts.handshake.as_duration();
        let name = match &policy.required {
            Required::Webpki(names) => names.first().unwrap_or(&connection.remote.host).clone(),
            _ => connection.remote.host.clone(),
        };
        let ip = self.ip.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let shaking = timeout(limit, self.config.tls.handshake(connection.stream, &name, ip, policy));
        let timed_out = || Failure::new(FailureKind::ValidationFailure, "the handshake timed out");
        let shaken = tokio::select! {
            biased;
            shaken = shaking => shaken.unwrap_or_else(|_| Err(timed_out())),
            () = stop.wait() => return Err(Closed::Stopped),
        };
        if let Err(failure) = &shaken {
            let host = trace::setup(&connection.remote, &connection.conversation, None, policy.proof);
            self.progress.tried(host.failed(&format!("TLS: {}", failure.reason)));
            self.note((&connection.remote, &connection.conversation), policy, None, Some(failure));
        }
        match shaken {
            Ok((stream, info)) => {
                connection.stream = stream;
                connection.tls = Some(info);
                Ok(connection)
            }
            Err(Failure { reason, .. }) if tls == TlsUse::Opportunistic => {
                tracing::debug!(host = %name, %reason, "handshake failed, going on in clear");
                Err(Closed::ClearMayWork)
            }
            Err(Failure { reason, .. }) => Err(self.refused(Finding::no_tls(&reason), tls != TlsUse::Implicit)),
        }
    }

    /// Counts how a session became what it is, for those who asked to be told.
    fn note(
        &self,
        (remote, conversation): (&Remote, &Conversation),
        policy: &HostPolicy,
        tls: Option<&TlsInfo>,
        failure: Option<&Failure>,
    ) {
        if !self.target.is_found_by_dns() || self.lane.demand == Demand::Waived {
            return;
        }
        let invalid = Failure::new(FailureKind::TlsaInvalid, "mail can use none of the TLSA records");
        let (tlsa, failure) = match &policy.required {
            Required::Dane(records) => (Some(records.texts()), failure),
            // RFC 8460 section 4.3.2.1: there are some, and none that counts.
            Required::Encryption if matches!(self.found.required, Required::Encryption) => {
                (Some(Vec::new()), failure.or(Some(&invalid)))
            }
            _ => (None, failure),
        };
        let session = Session {
            domain: self.domain,
            mx: &remote.host,
            helo: conversation.host_name(),
            ip: remote.ip,
            source_ip: remote.source_ip,
            tlsa: tlsa.as_deref(),
            tls,
            failure,
        };
        self.shared.tls_reports.note(&self.config.settings, &session);
    }

    fn refused(&self, finding: Finding, greeted: bool) -> Closed {
        Closed::Refused { finding, remote: self.remote(), greeted, why: None }
    }

    fn remote(&self) -> Remote {
        Remote {
            host: self.place.0.to_string(),
            ip: self.ip,
            port: self.target.port,
            source_ip: self.from(),
            stage: Stage::Connect,
        }
    }

    /// The address that the operator wants it dialled from.
    fn from(&self) -> Option<IpAddr> {
        let source = self.lane.source.as_ref()?;
        match self.ip? {
            IpAddr::V4(_) => source.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => source.ipv6.map(IpAddr::V6),
        }
    }

    fn client_config(&self, tls: TlsUse) -> ClientConfig {
        let service = match &self.target.kind {
            Kind::Route(service) => Some(service),
            Kind::Mx | Kind::BuiltIn(_) => None,
        };
        ClientConfig {
            protocol: service.map(|service| service.protocol).unwrap_or_default(),
            hello: self.lane.hello(self.config).to_owned(),
            tls: match tls {
                TlsUse::Never => postrider_smtp::TlsUse::Never,
                TlsUse::Opportunistic => postrider_smtp::TlsUse::Opportunistic,
                TlsUse::Required => postrider_smtp::TlsUse::Required,
                TlsUse::Implicit => postrider_smtp::TlsUse::Active,
            },
            credentials: service.and_then(|service| service.credentials.clone()),
            chunking: self.config.settings.chunking,
            timeouts: self.config.timeouts,
        }
    }
}

/// Whether a conversation broke, without a word about why, where TLS begins: at
/// the reply to STARTTLS, or at the first command behind the handshake, where a
/// host of TLS 1.3 that does not like it shows that.
fn has_broken_over_tls(connection: &Connection, ended: &Ended) -> bool {
    match ended {
        Ended::Lost { stage } | Ended::BadReply { stage } => {
            *stage == Stage::StartTls || *stage == Stage::Ehlo && connection.tls.is_some()
        }
        _ => false,
    }
}
