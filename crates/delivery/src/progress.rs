//! What the task of a connection is doing, for those who ask why a message has
//! not left.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use postrider_base::{Clock, Timestamp};
use postrider_mail::{AttemptRecord, HostRecord, MessageId, Remote, Stage};
use tokio::time::Instant;

/// Told by the task of one connection as it goes on; looked at by anybody. Nobody
/// but who looks ever waits for its lock.
pub(crate) struct Progress {
    clock: Clock,
    doing: Mutex<Doing>,
    /// Of the session, as a number, because it changes with each reply.
    stage: AtomicU8,
    /// What the attempt has tried without success.
    tried: Mutex<AttemptRecord>,
}

/// What a task is doing.
#[derive(Clone, Debug)]
pub(crate) struct Doing {
    pub(crate) step: Step,
    /// When that began.
    pub(crate) since: Timestamp,
    /// The message, and the first recipient of its domain.
    pub(crate) job: Option<(MessageId, u16)>,
    /// The host that is being dialled or spoken to.
    pub(crate) host: Option<String>,
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Waits for one of the places for connections that the site or its provider has.
    Place,
    /// Waits until the rate lets the next message go.
    Turn,
    /// Has nothing to do.
    Idle,
    /// Waits for one of the relay's connections.
    Slot,
    /// Runs an attempt.
    Attempt,
}

const STAGES: [Stage; 10] = [
    Stage::Route,
    Stage::Connect,
    Stage::Banner,
    Stage::Ehlo,
    Stage::StartTls,
    Stage::Auth,
    Stage::MailFrom,
    Stage::RcptTo,
    Stage::Data,
    Stage::EndOfData,
];

impl Progress {
    pub(crate) fn new(clock: Clock) -> Self {
        let doing = Doing { step: Step::Place, since: clock.now(), job: None, host: None, stage: Stage::Route };
        Self { clock, doing: Mutex::new(doing), stage: AtomicU8::new(Stage::Route as u8), tried: Mutex::default() }
    }

    /// Between attempts.
    pub(crate) fn waits(&self, step: Step) {
        let mut doing = self.doing.lock();
        if doing.step != step {
            (doing.step, doing.since, doing.job) = (step, self.clock.now(), None);
        }
    }

    /// An attempt begins.
    pub(crate) fn attempts(&self, id: MessageId, recipient: u16) {
        *self.tried.lock() = AttemptRecord::default();
        let mut doing = self.doing.lock();
        (doing.step, doing.since, doing.job) = (Step::Attempt, self.clock.now(), Some((id, recipient)));
    }

    /// The attempt waits for a free connection, or goes on.
    pub(crate) fn waits_for_slot(&self, does: bool) {
        let mut doing = self.doing.lock();
        doing.step = if does { Step::Slot } else { Step::Attempt };
    }

    /// A host is dialled.
    pub(crate) fn dials(&self, remote: &Remote) {
        self.doing.lock().host = Some(remote.to_string());
        self.reached(Stage::Connect);
    }

    /// The session with the host has come so far.
    pub(crate) fn reached(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// The attempt got no further, or not at once, with this host.
    pub(crate) fn tried(&self, host: HostRecord) {
        self.tried.lock().push(host);
    }

    /// Whether something went wrong in the attempt.
    pub(crate) fn has_tried(&self) -> bool {
        !self.tried.lock().hosts.is_empty()
    }

    /// The attempt is over: all that it tried.
    pub(crate) fn take_tried(&self) -> AttemptRecord {
        std::mem::take(&mut self.tried.lock())
    }

    pub(crate) fn instant(&self) -> Instant {
        self.clock.instant()
    }

    pub(crate) fn look(&self) -> Doing {
        let number = self.stage.load(Ordering::Relaxed);
        let stage = STAGES.into_iter().find(|stage| *stage as u8 == number).unwrap_or(Stage::Route);
        Doing { stage, ..self.doing.lock().clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_seen_and_waiting_forgets_the_job() {
        let progress = Progress::new(Clock::simulated(Timestamp::from_millis(1)));
        let id = MessageId::new(1, Timestamp::from_millis(1), 7);
        progress.attempts(id, 3);
        for stage in STAGES {
            progress.reached(stage);
            assert_eq!(progress.look().stage, stage);
        }
        assert_eq!((progress.look().step, progress.look().job), (Step::Attempt, Some((id, 3))));
        progress.waits(Step::Turn);
        assert_eq!((progress.look().step, progress.look().job), (Step::Turn, None));
    }
}
