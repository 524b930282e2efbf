//! Many changes at once, as a declared state brings them.

use std::collections::HashMap;

use postrider_mail::AccountId;

use super::catalog::Item as _;
use super::{ConfigurationSet, ConfigurationSets, Identities, Identity, IdentityName, Pool, Pools};
use crate::Error;

impl Identities {
    /// Shows each of these to `edit`, as it is, and puts what that gives in its place; none
    /// takes it away. All of it or nothing; durable when it returns.
    ///
    /// # Errors
    /// What `edit` refuses, and as [`Identities::create`].
    pub async fn edit<E: From<Error>>(
        &self,
        names: &[(AccountId, IdentityName)],
        mut edit: impl FnMut(usize, Option<&Identity>) -> Result<Option<Identity>, E>,
    ) -> Result<(), E> {
        let _changing = self.0.changing.lock().await;
        let names: Vec<_> = names.iter().map(|(account, name)| (*account, name.key().to_owned())).collect();
        let checked = |index, found: Option<&Identity>| {
            let edited = edit(index, found)?;
            edited.as_ref().map_or(Ok(()), |identity| self.check(identity, found))?;
            Ok(edited)
        };
        self.0.identities.edit(&names, checked).await
    }
}

impl ConfigurationSets {
    /// As [`Identities::edit`]. Whether a tracking domain is verified is not asked.
    ///
    /// # Errors
    /// What `edit` refuses, and as [`ConfigurationSets::put`].
    pub async fn edit<E: From<Error>>(
        &self,
        names: &[(AccountId, String)],
        mut edit: impl FnMut(usize, Option<&ConfigurationSet>) -> Result<Option<ConfigurationSet>, E>,
    ) -> Result<(), E> {
        let _changing = self.0.changing.lock().await;
        let checked = |index, found: Option<&ConfigurationSet>| {
            let edited = edit(index, found)?;
            edited.as_ref().map_or(Ok(()), |set| self.check(set))?;
            Ok(edited)
        };
        self.0.sets.edit(names, checked).await
    }
}

impl Pools {
    /// As [`Identities::edit`].
    ///
    /// # Errors
    /// What `edit` refuses; [`Error::Invalid`]; [`Error::InUse`] when an address would be in
    /// two pools, or a pool that goes is named by a configuration set; [`Error::Full`] or
    /// [`Error::Store`].
    pub async fn edit<E: From<Error>>(
        &self,
        names: &[(AccountId, String)],
        mut edit: impl FnMut(usize, Option<&Pool>) -> Result<Option<Pool>, E>,
    ) -> Result<(), E> {
        let _changing = self.0.changing.lock().await;
        let mut edited = Vec::with_capacity(names.len());
        for (index, (account, name)) in names.iter().enumerate() {
            let pool = edit(index, self.find(*account, name).as_deref())?;
            match &pool {
                Some(pool) => Self::check(pool)?,
                None => self.check_unused(*account, name)?,
            }
            edited.push(pool);
        }
        self.check_sources(names, &edited)?;
        let mut edited = edited.into_iter();
        self.0.pools.edit(names, |_, _| Ok(edited.next().flatten())).await
    }

    fn check_unused(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let sets = self.0.sets.of_account(account);
        match sets.iter().find(|set| set.pool.as_deref() == Some(name)) {
            Some(set) => {
                let by = format!("configuration set {}", set.name);
                Err(Error::InUse { what: Pool::KIND, name: name.to_owned(), by })
            }
            None => Ok(()),
        }
    }

    /// An address is in one pool at most, when all of this is done.
    fn check_sources(&self, names: &[(AccountId, String)], edited: &[Option<Pool>]) -> Result<(), Error> {
        let is_edited =
            |pool: &Pool| names.iter().any(|(account, name)| (*account, name) == (pool.account, &pool.name));
        let kept = self.all();
        let pools = kept.iter().map(|pool| &**pool).filter(|pool| !is_edited(pool)).chain(edited.iter().flatten());
        let mut known = HashMap::new();
        for pool in pools {
            for member in &pool.members {
                if let Some(other) = known.insert(&member.source, pool) {
                    let by = format!("pool {} of account {}", other.name, other.account);
                    return Err(Error::InUse { what: "address", name: member.source.clone(), by });
                }
            }
        }
        Ok(())
    }
}
