//! The task that writes the journal: from the spool's feed, and from reports of what came back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::Scope;
use postrider_base::metrics::FeedName;
use postrider_spool::{Feed, FeedItem};
use postrider_wal::{Committed, Lsn};
use tokio::sync::{mpsc, oneshot};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::journal::{Journal, blocking};
use crate::mail_log::MailSink;
use crate::reports::{Answer, HasRead, Report, TOGETHER};

/// How often old segments are looked for.
const RETIRE_EVERY: Duration = Duration::from_secs(60);

/// How long reports leave the feed to be read, where it is behind: who sends many must not
/// keep it from ever being read.
const FEED_FIRST: Duration = Duration::from_millis(50);

/// Where what is journaled comes from.
pub(crate) struct Sources {
    pub(crate) feed: Feed,
    /// The last batch of the feed that is in the journal.
    pub(crate) seen: Lsn,
    /// Whether the journal is to be told first that the feed goes on behind that.
    pub(crate) is_renewed: bool,
    /// The last batch of the spool that an earlier process wrote.
    pub(crate) before: Lsn,
    pub(crate) reports: mpsc::Receiver<Report>,
}

/// Reads until the scope ends or the journal fails.
pub(crate) async fn run(journal: Arc<Journal>, sources: Sources, mail_log: Arc<dyn MailSink>, scope: Scope) {
    let renewed = sources.is_renewed.then_some(sources.seen);
    let mut consumer = Consumer::new(journal, sources, mail_log);
    match consumer.work(renewed, &scope).await {
        Ok(()) | Err(Error::Spool(postrider_spool::Error::Closed)) => {}
        Err(error) => consumer.journal.fail(&error),
    }
}

struct Consumer {
    journal: Arc<Journal>,
    feed: Feed,
    reports: mpsc::Receiver<Report>,
    mail_log: Arc<dyn MailSink>,
    /// The last batch of the feed that is in the journal.
    seen: Lsn,
    /// The last batch of the spool that an earlier process wrote.
    before: Lsn,
    /// Batches of the journal that are not known to be synced, each with the
    /// last batch of the feed that is in it.
    waiting: VecDeque<(Lsn, Lsn)>,
    /// What became of reports, to be said once this batch of the journal is synced.
    answers: VecDeque<(Lsn, oneshot::Sender<Result<Answer>>, Answer)>,
    /// The segment of the journal that was written to last.
    segment: u64,
}

impl Consumer {
    fn new(journal: Arc<Journal>, sources: Sources, mail_log: Arc<dyn MailSink>) -> Self {
        let Sources { feed, seen, before, reports, .. } = sources;
        let (waiting, answers) = (VecDeque::new(), VecDeque::new());
        Self { seen, before, waiting, answers, segment: 0, journal, feed, reports, mail_log }
    }

    async fn work(&mut self, renewed: Option<Lsn>, scope: &Scope) -> Result<()> {
        // What an outcome's event says of its message is in an old record.
        tokio::select! {
            biased;
            () = scope.cancelled() => return Ok(()),
            recovered = self.journal.recovered() => drop(recovered?),
        }
        if let Some(source) = renewed {
            tracing::warn!(%source, "batches of the queue are lost; their events stay, new ones are of what follows");
            let renewal = Digest::renewal(source, self.journal.clock.now())?;
            if !self.write(renewal, scope).await? {
                return Ok(());
            }
        }
        self.read(scope).await
    }

    /// Until the scope ends; what has been taken is settled before.
    async fn read(&mut self, scope: &Scope) -> Result<()> {
        let mut synced = self.journal.log.committed();
        let mut retire = tokio::time::interval(RETIRE_EVERY);
        let mut reports = Vec::new();
        loop {
            let pause = if self.feed.is_at_end() { Duration::ZERO } else { FEED_FIRST };
            tokio::select! {
                biased;
                () = scope.cancelled() => return Ok(()),
                _ = retire.tick() => self.journal.retire().await?,
                items = self.feed.next() => {
                    if !self.take(items?, scope).await? {
                        return Ok(());
                    }
                }
                () = take_after(pause, &mut self.reports, &mut reports) => {}
                _ = synced.changed(), if !(self.waiting.is_empty() && self.answers.is_empty()) => {}
            }
            // Also when the feed never pauses.
            while reports.len() < TOGETHER
                && let Ok(report) = self.reports.try_recv()
            {
                reports.push(report);
            }
            while !reports.is_empty() {
                self.report(&mut reports).await?;
            }
            self.acknowledge();
        }
    }

    /// Journals what reports say, as many as fit into a batch, and leaves the others.
    async fn report(&mut self, reports: &mut Vec<Report>) -> Result<()> {
        let (journal, seen, read) = (self.journal.clone(), self.seen, self.has_read());
        let mut taken = std::mem::take(reports);
        // Who asked may have gone, and said that nothing of it is journaled: he comes again.
        taken.retain(|report| !report.answer.is_closed());
        let (digest, answers, mut taken) = blocking(move || {
            let (digest, answers) = journal.digest_reports(&taken, seen, read);
            (digest, answers, taken)
        })
        .await;
        *reports = taken.split_off(answers.len());
        let is_written = digest.entries.is_empty() || self.write_at_once(digest).await?;
        // What is known may be in a batch that is not synced.
        let last = self.journal.log.written();
        for (report, answer) in taken.into_iter().zip(answers) {
            // Who asked may have gone.
            match answer {
                _ if !is_written => drop(report.answer.send(Err(Error::Later("the disk is full")))),
                Ok(answer) => self.answers.push_back((last, report.answer, answer)),
                Err(error) => drop(report.answer.send(Err(error))),
            }
        }
        Ok(())
    }

    fn has_read(&self) -> HasRead {
        match self.feed.is_at_end() {
            true => HasRead::All,
            false if self.seen >= self.before => HasRead::Earlier,
            false => HasRead::Part,
        }
    }

    /// As [`Self::write`], but not when there is no room.
    async fn write_at_once(&mut self, digest: Digest) -> Result<bool> {
        let Some(committed) = self.journal.try_append(&digest).await? else { return Ok(false) };
        self.settle(digest, committed).await?;
        Ok(true)
    }

    /// Whether all of it is in the journal. When not, nothing later may be
    /// written: the next start goes on behind the last record.
    async fn take(&mut self, items: Vec<FeedItem>, scope: &Scope) -> Result<bool> {
        let items = Arc::new(items);
        let mut done = 0;
        while done < items.len() {
            let (journal, rest) = (self.journal.clone(), items.clone());
            let digest = blocking(move || journal.digest(&rest[done..])).await?;
            done += digest.items;
            self.seen = digest.last;
            if !digest.entries.is_empty() && !self.write(digest, scope).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As [`Self::take`], of what became of items.
    async fn write(&mut self, digest: Digest, scope: &Scope) -> Result<bool> {
        let Some(committed) = self.journal.append(&digest, scope).await? else { return Ok(false) };
        self.settle(digest, committed).await?;
        Ok(true)
    }

    /// Takes note of what was written.
    async fn settle(&mut self, digest: Digest, committed: Committed) -> Result<()> {
        self.waiting.push_back((committed.lsn, digest.last));
        let segment = committed.locations.last().map_or(self.segment, |location| location.segment);
        let moved_on = std::mem::replace(&mut self.segment, segment) != segment;
        let (journal, mail_log) = (self.journal.clone(), self.mail_log.clone());
        blocking(move || {
            journal.settle(&digest, &committed)?;
            if let Err(error) = mail_log.write(&digest.mail_log) {
                let lines = digest.mail_log.lines().count() as u64;
                journal.metrics.mail_log_lost.inc_by(lines);
                tracing::error!("{lines} lines of the mail log are lost: {error}");
            }
            Ok::<_, Error>(())
        })
        .await?;
        if moved_on {
            self.journal.retire().await?;
        }
        Ok(())
    }

    /// Tells the spool what it need not keep any more, and who sent reports what became of them.
    fn acknowledge(&mut self) {
        let synced = self.journal.log.synced();
        let mut last = None;
        while let Some((_, source)) = self.waiting.pop_front_if(|(batch, _)| *batch <= synced) {
            last = Some(source);
        }
        if let Some(source) = last {
            self.feed.ack(source);
        }
        while let Some((_, asked, answer)) = self.answers.pop_front_if(|(batch, ..)| *batch <= synced) {
            // Who asked may have gone.
            let _ = asked.send(Ok(answer));
        }
        let done = self.waiting.front().map_or(self.seen, |(_, source)| *source);
        let lag = i64::try_from(self.seen.get() - done.get()).unwrap_or(i64::MAX);
        self.journal.metrics.feed_lag.of(FeedName::Events).set(lag);
    }
}

async fn take_after(pause: Duration, incoming: &mut mpsc::Receiver<Report>, reports: &mut Vec<Report>) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    incoming.recv_many(reports, TOGETHER).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Events;
    use crate::mail_log::TracingSink;
    use crate::record::Head;
    use crate::returned::{Affected, Returned, ReturnedComplaint, ReturnedKind, ReturnedSource};
    use crate::samples::{ACCEPTED, accepted, id, message, open, options, take};
    use postrider_base::{Clock, Metrics, SimDisk, Size};
    use postrider_spool::{Content, NewMessage, Spool, SpoolOptions};
    use postrider_wal::Driver;

    async fn spool() -> Spool {
        let options = SpoolOptions {
            disk: Arc::new(SimDisk::new()),
            dir: "/spool".into(),
            index_dir: None,
            clock: Clock::simulated(ACCEPTED),
            settings: postrider_spool::Settings { min_free_bytes: Size::from_bytes(0), ..Default::default() },
            metrics: Metrics::new(),
            feeds: &[Events::FEED],
            start_held: false,
            accept_loss: false,
            driver: Driver::Thread,
        };
        Spool::open(options).await.unwrap()
    }

    async fn accept(spool: &Spool, number: u128, recipients: &[&str]) {
        let record = message(number, recipients);
        let content = Content::from(vec![b'x'; 100]);
        let message = NewMessage {
            id: record.id,
            account: record.account,
            accepted_at: record.accepted_at,
            expires_at: record.expires_at,
            not_before: None,
            tls_optional: false,
            envelope: record.envelope,
            origin: record.origin,
            content,
        };
        spool.accept(message).await.unwrap();
    }

    fn journaled(journal: &Journal) -> Vec<postrider_mail::MessageId> {
        let segments = journal.log.segments();
        let records = segments.iter().flat_map(|segment| journal.log.entries(segment.number).unwrap());
        records.map(|record| Head::decode(&record).unwrap().id).collect()
    }

    /// Writes until there is no room; a scope that has ended.
    async fn fill(journal: &Arc<Journal>, disk: &SimDisk, to: &[&str]) -> Scope {
        let stopping = Scope::new("test");
        stopping.cancel();
        disk.set_capacity(Some(1));
        for number in 1000..1500 {
            let digest = journal.digest(&[accepted(1, message(number, to))]).unwrap();
            if journal.append(&digest, &stopping).await.unwrap().is_none() {
                return stopping;
            }
        }
        panic!("500 messages fitted in nothing");
    }

    fn consumer(journal: &Arc<Journal>, spool: &Spool) -> Consumer {
        let feed = spool.feed(Events::FEED, Lsn::ZERO);
        let reports = journal.incoming.lock().take().unwrap();
        let sources = Sources { feed, seen: Lsn::ZERO, is_renewed: false, before: Lsn::ZERO, reports };
        Consumer::new(journal.clone(), sources, Arc::new(TracingSink))
    }

    /// What a consumer says at once to a complaint about the first message; none when it waits for a sync.
    async fn complain(consumer: &mut Consumer) -> Option<Result<Answer>> {
        let (report, mut answered) = complaint();
        consumer.report(&mut vec![report]).await.unwrap();
        answered.try_recv().ok()
    }

    fn complaint() -> (Report, oneshot::Receiver<Result<Answer>>) {
        let (answer, answered) = oneshot::channel();
        let what = ReturnedKind::Complaint(ReturnedComplaint::default());
        let source = ReturnedSource::default();
        let returned = Returned { id: id(1), at: ACCEPTED, affected: Affected::All, what, source, notice: None };
        (Report { returned, answer }, answered)
    }

    #[tokio::test]
    async fn nothing_is_journaled_for_who_has_gone() {
        let (disk, spool) = (SimDisk::new(), spool().await);
        let Events(journal) = open(options(&disk, Clock::simulated(ACCEPTED))).await;
        take(&journal, vec![accepted(1, message(1, &["a@example.net"]))]).await;
        let mut consumer = consumer(&journal, &spool);
        let (report, _) = complaint();
        consumer.report(&mut vec![report]).await.unwrap();
        assert_eq!((consumer.answers.len(), journaled(&journal)), (0, vec![id(1)]));
        let (report, _answered) = complaint();
        consumer.report(&mut vec![report]).await.unwrap();
        assert_eq!((consumer.answers.len(), journaled(&journal)), (1, vec![id(1); 2]));
    }

    #[tokio::test]
    async fn a_full_journal_takes_no_report_and_makes_nobody_wait() {
        let (disk, spool) = (SimDisk::new(), spool().await);
        let Events(journal) = open(options(&disk, Clock::simulated(ACCEPTED))).await;
        take(&journal, vec![accepted(1, message(1, &["a@example.net"]))]).await;
        let mut consumer = consumer(&journal, &spool);
        fill(&journal, &disk, &["a@example.net"]).await;
        assert!(matches!(complain(&mut consumer).await, Some(Err(Error::Later(_)))));
        disk.set_capacity(None);
        // Room is found some time after it is there; then there is a sync to wait for.
        while complain(&mut consumer).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(consumer.answers.len(), 1);
    }

    #[tokio::test]
    async fn a_stop_while_the_disk_is_full_skips_nothing() {
        let (disk, spool) = (SimDisk::new(), spool().await);
        let Events(journal) = open(options(&disk, Clock::simulated(ACCEPTED))).await;
        let many: Vec<String> = (0..200).map(|n| format!("recipient-{n}@example.net")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let stopping = fill(&journal, &disk, &many).await;
        let mut consumer = consumer(&journal, &spool);
        accept(&spool, 1, &many).await;
        let large = consumer.feed.next().await.unwrap();
        assert!(!consumer.take(large, &stopping).await.unwrap());
        accept(&spool, 2, &["a@example.net"]).await;
        for _ in 0..20 {
            consumer.read(&stopping).await.unwrap();
        }
        let journaled = journaled(&journal);
        assert!(!journaled.contains(&id(2)), "the next start would begin behind what was not written");
    }
}
