//! Operations on reputations: what the rates of bounces and complaints are, and who may send.

use std::collections::BTreeSet;

use postrider_account::{Accounts, EnforcementStatus, MetricStatus, Pause, PausedBy, Sender, Sending, Situation};
use postrider_base::Timestamp;
use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::control::Deps;
use crate::{Error, Response, moment};

/// Senders in one item of the answer.
const PAGE: usize = 1_000;

/// Actions on reputations, and on whether mail may be sent. Where `name` is given they are
/// about this configuration set, else about the account.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReputationOperation {
    /// Has only the outcomes of messages count that are accepted from now on.
    FreshStart {
        /// Whose.
        account: AccountId,
        /// The configuration set.
        name: Option<String>,
    },
    /// Has messages refused until it is resumed.
    Pause {
        /// Whose.
        account: AccountId,
        /// The configuration set.
        name: Option<String>,
        /// Whether what is in the queue waits too.
        hold: bool,
        /// What for, in a line.
        reason: String,
    },
    /// Has messages taken again, with a fresh start.
    Resume {
        /// Whose.
        account: AccountId,
        /// The configuration set.
        name: Option<String>,
    },
    /// The rates.
    Show {
        /// Of this account and its sets alone.
        account: Option<AccountId>,
        /// Of this set alone.
        name: Option<String>,
    },
}

/// The rates of an account or a configuration set, and what follows from them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ReputationRow {
    /// Whose.
    pub account: AccountId,
    /// The configuration set; none is the account as a whole.
    pub configuration_set: Option<String>,
    /// Where it stands.
    pub status: EnforcementStatus,
    /// Since when.
    #[serde(with = "moment::optional")]
    pub since: Option<Timestamp>,
    /// When the review ends, during one.
    #[serde(with = "moment::optional")]
    pub review_until: Option<Timestamp>,
    /// Hard bounces by recipients, from 0 to 1; none before the first bounce.
    pub bounce_rate: Option<f64>,
    /// What that has to do with the status.
    pub bounce_status: MetricStatus,
    /// Complaints by recipients; none before the first complaint.
    pub complaint_rate: Option<f64>,
    /// What that has to do with the status.
    pub complaint_status: MetricStatus,
    /// The recipients that the rates are of.
    pub recipients: u32,
    /// Hard bounces among them.
    pub bounces: u32,
    /// Complaints that came meanwhile.
    pub complaints: u32,
    /// Whether these are enough for rules to act.
    pub representative: bool,
    /// Whether a rule may pause it.
    pub auto_pause: bool,
    /// Who has paused it, where somebody has.
    pub paused_by: Option<PausedBy>,
    /// Since when it is paused.
    #[serde(with = "moment::optional")]
    pub paused_at: Option<Timestamp>,
    /// What for.
    pub pause_reason: Option<String>,
    /// Whether what is queued waits too.
    pub hold: bool,
    /// Outcomes of messages accepted before this do not count.
    #[serde(with = "moment::optional")]
    pub fresh_start: Option<Timestamp>,
}

impl ReputationOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::FreshStart { .. } => "reputation-fresh-start",
            Self::Pause { name: None, .. } => "accounts-pause",
            Self::Pause { name: Some(_), .. } => "configuration-sets-pause",
            Self::Resume { name: None, .. } => "accounts-resume",
            Self::Resume { name: Some(_), .. } => "configuration-sets-resume",
            Self::Show { .. } => "reputation-show",
        }
    }

    pub(crate) async fn execute(self, deps: &Deps, answer: &mpsc::Sender<Response>) -> Result<(), Error> {
        let (accounts, now) = (&deps.accounts, deps.world.clock.now());
        let reputation = accounts.reputation();
        match self {
            Self::FreshStart { account, name } => {
                reputation.start_afresh(&known(accounts, account, name)?, now).await?;
            }
            Self::Pause { account, name, hold, reason } => {
                let pause = Pause { by: PausedBy::Operator, at: now, reason, hold };
                reputation.set_sending(&known(accounts, account, name)?, Sending::Paused(pause), now).await?;
            }
            Self::Resume { account, name } => {
                let sender = known(accounts, account, name)?;
                if reputation.pause_of(&sender).is_none() {
                    return Err(Error::Invalid(format!("{sender} is not paused")));
                }
                reputation.set_sending(&sender, Sending::Enabled, now).await?;
            }
            Self::Show { account, name } => return show(accounts, account, name, now, answer).await,
        }
        // Nobody receives: the asker has gone, and the operation is done all the same.
        let _ = answer.send(Response::Changed { count: 1 }).await;
        Ok(())
    }
}

async fn show(
    accounts: &Accounts,
    account: Option<AccountId>,
    name: Option<String>,
    now: Timestamp,
    answer: &mpsc::Sender<Response>,
) -> Result<(), Error> {
    let senders: Vec<Sender> = match (account, name) {
        (account, Some(name)) => vec![known(accounts, account.unwrap_or_default(), Some(name))?],
        (Some(account), None) => {
            known(accounts, account, None)?;
            let sets = accounts.configuration_sets().list(account).into_iter();
            let own = sets.filter(|set| set.reputation_metrics || set.sending.pause().is_some());
            let own = own.map(|set| Sender::set(account, &set.name));
            std::iter::once(Sender::account(account)).chain(own).collect()
        }
        (None, None) => all(accounts).into_iter().collect(),
    };
    for page in senders.chunks(PAGE) {
        let rows = page.iter().map(|sender| row(accounts, sender, now));
        if answer.send(Response::Reputations(rows.collect())).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Everybody of whom there is anything to say.
fn all(accounts: &Accounts) -> BTreeSet<Sender> {
    let mut senders: BTreeSet<Sender> = accounts.reputation().senders().into_iter().collect();
    let tenants = accounts.tenants().list().into_iter().filter(|tenant| tenant.sending.pause().is_some());
    senders.extend(tenants.map(|tenant| Sender::account(tenant.id)));
    let sets = accounts.configuration_sets().all().into_iter().filter(|set| set.sending.pause().is_some());
    senders.extend(sets.map(|set| Sender::set(set.account, &set.name)));
    senders
}

fn row(accounts: &Accounts, sender: &Sender, now: Timestamp) -> ReputationRow {
    let reputation = accounts.reputation();
    let (tally, pause) = (reputation.tally(sender, now), reputation.pause_of(sender));
    let fresh_start = reputation.fresh_start(sender);
    let (paused_by, stored) = (pause.as_ref().map(|pause| pause.by), reputation.standing(sender));
    // As it is now, which may be some seconds ahead of what is kept.
    let situation = Situation { tally, paused_by, auto_pause: false, fresh_start, now };
    let standing = stored.step(&situation, reputation.settings()).standing;
    ReputationRow {
        account: sender.account,
        configuration_set: sender.set.clone(),
        status: standing.status,
        since: Some(standing.since).filter(|since| *since != Timestamp::default()),
        review_until: standing.review_until,
        bounce_rate: tally.bounce_rate(),
        bounce_status: standing.bounce,
        complaint_rate: tally.complaint_rate(),
        complaint_status: standing.complaint,
        recipients: tally.recipients,
        bounces: tally.bounces,
        complaints: tally.complaints,
        representative: tally.is_representative(reputation.settings()),
        auto_pause: accounts.tenants().find(sender.account).auto_pause,
        paused_by,
        paused_at: pause.as_ref().map(|pause| pause.at),
        hold: pause.as_ref().is_some_and(|pause| pause.hold),
        pause_reason: pause.map(|pause| pause.reason),
        fresh_start: Some(fresh_start).filter(|start| *start != Timestamp::default()),
    }
}

/// A sender that is there.
fn known(accounts: &Accounts, account: AccountId, name: Option<String>) -> Result<Sender, Error> {
    match name {
        Some(name) if accounts.configuration_sets().find(account, &name).is_none() => {
            Err(Error::NotFound(format!("there is no configuration set {name:?}")))
        }
        Some(name) => Ok(Sender::set(account, &name)),
        None if accounts.has_tenant(account)? => Ok(Sender::account(account)),
        None => Err(Error::NotFound(format!("there is no account {account}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_called_by_what_it_is_about() {
        let account = AccountId::default();
        let pause = |name: Option<&str>| ReputationOperation::Pause {
            account,
            name: name.map(str::to_owned),
            hold: false,
            reason: String::new(),
        };
        assert_eq!((pause(None).name(), pause(Some("news")).name()), ("accounts-pause", "configuration-sets-pause"));
        assert_eq!(ReputationOperation::Show { account: None, name: None }.name(), "reputation-show");
    }
}
