//! `postrider reputation`, and the verbs `pause` and `resume` of accounts and configuration sets.

use anyhow::Result;
use postrider_account::PausedBy;
use postrider_control::{Operation, ReputationOperation, ReputationRow, Response};
use postrider_mail::AccountId;

use super::unexpected;
use crate::access::Access;
use crate::cli::{ReputationArgs, ReputationCommand, SenderPauseArgs};
use crate::output::{Output, or_dash, time};

pub(crate) async fn run(arguments: ReputationArgs, access: &mut Access, out: &mut Output) -> Result<()> {
    if let Some(ReputationCommand::FreshStart { whose }) = arguments.command {
        let account = access.account(whose.account);
        let operation = ReputationOperation::FreshStart { account, name: whose.configuration_set };
        return change(operation, "only what is accepted from now on counts", access, out).await;
    }
    let name = arguments.whose.configuration_set;
    let account = arguments.whose.account.or_else(|| name.is_some().then(|| access.account(None)));
    let mut rows = Vec::new();
    let mut take = |response| match response {
        Response::Reputations(page) => {
            rows.extend(page);
            Ok(())
        }
        other => unexpected(&other),
    };
    access.each(Operation::Reputation(ReputationOperation::Show { account, name }), &mut take).await?;
    if out.json() { out.json_document(&rows) } else { show(&rows, out) }
}

/// Pauses an account or one of its sets.
pub(crate) async fn pause(
    account: AccountId,
    set: Option<String>,
    arguments: SenderPauseArgs,
    access: &mut Access,
    out: &mut Output,
) -> Result<()> {
    let SenderPauseArgs { hold, reason } = arguments;
    let done = match hold {
        true => "paused: new messages are refused, and what is in the queue waits",
        false => "paused: new messages are refused; what is in the queue is still sent",
    };
    change(ReputationOperation::Pause { account, name: set, hold, reason }, done, access, out).await
}

/// Resumes an account or one of its sets.
pub(crate) async fn resume(
    account: AccountId,
    set: Option<String>,
    access: &mut Access,
    out: &mut Output,
) -> Result<()> {
    let done = "resumed; only what is accepted from now on counts for its rates";
    change(ReputationOperation::Resume { account, name: set }, done, access, out).await
}

async fn change(operation: ReputationOperation, done: &str, access: &mut Access, out: &mut Output) -> Result<()> {
    match access.ask(Operation::Reputation(operation)).await? {
        Response::Changed { count } if out.json() => out.json_line(&serde_json::json!({ "changed": count })),
        Response::Changed { .. } => out.line(done),
        other => unexpected(&other),
    }
}

fn show(rows: &[ReputationRow], out: &mut Output) -> Result<()> {
    let cells = rows.iter().map(|row| {
        let rate = |rate: Option<f64>| or_dash(rate.map(|rate| format!("{:.2}%", rate * 100.0)));
        let sample = if row.representative { "" } else { " (too few)" };
        vec![
            row.account.to_string(),
            or_dash(row.configuration_set.as_ref()),
            row.status.as_str().to_owned(),
            rate(row.bounce_rate),
            row.bounce_status.as_str().to_owned(),
            rate(row.complaint_rate),
            format!("{}{sample}", row.recipients),
            note(row),
        ]
    });
    let header = ["ACCOUNT", "SET", "STATUS", "BOUNCES", "BOUNCE STATUS", "COMPLAINTS", "RECIPIENTS", "NOTE"];
    out.table(&header, cells.collect(), "nothing has been counted lately")
}

fn note(row: &ReputationRow) -> String {
    let review = row.review_until.map(|until| format!("review until {}", time(until)));
    let pause = row.paused_by.map(|by| {
        let by = match by {
            PausedBy::Operator => "by hand",
            PausedBy::Rule => "by rule",
        };
        let reason = row.pause_reason.as_deref().filter(|reason| !reason.is_empty());
        let hold = if row.hold { ", the queue waits" } else { "" };
        format!("{by}{hold}{}", reason.map(|reason| format!(": {reason}")).unwrap_or_default())
    });
    or_dash(pause.or(review))
}
