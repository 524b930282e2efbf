//! The outcomes of claims that no host hears of.

use std::sync::Arc;
use std::time::Duration;

use postrider_mail::{AttemptOutcome, AttemptRecord, Delays, Exchange, HostRecord};
use postrider_spool::DueRecipient;

use crate::Shared;
use crate::finding::{Circumstances, Finding, Judge};
use crate::lane;
use crate::report::{self, Results};
use crate::site::{Job, Overdue};
use crate::trace;

/// Of a claim that has no way. They have the record of what the DNS was asked.
pub(crate) fn unrouted(shared: &Shared, job: &Job, finding: &Finding) -> Results {
    let record = finding.asked.as_deref().map(|asked| record(shared, job, asked));
    let mut results = conclude(shared, job, |judge, due| {
        let delays = Delays { queue_ms: judge.queue_ms(), ..Delays::default() };
        Some(judge.outcome(due, finding, &Circumstances { delays, ..Circumstances::default() }))
    });
    trace::attach(&mut results.outcomes, record.as_ref());
    results
}

fn record(shared: &Shared, job: &Job, asked: &Exchange) -> Arc<AttemptRecord> {
    let domain = job.claim.queue.domain.as_str();
    let host = HostRecord { exchanges: vec![asked.clone()], ..HostRecord::named("DNS") };
    Arc::new(AttemptRecord {
        began: shared.clock.now().saturating_sub(Duration::from_millis(asked.ms.into())),
        site: domain.to_owned(),
        ehlo: shared.config.load().ehlo_name.clone(),
        hosts: vec![host],
        ..AttemptRecord::default()
    })
}

/// Of a claim that no connection was free for until its message expired; or until it was late,
/// for those whose sender is to be told, and who are due as before.
pub(crate) fn overdue(shared: &Shared, overdue: &Overdue) -> Results {
    let (job, said) = (&overdue.job, overdue.said.as_deref());
    if job.claim.message.expires_at <= shared.clock.now() {
        return conclude(shared, job, |judge, due| Some(judge.expired_unattempted(due, said)));
    }
    let config = shared.config.load();
    conclude(shared, job, |judge, due| {
        let is_to_be_told = report::is_to_be_told(&job.claim, due, &config.settings);
        is_to_be_told.then(|| judge.late(due, said, job.claim.ready_since))
    })
}

/// Gives every recipient that is not suppressed its outcome, if it has one.
fn conclude(
    shared: &Shared,
    job: &Job,
    outcome: impl Fn(&Judge<'_>, &DueRecipient) -> Option<AttemptOutcome>,
) -> Results {
    let config = shared.config.load();
    let (claim, message) = (&job.claim, &*job.claim.message);
    let set = lane::configuration_set(&shared.accounts, message);
    let waits = set.as_ref().and_then(|set| set.retry.as_deref());
    let (schedule, now) = (&config.schedule, shared.clock.now());
    let copies = set.as_ref().is_some_and(|set| set.per_recipient);
    let judge = Judge { schedule, waits, random: &shared.random, now, message, copies };
    let suppression = shared.accounts.suppression();
    let reasons = set.as_ref().and_then(|set| set.suppressed_reasons.as_ref());
    let outcome = |due: &DueRecipient| {
        let recipient = message.envelope.recipients.get(usize::from(due.index))?;
        match suppression.check(message.account, reasons, &recipient.address) {
            Some(source) => Some(judge.suppressed(due, source)),
            None => outcome(&judge, due),
        }
    };
    let mut results = Results::with_capacity(claim.recipients.len());
    claim.recipients.iter().filter_map(outcome).for_each(|outcome| results.push(outcome));
    results
}
