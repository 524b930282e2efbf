//! Removing what has had its time from a table of many rows.

use postrider_store::{Bulk, Edit, Key};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BATCH;
use crate::Error;

/// Removes the rows that are over, and says how many; what can not be read stays.
///
/// # Errors
/// [`Error::Store`], the first; whatever else is over is removed all the same.
pub(super) async fn sweep<K, V>(table: &Bulk<K, V>, is_over: impl Fn(&V) -> bool) -> Result<u64, Error>
where
    K: Key,
    V: Serialize + DeserializeOwned,
{
    let mut rows = table.scan();
    let (mut removed, mut failed) = (0, None);
    loop {
        // So many that are looked at, lest others wait for this.
        let (mut keys, mut seen) = (Vec::new(), 0);
        for row in rows.by_ref().take(BATCH) {
            seen += 1;
            match row {
                Ok((key, row)) if is_over(&row) => keys.push(key),
                Ok(_) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        // Again by what is there by now.
        let decide = |_, old: Option<V>| if old.as_ref().is_some_and(&is_over) { Edit::Remove } else { Edit::Keep };
        removed += table.edit(keys, decide).await?;
        if seen < BATCH {
            return failed.map_or(Ok(removed), |error| Err(error.into()));
        }
        tokio::task::yield_now().await;
    }
}
