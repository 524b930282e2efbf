//! Looks at the rates of bounces and complaints round after round, and does what SES's ladder
//! says: tells people, and pauses who may be paused by a rule. Nothing resumes by itself.

mod text;

use std::collections::HashMap;
use std::sync::Arc;

use postrider_account::{
    Actor, AuditEntry, EnforcementStatus, Error, Notice, Reputation, Sender, Situation, Step, Tally,
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
    // Before the tally, so that no rule acts by what counts no more.
    let fresh_start = reputation.fresh_start(sender);
    let mut situation = Situation {
        paused_by: reputation.pause_of(sender).map(|pause| pause.by),
        tally: reputation.tally(sender, now),
        auto_pause: tenant.auto_pause,
        fresh_start,
        now,
    };
    if standing.status == EnforcementStatus::SendingPaused
        && situation.paused_by.is_none()
        && situation.fresh_start < standing.since
    {
        // Whoever switched it on again did not say so.
        reputation.start_afresh(sender, now).await?;
        situation = Situation { tally: Tally::default(), fresh_start: now, ..situation };
    }
    let Step { standing: next, pauses, notice } = standing.step(&situation, reputation.settings());
    if pauses && !pause(shared, reputation, sender, &situation).await? {
        // A person was faster: the next round sees what there is now.
        return Ok((standing.status, situation.tally));
    }
    if let (Some(Notice::Paused), Some(set)) = (notice, &sender.set) {
        start_account_afresh(shared, sender.account, set, now).await?;
    }
    if let Some(notice) = notice {
        let told = Told { sender, notice, tally: &situation.tally, standing: &next, settings: reputation.settings() };
        tell(shared, &told).await;
    }
    if next != standing || !reputation.is_kept(sender) {
        reputation.stand(sender, &next).await?;
    }
    Ok((next.status, situation.tally))
}

/// Pauses a sender, unless somebody has changed it meanwhile. Says whether it did.
async fn pause(
    shared: &Shared,
    reputation: &Reputation,
    sender: &Sender,
    situation: &Situation,
) -> Result<bool, Error> {
    let reason = reason(&situation.tally);
    let parameters = serde_json::json!({ "account": sender.account, "name": sender.set, "reason": reason });
    let name = match sender.set {
        None => "UpdateAccountSendingEnabled",
        Some(_) => "UpdateConfigurationSetSendingEnabled",
    };
    let audit = shared.accounts.audit();
    let begun = audit.begin(vec![AuditEntry::new(Actor::Relay("reputation"), name, parameters)]).await;
    if let Err(error) = &begun {
        // Mail that does harm is stopped all the same.
        tracing::error!(%error, "the audit log lacks the pause of {sender}");
    }
    let pauses = reputation.pause_by_rule(sender, reason, situation.fresh_start, situation.now).await?;
    if pauses {
        shared.metrics.reputation_pauses.inc();
    } else if let Ok(begun) = begun {
        audit.failed(begun, "Conflict", "it has changed meanwhile").await;
    }
    Ok(pauses)
}

/// What a set did is in its account's rates too, and more comes of what it has in the queue:
/// from its pause on the rest of the account's mail has to show by itself. Right then and not
/// later, so that no later pause of the account is forgiven for it.
async fn start_account_afresh(shared: &Shared, account: AccountId, set: &str, now: Timestamp) -> Result<(), Error> {
    let sender = Sender::account(account);
    if shared.accounts.reputation().pause_of(&sender).is_some() {
        return Ok(());
    }
    tracing::warn!("{sender} starts afresh: configuration set {set} of it is paused");
    let parameters = serde_json::json!({ "account": account, "pausedSet": set });
    shared.accounts.audit().by_relay("reputation", "ReputationFreshStart", parameters).await;
    shared.accounts.reputation().start_afresh(&sender, now).await
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
