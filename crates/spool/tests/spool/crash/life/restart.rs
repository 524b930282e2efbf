//! The end of a spool, the next one, and what it finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postrider_mail::MessageId;
use postrider_spool::{IndexKind, OpenReport, Spool};

use super::{DOMAINS, Life, SYNCED, Taken, passes, taken};
use crate::crash::model::Found;
use crate::crash::steps::{End, IndexFate, Verdict};
use crate::rig::{HOUR, due_now};

impl Life<'_> {
    pub(super) async fn end(&mut self, end: End, index: IndexFate) {
        if end == End::Orderly {
            let closed = taken(&self.spool().close().await);
            self.collect();
            if closed == Taken::Yes {
                self.model.synced();
            }
        }
        self.tally.count(match end {
            End::Orderly => "stopped",
            End::Killed => "killed",
            End::PowerCut(_) => "power cut",
        });
        if self.spool().stat().cold_bytes > 0 {
            self.tally.count("bodies in the cold log");
        }
        match end {
            End::PowerCut(seed) => self.rig.disk.crash(seed),
            End::Orderly | End::Killed => self.rig.disk.kill(),
        }
        self.collect();
        for work in std::mem::take(&mut self.works) {
            work.task.abort();
            work.batches.into_iter().for_each(|batch| self.model.lost_sight(batch));
        }
        self.open = None;
        // Tasks of the former one let go of the disk.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.indexes.meet(index, self.rig.index_dir().as_deref());
        let report = self.reopen().await;
        (self.failure, self.read_only) = (None, false);
        self.count_index(&report);
        self.restarts += 1;
        assert_eq!(report.quarantined, 0);
        self.compare(end).await;
    }

    fn count_index(&self, report: &OpenReport) {
        let has_directory = self.rig.index_dir().is_some();
        if has_directory && self.spool().stat().index == IndexKind::Memory {
            self.tally.count("the index stays in memory");
        } else if report.index_rebuilt.is_some() {
            self.tally.count("the index is made anew");
        } else if has_directory && report.index_repairs > 0 {
            self.tally.count("the index is corrected");
        }
    }

    async fn reopen(&mut self) -> Arc<OpenReport> {
        let mut early = self.restarts.is_multiple_of(3);
        for _ in 0..9 {
            match Spool::open_behind(self.rig.options()).await {
                Ok(spool) => self.open = Some(spool),
                Err(error) => {
                    assert!(passes(&error), "{error}");
                    self.tally.count("did not open");
                    self.help().await;
                    continue;
                }
            }
            if std::mem::take(&mut early) {
                // While what was there before is still being read.
                self.accept(&[0, 1], 300).await;
            }
            match self.spool().recovered().await {
                Ok(report) => return report,
                Err(error) => assert!(passes(&error), "{error}"),
            }
            self.open = None;
            self.rig.disk.kill();
            self.help().await;
        }
        panic!("the spool does not open");
    }

    /// An armed fault has passed; or the operator frees the disk.
    async fn help(&self) {
        self.rig.disk.set_capacity(None);
        self.rig.disk.set_read_only(false);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn compare(&mut self, end: End) {
        self.read(false).await;
        let found = self.find().await;
        self.model.compare(end, &found, &self.told);
        assert_eq!(self.spool().stat().messages, found.waiting.len() as u64);
        match &self.holds {
            Some(holds) => {
                for summary in self.spool().summary().await.unwrap() {
                    let domain = DOMAINS.iter().position(|domain| *domain == summary.domain.as_str()).unwrap();
                    assert_eq!(summary.held, holds.contains(&domain), "{}", summary.domain);
                }
            }
            None => self.release_all().await,
        }
        // All that is due is as it was accepted.
        let mut claims = Vec::new();
        while let Some(more) = Some(due_now(self.spool(), 100).await).filter(|more| !more.is_empty()) {
            for claim in &more {
                self.check(claim).await;
            }
            claims.extend(more);
        }
    }

    async fn find(&self) -> Found {
        let mut found = Found::default();
        for id in self.model.messages.keys() {
            let Some(view) = self.spool().show(*id).await.unwrap() else { continue };
            let recipients = (0u16..).zip(&view.recipients).filter(|(_, recipient)| !recipient.done);
            let waiting: BTreeMap<_, _> = recipients.map(|(index, recipient)| (index, recipient.attempts)).collect();
            assert!(!waiting.is_empty(), "{id} waits for nobody: {view:?}");
            found.waiting.insert(*id, waiting);
            if view.held {
                found.held.insert(*id);
            }
        }
        found
    }

    /// Everything that is left is delivered, and then all are accounted for.
    pub(in crate::crash) async fn finish(mut self) {
        self.rig.disk.set_capacity(None);
        self.rig.disk.set_read_only(false);
        self.end(End::PowerCut(self.restarts), IndexFate::Kept).await;
        self.release_all().await;
        self.wait(2 * HOUR).await;
        while !due_now(self.spool(), 1).await.is_empty() {
            self.attempt(8, &[Verdict::Delivered], false).await;
        }
        self.wait(SYNCED).await;
        assert!(self.works.is_empty());
        let stat = self.spool().stat();
        assert_eq!((stat.messages, stat.bytes, stat.in_delivery, stat.queues), (0, 0, 0, 0));
        assert_eq!(stat.body_memory, 0);
        self.read(true).await;
        let all: Vec<(MessageId, usize)> =
            self.model.messages.iter().map(|(id, message)| (*id, message.recipients.len())).collect();
        for (id, recipients) in all {
            for index in (0u16..).take(recipients) {
                assert!(self.told.ended.contains(&(id, index)), "{id} {index} did not end");
            }
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(self.spool().stat().segments <= 3, "{:?}", self.spool().stat());
        self.spool().close().await.unwrap();
    }
}
