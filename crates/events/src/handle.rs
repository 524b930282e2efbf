//! The handle that everybody holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, Disk, Metrics, Scope};
use postrider_mail::MessageId;
use postrider_spool::Spool;
use postrider_wal::{Driver, Error as LogError};
use tokio::sync::{oneshot, watch};

use crate::consumer::{self, Sources};
use crate::error::{Error, Result};
use crate::journal::{Journal, State, blocking};
use crate::mail_log::MailSink;
use crate::reader::{Reader, Start};
use crate::record::LifeEntry;
use crate::reports::{Answer, Report};
use crate::returned::{Reported, Returned};
use crate::settings::Settings;

/// What a journal is opened with.
#[derive(Clone, Debug)]
pub struct EventsOptions {
    /// Where the journal is kept.
    pub disk: Arc<dyn Disk>,
    /// Directory of the journal on that disk.
    pub dir: PathBuf,
    /// Directory of the view that finds messages in the journal, on the real
    /// file system; removed and made anew at will. Without one it is temporary.
    pub view_dir: Option<PathBuf>,
    /// Who runs the log.
    pub driver: Driver,
    /// What time it is.
    pub clock: Clock,
    /// Bounds.
    pub settings: Settings,
    /// Where to count.
    pub metrics: Metrics,
    /// As whom events speak.
    pub issuer: Issuer,
    /// Go on although a file of the journal is missing, or batches of the
    /// spool that the journal has events of.
    pub accept_loss: bool,
}

/// As whom events speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// `aws` in `arn:aws:ses:...`.
    pub partition: String,
    /// Such as `us-east-1`.
    pub region: String,
    /// Name of this host, for `reportingMTA`.
    pub hostname: String,
    /// Below which the mailbox simulator is.
    pub operator_domain: String,
}

/// How opening went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// What the log found.
    pub log: postrider_wal::OpenReport,
    /// Whether the view of messages had to be made anew.
    pub view_rebuilt: bool,
}

/// The journal. A cheap handle.
#[derive(Clone, Debug)]
pub struct Events(pub(crate) Arc<Journal>);

impl Events {
    /// Name of the spool's feed that [`Events::run`] reads.
    pub const FEED: &'static str = "events";

    /// Opens or makes a journal. Takes as long as its last file; the others
    /// are read behind that, see [`Events::recovered`]. Call on a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the log can not be opened.
    pub async fn open(options: EventsOptions) -> Result<Self> {
        let (recovered, report) = watch::channel(None);
        let (journal, recovery) = blocking(move || Journal::open(options, report)).await?;
        let journal = Arc::new(journal);
        journal.scope.spawn("recovery", recovery.run(journal.clone(), recovered));
        Ok(Self(journal))
    }

    /// Waits until all that the journal held has been looked through; how
    /// opening went. Until then the feed is not read, nothing is retired, and
    /// who asks for old events or for a message waits.
    ///
    /// # Errors
    /// When the journal fails or is closed before.
    pub async fn recovered(&self) -> Result<OpenReport> {
        self.0.recovered().await
    }

    /// Starts to turn the spool's feed, and what [`Events::report`] is told, into journal records
    /// and lines of the mail log, until the scope ends. Call once, before anything is accepted.
    ///
    /// # Errors
    /// [`Error::Ahead`], unless [`EventsOptions::accept_loss`]: then what the
    /// spool still has counts as journaled, and reading goes on behind it.
    pub fn run(&self, spool: &Spool, mail_log: Arc<dyn MailSink>, scope: &Scope) -> Result<()> {
        let (journal, last) = (self.0.resume, spool.stat().synced);
        let renewed = journal > last;
        if renewed && !self.0.accept_loss {
            return Err(Error::Ahead { journal, spool: last });
        }
        let resume = journal.min(last);
        let Some(reports) = self.0.incoming.lock().take() else { return Ok(()) };
        let feed = spool.feed(Self::FEED, resume.next());
        let sources = Sources { feed, seen: resume, is_renewed: renewed, before: last, reports };
        scope.spawn("events", consumer::run(self.0.clone(), sources, mail_log, scope.clone()));
        Ok(())
    }

    /// Tells the spool what the journal has, so that it can give back the
    /// space of that, without reading on: for a command that has both open
    /// while no daemon runs.
    pub fn acknowledge(&self, spool: &Spool) {
        let resume = self.0.resume;
        if resume <= spool.stat().synced {
            drop(spool.feed(Self::FEED, resume.next()));
        }
    }

    /// Reads events from a place or time on.
    pub fn since(&self, start: Start) -> Reader {
        Reader::new(self.0.clone(), start)
    }

    /// Reads what is journaled from now on; use [`Reader::follow`].
    pub fn tail(&self) -> Reader {
        self.since(Start::Now)
    }

    /// The life of a message, oldest first: its acceptance, then each attempt
    /// for each recipient. Empty when the journal has nothing of it (any more).
    ///
    /// # Errors
    /// When the journal can not be read.
    pub async fn message(&self, id: MessageId) -> Result<Vec<LifeEntry>> {
        self.0.recovered().await?;
        let journal = self.0.clone();
        blocking(move || journal.life(id)).await
    }

    /// Journals what came back for a message: events for its sender, as for what is said in the
    /// dialogue, and a part of its life. It is synced when this returns. What is said again,
    /// also after a restart, makes no second event. Needs [`Events::run`].
    ///
    /// # Errors
    /// [`Error::Later`], and [`Error::Log`] when the journal is closed or has failed. Nothing is
    /// lost that the remote sends again: it may be journaled all the same, and is known then.
    pub async fn report(&self, returned: Returned) -> Result<Reported> {
        if self.0.is_recovering() {
            return Err(Error::Later("the journal is still being looked through"));
        }
        let answered = tokio::time::timeout(PATIENCE, self.ask(returned.bounded())).await;
        answered.unwrap_or(Err(Error::Later("the journal has not kept up")))
    }

    /// Asks until the journal has read of the message, or knows that there is none.
    async fn ask(&self, returned: Returned) -> Result<Reported> {
        loop {
            let (answer, answered) = oneshot::channel();
            let report = Report { returned: returned.clone(), answer };
            // Whoever wrote the journal has ended.
            let closed = || Error::Log(LogError::Closed);
            self.0.reports.send(report).await.map_err(|_| closed())?;
            match answered.await.map_err(|_| closed())?? {
                Answer::Reported(reported) => return Ok(reported),
                Answer::NotYet => tokio::time::sleep(ONCE_MORE).await,
            }
        }
    }

    /// Resolves when the journal has failed: the process must end and be
    /// restarted, which recovers.
    pub async fn failed(&self) {
        let mut state = self.0.state.subscribe();
        tokio::select! {
            () = self.0.log.poison_event() => {}
            _ = state.wait_for(|state| *state == State::Failed) => {}
        }
    }

    /// Writes and syncs what was handed in, and closes the journal. End the
    /// scope of [`Events::run`] first.
    ///
    /// # Errors
    /// When the last sync fails.
    pub async fn close(&self) -> Result<()> {
        if let Err(late) = self.0.scope.clone().close(STOP).await {
            tracing::warn!("the journal's recovery: {late}");
        }
        let journal = self.0.clone();
        let settled = blocking(move || journal.settle_view()).await;
        self.0.state.send_replace(State::Closed);
        self.0.log.close().await?;
        settled?;
        let journal = self.0.clone();
        blocking(move || journal.close_view()).await
    }
}

/// How long a report waits to be journaled.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks for a message that the feed has not brought.
const ONCE_MORE: Duration = Duration::from_millis(100);

/// How long closing waits for the reading of one old segment.
const STOP: Duration = Duration::from_secs(5);
