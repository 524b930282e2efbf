//! The task that reads the spool's feed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::Scope;
use postrider_base::metrics::FeedName;
use postrider_spool::{Feed, FeedItem};
use postrider_wal::Lsn;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::journal::{Journal, blocking};
use crate::mail_log::MailSink;

/// How often old segments are looked for.
const RETIRE_EVERY: Duration = Duration::from_secs(60);

/// Reads until the scope ends or the journal fails. With `renewed` the journal
/// is told first that the feed goes on behind that batch.
pub(crate) async fn run(
    journal: Arc<Journal>,
    feed: Feed,
    mail_log: Arc<dyn MailSink>,
    renewed: Option<Lsn>,
    scope: Scope,
) {
    let mut consumer = Consumer::new(journal, feed, mail_log);
    match consumer.work(renewed, &scope).await {
        Ok(()) | Err(Error::Spool(postrider_spool::Error::Closed)) => {}
        Err(error) => consumer.journal.fail(&error),
    }
}

struct Consumer {
    journal: Arc<Journal>,
    feed: Feed,
    mail_log: Arc<dyn MailSink>,
    /// The last batch of the feed that is in the journal.
    seen: Lsn,
    /// Batches of the journal that are not known to be synced, each with the
    /// last batch of the feed that is in it.
    waiting: VecDeque<(Lsn, Lsn)>,
    /// The segment of the journal that was written to last.
    segment: u64,
}

impl Consumer {
    fn new(journal: Arc<Journal>, feed: Feed, mail_log: Arc<dyn MailSink>) -> Self {
        Self { seen: Lsn::ZERO, waiting: VecDeque::new(), segment: 0, journal, feed, mail_log }
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
            self.seen = source;
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
        loop {
            tokio::select! {
                biased;
                () = scope.cancelled() => return Ok(()),
                _ = retire.tick() => self.journal.retire().await?,
                items = self.feed.next() => {
                    if !self.take(items?, scope).await? {
                        return Ok(());
                    }
                }
                _ = synced.changed(), if !self.waiting.is_empty() => {}
            }
            self.acknowledge();
        }
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
        Ok(true)
    }

    /// Tells the spool what it need not keep any more.
    fn acknowledge(&mut self) {
        let synced = self.journal.log.synced();
        let mut last = None;
        while let Some((_, source)) = self.waiting.pop_front_if(|(batch, _)| *batch <= synced) {
            last = Some(source);
        }
        if let Some(source) = last {
            self.feed.ack(source);
        }
        let done = self.waiting.front().map_or(self.seen, |(_, source)| *source);
        let lag = i64::try_from(self.seen.get() - done.get()).unwrap_or(i64::MAX);
        self.journal.metrics.feed_lag.of(FeedName::Events).set(lag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Events;
    use crate::mail_log::TracingSink;
    use crate::record::Head;
    use crate::samples::{ACCEPTED, accepted, id, message, open, options};
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

    #[tokio::test]
    async fn a_stop_while_the_disk_is_full_skips_nothing() {
        let (disk, spool) = (SimDisk::new(), spool().await);
        let Events(journal) = open(options(&disk, Clock::simulated(ACCEPTED))).await;
        let stopping = Scope::new("test");
        stopping.cancel();
        let many: Vec<String> = (0..200).map(|n| format!("recipient-{n}@example.net")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        disk.set_capacity(Some(1));
        for number in 1000..1500 {
            let digest = journal.digest(&[accepted(1, message(number, &many))]).unwrap();
            if journal.append(&digest, &stopping).await.unwrap().is_none() {
                break;
            }
        }
        let mut consumer = Consumer::new(journal.clone(), spool.feed(Events::FEED, Lsn::ZERO), Arc::new(TracingSink));
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
