//! Queues whose route says that they are to be held, until the spool has written that
//! down.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use postrider_spool::{QueueKey, Selector};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::Shared;
use crate::site::Job;
use crate::telling::Report;

/// When it is tried again to hold queues that could not be held: the disk may be full.
const AGAIN: Duration = Duration::from_secs(30);

/// Those that are being held.
pub(crate) struct Holds {
    shared: Arc<Shared>,
    /// Nothing is taken from these.
    under_way: HashSet<QueueKey>,
    /// One for each of those, at most.
    ends: mpsc::UnboundedReceiver<End>,
    ending: mpsc::UnboundedSender<End>,
    /// Those that could not be held, and when that is tried again.
    failed: Vec<QueueKey>,
    again: Option<Instant>,
}

/// What became of one.
struct End {
    queue: QueueKey,
    error: Option<String>,
}

impl Holds {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (ending, ends) = mpsc::unbounded_channel();
        Self { shared, under_way: HashSet::new(), ends, ending, failed: Vec::new(), again: None }
    }

    /// Leaves the queue of a job in the spool, where operators see that it is held.
    pub(crate) fn begin(&mut self, job: Job) {
        let queue = job.claim.queue.clone();
        if !self.under_way.insert(queue.clone()) {
            return;
        }
        // Nothing more of it is handed out until the hold is on disk.
        self.shared.spool.park(&queue);
        drop(job);
        let report = Report::new(End { queue: queue.clone(), error: Some("the task failed".to_owned()) }, &self.ending);
        let spool = self.shared.spool.clone();
        self.shared.scope.spawn("hold", async move {
            let error = spool.hold(&Selector::Queue(queue.clone())).await.err().map(|error| error.to_string());
            report.say(End { queue, error });
        });
    }

    /// Waits until there is something to go on with, and does. Giving up waiting loses
    /// nothing.
    pub(crate) async fn advance(&mut self) {
        let again = async {
            match self.again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(end) = self.ends.recv() => self.end(end),
            () = again => {
                self.again = None;
                std::mem::take(&mut self.failed).iter().for_each(|queue| self.let_go(queue));
            }
        }
    }

    fn end(&mut self, end: End) {
        let End { queue, error } = end;
        match error {
            None => {
                tracing::info!(account = %queue.account, domain = %queue.domain, "held, because its route is hold:");
                self.let_go(&queue);
            }
            Some(error) => {
                // One line for all that fail until then.
                if self.again.is_none() {
                    let seconds = AGAIN.as_secs();
                    tracing::error!(domain = %queue.domain, %error, "queues cannot be held; tried again in {seconds} seconds");
                    self.again = Some(self.shared.clock.instant() + AGAIN);
                }
                self.failed.push(queue);
            }
        }
    }

    /// What is held stays where it is, and what is not comes here again.
    fn let_go(&mut self, queue: &QueueKey) {
        self.under_way.remove(queue);
        self.shared.spool.unpark(queue);
    }
}
