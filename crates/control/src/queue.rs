//! Operations on the messages that are waiting.

use postrider_mail::{AttemptOutcome, MessageId};
use postrider_spool::{
    Compacted, Error as SpoolError, IndexKind, MessageView, QueueEntry, QueueSummary, RecipientView, Selector, Spool,
    Stat,
};

use crate::{
    Error, LIST_LIMIT, QueueMessage, QueueOperation, QueueRow, QueueSummaryRow, RecipientRow, Response, SpoolStat,
};

pub(crate) async fn execute(spool: &Spool, operation: QueueOperation) -> Result<Response, Error> {
    match operation {
        QueueOperation::Delete(selector) => changed(spool, &selector, spool.delete(&selector).await?).await,
        QueueOperation::Hold(selector) => {
            spool.hold(&selector).await?;
            Ok(Response::Held { held: true })
        }
        QueueOperation::List { selector, limit } => {
            let entries = spool.list(&selector, limit.min(LIST_LIMIT)).await?;
            Ok(Response::QueueMessages(entries.into_iter().map(row).collect()))
        }
        QueueOperation::Release(selector) => {
            spool.release(&selector).await?;
            Ok(Response::Held { held: false })
        }
        QueueOperation::Retry(selector) => changed(spool, &selector, spool.retry(&selector).await?).await,
        QueueOperation::Show { id } => {
            show(spool, id).await?.map(|message| Response::QueueMessage(Box::new(message))).ok_or_else(|| absent(id))
        }
        // It is asked of more than the spool.
        QueueOperation::Why { id } => Err(absent(id)),
        QueueOperation::Summary => {
            let queues = spool.summary().await?;
            Ok(Response::QueueSummary(queues.iter().map(summary_row).collect()))
        }
    }
}

/// A waiting message, if it waits.
pub(crate) async fn show(spool: &Spool, id: MessageId) -> Result<Option<QueueMessage>, Error> {
    Ok(spool.show(id).await?.map(|view| message(&view)))
}

pub(crate) async fn compact(spool: &Spool) -> Result<Response, Error> {
    let Compacted { before, after } = spool.compact().await?;
    Ok(Response::Compacted { before, after })
}

/// The spool's figures for operators.
pub(crate) fn stat(stat: &Stat) -> SpoolStat {
    SpoolStat {
        messages: stat.messages,
        message_bytes: stat.bytes,
        in_memory: stat.young,
        queues: stat.queues,
        in_delivery: stat.in_delivery,
        held: stat.held,
        body_memory: stat.body_memory,
        disk_bytes: stat.disk_bytes,
        cold_bytes: stat.cold_bytes,
        accepted_bytes: stat.accepted_bytes,
        written_bytes: stat.written_bytes,
        recovering: stat.recovering,
        segments: stat.segments,
        index: match stat.index {
            IndexKind::Sled => "on disk".to_owned(),
            IndexKind::Memory => "in memory".to_owned(),
        },
        index_backlog: stat.index_backlog,
        quarantined: stat.quarantined,
        feeds: stat.feeds.clone(),
    }
}

/// A single message that does not wait is worth an error; an empty selection is not.
async fn changed(spool: &Spool, selector: &Selector, count: u64) -> Result<Response, Error> {
    match selector {
        Selector::Message(id) if count == 0 && spool.show(*id).await?.is_none() => Err(absent(*id)),
        _ => Ok(Response::Changed { count }),
    }
}

fn absent(id: MessageId) -> Error {
    Error::NotFound(format!("message {id} does not wait here"))
}

fn summary_row(queue: &QueueSummary) -> QueueSummaryRow {
    QueueSummaryRow {
        account: queue.account,
        domain: queue.domain.to_string(),
        messages: queue.messages,
        due_now: queue.due_now,
        in_delivery: queue.in_delivery,
        held: queue.held,
        parked: queue.parked,
        oldest: queue.oldest,
        next_due: queue.next_due.filter(|_| !queue.held),
    }
}

fn row(entry: QueueEntry) -> QueueRow {
    QueueRow {
        id: entry.id,
        account: entry.account,
        accepted_at: entry.accepted_at,
        size: entry.size,
        sender: entry.sender.map_or_else(String::new, |sender| sender.to_string()),
        domain: entry.domain.to_string(),
        recipients: entry.recipients.iter().map(ToString::to_string).collect(),
        attempts: entry.attempts,
        next_attempt: entry.next_attempt.filter(|_| !entry.held),
        state: state(entry.held, entry.in_delivery, entry.last.as_ref()).to_owned(),
        last_reply: entry.last.map(|last| last.diagnostic),
    }
}

fn message(view: &MessageView) -> QueueMessage {
    let record = &view.message;
    QueueMessage {
        id: record.id,
        account: record.account,
        accepted_at: record.accepted_at,
        expires_at: record.expires_at,
        size: record.size,
        sender: record.envelope.sender.as_ref().map_or_else(String::new, ToString::to_string),
        held: view.held,
        credential: record.origin.credential.clone(),
        client_ip: record.origin.client_ip.map(|ip| ip.to_string()),
        client_name: record.origin.client_name.clone(),
        recipients: view.recipients.iter().map(|recipient| recipient_row(recipient, view.held)).collect(),
    }
}

fn recipient_row(recipient: &RecipientView, held: bool) -> RecipientRow {
    let state = if recipient.done { "done" } else { state(held, recipient.in_delivery, recipient.last.as_ref()) };
    RecipientRow {
        address: recipient.address.to_string(),
        state: state.to_owned(),
        attempts: recipient.attempts,
        last_reply: recipient.last.as_ref().map(|last| last.diagnostic.clone()),
        remote: recipient.last.as_ref().and_then(|last| last.remote.as_ref()).map(ToString::to_string),
        next_attempt: recipient.next_attempt,
    }
}

/// What a waiting message is doing, in one word.
fn state(held: bool, in_delivery: bool, last: Option<&AttemptOutcome>) -> &'static str {
    match (held, in_delivery, last) {
        (_, true, _) => "in delivery",
        (true, ..) => "held",
        (_, _, Some(_)) => "deferred",
        _ => "waiting",
    }
}

impl From<SpoolError> for Error {
    fn from(error: SpoolError) -> Error {
        match error {
            SpoolError::Unknown(id) => absent(id),
            error => Error::Failed(error.to_string()),
        }
    }
}
