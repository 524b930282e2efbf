//! The one declaration of every metric of the product.
//!
//! A room takes a [`Metrics`] handle and uses the fields: they are atomics,
//! labels are resolved by index, nothing is looked up by name. To add a
//! metric, add a line to the table; the exporter and the reference page
//! follow.

mod instruments;
mod labels;

pub use instruments::{BuildInfo, By, ByName, Counter, Declaration, Gauge, Held, Histogram, Label, Named, Rate, Rates};
pub use labels::*;

use std::ops::Deref;
use std::sync::Arc;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// All metrics of one relay. A cheap handle; clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Exported>);

#[derive(Debug)]
struct Exported {
    table: Table,
    registry: Registry,
}

impl Metrics {
    /// Fresh metrics, all at zero.
    pub fn new() -> Self {
        let table = Table::default();
        let mut registry = Registry::default();
        table.register(&mut registry);
        Self(Arc::new(Exported { table, registry }))
    }

    /// All metrics in the OpenMetrics text format, of type
    /// [`Metrics::CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        text::encode(&mut out, &self.0.registry).expect("writing to a string does not fail");
        out
    }

    /// The media type of [`Metrics::encode`].
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// What every metric is called and means, in the order of the table.
    pub fn reference() -> Vec<Declaration> {
        Table::reference()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Metrics {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.0.table
    }
}

macro_rules! table {
    ($( $(#[doc = $help:literal])+ $field:ident: $type:ty = $name:literal; )*) => {
        /// Every metric, as a field.
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct Table { $( $(#[doc = $help])+ pub $field: $type, )* }

        impl Table {
            fn register(&self, registry: &mut Registry) {
                // The exporter ends each help text with a full stop itself.
                $( registry.register(
                    $name,
                    concat!($($help),+).trim().trim_end_matches('.'),
                    self.$field.clone(),
                ); )*
            }

            fn reference() -> Vec<Declaration> {
                vec![$( instruments::declaration::<$type>($name, concat!($($help),+).trim()), )*]
            }
        }
    };
}

table! {
    /// The version that runs.
    build: BuildInfo = "postrider_build";
    /// When the process started, in seconds since 1970.
    start_time: Gauge = "postrider_start_time_seconds";
    /// 1 while the relay takes mail, else 0.
    ready: Gauge = "postrider_ready";

    /// Connections from clients that are open.
    connections_open: By<Listener, Gauge> = "postrider_connections_open";
    /// Connections from clients that were taken.
    connections_accepted: By<Listener, Counter> = "postrider_connections_accepted";
    /// Connections from clients that were turned away at once, by listener.
    connections_refused: By<Listener, Counter> = "postrider_connections_refused";
    /// Connections from clients that were turned away at once, by reason.
    connections_refused_reason: By<Refusal, Counter> = "postrider_connections_refused_reason";
    /// Connections closed because the client was silent for too long.
    connections_timed_out: By<Listener, Counter> = "postrider_connections_timed_out";
    /// Connections of clients that had not authenticated, closed to make room for new ones.
    connections_given_way: By<Listener, Counter> = "postrider_connections_given_way";
    /// Bytes of messages that are being received, in memory until they are synced.
    content_memory: Gauge = "postrider_content_memory_bytes";
    /// Messages refused because there was no memory for their content.
    content_refused: Counter = "postrider_content_refused";
    /// TLS handshakes with clients that succeeded.
    tls_handshakes: By<Listener, Counter> = "postrider_tls_handshakes";
    /// TLS handshakes with clients that failed.
    tls_failures: By<Listener, Counter> = "postrider_tls_failures";
    /// Why they failed.
    tls_failure_reason: By<HandshakeFailure, Counter> = "postrider_tls_failure_reason";
    /// Authentication exchanges.
    auth: By<AuthResult, Counter> = "postrider_auth";
    /// Answers to wrong passwords that were held back for a while.
    auth_delayed: Counter = "postrider_auth_delayed";
    /// Addresses banned for guessing passwords.
    bans: Counter = "postrider_bans";
    /// Addresses that are banned at the moment.
    bans_active: Gauge = "postrider_bans_active";

    /// Messages accepted: synced and answered with 250.
    messages_accepted: Counter = "postrider_messages_accepted";
    /// Bytes of the messages accepted.
    messages_accepted_bytes: Counter = "postrider_messages_accepted_bytes";
    /// Recipients of the messages accepted.
    recipients_accepted: Counter = "postrider_recipients_accepted";
    /// Messages accepted whose From field names no address: no identity is theirs.
    messages_without_author: Counter = "postrider_messages_without_author";
    /// DKIM signatures put on accepted messages.
    dkim_signatures: Counter = "postrider_dkim_signatures";
    /// Messages that could not be signed although there is a key.
    dkim_failures: Counter = "postrider_dkim_failures";
    /// Messages that wait for a thread that signs.
    dkim_waiting: Gauge = "postrider_dkim_waiting";
    /// Commands and messages refused, by reply code.
    refused: By<RefusalCode, Counter> = "postrider_refused";
    /// Messages put off because of the quota of their account or of their credential, by the bound that they met.
    quota_refused: By<QuotaBound, Counter> = "postrider_quota_refused";
    /// Recipients of the last 24 hours by account, of as many accounts as `account.usage_metrics` says: those that sent first.
    quota_sent: ByName<AccountNumber, Gauge> = "postrider_quota_sent_24h";
    /// How much of its quota for 24 hours an account has used, in percent; 0 where it has none. Of the same accounts.
    quota_used: ByName<AccountNumber, Gauge> = "postrider_quota_used_percent";
    /// Accounts that have sent in the last 24 hours and have no metrics of their own, because there are too many.
    quota_unshown: Gauge = "postrider_quota_accounts_unshown";
    /// Addresses on the suppression lists of all accounts; `account.max_suppressed` bounds them.
    suppression_entries: Gauge = "postrider_suppression_entries";
    /// Addresses that the global suppression list has or remembers, within the same bound.
    suppression_global_entries: Gauge = "postrider_suppression_global_entries";
    /// Files of the suppression lists that were found to be damaged: their entries that can not be read suppress
    /// also mail to a few addresses that are not listed. See docs/suppression.md.
    suppression_damaged_files: Gauge = "postrider_suppression_damaged_files";
    /// Hard bounces that a suppression list could not take, because it is full or a file of it is damaged.
    suppression_failures: Counter = "postrider_suppression_failures";
    /// Seconds from handing a message to the log until it was synced.
    commit_duration: Histogram = "postrider_commit_duration_seconds";

    /// Messages in the spool.
    spool_messages: Gauge = "postrider_spool_messages";
    /// Bytes that the spool's segments take on the disk.
    spool_bytes: Gauge = "postrider_spool_bytes";
    /// Segments of the spool.
    spool_segments: Gauge = "postrider_spool_segments";
    /// Syncs of the spool's log; each makes a group of messages durable.
    spool_syncs: Counter = "postrider_spool_syncs";
    /// Bytes written to the spool's logs, records of every kind and copies.
    spool_written_bytes: Counter = "postrider_spool_written_bytes";
    /// Bytes of messages that the spool took: what is written beyond them is the price of durability.
    spool_accepted_bytes: Counter = "postrider_spool_accepted_bytes";
    /// Bytes of message bodies held in memory.
    spool_body_memory_bytes: Gauge = "postrider_spool_body_memory_bytes";
    /// Damaged records put into quarantine.
    spool_quarantined: Counter = "postrider_spool_quarantined";
    /// Messages whose reply was delayed because more came than was delivered.
    spool_paced: Counter = "postrider_spool_paced";
    /// Messages not admitted because the spool was full.
    spool_full: Counter = "postrider_spool_full";

    /// Messages that the virus scanner was asked about, by its verdict.
    scans: By<ScanVerdict, Counter> = "postrider_scans";
    /// Messages that are being scanned.
    scans_open: Gauge = "postrider_scans_open";
    /// Seconds that the scan of a message took.
    scan_duration: Histogram = "postrider_scan_duration_seconds";
    /// Claims of messages that left unscanned because the scanner gave no verdict and the settings allow it.
    scans_skipped: Counter = "postrider_scans_skipped";
    /// 1 after the virus scanner answered, 0 after it did not, and where none is configured.
    scanner_up: Gauge = "postrider_scanner_up";
    /// Messages that the operator's filters were asked about, by what became of them.
    filtered: By<FilterVerdict, Counter> = "postrider_filtered_messages";
    /// Changes of messages that filters asked for and that are not made.
    filter_changes_ignored: Counter = "postrider_filter_changes_ignored";

    /// Bytes of messages that come in at feedback listeners, in memory until what they say is synced.
    feedback_content_memory: Gauge = "postrider_feedback_content_memory_bytes";
    /// SPF checks of messages that came in at feedback listeners, by result.
    verified_spf: By<Verified, Counter> = "postrider_verified_spf";
    /// DKIM signatures of messages that came in at feedback listeners, by result; `none` counts messages without any.
    verified_dkim: By<Verified, Counter> = "postrider_verified_dkim";
    /// ARC chains of messages that came in at feedback listeners, by result.
    verified_arc: By<Verified, Counter> = "postrider_verified_arc";
    /// DMARC checks of messages that came in at feedback listeners, by result.
    verified_dmarc: By<Verified, Counter> = "postrider_verified_dmarc";
    /// Messages that are being verified, those that wait for their turn among them.
    verifying: Gauge = "postrider_verifying_messages";
    /// Messages that were taken without being verified: too many others were, or they exceed a bound of `verification`.
    unverified: Counter = "postrider_unverified_messages";
    /// Seconds that the verification of a message took, its wait for a turn included.
    verification_duration: Histogram = "postrider_verification_duration_seconds";

    /// Messages that came in at feedback listeners, by what they are.
    feedback_arrived: By<FeedbackKind, Counter> = "postrider_feedback_messages";
    /// What became of them, for each recipient.
    feedback_outcomes: By<FeedbackOutcome, Counter> = "postrider_feedback_outcomes";
    /// Mails to senders and to the operator that messages at feedback listeners caused.
    feedback_mails: Counter = "postrider_feedback_mails";
    /// Such mails that could not be queued.
    feedback_mails_failed: Counter = "postrider_feedback_mails_failed";

    /// Delivery attempts: one message to one domain over one connection.
    attempts: Counter = "postrider_delivery_attempts";
    /// Attempts that ended by a fault of this program; their recipients are tried again later.
    attempts_failed: Counter = "postrider_delivery_attempts_failed";
    /// Recipients by what became of them in an attempt.
    outcomes: By<Outcome, Counter> = "postrider_delivery_recipients";
    /// Seconds from the start of an attempt to its last reply.
    attempt_duration: Histogram = "postrider_delivery_attempt_duration_seconds";
    /// Connections to other hosts that are open.
    outbound_open: Gauge = "postrider_outbound_connections_open";
    /// Connections to other hosts that were opened.
    outbound_opened: Counter = "postrider_outbound_connections_opened";
    /// Attempts that found an open connection to use again.
    outbound_reused: Counter = "postrider_outbound_connections_reused";
    /// Connections to other hosts that could not be opened.
    outbound_failed: Counter = "postrider_outbound_connections_failed";
    /// Hosts of which it is remembered what became of connections to them.
    outbound_known_hosts: Gauge = "postrider_outbound_known_hosts";
    /// Recipient domains whose hosts are looked up or next to be.
    outbound_sought: Gauge = "postrider_outbound_sought_domains";
    /// Times that a queue was left in the spool because too many messages or domains waited for a lookup.
    outbound_sought_parked: Counter = "postrider_outbound_sought_parked";
    /// Queues that were looked at again because a pause had ended or there was news of the addresses to leave from.
    outbound_recalled: Counter = "postrider_outbound_recalled_queues";
    /// MTA-STS policies of recipient domains that are kept.
    sts_policies: Gauge = "postrider_sts_policies";
    /// Fetches of MTA-STS policies.
    sts_fetches: By<StsFetch, Counter> = "postrider_sts_fetches";
    /// Recipient domains that ask for a report about the TLS sessions of this day.
    tls_report_domains: Gauge = "postrider_tls_report_domains";
    /// Sessions that no report counts, because the bound on domains was reached; and domains whose counts the store did not take.
    tls_report_uncounted: Counter = "postrider_tls_report_uncounted_sessions";
    /// Daily reports about TLS.
    tls_reports: By<TlsReport, Counter> = "postrider_tls_reports";
    /// Looks at what the DNS says of identities and MAIL FROM domains.
    upkeep_looks: By<Look, Counter> = "postrider_upkeep_looks";
    /// Accounts of which outcomes were counted lately, by where they stand.
    reputation_accounts: By<Enforcement, Gauge> = "postrider_reputation_accounts";
    /// Configuration sets with reputation metrics of which outcomes were counted lately, by where they stand.
    reputation_sets: By<Enforcement, Gauge> = "postrider_reputation_configuration_sets";
    /// Hard bounces by recipients: SES's `Reputation.BounceRate`, of the senders with the highest ones. Absent before a sender's first bounce.
    reputation_bounce_rate: Rates = "postrider_reputation_bounce_rate";
    /// Complaints by recipients: SES's `Reputation.ComplaintRate`, of the senders with the highest ones. Absent before a sender's first complaint.
    reputation_complaint_rate: Rates = "postrider_reputation_complaint_rate";
    /// Accounts and configuration sets that a rule has paused.
    reputation_pauses: Counter = "postrider_reputation_pauses";
    /// Attempts by how sure the session was: who vouches for the host, and what the session keeps out.
    attempt_levels: By<TlsLevel, Counter> = "postrider_delivery_attempt_levels";
    /// Sessions with hosts that were not what they had to be, so that nothing was sent.
    tls_enforced: Counter = "postrider_delivery_tls_enforced";
    /// 1 while answers of the DNS are validated with DNSSEC, 0 while the name servers do not let them be.
    dnssec: Gauge = "postrider_dnssec_validation";
    /// Zones whose keys were proved and are known, so that their signatures take no chain up to the root.
    dnssec_zones: Gauge = "postrider_dnssec_zones";
    /// Replies that met a feedback rule.
    shaping_feedback: By<Feedback, Counter> = "postrider_shaping_feedback";
    /// Replies that said when to try again.
    shaping_retry_after: Counter = "postrider_shaping_retry_after";
    /// Pauses in effect: of an operator, or of a source address or a signing domain at one site.
    shaping_pauses: By<PauseKind, Gauge> = "postrider_shaping_pauses";
    /// Sites and providers that get less than the rules allow, because they complained.
    shaping_slowed: Gauge = "postrider_shaping_slowed";
    /// Deliveries that had to wait for their turn.
    shaping_waits: By<ShapingWait, Counter> = "postrider_shaping_waits";
    /// DNS questions that deliveries asked.
    dns: By<DnsResult, Counter> = "postrider_dns_questions";

    /// How far each source of the settings is warmed up, in percent; 100 is complete.
    source_warm_up: ByName<SourceName, Gauge> = "postrider_source_warm_up_percent";
    /// Delivery attempts by the source that they came from.
    source_attempts: ByName<SourceName, Counter> = "postrider_source_attempts";
    /// Recipients whose host took a message, by the source that it came from.
    source_delivered: ByName<SourceName, Counter> = "postrider_source_delivered";
    /// Recipients put off, by source.
    source_deferred: ByName<SourceName, Counter> = "postrider_source_deferred";
    /// Recipients given up, by source.
    source_bounced: ByName<SourceName, Counter> = "postrider_source_bounced";
    /// Refusals because of the address that a message came from, by source.
    source_blocked: ByName<SourceName, Counter> = "postrider_source_blocked";

    /// Records written to the journal.
    journal_records: By<EventKind, Counter> = "postrider_journal_records";
    /// Bytes that the journal's segments take on the disk.
    journal_bytes: Gauge = "postrider_journal_bytes";
    /// Synced batches of the spool that a consumer of its feed has not dealt with yet.
    feed_lag: By<FeedName, Gauge> = "postrider_feed_lag_batches";
    /// Lines of the mail log that could not be written.
    mail_log_lost: Counter = "postrider_mail_log_lost";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    #[test]
    fn exports_what_was_counted() {
        let metrics = Metrics::new();
        metrics.refused.of(RefusalCode::of(552)).inc();
        metrics.messages_accepted.inc_by(3);
        let open = Held::new(metrics.connections_open.of(Listener::Feedback));
        metrics.commit_duration.observe(Duration::from_micros(1500));
        metrics.commit_duration.observe(Duration::from_hours(2));
        let text = metrics.encode();
        for line in [
            "postrider_refused_total{code=\"552\"} 1",
            "postrider_refused_total{code=\"554\"} 0",
            "postrider_messages_accepted_total 3",
            "postrider_connections_open{listener=\"feedback\"} 1",
            "postrider_commit_duration_seconds_bucket{le=\"0.001\"} 0",
            "postrider_commit_duration_seconds_bucket{le=\"0.002\"} 1",
            "postrider_commit_duration_seconds_bucket{le=\"+Inf\"} 2",
            "postrider_commit_duration_seconds_sum 7200.0015",
            "# HELP postrider_spool_messages Messages in the spool.",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
        drop(open);
        assert_eq!(metrics.connections_open.of(Listener::Feedback).get(), 0);
        assert_eq!(metrics.commit_duration.count(), 2);
    }

    #[test]
    fn relays_do_not_share() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.attempts.inc();
        assert_eq!((one.attempts.get(), other.attempts.get()), (1, 0));
    }

    #[test]
    fn the_reference_is_what_is_exported() {
        let metrics = Metrics::new();
        for named in [&metrics.source_attempts, &metrics.source_delivered, &metrics.source_deferred] {
            named.of("out1").inc();
        }
        for named in [&metrics.source_bounced, &metrics.source_blocked] {
            named.of("out1").inc();
        }
        metrics.source_warm_up.of("out1").set(50);
        metrics.quota_sent.of("000000000001").set(10);
        metrics.quota_used.of("000000000001").set(5);
        for rates in [&metrics.reputation_bounce_rate, &metrics.reputation_complaint_rate] {
            let (account, configuration_set) = ("000000000001".to_owned(), "news".to_owned());
            rates.replace(vec![Rate { account, configuration_set, rate: 0.05 }]);
        }
        let text = metrics.encode();
        let rate = "postrider_reputation_bounce_rate{account=\"000000000001\",configuration_set=\"news\"} 0.05\n";
        assert!(text.contains(rate), "{text}");
        assert!(text.contains("postrider_source_attempts_total{source=\"out1\"} 1\n"), "{text}");
        let mut names = HashSet::new();
        for declared in Metrics::reference() {
            assert!(names.insert(declared.name.clone()), "{} twice", declared.name);
            let sample = text.lines().any(|line| {
                line.strip_prefix(declared.name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
            });
            assert!(sample, "{} is not exported", declared.name);
            assert!(declared.help.ends_with('.'), "{}", declared.name);
            for (_, values) in declared.labels {
                let unique: HashSet<_> = values.iter().collect();
                assert_eq!(unique.len(), values.len());
            }
        }
    }
}
