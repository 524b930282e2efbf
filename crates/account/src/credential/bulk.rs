//! Many changes at once, as a declared state brings them.

use std::sync::Arc;

use postrider_store::Change;

use super::{Credential, Credentials, Record, Stored};
use crate::Error;

impl Credentials {
    /// Shows each of these to `edit` and puts what that gives in its place; none forgets it.
    /// User name, account, region and secret stay. All of it or nothing; durable when it
    /// returns.
    ///
    /// # Errors
    /// [`Error::NoSuchUser`], what `edit` refuses, [`Error::InvalidLabel`], [`Error::Invalid`] or
    /// [`Error::Store`].
    pub async fn edit<E: From<Error>>(
        &self,
        user_names: &[String],
        mut edit: impl FnMut(usize, &Credential) -> Result<Option<Credential>, E>,
    ) -> Result<(), E> {
        let _changing = self.0.changing.lock().await;
        let mut rows = Vec::with_capacity(user_names.len());
        let mut edits = Vec::with_capacity(user_names.len());
        for (index, user_name) in user_names.iter().enumerate() {
            let found = self.0.record(user_name).ok_or_else(|| Error::NoSuchUser(user_name.clone()))?;
            let Some(edited) = edit(index, &found.credential)? else {
                rows.push(Change::Delete(user_name.clone()));
                edits.push((user_name.clone(), None));
                continue;
            };
            edited.check()?;
            let Credential { user_name: name, account, region, created_at, .. } = found.credential.clone();
            let credential = Credential { user_name: name, account, region, created_at, ..edited };
            let record = Record { credential, ..Record::clone(&found) };
            rows.push(Change::Put(user_name.clone(), Stored::of(record.clone())));
            edits.push((user_name.clone(), Some(Arc::new(record))));
        }
        self.0.table.write(rows).await.map_err(Error::from)?;
        let mut known = self.0.known.write();
        for (user_name, record) in &edits {
            match record {
                Some(record) => drop(known.insert(user_name.clone(), record.clone())),
                None => drop(known.remove(user_name)),
            }
        }
        drop(known);
        self.0.lookup.change(edits);
        Ok(())
    }
}
