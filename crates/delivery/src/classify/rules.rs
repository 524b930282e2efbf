//! The rules, first match wins.
//!
//! The order is: words that are beyond doubt whatever code stands before them,
//! then enhanced codes, then words. Add a rule with the reply that it was made
//! for, as it came over the wire.

use postrider_mail::{SmtpReply, Stage};

use super::{Cause, text_matches};

/// One thing known about replies.
pub(super) struct Rule {
    pub(super) cause: Cause,
    pub(super) stages: Stages,
    /// Reply codes; empty means any.
    pub(super) codes: &'static [u16],
    /// Subject and detail of enhanced codes, whose class only repeats the reply
    /// code; empty means any or none.
    pub(super) enhanced: &'static [(u16, u16)],
    /// Words in lower case, `..` between parts that stand in this order; any of
    /// them; empty means whatever it says.
    pub(super) text: &'static [&'static str],
    /// The reply that the rule was made for.
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the rule, and a test holds it to it"))]
    pub(super) reply: &'static str,
}

impl Rule {
    pub(super) fn matches(&self, stage: Stage, reply: &SmtpReply, text: &str) -> bool {
        let enhanced = reply.enhanced.map(|enhanced| (enhanced.subject, enhanced.detail));
        self.stages.contain(stage)
            && (self.codes.is_empty() || self.codes.contains(&reply.code))
            && (self.enhanced.is_empty() || enhanced.is_some_and(|code| self.enhanced.contains(&code)))
            && (self.text.is_empty() || self.text.iter().any(|pattern| text_matches(pattern, text)))
    }
}

/// Where in a session a rule applies.
#[derive(Clone, Copy)]
pub(super) enum Stages {
    Any,
    /// RCPT and what follows: where a reply can be about the recipient.
    Recipient,
    /// DATA and its end: where a reply can be about what the message says.
    Content,
}

impl Stages {
    fn contain(self, stage: Stage) -> bool {
        match self {
            Self::Any => true,
            Self::Recipient => matches!(stage, Stage::RcptTo | Stage::Data | Stage::EndOfData),
            Self::Content => matches!(stage, Stage::Data | Stage::EndOfData),
        }
    }

    #[cfg(test)]
    pub(super) fn example(self) -> Stage {
        match self {
            Self::Any | Self::Recipient => Stage::RcptTo,
            Self::Content => Stage::EndOfData,
        }
    }
}

/// A rule about words.
const fn words(cause: Cause, stages: Stages, text: &'static [&'static str], reply: &'static str) -> Rule {
    Rule { cause, stages, codes: &[], enhanced: &[], text, reply }
}

/// A rule about enhanced codes.
const fn status(cause: Cause, stages: Stages, enhanced: &'static [(u16, u16)], reply: &'static str) -> Rule {
    Rule { cause, stages, codes: &[], enhanced, text: &[], reply }
}

/// A rule about words beside one of the enhanced codes.
const fn both(
    cause: Cause,
    enhanced: &'static [(u16, u16)],
    text: &'static [&'static str],
    reply: &'static str,
) -> Rule {
    Rule { cause, stages: Stages::Any, codes: &[], enhanced, text, reply }
}

/// A rule about words beside one of the reply codes.
const fn coded(cause: Cause, codes: &'static [u16], text: &'static [&'static str], reply: &'static str) -> Rule {
    Rule { cause, stages: Stages::Recipient, codes, enhanced: &[], text, reply }
}

pub(super) const RULES: &[Rule] = &[
    // Words beyond doubt.
    words(
        Cause::Content,
        Stages::Any,
        &["dbl.spamhaus", "query/dbl", "surbl.org", "uribl.com", "blocked url", "url..blacklist", "url..blocklist"],
        "554 5.7.1 Message contains a URL listed by dbl.spamhaus.org",
    ),
    words(
        Cause::SourceBlocked,
        Stages::Any,
        &[
            "spamhaus",
            "spamcop",
            "barracudacentral",
            "sorbs.net",
            "uceprotect",
            "senderscore",
            "cloudmark",
            "client host..blocked using",
            "listed..rbl",
            "listed in..dnsbl",
            "listed by..dnsbl",
            "dnsbl",
        ],
        "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org; \
         https://www.spamhaus.org/query/ip/192.0.2.7",
    ),
    words(
        Cause::SourceBlocked,
        Stages::Any,
        &[
            "banned sending ip",
            "s3140",
            "s3150",
            "block list (",
            "blocked sending ip",
            "your ip address..block",
            " ip address..blacklist",
            " ip address..block list",
            " ip..has been blocked",
            " host..is blacklisted",
            " ip..on our block",
            "blocklisted",
            " ip address..banned",
        ],
        "550 5.7.1 Unfortunately, messages from [192.0.2.7] weren't sent. Please contact your Internet service \
         provider since part of their network is on our block list (S3150).",
    ),
    status(
        Cause::SourceName,
        Stages::Any,
        &[(7, 25)],
        "550 5.7.25 The IP address sending this message does not have a PTR record setup, or the corresponding \
         forward DNS entry does not point to the sending IP.",
    ),
    words(
        Cause::SourceName,
        Stages::Any,
        &[
            "reverse dns",
            "reverse hostname",
            "reverse lookup",
            " ptr record",
            "rdns",
            "cannot find your hostname",
            "cannot find your reverse",
            "no ptr",
            "ip name lookup failed",
            "helo..host not found",
        ],
        "450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.7]",
    ),
    words(
        Cause::Greylisted,
        Stages::Any,
        &["greylist", "graylist", "grey-list", "gray-list", "grey listed"],
        "450 4.2.0 <ann@example.com>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/",
    ),
    words(
        Cause::TooManyRecipients,
        Stages::Recipient,
        &["too many recipients", "recipient limit", "maximum number of recipients"],
        "452 4.5.3 Error: too many recipients",
    ),
    words(
        Cause::Attachment,
        Stages::Content,
        &[
            "attachment",
            "virus",
            "malware",
            "executable",
            "file type",
            "filetype",
            "prohibited file",
            "file extension",
            "infected",
            "blocked because its content presents a potential security",
        ],
        "552 5.7.0 This message was blocked because its content presents a potential security issue. To review our \
         message content and attachment content guidelines, go to https://support.google.com/mail/?p=BlockedMessage",
    ),
    // Enhanced codes (RFC 3463, RFC 7372, RFC 7504, RFC 7505 and the registry).
    status(
        Cause::MailboxFull,
        Stages::Any,
        &[(2, 2)],
        "552 5.2.2 The recipient's inbox is out of storage space and inactive. Please direct the recipient to \
         https://support.google.com/mail/?p=OverQuotaPerm",
    ),
    status(
        Cause::TooLarge,
        Stages::Any,
        &[(2, 3), (3, 4)],
        "552 5.3.4 Your message exceeded Google's message size limits.",
    ),
    words(
        Cause::MailboxFull,
        Stages::Recipient,
        &[
            "mailbox full",
            "mailbox is full",
            "over quota",
            "overquota",
            "quota exceeded",
            "exceeded..quota",
            "inbox is full",
            "out of storage space",
            "mailbox size limit exceeded",
            "exceeded storage allocation",
            "mailbox..quota",
            "not enough space",
            "storage quota",
        ],
        "552 Requested mail action aborted: exceeded storage allocation",
    ),
    both(
        Cause::MailboxClosed,
        &[(1, 1), (1, 0)],
        &["disabled", "inactive", "suspended", "deactivated", "discontinued", "expired"],
        "554 5.1.1 <ann@example.com>: this account has been disabled or discontinued",
    ),
    status(
        Cause::NoMailbox,
        Stages::Recipient,
        &[(1, 1), (1, 3), (1, 6), (1, 10)],
        "550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the \
         recipient's email address for typos or unnecessary spaces.",
    ),
    status(
        Cause::Sender,
        Stages::Any,
        &[(1, 7), (1, 8)],
        "450 4.1.8 <a@example.net>: Sender address rejected: Domain not found",
    ),
    status(
        Cause::MailboxClosed,
        Stages::Any,
        &[(2, 1)],
        "550 5.2.1 The email account that you tried to reach is disabled.",
    ),
    status(
        Cause::Authentication,
        Stages::Any,
        &[(7, 20), (7, 21), (7, 22), (7, 23), (7, 24), (7, 26), (7, 27), (7, 29), (7, 30), (7, 32), (7, 509), (7, 515)],
        "550 5.7.26 This mail has been blocked because the sender is unauthenticated. Gmail requires all senders to \
         authenticate with either SPF or DKIM.",
    ),
    status(
        Cause::SourceBlocked,
        Stages::Any,
        &[(7, 606), (7, 511), (7, 512), (7, 513)],
        "550 5.7.511 Access denied, banned sender[192.0.2.7]. To request removal from this list please forward this message to delist@messaging.microsoft.com.",
    ),
    status(
        Cause::Throttled,
        Stages::Any,
        &[(7, 28), (7, 708), (7, 450), (7, 650), (7, 750)],
        "421 4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address.",
    ),
    status(
        Cause::TooManyRecipients,
        Stages::Recipient,
        &[(5, 3)],
        "452 4.5.3 Recipients belong to multiple regions ATTR38",
    ),
    // Words about the sender, of whom much is said that is also said of recipients.
    words(
        Cause::Sender,
        Stages::Any,
        &[
            "sender address rejected",
            "sender rejected",
            "sender denied",
            "sender blocked",
            "sender not allowed",
            "invalid sender",
            "sender domain",
            "domain of sender",
            "sender verify failed",
            "verification failed for sender",
            "sender is blocked",
            "sender..not exist",
            "not allowed to send",
            "from address..not",
        ],
        "550 Sender verify failed",
    ),
    // Words about the mailbox.
    words(
        Cause::MailboxClosed,
        Stages::Recipient,
        &[
            "account is disabled",
            "account has been disabled",
            "account..suspended",
            "mailbox disabled",
            "mailbox is disabled",
            "mailbox is inactive",
            "account is inactive",
            "inactive account",
            "inactive user",
            "account that you tried to reach is disabled",
            "user disabled",
            "temporarily disabled",
            "deactivated",
            "no longer accepting mail",
            "mailbox is blocked",
            "mailbox unavailable or access denied",
        ],
        "550 <ann@example.com>: Account has been disabled",
    ),
    words(
        Cause::NoMailbox,
        Stages::Recipient,
        &[
            "user unknown",
            "unknown user",
            "unknown recipient",
            "recipient unknown",
            "no such user",
            "no such recipient",
            "no such mailbox",
            "no such account",
            "no such address",
            "no such person",
            "user not found",
            "recipient not found",
            "mailbox not found",
            "address not found",
            "account not found",
            "does not exist",
            "doesn't exist",
            "not a known user",
            "unknown mailbox",
            "mailbox unknown",
            "unknown local part",
            "unknown local-part",
            "unknown address",
            "address unknown",
            "unrouteable address",
            "unroutable address",
            "invalid mailbox",
            "invalid recipient",
            "no mailbox here by that name",
            "no mailbox by that name",
            "user doesn't have a",
            "this user doesn't have",
            "not our customer",
            "is not a valid mailbox",
            "not a valid recipient",
            "user does not exist",
            "unknown or illegal alias",
            "no longer exists",
            "addressee unknown",
            "undeliverable address",
            "recipient address rejected: undeliverable",
            "mailbox is unavailable: user",
            "no existe",
            "utilisateur inconnu",
            "unknown account",
        ],
        "554 delivery error: dd This user doesn't have a yahoo.com account (ann@yahoo.com) [0] - mta1.mail.bf1.yahoo.com",
    ),
    // Words about the source.
    words(
        Cause::Throttled,
        Stages::Any,
        &[
            "too many connections",
            "connection limit",
            "concurrent connection",
            "rate limit",
            "ratelimit",
            "rate-limit",
            "too many messages",
            "too much mail",
            "too many emails",
            "unusual rate",
            "throttl",
            "temporarily deferred due to",
            "unexpected volume",
            "user complaints",
            "exceeded the rate",
            "rate exceeded",
            "too fast",
            "slow down",
            "tss04",
            "max connection",
            "too many sessions",
            "sending rate",
            "too many concurrent",
            "message rate",
            "reputation..temporarily",
        ],
        "421 4.7.0 [TSS04] Messages from 192.0.2.7 temporarily deferred due to unexpected volume or user complaints - \
         4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
    ),
    words(
        Cause::Authentication,
        Stages::Any,
        &[
            "dmarc",
            " spf",
            "dkim",
            "unauthenticated",
            "not authenticated",
            "authentication checks",
            "sender policy framework",
            "authentication is required",
            "email authentication",
        ],
        "550 5.7.1 Email rejected per DMARC policy for example.net",
    ),
    words(
        Cause::SourceBlocked,
        Stages::Any,
        &[
            "blacklist",
            "blocklist",
            "block list",
            "poor reputation",
            "bad reputation",
            "low reputation",
            " ip reputation",
            "reputation of",
            "sender reputation",
            "client host rejected",
            "client host blocked",
            "access denied..ip",
            "blocked by..ip",
            " ip..blocked",
            " ip..not allowed",
            "not accepted from your",
            "dynamic..ip",
            "dynamic ip",
            "your host is not allowed",
            "not allowed to connect",
            " host..blocked",
            "connection refused",
            "esmtp not accepting",
            "network is on",
            "no smtp service here",
            "not accepting connections from",
            "connections from this host",
        ],
        "550-5.7.1 [192.0.2.7] Our system has detected that this message is likely suspicious due to the very low \
         reputation of the sending IP address.",
    ),
    words(
        Cause::Relaying,
        Stages::Recipient,
        &[
            "relay access denied",
            "relaying denied",
            "relay not permitted",
            "unable to relay",
            "not permitted to relay",
            "relaying not allowed",
            "relay denied",
            "we do not relay",
            "not allowed to relay",
            "relay not allowed",
            "relaying is not allowed",
            "not relay",
            "relaying prohibited",
            "not local",
            "domain isn't in my list",
            "domain not found",
            "domain not hosted",
            "no mail hub",
            "not handled here",
            "relaying to",
        ],
        "554 5.7.1 <ann@example.com>: Relay access denied",
    ),
    // Words about the message.
    words(
        Cause::TooLarge,
        Stages::Any,
        &[
            "message size exceeds",
            "message too large",
            "message is too large",
            "message too big",
            "exceeds size limit",
            "message size limit",
            "size limit exceeded",
            "exceeded..size limit",
            "exceeds..maximum..size",
            "exceeds fixed maximum",
            "maximum message size",
            "too big",
            "message length exceeds",
            "larger than",
        ],
        "552 Message size exceeds fixed maximum message size",
    ),
    words(
        Cause::Content,
        Stages::Content,
        &[
            "spam",
            "unsolicited",
            "junk",
            "content reject",
            "message content",
            "content filter",
            "phish",
            "suspicious",
            "suspected",
            "bulk mail",
            "message rejected",
            "rejected as",
            "policy",
            "not accepted for policy",
            "blocked",
            "content not",
            "high score",
            "scored too",
            "bad header",
            "missing header",
            "header..invalid",
            "single address",
            "rfc 5322",
            "rfc5322",
            "rfc 2822",
            "duplicate header",
            "bare lf",
            "8bit",
            "line too long",
            "malformed",
        ],
        "550 High probability of spam",
    ),
    both(
        Cause::Content,
        &[(7, 0), (7, 1)],
        &["spam", "unsolicited mail", "unsolicited email", "content"],
        "421 4.7.0 This message is suspicious, likely unsolicited mail; to reduce spam sent to Gmail it has been deferred",
    ),
    // Words about the host.
    coded(
        Cause::Server,
        &[450, 451, 452, 454, 421, 550, 554],
        &[
            "insufficient system",
            "insufficient storage",
            "system storage",
            "local error",
            "lookup failure",
            "server configuration",
            "temporary lookup",
            "internal error",
            "internal server error",
            "try again later",
            "service not available",
            "service unavailable",
            "server busy",
            "server is busy",
            "system error",
            "overload",
            "temporarily unavailable",
            "temporary failure",
            "system not accepting",
            "low resources",
            "load average",
        ],
        "451 4.3.0 <ann@example.com>: Temporary lookup failure",
    ),
];
