//! What a journal held when it was opened. Where to resume is known from its
//! last records; the rest is read behind that, while the relay works: the ages
//! of segments, and after an unclean stop the view of messages. Who needs them
//! waits. One segment's heads are in memory at a time.

use std::sync::Arc;

use postrider_base::Scope;
use postrider_wal::{Backlog, Lsn, OpenReport as LogReport};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::handle::OpenReport;
use crate::journal::{Journal, blocking};
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Instant;

    use postrider_base::{Clock, Disk, OpenMode, RealDisk, SimDisk, Size};
    use postrider_mail::Disposition;
    use postrider_spool::FeedItem;
    use tempfile::TempDir;

    use crate::handle::{Events, EventsOptions};
    use crate::reader::Start;
    use crate::record::{Kind, LifeEntry};
    use crate::samples::{ACCEPTED, accepted, id, message, open, options, outcome, outcomes, take};

    const MESSAGES: u32 = 200;

    fn with_view(disk: &SimDisk, dir: &TempDir) -> EventsOptions {
        EventsOptions { view_dir: Some(dir.path().join("view")), ..options(disk, Clock::simulated(ACCEPTED)) }
    }

    fn arrived(number: u32) -> FeedItem {
        accepted(number.into(), message(number.into(), &["a@example.net"]))
    }

    /// A journal of several segments, not closed.
    async fn filled(options: EventsOptions) -> Events {
        let events = open(options).await;
        for number in 1..=MESSAGES {
            take(&events.0, vec![arrived(number)]).await;
        }
        assert!(events.0.log.segments().len() > 4);
        events
    }

    /// What is read of a journal that has just been opened.
    async fn assert_whole(events: &Events) {
        assert_eq!(events.0.resume, Lsn::new(MESSAGES.into()));
        let (mut reader, mut count) = (events.since(Start::Time(ACCEPTED)), 0);
        loop {
            let lines = reader.next().await.unwrap();
            if lines.is_empty() {
                break;
            }
            count += lines.len();
        }
        assert_eq!(count, MESSAGES as usize);
        for number in 1..=MESSAGES {
            let life = events.message(id(number.into())).await.unwrap();
            assert!(matches!(life[..], [LifeEntry::Accepted(_)]), "{number}");
        }
    }

    #[tokio::test]
    async fn old_messages_are_known_after_a_crash_and_after_a_stop() {
        let (disk, dir) = (SimDisk::new(), tempfile::tempdir().unwrap());
        filled(with_view(&disk, &dir)).await.0.log.close().await.unwrap();
        for (round, rebuilt) in [true, false, false].into_iter().enumerate() {
            let events = Events::open(with_view(&disk, &dir)).await.unwrap();
            assert_whole(&events).await;
            assert_eq!(events.recovered().await.unwrap().view_rebuilt, rebuilt, "round {round}");
            events.close().await.unwrap();
        }
        let events = Events::open(with_view(&disk, &dir)).await.unwrap();
        events.recovered().await.unwrap();
        let delivered = outcome(0, ACCEPTED, Disposition::Delivered, "250 ok");
        let digest = events.0.digest(&[outcomes(1000, 1, vec![delivered])]).unwrap();
        assert_eq!(digest.kinds, [Kind::Delivery], "the first message was forgotten");
        events.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_before_the_end_of_the_recovery_costs_nothing() {
        let (disk, dir) = (SimDisk::new(), tempfile::tempdir().unwrap());
        filled(with_view(&disk, &dir)).await.0.log.close().await.unwrap();
        // First the view is being made, later it was closed in order.
        for _ in 0..2 {
            for _ in 0..5 {
                let events = Events::open(with_view(&disk, &dir)).await.unwrap();
                let asked = tokio::spawn({
                    let events = events.clone();
                    async move { events.message(id(1)).await }
                });
                tokio::task::yield_now().await;
                events.close().await.unwrap();
                if let Ok(life) = asked.await.unwrap() {
                    assert_eq!(life.len(), 1);
                }
            }
            let events = Events::open(with_view(&disk, &dir)).await.unwrap();
            assert_whole(&events).await;
            events.close().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_recovery_that_is_stopped_leaves_no_view_to_trust() {
        let (disk, dir) = (SimDisk::new(), tempfile::tempdir().unwrap());
        filled(with_view(&disk, &dir)).await.0.log.close().await.unwrap();
        let (_recovered, report) = watch::channel(None);
        let (journal, recovery) = Journal::open(with_view(&disk, &dir), report).unwrap();
        let stopped = Scope::new("test");
        stopped.cancel();
        assert_eq!(recovery.read(&journal, &stopped).unwrap(), None);
        let events = Events(Arc::new(journal));
        events.close().await.unwrap();
        let events = open(with_view(&disk, &dir)).await;
        assert!(events.recovered().await.unwrap().view_rebuilt);
        assert_whole(&events).await;
        events.close().await.unwrap();
    }

    #[tokio::test]
    async fn restarts_without_mail_hide_no_last_record() {
        let disk = SimDisk::new();
        let options = || options(&disk, Clock::simulated(ACCEPTED));
        filled(options()).await.close().await.unwrap();
        for _ in 0..4 {
            Events::open(options()).await.unwrap().close().await.unwrap();
        }
        let events = Events::open(options()).await.unwrap();
        assert_whole(&events).await;
        events.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_footer_is_repaired_behind_the_start() {
        let disk = SimDisk::new();
        let options = || options(&disk, Clock::simulated(ACCEPTED));
        filled(options()).await.close().await.unwrap();
        let path = Path::new("/journal/segment-0000000002.log");
        let len = disk.open(path, OpenMode::Read).unwrap().len().unwrap();
        disk.damage(path, usize::try_from(len).unwrap() - 100, 0x55).unwrap();
        let events = Events::open(options()).await.unwrap();
        assert_whole(&events).await;
        assert_eq!(events.recovered().await.unwrap().log.damage.len(), 1);
        events.close().await.unwrap();
    }

    /// `cargo test --release -p postrider-events --lib -- --ignored --nocapture`
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "takes a minute and 2 GB; prints how long opening takes"]
    #[expect(clippy::disallowed_methods, reason = "it measures")]
    async fn opening_a_million_records() {
        const RECORDS: u32 = 1_000_000;
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let options = || {
            let mut options = options(&SimDisk::new(), Clock::simulated(ACCEPTED));
            options.disk = Arc::new(RealDisk);
            options.dir = dir.path().join("journal");
            options.view_dir = Some(dir.path().join("view"));
            options.settings.segment_bytes = Size::from_mib(64);
            options
        };
        let events = open(options()).await;
        for first in (0..RECORDS).step_by(1000) {
            take(&events.0, (first..first + 1000).map(|number| arrived(number + 1)).collect()).await;
        }
        let mut events = events;
        for stop in ["a kill", "a stop"] {
            match stop {
                "a stop" => events.close().await.unwrap(),
                _ => events.0.log.close().await.unwrap(),
            }
            drop(events);
            let began = Instant::now();
            events = Events::open(options()).await.unwrap();
            let opened = began.elapsed();
            let report = events.recovered().await.unwrap();
            let recovered = began.elapsed();
            assert_eq!(events.message(id(1)).await.unwrap().len(), 1);
            println!("after {stop}: open in {opened:?}, recovered in {recovered:?}, {report:?}");
        }
    }
}
