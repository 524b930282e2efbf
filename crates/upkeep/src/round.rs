//! Round after round: what is due is looked at, some at once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{Error, Identity, IdentityName, VerificationStatus};
use postrider_base::metrics::Look;
use postrider_base::{Scope, Timestamp};
use postrider_mail::AccountId;
use tokio::task::{Id, JoinSet};

use crate::link;
use crate::look;
use crate::machine::{Finding, is_alive, step};
use crate::notices::Change;
use crate::upkeep::Shared;

/// The longest pause between two rounds. What changes without a nudge waits so long.
const PAUSE: Duration = Duration::from_secs(60);

/// How much earlier or later than its interval says a look may be, so that those of many
/// identities that were made together spread.
const JITTER_PERCENT: u8 = 20;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    account: AccountId,
    name: String,
    subject: Subject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Proof,
    MailFrom,
}

/// Works until the scope ends.
pub(crate) async fn run(shared: Arc<Shared>, scope: Scope) {
    let wake = shared.clock.now();
    let mut rounds = Rounds {
        shared,
        schedule: HashMap::new(),
        due: VecDeque::new(),
        looks: JoinSet::new(),
        running: HashMap::new(),
        wake,
    };
    tokio::select! {
        () = rounds.run() => {}
        () = scope.cancelled() => {}
    }
}

/// What will be looked at, and what is. Name servers that do not answer take up some of the
/// looks that may run at once, and nobody waits for them besides.
struct Rounds {
    shared: Arc<Shared>,
    schedule: HashMap<Task, Timestamp>,
    /// What waits for a look, the longest first.
    due: VecDeque<(Task, Arc<Identity>)>,
    looks: JoinSet<()>,
    running: HashMap<Id, (Task, Arc<Identity>)>,
    /// When the next round begins.
    wake: Timestamp,
}

impl Rounds {
    async fn run(&mut self) {
        self.plan();
        loop {
            self.start();
            let wait = self.wake.saturating_since(self.shared.clock.now()).max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => self.plan(),
                () = self.shared.nudge.notified() => self.plan(),
                Some(ended) = self.looks.join_next_with_id() => {
                    self.settle(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
            }
        }
    }

    /// Finds everything that is due and is not being looked at.
    fn plan(&mut self) {
        let shared = &self.shared;
        let now = shared.clock.now();
        let running: HashSet<&Task> = self.running.values().map(|(task, _)| task).collect();
        let mut kept = HashMap::with_capacity(self.schedule.len());
        let mut due = Vec::new();
        self.wake = now.saturating_add(PAUSE);
        for identity in shared.accounts.identities().all() {
            for (subject, status, checked) in subjects(&identity) {
                let task = Task { account: identity.account, name: identity.name.to_string(), subject };
                let at = self.schedule.get(&task).copied().unwrap_or_else(|| first(shared, status, checked, now));
                // Its status may have changed since.
                let at = at.min(now.saturating_add(interval(shared, status) * (100 + u32::from(JITTER_PERCENT)) / 100));
                if at > now {
                    self.wake = self.wake.min(at);
                } else if !running.contains(&task) {
                    due.push((at, task.clone(), identity.clone()));
                }
                kept.insert(task, at);
            }
        }
        self.schedule = kept;
        due.sort_by_key(|(at, ..)| *at);
        self.due = due.into_iter().map(|(_, task, identity)| (task, identity)).collect();
    }

    /// Begins as many looks as there is room for.
    fn start(&mut self) {
        while self.looks.len() < self.shared.settings.lookups
            && let Some((task, identity)) = self.due.pop_front()
        {
            let (shared, planned, subject) = (self.shared.clone(), identity.clone(), task.subject);
            let look = self.looks.spawn(async move {
                // It may have changed while it waited.
                if let Some(identity) = shared.accounts.identities().find(planned.account, &planned.name) {
                    look(&shared, &identity, subject).await;
                }
            });
            self.running.insert(look.id(), (task, identity));
        }
    }

    /// Says when what was looked at will be again.
    fn settle(&mut self, look: Id) {
        let Some((task, identity)) = self.running.remove(&look) else { return };
        let current = self.shared.accounts.identities().find(identity.account, &identity.name);
        let status = current.and_then(|current| {
            subjects(&current).find(|(subject, ..)| *subject == task.subject).map(|(_, status, _)| status)
        });
        if let Some(status) = status {
            let at = next(&self.shared, status, self.shared.clock.now());
            self.wake = self.wake.min(at);
            self.schedule.insert(task, at);
        } else {
            self.schedule.remove(&task);
        }
    }
}

/// What is looked at of an identity, the status of it, and when it was looked at last.
fn subjects(identity: &Identity) -> impl Iterator<Item = (Subject, VerificationStatus, Option<Timestamp>)> {
    let verification = &identity.verification;
    let proof = (!identity.trusted).then_some((Subject::Proof, verification.status, verification.checked));
    // An address that is proved stays so: there is nothing to look at.
    let is_done = matches!(identity.name, IdentityName::Address(_)) && identity.is_verified();
    let mail_from = identity.mail_from.as_ref();
    let mail_from = mail_from.map(|mail_from| (Subject::MailFrom, mail_from.status, mail_from.checked));
    proof.filter(|_| !is_done).into_iter().chain(mail_from).filter(|(_, status, _)| is_alive(*status))
}

/// When something is looked at that has not been since the start: what is there as if there
/// had been none, so that restarts neither put looks off nor bring all of them at once.
fn first(shared: &Shared, status: VerificationStatus, checked: Option<Timestamp>, now: Timestamp) -> Timestamp {
    match (status, checked) {
        (VerificationStatus::Success, Some(checked)) => next(shared, status, checked),
        _ => now,
    }
}

/// When something of this status is looked at again.
fn next(shared: &Shared, status: VerificationStatus, looked: Timestamp) -> Timestamp {
    looked.saturating_add(shared.random.jitter(interval(shared, status), JITTER_PERCENT))
}

fn interval(shared: &Shared, status: VerificationStatus) -> Duration {
    let interval = match status {
        VerificationStatus::Success => shared.settings.recheck_interval,
        _ => shared.settings.pending_interval,
    };
    interval.as_duration()
}

async fn look(shared: &Shared, identity: &Identity, subject: Subject) {
    let looked = match (subject, &identity.name) {
        (Subject::MailFrom, _) => look_at_mail_from(shared, identity).await,
        (Subject::Proof, IdentityName::Domain(_)) => look_at_proof(shared, identity).await,
        (Subject::Proof, IdentityName::Address(address)) => match &identity.verification.link {
            Some(link) => wait_for_follower(shared, identity, link.sent).await,
            None => match shared.mail_link(identity, address).await {
                Err(crate::Error::Account(error)) => Err(error),
                Err(error) => {
                    tracing::warn!("{}: {error}", identity.name);
                    note(shared, identity, Finding::Unknown(error.to_string()), None).await
                }
                Ok(()) => Ok(()),
            },
        },
    };
    match looked {
        // It is gone by now.
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => tracing::warn!(%error, "what was found of {} could not be kept", identity.name),
    }
}

/// Whether a domain's keys are published.
pub(crate) async fn look_at_proof(shared: &Shared, identity: &Identity) -> Result<(), Error> {
    let finding = look::proof(&*shared.resolver, &shared.accounts, identity).await;
    shared.metrics.upkeep_looks.of(label(&finding)).inc();
    let verification = &identity.verification;
    let age = shared.clock.now().saturating_since(verification.since);
    let status = step(verification.status, age, &finding);
    note(shared, identity, finding, Some(status)).await
}

/// Nobody has followed the link yet.
async fn wait_for_follower(shared: &Shared, identity: &Identity, sent: Timestamp) -> Result<(), Error> {
    if shared.clock.now().saturating_since(sent) < link::LIFE {
        return Ok(());
    }
    let finding = Finding::Wrong("nobody has followed the link within 24 hours".to_owned());
    note(shared, identity, finding, Some(VerificationStatus::Failed)).await
}

/// Keeps what was found of an identity's proof, unless somebody else has changed its status
/// meanwhile.
async fn note(
    shared: &Shared,
    identity: &Identity,
    finding: Finding,
    status: Option<VerificationStatus>,
) -> Result<(), Error> {
    let (now, seen) = (shared.clock.now(), &identity.verification);
    let mut change = None;
    let keep = |current: &mut Identity| {
        let verification = &mut current.verification;
        if (verification.status, verification.since) != (seen.status, seen.since) {
            return;
        }
        verification.checked = Some(now);
        verification.found_wrong = finding.problem();
        if let Some(status) = status.filter(|status| *status != verification.status) {
            change = Some((verification.status, status));
            (verification.status, verification.since) = (status, now);
        }
    };
    shared.accounts.identities().change(identity.account, &identity.name, keep).await?;
    if let Some((before, after)) = change {
        let (account, name, what) = (identity.account, identity.name.clone(), "identity".to_owned());
        shared.tell(Change { account, name, what, before, after, problem: finding.problem() }).await;
    }
    Ok(())
}

/// Whether bounces to an identity's MAIL FROM domain come back to us.
pub(crate) async fn look_at_mail_from(shared: &Shared, identity: &Identity) -> Result<(), Error> {
    let Some(seen) = &identity.mail_from else { return Ok(()) };
    let finding = look::mail_from(&*shared.resolver, &seen.domain, &shared.bounce_host).await;
    shared.metrics.upkeep_looks.of(label(&finding)).inc();
    let now = shared.clock.now();
    let status = step(seen.status, now.saturating_since(seen.since), &finding);
    let mut change = None;
    let keep = |current: &mut Identity| {
        let Some(mail_from) = &mut current.mail_from else { return };
        if (&mail_from.domain, mail_from.status, mail_from.since) != (&seen.domain, seen.status, seen.since) {
            return;
        }
        mail_from.checked = Some(now);
        mail_from.found_wrong = finding.problem();
        if status != mail_from.status {
            change = Some(mail_from.status);
            (mail_from.status, mail_from.since) = (status, now);
        }
    };
    shared.accounts.identities().change(identity.account, &identity.name, keep).await?;
    if let Some(before) = change {
        let what = format!("MAIL FROM domain {} of identity", seen.domain);
        let (account, name, problem) = (identity.account, identity.name.clone(), finding.problem());
        shared.tell(Change { account, name, what, before, after: status, problem }).await;
    }
    Ok(())
}

fn label(finding: &Finding) -> Look {
    match finding {
        Finding::Right => Look::Right,
        Finding::Wrong(_) => Look::Wrong,
        Finding::Unknown(_) => Look::Unknown,
    }
}
