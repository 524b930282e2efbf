//! `postrider dmarc report`: what receivers say about mail in the name of a domain.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use postrider_mailauth::dmarc_report::{Counter, Limits, Source, Summary, read};
use serde::Serialize;

use super::auth;
use crate::cli::{DmarcCommand, DmarcReportArgs};
use crate::output::{Output, or_dash, time};

/// Files of a folder that are looked at.
const MOST_FILES: usize = 100_000;

/// What programs get.
#[derive(Serialize)]
struct Counted<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    /// Files of the folder that are no reports.
    skipped: usize,
}

pub(crate) fn run(command: &DmarcCommand, out: &mut Output) -> Result<()> {
    let DmarcCommand::Report(arguments) = command;
    let (summary, skipped) = count(arguments)?;
    if out.json() {
        return out.json_document(&Counted { summary: &summary, skipped });
    }
    show(&summary, skipped, out)
}

/// A file that is named must be a report; in a folder other mail may lie about.
fn count(arguments: &DmarcReportArgs) -> Result<(Summary, usize)> {
    let limits = Limits::default();
    let mut counter = Counter::default();
    for file in &arguments.files {
        let bytes = auth::read(file, limits.input)?;
        let report = read(&bytes, &limits).with_context(|| file.display().to_string())?;
        counter.add(&report);
    }
    let mut skipped = 0;
    for file in arguments.inbox.as_deref().map(files_in).transpose()?.unwrap_or_default() {
        match auth::read(&file, limits.input).map(|bytes| read(&bytes, &limits)) {
            Ok(Ok(report)) => counter.add(&report),
            _ => skipped += 1,
        }
    }
    Ok((counter.finish(), skipped))
}

/// The files of a folder, and of `new` and `cur` in it.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let below = [folder.to_owned(), folder.join("new"), folder.join("cur")];
    for folder in below.iter().filter(|place| *place == folder || place.is_dir()) {
        for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_file() {
                files.push(path);
            }
            if files.len() > MOST_FILES {
                bail!("there are more than {MOST_FILES} files in {}", folder.display());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn show(summary: &Summary, skipped: usize, out: &mut Output) -> Result<()> {
    for head in &summary.reports {
        let (begin, end) = (time(head.begin), time(head.end));
        let (organization, domain, policy) = (&head.organization, &head.domain, &head.policy);
        out.line(format_args!("{organization}: {} of {domain} (p={policy}), {begin} to {end}", head.count))?;
    }
    if summary.repeated > 0 {
        out.line(format_args!("{} came again and were not counted twice", summary.repeated))?;
    }
    if skipped > 0 {
        out.line(format_args!("{skipped} files are no reports"))?;
    }
    let rows = summary.sources.iter().map(row).collect();
    let header = ["SOURCE", "FROM", "COUNT", "PASS", "DKIM", "SPF", "ASIDE", "REFUSED", "SIGNED BY", "ENVELOPE"];
    out.table(&header, rows, "no report has a row")
}

fn row(source: &Source) -> Vec<String> {
    let names = |names: &std::collections::BTreeSet<String>| {
        or_dash((!names.is_empty()).then(|| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")))
    };
    vec![
        or_dash(source.address),
        source.from.clone(),
        source.count.to_string(),
        source.passed.to_string(),
        source.dkim.to_string(),
        source.spf.to_string(),
        source.quarantined.to_string(),
        source.rejected.to_string(),
        names(&source.signers),
        names(&source.envelopes),
    ]
}
