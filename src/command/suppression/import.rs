//! `postrider suppression import`.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use postrider_account::{Format, RefusedLine, parse, parse_addresses};
use postrider_base::{Clock, Timestamp};
use postrider_control::{IMPORT_BATCH, Operation, Response, SuppressionOperation};
use postrider_mail::AccountId;
use serde_json::json;

use super::super::unexpected;
use crate::access::Access;
use crate::output::Output;

/// Refused lines that people are shown; the others are only counted.
const SHOWN_LINES: usize = 20;

/// Refused lines that a program is told; all are in the file of refused lines.
const TOLD_LINES: usize = 1_000;

/// What is imported, and whither.
pub(super) struct Import {
    pub(super) file: PathBuf,
    /// The addresses are taken off the list.
    pub(super) delete: bool,
    /// Where refused lines are written to.
    pub(super) refused: Option<PathBuf>,
    pub(super) account: AccountId,
}

/// Batch by batch, so that its progress is seen and no request is large.
pub(super) async fn run(import: &Import, access: &mut Access, out: &mut Output) -> Result<()> {
    let (text, clock) = (read(&import.file)?, Clock::system());
    let progress = progress_bar(text.lines().count());
    let account = import.account;
    let mut report = Report::new(import, Format::detect(&text), clock.now())?;
    if import.delete {
        let mut addresses = parse_addresses(&text);
        while let Some(batch) = report.batch(&mut addresses)? {
            let count = batch.len();
            let operation = SuppressionOperation::Remove { account, addresses: batch };
            report.took(count, ask(operation, access).await?);
            progress.set_position(report.processed());
        }
    } else {
        let mut entries = parse(&text);
        while let Some(batch) = report.batch(&mut entries)? {
            let count = batch.len();
            let operation = SuppressionOperation::Import { account, entries: batch };
            report.took(count, ask(operation, access).await?);
            progress.set_position(report.processed());
        }
    }
    progress.finish_and_clear();
    report.show(clock.now(), out)
}

/// How many rows it changed.
async fn ask(operation: SuppressionOperation, access: &mut Access) -> Result<u64> {
    match access.ask(Operation::Suppression(operation)).await? {
        Response::Changed { count } => Ok(count),
        other => unexpected(&other).map(|()| 0),
    }
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

/// What an import did.
struct Report {
    delete: bool,
    format: Format,
    started_at: Timestamp,
    changed: u64,
    unchanged: u64,
    refused: u64,
    /// The first of them.
    lines: Vec<RefusedLine>,
    /// All of them.
    file: Option<BufWriter<File>>,
}

impl Report {
    fn new(import: &Import, format: Format, started_at: Timestamp) -> Result<Self> {
        let create = |path: &PathBuf| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        let file = import.refused.as_ref().map(create).transpose()?.map(BufWriter::new);
        let lines = Vec::new();
        Ok(Self { delete: import.delete, format, started_at, changed: 0, unchanged: 0, refused: 0, lines, file })
    }

    /// The next good lines; none at the end.
    fn batch<T>(&mut self, parsed: &mut impl Iterator<Item = Result<T, RefusedLine>>) -> Result<Option<Vec<T>>> {
        let mut batch = Vec::new();
        while batch.len() < IMPORT_BATCH {
            match parsed.next() {
                Some(Ok(entry)) => batch.push(entry),
                Some(Err(line)) => self.refuse(line)?,
                None => break,
            }
        }
        Ok(Some(batch).filter(|batch| !batch.is_empty()))
    }

    fn refuse(&mut self, line: RefusedLine) -> Result<()> {
        self.refused += 1;
        if let Some(file) = &mut self.file {
            writeln!(file, "{},{}", line.line, line.reason).context("cannot write the refused lines")?;
        }
        if self.lines.len() < TOLD_LINES {
            self.lines.push(line);
        }
        Ok(())
    }

    fn took(&mut self, count: usize, changed: u64) {
        self.changed += changed;
        self.unchanged += (count as u64).saturating_sub(changed);
    }

    fn processed(&self) -> u64 {
        self.changed + self.unchanged + self.refused
    }

    /// Lines that were refused make the command fail, after the others were taken.
    fn show(mut self, ended_at: Timestamp, out: &mut Output) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.flush().context("cannot write the refused lines")?;
        }
        if out.json() {
            out.json_document(&self.job(ended_at))?;
        } else {
            let words = if self.delete { ("taken off", "not there") } else { ("added", "there already") };
            let (changed, unchanged, refused) = (self.changed, self.unchanged, self.refused);
            out.line(format_args!("{changed} {}, {unchanged} {}, {refused} refused", words.0, words.1))?;
            for line in self.lines.iter().take(SHOWN_LINES) {
                out.line(format_args!("  line {}: {}", line.line, line.reason))?;
            }
        }
        out.flush()?;
        if self.refused > 0 {
            bail!("{} lines were refused; the others are done", self.refused);
        }
        Ok(())
    }

    /// As SES's GetImportJob describes a job, and what it does not tell.
    fn job(&self, ended_at: Timestamp) -> serde_json::Value {
        let seconds = |at: Timestamp| std::time::Duration::from_millis(at.as_millis()).as_secs_f64();
        let format = if self.format == Format::Csv { "CSV" } else { "JSON" };
        let (action, changed) =
            if self.delete { ("DELETE", "RemovedRecordsCount") } else { ("PUT", "AddedRecordsCount") };
        json!({
            "JobStatus": "COMPLETED",
            "CreatedTimestamp": seconds(self.started_at),
            "CompletedTimestamp": seconds(ended_at),
            "ImportDestination": { "SuppressionListDestination": { "SuppressionListImportAction": action } },
            "ImportDataSource": { "DataFormat": format },
            "ProcessedRecordsCount": self.processed(),
            "FailedRecordsCount": self.refused,
            changed: self.changed,
            "UnchangedRecordsCount": self.unchanged,
            "FailedRecords": self.lines.iter().map(|line| json!({ "Line": line.line, "Reason": line.reason }))
                .collect::<Vec<_>>(),
        })
    }
}
