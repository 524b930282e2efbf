//! `postrider suppression`.

mod import;

use anyhow::Result;
use postrider_account::{Filter, Format, GloballySuppressed, Suppressed, export, export_globally};
use postrider_base::{Clock, Timestamp};
use postrider_control::{GlobalSuppressionOperation, Operation, Response, SuppressionOperation};
use postrider_mail::SuppressionReason;

use super::events::moment;
use super::unexpected;
use crate::access::Access;
use crate::cli::{ExportFormat, ListArg, SuppressionCommand};
use crate::output::{Output, time};

pub(crate) async fn run(command: SuppressionCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    use GlobalSuppressionOperation as Global;
    use SuppressionOperation as Of;
    match command {
        SuppressionCommand::Put { address, list: ListArg { global: true, .. }, .. } => {
            ask(Of::Global(Global::Put { address }), access, out).await
        }
        SuppressionCommand::Put { address, reason, list } => {
            let (account, reason) = (access.account(list.account), reason.unwrap_or(SuppressionReason::Bounce));
            ask(Of::Put { account, address, reason }, access, out).await
        }
        SuppressionCommand::Get { address, list: ListArg { global: true, .. } } => {
            ask(Of::Global(Global::Get { address }), access, out).await
        }
        SuppressionCommand::Get { address, list } => {
            ask(Of::Get { account: access.account(list.account), address }, access, out).await
        }
        SuppressionCommand::Delete { address, list: ListArg { global: true, .. } } => {
            ask(Of::Global(Global::Delete { address }), access, out).await
        }
        SuppressionCommand::Delete { address, list } => {
            ask(Of::Delete { account: access.account(list.account), address }, access, out).await
        }
        SuppressionCommand::List { matching, list: ListArg { global: true, .. }, .. } => {
            show_globally(matching, access, out).await
        }
        SuppressionCommand::List { reason, matching, since, until, list } => {
            let now = Clock::system().now();
            let at = |text: Option<String>| text.map(|text| instant(&text, now)).transpose();
            let filter = Filter { reason, matching, since: at(since)?, until: at(until)? };
            show(Of::List { account: access.account(list.account), filter }, access, out).await
        }
        SuppressionCommand::Export { format, account } => {
            let list = Of::List { account: access.account(account), filter: Filter::default() };
            write_out(list, format, access, out).await
        }
        SuppressionCommand::Repair => repair(access, out).await,
        SuppressionCommand::Import { file, delete, refused, account } => {
            let account = access.account(account);
            import::run(&import::Import { file, delete, refused, account }, access, out).await
        }
    }
}

async fn repair(access: &mut Access, out: &mut Output) -> Result<()> {
    match access.ask(Operation::Suppression(SuppressionOperation::Repair)).await? {
        Response::Changed { count } if out.json() => out.json_line(&serde_json::json!({ "lost": count })),
        Response::Changed { count: 0 } => out.line("no file is damaged"),
        Response::Changed { count } => {
            out.line(format_args!("{count} parts of files with some 150 entries each are lost"))
        }
        other => unexpected(&other),
    }
}

/// A time or an age; UNIX seconds, as SES takes them.
fn instant(text: &str, now: Timestamp) -> Result<Timestamp> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Timestamp::from_millis(seconds.saturating_mul(1000))),
        Err(_) => moment(text, now),
    }
}

async fn ask(operation: SuppressionOperation, access: &mut Access, out: &mut Output) -> Result<()> {
    match access.ask(Operation::Suppression(operation)).await? {
        Response::Changed { count } if out.json() => out.json_line(&serde_json::json!({ "changed": count })),
        Response::Changed { .. } => out.line("done"),
        Response::Suppressed(entries) if out.json() => {
            let summary = entries.first().map(Suppressed::summary);
            out.json_document(&serde_json::json!({ "SuppressedDestination": summary }))
        }
        Response::Suppressed(entries) => table(&entries, out),
        Response::GloballySuppressed(entries) if out.json() => {
            let summary = entries.first().map(GloballySuppressed::summary);
            out.json_document(&serde_json::json!({ "SuppressedDestination": summary }))
        }
        Response::GloballySuppressed(entries) => global_table(&entries, out),
        other => unexpected(&other),
    }
}

async fn show(list: SuppressionOperation, access: &mut Access, out: &mut Output) -> Result<()> {
    let (entries, ended) = collect(list, access).await;
    match out.json() {
        true => write_entries(Format::Ses, entries, out)?,
        false => table(&entries, out)?,
    }
    ended
}

async fn show_globally(matching: Option<String>, access: &mut Access, out: &mut Output) -> Result<()> {
    let list = SuppressionOperation::Global(GlobalSuppressionOperation::List { matching });
    let mut entries = Vec::new();
    access
        .each(Operation::Suppression(list), &mut |response| match response {
            Response::GloballySuppressed(page) => {
                entries.extend(page);
                Ok(())
            }
            other => unexpected(&other),
        })
        .await?;
    if !out.json() {
        return global_table(&entries, out);
    }
    let mut text = Vec::new();
    export_globally(entries, &mut text)?;
    out.raw(&text)
}

/// Page by page: an export of millions is never in memory as a whole, except in SES's form.
async fn write_out(
    list: SuppressionOperation,
    format: ExportFormat,
    access: &mut Access,
    out: &mut Output,
) -> Result<()> {
    let format = match format {
        ExportFormat::Csv => Format::Csv,
        ExportFormat::Json => Format::JsonLines,
        ExportFormat::Ses => {
            let (entries, ended) = collect(list, access).await;
            write_entries(Format::Ses, entries, out)?;
            return ended;
        }
    };
    access
        .each(Operation::Suppression(list), &mut |response| match response {
            Response::Suppressed(page) => write_entries(format, page, out),
            other => unexpected(&other),
        })
        .await
}

/// All that can be read, and why it may not be all.
async fn collect(list: SuppressionOperation, access: &mut Access) -> (Vec<Suppressed>, Result<()>) {
    let mut entries = Vec::new();
    let ended = access
        .each(Operation::Suppression(list), &mut |response| match response {
            Response::Suppressed(page) => {
                entries.extend(page);
                Ok(())
            }
            other => unexpected(&other),
        })
        .await;
    (entries, ended)
}

fn write_entries(format: Format, entries: Vec<Suppressed>, out: &mut Output) -> Result<()> {
    let mut text = Vec::new();
    export(format, entries, &mut text)?;
    out.raw(&text)
}

fn table(entries: &[Suppressed], out: &mut Output) -> Result<()> {
    let row = |entry: &Suppressed| vec![entry.address.clone(), entry.reason.to_string(), time(entry.updated_at)];
    out.table(&["ADDRESS", "REASON", "SINCE"], entries.iter().map(row).collect(), "no address is suppressed")
}

fn global_table(entries: &[GloballySuppressed], out: &mut Output) -> Result<()> {
    let row = |entry: &GloballySuppressed| {
        vec![entry.address.clone(), entry.bounces.to_string(), time(entry.updated_at), time(entry.until)]
    };
    let rows = entries.iter().map(row).collect();
    out.table(&["ADDRESS", "BOUNCES", "SINCE", "UNTIL"], rows, "no address is suppressed for all accounts")
}
