//! The walk of one attempt from host to host, until one of them takes mail.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use postrider_base::metrics::Held;
use postrider_base::{BoxStream, Dialer};
use postrider_mail::{Recipient, Remote, Stage};
use postrider_smtp::{Action, ClientConfig, Conversation};
use tokio::time::timeout;

use crate::Shared;
use crate::classify::Verdict;
use crate::config::Config;
use crate::connection::{Connection, Stop, Stopped};
use crate::finding::Finding;
use crate::route::{Host, TlsUse};
use crate::target::{Kind, Permission, Target, by_family, permission};
use crate::tls::{Failure, FailureKind, HostPolicy, Proof, Required};

/// Where an attempt has got to.
pub(crate) struct Walk<'a> {
    shared: &'a Shared,
    config: Arc<Config>,
    target: &'a Target,
    /// Hosts that have not been looked up, with their rank.
    hosts: VecDeque<(usize, Host)>,
    /// Addresses of the present host that have not been dialled.
    addresses: VecDeque<(Host, IpAddr)>,
    /// Already refused what is to be sent.
    avoid: Option<IpAddr>,
    addresses_left: usize,
    greetings_left: usize,
    /// The rank of the first host that no address could be found for.
    passed_over: Option<usize>,
    last: Option<Refused>,
    thorough: bool,
}

/// Why no host takes mail.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) finding: Finding,
    /// Who was asked last, where somebody was.
    pub(crate) remote: Option<Remote>,
}

/// By how much a thorough walk exceeds the bounds of others.
const THOROUGH: usize = 10;

/// Why a walk ends.
pub(crate) enum Halt {
    /// Nobody takes mail.
    Refused(Refused),
    /// The relay stops.
    Stopped,
}

impl From<Stopped> for Halt {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Why one address does not take mail.
enum Closed {
    /// The handshake failed where TLS was only an offer.
    ClearMayWork,
    Refused {
        finding: Finding,
        /// The host had greeted us.
        greeted: bool,
    },
    Stopped,
}

impl From<Stopped> for Closed {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl<'a> Walk<'a> {
    /// A thorough walk asks more hosts than others, and gives up for good only when
    /// all of them have spoken.
    pub(crate) fn new(shared: &'a Shared, config: Arc<Config>, target: &'a Target, thorough: bool) -> Self {
        let order = target.order(&shared.random);
        let patience = if thorough { THOROUGH } else { 1 };
        Self {
            shared,
            target,
            hosts: order.into_iter().map(|(rank, host)| (rank, host.clone())).collect(),
            addresses: VecDeque::new(),
            avoid: None,
            addresses_left: config.settings.limits.addresses_per_attempt.saturating_mul(patience),
            greetings_left: config.settings.limits.greetings_per_attempt.saturating_mul(patience),
            passed_over: None,
            last: None,
            thorough,
            config,
        }
    }

    /// The host at `remote` has greeted us and does not take what is to be
    /// sent.
    pub(crate) fn turned_away(&mut self, remote: &Remote, finding: Finding) {
        self.avoid = remote.ip;
        self.greetings_left = self.greetings_left.saturating_sub(1);
        self.blame(Refused { finding, remote: Some(remote.clone()) });
    }

    /// Goes on to the next host that takes mail.
    pub(crate) async fn next(&mut self, stop: &mut Stop) -> Result<Connection, Halt> {
        while self.greetings_left > 0 && self.addresses_left > 0 {
            let found = tokio::select! {
                biased;
                found = self.next_address() => found,
                () = stop.wait() => return Err(Halt::Stopped),
            };
            let Some((host, ip)) = found else { break };
            if self.avoid == Some(ip) {
                continue;
            }
            self.addresses_left -= 1;
            let remote = Remote {
                host: host.to_string(),
                ip: Some(ip),
                port: self.target.port,
                source_ip: None,
                stage: Stage::Connect,
            };
            let mut opened = self.open(&remote, ip, self.target.tls, stop).await;
            if matches!(opened, Err(Closed::ClearMayWork)) {
                opened = self.open(&remote, ip, TlsUse::Never, stop).await;
            }
            match opened {
                Ok(connection) => return Ok(connection),
                Err(Closed::Stopped) => return Err(Halt::Stopped),
                Err(Closed::ClearMayWork) => {}
                Err(Closed::Refused { finding, greeted }) => {
                    self.shared.metrics.outbound_failed.inc();
                    self.greetings_left -= usize::from(greeted);
                    self.blame(Refused { finding, remote: Some(remote) });
                }
            }
        }
        let nothing_tried = || Refused { finding: Finding::no_connection(), remote: None };
        Err(Halt::Refused(self.last.clone().unwrap_or_else(nothing_tried)))
    }

    /// The next address to dial, after looking up as many hosts as it takes.
    async fn next_address(&mut self) -> Option<(Host, IpAddr)> {
        while self.addresses.is_empty() {
            let (rank, host) = self.hosts.pop_front()?;
            let addresses = match &host {
                Host::Address(address) => vec![*address],
                Host::Name(name) => match self.look_up(name).await {
                    Some(addresses) => addresses,
                    None => {
                        self.pass_over(rank, Finding::no_dns(name));
                        continue;
                    }
                },
            };
            let addresses = by_family(addresses, self.config.settings.prefer_ipv4);
            let allowed = self.allowed(rank, &host, addresses);
            self.addresses.extend(allowed.into_iter().map(|address| (host.clone(), address)));
        }
        self.addresses.pop_front()
    }

    async fn look_up(&self, host: &str) -> Option<Vec<IpAddr>> {
        let limit = self.config.settings.timeouts.lookup.as_duration();
        match timeout(limit, self.shared.resolver.addresses(host)).await {
            Ok(Ok(answer)) => Some(answer.value),
            Ok(Err(error)) => {
                tracing::debug!(%host, %error, "no address");
                None
            }
            Err(_) => None,
        }
    }

    /// The addresses that may be dialled. Where one is our own, that host and
    /// all that are not better are dropped, as in [`crate::target`].
    fn allowed(&mut self, rank: usize, host: &Host, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        if !self.target.is_found_by_dns() {
            return addresses;
        }
        let ask = |address: &IpAddr| permission(*address, &self.config.settings);
        if addresses.iter().any(|address| ask(address) == Permission::Own) {
            self.hosts.retain(|(other, _)| *other < rank);
            // A better host may have an address again later.
            if self.passed_over.is_none_or(|best| best >= rank) {
                self.blame(Refused { finding: Finding::looped(&host.to_string()), remote: None });
            }
            return Vec::new();
        }
        let allowed: Vec<_> = addresses.into_iter().filter(|address| ask(address) == Permission::Granted).collect();
        if allowed.is_empty() {
            self.pass_over(rank, Finding::forbidden(&host.to_string()));
        }
        allowed
    }

    /// Remembers why a host was not dialled.
    fn pass_over(&mut self, rank: usize, finding: Finding) {
        self.passed_over.get_or_insert(rank);
        self.blame(Refused { finding, remote: None });
    }

    /// Remembers why a host does not take mail. What a host said weighs more
    /// than what was thought of it, and a host that never will take it speaks
    /// for the others; but a thorough walk gives up only when no host may still
    /// take it later. Else the last word counts.
    fn blame(&mut self, refused: Refused) {
        let thorough = self.thorough;
        let weight = |refused: &Refused| {
            let may_pass = matches!(refused.finding.verdict, Verdict::Deferred(_));
            let has_spoken = refused.remote.is_some();
            if thorough { (may_pass, has_spoken) } else { (has_spoken, !may_pass) }
        };
        if self.last.as_ref().is_none_or(|last| weight(&refused) >= weight(last)) {
            self.last = Some(refused);
        }
    }

    /// Dials one address and goes through the greetings.
    async fn open(&self, remote: &Remote, ip: IpAddr, tls: TlsUse, stop: &mut Stop) -> Result<Connection, Closed> {
        let slot = tokio::select! {
            biased;
            slot = self.shared.connections.clone().acquire_owned() => slot.map_err(|_| Closed::Stopped)?,
            () = stop.wait() => return Err(Closed::Stopped),
        };
        let opened = self.shared.clock.instant();
        let stream = tokio::select! {
            biased;
            stream = self.dial(ip) => stream.map_err(|finding| Closed::Refused { finding, greeted: false })?,
            () = stop.wait() => return Err(Closed::Stopped),
        };
        self.shared.metrics.outbound_opened.inc();
        let counted = Held::new(&self.shared.metrics.outbound_open);
        let conversation = Conversation::new(self.client_config(tls));
        let mut connection = Connection::new(stream, conversation, remote.clone(), opened, counted, slot);
        if tls == TlsUse::Implicit {
            connection = self.handshake(connection, ip, tls, stop).await?;
        }
        self.greet(connection, ip, tls, stop).await
    }

    async fn dial(&self, ip: IpAddr) -> Result<BoxStream, Finding> {
        let dialer: &dyn Dialer = match &self.target.kind {
            Kind::BuiltIn(dialer) => &**dialer,
            Kind::Mx | Kind::Route | Kind::Smarthost(_) => &*self.shared.dialer,
        };
        let limit = self.config.settings.timeouts.connect.as_duration();
        let address = SocketAddr::new(ip, self.target.port);
        match timeout(limit, dialer.dial(address, None)).await {
            Ok(Ok(dialed)) => Ok(dialed.stream),
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "cannot connect");
                Err(Finding::no_connection())
            }
            Err(_) => Err(Finding::timed_out(Stage::Connect)),
        }
    }

    async fn greet(
        &self,
        mut connection: Connection,
        ip: IpAddr,
        tls: TlsUse,
        stop: &mut Stop,
    ) -> Result<Connection, Closed> {
        let mut nobody = |_: usize, _: &Recipient| false;
        loop {
            let (finding, greeted) = match connection.drive(&mut nobody, stop).await? {
                Action::Ready => return Ok(connection),
                Action::StartTls => {
                    connection = self.handshake(connection, ip, tls, stop).await?;
                    connection.conversation.tls_started();
                    continue;
                }
                Action::Closed(ended) => {
                    let finding = connection.ending(&ended);
                    let greeted = finding.stage > Stage::Ehlo;
                    (finding, greeted)
                }
                Action::NeedInput | Action::Done(_) => (connection.loss(Stage::Ehlo), true),
            };
            return Err(Closed::Refused { finding, greeted });
        }
    }

    async fn handshake(
        &self,
        mut connection: Connection,
        ip: IpAddr,
        tls: TlsUse,
        stop: &mut Stop,
    ) -> Result<Connection, Closed> {
        let limit = self.config.settings.timeouts.handshake.as_duration();
        let host = connection.remote.host.clone();
        let policy = self.policy(&host, tls);
        let shaking = timeout(limit, self.config.tls.handshake(connection.stream, &host, ip, &policy));
        let timed_out = || Failure::new(FailureKind::ValidationFailure, "the handshake timed out");
        let shaken = tokio::select! {
            biased;
            shaken = shaking => shaken.unwrap_or_else(|_| Err(timed_out())),
            () = stop.wait() => return Err(Closed::Stopped),
        };
        match shaken {
            Ok((stream, info)) => {
                connection.stream = stream;
                connection.tls = Some(info);
                Ok(connection)
            }
            Err(Failure { reason, .. }) if tls == TlsUse::Opportunistic => {
                tracing::debug!(%host, %reason, "handshake failed, going on in clear");
                Err(Closed::ClearMayWork)
            }
            Err(Failure { reason, .. }) => {
                Err(Closed::Refused { finding: Finding::no_tls(&reason), greeted: tls != TlsUse::Implicit })
            }
        }
    }

    /// What a session with the host has to be like.
    fn policy(&self, host: &str, tls: TlsUse) -> HostPolicy {
        let (required, authorities) = match &self.target.kind {
            Kind::Smarthost(smarthost) if smarthost.verify && tls != TlsUse::Opportunistic => {
                (Required::Webpki(vec![host.to_owned()]), self.config.smarthost_authorities.clone())
            }
            _ if tls == TlsUse::Opportunistic => (Required::Nothing, None),
            _ => (Required::Encryption, None),
        };
        let proof = if self.target.is_found_by_dns() { Proof::None } else { Proof::Configured };
        HostPolicy { required, proof, authorities }
    }

    fn client_config(&self, tls: TlsUse) -> ClientConfig {
        let is_smarthost = matches!(self.target.kind, Kind::Smarthost(_));
        ClientConfig {
            protocol: postrider_smtp::Protocol::Smtp,
            hello: self.config.ehlo_name.clone(),
            tls: match tls {
                TlsUse::Never => postrider_smtp::TlsUse::Never,
                TlsUse::Opportunistic => postrider_smtp::TlsUse::Opportunistic,
                TlsUse::Required => postrider_smtp::TlsUse::Required,
                TlsUse::Implicit => postrider_smtp::TlsUse::Active,
            },
            credentials: self.config.credentials.clone().filter(|_| is_smarthost),
            chunking: false,
            timeouts: self.config.timeouts,
        }
    }
}
