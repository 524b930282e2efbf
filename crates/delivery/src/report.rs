//! The notifications that outcomes cause (RFC 3461, RFC 3464): who is told
//! what, and how much of the message goes back.

use bytes::Bytes;
use postrider_base::Timestamp;
use postrider_mail::dsn::{Action, DsnRecipient, DsnRequest};
use postrider_mail::{AttemptOutcome, BodyType, Disposition, Envelope, Ret};
use postrider_spool::{Claim, DueRecipient, Message, NewMessage, OriginKind};
use postrider_submission::{Notification, OwnMessage, Submission};

use crate::Shared;
use crate::settings::Settings;

/// What an attempt decided about the recipients of a claim.
pub(crate) struct Results {
    pub(crate) outcomes: Vec<AttemptOutcome>,
    /// Deliveries whose sender asked to hear of them, and that nobody tells of
    /// if not we, by recipient.
    pub(crate) successes: Vec<(u16, Action)>,
}

impl Results {
    /// With room for the outcomes of so many recipients.
    pub(crate) fn with_capacity(recipients: usize) -> Self {
        Self { outcomes: Vec::with_capacity(recipients), successes: Vec::new() }
    }

    /// Adds an outcome. Recipients that are deferred together come back
    /// together: in one transaction, and if they fail in one notification.
    pub(crate) fn push(&mut self, outcome: AttemptOutcome) {
        let mut next_attempt = outcome.next_attempt;
        if next_attempt.is_some() {
            let alike = |known: &&AttemptOutcome| known.attempt == outcome.attempt && known.next_attempt.is_some();
            next_attempt = self.outcomes.iter().find(alike).map_or(next_attempt, |known| known.next_attempt);
        }
        self.outcomes.push(AttemptOutcome { next_attempt, ..outcome });
    }
}

/// The notifications that `results` cause: one for each thing that happened,
/// with all recipients whom it happened to. To be committed together with the
/// outcomes, so that neither is without the other.
pub(crate) async fn write(shared: &Shared, claim: &Claim, results: &Results) -> Vec<NewMessage> {
    let news = news(claim, results, &shared.config.load().settings);
    if news.is_empty() {
        return Vec::new();
    }
    // A message that cannot be read any more is still reported.
    let original = claim.content().await.map(|content| content.chunks().to_vec()).unwrap_or_default();
    let limit = shared.config.load().settings.max_returned_bytes.bytes();
    let mut written = Vec::with_capacity(news.len());
    for (action, about) in &news {
        let ret = returned(&claim.message, *action, limit);
        if let Some(own) = compose(&shared.submission, &claim.message, *action, about, &original, ret) {
            let message = shared.submission.own_message(own);
            written.push(shared.submission.signed_own(message).await);
        }
    }
    written
}

type News<'a> = Vec<(Action, Vec<&'a AttemptOutcome>)>;

/// Whether a sender is told anything: not a null one (RFC 5321 section 4.5.5), nor that of what
/// nobody authenticated sent, whose address may be anyone's.
fn may_cause_mail(message: &Message) -> bool {
    let origin = &message.origin;
    let authenticated = origin.kind == OriginKind::Submission && origin.credential.is_some();
    authenticated && message.envelope.sender.is_some()
}

/// What the message's sender is told.
fn news<'a>(claim: &Claim, results: &'a Results, settings: &Settings) -> News<'a> {
    let mut news = News::new();
    if !may_cause_mail(&claim.message) {
        return news;
    }
    for outcome in &results.outcomes {
        let Some(action) = action(claim, results, outcome, settings) else { continue };
        match news.iter_mut().find(|(known, _)| *known == action) {
            Some((_, about)) => about.push(outcome),
            None => news.push((action, vec![outcome])),
        }
    }
    news
}

/// What is to be told of an outcome, by what NOTIFY asked for (RFC 3461
/// section 4.1). Nothing of a deletion: the operator knows. Nor of bad content: SES says that
/// by its Reject event alone, and a virus would go back to a sender's address that may be anyone's.
fn action(claim: &Claim, results: &Results, outcome: &AttemptOutcome, settings: &Settings) -> Option<Action> {
    let notify = claim.message.envelope.recipients.get(usize::from(outcome.recipient))?.notify;
    match outcome.disposition {
        Disposition::Bounced(_) | Disposition::Suppressed(_) => {
            let wanted = notify.wants_failure() && (settings.feedback_forwarding || notify.is_given());
            wanted.then_some(Action::Failed)
        }
        Disposition::Deferred(_) => {
            (notify.wants_delay() && becomes_late(claim, outcome, settings)).then_some(Action::Delayed)
        }
        Disposition::Delivered => {
            let success = results.successes.iter().find(|(recipient, _)| *recipient == outcome.recipient);
            success.map(|(_, action)| *action)
        }
        Disposition::Deleted | Disposition::Rejected => None,
    }
}

/// Whether this deferral, and none before it, is past the time at which a
/// recipient counts as late.
fn becomes_late(claim: &Claim, outcome: &AttemptOutcome, settings: &Settings) -> bool {
    let due = claim.recipients.iter().find(|due| due.index == outcome.recipient);
    outcome.at >= lateness(&claim.message, settings) && due.is_none_or(|due| !was_late(claim, due, settings))
}

/// When a message counts as late.
fn lateness(message: &Message, settings: &Settings) -> Timestamp {
    message.released_at().saturating_add(settings.delay_notice.as_duration())
}

/// Whether a recipient counted as late at its last outcome, which was committed together with
/// the notice: so there is one notice, whatever crashes.
fn was_late(claim: &Claim, due: &DueRecipient, settings: &Settings) -> bool {
    due.last.as_ref().is_some_and(|last| last.at >= lateness(&claim.message, settings))
}

/// Whether a recipient's sender wants to hear when it is late, and has not.
pub(crate) fn is_to_be_told(claim: &Claim, due: &DueRecipient, settings: &Settings) -> bool {
    let recipient = claim.message.envelope.recipients.get(usize::from(due.index));
    recipient.is_some_and(|recipient| recipient.notify.wants_delay()) && !was_late(claim, due, settings)
}

/// When the sender of a claim is to be told that it is late, although nothing happens to it:
/// `None` when that is not wanted or was done.
pub(crate) fn late_at(claim: &Claim, settings: &Settings) -> Option<Timestamp> {
    let is_wanted = claim.recipients.iter().any(|due| is_to_be_told(claim, due, settings));
    (is_wanted && may_cause_mail(&claim.message)).then(|| lateness(&claim.message, settings))
}

/// How much of the message goes back: all of it only with a failure (RFC 3461
/// section 4.3), when its sender asked for it and its length is within the
/// bound. Never of one that required TLS (RFC 8689 section 5), nor of one that
/// a host without BINARYMIME could not take.
fn returned(message: &Message, action: Action, limit: u64) -> Ret {
    let Envelope { ret, body, require_tls, .. } = &message.envelope;
    let full = *ret == Some(Ret::Full) && action == Action::Failed && message.size <= limit;
    if full && !require_tls && *body != BodyType::BinaryMime { Ret::Full } else { Ret::Headers }
}

/// One notification. `original` is the message's content, or empty when it
/// cannot be read.
fn compose(
    submission: &Submission,
    message: &Message,
    action: Action,
    about: &[&AttemptOutcome],
    original: &[Bytes],
    ret: Ret,
) -> Option<OwnMessage> {
    let recipients: Vec<_> = about.iter().filter_map(|outcome| describe(message, outcome)).collect();
    submission.notification(&Notification {
        id: submission.new_id(),
        account: message.account,
        require_tls: message.envelope.require_tls,
        report: DsnRequest {
            action,
            to: message.envelope.sender.as_ref()?,
            id: message.id,
            arrival: message.accepted_at,
            retry_until: Some(message.expires_at),
            envid: message.envelope.envid.as_deref(),
            recipients: &recipients,
            original,
            ret,
        },
    })
}

fn describe<'a>(message: &'a Message, outcome: &'a AttemptOutcome) -> Option<DsnRecipient<'a>> {
    let recipient = message.envelope.recipients.get(usize::from(outcome.recipient))?;
    Some(DsnRecipient {
        address: &recipient.address,
        orcpt: recipient.orcpt.as_deref(),
        status: outcome.status,
        diagnostic: &outcome.diagnostic,
        remote: outcome.remote.as_ref(),
        at: outcome.at,
    })
}
