//! What accounts have sent, counted from the journal: it is kept in the store, so that a restart
//! gives nobody a second quota, and what a crash kept from the store is counted once more.
//!
//! A message is counted by the process that accepts it, at once and in memory; from here come
//! the store's counts, some seconds later. The two meet at a start: all that was journaled, or
//! was in the spool, when the process began is of an earlier one.

use std::sync::Arc;
use std::time::Duration;

use postrider_account::{Accounts, Holder, Sent};
use postrider_base::Scope;
use postrider_mail::is_simulator;
use postrider_spool::Spool;
use postrider_store::{Batch, Error as StoreError, Store, Table};
use postrider_wal::{Error as LogError, Lsn};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::error::{Error, Result};
use crate::handle::Events;
use crate::journal::{Journal, State, blocking};
use crate::record::{Acceptance, Cursor, Head, Kind, Life, kind_of};
use crate::suppression::TABLE;
use crate::view::Place;

/// The row of how far this reader has come.
const READER: &str = "usage";

/// At the first start with quotas, what of the journal is read: the window and a little.
const WINDOW: Duration = Duration::from_hours(25);
/// How long news are gathered before they are read.
const GATHER: Duration = Duration::from_secs(1);
/// How long what was read waits to be saved with more: a crash has it read again.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// Rows of the store that are saved at once, at most about: a batch is bounded.
const MAX_ROWS: usize = 4_000;
/// Heads looked at in one go.
const HEAD_BYTES: usize = 64 << 10;
/// How long the last reading may take.
const END: Duration = Duration::from_secs(1);
/// Between two attempts to save.
const PAUSE: Duration = Duration::from_secs(5);

impl Events {
    /// Starts to keep what accounts send in the store, until the scope ends. Call once, after
    /// [`Events::run`] and before anything is accepted: until what was sent before is all
    /// counted, who has a bound for 24 hours must wait.
    ///
    /// # Errors
    /// When the store can not be read.
    pub fn count_usage(
        &self,
        accounts: &Accounts,
        store: &Store,
        spool: &Spool,
        operator_domain: &str,
        scope: &Scope,
    ) -> std::result::Result<(), StoreError> {
        let cursors: Table<String, Cursor> = store.table(TABLE);
        let last = cursors.get(&READER.to_owned())?.map(|cursor| self.0.clamp(cursor));
        accounts.quotas().recounting();
        let counter = Counter {
            journal: self.0.clone(),
            accounts: accounts.clone(),
            store: store.clone(),
            cursors,
            operator_domain: operator_domain.to_owned(),
            scope: scope.clone(),
            spooled_before: spool.stat().synced,
            next: last.map(Cursor::next),
            read: Sent::default(),
            saving: None,
            saved: last.map(Cursor::next),
            recounted: 0,
        };
        scope.spawn("usage", counter.run(spool.clone()));
        Ok(())
    }
}

/// What to do next.
enum Next {
    Read,
    Save,
    End,
    Fail,
}

struct Counter {
    journal: Arc<Journal>,
    accounts: Accounts,
    store: Store,
    cursors: Table<String, Cursor>,
    operator_domain: String,
    scope: Scope,
    /// The last batch of the spool that an earlier process wrote.
    spooled_before: Lsn,
    /// The next record to look at; not known at the first start with quotas.
    next: Option<Cursor>,
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

impl Counter {
    async fn run(mut self, spool: Spool) {
        if let Err(error) = self.work(&spool).await
            && *self.journal.state.borrow() == State::Running
        {
            error!(%error, "what accounts send is not kept until the next start");
        }
    }

    /// Until the scope ends; what was read is saved before.
    async fn work(&mut self, spool: &Spool) -> Result<()> {
        let scope = self.scope.clone();
        tokio::select! {
            biased;
            () = scope.cancelled() => return Ok(()),
            begun = self.begin() => begun?,
        }
        self.read_on().await?;
        // What was accepted before and has no record yet.
        tokio::select! {
            biased;
            () = scope.cancelled() => return self.end().await,
            () = spool.told(Events::FEED) => {}
        }
        self.read_on().await?;
        if scope.is_cancelled() {
            return self.end().await;
        }
        self.accounts.quotas().recounted();
        if self.recounted > 0 {
            info!(messages = self.recounted, "counted what was sent before and not known to have been");
        }
        self.save().await;
        self.follow().await
    }

    /// Waits until the journal can be read from where the store's counts end.
    async fn begin(&mut self) -> Result<()> {
        if self.next.is_none_or(|next| next.batch <= self.journal.last.get()) {
            self.journal.recovered().await?;
        }
        let window = self.journal.clock.now().saturating_sub(WINDOW);
        self.next.get_or_insert_with(|| Cursor { batch: self.journal.first_since(window).get(), index: 0 });
        Ok(())
    }

    async fn follow(&mut self) -> Result<()> {
        let mut synced = self.journal.log.committed();
        synced.mark_changed();
        let mut state = self.journal.state.subscribe();
        let mut save = tokio::time::interval(SAVE_EVERY);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                biased;
                () = self.scope.cancelled() => Next::End,
                _ = state.wait_for(|state| *state != State::Running) => Next::Fail,
                _ = save.tick(), if self.saved != self.next => Next::Save,
                changed = synced.changed() => changed.map_or(Next::Fail, |()| Next::Read),
            };
            match next {
                Next::End => return self.end().await,
                Next::Fail => return Err(LogError::Closed.into()),
                Next::Save => self.save().await,
                Next::Read => {
                    self.pause(GATHER).await;
                    self.read_on().await?;
                }
            }
        }
    }

    /// Waits, but not longer than the scope lasts.
    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.scope.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// What is journaled by now is known at once at the next start, unless it is too much.
    async fn end(&mut self) -> Result<()> {
        let rest = async {
            while !self.read_some().await? {}
            Ok(())
        };
        let read = tokio::time::timeout(END, rest).await.unwrap_or(Ok(()));
        self.save().await;
        read
    }

    /// Reads as far as the journal is synced, while the scope lasts.
    async fn read_on(&mut self) -> Result<()> {
        while !self.scope.is_cancelled() {
            match self.read_some().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error @ Error::Log(LogError::Closed)) => return Err(error),
                // A segment that went while it was read, or a disk that recovers.
                Err(error) => {
                    warn!(%error, "what accounts send is read once more");
                    self.pause(GATHER).await;
                }
            }
        }
        Ok(())
    }

    /// Reads a part, and saves when it has become much. Says whether it was the last.
    async fn read_some(&mut self) -> Result<bool> {
        let (journal, next) = (self.journal.clone(), self.next.unwrap_or_default());
        let (sends, after) = blocking(move || read(&journal, next)).await?;
        sends.iter().for_each(|send| self.count(send));
        self.next = Some(after);
        if self.read.rows() >= MAX_ROWS {
            self.save().await;
        }
        Ok(after == next)
    }

    fn count(&mut self, send: &Send) {
        let Send { batch, source, sent } = send;
        let counted = sent.recipients.iter().filter(|to| !is_simulator(to.domain(), &self.operator_domain)).count();
        let recipients = u32::try_from(counted).unwrap_or(u32::MAX);
        let before = *batch <= self.journal.last.get() || *source <= self.spooled_before;
        self.recounted += u64::from(before);
        // A credential in the sandbox has a quota of its own.
        let sandboxed = sent.credential.as_ref().filter(|name| self.accounts.credentials().is_sandboxed(name));
        let credential = sandboxed.map(|name| Holder::Credential(name.clone()));
        for holder in credential.into_iter().chain([Holder::Account(sent.account)]) {
            self.read.add(holder.clone(), recipients, sent.at);
            if before {
                self.accounts.quotas().recount(holder, recipients, sent.at);
            }
        }
    }

    /// Writes what was read and how far, together; when the scope ends it tries no more.
    async fn save(&mut self) {
        while self.saving.is_some() || self.saved != self.next {
            let Err(error) = self.try_save().await else { continue };
            warn!(%error, "what accounts have sent is not saved yet");
            self.pause(PAUSE).await;
            if self.scope.is_cancelled() {
                return;
            }
        }
    }

    async fn try_save(&mut self) -> std::result::Result<(), postrider_account::Error> {
        if self.saving.is_none() {
            let mut batch = Batch::new();
            self.accounts.quotas().save(&self.read, &mut batch)?;
            let last = self.next.unwrap_or_default().previous();
            batch.put(&self.cursors, &READER.to_owned(), &last)?;
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

/// A message that was accepted.
struct Send {
    batch: u64,
    source: Lsn,
    sent: Acceptance,
}

/// Send events from `next` on, and the record to look at after them; that is `next` itself at
/// the end of the journal alone. Blocks.
fn read(journal: &Journal, mut next: Cursor) -> Result<(Vec<Send>, Cursor)> {
    let mut sends = Vec::new();
    let records = journal.log.read_from(Lsn::new(next.batch), HEAD_BYTES)?;
    for replayed in &records {
        let Place { cursor, location } = Place::of(replayed);
        if cursor < next {
            continue;
        }
        next = cursor.next();
        let (Ok(Head { source, .. }), Ok(Kind::Send)) = (Head::decode(replayed), kind_of(replayed)) else { continue };
        match journal.read(location)?.map(|body| body.life()) {
            Some(Ok(Life::Accepted { acceptance: sent, .. })) => {
                sends.push(Send { batch: cursor.batch, source, sent });
            }
            Some(Err(error)) => error!(%cursor, %error, "a message is in no quota"),
            Some(Ok(Life::Outcomes(_))) | None => {}
        }
    }
    let behind = records.last().map(|last| Cursor { batch: last.lsn.next().get(), index: 0 });
    Ok((sends, behind.unwrap_or(next)))
}
