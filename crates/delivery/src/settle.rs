//! The end of a claim: outcomes, and the notifications that they cause, go back
//! to the spool as one batch.

use std::future::Future;
use std::pin::{Pin, pin};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use postrider_base::metrics::Outcome;
use postrider_mail::Disposition;
use postrider_spool::Claim;

use crate::Shared;
use crate::report::{self, Results};
use crate::site::Job;

/// Most claims of one task that wait to be written. Reached only when the disk
/// is slower than the network.
const MOST_WRITING: usize = 64;

/// Writing that goes on while its task works on.
#[derive(Default)]
pub(crate) struct Settling(FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Settling {
    /// Ends a job with these results, in the background of
    /// [`Settling::along`].
    pub(crate) fn settle(&mut self, shared: &std::sync::Arc<Shared>, job: Job, results: Results) {
        let shared = shared.clone();
        self.0.push(Box::pin(async move {
            settle(&shared, job.claim, results).await;
            drop(job.room);
        }));
    }

    /// Awaits `work` while the writing goes on.
    pub(crate) async fn along<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                // The writing first: work that is always ready must not hold it up.
                biased;
                Some(()) = self.0.next(), if !self.0.is_empty() => {}
                output = &mut work => return output,
            }
        }
    }

    /// Waits until there is not too much to be written.
    pub(crate) async fn make_room(&mut self) {
        while self.0.len() >= MOST_WRITING {
            self.0.next().await;
        }
    }

    /// Waits until all is written.
    pub(crate) async fn finish(&mut self) {
        while self.0.next().await.is_some() {}
    }
}

async fn settle(shared: &Shared, claim: Claim, results: Results) {
    for outcome in &results.outcomes {
        if let Some(label) = label(&outcome.disposition) {
            shared.metrics.outcomes.of(label).inc();
        }
    }
    let reports = report::write(shared, &claim, &results).await;
    let id = claim.id;
    if let Err(error) = claim.finish(results.outcomes, reports).await {
        // The spool's failure stops the relay; a repeated delivery is the
        // documented price.
        tracing::error!(%id, %error, "outcome not recorded: the attempt will be repeated");
    }
}

fn label(disposition: &Disposition) -> Option<Outcome> {
    match disposition {
        Disposition::Delivered => Some(Outcome::Delivered),
        Disposition::Deferred(_) => Some(Outcome::Deferred),
        Disposition::Bounced(_) => Some(Outcome::Bounced),
        Disposition::Suppressed(_) => Some(Outcome::Suppressed),
        Disposition::Rejected => Some(Outcome::Rejected),
        // An operator's doing, never an attempt's.
        Disposition::Deleted => None,
    }
}
