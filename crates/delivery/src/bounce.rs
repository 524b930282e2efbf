//! The bounce message that final failures cause (RFC 3464).

use bytes::Bytes;
use postrider_mail::dsn::{self, Action, DsnRecipient, DsnRequest};
use postrider_mail::{AttemptOutcome, Disposition, EmailAddress, Ret};
use postrider_spool::{Message, NewMessage, OriginKind};
use postrider_submission::{OwnMessage, Submission};

/// The outcomes that the message's sender is to be told about. None for mail
/// that may not cause mail: a null sender's (RFC 5321 section 4.5.5), and what
/// nobody authenticated sent, whose sender address may be anyone's.
pub(crate) fn to_report<'a>(message: &Message, outcomes: &'a [AttemptOutcome]) -> Vec<&'a AttemptOutcome> {
    let origin = &message.origin;
    let authenticated = origin.kind == OriginKind::Submission && origin.credential.is_some();
    if message.envelope.sender.is_none() || !authenticated {
        return Vec::new();
    }
    outcomes.iter().filter(|outcome| has_failed(outcome) && is_wanted(message, outcome)).collect()
}

fn has_failed(outcome: &AttemptOutcome) -> bool {
    matches!(outcome.disposition, Disposition::Bounced(_) | Disposition::Suppressed(_))
}

/// RFC 3461 section 5.2.3: never without FAILURE where NOTIFY was given.
fn is_wanted(message: &Message, outcome: &AttemptOutcome) -> bool {
    let recipient = message.envelope.recipients.get(usize::from(outcome.recipient));
    recipient.is_some_and(|recipient| recipient.notify.wants_failure())
}

/// One notification about all of `failures`. `original` is the message's
/// content, or empty when it cannot be read.
pub(crate) fn compose(
    submission: &Submission,
    boundary: u128,
    message: &Message,
    failures: &[&AttemptOutcome],
    original: &[Bytes],
) -> Option<NewMessage> {
    let to = message.envelope.sender.as_ref()?;
    let id = submission.new_id();
    let domain = submission.settings().operator_domain();
    let from: EmailAddress = format!("MAILER-DAEMON@{domain}").parse().ok()?;
    let recipients: Vec<_> = failures.iter().filter_map(|failure| describe(message, failure)).collect();
    if recipients.is_empty() {
        return None;
    }
    let content = dsn::build(&DsnRequest {
        action: Action::Failed,
        reporting_mta: submission.settings().hostname(),
        from: &from,
        to,
        message_id: &format!("{id}@{}", submission.message_id_domain()),
        date: id.timestamp(),
        boundary,
        id: message.id,
        arrival: message.accepted_at,
        retry_until: None,
        envid: message.envelope.envid.as_deref(),
        recipients: &recipients,
        original,
        ret: message.envelope.ret.unwrap_or(Ret::Headers),
    });
    Some(submission.own_message(OwnMessage {
        id,
        account: message.account,
        to: to.clone(),
        kind: OriginKind::Dsn { of: message.id },
        require_tls: message.envelope.require_tls,
        content,
    }))
}

fn describe<'a>(message: &'a Message, failure: &'a AttemptOutcome) -> Option<DsnRecipient<'a>> {
    let recipient = message.envelope.recipients.get(usize::from(failure.recipient))?;
    Some(DsnRecipient {
        address: &recipient.address,
        orcpt: recipient.orcpt.as_deref(),
        status: failure.status,
        diagnostic: &failure.diagnostic,
        remote: failure.remote.as_ref(),
        at: failure.at,
    })
}
