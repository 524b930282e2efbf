//! Mail of senders that are paused, where whoever paused them wants what is queued to wait too.

use postrider_account::{Accounts, ConfigurationSet, Pause};
use postrider_base::Timestamp;
use postrider_mail::AccountId;
use postrider_spool::OriginKind;

use crate::why::Why;

/// The pause that a message waits for.
pub(crate) struct SenderPause {
    /// Such as `account 000000000001`.
    who: String,
    pause: Pause,
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
            return Some(Self { who: format!("account {account}"), pause: pause.clone() });
        }
        let (set, pause) = set.and_then(|set| Some((set, set.sending.pause().filter(|pause| pause.hold)?)))?;
        Some(Self { who: format!("configuration set {}", set.name), pause: pause.clone() })
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
