//! The things that a file declares, and how it spells them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use postrider_account::{EventDestination, IdentityName, MailFromFailure, RecipientOverflow, TlsPolicy};
use postrider_base::Period;
use postrider_mail::{AccountId, Domain, EmailAddress, SuppressionReason};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A file: each table is one thing and says all of it, what it does not say is as by default.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredState {
    /// Accounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub account: Vec<DeclaredAccount>,
    /// Pools of dedicated addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<DeclaredPool>,
    /// Configuration sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configuration_set: Vec<DeclaredConfigurationSet>,
    /// Identities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identity: Vec<DeclaredIdentity>,
    /// Credentials.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credential: Vec<DeclaredCredential>,
    /// Policies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<DeclaredPolicy>,
}

/// An account.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredAccount {
    /// Its number; none is the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<AccountId>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Who is written to about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<EmailAddress>,
    /// Whether it may write only to verified identities and to the simulator.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sandbox: bool,
    /// Most recipients in any 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_quota: Option<u64>,
    /// Most recipients a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<u32>,
    /// Which outcomes put an address on its suppression list.
    #[serde(default = "all_reasons", skip_serializing_if = "are_all")]
    pub suppressed_reasons: BTreeSet<SuppressionReason>,
    /// Whether rules may pause it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub auto_pause: bool,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// A pool of dedicated addresses.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredPool {
    /// Whose; none is the configuration's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// Its name.
    pub name: String,
    /// The sources in it, as the configuration names them, with their weights.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, u32>,
}

/// A configuration set.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredConfigurationSet {
    /// Whose; none is the configuration's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// Its name.
    pub name: String,
    /// Whether messages may leave in clear.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: TlsPolicy,
    /// The pool that they leave from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// How long delivery is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<Period>,
    /// The waits between attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Vec<Period>>,
    /// Each recipient gets a copy of its own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub per_recipient: bool,
    /// Which outcomes suppress, instead of the account's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed_reasons: Option<BTreeSet<SuppressionReason>>,
    /// Where links for tracking lead to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking_domain: Option<Domain>,
    /// Whether its outcomes are counted by themselves.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reputation_metrics: bool,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Who is told what becomes of its messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_destination: Vec<EventDestination>,
}

/// An identity.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredIdentity {
    /// Whose; none is the configuration's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// A domain or an address.
    pub name: IdentityName,
    /// It needs no proof.
    #[serde(default, skip_serializing_if = "is_false")]
    pub trusted: bool,
    /// The configuration set of messages that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_set: Option<String>,
    /// Whether its mail is signed.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub dkim: bool,
    /// Whether it gets a second signature, by Ed25519.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dkim_ed25519: bool,
    /// The domain of its return path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_from: Option<Domain>,
    /// What becomes of mail while that domain is not as it should be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mail_from_on_failure: MailFromFailure,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// A credential that was made before: its secret is in no file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredCredential {
    /// Whose; none is the configuration's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// Its user name.
    pub user: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// It is refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// What its messages with too many recipients meet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recipient_overflow: RecipientOverflow,
    /// Its messages may only go to verified identities and to the simulator.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sandbox: bool,
    /// Most recipients in any 24 hours, of what its account may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_quota: Option<u64>,
    /// Most recipients a second, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<u32>,
}

/// A policy of a credential or of an identity.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredPolicy {
    /// Whose the identity is; none is the configuration's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// The credential that it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The identity that it is attached to, if to no credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityName>,
    /// Its name.
    pub name: String,
    /// Its JSON.
    pub document: String,
}

/// One of those.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Declared {
    /// An account.
    Account(DeclaredAccount),
    /// A pool.
    Pool(DeclaredPool),
    /// A configuration set.
    ConfigurationSet(DeclaredConfigurationSet),
    /// An identity.
    Identity(DeclaredIdentity),
    /// A credential.
    Credential(DeclaredCredential),
    /// A policy.
    Policy(DeclaredPolicy),
}

/// What sort of thing, in the order in which they can be made.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum DeclaredKind {
    /// An account.
    Account,
    /// A pool.
    Pool,
    /// A configuration set.
    ConfigurationSet,
    /// An identity.
    Identity,
    /// A credential.
    Credential,
    /// A policy.
    Policy,
}

/// Which thing.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeclaredKey {
    /// What sort.
    pub kind: DeclaredKind,
    /// In whose state; none where the file does not say, and where it does not matter.
    pub account: Option<AccountId>,
    /// Its name there.
    pub name: String,
}

/// What makes a thing the one that it is; the rest are its fields.
const KEYS: [&str; 5] = ["account", "id", "identity", "name", "user"];

impl Declared {
    /// Which thing it is.
    #[must_use]
    pub fn key(&self) -> DeclaredKey {
        use DeclaredKind as Kind;
        let (kind, account, name) = match self {
            Self::Account(thing) => (Kind::Account, thing.id, String::new()),
            Self::Pool(thing) => (Kind::Pool, thing.account, thing.name.clone()),
            Self::ConfigurationSet(thing) => (Kind::ConfigurationSet, thing.account, thing.name.clone()),
            Self::Identity(thing) => (Kind::Identity, thing.account, thing.name.to_string()),
            // User names are the node's, not an account's.
            Self::Credential(thing) => (Kind::Credential, None, thing.user.clone()),
            Self::Policy(thing) => match (&thing.user, &thing.identity) {
                (Some(user), _) => (Kind::Policy, None, format!("{} of {user}", thing.name)),
                (None, Some(identity)) => (Kind::Policy, thing.account, format!("{} of {identity}", thing.name)),
                (None, None) => (Kind::Policy, thing.account, thing.name.clone()),
            },
        };
        DeclaredKey { kind, account, name }
    }

    /// Whose it is, to be read and to be changed.
    pub fn account_mut(&mut self) -> &mut Option<AccountId> {
        match self {
            Self::Account(thing) => &mut thing.id,
            Self::Pool(thing) => &mut thing.account,
            Self::ConfigurationSet(thing) => &mut thing.account,
            Self::Identity(thing) => &mut thing.account,
            Self::Credential(thing) => &mut thing.account,
            Self::Policy(thing) => &mut thing.account,
        }
    }

    /// What can be changed of it, as a file says it; without what is as by default.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        let value = match self {
            Self::Account(thing) => {
                let name = (!thing.name.is_empty()).then(|| Value::String(thing.name.clone()));
                let mut fields = all_fields(thing);
                fields.retain(|name, _| !KEYS.contains(&name.as_str()));
                fields.extend(name.map(|name| ("name".to_owned(), name)));
                return fields;
            }
            Self::Pool(thing) => all_fields(thing),
            Self::ConfigurationSet(thing) => all_fields(thing),
            Self::Identity(thing) => all_fields(thing),
            Self::Credential(thing) => all_fields(thing),
            Self::Policy(thing) => all_fields(thing),
        };
        value.into_iter().filter(|(name, _)| !KEYS.contains(&name.as_str())).collect()
    }
}

fn all_fields(thing: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(thing) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

impl DeclaredState {
    /// All things, in the order in which they can be made.
    #[must_use]
    pub fn into_things(self) -> Vec<Declared> {
        let accounts = self.account.into_iter().map(Declared::Account);
        let pools = self.pool.into_iter().map(Declared::Pool);
        let sets = self.configuration_set.into_iter().map(Declared::ConfigurationSet);
        let identities = self.identity.into_iter().map(Declared::Identity);
        let credentials = self.credential.into_iter().map(Declared::Credential);
        let policies = self.policy.into_iter().map(Declared::Policy);
        accounts.chain(pools).chain(sets).chain(identities).chain(credentials).chain(policies).collect()
    }

    /// The same from things.
    #[must_use]
    pub fn of(things: impl IntoIterator<Item = Declared>) -> Self {
        let mut state = Self::default();
        for thing in things {
            match thing {
                Declared::Account(thing) => state.account.push(thing),
                Declared::Pool(thing) => state.pool.push(thing),
                Declared::ConfigurationSet(thing) => state.configuration_set.push(thing),
                Declared::Identity(thing) => state.identity.push(thing),
                Declared::Credential(thing) => state.credential.push(thing),
                Declared::Policy(thing) => state.policy.push(thing),
            }
        }
        state
    }
}

impl DeclaredKind {
    /// What a file calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Pool => "pool",
            Self::ConfigurationSet => "configuration_set",
            Self::Identity => "identity",
            Self::Credential => "credential",
            Self::Policy => "policy",
        }
    }
}

impl fmt::Display for DeclaredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_str().replace('_', " ");
        match (self.kind, self.account) {
            (DeclaredKind::Account, Some(id)) => write!(f, "{kind} {id}"),
            (DeclaredKind::Account, None) => f.write_str(&kind),
            (_, Some(account)) => write!(f, "{kind} {} of account {account}", self.name),
            (_, None) => write!(f, "{kind} {}", self.name),
        }
    }
}

fn all_reasons() -> BTreeSet<SuppressionReason> {
    BTreeSet::from([SuppressionReason::Bounce, SuppressionReason::Complaint])
}

fn are_all(reasons: &BTreeSet<SuppressionReason>) -> bool {
    *reasons == all_reasons()
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
