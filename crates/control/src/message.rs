//! The life of one message, from the journal and the queue.

use std::time::Duration;

use postrider_base::Timestamp;
use postrider_events::{Acceptance, Events, LifeEntry, ReturnedKind, ReturnedSource};
use postrider_mail::{AttemptOutcome, Delays, Disposition, EmailAddress, MessageId};
use postrider_spool::Spool;

use crate::{AttemptView, Error, LifeStep, MessageLife, queue};

/// How long to wait for the journal, which follows the queue.
const FOLLOWS: Duration = Duration::from_secs(2);

pub(crate) async fn life(events: &Events, spool: &Spool, id: MessageId) -> Result<MessageLife, Error> {
    // In this order, so that a message that leaves the queue meanwhile is in neither at no time.
    let waiting = queue::show(spool, id).await?;
    let _ = tokio::time::timeout(FOLLOWS, spool.told(Events::FEED)).await;
    let entries = events.message(id).await?;
    if entries.is_empty() && waiting.is_none() {
        return Err(Error::NotFound(format!("message {id} is neither in the queue nor in the journal")));
    }
    Ok(MessageLife { id, steps: entries.into_iter().map(step).collect(), waiting })
}

fn step(entry: LifeEntry) -> LifeStep {
    match entry {
        LifeEntry::Accepted(acceptance) => accepted(&acceptance),
        LifeEntry::Attempt { recipient, outcome } => attempt(recipient.as_ref(), outcome),
        LifeEntry::Returned { recipient, at, what, source, .. } => returned(recipient.as_ref(), at, &what, &source),
    }
}

fn returned(recipient: Option<&EmailAddress>, at: Timestamp, what: &ReturnedKind, source: &ReturnedSource) -> LifeStep {
    let (word, status, said) = match what {
        ReturnedKind::Bounce(bounce) => {
            let said = bounce.diagnostic.as_deref().unwrap_or("no reason given");
            let kind = format!("{said} ({}/{})", bounce.kind.bounce_type(), bounce.kind.bounce_sub_type());
            ("returned", bounce.status, kind)
        }
        ReturnedKind::Complaint(complaint) => {
            ("complained", None, complaint.feedback_type.clone().unwrap_or_else(|| "no reason given".to_owned()))
        }
    };
    let answers = match source.domains.is_empty() {
        true => "nobody answers for it".to_owned(),
        false => format!("{} answers for it", source.domains.join(", ")),
    };
    LifeStep {
        at,
        what: word.to_owned(),
        recipient: recipient.map(ToString::to_string),
        remote: source.ip.map(|ip| format!("[{ip}]")),
        status: status.map(|status| status.to_string()),
        detail: match source.ip {
            Some(_) => format!("{said}, report in session {}, {answers}", source.session),
            None => said,
        },
        delays: None,
        next_attempt: None,
        attempt: None,
    }
}

fn accepted(acceptance: &Acceptance) -> LifeStep {
    let sender = acceptance.sender.as_ref().map_or_else(|| "<>".to_owned(), ToString::to_string);
    let client = match (&acceptance.client_ip, &acceptance.client_name) {
        (Some(ip), Some(name)) => format!(" from {ip} ({name})"),
        (Some(ip), None) => format!(" from {ip}"),
        _ => String::new(),
    };
    let credential = acceptance.credential.as_ref().map_or_else(String::new, |user| format!(" as {user}"));
    let recipients = acceptance.recipients.len();
    LifeStep {
        at: acceptance.at,
        what: "accepted".to_owned(),
        recipient: None,
        remote: None,
        status: None,
        detail: format!(
            "sender {sender}, {recipients} recipient{}, {} bytes, by {}{client}{credential}",
            if recipients == 1 { "" } else { "s" },
            acceptance.size,
            acceptance.protocol,
        ),
        delays: None,
        next_attempt: None,
        attempt: None,
    }
}

fn attempt(recipient: Option<&EmailAddress>, outcome: AttemptOutcome) -> LifeStep {
    let attempt = outcome.record.as_ref().map(|record| AttemptView {
        number: outcome.attempt,
        began: record.began,
        site: record.site.clone(),
        ehlo: record.ehlo.clone(),
        hosts: outcome.hosts(),
        omitted: record.omitted,
    });
    let detail = match outcome.disposition {
        Disposition::Bounced(kind) => {
            format!("{} ({}/{})", outcome.diagnostic, kind.bounce_type(), kind.bounce_sub_type())
        }
        Disposition::Deferred(kind) => format!("{} ({})", outcome.diagnostic, kind.as_str()),
        _ => outcome.diagnostic,
    };
    LifeStep {
        at: outcome.at,
        what: outcome.disposition.as_str().to_owned(),
        recipient: recipient.map(ToString::to_string),
        remote: outcome.remote.map(|remote| remote.to_string()),
        status: Some(outcome.status.to_string()),
        detail,
        delays: (outcome.delays != Delays::default()).then(|| outcome.delays.to_string()),
        next_attempt: outcome.next_attempt,
        attempt,
    }
}
