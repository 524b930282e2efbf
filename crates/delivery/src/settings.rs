//! What an operator can say about delivery, with the built-in defaults.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use postrider_base::{Period, Size};
use postrider_filter::ScanSettings;
use postrider_mail::EmailAddress;
use serde::{Deserialize, Serialize};

use crate::route::RouteTable;
use crate::smarthost;
use crate::source;

pub use crate::smarthost::{Smarthost, SmarthostTls};
pub use crate::source::settings::{Excess, OnBlock, SourceSettings, WarmUpSettings};

/// Everything about how mail leaves.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The name given in EHLO. Without it the relay's host name is given.
    /// Receivers look this name up: it should resolve to the sending address.
    pub ehlo_name: Option<String>,
    /// Where mail for a recipient domain goes: `"example.com"` for the domain
    /// itself, `".example.com"` for everything below it, `"*"` for all the
    /// rest. A target is `smtp://HOST:PORT` (STARTTLS when offered),
    /// `smtp+starttls://HOST:PORT` (STARTTLS or nothing), `smtps://HOST:PORT`
    /// (TLS from the first byte), `lmtp://HOST:PORT`, `lmtp+starttls://HOST:PORT`
    /// and `lmtp+unix:///PATH` (local delivery, RFC 2033), `mx:` (the domain's MX
    /// hosts), `smarthost:` and `smarthost:NAME` (the hosts below), `hold:` (kept
    /// in the queue) or the name of a built-in destination such as `inbox:`.
    /// Where TLS is required the host has to prove its name;
    /// `?verify=NAME` behind it asks for another name in its certificate,
    /// `?verify=none` for no proof. Without `"*"` the rest goes to the smarthost
    /// if there is one, and to the MX hosts otherwise.
    pub routes: BTreeMap<String, String>,
    /// The host that takes all mail without a route of its own.
    pub smarthost: Option<Smarthost>,
    /// Further smarthosts by name, for routes to `smarthost:NAME`.
    pub smarthosts: BTreeMap<String, Smarthost>,
    /// Send content by BDAT where a host offers CHUNKING (RFC 3030), and not by
    /// DATA: further small messages over a connection then take one round trip and
    /// not two. Binary content never goes otherwise.
    pub chunking: bool,
    /// The waits between attempts; the last one repeats until the message
    /// expires.
    pub retry: Vec<Period>,
    /// By how much a wait is varied at random in both directions, in percent,
    /// so that mail deferred together does not come back together.
    pub retry_jitter_percent: u8,
    /// Dial IPv4 addresses of a host before its IPv6 addresses. Large
    /// receivers refuse IPv6 sources without matching reverse DNS.
    pub prefer_ipv4: bool,
    /// Dial MX hosts whose addresses are private (RFC 1918, RFC 4193, link
    /// local). Static routes and the smarthost may always be private.
    pub allow_private_mx: bool,
    /// Addresses by which others reach this machine. MX records that lead to
    /// them are loops and are never dialled.
    pub own_addresses: Vec<IpAddr>,
    /// Write a bounce message (RFC 3464) to the sender when a recipient fails
    /// for good. Without it only those are told who asked for it by NOTIFY
    /// (RFC 3461).
    pub feedback_forwarding: bool,
    /// How long a recipient waits or is tried before its sender is told that it is
    /// late, once, and only when NOTIFY asked for DELAY. Counted from the time
    /// that the message was accepted, or released where it was held. Where nothing
    /// moves at all, the first thousand or so of a queue are looked at for this,
    /// and what is behind them when it moves again.
    pub delay_notice: Period,
    /// Longest message that a bounce message returns whole when its sender
    /// asked for that (RET=FULL). Of longer ones the header is returned.
    pub max_returned_bytes: Size,
    /// Bounce 8-bit content (5.6.3) at a next host without 8BITMIME instead of
    /// sending it as it is.
    pub strict_8bitmime: bool,
    /// The addresses of this machine that mail leaves from, by the name that the
    /// operator gives them. Without any, the system chooses.
    pub sources: BTreeMap<String, SourceSettings>,
    /// How new sources get used to sending.
    pub warm_up: WarmUpSettings,
    /// The virus scan before the first attempt.
    pub scan: ScanSettings,
    /// TLS on the way out.
    pub tls: Tls,
    /// How much mail goes where.
    pub shaping: Shaping,
    /// Bounds of connections and queues.
    pub limits: Limits,
    /// How long each step of a session may take.
    pub timeouts: Timeouts,
}

impl Default for Settings {
    fn default() -> Self {
        let minutes = [2, 5, 10, 20, 40, 60, 120, 240];
        Self {
            ehlo_name: None,
            routes: BTreeMap::new(),
            smarthost: None,
            smarthosts: BTreeMap::new(),
            chunking: true,
            retry: minutes.map(Period::from_mins).to_vec(),
            retry_jitter_percent: 10,
            prefer_ipv4: true,
            allow_private_mx: false,
            own_addresses: Vec::new(),
            feedback_forwarding: true,
            delay_notice: Period::from_hours(4),
            max_returned_bytes: Size::from_kib(256),
            strict_8bitmime: false,
            sources: BTreeMap::new(),
            warm_up: WarmUpSettings::default(),
            scan: ScanSettings::default(),
            tls: Tls::default(),
            shaping: Shaping::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Settings {
    /// Checks what serde cannot. The error names the key and what was expected.
    pub fn validate(&self) -> Result<(), String> {
        if self.retry.is_empty() {
            return Err("retry: expected at least one wait, such as [\"2m\", \"1h\"]".to_owned());
        }
        if self.retry.iter().any(|wait| wait.as_duration().is_zero()) {
            return Err("retry: expected waits longer than zero".to_owned());
        }
        if self.retry_jitter_percent > 50 {
            return Err("retry_jitter_percent: expected 0 to 50".to_owned());
        }
        if let Some(name) = &self.ehlo_name
            && !is_host_name(name)
        {
            return Err(format!("ehlo_name: expected a host name, found {name:?}"));
        }
        smarthost::validate(self.all_smarthosts())?;
        self.tls.reports.validate()?;
        source::settings::validate(&self.sources)?;
        self.warm_up.validate()?;
        self.scan.validate().map_err(|error| format!("scan.{error}"))?;
        self.limits.validate()?;
        self.timeouts.validate()?;
        self.route_table().map(drop)
    }

    /// The smarthosts by name, the only one that needs none first.
    pub(crate) fn all_smarthosts(&self) -> impl Iterator<Item = (&str, &Smarthost)> {
        let named = self.smarthosts.iter().map(|(name, smarthost)| (name.as_str(), smarthost));
        self.smarthost.iter().map(|smarthost| ("", smarthost)).chain(named)
    }

    /// The routes, ready for use.
    pub(crate) fn route_table(&self) -> Result<RouteTable, String> {
        let names: Vec<&str> = self.all_smarthosts().map(|(name, _)| name).collect();
        RouteTable::parse(&self.routes, &names)
    }
}

/// TLS on the way out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the authorities that certificates of MX hosts, of MTA-STS
    /// policy hosts and of those who take TLS reports are checked against, instead
    /// of the system's. Mail to an MX host is encrypted whoever signed its
    /// certificate; it has to be good only where the recipient's domain asks for
    /// that.
    pub ca_file: Option<PathBuf>,
    /// Look for policies of recipient domains (MTA-STS, RFC 8461) and keep to
    /// them: in `enforce` mode mail waits rather than going to a host that the
    /// policy does not name, or that cannot prove its name.
    pub mta_sts: bool,
    /// Daily reports to domains that ask for them (TLSRPT, RFC 8460).
    pub reports: Reports,
}

impl Default for Tls {
    fn default() -> Self {
        Self { ca_file: None, mta_sts: true, reports: Reports::default() }
    }
}

/// Daily reports about TLS to recipient domains that ask for them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reports {
    /// The mail address of those who answer questions about the reports. It is
    /// named in each of them; without it none are sent.
    pub contact: Option<EmailAddress>,
    /// The name of the organization that sends the reports. Without it, the
    /// operator's domain.
    pub organization: Option<String>,
}

impl Reports {
    fn validate(&self) -> Result<(), String> {
        match &self.organization {
            Some(name) if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) => {
                Err("tls.reports.organization: expected 1 to 200 printable characters".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// How much mail goes where.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shaping {
    /// File with limits and feedback rules of providers, sites and domains, laid
    /// over the built-in ones entry by entry; `etc/shaping.toml` shows those and
    /// explains the format.
    pub file: Option<PathBuf>,
}

/// Bounds of connections and queues.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections to all sites together.
    pub connections: usize,
    /// Connections to one site found by MX lookup, at most.
    pub connections_per_site: usize,
    /// Connections to such a site at first; grows by one with every ten
    /// messages that it took.
    pub initial_connections_per_site: usize,
    /// Connections to the smarthost, or to the host of one static route.
    pub connections_per_route: usize,
    /// Messages over one connection to an MX host.
    pub messages_per_connection: u32,
    /// Messages over one connection to the smarthost or a static route's host.
    pub messages_per_route_connection: u32,
    /// How long a connection may wait for its next message.
    pub connection_idle: Period,
    /// How old a connection may get before it takes no further message.
    pub connection_age: Period,
    /// Recipients named in one transaction (RFC 5321 section 4.5.3.1.8 makes
    /// hosts take 100).
    pub recipients_per_transaction: usize,
    /// Addresses dialled for one attempt.
    pub addresses_per_attempt: usize,
    /// Hosts that greeted us and then refused, for one attempt.
    pub greetings_per_attempt: usize,
    /// Messages claimed from the queue for one site; at this bound the queues
    /// that lead to the site wait.
    pub ready_per_site: usize,
    /// Messages claimed from the queue for all sites together.
    pub ready: usize,
    /// Recipient domains whose hosts are looked up at the same time. Messages of as many
    /// more are claimed from the queue and wait for that; the queues of others wait.
    pub lookups: usize,
    /// Messages claimed from the queue for one domain whose hosts are looked up; at this
    /// bound its queues wait, so that domains whose DNS hangs leave room for others.
    pub ready_per_lookup: usize,
    /// Hosts of which it is remembered what became of connections to them.
    pub known_hosts: usize,
    /// Recipient domains whose MTA-STS policy is kept. Beyond, those that mail was
    /// not sent to for the longest time are forgotten.
    pub sts_policies: usize,
    /// MTA-STS policies that are fetched at the same time.
    pub sts_fetches: usize,
    /// Recipient domains that a day's TLS reports are prepared for. Beyond, further
    /// domains get none for that day.
    pub tls_reports: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2_000,
            connections_per_site: 20,
            initial_connections_per_site: 5,
            connections_per_route: 20,
            messages_per_connection: 100,
            messages_per_route_connection: 10_000,
            connection_idle: Period::from_secs(10),
            connection_age: Period::from_mins(10),
            recipients_per_transaction: 100,
            addresses_per_attempt: 5,
            greetings_per_attempt: 2,
            ready_per_site: 1_000,
            ready: 20_000,
            lookups: 200,
            ready_per_lookup: 16,
            known_hosts: 10_000,
            sts_policies: 20_000,
            sts_fetches: 100,
            tls_reports: 5_000,
        }
    }
}

impl Limits {
    fn validate(&self) -> Result<(), String> {
        let positive = [
            ("connections", self.connections),
            ("connections_per_site", self.connections_per_site),
            ("initial_connections_per_site", self.initial_connections_per_site),
            ("connections_per_route", self.connections_per_route),
            ("messages_per_connection", self.messages_per_connection as usize),
            ("messages_per_route_connection", self.messages_per_route_connection as usize),
            ("recipients_per_transaction", self.recipients_per_transaction),
            ("addresses_per_attempt", self.addresses_per_attempt),
            ("greetings_per_attempt", self.greetings_per_attempt),
            ("ready_per_site", self.ready_per_site),
            ("ready", self.ready),
            ("lookups", self.lookups),
            ("ready_per_lookup", self.ready_per_lookup),
            ("known_hosts", self.known_hosts),
            ("sts_policies", self.sts_policies),
            ("sts_fetches", self.sts_fetches),
            ("tls_reports", self.tls_reports),
        ];
        match positive.iter().find(|(_, value)| !(1..=MOST).contains(value)) {
            Some((key, _)) => Err(format!("limits.{key}: expected 1 to {MOST}")),
            None if self.initial_connections_per_site > self.connections_per_site => Err(format!(
                "limits.initial_connections_per_site: expected at most \
                 limits.connections_per_site ({})",
                self.connections_per_site
            )),
            None => Ok(()),
        }
    }
}

/// Beyond this a limit is none, and semaphores refuse.
const MOST: usize = 10_000_000;

/// How long each step of a session may take. The defaults are those of
/// RFC 5321 section 4.5.3.2, where it has one.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For the answer to a question to the DNS.
    pub lookup: Period,
    /// From dialling to an open connection.
    pub connect: Period,
    /// Until the host's greeting.
    pub banner: Period,
    /// Until the reply to EHLO, HELO, STARTTLS or a step of AUTH.
    pub ehlo: Period,
    /// For the TLS handshake.
    pub handshake: Period,
    /// Until the reply to MAIL.
    pub mail: Period,
    /// Until the reply to RCPT.
    pub rcpt: Period,
    /// Until the reply to DATA.
    pub data: Period,
    /// From MAIL to the reply to DATA, however many recipients there are and
    /// however long each may take. A host that is slower is asked to take fewer
    /// recipients at a time.
    pub transaction: Period,
    /// For each write of a part of the message.
    pub data_block: Period,
    /// For writing all of the message.
    pub content: Period,
    /// From the final dot to its reply.
    pub end_of_data: Period,
    /// Until the reply to RSET or QUIT.
    pub reset: Period,
    /// For all of an HTTPS request: to fetch an MTA-STS policy (RFC 8461 section
    /// 3.3), or to hand in a report.
    pub https: Period,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            lookup: Period::from_secs(30),
            connect: Period::from_secs(30),
            // RFC 5321 section 4.5.3.2.1
            banner: Period::from_mins(5),
            ehlo: Period::from_mins(5),
            handshake: Period::from_mins(1),
            // RFC 5321 section 4.5.3.2.2
            mail: Period::from_mins(5),
            // RFC 5321 section 4.5.3.2.3
            rcpt: Period::from_mins(5),
            // RFC 5321 section 4.5.3.2.4
            data: Period::from_mins(2),
            transaction: Period::from_mins(30),
            // RFC 5321 section 4.5.3.2.5
            data_block: Period::from_mins(3),
            content: Period::from_hours(1),
            // RFC 5321 section 4.5.3.2.6
            end_of_data: Period::from_mins(10),
            reset: Period::from_secs(5),
            https: Period::from_mins(1),
        }
    }
}

impl Timeouts {
    fn validate(&self) -> Result<(), String> {
        let all = [
            ("lookup", self.lookup),
            ("connect", self.connect),
            ("banner", self.banner),
            ("ehlo", self.ehlo),
            ("handshake", self.handshake),
            ("mail", self.mail),
            ("rcpt", self.rcpt),
            ("data", self.data),
            ("transaction", self.transaction),
            ("data_block", self.data_block),
            ("content", self.content),
            ("end_of_data", self.end_of_data),
            ("reset", self.reset),
            ("https", self.https),
        ];
        match all.iter().find(|(_, period)| period.is_zero()) {
            Some((key, _)) => Err(format!("timeouts.{key}: expected more than zero")),
            None => Ok(()),
        }
    }
}

/// True for what can stand in EHLO and in a route: letters, digits, hyphens
/// and dots, no empty label.
pub(crate) fn is_host_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty()
        && name.len() <= 255
        && name.split('.').all(|label| !label.is_empty() && label.len() <= 63 && label.chars().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Settings::default().validate(), Ok(()));
    }

    #[test]
    fn errors_name_the_key() {
        type Spoil = Box<dyn Fn(&mut Settings)>;
        let cases: Vec<(Spoil, &str)> = vec![
            (Box::new(|s| s.retry.clear()), "retry:"),
            (Box::new(|s| s.retry_jitter_percent = 51), "retry_jitter_percent:"),
            (Box::new(|s| s.ehlo_name = Some("a b".into())), "ehlo_name:"),
            (Box::new(|s| s.limits.ready = 0), "limits.ready:"),
            (Box::new(|s| s.limits.connections = usize::MAX), "limits.connections:"),
            (Box::new(|s| s.tls.reports.organization = Some("a\r\nb".into())), "tls.reports.organization:"),
            (Box::new(|s| s.timeouts.mail = Period::from_secs(0)), "timeouts.mail:"),
            (Box::new(|s| s.limits.initial_connections_per_site = 21), "limits.initial"),
            (Box::new(|s| s.smarthost = Some(Smarthost::default())), "smarthost.host:"),
            (Box::new(|s| drop(s.smarthosts.insert("b".into(), Smarthost::default()))), "smarthosts.b.host:"),
            (Box::new(|s| drop(s.smarthosts.insert("B c".into(), Smarthost::default()))), "smarthosts.\"B c\":"),
            (
                Box::new(|s| {
                    s.smarthost =
                        Some(Smarthost { host: "mail.example".into(), user: Some("u".into()), ..Smarthost::default() });
                }),
                "smarthost.user:",
            ),
            (
                Box::new(|s| {
                    s.smarthost = Some(Smarthost {
                        host: "mail.example".into(),
                        user: Some("u".into()),
                        password_file: Some("/p".into()),
                        tls: SmarthostTls::Opportunistic,
                        ..Smarthost::default()
                    });
                }),
                "smarthost.tls:",
            ),
            (Box::new(|s| drop(s.routes.insert("a.example".into(), "ftp://x".into()))), "routes.\"a.example\":"),
        ];
        for (spoil, key) in cases {
            let mut settings = Settings::default();
            spoil(&mut settings);
            let error = settings.validate().expect_err(key);
            assert!(error.starts_with(key), "{error} should start with {key}");
        }
    }
}
