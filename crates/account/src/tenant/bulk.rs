//! Many changes at once, as a declared state brings them.

use postrider_mail::AccountId;

use super::{Tenant, Tenants};
use crate::Error;

impl Tenants {
    /// Shows each of these to `edit`, as it is, and puts what that gives in its place. All of
    /// it or nothing; durable when it returns. Numbers and times of creation stay.
    ///
    /// # Errors
    /// What `edit` refuses, [`Error::Invalid`], [`Error::Full`] or [`Error::Store`].
    pub async fn edit<E: From<Error>>(
        &self,
        ids: &[AccountId],
        mut edit: impl FnMut(usize, Option<&Tenant>) -> Result<Tenant, E>,
    ) -> Result<(), E> {
        let _changing = self.0.changing.lock().await;
        let now = self.0.clock.now();
        let keys: Vec<_> = ids.iter().map(|id| (*id, String::new())).collect();
        let checked = |index: usize, made: Option<&Tenant>| {
            let edited = edit(index, made)?;
            edited.check()?;
            let created_at = made.map_or(now, |made| made.created_at);
            Ok(Some(Tenant { id: ids[index], created_at, ..edited }))
        };
        self.0.catalog.edit(&keys, checked).await
    }
}
