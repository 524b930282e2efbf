//! Operations on accounts. Pauses are with what else is about reputation.

use std::collections::HashMap;

use postrider_account::{Accounts, Tenant, TenantOption};
use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::control::Deps;
use crate::{Error, Response};

/// Accounts in one item of the answer.
const PAGE: usize = 200;

/// Actions on accounts.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountOperation {
    /// Makes an account.
    Create {
        /// Its number.
        id: AccountId,
        /// What is not as it is by default.
        options: Vec<TenantOption>,
    },
    /// Forgets an account that owns nothing any more, and has no mail that waits.
    Delete {
        /// Its number.
        id: AccountId,
    },
    /// Those that somebody has made.
    List,
    /// Changes an account.
    Set {
        /// Its number.
        id: AccountId,
        /// What is to be otherwise.
        options: Vec<TenantOption>,
    },
    /// One of them.
    Show {
        /// Its number.
        id: AccountId,
    },
}

impl AccountOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "accounts-create",
            Self::Delete { .. } => "accounts-delete",
            Self::List => "accounts-list",
            Self::Set { .. } => "accounts-set",
            Self::Show { .. } => "accounts-show",
        }
    }

    pub(crate) async fn execute(self, deps: &Deps, answer: &mpsc::Sender<Response>) -> Result<(), Error> {
        let accounts = &deps.accounts;
        let tenants = accounts.tenants();
        let response = match self {
            Self::Create { id, options } => {
                let mut tenant = Tenant::new(id);
                options.into_iter().for_each(|option| tenant.apply(option));
                Response::Accounts(vec![Tenant::clone(&*tenants.create(tenant).await?)])
            }
            Self::Delete { id } => {
                check_queues(deps, &[id]).await.map_err(|(_, error)| error)?;
                accounts.delete_tenant(id).await?;
                Response::Changed { count: 1 }
            }
            Self::List => return list(tenants.list().iter().map(AsRef::as_ref), answer).await,
            Self::Set { id, options } => {
                known(accounts, id)?;
                let change = |tenant: &mut Tenant| options.into_iter().for_each(|option| tenant.apply(option));
                Response::Accounts(vec![Tenant::clone(&*tenants.change(id, change).await?)])
            }
            Self::Show { id } => {
                known(accounts, id)?;
                Response::Accounts(vec![Tenant::clone(&*tenants.find(id))])
            }
        };
        // Nobody receives: the asker has gone, and the operation is done all the same.
        let _ = answer.send(response).await;
        Ok(())
    }
}

async fn list(tenants: impl Iterator<Item = &Tenant> + Send, answer: &mpsc::Sender<Response>) -> Result<(), Error> {
    let tenants: Vec<&Tenant> = tenants.collect();
    // One page at least: an empty answer would be none.
    for page in 0..tenants.len().div_ceil(PAGE).max(1) {
        let rows = tenants.iter().skip(page * PAGE).take(PAGE).map(|tenant| Tenant::clone(tenant));
        if answer.send(Response::Accounts(rows.collect())).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Refuses when mail of any of these accounts waits, and says of which, by its place: a pause
/// that holds mail back must not go before the mail.
pub(crate) async fn check_queues(deps: &Deps, going: &[AccountId]) -> Result<(), (usize, Error)> {
    let Some(spool) = deps.spool.as_ref().filter(|_| !going.is_empty()) else { return Ok(()) };
    let queues = spool.summary().await.map_err(|error| (0, error.into()))?;
    let waiting: HashMap<_, _> = queues.iter().map(|queue| (queue.account, &queue.domain)).collect();
    let found = going.iter().enumerate().find_map(|(index, id)| Some((index, id, waiting.get(id)?)));
    let refusal =
        |(index, id, domain)| (index, Error::Invalid(format!("account {id} still has mail that waits, to {domain}")));
    found.map(refusal).map_or(Ok(()), Err)
}

fn known(accounts: &Accounts, id: AccountId) -> Result<(), Error> {
    match accounts.has_tenant(id)? {
        true => Ok(()),
        false => Err(Error::NotFound(format!("there is no account {id}"))),
    }
}
