//! Operations on suppression lists.

use postrider_account::{Suppressed, Suppression};
use tokio::sync::mpsc;

use crate::{Error, IMPORT_BATCH, Response, SuppressionOperation};

/// Entries in one item of a list's answer.
const PAGE: usize = 1_000;

pub(crate) async fn execute(
    suppression: &Suppression,
    operation: SuppressionOperation,
    answer: &mpsc::Sender<Response>,
) -> Result<(), Error> {
    let response = match operation {
        SuppressionOperation::Delete { account, address } => {
            if !suppression.delete(account, &address).await? {
                return Err(absent(&address));
            }
            Response::Changed { count: 1 }
        }
        SuppressionOperation::Get { account, address } => {
            let entry = suppression.get(account, &address)?.ok_or_else(|| absent(&address))?;
            Response::Suppressed(vec![entry])
        }
        SuppressionOperation::Import { entries, .. } if entries.len() > IMPORT_BATCH => {
            return Err(Error::Invalid(format!("more than {IMPORT_BATCH} entries in one import")));
        }
        SuppressionOperation::Import { account, entries } => {
            Response::Changed { count: suppression.add(account, entries).await? }
        }
        SuppressionOperation::List { account, filter } => {
            return list(suppression.list(account, filter), answer).await;
        }
        SuppressionOperation::Put { account, address, reason } => {
            suppression.put(account, &address, reason).await?;
            Response::Changed { count: 1 }
        }
    };
    let _ = answer.send(response).await;
    Ok(())
}

/// Sends the list page by page, as fast as the asker takes it.
async fn list(
    entries: impl Iterator<Item = Result<Suppressed, postrider_account::Error>>,
    answer: &mpsc::Sender<Response>,
) -> Result<(), Error> {
    let mut page = Vec::new();
    for entry in entries {
        page.push(entry?);
        if page.len() == PAGE && answer.send(Response::Suppressed(std::mem::take(&mut page))).await.is_err() {
            return Ok(());
        }
    }
    if !page.is_empty() {
        let _ = answer.send(Response::Suppressed(page)).await;
    }
    Ok(())
}

fn absent(address: &postrider_mail::EmailAddress) -> Error {
    Error::NotFound(format!("{address} is not on the suppression list"))
}
