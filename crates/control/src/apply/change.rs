//! Changes of the declared state, made in batches.

use std::sync::atomic::{AtomicUsize, Ordering};

use postrider_account::{
    Actor, AuditEntry, ConfigurationSet, Identity, IdentityName, PolicyEdit, PolicyOwner, Pool, PoolMember, Tenant,
    Verification,
};
use postrider_mail::AccountId;
use serde_json::{Map, Value};

use super::declared::{
    Declared, DeclaredAccount, DeclaredConfigurationSet, DeclaredCredential, DeclaredIdentity, DeclaredKind,
    DeclaredPolicy, DeclaredPool,
};
use super::{APPLY_BATCH, StateChange};
use crate::accounts::check_queues;
use crate::control::Deps;
use crate::{Error, Response, identities};

/// New domains of one batch whose keys are made at once; those of more are made one after the
/// other by whoever looks after the keys.
const KEYS_AT_ONCE: usize = 4;

/// Makes all of the changes or none; says which one is refused, and why.
pub(super) async fn apply(deps: &Deps, actor: &Actor, changes: Vec<StateChange>) -> Result<Response, Error> {
    let kind = kind_of(&changes)?;
    let count = changes.len() as u64;
    let log = deps.accounts.audit();
    let audited = log.begin(changes.iter().filter_map(|change| entry(actor, change)).collect()).await?;
    let batch = Batch { deps, changes: &changes, at: AtomicUsize::new(0) };
    let made = match kind {
        DeclaredKind::Account => batch.accounts().await,
        DeclaredKind::Pool => batch.pools().await,
        DeclaredKind::ConfigurationSet => batch.configuration_sets().await,
        DeclaredKind::Identity => batch.identities().await,
        DeclaredKind::Credential => batch.credentials().await,
        DeclaredKind::Policy => batch.policies().await,
    };
    match made {
        Ok(()) => Ok(Response::Changed { count }),
        Err(error) => {
            log.failed(audited, error.kind().as_str(), &error.to_string()).await;
            match error {
                Error::Invalid(reason) | Error::NotFound(reason) => {
                    Ok(Response::NotApplied { index: batch.at.load(Ordering::Relaxed), reason })
                }
                error => Err(error),
            }
        }
    }
}

fn kind_of(changes: &[StateChange]) -> Result<DeclaredKind, Error> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    let mut kind = None;
    for change in changes {
        let (Some(key), true) = (change.key(), change.was.is_none() || change.now.is_none() || is_same(change)) else {
            return invalid("a change is of one thing");
        };
        if kind.replace(key.kind).is_some_and(|kind| kind != key.kind) {
            return invalid("a batch of changes is of one kind of things");
        }
    }
    match kind {
        Some(kind) if changes.len() <= APPLY_BATCH => Ok(kind),
        Some(_) => invalid("too many changes at once"),
        None => invalid("no changes"),
    }
}

fn is_same(change: &StateChange) -> bool {
    change.was.as_ref().map(Declared::key) == change.now.as_ref().map(Declared::key)
}

/// What the audit log says of one change: the fields that differ.
fn entry(actor: &Actor, change: &StateChange) -> Option<AuditEntry> {
    let key = change.key()?;
    let [create, update, delete] = match key.kind {
        DeclaredKind::Account => ["CreateTenant", "UpdateTenant", "DeleteTenant"],
        DeclaredKind::Pool => ["CreateDedicatedIpPool", "UpdateDedicatedIpPool", "DeleteDedicatedIpPool"],
        DeclaredKind::ConfigurationSet => {
            ["CreateConfigurationSet", "UpdateConfigurationSet", "DeleteConfigurationSet"]
        }
        DeclaredKind::Identity => ["CreateEmailIdentity", "UpdateEmailIdentity", "DeleteEmailIdentity"],
        DeclaredKind::Credential => ["UpdateAccessKey", "UpdateAccessKey", "DeleteAccessKey"],
        DeclaredKind::Policy => ["PutPolicy", "PutPolicy", "DeletePolicy"],
    };
    let fields = |side: &Option<Declared>| side.as_ref().map_or_else(Map::new, Declared::fields);
    let (was, now) = (fields(&change.was), fields(&change.now));
    let differs = |fields: &Map<String, Value>, other: &Map<String, Value>| {
        let differing = fields.iter().filter(|(name, value)| other.get(*name) != Some(value));
        differing.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()
    };
    let name = match (&change.was, &change.now) {
        (None, _) => create,
        (Some(_), Some(_)) => update,
        (Some(_), None) => delete,
    };
    let mut parameters = differs(&now, &was);
    parameters.insert("applied".to_owned(), Value::String(key.name));
    Some(AuditEntry {
        actor: actor.clone(),
        name: name.to_owned(),
        account: key.account,
        parameters: Value::Object(parameters),
        previously: change.was.is_some().then(|| Value::Object(differs(&was, &now))),
    })
}

struct Batch<'a> {
    deps: &'a Deps,
    changes: &'a [StateChange],
    /// The change that is looked at.
    at: AtomicUsize,
}

/// What a change of one kind is about; the other kinds were sorted out before.
macro_rules! sides {
    ($change:expr, $kind:ident) => {{
        let was = match &$change.was {
            Some(Declared::$kind(thing)) => Some(thing),
            _ => None,
        };
        let now = match &$change.now {
            Some(Declared::$kind(thing)) => Some(thing),
            _ => None,
        };
        (was, now)
    }};
}

impl Batch<'_> {
    /// Refuses what was compared with another state than there is.
    fn check<T: PartialEq>(&self, index: usize, was: Option<&T>, is: Option<&T>) -> Result<(), Error> {
        self.at.store(index, Ordering::Relaxed);
        match was == is {
            true => Ok(()),
            false => Err(Error::Invalid("it has changed meanwhile: compare again".to_owned())),
        }
    }

    async fn accounts(&self) -> Result<(), Error> {
        let ids: Vec<_> = self.names()?.into_iter().map(|(id, _)| id).collect();
        let is_going = |index: &usize| self.changes[*index].now.is_none();
        let (places, going): (Vec<_>, Vec<_>) =
            (0..ids.len()).filter(is_going).map(|index| (index, ids[index])).unzip();
        check_queues(self.deps, &going).await.map_err(|(index, error)| {
            self.at.store(places[index], Ordering::Relaxed);
            error
        })?;
        let edit = |index: usize, made: Option<&Tenant>| {
            let (was, now) = sides!(self.changes[index], Account);
            self.check(index, was, made.map(DeclaredAccount::from).as_ref())?;
            let Some(now) = now else { return Ok(None) };
            let tenant = made.cloned().unwrap_or_else(|| Tenant::new(ids[index]));
            Ok::<_, Error>(Some(Tenant {
                name: now.name.clone(),
                contact: now.contact.clone(),
                sandbox: now.sandbox,
                daily_quota: now.daily_quota,
                max_rate: now.max_rate,
                suppressed_reasons: now.suppressed_reasons.clone(),
                auto_pause: now.auto_pause,
                tags: now.tags.clone(),
                ..tenant
            }))
        };
        self.deps.accounts.edit_tenants(&ids, edit).await
    }

    async fn pools(&self) -> Result<(), Error> {
        let names = self.names()?;
        let known = self.deps.sources();
        let edit = |index: usize, found: Option<&Pool>| {
            let (was, now) = sides!(self.changes[index], Pool);
            self.check(index, was, found.map(DeclaredPool::from).as_ref())?;
            let Some(now) = now else { return Ok(None) };
            if let Some(unknown) = now.sources.keys().find(|source| !known.contains(source)) {
                return Err(Error::NotFound(format!("sources: there is no source {unknown:?} in the configuration")));
            }
            let member = |(source, weight): (&String, &u32)| PoolMember { source: source.clone(), weight: *weight };
            let (account, name) = names[index].clone();
            Ok(Some(Pool { account, name, members: now.sources.iter().map(member).collect() }))
        };
        self.deps.accounts.pools().edit(&names, edit).await
    }

    async fn configuration_sets(&self) -> Result<(), Error> {
        let names = self.names()?;
        let edit = |index: usize, found: Option<&ConfigurationSet>| {
            let (was, now) = sides!(self.changes[index], ConfigurationSet);
            self.check(index, was, found.map(DeclaredConfigurationSet::from).as_ref())?;
            let Some(now) = now else { return Ok(None) };
            let (account, name) = &names[index];
            let set = found.cloned().map_or_else(|| ConfigurationSet::new(*account, name), Ok)?;
            Ok::<_, Error>(Some(ConfigurationSet {
                tls: now.tls,
                pool: now.pool.clone(),
                max_lifetime: now.max_lifetime,
                retry: now.retry.clone(),
                per_recipient: now.per_recipient,
                suppressed_reasons: now.suppressed_reasons.clone(),
                tracking_domain: now.tracking_domain.clone(),
                reputation_metrics: now.reputation_metrics,
                tags: now.tags.clone(),
                event_destinations: now.event_destination.clone(),
                ..set
            }))
        };
        self.deps.accounts.configuration_sets().edit(&names, edit).await
    }

    async fn identities(&self) -> Result<(), Error> {
        let (deps, now_at) = (self.deps, self.deps.world.clock.now());
        let mut names = Vec::with_capacity(self.changes.len());
        let (mut new, mut coming, mut going) = (Vec::new(), Vec::new(), Vec::new());
        for change in self.changes {
            let (was, now) = sides!(change, Identity);
            let Some(thing) = now.or(was) else { continue };
            let (account, name) = (id(thing.account)?, thing.name.clone());
            if let (None, IdentityName::Domain(domain)) = (was, &name) {
                new.push((account, domain.clone()));
            }
            let owner = PolicyOwner::Identity(account, name.clone());
            match (was, now) {
                (None, _) => coming.push(owner),
                (_, None) => going.push(owner),
                _ => {}
            }
            names.push((account, name));
        }
        let edit = |index: usize, found: Option<&Identity>| {
            let (was, now) = sides!(self.changes[index], Identity);
            self.check(index, was, found.map(DeclaredIdentity::from).as_ref())?;
            let Some(now) = now else { return Ok::<_, Error>(None) };
            let (account, name) = names[index].clone();
            let mut identity = found.cloned().unwrap_or_else(|| Identity::new(account, name));
            identity.trusted = now.trusted;
            if !identity.is_verified() && found.is_none_or(|found| found.trusted != now.trusted) {
                identity.verification = Verification::pending(now_at);
            }
            identity.default_configuration_set = now.configuration_set.clone();
            identity.tags = now.tags.clone();
            (identity.dkim.enabled, identity.dkim.ed25519) = (now.dkim, now.dkim_ed25519);
            identities::set_mail_from(&mut identity, now.mail_from.clone(), now.mail_from_on_failure, now_at);
            Ok(Some(identity))
        };
        for owner in coming {
            deps.accounts.policies().forget_remains(&owner).await?;
        }
        deps.accounts.identities().edit(&names, edit).await?;
        self.forget(going).await?;
        if new.len() <= KEYS_AT_ONCE {
            for (account, domain) in new {
                identities::make_keys(deps, account, &domain).await;
            }
        }
        if let Some(upkeep) = &deps.upkeep {
            upkeep.nudge();
        }
        Ok(())
    }

    async fn credentials(&self) -> Result<(), Error> {
        let (mut users, mut going) = (Vec::with_capacity(self.changes.len()), Vec::new());
        for change in self.changes {
            let (was, now) = sides!(change, Credential);
            let Some(thing) = now.or(was) else { continue };
            if now.is_none() {
                going.push(PolicyOwner::Credential(thing.user.clone()));
            }
            users.push(thing.user.clone());
        }
        let edit = |index: usize, found: &postrider_account::Credential| {
            let (was, now) = sides!(self.changes[index], Credential);
            self.check(index, was, Some(&DeclaredCredential::from(found)))?;
            let Some(now) = now else { return Ok(None) };
            if now.account != Some(found.account) {
                let text = format!("account: it belongs to account {}, and stays there", found.account);
                return Err(Error::Invalid(text));
            }
            Ok(Some(postrider_account::Credential {
                label: now.label.clone(),
                disabled: now.disabled,
                recipient_overflow: now.recipient_overflow,
                sandbox: now.sandbox,
                daily_quota: now.daily_quota,
                max_rate: now.max_rate,
                ..found.clone()
            }))
        };
        self.deps.accounts.credentials().edit(&users, edit).await?;
        self.forget(going).await
    }

    /// What has gone leaves no policies, which one of the same name would find.
    async fn forget(&self, owners: Vec<PolicyOwner>) -> Result<(), Error> {
        for owner in owners {
            self.deps.accounts.policies().forget(&owner).await?;
        }
        Ok(())
    }

    async fn policies(&self) -> Result<(), Error> {
        let mut edits = Vec::with_capacity(self.changes.len());
        for (index, change) in self.changes.iter().enumerate() {
            self.at.store(index, Ordering::Relaxed);
            let (was, now) = sides!(change, Policy);
            let Some(thing) = now.or(was) else { continue };
            let owner = owner(thing)?;
            let text = |policy: &DeclaredPolicy| policy.document.clone();
            edits.push(PolicyEdit { owner, name: thing.name.clone(), was: was.map(text), text: now.map(text) });
        }
        self.deps.accounts.policies().edit(&edits, &self.deps.about.realm()).await.map_err(|(index, error)| {
            self.at.store(index, Ordering::Relaxed);
            Error::from(error)
        })
    }

    /// Account and name of each, where names are plain.
    fn names(&self) -> Result<Vec<(AccountId, String)>, Error> {
        let name = |change: &StateChange| {
            let key = change.key().ok_or_else(|| Error::Invalid("no change".to_owned()))?;
            Ok((id(key.account)?, key.name))
        };
        self.changes.iter().map(name).collect()
    }
}

/// Whoever sends changes has put the account in.
fn id(account: Option<AccountId>) -> Result<AccountId, Error> {
    account.ok_or_else(|| Error::Invalid("account: there is none".to_owned()))
}

fn owner(policy: &DeclaredPolicy) -> Result<PolicyOwner, Error> {
    match (&policy.user, &policy.identity) {
        (Some(user), None) => Ok(PolicyOwner::Credential(user.clone())),
        (None, Some(identity)) => Ok(PolicyOwner::Identity(id(policy.account)?, identity.clone())),
        _ => Err(Error::Invalid("a policy is attached to a user or to an identity: name one of them".to_owned())),
    }
}
