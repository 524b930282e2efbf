//! Looks at the rates of bounces and complaints round after round, and does what SES's ladder
//! says: tells people, and pauses who may be paused by a rule. Nothing resumes by itself.

mod text;

use std::collections::HashMap;
use std::sync::Arc;

use postrider_account::{
    EnforcementStatus, Error, Notice, Pause, PausedBy, Reputation, Sender, Sending, Situation, Step, Tally,
};
use postrider_base::metrics::{Enforcement, Label as _, Rate};
use postrider_base::{Scope, Timestamp};
use postrider_mail::AccountId;

use crate::upkeep::Shared;
use text::{Told, letter, reason};

/// Works until the scope ends.
pub(crate) async fn run(shared: Arc<Shared>, scope: Scope) {
    let interval = shared.accounts.reputation().settings().check_interval.as_duration();
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = scope.cancelled() => return,
        }
        tokio::select! {
            () = round(&shared) => {}
            () = scope.cancelled() => return,
        }
    }
}

/// Looks at everybody once: at sets before their account, so that the smallest part of an
/// account's mail that is to blame is paused first.
pub(crate) async fn round(shared: &Shared) {
    let mut senders = shared.accounts.reputation().senders();
    senders.sort_by_key(|sender| sender.set.is_none());
    let mut found = Vec::with_capacity(senders.len());
    for sender in senders {
        match look(shared, &sender).await {
            Ok((status, tally)) => found.push((sender, status, tally)),
            Err(Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, "what follows from the rates of {sender} could not be kept"),
        }
    }
    measure(shared, &found);
}

/// Does what the rates of one sender ask for. What was not kept comes again with the next
/// round.
async fn look(shared: &Shared, sender: &Sender) -> Result<(EnforcementStatus, Tally), Error> {
    let (reputation, now) = (shared.accounts.reputation(), shared.clock.now());
    let tenant = shared.accounts.tenants().find(sender.account);
    let standing = reputation.standing(sender);
    let mut situation = Situation {
        tally: reputation.tally(sender, now),
        is_paused: reputation.pause_of(sender).is_some(),
        auto_pause: tenant.auto_pause,
        fresh_start: reputation.fresh_start(sender),
        now,
    };
    if standing.status == EnforcementStatus::SendingPaused
        && !situation.is_paused
        && situation.fresh_start < standing.since
    {
        // Whoever switched it on again did not say so.
        reputation.start_afresh(sender, now).await?;
        situation = Situation { tally: Tally::default(), fresh_start: now, ..situation };
    }
    let Step { standing: next, pauses, notice } = standing.step(&situation, reputation.settings());
    if pauses && has_paused_set_since(shared, sender, situation.fresh_start) {
        // What the set did is in the account's rates too. The rest has to show by itself.
        tracing::warn!("{sender} starts afresh instead of a pause: a configuration set of it is paused");
        reputation.start_afresh(sender, now).await?;
        return Ok((standing.status, Tally::default()));
    }
    if pauses {
        pause(shared, reputation, sender, &situation.tally, now).await?;
    }
    if let Some(notice) = notice {
        let told = Told { sender, notice, tally: &situation.tally, standing: &next, settings: reputation.settings() };
        tell(shared, &told).await;
    }
    if next != standing {
        reputation.stand(sender, &next).await?;
    }
    Ok((next.status, situation.tally))
}

async fn pause(
    shared: &Shared,
    reputation: &Reputation,
    sender: &Sender,
    tally: &Tally,
    now: Timestamp,
) -> Result<(), Error> {
    let reason = reason(tally);
    let parameters = serde_json::json!({ "account": sender.account, "name": sender.set, "reason": reason });
    let name = match sender.set {
        None => "UpdateAccountSendingEnabled",
        Some(_) => "UpdateConfigurationSetSendingEnabled",
    };
    shared.accounts.audit().by_relay("reputation", name, parameters).await;
    let pause = Pause { by: PausedBy::Rule, at: now, reason, hold: false };
    reputation.set_sending(sender, Sending::Paused(pause), now).await?;
    shared.metrics.reputation_pauses.inc();
    Ok(())
}

/// Whether a rule has paused a set of this account after its last fresh start.
fn has_paused_set_since(shared: &Shared, sender: &Sender, fresh: Timestamp) -> bool {
    let sets = || shared.accounts.configuration_sets().list(sender.account);
    let by_rule = |pause: &Pause| pause.by == PausedBy::Rule && pause.at > fresh;
    sender.set.is_none() && sets().iter().any(|set| set.sending.pause().is_some_and(by_rule))
}

async fn tell(shared: &Shared, told: &Told<'_>) {
    let (subject, text) = letter(told);
    match told.notice {
        Notice::Warning => tracing::info!("{subject}: {}", reason(told.tally)),
        _ => tracing::warn!("{subject}: {}", reason(told.tally)),
    }
    let tenant = shared.accounts.tenants().find(told.sender.account);
    shared.mail_owner(tenant.contact.as_ref(), &subject, &text).await;
}

fn measure(shared: &Shared, found: &[(Sender, EnforcementStatus, Tally)]) {
    let (metrics, most) = (&shared.metrics, shared.accounts.reputation().settings().exported);
    let mut counts: HashMap<(bool, EnforcementStatus), i64> = HashMap::new();
    for (sender, status, _) in found {
        *counts.entry((sender.set.is_some(), *status)).or_default() += 1;
    }
    for status in Enforcement::ALL {
        let count = |of_sets| counts.get(&(of_sets, unlabelled(*status))).copied().unwrap_or_default();
        metrics.reputation_accounts.of(*status).set(count(false));
        metrics.reputation_sets.of(*status).set(count(true));
    }
    metrics.reputation_bounce_rate.replace(worst(found, most, Tally::bounce_rate));
    metrics.reputation_complaint_rate.replace(worst(found, most, Tally::complaint_rate));
}

/// The highest rates, so many at most.
fn worst(found: &[(Sender, EnforcementStatus, Tally)], most: usize, rate: impl Fn(&Tally) -> Option<f64>) -> Vec<Rate> {
    let mut rates: Vec<(f64, &Sender)> =
        found.iter().filter_map(|(sender, _, tally)| Some((rate(tally)?, sender))).collect();
    rates.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    rates.truncate(most);
    let named = |(rate, sender): (f64, &Sender)| Rate {
        account: AccountId::to_string(&sender.account),
        configuration_set: sender.set.clone().unwrap_or_default(),
        rate,
    };
    rates.into_iter().map(named).collect()
}

fn unlabelled(status: Enforcement) -> EnforcementStatus {
    match status {
        Enforcement::Healthy => EnforcementStatus::Healthy,
        Enforcement::UnderReview => EnforcementStatus::UnderReview,
        Enforcement::PendingEndOfReviewDecision => EnforcementStatus::PendingEndOfReviewDecision,
        Enforcement::PendingSendingPause => EnforcementStatus::PendingSendingPause,
        Enforcement::SendingPaused => EnforcementStatus::SendingPaused,
    }
}

#[cfg(test)]
mod tests;
