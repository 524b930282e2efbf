//! The task of one connection of a site: takes jobs while there are any, opens
//! the connection when the first one needs it, and ends after a while without.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;

use crate::Shared;
use crate::attempt::{Attempt, Reach};
use crate::connection::{Connection, Stop};
use crate::progress::{Progress, Step};
use crate::report::Results;
use crate::settle::Settling;
use crate::shaping::{FAIR_TURN, Permit, Turn};
use crate::site::{Job, Site};
use crate::slots::Slot;
use crate::walk::Refused;

/// Runs until the site has nothing for it, or the relay stops.
pub(crate) async fn run(shared: Arc<Shared>, site: Arc<Site>) {
    let counted = Counted { shared: shared.clone(), site: site.clone() };
    let stop = Stop::new(shared.scope.clone());
    let progress = site.enroll();
    let mut worker = Worker { shared, site, stop, connection: None, settling: Settling::default(), progress };
    worker.work().await;
    // Before the farewell, which takes time.
    drop(counted);
    worker.close().await;
    worker.settling.finish().await;
}

struct Worker {
    shared: Arc<Shared>,
    site: Arc<Site>,
    stop: Stop,
    connection: Option<Connected>,
    settling: Settling,
    /// What those see who ask.
    progress: Arc<Progress>,
}

/// The site counts this task. However it ends, what is ready is not forgotten.
struct Counted {
    shared: Arc<Shared>,
    site: Arc<Site>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let stops = self.shared.scope.is_cancelled() || Handle::try_current().is_err();
        if self.site.left(!stops) {
            self.shared.start_worker(self.site.clone());
        } else {
            self.shared.sites.tidy(&self.site);
        }
    }
}

/// A connection that is ready for mail.
pub(crate) struct Connected {
    pub(crate) connection: Connection,
    /// Transactions begun over it.
    pub(crate) messages: u32,
}

impl Connected {
    /// Whether the host takes no more over this connection (MAILMAX, RFC 9422
    /// section 4.1).
    pub(crate) fn is_used_up(&self) -> bool {
        self.connection.conversation.features().max_messages.is_some_and(|most| self.messages >= most)
    }
}

impl Worker {
    /// With a place for the connection, until somebody else wants it more.
    async fn work(&mut self) {
        let site = self.site.clone();
        let permit = tokio::select! {
            biased;
            permit = site.gate.connection() => permit,
            () = self.stop.wait() => return,
        };
        let mut messages: u32 = 0;
        while let Some((job, turn)) = self.next_job(&permit).await {
            let (shared, site) = (self.shared.clone(), self.site.clone());
            let mut attempt = Attempt::new(&shared, &site, job);
            let running =
                AssertUnwindSafe(attempt.run(&mut self.connection, &mut self.stop, &self.progress)).catch_unwind();
            let reach = self.settling.along(running).await;
            if attempt.has_begun() {
                turn.used();
                messages = messages.saturating_add(1);
            }
            match reach {
                Ok(Reach::Done) => self.settle(attempt.into_parts()),
                Ok(Reach::Unreachable(refused)) => match self.site.take_back(attempt.into_parts().0) {
                    None => return,
                    Some(job) => self.refuse_all(job, &refused).await,
                },
                Ok(Reach::Stopped) => return self.settle(attempt.into_parts()),
                // Its claim is due as before, and finds its lane anew.
                Ok(Reach::Misplaced) => drop(attempt),
                // The claim must not go back as it was: it would be tried again at once.
                Err(_) => {
                    self.connection = None;
                    self.shared.metrics.attempts_failed.inc();
                    let (job, results) = attempt.fail();
                    tracing::error!(id = %job.claim.id, site = %self.site.lane.site, "an attempt panicked");
                    self.settle((job, results));
                }
            }
            self.settling.make_room().await;
            self.tidy_connection().await;
            if permit.must_yield(messages, self.shared.clock.instant()) {
                return;
            }
        }
    }

    fn settle(&mut self, (job, results): (Job, Results)) {
        self.settling.settle(&self.shared, job, results);
    }

    /// The next job and leave to begin it, or `None` when this task has to end. A turn
    /// is asked for when something is ready, and the job taken with the turn.
    async fn next_job(&mut self, permit: &Permit) -> Option<(Job, Turn)> {
        loop {
            self.progress.waits(Step::Idle);
            let idle = match &self.connection {
                Some(_) => self.shared.config.load().settings.limits.connection_idle.as_duration(),
                None => Duration::ZERO,
            };
            let slot = self.connection.as_ref().map(|connected| &connected.connection.slot);
            let work = async {
                tokio::select! {
                    biased;
                    () = self.stop.wait() => false,
                    is_there = self.site.work(idle) => is_there,
                    // Idle, while another lane waits for the place, or another site for one of all.
                    () = permit.wanted() => false,
                    () = wanted(slot) => false,
                }
            };
            if !self.settling.along(work).await {
                return None;
            }
            self.progress.waits(Step::Turn);
            let turn = self.turn(permit).await?;
            // Another connection may have taken it, or its time was over.
            if let Some(job) = self.site.take() {
                return Some((job, turn));
            }
        }
    }

    /// Waits until the site may be sent the next message. A connection is not kept
    /// for longer than it may be idle. `None` when the relay stops, or others have
    /// waited for the place for long enough.
    async fn turn(&mut self, permit: &Permit) -> Option<Turn> {
        let idle = self.shared.config.load().settings.limits.connection_idle.as_duration();
        let site = self.site.clone();
        loop {
            let is_connected = self.connection.is_some();
            let turn = async {
                tokio::select! {
                    biased;
                    turn = site.gate.turn() => Some(Some(turn)),
                    () = self.stop.wait() => None,
                    () = permit.overdue() => None,
                    () = tokio::time::sleep(idle), if is_connected => Some(None),
                }
            };
            if let Some(turn) = self.settling.along(turn).await? {
                return Some(turn);
            }
            self.close().await;
        }
    }

    /// The site cannot be reached: that holds for all that is ready.
    async fn refuse_all(&mut self, job: Job, refused: &Refused) {
        for job in std::iter::once(job).chain(self.site.drain(refused)) {
            self.settle(Attempt::new(&self.shared, &self.site, job).refuse(refused));
            self.settling.make_room().await;
        }
    }

    /// Keeps the connection for the next job, if it is fit for one.
    async fn tidy_connection(&mut self) {
        let Some(connected) = &mut self.connection else { return };
        let is_ready = self.settling.along(connected.connection.settle_down(&mut self.stop)).await;
        if !is_ready {
            self.connection = None;
            return;
        }
        let most = self.site.gate.rules().messages_per_connection;
        let oldest = self.shared.config.load().settings.limits.connection_age.as_duration();
        let age = self.shared.clock.instant().duration_since(connected.connection.opened);
        let is_wanted = connected.messages >= FAIR_TURN && connected.connection.slot.is_wanted();
        if connected.is_used_up() || connected.messages >= most || age >= oldest || is_wanted {
            self.close().await;
        }
    }

    async fn close(&mut self) {
        if let Some(connected) = self.connection.take() {
            self.settling.along(connected.connection.quit(&mut self.stop)).await;
        }
    }
}

/// Resolves when somebody waits for this place among all that the relay may have.
async fn wanted(slot: Option<&Slot>) {
    match slot {
        Some(slot) => slot.wanted().await,
        None => std::future::pending().await,
    }
}
