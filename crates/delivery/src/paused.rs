//! Mail of senders that are paused, where whoever paused them wants what is queued to wait too.

use std::collections::{HashMap, HashSet};

use postrider_account::{Accounts, ConfigurationSet, Pause};
use postrider_base::Timestamp;
use postrider_mail::AccountId;
use postrider_spool::OriginKind;

use crate::why::Why;

/// The pause that a message waits for.
pub(crate) struct SenderPause {
    /// Such as `account 000000000001`.
    who: String,
    /// Of this configuration set; `None` of the whole account.
    set: Option<String>,
    pause: Pause,
}

/// The pauses that keep mail waiting. At most one for each account and configuration set.
#[derive(Default)]
pub(crate) struct Held(HashMap<AccountId, HashSet<Option<String>>>);

impl Held {
    /// Mail of `account` waits for the end of this pause.
    pub(crate) fn add(&mut self, account: AccountId, pause: &SenderPause) {
        let by = self.0.entry(account).or_default();
        if !by.contains(&pause.set) {
            by.insert(pause.set.clone());
        }
    }

    /// The accounts of which such a pause is over. They are forgotten, as what was held of them
    /// is looked at again.
    pub(crate) fn take_ended(&mut self, accounts: &Accounts) -> Vec<AccountId> {
        let is_paused = |account: AccountId, set: &Option<String>| match set {
            None => accounts.tenants().made(account).is_some_and(|tenant| holds(tenant.sending.pause())),
            Some(set) => accounts.configuration_sets().find(account, set).is_some_and(|set| holds(set.sending.pause())),
        };
        let ended = self.0.extract_if(|account, by| !by.iter().all(|set| is_paused(*account, set)));
        ended.map(|(account, _)| account).collect()
    }
}

fn holds(pause: Option<&Pause>) -> bool {
    pause.is_some_and(|pause| pause.hold)
}

impl SenderPause {
    /// What keeps a message of `account` waiting that is sent with `set`. The relay's own mail
    /// is not the sender's.
    pub(crate) fn of(
        accounts: &Accounts,
        account: AccountId,
        kind: OriginKind,
        set: Option<&ConfigurationSet>,
    ) -> Option<Self> {
        if kind != OriginKind::Submission {
            return None;
        }
        let tenant = accounts.tenants().made(account);
        let of_account = tenant.as_ref().and_then(|tenant| tenant.sending.pause()).filter(|pause| pause.hold);
        if let Some(pause) = of_account {
            return Some(Self { who: format!("account {account}"), set: None, pause: pause.clone() });
        }
        let (set, pause) = set.and_then(|set| Some((set, set.sending.pause().filter(|pause| pause.hold)?)))?;
        let who = format!("configuration set {}", set.name);
        Some(Self { who, set: Some(set.name.clone()), pause: pause.clone() })
    }

    /// In one line.
    pub(crate) fn words(&self) -> String {
        match self.pause.reason.as_str() {
            "" => format!("{} is paused", self.who),
            reason => format!("{} is paused: {reason}", self.who),
        }
    }

    pub(crate) fn why(self) -> Why {
        let since: Timestamp = self.pause.at;
        Why::SenderPaused { who: self.who, since, reason: self.pause.reason }
    }
}
