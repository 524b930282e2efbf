//! What an attempt found out about a recipient, and what follows from it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use postrider_base::{Period, Random, Timestamp};
use postrider_mail::{
    AttemptOutcome, BounceKind, DelayType, Delays, Disposition, EnhancedStatus, Exchange, MessageId, Remote, SmtpReply,
    Stage, SuppressionReason, SuppressionSource, TlsInfo, sanitize_text,
};
use postrider_spool::{DueRecipient, Message};

use crate::classify::{Verdict, classify, status_of};
use crate::schedule::RetrySchedule;

/// The longest diagnostic that is kept.
const MAX_DIAGNOSTIC: usize = 1_000;

/// What an attempt found out about a recipient.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    /// How far the attempt had come.
    pub(crate) stage: Stage,
    pub(crate) status: EnhancedStatus,
    /// One line: the reply, or words of our own in its form.
    pub(crate) diagnostic: String,
    /// Somebody should look: see [`crate::classify::Classification::about_us`].
    pub(crate) about_us: bool,
    /// What the host said, where it spoke and did not take the message.
    pub(crate) reply: Option<Box<SmtpReply>>,
    /// How long the host wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// The question to the DNS that nothing came of, and its answer.
    pub(crate) asked: Option<Box<Exchange>>,
}

impl Finding {
    /// A remote host has spoken.
    pub(crate) fn reply(stage: Stage, reply: &SmtpReply) -> Self {
        let found = classify(stage, reply);
        let is_delivered = found.verdict == Verdict::Delivered;
        let status = status_of(reply).filter(|status| (status.class == 2) == is_delivered);
        let status = status.unwrap_or_else(|| usual_status(found.verdict));
        // RFC 3463 section 2: class 5 would say that it is over.
        let is_soft = matches!(found.verdict, Verdict::Deferred(_));
        let class = if is_soft { 4 } else { status.class };
        Self {
            verdict: found.verdict,
            stage,
            status: EnhancedStatus { class, ..status },
            diagnostic: sanitize_text(reply.one_line(), MAX_DIAGNOSTIC),
            about_us: found.about_us,
            reply: (!is_delivered).then(|| Box::new(reply.clone())),
            retry_after: None,
            asked: None,
        }
    }

    /// Nobody knows the domain, or nobody says.
    pub(crate) fn no_dns(name: &str) -> Self {
        let text = format!("421 4.4.0 Unable to lookup DNS for {name}");
        Self::communication(Stage::Route, (4, 4, 0), text)
    }

    /// The host does not take connections.
    pub(crate) fn no_connection() -> Self {
        Self::communication(Stage::Connect, (4, 4, 1), "421 4.4.1 Failed to establish connection".to_owned())
    }

    /// The host is silent.
    pub(crate) fn timed_out(stage: Stage) -> Self {
        Self::communication(stage, (4, 4, 2), "421 4.4.2 Connection timed out".to_owned())
    }

    /// There was no connection for the message; for this reason, if one is known, which may be a
    /// host's reply.
    pub(crate) fn crowded(why: Option<&str>) -> Self {
        let text = match why {
            None => "421 4.4.5 The message waited for its turn".to_owned(),
            Some(why) if is_reply(why) => why.to_owned(),
            Some(why) => format!("421 4.4.5 The message waited: {why}"),
        };
        Self::communication(Stage::Route, (4, 4, 5), text)
    }

    /// The connection broke.
    pub(crate) fn lost(stage: Stage) -> Self {
        Self::communication(stage, (4, 4, 2), "421 4.4.2 Connection lost".to_owned())
    }

    /// The domain says that it takes no mail.
    pub(crate) fn null_mx(domain: &str) -> Self {
        // RFC 7505 section 4.2
        let text = format!("556 5.1.10 {domain} does not accept mail (null MX)");
        Self::own(Verdict::Bounced(BounceKind::PermanentNoEmail), (5, 1, 10), text)
    }

    /// The domain cannot exist.
    pub(crate) fn bad_domain(domain: &str) -> Self {
        let text = format!("553 5.1.2 {domain} is not a valid domain name");
        Self::own(Verdict::Bounced(BounceKind::PermanentNoEmail), (5, 1, 2), text)
    }

    /// The domain's mail leads back here.
    pub(crate) fn looped(domain: &str) -> Self {
        let text = format!("554 5.4.6 Mail for {domain} loops back to this relay");
        Self { about_us: true, ..Self::own(Verdict::Bounced(BounceKind::TransientGeneral), (5, 4, 6), text) }
    }

    /// All the domain's hosts have addresses that must not be dialled.
    pub(crate) fn forbidden(host: &str) -> Self {
        let text = format!("421 4.4.4 {host} has no address that may be dialled");
        Self::own(Verdict::Deferred(DelayType::TransientCommunicationFailure), (4, 4, 4), text)
    }

    /// The operator's addresses for this mail are of another family than the host's.
    pub(crate) fn no_source(host: &str) -> Self {
        let text = format!("421 4.4.1 {host} has no address of a family that this mail may leave from");
        let finding = Self::own(Verdict::Deferred(DelayType::InternalFailure), (4, 4, 1), text);
        Self { about_us: true, ..finding }
    }

    /// TLS is wanted and there is none.
    pub(crate) fn no_tls(reason: &str) -> Self {
        let text = format!("454 4.7.5 No acceptable TLS: {reason}");
        let finding = Self::own(Verdict::Deferred(DelayType::General), (4, 7, 5), text);
        Self { stage: Stage::StartTls, about_us: true, ..finding }
    }

    /// A password is wanted and the host takes none.
    pub(crate) fn no_auth() -> Self {
        let text = "454 4.7.0 The host offers neither AUTH PLAIN nor AUTH LOGIN".to_owned();
        let finding = Self::own(Verdict::Deferred(DelayType::InternalFailure), (4, 7, 0), text);
        Self { stage: Stage::Auth, about_us: true, ..finding }
    }

    /// The host says what no mail host says, or not when it is asked.
    pub(crate) fn not_smtp(stage: Stage) -> Self {
        let text = "421 4.5.0 The host does not speak SMTP".to_owned();
        Self { stage, ..Self::own(Verdict::Deferred(DelayType::RecipientServerError), (4, 5, 0), text) }
    }

    /// The relay itself is in trouble.
    pub(crate) fn internal(reason: &str) -> Self {
        let text = format!("451 4.3.0 {reason}");
        Self { about_us: true, ..Self::own(Verdict::Deferred(DelayType::InternalFailure), (4, 3, 0), text) }
    }

    /// The message needs something of the host that the host does not offer.
    pub(crate) fn unsupported(kind: BounceKind, status: (u8, u16, u16), text: &str) -> Self {
        let (class, subject, detail) = status;
        let text = format!("554 {class}.{subject}.{detail} {text}");
        Self { stage: Stage::MailFrom, ..Self::own(Verdict::Bounced(kind), status, text) }
    }

    fn communication(stage: Stage, status: (u8, u16, u16), text: String) -> Self {
        let verdict = Verdict::Deferred(DelayType::TransientCommunicationFailure);
        Self { stage, ..Self::own(verdict, status, text) }
    }

    fn own(verdict: Verdict, (class, subject, detail): (u8, u16, u16), text: String) -> Self {
        Self {
            verdict,
            stage: Stage::Route,
            status: EnhancedStatus::new(class, subject, detail),
            diagnostic: sanitize_text(text, MAX_DIAGNOSTIC),
            about_us: false,
            reply: None,
            retry_after: None,
            asked: None,
        }
    }

    /// With what the DNS was asked, and said; empty if it said nothing.
    pub(crate) fn asking(self, question: &str, answer: impl std::fmt::Display) -> Self {
        Self { asked: Some(Box::new(Exchange::new(question, answer.to_string(), 0))), ..self }
    }
}

/// Whether words look like a host's.
fn is_reply(words: &str) -> bool {
    words.get(..3).is_some_and(|code| code.bytes().all(|octet| octet.is_ascii_digit()))
}

/// The status for a reply that has none.
fn usual_status(verdict: Verdict) -> EnhancedStatus {
    let (class, subject, detail) = match verdict {
        Verdict::Delivered => (2, 0, 0),
        Verdict::Deferred(DelayType::MailboxFull) => (4, 2, 2),
        Verdict::Deferred(DelayType::RecipientServerError) => (4, 3, 0),
        Verdict::Deferred(_) => (4, 0, 0),
        Verdict::Bounced(BounceKind::PermanentNoEmail) => (5, 1, 1),
        Verdict::Bounced(BounceKind::TransientMailboxFull) => (5, 2, 2),
        Verdict::Bounced(BounceKind::TransientMessageTooLarge) => (5, 3, 4),
        Verdict::Bounced(BounceKind::TransientContentRejected | BounceKind::TransientAttachmentRejected) => (5, 6, 0),
        Verdict::Bounced(_) => (5, 0, 0),
    };
    EnhancedStatus::new(class, subject, detail)
}

/// What the recipients of one attempt have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Circumstances {
    /// Whom the attempt spoke to; its stage is the finding's.
    pub(crate) remote: Option<Remote>,
    pub(crate) tls: Option<TlsInfo>,
    pub(crate) delays: Delays,
}

/// Turns findings into outcomes: decides between another attempt and the end.
pub(crate) struct Judge<'a> {
    pub(crate) schedule: &'a RetrySchedule,
    /// Waits that come before the schedule's.
    pub(crate) waits: Option<&'a [Period]>,
    pub(crate) random: &'a Random,
    pub(crate) now: Timestamp,
    pub(crate) message: &'a Message,
    /// Each recipient gets a copy of its own.
    pub(crate) copies: bool,
}

impl Judge<'_> {
    /// The outcome of an attempt for `due`.
    pub(crate) fn outcome(&self, due: &DueRecipient, finding: &Finding, around: &Circumstances) -> AttemptOutcome {
        let attempt = due.attempts.saturating_add(1);
        let remote = around.remote.clone().map(|remote| Remote { stage: finding.stage, ..remote });
        let outcome = AttemptOutcome {
            recipient: due.index,
            at: self.now,
            attempt,
            disposition: Disposition::Delivered,
            status: finding.status,
            diagnostic: finding.diagnostic.clone(),
            remote,
            tls: around.tls.clone(),
            delays: around.delays,
            next_attempt: None,
            record: None,
        };
        match finding.verdict {
            Verdict::Delivered => outcome,
            Verdict::Bounced(kind) => AttemptOutcome { disposition: Disposition::Bounced(kind), ..outcome },
            Verdict::Deferred(delay) => {
                let (expires_at, asked) = (self.message.expires_at, finding.retry_after);
                let next = self.schedule.next(attempt, self.now, expires_at, self.random, self.waits, asked);
                let next = next.map(|next| {
                    if self.copies { together(self.message.id, self.now, next).min(expires_at) } else { next }
                });
                match next {
                    next @ Some(_) => {
                        AttemptOutcome { disposition: Disposition::Deferred(delay), next_attempt: next, ..outcome }
                    }
                    None => self.expired(delay, outcome),
                }
            }
        }
    }

    /// The outcome for `due`, who is on a suppression list.
    pub(crate) fn suppressed(&self, due: &DueRecipient, source: SuppressionSource) -> AttemptOutcome {
        let why = match source.reason {
            SuppressionReason::Bounce => "mail to it bounced before",
            SuppressionReason::Complaint => "its owner complained before",
        };
        let list = source.list.as_str();
        AttemptOutcome {
            recipient: due.index,
            at: self.now,
            attempt: due.attempts.saturating_add(1),
            disposition: Disposition::Suppressed(source),
            status: EnhancedStatus::new(5, 1, 1),
            diagnostic: format!("550 5.1.1 Not sent: the address is on the suppression list ({list}) because {why}"),
            remote: None,
            tls: None,
            delays: Delays { queue_ms: self.queue_ms(), ..Delays::default() },
            next_attempt: None,
            record: None,
        }
    }

    /// The outcome for `due`, whose message's time was over before its turn came.
    pub(crate) fn expired_unattempted(&self, due: &DueRecipient, said: Option<&str>) -> AttemptOutcome {
        let (delay, waited) = self.waited(due, said);
        self.expired(delay, AttemptOutcome { attempt: due.attempts.saturating_add(1), ..waited })
    }

    /// The outcome for `due`, who is late and waits on: no attempt was made, and it is due
    /// since then as before.
    pub(crate) fn late(&self, due: &DueRecipient, said: Option<&str>, since: Timestamp) -> AttemptOutcome {
        let (_, waited) = self.waited(due, said);
        AttemptOutcome { next_attempt: Some(since), ..waited }
    }

    /// What is to be said of `due`, who has waited for a turn. What its last attempt said is the
    /// reason, or else what `said`, the site's last refusal or what keeps it, says.
    fn waited(&self, due: &DueRecipient, said: Option<&str>) -> (DelayType, AttemptOutcome) {
        let last = due.last.as_ref();
        let finding = Finding::crowded(said);
        let delay = match last.map(|last| &last.disposition) {
            Some(Disposition::Deferred(delay)) => *delay,
            _ => DelayType::TransientCommunicationFailure,
        };
        let outcome = AttemptOutcome {
            recipient: due.index,
            at: self.now,
            attempt: due.attempts,
            disposition: Disposition::Deferred(delay),
            status: finding.status,
            diagnostic: last.map_or(finding.diagnostic, |last| last.diagnostic.clone()),
            remote: None,
            tls: None,
            delays: Delays { queue_ms: self.queue_ms(), ..Delays::default() },
            next_attempt: None,
            record: None,
        };
        (delay, outcome)
    }

    /// How long the message has been in the queue, without the time that its
    /// sender wanted.
    pub(crate) fn queue_ms(&self) -> u32 {
        millis(self.now.saturating_since(self.message.released_at()))
    }

    /// The message's time is over: the soft failure becomes final.
    fn expired(&self, delay: DelayType, outcome: AttemptOutcome) -> AttemptOutcome {
        let life = self.message.expires_at.saturating_since(self.message.released_at());
        let minutes = life.as_secs() / 60;
        let last = &outcome.diagnostic;
        let kind = match delay {
            DelayType::MailboxFull => BounceKind::TransientMailboxFull,
            _ => BounceKind::TransientGeneral,
        };
        AttemptOutcome {
            disposition: Disposition::Bounced(kind),
            status: EnhancedStatus::new(4, 4, 7),
            diagnostic: format!("550 4.4.7 Message expired: unable to deliver in {minutes} minutes.<{last}>"),
            next_attempt: None,
            ..outcome
        }
    }
}

/// When the copies of a message come again that are put off until about the same time: at the
/// same time, so that what is known of them is read back once for all. That is later than
/// `next`, by a fourth of the wait at most, and another time for each message.
fn together(id: MessageId, now: Timestamp, next: Timestamp) -> Timestamp {
    let wait = next.as_millis().saturating_sub(now.as_millis());
    // A power of two: waits with different jitter have the same grid, or each second line of it.
    let Some(grid) = (wait / 4).checked_ilog2().map(|bits| 1_u64 << bits) else { return next };
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let since = next.as_millis().wrapping_sub(hasher.finish());
    let later = since.wrapping_neg() % grid;
    Timestamp::from_millis(next.as_millis().saturating_add(later))
}

/// Whole milliseconds, at most `u32::MAX`.
pub(crate) fn millis(span: std::time::Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(stage: Stage, code: u16, text: &str) -> Finding {
        Finding::reply(stage, &SmtpReply::new(code, text))
    }

    #[test]
    fn a_reply_without_a_status_gets_the_usual_one() {
        assert_eq!(of(Stage::EndOfData, 250, "ok").status, EnhancedStatus::new(2, 0, 0));
        assert_eq!(of(Stage::RcptTo, 550, "no such user").status, EnhancedStatus::new(5, 1, 1));
        assert_eq!(of(Stage::RcptTo, 550, "5.1.6 moved").status, EnhancedStatus::new(5, 1, 6));
        assert_eq!(of(Stage::RcptTo, 452, "mailbox full").status, EnhancedStatus::new(4, 2, 2));
    }

    #[test]
    fn a_status_that_stands_further_back_counts() {
        let taken = of(Stage::RcptTo, 550, "Requested action not taken (5.2.1)");
        assert_eq!(taken.status, EnhancedStatus::new(5, 2, 1));
        assert_eq!(taken.diagnostic, "550 Requested action not taken (5.2.1)");
        assert_eq!(of(Stage::RcptTo, 550, "Blocked\nsee 5.7.1 there").status, EnhancedStatus::new(5, 7, 1));
        assert_eq!(of(Stage::RcptTo, 550, "no such user (4.1.1)").status, EnhancedStatus::new(5, 1, 1));
        assert_eq!(of(Stage::EndOfData, 250, "taken, not 5.1.1").status, EnhancedStatus::new(2, 0, 0));
    }

    #[test]
    fn a_status_never_contradicts_the_verdict() {
        assert_eq!(of(Stage::Data, 250, "2.0.0 ok").status, EnhancedStatus::new(4, 3, 0));
        assert_eq!(of(Stage::EndOfData, 250, "5.0.0 ok").status, EnhancedStatus::new(2, 0, 0));
        let refused_us = of(Stage::MailFrom, 550, "5.7.1 not you");
        assert!(matches!(refused_us.verdict, Verdict::Deferred(_)));
        assert_eq!(refused_us.status, EnhancedStatus::new(4, 7, 1));
        assert_eq!(refused_us.diagnostic, "550 5.7.1 not you");
    }

    #[test]
    fn words_of_our_own_have_the_form_of_a_reply() {
        for finding in [
            Finding::no_dns("example.com"),
            Finding::no_connection(),
            Finding::timed_out(Stage::Banner),
            Finding::lost(Stage::RcptTo),
            Finding::crowded(None),
            Finding::null_mx("example.com"),
            Finding::bad_domain("example..com"),
            Finding::looped("example.com"),
            Finding::forbidden("mx.example.com"),
            Finding::no_source("mx.example.com"),
            Finding::no_tls("none offered"),
            Finding::no_auth(),
            Finding::not_smtp(Stage::Banner),
            Finding::internal("cannot read"),
        ] {
            let (code, rest) = finding.diagnostic.split_once(' ').unwrap();
            let status = rest.split_once(' ').unwrap().0;
            assert_eq!(status, finding.status.to_string(), "{finding:?}");
            let soft = matches!(finding.verdict, Verdict::Deferred(_));
            assert_eq!(code.starts_with('4'), soft, "{finding:?}");
            assert_eq!(finding.status.class == 4, soft, "{finding:?}");
        }
    }
}
