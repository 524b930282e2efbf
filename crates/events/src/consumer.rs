//! The task that reads the spool's feed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::Scope;
use postrider_base::metrics::FeedName;
use postrider_spool::{Feed, FeedItem};
use postrider_wal::Lsn;

use crate::error::{Error, Result};
use crate::journal::{Journal, blocking};
use crate::mail_log::MailSink;

/// How often old segments are looked for.
const RETIRE_EVERY: Duration = Duration::from_secs(60);

/// Reads until the scope ends or the journal fails.
pub(crate) async fn run(journal: Arc<Journal>, feed: Feed, mail_log: Arc<dyn MailSink>, scope: Scope) {
    let mut consumer = Consumer { seen: Lsn::ZERO, waiting: VecDeque::new(), segment: 0, journal, feed, mail_log };
    match consumer.read(&scope).await {
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
    /// Until the scope ends; what has been taken is settled before.
    async fn read(&mut self, scope: &Scope) -> Result<()> {
        let mut synced = self.journal.log.committed();
        let mut retire = tokio::time::interval(RETIRE_EVERY);
        loop {
            tokio::select! {
                () = scope.cancelled() => return Ok(()),
                items = self.feed.next() => self.take(items?, scope).await?,
                _ = synced.changed(), if !self.waiting.is_empty() => {}
                _ = retire.tick() => self.journal.retire().await?,
            }
            self.acknowledge();
        }
    }

    async fn take(&mut self, items: Vec<FeedItem>, scope: &Scope) -> Result<()> {
        let items = Arc::new(items);
        let mut done = 0;
        while done < items.len() {
            let (journal, rest) = (self.journal.clone(), items.clone());
            let digest = blocking(move || journal.digest(&rest[done..])).await?;
            done += digest.items;
            self.seen = digest.last;
            if digest.entries.is_empty() {
                continue;
            }
            let Some(committed) = self.journal.append(&digest, scope).await? else { return Ok(()) };
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
        }
        Ok(())
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
