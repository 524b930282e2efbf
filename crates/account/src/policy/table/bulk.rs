//! Many policies at once, as a declared state brings them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use postrider_store::Change;

use super::{KIND, Key, Known, MAX_POLICIES, Policies, PolicyOwner, Row, attached, unreadable};
use crate::policy::{Attached, Policy, PolicySet};
use crate::{Error, Realm};

/// What a policy is refused with that somebody else was quicker to change.
const CHANGED: &str = "it has changed meanwhile: compare again";

/// A policy to be put, or, without a text, to be taken away.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyEdit {
    /// What it is attached to.
    pub owner: PolicyOwner,
    /// Its name.
    pub name: String,
    /// Its text as it is now: else nothing is changed.
    pub was: Option<String>,
    /// The policy.
    pub text: Option<String>,
}

impl Policies {
    /// All policies: what each is attached to, its name, its text. In a stable order.
    #[must_use]
    pub fn all(&self) -> Vec<(PolicyOwner, String, String)> {
        let known = self.0.known.load_full();
        let mut all = BTreeMap::new();
        let mut add = |owner: PolicyOwner, set: &PolicySet| {
            for policy in set.policies() {
                let row = (owner.clone(), policy.name().to_owned(), policy.text().to_owned());
                all.insert(Key::of(&owner, policy.name()).0, row);
            }
        };
        for (user_name, set) in &known.credentials {
            add(PolicyOwner::Credential(user_name.to_string()), set);
        }
        for (account, sets) in &known.identities {
            for (name, set) in sets.iter() {
                // What it is known by is a name.
                let Ok(name) = name.parse() else { continue };
                add(PolicyOwner::Identity(*account, name), set);
            }
        }
        all.into_values().collect()
    }

    /// Puts and takes away all of these or none. Durable when it returns, and in force for the
    /// next message.
    ///
    /// # Errors
    /// The place in `edits` of what is refused, and as [`Policies::put`]; [`Error::Invalid`]
    /// too when one is not as its edit says; of what is about all of them, the first.
    pub async fn edit(&self, edits: &[PolicyEdit], realm: &Realm) -> Result<(), (usize, Error)> {
        let parsed = edits.iter().enumerate().map(|(index, edit)| match &edit.text {
            Some(text) => parse(edit, text, realm).map(Some).map_err(|error| (index, error)),
            None => Ok(None),
        });
        let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
        let _changing = self.0.changing.lock().await;
        let mut known = Known::clone(&self.0.known.load());
        let mut rows = Vec::with_capacity(edits.len());
        let mut owners: HashMap<Vec<u8>, (&PolicyOwner, Vec<Policy>)> = HashMap::new();
        for (index, (edit, policy)) in edits.iter().zip(parsed).enumerate() {
            let place = |error| (index, error);
            let of_owner = || (&edit.owner, self.of(&edit.owner).map_or_else(Vec::new, |set| set.policies().to_vec()));
            let (_, policies) = owners.entry(Key::of(&edit.owner, "").0).or_insert_with(of_owner);
            let is = policies.iter().find(|known| known.name() == edit.name).map(Policy::text);
            if is != edit.was.as_deref() {
                return Err(place(Error::Invalid { what: KIND, reason: CHANGED }));
            }
            policies.retain(|known| known.name() != edit.name);
            let key = Key::of(&edit.owner, &edit.name);
            let Some((policy, text)) = policy.zip(edit.text.as_ref()) else {
                rows.push(Change::Delete(key));
                continue;
            };
            self.check_owner(&edit.owner).map_err(place)?;
            if policies.len() >= MAX_POLICIES {
                let reason = "there are 20 already, and that is the most";
                return Err(place(Error::Invalid { what: KIND, reason }));
            }
            let row = Row { owner: edit.owner.clone(), name: edit.name.clone(), text: text.clone() };
            rows.push(Change::Put(key, serde_json::to_string(&row).map_err(|error| place(unreadable(&error)))?));
            policies.push(policy);
        }
        for (owner, policies) in owners.into_values() {
            known.set(owner, PolicySet::new(policies));
        }
        if known.count > self.0.max && known.count > self.0.known.load().count {
            return Err((0, Error::Full { setting: "max_policies", bound: self.0.max }));
        }
        self.0.table.write(rows).await.map_err(|error| (0, error.into()))?;
        self.0.known.store(Arc::new(known));
        self.0.revision.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

fn parse(edit: &PolicyEdit, text: &str, realm: &Realm) -> Result<Policy, Error> {
    let PolicyOwner::Identity(account, name) = &edit.owner else {
        return Ok(Policy::parse(&edit.name, text, attached(&edit.owner))?);
    };
    let arn = realm.identity(*account, name);
    Ok(Policy::parse(&edit.name, text, Attached::Identity(Some(&arn)))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewCredential;
    use crate::policy::kept_tests::World;
    use crate::policy::tests::realm;

    const ALLOW: &str = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ses:*","Resource":"*"}}"#;
    const DENY: &str = r#"{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"ses:*","Resource":"*"}}"#;

    #[tokio::test]
    async fn what_was_put_meanwhile_is_not_lost() {
        let world = World::new();
        let accounts = world.open();
        let user = accounts.credentials().create(NewCredential::default()).await.unwrap().credential.user_name;
        let (owner, policies) = (PolicyOwner::Credential(user), accounts.policies());
        let edit = |name: &str, was: Option<&str>, text: Option<&str>| PolicyEdit {
            owner: owner.clone(),
            name: name.to_owned(),
            was: was.map(str::to_owned),
            text: text.map(str::to_owned),
        };
        policies.edit(&[edit("a", None, Some(ALLOW))], &realm()).await.unwrap();
        policies.put(&owner, "a", DENY, &realm()).await.unwrap();
        for stale in [edit("a", Some(ALLOW), None), edit("a", None, Some(ALLOW)), edit("c", Some(ALLOW), Some(DENY))] {
            let (index, error) = policies.edit(&[edit("b", None, Some(ALLOW)), stale], &realm()).await.unwrap_err();
            assert_eq!(index, 1);
            assert!(matches!(error, Error::Invalid { reason: CHANGED, .. }), "{error}");
        }
        let all: Vec<_> = policies.all().into_iter().map(|(_, name, text)| (name, text)).collect();
        assert_eq!(all, [("a".to_owned(), DENY.to_owned())]);
        policies.edit(&[edit("a", Some(DENY), None)], &realm()).await.unwrap();
        assert_eq!(policies.of(&owner), None);
    }
}
