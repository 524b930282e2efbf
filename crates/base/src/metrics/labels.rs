//! The labels of metrics: closed sets, so that nothing from outside makes a series.

use super::instruments::{Label, Named};

macro_rules! labels {
    ($(
        $(#[$doc:meta])* $name:ident = $key:literal {
            $( $(#[$value_doc:meta])* $value:ident = $text:literal, )*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$value_doc])* $value, )* }

        impl Label for $name {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$( Self::$value, )*];

            fn as_str(self) -> &'static str {
                match self { $( Self::$value => $text, )* }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )*};
}

labels! {
    /// What kind of listener a connection came in by.
    Listener = "listener" {
        /// Submission that begins in clear and upgrades.
        SubmissionStartTls = "submission_starttls",
        /// Submission inside TLS from the first byte.
        SubmissionTls = "submission_tls",
        /// The public mail exchanger for bounces and complaints.
        Feedback = "feedback",
    }

    /// Why a connection was turned away before its first command.
    Refusal = "reason" {
        /// The listener's bound on connections is reached.
        TooMany = "too_many",
        /// The client address's bound on connections is reached.
        TooManyFromAddress = "too_many_from_address",
        /// The client network's bound on connections is reached.
        TooManyFromNetwork = "too_many_from_network",
        /// A load balancer's connection that did not say whom it is from.
        NoProxyHeader = "no_proxy_header",
        /// The address is banned.
        Banned = "banned",
        /// The relay is stopping.
        Stopping = "stopping",
        /// The spool takes no mail.
        SpoolFailed = "spool_failed",
    }

    /// Why a client's TLS handshake failed.
    HandshakeFailure = "reason" {
        /// What came is no TLS.
        NotTls = "not_tls",
        /// No version or cipher suite in common.
        Incompatible = "incompatible",
        /// The client's certificate can not be verified.
        ClientCertificate = "client_certificate",
        /// The client refused, most likely our certificate.
        Alert = "alert",
        /// It took too long.
        TimedOut = "timed_out",
        /// The client hung up.
        Closed = "closed",
        /// Anything else.
        Other = "other",
    }

    /// How an authentication exchange ended.
    AuthResult = "result" {
        /// The client proved who it is.
        Success = "success",
        /// Unknown user name or wrong password.
        Invalid = "invalid",
        /// Right password of a disabled credential.
        Disabled = "disabled",
        /// Cancelled, malformed or never finished.
        Aborted = "aborted",
    }

    /// The final reply code that a client got instead of an acceptance.
    RefusalCode = "code" {
        /// 421: the connection is being closed.
        C421 = "421",
        /// 451: a passing failure on our side.
        C451 = "451",
        /// 452: no room, or too many recipients.
        C452 = "452",
        /// 454: throttled or TLS not available.
        C454 = "454",
        /// 500 to 504: the command is wrong.
        C50x = "50x",
        /// 530: authentication or TLS required.
        C530 = "530",
        /// 535: authentication failed.
        C535 = "535",
        /// 550 or 553: an address is refused.
        C55x = "55x",
        /// 552: the message is too long.
        C552 = "552",
        /// 554: the message is rejected.
        C554 = "554",
        /// Any other.
        Other = "other",
    }

    /// What an attempt did to a recipient.
    Outcome = "outcome" {
        /// The remote took the message.
        Delivered = "delivered",
        /// To be tried again.
        Deferred = "deferred",
        /// Given up.
        Bounced = "bounced",
        /// Not tried, because the address is on a suppression list.
        Suppressed = "suppressed",
        /// Not tried, because the message has a virus.
        Rejected = "rejected",
    }

    /// The kind of an event record.
    EventKind = "event" {
        /// Accepted for sending.
        Send = "send",
        /// Taken by the recipient's server.
        Delivery = "delivery",
        /// Put off.
        DeliveryDelay = "delivery_delay",
        /// Given up.
        Bounce = "bounce",
        /// Complained about, or suppressed for an earlier complaint.
        Complaint = "complaint",
        /// Accepted, and not sent for its content.
        Reject = "reject",
        /// Not an event for the sender: kept for a message's life only.
        Internal = "internal",
    }

    /// A consumer of the spool's feed.
    FeedName = "feed" {
        /// The journal of events.
        Events = "events",
    }

    /// How fetching an MTA-STS policy ended.
    StsFetch = "result" {
        /// There is a policy.
        Fetched = "fetched",
        /// There is none, or none that can be trusted.
        Failed = "failed",
    }

    /// What became of a daily report about TLS.
    TlsReport = "result" {
        /// Handed in, or queued as mail.
        Sent = "sent",
        /// Given up.
        Failed = "failed",
    }

    /// What the DNS said of an identity or of a MAIL FROM domain.
    Look = "result" {
        /// What it should say.
        Right = "right",
        /// Something else, or nothing.
        Wrong = "wrong",
        /// It did not answer.
        Unknown = "unknown",
    }

    /// Where a sender stands with the rules about bounces and complaints, in SES's words.
    Enforcement = "status" {
        /// Nothing is to be done.
        Healthy = "healthy",
        /// It may send, and has to mend something.
        UnderReview = "under_review",
        /// The review is over, and a person decides.
        PendingEndOfReviewDecision = "pending_end_of_review_decision",
        /// A person is to pause it.
        PendingSendingPause = "pending_sending_pause",
        /// It may not send.
        SendingPaused = "sending_paused",
    }

    /// What of a quota a message met.
    QuotaBound = "bound" {
        /// More recipients a second than allowed.
        Rate = "rate",
        /// More recipients in 24 hours than allowed.
        Daily = "daily",
        /// More recipients a second than the credential may have of them.
        CredentialRate = "credential_rate",
        /// More recipients in 24 hours than the credential may have of them.
        CredentialDaily = "credential_daily",
        /// What was sent before the start was still being counted.
        Recounting = "recounting",
    }

    /// How sure a session with another host is: who vouches that the host is one
    /// of the recipient's domain, and what the session keeps out.
    TlsLevel = "level" {
        /// In clear, with a host that nobody vouches for.
        UnprovedClear = "unproved_clear",
        /// Encrypted, with a host that has not proved its name and that nobody vouches for.
        UnprovedEncrypted = "unproved_encrypted",
        /// Encrypted, with a host that has proved its name and that nobody vouches for.
        UnprovedAuthenticated = "unproved_authenticated",
        /// In clear, with a host that the domain's policy (MTA-STS) names.
        StsClear = "sts_clear",
        /// Encrypted, with a host that has not proved its name and that the domain's policy (MTA-STS) names.
        StsEncrypted = "sts_encrypted",
        /// Encrypted, with a host that has proved its name and that the domain's policy (MTA-STS) names.
        StsAuthenticated = "sts_authenticated",
        /// In clear, with a host that DNSSEC proves to be the domain's.
        DnssecClear = "dnssec_clear",
        /// Encrypted, with a host that has not proved its name and that DNSSEC proves to be the domain's.
        DnssecEncrypted = "dnssec_encrypted",
        /// Encrypted, with a host that has proved its name and that DNSSEC proves to be the domain's.
        DnssecAuthenticated = "dnssec_authenticated",
        /// In clear, with a host that the operator named.
        ConfiguredClear = "configured_clear",
        /// Encrypted, with a host that has not proved its name and that the operator named.
        ConfiguredEncrypted = "configured_encrypted",
        /// Encrypted, with a host that has proved its name and that the operator named.
        ConfiguredAuthenticated = "configured_authenticated",
    }

    /// Why mail to a site pauses.
    PauseKind = "kind" {
        /// An operator said so.
        Operator = "operator",
        /// A reply said that there is too much from a source address.
        Source = "source",
        /// A reply said that there is too much of a signing domain.
        SigningDomain = "signing_domain",
        /// A site has a source address on a list.
        Block = "block",
    }

    /// What a reply led to by a feedback rule.
    Feedback = "action" {
        /// Half the connections and half the rate.
        Slow = "slow",
        /// A pause of a source address.
        PauseSource = "pause_source",
        /// A pause of a signing domain.
        PauseSigningDomain = "pause_signing_domain",
        /// A pause of a source address that somebody has to look after.
        BlockSource = "block_source",
        /// A bounce.
        Bounce = "bounce",
    }

    /// What deliveries wait for.
    ShapingWait = "for" {
        /// A connection to a site that has as many as it gets.
        SiteConnection = "site_connection",
        /// A connection to a provider that has as many as it gets.
        ProviderConnection = "provider_connection",
        /// The next message that a rate allows.
        Rate = "rate",
    }

    /// What the virus scanner said of a message.
    ScanVerdict = "verdict" {
        /// No signature matches.
        Clean = "clean",
        /// One does.
        Infected = "infected",
        /// It said nothing, or not in time, or that it could not look.
        None = "none",
    }

    /// What became of a message by the operator's filters.
    FilterVerdict = "verdict" {
        /// All of them took it.
        Accepted = "accepted",
        /// One refused it.
        Refused = "refused",
        /// One had it thrown away.
        Discarded = "discarded",
        /// One had it held.
        Quarantined = "quarantined",
        /// One gave no verdict, and the client was told to come again.
        Failed = "failed",
        /// One gave no verdict, and it was taken nevertheless.
        Skipped = "skipped",
    }

    /// What SPF, DKIM, ARC or DMARC says of a message (RFC 8601).
    Verified = "result" {
        /// There is nothing to look at.
        None = "none",
        /// It is whom it says it is from.
        Pass = "pass",
        /// It is not.
        Fail = "fail",
        /// It probably is not.
        SoftFail = "softfail",
        /// It may be or not.
        Neutral = "neutral",
        /// It is, in a way that does not count.
        Policy = "policy",
        /// The DNS could not be asked.
        TempError = "temperror",
        /// What is published can not be understood.
        PermError = "permerror",
    }

    /// What a message is that came in at a feedback listener.
    FeedbackKind = "kind" {
        /// It says that somebody did not get a message.
        Bounce = "bounce",
        /// It says that somebody got a message, or will.
        Progress = "progress",
        /// Somebody complains.
        Complaint = "complaint",
        /// A program answered for somebody.
        Automatic = "automatic",
        /// None of these.
        Other = "other",
    }

    /// What became of a message that came in at a feedback listener.
    FeedbackOutcome = "outcome" {
        /// What it says is in the journal now.
        Journaled = "journaled",
        /// It was before.
        Known = "known",
        /// It is about no message or recipient that the journal knows.
        Unknown = "unknown",
        /// It tells of no failure.
        Progress = "progress",
        /// It went on to the sender of the message that it is about.
        Sender = "sender",
        /// It went on to the operator.
        Operator = "operator",
        /// It went on to nobody: nobody is to be told, or was told before, or got enough in this hour.
        Dropped = "dropped",
        /// It was refused for good.
        Refused = "refused",
        /// The client was told to come again later.
        Later = "later",
    }

    /// How a DNS question was answered.
    DnsResult = "result" {
        /// From the cache.
        Cached = "cached",
        /// By a server, with records or a sure absence of them.
        Answered = "answered",
        /// Not, or not believably.
        Failed = "failed",
    }
}

/// Accounts, as far as the settings let them have metrics of their own.
#[derive(Clone, Copy, Debug)]
pub struct AccountNumber;

impl Named for AccountNumber {
    const KEY: &'static str = "account";
}

/// The addresses that mail leaves from, as the settings name them.
#[derive(Clone, Copy, Debug)]
pub struct SourceName;

impl Named for SourceName {
    const KEY: &'static str = "source";
}

impl RefusalCode {
    /// The label of a reply code.
    pub fn of(code: u16) -> Self {
        match code {
            421 => Self::C421,
            451 => Self::C451,
            452 => Self::C452,
            454 => Self::C454,
            500..=504 => Self::C50x,
            530 => Self::C530,
            535 => Self::C535,
            550 | 553 => Self::C55x,
            552 => Self::C552,
            554 => Self::C554,
            _ => Self::Other,
        }
    }
}
