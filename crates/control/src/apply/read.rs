//! What there is, as a file would declare it.

use postrider_account::{Accounts, ConfigurationSet, Credential, Identity, PolicyOwner, Pool, Tenant};

use super::declared::{
    Declared, DeclaredAccount, DeclaredConfigurationSet, DeclaredCredential, DeclaredIdentity, DeclaredPolicy,
    DeclaredPool,
};

/// All of it, in the order in which it can be made.
pub(super) fn all(accounts: &Accounts) -> Vec<Declared> {
    let tenants = accounts.tenants().list();
    let (pools, sets) = (accounts.pools().all(), accounts.configuration_sets().all());
    let (identities, credentials) = (accounts.identities().all(), accounts.credentials().list());
    let tenants = tenants.iter().map(|tenant| Declared::Account(DeclaredAccount::from(&**tenant)));
    let pools = pools.iter().map(|pool| Declared::Pool(DeclaredPool::from(&**pool)));
    let sets = sets.iter().map(|set| Declared::ConfigurationSet(DeclaredConfigurationSet::from(&**set)));
    let identities = identities.iter().map(|identity| Declared::Identity(DeclaredIdentity::from(&**identity)));
    let credentials = credentials.iter().map(|credential| Declared::Credential(DeclaredCredential::from(credential)));
    let policies = accounts.policies().all().into_iter().map(|policy| Declared::Policy(policy.into()));
    tenants.chain(pools).chain(sets).chain(identities).chain(credentials).chain(policies).collect()
}

impl From<&Tenant> for DeclaredAccount {
    fn from(tenant: &Tenant) -> Self {
        Self {
            id: Some(tenant.id),
            name: tenant.name.clone(),
            contact: tenant.contact.clone(),
            sandbox: tenant.sandbox,
            daily_quota: tenant.daily_quota,
            max_rate: tenant.max_rate,
            suppressed_reasons: tenant.suppressed_reasons.clone(),
            auto_pause: tenant.auto_pause,
            tags: tenant.tags.clone(),
        }
    }
}

impl From<&Pool> for DeclaredPool {
    fn from(pool: &Pool) -> Self {
        let sources = pool.members.iter().map(|member| (member.source.clone(), member.weight));
        Self { account: Some(pool.account), name: pool.name.clone(), sources: sources.collect() }
    }
}

impl From<&ConfigurationSet> for DeclaredConfigurationSet {
    fn from(set: &ConfigurationSet) -> Self {
        Self {
            account: Some(set.account),
            name: set.name.clone(),
            tls: set.tls,
            pool: set.pool.clone(),
            max_lifetime: set.max_lifetime,
            retry: set.retry.clone(),
            per_recipient: set.per_recipient,
            suppressed_reasons: set.suppressed_reasons.clone(),
            tracking_domain: set.tracking_domain.clone(),
            reputation_metrics: set.reputation_metrics,
            tags: set.tags.clone(),
            event_destination: set.event_destinations.clone(),
        }
    }
}

impl From<&Identity> for DeclaredIdentity {
    fn from(identity: &Identity) -> Self {
        let mail_from = identity.mail_from.as_ref();
        Self {
            account: Some(identity.account),
            name: identity.name.clone(),
            trusted: identity.trusted,
            configuration_set: identity.default_configuration_set.clone(),
            dkim: identity.dkim.enabled,
            dkim_ed25519: identity.dkim.ed25519,
            mail_from: mail_from.map(|mail_from| mail_from.domain.clone()),
            mail_from_on_failure: mail_from.map(|mail_from| mail_from.on_failure).unwrap_or_default(),
            tags: identity.tags.clone(),
        }
    }
}

impl From<&Credential> for DeclaredCredential {
    fn from(credential: &Credential) -> Self {
        Self {
            account: Some(credential.account),
            user: credential.user_name.clone(),
            label: credential.label.clone(),
            disabled: credential.disabled,
            recipient_overflow: credential.recipient_overflow,
            sandbox: credential.sandbox,
            daily_quota: credential.daily_quota,
            max_rate: credential.max_rate,
        }
    }
}

impl From<(PolicyOwner, String, String)> for DeclaredPolicy {
    fn from((owner, name, document): (PolicyOwner, String, String)) -> Self {
        let (account, user, identity) = match owner {
            PolicyOwner::Credential(user) => (None, Some(user), None),
            PolicyOwner::Identity(account, identity) => (Some(account), None, Some(identity)),
        };
        Self { account, user, identity, name, document }
    }
}
