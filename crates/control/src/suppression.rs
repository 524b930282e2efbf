//! Operations on suppression lists.

use postrider_account::{Accounts, Filter, GlobalList, ImportEntry};
use postrider_mail::{AccountId, EmailAddress, SuppressionReason};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{Error, IMPORT_BATCH, Response};

/// Entries in one item of a list's answer.
const PAGE: usize = 1_000;

/// Actions on an account's suppression list.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SuppressionOperation {
    /// Takes an address off the list.
    Delete {
        /// Whose list.
        account: AccountId,
        /// The address; compared without regard to case.
        address: EmailAddress,
    },
    /// One address's entry.
    Get {
        /// Whose list.
        account: AccountId,
        /// The address; compared without regard to case.
        address: EmailAddress,
    },
    /// The list that all accounts share.
    Global(GlobalSuppressionOperation),
    /// Adds up to [`IMPORT_BATCH`] entries at once; those that the list has as new stay.
    Import {
        /// Whose list.
        account: AccountId,
        /// The entries.
        entries: Vec<ImportEntry>,
    },
    /// The entries that the filter lets through, in the order of the addresses, in pages.
    List {
        /// Whose list.
        account: AccountId,
        /// Which entries.
        filter: Filter,
    },
    /// Puts an address on the list, or replaces its entry.
    Put {
        /// Whose list.
        account: AccountId,
        /// The address.
        address: EmailAddress,
        /// Why nothing may be sent to it.
        reason: SuppressionReason,
    },
    /// Gives up the entries of all lists that damaged files have lost; says how many parts of
    /// files that are.
    Repair,
    /// Takes up to [`IMPORT_BATCH`] addresses off the list at once.
    Remove {
        /// Whose list.
        account: AccountId,
        /// The addresses; compared without regard to case.
        addresses: Vec<EmailAddress>,
    },
}

/// Actions on the list that all accounts share.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GlobalSuppressionOperation {
    /// Takes an address off the list, and forgets how often it bounced.
    Delete {
        /// The address; compared without regard to case.
        address: EmailAddress,
    },
    /// One address's entry.
    Get {
        /// The address; compared without regard to case.
        address: EmailAddress,
    },
    /// The entries whose time is not over, in the order of the addresses, in pages.
    List {
        /// Only addresses that contain this text.
        matching: Option<String>,
    },
    /// Puts an address on the list, for 14 days.
    Put {
        /// The address.
        address: EmailAddress,
    },
}

impl SuppressionOperation {
    pub(crate) fn name(&self) -> &'static str {
        use GlobalSuppressionOperation as Global;
        match self {
            SuppressionOperation::Delete { .. } => "suppression-delete",
            SuppressionOperation::Get { .. } => "suppression-get",
            SuppressionOperation::Global(Global::Delete { .. }) => "global-suppression-delete",
            SuppressionOperation::Global(Global::Get { .. }) => "global-suppression-get",
            SuppressionOperation::Global(Global::List { .. }) => "global-suppression-list",
            SuppressionOperation::Global(Global::Put { .. }) => "global-suppression-put",
            SuppressionOperation::Import { .. } => "suppression-import",
            SuppressionOperation::List { .. } => "suppression-list",
            SuppressionOperation::Put { .. } => "suppression-put",
            SuppressionOperation::Remove { .. } => "suppression-remove",
            SuppressionOperation::Repair => "suppression-repair",
        }
    }
}

pub(crate) async fn execute(
    accounts: &Accounts,
    operation: SuppressionOperation,
    answer: &mpsc::Sender<Response>,
) -> Result<(), Error> {
    let suppression = accounts.suppression();
    let response = match operation {
        SuppressionOperation::Delete { account, address } => {
            if !suppression.delete(account, &address).await? {
                return Err(absent(&address, ""));
            }
            Response::Changed { count: 1 }
        }
        SuppressionOperation::Get { account, address } => {
            let entry = suppression.get(account, &address)?.ok_or_else(|| absent(&address, ""))?;
            Response::Suppressed(vec![entry])
        }
        SuppressionOperation::Global(operation) => {
            return execute_globally(suppression.global(), operation, answer).await;
        }
        SuppressionOperation::Import { account, entries } => {
            check_batch(entries.len())?;
            check_sandbox(accounts, account)?;
            Response::Changed { count: suppression.add(account, entries).await? }
        }
        SuppressionOperation::List { account, filter } => {
            let asker = answer.clone();
            let entries = suppression.list_while(account, filter, move || !asker.is_closed());
            return list(entries, Response::Suppressed, answer).await;
        }
        SuppressionOperation::Put { account, address, reason } => {
            check_sandbox(accounts, account)?;
            suppression.put(account, &address, reason).await?;
            Response::Changed { count: 1 }
        }
        SuppressionOperation::Remove { account, addresses } => {
            check_batch(addresses.len())?;
            Response::Changed { count: suppression.remove(account, &addresses).await? }
        }
        SuppressionOperation::Repair => Response::Changed { count: suppression.repair().await? },
    };
    let _ = answer.send(response).await;
    Ok(())
}

async fn execute_globally(
    global: &GlobalList,
    operation: GlobalSuppressionOperation,
    answer: &mpsc::Sender<Response>,
) -> Result<(), Error> {
    let response = match operation {
        GlobalSuppressionOperation::Delete { address } => {
            if !global.delete(&address).await? {
                return Err(absent(&address, "global "));
            }
            Response::Changed { count: 1 }
        }
        GlobalSuppressionOperation::Get { address } => {
            let entry = global.get(&address)?.ok_or_else(|| absent(&address, "global "))?;
            Response::GloballySuppressed(vec![entry])
        }
        GlobalSuppressionOperation::List { matching } => {
            let asker = answer.clone();
            let entries = global.list_while(matching.as_deref(), move || !asker.is_closed());
            return list(entries, Response::GloballySuppressed, answer).await;
        }
        GlobalSuppressionOperation::Put { address } => {
            global.put(&address).await?;
            Response::Changed { count: 1 }
        }
    };
    let _ = answer.send(response).await;
    Ok(())
}

/// As in SES nobody is put on the list of an account that is in the sandbox, neither by hand nor
/// by an import. What bounces is put there by itself.
fn check_sandbox(accounts: &Accounts, account: AccountId) -> Result<(), Error> {
    match accounts.tenants().find(account).sandbox {
        true => Err(Error::Invalid(format!(
            "account {account} is in the sandbox, where nobody is put on its suppression list by hand or by an import: \
             take it out first (`postrider accounts set {account} --sandbox off`)"
        ))),
        false => Ok(()),
    }
}

fn check_batch(entries: usize) -> Result<(), Error> {
    match entries {
        0..=IMPORT_BATCH => Ok(()),
        _ => Err(Error::Invalid(format!("more than {IMPORT_BATCH} entries in one import"))),
    }
}

/// Sends the list page by page, as fast as the asker takes it, and at the end the first error,
/// which is about entries that can not be read. On a thread that may block for the disk: millions
/// of entries may be looked at before one is found.
async fn list<T: Send + 'static>(
    mut entries: impl Iterator<Item = Result<T, postrider_account::Error>> + Send + 'static,
    response: fn(Vec<T>) -> Response,
    answer: &mpsc::Sender<Response>,
) -> Result<(), Error> {
    let answer = answer.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut failed = None;
        loop {
            let mut page = Vec::with_capacity(PAGE);
            for entry in entries.by_ref() {
                match entry {
                    Ok(entry) => page.push(entry),
                    Err(error) => failed = failed.or(Some(error)),
                }
                if page.len() == PAGE {
                    break;
                }
            }
            let is_last = page.len() < PAGE;
            // Nobody receives: the asker has gone.
            if !page.is_empty() && answer.blocking_send(response(page)).is_err() || is_last {
                return failed.map_or(Ok(()), |error| Err(error.into()));
            }
        }
    });
    reading.await.map_err(|error| Error::Failed(error.to_string()))?
}

fn absent(address: &EmailAddress, which: &str) -> Error {
    Error::NotFound(format!("{address} is not on the {which}suppression list"))
}
