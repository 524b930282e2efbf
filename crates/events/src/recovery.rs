//! What a journal held when it was opened. Where to resume is known from its
//! last records; the rest is read behind that, while the relay works: the ages
//! of segments, and after an unclean stop the view of messages. Who needs them
//! waits. One segment's heads are in memory at a time.

use std::sync::Arc;

use postrider_base::Scope;
use postrider_wal::{Backlog, Lsn, OpenReport as LogReport};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::journal::{Journal, OpenReport, blocking};
use crate::record::Head;
use crate::view::Place;

/// What of a journal has not been read, or not been taken note of.
#[derive(Debug)]
pub(crate) struct Recovery {
    backlog: Backlog,
    report: LogReport,
    /// Those of the last segment that has any.
    last: Vec<(Head, Place)>,
}

impl Recovery {
    /// Reads from the end as far as the last record. Blocks.
    pub(crate) fn begin(backlog: Backlog, report: LogReport) -> Result<Self> {
        let mut recovery = Self { backlog, report, last: Vec::new() };
        while recovery.last.is_empty()
            && let Some(records) = recovery.read_last()?
        {
            recovery.last = records;
        }
        Ok(recovery)
    }

    /// The last batch of the feed that is in the journal.
    pub(crate) fn resume(&self) -> Lsn {
        self.last.last().map_or(Lsn::ZERO, |(head, _)| head.source)
    }

    /// Does the rest. `recovered` gets no report when the journal fails or is
    /// closed before the end.
    pub(crate) async fn run(self, journal: Arc<Journal>, recovered: watch::Sender<Option<OpenReport>>) {
        let (own, scope) = (journal.clone(), journal.scope.clone());
        match blocking(move || self.read(&own, &scope)).await {
            Ok(report) => drop(recovered.send_replace(report)),
            Err(error) => journal.fail(&error),
        }
    }

    /// None when the scope ended first. Blocks.
    fn read(mut self, journal: &Journal, scope: &Scope) -> Result<Option<OpenReport>> {
        let trusted = journal.view.open(self.report.last)?;
        let mut made = Ok(());
        let mut records = Some(std::mem::take(&mut self.last));
        while let Some(segment) = records {
            if scope.is_cancelled() {
                return Ok(None);
            }
            journal.note_ages(&segment);
            if !trusted && made.is_ok() {
                let places = segment.iter().map(|(head, place)| (head.id, *place));
                made = journal.view.add(places);
            }
            records = self.read_last()?;
        }
        if let Err(Error::View(reason)) = &made {
            tracing::error!("making the journal's view of messages once more: {reason}");
            made = journal.view.rebuild(&journal.log);
        }
        made?;
        journal.view.completed();
        Ok(Some(OpenReport { log: self.report, view_rebuilt: !trusted }))
    }

    /// The records of the last segment that has not been read; none when all
    /// have been.
    fn read_last(&mut self) -> Result<Option<Vec<(Head, Place)>>> {
        if self.backlog.is_empty() {
            return Ok(None);
        }
        let mut records = Vec::new();
        self.backlog.replay_last(&mut self.report, &mut |replayed| match Head::decode(&replayed) {
            Ok(head) => records.push((head, Place::of(&replayed))),
            Err(error) => tracing::error!(lsn = %replayed.lsn, "skipping a journal record: {error}"),
        })?;
        Ok(Some(records))
    }
}
