//! Operations on policies of credentials and identities.

use std::net::IpAddr;

use postrider_account::{
    Accounts, Arn, Deciding, PolicyDecision, PolicyOwner, PolicyVerdict, Realm, SenderRole, SendingRequest,
    UsedAddress, UsedIdentity,
};
use postrider_base::Timestamp;
use postrider_mail::{AccountId, EmailAddress};
use serde::{Deserialize, Serialize};

use crate::control::Deps;
use crate::{Error, Response, moment};

/// Actions on policies.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyOperation {
    /// Takes a policy away.
    Delete {
        /// What it is attached to.
        owner: PolicyOwner,
        /// What it is called.
        name: String,
    },
    /// All policies of a credential or identity.
    List {
        /// Of which.
        owner: PolicyOwner,
    },
    /// Attaches a policy, in the place of one of the same name.
    Put {
        /// To what.
        owner: PolicyOwner,
        /// What it is called.
        name: String,
        /// Its JSON.
        text: String,
    },
    /// One policy.
    Show {
        /// What it is attached to.
        owner: PolicyOwner,
        /// What it is called.
        name: String,
    },
    /// What the policies would say about a message.
    Test(Box<PolicyTestRequest>),
}

/// A message that policies are asked about.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PolicyTestRequest {
    /// The user name of the credential that submits it.
    pub credential: String,
    /// The address in From.
    pub from: EmailAddress,
    /// The name beside it.
    pub name: Option<String>,
    /// All recipients.
    pub to: Vec<EmailAddress>,
    /// The envelope sender; without it, the address in From.
    pub return_path: Option<EmailAddress>,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// When; without it, now.
    #[serde(with = "moment::optional")]
    pub at: Option<Timestamp>,
    /// Whether the connection is encrypted.
    pub is_secure: bool,
    /// What the message names in X-SES-SOURCE-ARN.
    pub source_arn: Option<String>,
}

/// A policy.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PolicyRow {
    /// What it is called.
    pub name: String,
    /// Its JSON, as it was given.
    pub text: String,
}

/// What the policies say about a message.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PolicyTest {
    /// Whether they let it be sent.
    pub allowed: bool,
    /// What the client would hear when they do not.
    pub reply: Option<String>,
    /// By identity that it is sent from.
    pub decisions: Vec<PolicyTestRow>,
}

/// What the policies say about one identity.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PolicyTestRow {
    /// The identity; where there is none, as if the address were one.
    pub resource: Arn,
    /// Whether it may be used.
    pub allowed: bool,
    /// What the policies of the credential say.
    pub credential: PolicyWords,
    /// What the policies of the identity say.
    pub identity: PolicyWords,
}

/// What the policies of one credential or identity say.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PolicyWords {
    /// A word of a closed set: `allow`; `deny`; `no-match`: none is about it, and it needs to be
    /// allowed; `silent`: none is about it, and none needs to be.
    pub verdict: String,
    /// The identity whose policies decided: the address, or its domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The number of its statement, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<usize>,
    /// The statement's `Sid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
}

impl PolicyOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Delete { .. } => "policies-delete",
            Self::List { .. } => "policies-list",
            Self::Put { .. } => "policies-put",
            Self::Show { .. } => "policies-show",
            Self::Test(_) => "policies-test",
        }
    }

    pub(crate) async fn execute(self, deps: &Deps) -> Result<Response, Error> {
        let policies = deps.accounts.policies();
        Ok(match self {
            Self::Delete { owner, name } => {
                policies.delete(&owner, &name).await?;
                Response::Changed { count: 1 }
            }
            Self::List { owner } => Response::Policies(rows(&deps.accounts, &owner)?),
            Self::Put { owner, name, text } => {
                policies.put(&owner, &name, &text, &deps.about.realm()).await?;
                Response::Changed { count: 1 }
            }
            Self::Show { owner, name } => {
                let found = rows(&deps.accounts, &owner)?.into_iter().find(|row| row.name == name);
                let absent = || Error::NotFound(format!("{owner} has no policy {name:?}"));
                Response::Policies(vec![found.ok_or_else(absent)?])
            }
            Self::Test(request) => {
                let now = request.at.unwrap_or_else(|| deps.world.clock.now());
                Response::PolicyTest(Box::new(test(&deps.accounts, &deps.about.realm(), &request, now)?))
            }
        })
    }
}

fn rows(accounts: &Accounts, owner: &PolicyOwner) -> Result<Vec<PolicyRow>, Error> {
    let is_there = match owner {
        PolicyOwner::Credential(user_name) => accounts.credentials().get(user_name).is_some(),
        PolicyOwner::Identity(account, name) => accounts.identities().find(*account, name).is_some(),
    };
    if !is_there {
        return Err(Error::NotFound(format!("there is no {owner}")));
    }
    let set = accounts.policies().of(owner);
    let policies = set.iter().flat_map(|set| set.policies());
    Ok(policies.map(|policy| PolicyRow { name: policy.name().to_owned(), text: policy.text().to_owned() }).collect())
}

fn test(accounts: &Accounts, realm: &Realm, request: &PolicyTestRequest, now: Timestamp) -> Result<PolicyTest, Error> {
    let user_name = &request.credential;
    let credential = accounts.credentials().get(user_name);
    let account = credential.ok_or_else(|| Error::NotFound(format!("there is no credential {user_name:?}")))?.account;
    let return_path = request.return_path.as_ref().unwrap_or(&request.from);
    let senders = [(return_path, SenderRole::Source), (&request.from, SenderRole::From)];
    let mut used = Vec::with_capacity(senders.len());
    for (address, role) in senders {
        let name = request.name.as_deref().filter(|_| role == SenderRole::From);
        used.push(UsedAddress { address, name, role, identity: identity(accounts, realm, account, request, address)? });
    }
    let recipients: Vec<_> = request.to.iter().collect();
    let decisions = SendingRequest {
        account,
        user_name,
        realm,
        used: &used,
        recipients: &recipients,
        source_ip: request.ip,
        is_secure: request.is_secure,
        now,
    }
    .decisions(accounts.policies());
    let denied = decisions.iter().find(|decision| !decision.is_allowed());
    let user = realm.user(account, user_name);
    Ok(PolicyTest {
        allowed: denied.is_none(),
        reply: denied.map(|denied| format!("554 Access denied: {}", PolicyDecision::denial(&user, &denied.resource))),
        decisions: decisions.iter().map(PolicyTestRow::from).collect(),
    })
}

/// The identity that the message names, else that of the account.
fn identity(
    accounts: &Accounts,
    realm: &Realm,
    account: AccountId,
    request: &PolicyTestRequest,
    address: &EmailAddress,
) -> Result<Option<UsedIdentity>, Error> {
    let Some(text) = &request.source_arn else {
        let own = accounts.identities().resolve(account, address);
        return Ok(own.map(|resolved| UsedIdentity { owner: account, resolved, named: None }));
    };
    let invalid = |error| Error::Invalid(format!("X-SES-SOURCE-ARN: {error}"));
    let arn: Arn = text.parse().map_err(invalid)?;
    let (owner, name) = realm.identity_of(&arn).map_err(invalid)?;
    let found = UsedIdentity::named(accounts.identities(), owner, name.clone(), address);
    let absent = || Error::NotFound(format!("account {owner} has no identity {name} that {address} belongs to"));
    Ok(Some(found.ok_or_else(absent)?))
}

impl From<&PolicyDecision> for PolicyTestRow {
    fn from(decision: &PolicyDecision) -> Self {
        let credential = match &decision.credential {
            Some(verdict) => PolicyWords::of(verdict),
            None => PolicyWords::without("silent"),
        };
        let identity = match &decision.identity {
            Some((name, verdict)) => PolicyWords { of: Some(name.to_string()), ..PolicyWords::of(verdict) },
            None => PolicyWords::without(if decision.is_foreign { "no-match" } else { "silent" }),
        };
        Self { resource: decision.resource.clone(), allowed: decision.is_allowed(), credential, identity }
    }
}

impl PolicyWords {
    fn without(verdict: &str) -> Self {
        Self { verdict: verdict.to_owned(), ..Self::default() }
    }

    fn of(verdict: &PolicyVerdict) -> Self {
        let by = |verdict: &str, deciding: &Deciding| Self {
            verdict: verdict.to_owned(),
            of: None,
            policy: Some(deciding.policy.clone()),
            statement: Some(deciding.statement),
            sid: deciding.sid.clone(),
        };
        match verdict {
            PolicyVerdict::Allow(deciding) => by("allow", deciding),
            PolicyVerdict::Deny(deciding) => by("deny", deciding),
            PolicyVerdict::NoMatch => Self::without("no-match"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_whole() {
        let owner = PolicyOwner::Identity(AccountId::default(), "example.com".parse().unwrap());
        let put = PolicyOperation::Put { owner, name: "a".into(), text: "{}".into() };
        let text = serde_json::to_string(&put).unwrap();
        assert_eq!(text, r#"{"put":{"owner":{"identity":["000000000001","example.com"]},"name":"a","text":"{}"}}"#);
        assert_eq!(serde_json::from_str::<PolicyOperation>(&text).unwrap(), put);
        let request = PolicyTestRequest {
            credential: "AKIA".into(),
            from: "a@example.com".parse().unwrap(),
            name: None,
            to: vec!["b@example.com".parse().unwrap()],
            return_path: None,
            ip: None,
            at: Some(Timestamp::from_millis(1_000)),
            is_secure: true,
            source_arn: None,
        };
        let test = PolicyOperation::Test(Box::new(request));
        let text = serde_json::to_string(&test).unwrap();
        assert_eq!(serde_json::from_str::<PolicyOperation>(&text).unwrap(), test);
    }
}
