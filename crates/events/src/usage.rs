//! What accounts and credentials have sent, counted from the journal: it is kept in the store, so that a restart
//! gives nobody a second quota, and what a crash kept from the store is counted once more.
//!
//! A message is counted by the process that accepts it, at once and in memory; from here come
//! the store's counts, some seconds later. The two meet at a start: all that was journaled, or
//! was in the spool, when the process began is of an earlier one.

use std::time::Duration;

use postrider_account::{Holder, Sent};
use postrider_mail::is_simulator;
use postrider_store::{Batch, Error as StoreError, Store};
use postrider_wal::{Error as LogError, Lsn};
use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::follower::{Chunk, Context, Places, Wanted, What, read};
use crate::record::{Acceptance, Cursor};

/// At the first start with quotas, what of the journal is read: the window and a little.
const WINDOW: Duration = Duration::from_hours(25);
/// Rows of the store that are saved at once, at most about: a batch is bounded.
const MAX_ROWS: usize = 4_000;
/// How long the last reading may take.
const END: Duration = Duration::from_secs(1);
/// Between two attempts to read or to save.
const PAUSE: Duration = Duration::from_secs(5);

pub(crate) struct Usage {
    context: Context,
    places: Places,
    store: Store,
    /// The last batch of the spool that an earlier process wrote.
    spooled_before: Lsn,
    /// The next record to look at; not known at the first start with quotas.
    next: Option<Cursor>,
    /// Whether the journal can be read from there.
    begun: bool,
    /// What of the records before is not in the store.
    read: Sent,
    /// What is being written, and where it ends. They are sums: when it is not known whether
    /// they were written, writing them once more is the same.
    saving: Option<(Batch, Option<Cursor>)>,
    /// Where the store's counts end.
    saved: Option<Cursor>,
    /// Messages of earlier processes that the store did not know.
    recounted: u64,
}

impl Usage {
    pub(crate) fn new(
        context: Context,
        places: Places,
        store: Store,
        spooled_before: Lsn,
    ) -> std::result::Result<Self, StoreError> {
        let next = places.next(&context.journal)?;
        context.accounts.quotas().recounting();
        Ok(Self {
            context,
            places,
            store,
            spooled_before,
            next,
            begun: false,
            read: Sent::default(),
            saving: None,
            saved: next,
            recounted: 0,
        })
    }

    pub(crate) fn next(&self) -> Cursor {
        self.next.unwrap_or_default()
    }

    /// Counts what was sent before, until all of it is; `told` resolves when it is journaled.
    pub(crate) async fn catch_up(&mut self, told: impl Future<Output = ()>) -> Result<()> {
        self.begin().await?;
        self.read_on().await?;
        told.await;
        self.read_on().await?;
        self.context.accounts.quotas().recounted();
        if self.recounted > 0 {
            info!(messages = self.recounted, "counted what was sent before and not known to have been");
        }
        self.save().await;
        Ok(())
    }

    /// Waits until the journal can be read from where the store's counts end.
    async fn begin(&mut self) -> Result<()> {
        let journal = &self.context.journal;
        if self.next.is_none_or(|next| next.batch <= journal.last.get()) {
            journal.recovered().await?;
        }
        let window = journal.clock.now().saturating_sub(WINDOW);
        self.next.get_or_insert_with(|| Cursor { batch: journal.first_since(window).get(), index: 0 });
        self.begun = true;
        Ok(())
    }

    /// Reads as far as the journal is synced.
    async fn read_on(&mut self) -> Result<()> {
        loop {
            match self.read_some().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error @ Error::Log(LogError::Closed)) => return Err(error),
                // A segment that went while it was read, or a disk that recovers.
                Err(error) => {
                    warn!(%error, "what accounts send is read once more");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Reads a part. Says whether it was the last.
    async fn read_some(&mut self) -> Result<bool> {
        let next = self.next();
        let chunk = read(&self.context.journal, next, Wanted::Sent).await?;
        self.take(&chunk).await;
        Ok(chunk.after == next)
    }

    /// What is journaled by now is known at once at the next start, unless it is too much.
    pub(crate) async fn end(&mut self) -> Result<()> {
        if !self.begun {
            return Ok(());
        }
        let rest = async {
            while !self.read_some().await? {}
            Ok(())
        };
        let read = tokio::time::timeout(END, rest).await.unwrap_or(Ok(()));
        self.save().await;
        read
    }

    /// Takes what it has not seen, and saves when it has become much.
    pub(crate) async fn take(&mut self, chunk: &Chunk) {
        for record in chunk.since(self.next()) {
            if let What::Sent(sent) = &record.what {
                self.count(record.cursor.batch, record.source, sent);
            }
        }
        self.next = self.next.max(Some(chunk.after));
        if self.read.rows() >= MAX_ROWS {
            self.save().await;
        }
    }

    fn count(&mut self, batch: u64, source: Lsn, sent: &Acceptance) {
        let Context { journal, accounts, operator_domain, .. } = &self.context;
        let counted = sent.recipients.iter().filter(|to| !is_simulator(to.domain(), operator_domain)).count();
        let recipients = u32::try_from(counted).unwrap_or(u32::MAX);
        let before = batch <= journal.last.get() || source <= self.spooled_before;
        self.recounted += u64::from(before);
        let credential = sent.credential.clone().map(Holder::Credential);
        for holder in credential.into_iter().chain([Holder::Account(sent.account)]) {
            if before {
                accounts.quotas().recount(holder.clone(), recipients, sent.at);
            }
            self.read.add(holder, recipients, sent.at);
        }
    }

    /// Writes what was read and how far, together; later, where the store takes nothing.
    pub(crate) async fn save_if_possible(&mut self) {
        if (self.saving.is_some() || self.saved != self.next)
            && let Err(error) = self.try_save().await
        {
            warn!(%error, "what accounts have sent is not saved yet");
        }
    }

    /// The same until it is done; when the scope ends it tries no more.
    pub(crate) async fn save(&mut self) {
        while self.saving.is_some() || self.saved != self.next {
            let Err(error) = self.try_save().await else { continue };
            warn!(%error, "what accounts have sent is not saved yet");
            self.context.pause(PAUSE).await;
            if self.context.scope.is_cancelled() {
                return;
            }
        }
    }

    async fn try_save(&mut self) -> std::result::Result<(), postrider_account::Error> {
        if self.saving.is_none() {
            let mut batch = Batch::new();
            self.context.accounts.quotas().save(&self.read, &mut batch)?;
            batch.put(&self.places.table, &self.places.row(), &self.next().previous())?;
            self.saving = Some((batch, self.next));
            self.read = Sent::default();
        }
        if let Some((batch, next)) = &self.saving {
            self.store.write(batch.clone()).await?;
            self.saved = *next;
            self.saving = None;
        }
        Ok(())
    }
}
