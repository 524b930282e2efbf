//! What accounts may send, and have sent.

use std::collections::BTreeSet;

use postrider_account::{Accounts, Limits};
use postrider_base::Timestamp;
use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::control::Deps;
use crate::{Error, Response};

/// Accounts in one item of the answer.
const PAGE: usize = 1_000;

/// The quotas of an account and what it has used of them, in the words of SES's `GetSendQuota`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct QuotaView {
    /// Whose they are.
    pub account_id: AccountId,
    /// Most recipients in any 24 hours; -1 is no bound.
    #[serde(rename = "Max24HourSend")]
    pub max_24_hour_send: i64,
    /// Most recipients a second; -1 is no bound.
    pub max_send_rate: i64,
    /// Recipients of the last 24 hours.
    #[serde(rename = "SentLast24Hours")]
    pub sent_last_24_hours: u64,
}

/// Sends the quotas of one account, or of all that exist or have sent, by account.
pub(crate) async fn execute(
    deps: &Deps,
    account: Option<AccountId>,
    answer: &mpsc::Sender<Response>,
) -> Result<(), Error> {
    let (accounts, now) = (&deps.accounts, deps.world.clock.now());
    let ids: Vec<AccountId> = match account {
        Some(account) => vec![account],
        None => {
            let made = accounts.tenants().list().into_iter().map(|tenant| tenant.id);
            let sent = accounts.quotas().accounts(now).into_iter().map(|(account, _)| account);
            made.chain(sent).collect::<BTreeSet<_>>().into_iter().collect()
        }
    };
    for page in ids.chunks(PAGE) {
        let views = page.iter().map(|account| view(accounts, *account, now));
        if answer.send(Response::Quotas(views.collect())).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn view(accounts: &Accounts, account: AccountId, now: Timestamp) -> QuotaView {
    let limits = Limits::of(&accounts.tenants().find(account));
    let bound = |bound: Option<u64>| bound.map_or(-1, |bound| i64::try_from(bound).unwrap_or(i64::MAX));
    QuotaView {
        account_id: account,
        max_24_hour_send: bound(limits.per_day),
        max_send_rate: bound(limits.per_second.map(u64::from)),
        sent_last_24_hours: accounts.quotas().usage(account, now).sent_last_24_hours,
    }
}
