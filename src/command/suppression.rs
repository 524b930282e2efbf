//! `postrider suppression`.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use postrider_account::{Filter, Format, ImportEntry, RefusedLine, Suppressed, export, parse};
use postrider_control::{IMPORT_BATCH, Operation, Response, SuppressionOperation};
use postrider_mail::AccountId;

use super::unexpected;
use crate::access::Access;
use crate::cli::{ExportFormat, SuppressionCommand};
use crate::output::{Output, time};

/// Refused lines that are shown; the others are only counted.
const SHOWN_LINES: usize = 20;

pub(crate) async fn run(command: SuppressionCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let operation = match command {
        SuppressionCommand::Put { address, reason, account } => {
            SuppressionOperation::Put { account: access.account(account.account), address, reason }
        }
        SuppressionCommand::Get { address, account } => {
            SuppressionOperation::Get { account: access.account(account.account), address }
        }
        SuppressionCommand::Delete { address, account } => {
            SuppressionOperation::Delete { account: access.account(account.account), address }
        }
        SuppressionCommand::List { reason, matching, account } => {
            let filter = Filter { reason, matching, ..Filter::default() };
            let list = SuppressionOperation::List { account: access.account(account.account), filter };
            return show(list, access, out).await;
        }
        SuppressionCommand::Export { format, account } => {
            let filter = Filter::default();
            let list = SuppressionOperation::List { account: access.account(account.account), filter };
            return write_out(list, format, access, out).await;
        }
        SuppressionCommand::Import { file, account } => {
            let account = access.account(account.account);
            return import(&file, account, access, out).await;
        }
    };
    match access.ask(Operation::Suppression(operation)).await? {
        Response::Changed { count } if out.json() => out.json_line(&serde_json::json!({ "changed": count })),
        Response::Changed { .. } => out.line("done"),
        Response::Suppressed(entries) if out.json() => write_entries(Format::Ses, entries, out),
        Response::Suppressed(entries) => table(&entries, out),
        other => unexpected(&other),
    }
}

async fn show(list: SuppressionOperation, access: &mut Access, out: &mut Output) -> Result<()> {
    let entries = collect(list, access).await?;
    if out.json() { write_entries(Format::Ses, entries, out) } else { table(&entries, out) }
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
        ExportFormat::Ses => return write_entries(Format::Ses, collect(list, access).await?, out),
    };
    access
        .each(Operation::Suppression(list), &mut |response| match response {
            Response::Suppressed(page) => write_entries(format, page, out),
            other => unexpected(&other),
        })
        .await
}

async fn collect(list: SuppressionOperation, access: &mut Access) -> Result<Vec<Suppressed>> {
    let mut entries = Vec::new();
    access
        .each(Operation::Suppression(list), &mut |response| match response {
            Response::Suppressed(page) => {
                entries.extend(page);
                Ok(())
            }
            other => unexpected(&other),
        })
        .await?;
    Ok(entries)
}

fn write_entries(format: Format, entries: Vec<Suppressed>, out: &mut Output) -> Result<()> {
    let mut text = Vec::new();
    export(format, entries, &mut text)?;
    out.raw(&text)
}

fn table(entries: &[Suppressed], out: &mut Output) -> Result<()> {
    let rows = entries
        .iter()
        .map(|entry| vec![entry.address.clone(), entry.reason.to_string(), time(entry.updated_at)])
        .collect();
    out.table(&["ADDRESS", "REASON", "SINCE"], rows, "no address is suppressed")
}

async fn import(file: &Path, account: AccountId, access: &mut Access, out: &mut Output) -> Result<()> {
    let text = read(file)?;
    let mut parsed = parse(&text);
    let mut report = Imported { added: 0, unchanged: 0, refused: 0, refused_lines: Vec::new() };
    let progress = progress_bar(text.lines().count());
    loop {
        let batch = next_batch(&mut parsed, &mut report);
        if batch.is_empty() {
            break;
        }
        let entries = batch.len() as u64;
        let operation = SuppressionOperation::Import { account, entries: batch };
        match access.ask(Operation::Suppression(operation)).await? {
            Response::Changed { count } => {
                report.added += count;
                report.unchanged += entries.saturating_sub(count);
            }
            other => return unexpected(&other),
        }
        progress.set_position(report.added + report.unchanged + report.refused);
    }
    progress.finish_and_clear();
    report.show(out)
}

fn next_batch(
    parsed: &mut impl Iterator<Item = Result<ImportEntry, RefusedLine>>,
    report: &mut Imported,
) -> Vec<ImportEntry> {
    let mut batch = Vec::new();
    while batch.len() < IMPORT_BATCH {
        match parsed.next() {
            Some(Ok(entry)) => batch.push(entry),
            Some(Err(line)) => report.refuse(line),
            None => break,
        }
    }
    batch
}

fn read(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// On standard error, and only when that is a terminal.
fn progress_bar(lines: usize) -> ProgressBar {
    let bar = ProgressBar::new(lines as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} lines, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

#[derive(Debug, serde::Serialize)]
struct Imported {
    added: u64,
    unchanged: u64,
    refused: u64,
    refused_lines: Vec<RefusedLine>,
}

impl Imported {
    fn refuse(&mut self, line: RefusedLine) {
        self.refused += 1;
        if self.refused_lines.len() < SHOWN_LINES {
            self.refused_lines.push(line);
        }
    }

    /// Lines that were refused make the command fail, after the others were taken.
    fn show(&self, out: &mut Output) -> Result<()> {
        if out.json() {
            out.json_document(self)?;
        } else {
            out.line(format_args!("{} added, {} there already, {} refused", self.added, self.unchanged, self.refused))?;
            for line in &self.refused_lines {
                out.line(format_args!("  line {}: {}", line.line, line.reason))?;
            }
        }
        out.flush()?;
        if self.refused > 0 {
            bail!("{} lines were refused; the others are on the list", self.refused);
        }
        Ok(())
    }
}
