//! `postrider audit`.

use anyhow::Result;
use postrider_account::{AuditFilter, AuditRecord, UserIdentity};
use postrider_base::Clock;
use postrider_control::{Operation, Response};
use postrider_mail::sanitize_text;
use serde_json::Value;

use super::events::moment;
use super::unexpected;
use crate::access::Access;
use crate::cli::AuditArgs;
use crate::output::{Output, or_dash, time_or_dash};

/// Longest column of a table.
const WIDTH: usize = 100;

/// Programs get the records as they are; people a line each.
pub(crate) async fn run(arguments: AuditArgs, access: &mut Access, out: &mut Output) -> Result<()> {
    let since = arguments.since.map(|since| moment(&since, Clock::system().now())).transpose()?;
    let filter = AuditFilter { since, name: arguments.name };
    let mut rows = Vec::new();
    access
        .each(Operation::Audit(filter), &mut |response| match response {
            Response::AuditRecords(records) if out.json() => {
                records.iter().try_for_each(|record| out.json_line(record))
            }
            Response::AuditRecords(records) => {
                rows.extend(records.iter().map(row));
                Ok(())
            }
            other => unexpected(&other),
        })
        .await?;
    match out.json() {
        true => Ok(()),
        false => out.table(&["TIME", "WHO", "FROM", "EVENT", "ACCOUNT", "WHAT"], rows, "no changes"),
    }
}

fn row(record: &AuditRecord) -> Vec<String> {
    vec![
        time_or_dash(record.at()),
        who(&record.user_identity),
        sanitize_text(&record.source, WIDTH),
        sanitize_text(&record.event_name, WIDTH),
        or_dash(record.recipient_account_id),
        what(record),
    ]
}

fn who(user: &UserIdentity) -> String {
    let uid = user.uid.map(|uid| format!("user {uid}"));
    let who = user.user_name.clone().or(user.invoked_by.clone()).or(uid);
    sanitize_text(or_dash(who), WIDTH)
}

/// What was not done, and why; else with what it was done.
fn what(record: &AuditRecord) -> String {
    if let Some(reason) = &record.error_message {
        return sanitize_text(format!("not done: {reason}"), WIDTH);
    }
    let Value::Object(parameters) = &record.request_parameters else { return String::new() };
    let told = parameters.iter().filter(|(name, value)| *name != "account" && !value.is_null());
    let told = told.map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    sanitize_text(told.collect::<Vec<_>>().join(" "), WIDTH)
}
