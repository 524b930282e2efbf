//! The outcomes of claims that no host hears of.

use postrider_mail::{AttemptOutcome, Delays};
use postrider_spool::DueRecipient;

use crate::Shared;
use crate::finding::{Circumstances, Finding, Judge};
use crate::lane;
use crate::report::Results;
use crate::site::{Expired, Job};

/// Of a claim that has no way.
pub(crate) fn unrouted(shared: &Shared, job: &Job, finding: &Finding) -> Results {
    conclude(shared, job, |judge, due| {
        let delays = Delays { queue_ms: judge.queue_ms(), ..Delays::default() };
        judge.outcome(due, finding, &Circumstances { delays, ..Circumstances::default() })
    })
}

/// Of a claim whose message's time was over before a connection was free.
pub(crate) fn expired(shared: &Shared, expired: &Expired) -> Results {
    conclude(shared, &expired.job, |judge, due| judge.overdue(due, expired.said.as_deref()))
}

/// Gives every recipient that is not suppressed its outcome.
fn conclude(shared: &Shared, job: &Job, outcome: impl Fn(&Judge<'_>, &DueRecipient) -> AttemptOutcome) -> Results {
    let config = shared.config.load();
    let (claim, message) = (&job.claim, &*job.claim.message);
    let set = lane::configuration_set(&shared.accounts, message);
    let waits = set.as_ref().and_then(|set| set.retry.as_deref());
    let (schedule, now) = (&config.schedule, shared.clock.now());
    let judge = Judge { schedule, waits, random: &shared.random, now, message };
    let suppression = shared.accounts.suppression();
    let reasons = set.as_ref().and_then(|set| set.suppressed_reasons.as_ref());
    let outcome = |due: &DueRecipient| {
        let recipient = message.envelope.recipients.get(usize::from(due.index))?;
        Some(match suppression.check(message.account, reasons, &recipient.address) {
            Some(source) => judge.suppressed(due, source),
            None => outcome(&judge, due),
        })
    };
    let mut results = Results::with_capacity(claim.recipients.len());
    claim.recipients.iter().filter_map(outcome).for_each(|outcome| results.push(outcome));
    results
}
