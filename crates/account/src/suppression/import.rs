//! Adding what a text lists.

use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};

use super::{BATCH, Format, RefusedLine, Suppression, parse};
use crate::Error;

/// Refused lines that an [`ImportReport`] lists; the others are only counted.
const REPORTED_LINES: usize = 1_000;

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// The form of the text.
    pub format: Format,
    /// Entries added or changed.
    pub added: u64,
    /// Entries that the list already had, as new or newer.
    pub unchanged: u64,
    /// Lines that could not be understood.
    pub refused: u64,
    /// The first 1,000 of those, with reasons.
    pub refused_lines: Vec<RefusedLine>,
}

impl Suppression {
    /// Adds what a text in any [`Format`] lists, in batches that are durable one after
    /// the other; says after each how many lines or elements have been dealt with.
    /// Entries without a time count as of now; one that the list has as new stays.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`]: the batches before are kept, and importing
    /// the same text again is harmless.
    pub async fn import(
        &self,
        account: AccountId,
        text: &str,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<ImportReport, Error> {
        let mut parsed = parse(text);
        let mut report =
            ImportReport { format: parsed.format(), added: 0, unchanged: 0, refused: 0, refused_lines: Vec::new() };
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let item = parsed.next();
            let done = item.is_none();
            match item {
                Some(Ok(entry)) => batch.push(entry),
                Some(Err(line)) => report.refuse(line),
                None => {}
            }
            if batch.len() == BATCH || done {
                let entries = batch.len() as u64;
                let added = self.add(account, std::mem::take(&mut batch)).await?;
                report.added += added;
                report.unchanged += entries - added;
                progress(report.added + report.unchanged + report.refused);
            }
            if done {
                return Ok(report);
            }
        }
    }
}

impl ImportReport {
    fn refuse(&mut self, line: RefusedLine) {
        self.refused += 1;
        if self.refused_lines.len() < REPORTED_LINES {
            self.refused_lines.push(line);
        }
    }
}
