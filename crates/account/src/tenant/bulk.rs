//! Many changes at once, as a declared state brings them.

use postrider_mail::AccountId;

use super::{Tenant, Tenants};
use crate::Error;

impl Tenants {
    /// As [`crate::Accounts::edit_tenants`], which looks at what those own that go.
    pub(crate) async fn edit<E: From<Error>>(
        &self,
        ids: &[AccountId],
        mut edit: impl FnMut(usize, Option<&Tenant>) -> Result<Option<Tenant>, E>,
    ) -> Result<(), E> {
        let _changing = self.0.changing.lock().await;
        let now = self.0.clock.now();
        let keys: Vec<_> = ids.iter().map(|id| (*id, String::new())).collect();
        let checked = |index: usize, made: Option<&Tenant>| {
            let Some(edited) = edit(index, made)? else { return Ok(None) };
            edited.check()?;
            let created_at = made.map_or(now, |made| made.created_at);
            Ok(Some(Tenant { id: ids[index], created_at, ..edited }))
        };
        self.0.catalog.edit(&keys, checked).await
    }
}
