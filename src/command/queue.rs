//! `postrider queue`.

use anyhow::Result;
use postrider_control::{Operation, QueueMessage, QueueOperation, QueueRow, QueueSummaryRow, Response};
use postrider_spool::Selector;

use super::unexpected;
use crate::access::Access;
use crate::cli::{QueueCommand, SelectorArgs};
use crate::output::{Output, bytes, or_dash, time, time_or_dash};

pub(crate) async fn run(command: QueueCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let operation = match command {
        QueueCommand::Summary => QueueOperation::Summary,
        QueueCommand::List { domain, limit } => {
            QueueOperation::List { selector: domain.map_or(Selector::All, Selector::Domain), limit }
        }
        QueueCommand::Show { id } => QueueOperation::Show { id },
        QueueCommand::Retry(selector) => QueueOperation::Retry(selected(selector)),
        QueueCommand::Delete(selector) => QueueOperation::Delete(selected(selector)),
        QueueCommand::Hold(selector) => QueueOperation::Hold(selected(selector)),
        QueueCommand::Release(selector) => QueueOperation::Release(selected(selector)),
        QueueCommand::Why { id } => return super::explain::why(id, access, out).await,
        QueueCommand::Sites { site } => return super::explain::sites(site.as_deref(), access, out).await,
    };
    match access.ask(Operation::Queue(operation)).await? {
        Response::Changed { count } if out.json() => out.json_line(&serde_json::json!({ "changed": count })),
        Response::Changed { count: 1 } => out.line("1 message"),
        Response::Changed { count } => out.line(format_args!("{count} messages")),
        Response::Held { held } if out.json() => out.json_line(&serde_json::json!({ "held": held })),
        Response::Held { held } => out.line(if held { "held" } else { "released" }),
        Response::QueueMessage(message) => show_message(&message, out),
        Response::QueueMessages(rows) => show_rows(&rows, out),
        Response::QueueSummary(rows) => show_summary(&rows, out),
        other => unexpected(&other),
    }
}

fn selected(args: SelectorArgs) -> Selector {
    match (args.id, args.domain) {
        (Some(id), _) => Selector::Message(id),
        (None, Some(domain)) => Selector::Domain(domain),
        (None, None) => Selector::All,
    }
}

fn show_summary(rows: &[QueueSummaryRow], out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(rows);
    }
    let held = rows.iter().any(|row| row.held);
    let rows = rows.iter().map(|row| {
        let state = match (row.held, row.parked) {
            (true, _) => "held",
            (_, true) => "parked",
            _ => "",
        };
        vec![
            row.account.to_string(),
            row.domain.clone(),
            row.messages.to_string(),
            row.due_now.to_string(),
            row.in_delivery.to_string(),
            time_or_dash(row.oldest),
            time_or_dash(row.next_due),
            state.to_owned(),
        ]
    });
    let header = ["ACCOUNT", "DOMAIN", "MESSAGES", "DUE", "IN DELIVERY", "OLDEST", "NEXT", "STATE"];
    out.table(&header, rows.collect(), "the queue is empty")?;
    if held {
        out.line("\nHeld queues wait until `postrider queue release --domain DOMAIN` or `--all`.")?;
    }
    Ok(())
}

fn show_rows(rows: &[QueueRow], out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(rows);
    }
    let rows = rows.iter().map(|row| {
        vec![
            row.id.to_string(),
            time(row.accepted_at),
            bytes(row.size),
            reverse_path(&row.sender),
            recipients(&row.recipients),
            row.state.clone(),
            time_or_dash(row.next_attempt),
            or_dash(row.last_reply.as_ref()),
        ]
    });
    let header = ["ID", "ACCEPTED", "SIZE", "FROM", "TO", "STATE", "NEXT", "LAST REPLY"];
    out.table(&header, rows.collect(), "the queue is empty")
}

/// Lines for one waiting message; also part of `postrider message`.
pub(super) fn show_message(message: &QueueMessage, out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(message);
    }
    out.line(format_args!("id:        {}", message.id))?;
    out.line(format_args!("from:      {}", reverse_path(&message.sender)))?;
    out.line(format_args!("account:   {}", message.account))?;
    out.line(format_args!(
        "submitted: with {} from {} ({})",
        or_dash(message.credential.as_ref()),
        or_dash(message.client_ip.as_ref()),
        or_dash(message.client_name.as_ref()),
    ))?;
    out.line(format_args!("size:      {}", bytes(message.size)))?;
    out.line(format_args!("accepted:  {}", time(message.accepted_at)))?;
    out.line(format_args!("expires:   {}", time(message.expires_at)))?;
    if message.held {
        out.line("held:      yes, until `postrider queue release`")?;
    }
    out.line("")?;
    let rows = message.recipients.iter().map(|recipient| {
        vec![
            recipient.address.clone(),
            recipient.state.clone(),
            recipient.attempts.to_string(),
            time_or_dash(recipient.next_attempt),
            or_dash(recipient.remote.as_ref()),
            or_dash(recipient.last_reply.as_ref()),
        ]
    });
    out.table(&["TO", "STATE", "ATTEMPTS", "NEXT", "REMOTE", "LAST REPLY"], rows.collect(), "no recipients")
}

fn reverse_path(sender: &str) -> String {
    if sender.is_empty() { "<>".to_owned() } else { sender.to_owned() }
}

fn recipients(addresses: &[String]) -> String {
    match addresses {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}
