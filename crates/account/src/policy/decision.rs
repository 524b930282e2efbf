//! What the policies of a credential, and of the identities that a message is sent from, come
//! to.

use std::net::IpAddr;

use postrider_base::Timestamp;
use postrider_mail::{AccountId, EmailAddress};

use super::{Policies, PolicyRequest, PolicySet, PolicyVerdict, SEND_RAW_EMAIL};
use crate::{Arn, Identities, Identity, IdentityName, Realm, Resolved};

/// What an address does in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderRole {
    /// The envelope sender: bounces go there.
    Source,
    /// An author.
    From,
    /// Who sent it for the author.
    Sender,
    /// Where a client says that bounces go.
    ReturnPath,
}

/// An address that a message is sent from.
#[derive(Clone, Debug)]
pub struct UsedAddress<'a> {
    /// The address.
    pub address: &'a EmailAddress,
    /// The name beside an author's address, decoded.
    pub name: Option<&'a str>,
    /// What it does.
    pub role: SenderRole,
    /// The identity that it belongs to; none where any address may be sent from.
    pub identity: Option<UsedIdentity>,
}

/// An identity that covers an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedIdentity {
    /// Whose it is.
    pub owner: AccountId,
    /// The identity, and the domain that it lies in.
    pub resolved: Resolved,
    /// The one of those two that the message names, where it does.
    pub named: Option<IdentityName>,
}

/// A message, as policies see it.
#[derive(Clone, Debug)]
pub struct SendingRequest<'a> {
    /// The account of the credential.
    pub account: AccountId,
    /// The user name of the credential.
    pub user_name: &'a str,
    /// Where ARNs are.
    pub realm: &'a Realm,
    /// All addresses that it is sent from.
    pub used: &'a [UsedAddress<'a>],
    /// Everybody that it goes to.
    pub recipients: &'a [&'a EmailAddress],
    /// The client's address.
    pub source_ip: Option<IpAddr>,
    /// Whether the client's connection is encrypted.
    pub is_secure: bool,
    /// When it came.
    pub now: Timestamp,
}

/// What policies say about sending in the name of one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDecision {
    /// The identity: of another account's the one that is named, of the account's own the most
    /// specific. What stands for it where there is none is the address.
    pub resource: Arn,
    /// What the policies of the credential say; none when it has none, and may do all. One that
    /// has been deleted or disabled may do nothing.
    pub credential: Option<PolicyVerdict>,
    /// The identity whose policies decide, and what they say; none when none says anything.
    pub identity: Option<(IdentityName, PolicyVerdict)>,
    /// Whether the identity is another account's, which must allow what it did not forbid.
    pub is_foreign: bool,
}

impl PolicyDecision {
    /// Whether it may be sent.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        let by_identity = match &self.identity {
            Some((_, verdict)) => matches!(verdict, PolicyVerdict::Allow(_)),
            None => !self.is_foreign,
        };
        by_identity && matches!(self.credential, None | Some(PolicyVerdict::Allow(_)))
    }

    /// What a user hears whom policies do not let send, in SES's words.
    #[must_use]
    pub fn denial(user: &Arn, resource: &Arn) -> String {
        format!("User `{user}' is not authorized to perform `{SEND_RAW_EMAIL}' on resource `{resource}'")
    }
}

impl UsedIdentity {
    /// The identity of this name and account, when mail from the address belongs to it or to
    /// the domain of that name. The identity of an address and that of its domain stand for
    /// each other here: which of the two allows it, their policies say.
    #[must_use]
    pub fn named(
        identities: &Identities,
        owner: AccountId,
        name: IdentityName,
        address: &EmailAddress,
    ) -> Option<Self> {
        let resolved = identities.resolve(owner, address)?;
        let is_it = |identity: &Identity| identity.name == name;
        let covers = is_it(&resolved.identity) || resolved.domain_identity.as_ref().is_some_and(|domain| is_it(domain));
        covers.then_some(Self { owner, resolved, named: Some(name) })
    }

    /// The one whose rights are used. Only another account's is chosen by who sends.
    fn name(&self, account: AccountId) -> &IdentityName {
        let named = self.named.as_ref().filter(|_| self.owner != account);
        named.unwrap_or(&self.resolved.identity.name)
    }

    /// All whose policies have a say, the most specific first.
    fn names(&self) -> impl Iterator<Item = &IdentityName> {
        self.resolved.covering.iter().map(|identity| &identity.name)
    }
}

impl SendingRequest<'_> {
    /// Whether no policy has a say: the credential is there, neither it nor one of the
    /// identities has any, and all are the account's own. Cheaper than to ask them.
    #[must_use]
    pub fn needs_no_policy(&self, policies: &Policies) -> bool {
        let is_plain = |used: &UsedIdentity| {
            used.owner == self.account && used.names().all(|name| policies.of_identity(used.owner, name).is_none())
        };
        policies.of_credential(self.user_name).is_none()
            && policies.know_credential(self.user_name)
            && self.used.iter().filter_map(|used| used.identity.as_ref()).all(is_plain)
    }

    /// What the policies say about each identity, with each author and each address that
    /// bounces go to. The message may be sent when all of it is allowed.
    #[must_use]
    pub fn decisions(&self, policies: &Policies) -> Vec<PolicyDecision> {
        let principal = self.realm.user(self.account, self.user_name);
        let authors = or_none(self.of_roles(&[SenderRole::From], |used| (used.address, used.name)));
        let feedback = or_none(self.of_roles(&[SenderRole::Source, SenderRole::ReturnPath], |used| used.address));
        let mut decisions = Vec::new();
        for used in self.used {
            let resource = used.resource(self.account, self.realm);
            let own = [Some((used.address, used.name))];
            let authors = if used.role == SenderRole::From { &own[..] } else { &authors };
            for (from, feedback) in authors.iter().flat_map(|from| feedback.iter().map(move |to| (*from, *to))) {
                let request = PolicyRequest {
                    action: SEND_RAW_EMAIL,
                    resource: &resource,
                    account: self.account,
                    user_name: self.user_name,
                    principal: &principal,
                    from: from.map(|(address, _)| address),
                    from_display_name: from.and_then(|(_, name)| name),
                    feedback,
                    recipients: self.recipients,
                    source_ip: self.source_ip,
                    is_secure: self.is_secure,
                    user_agent: None,
                    now: self.now,
                };
                let decision = used.decide(policies, self.realm, &request);
                if decisions.last() != Some(&decision) {
                    decisions.push(decision);
                }
            }
        }
        decisions
    }

    fn of_roles<'u, T>(&'u self, roles: &[SenderRole], take: impl Fn(&'u UsedAddress<'u>) -> T) -> Vec<T> {
        self.used.iter().filter(|used| roles.contains(&used.role)).map(take).collect()
    }
}

impl UsedAddress<'_> {
    fn resource(&self, account: AccountId, realm: &Realm) -> Arn {
        match &self.identity {
            Some(used) => realm.identity(used.owner, used.name(account)),
            None => realm.identity(account, &IdentityName::Address(self.address.unquoted().into_owned())),
        }
    }

    /// The policies of an address beat those of its domain, both ways: those of the first that
    /// says anything decide.
    fn decide(&self, policies: &Policies, realm: &Realm, request: &PolicyRequest<'_>) -> PolicyDecision {
        let owner = self.identity.as_ref().map_or(request.account, |used| used.owner);
        let mut names = self.identity.iter().flat_map(UsedIdentity::names);
        let identity = names.find_map(|name| match policies.of_identity(owner, name)?.authorize(request) {
            PolicyVerdict::NoMatch => None,
            verdict => Some((name.clone(), verdict)),
        });
        let credential = match policies.of_credential(request.user_name) {
            _ if !policies.know_credential(request.user_name) => Some(PolicyVerdict::NoMatch),
            set => set.map(|set| self.limited(&set, realm, request)),
        };
        PolicyDecision {
            resource: request.resource.clone(),
            credential,
            identity,
            is_foreign: owner != request.account,
        }
    }

    /// What the credential's policies say of the identity that is used. That they deny a more
    /// specific one holds as well: who sends could name another, and it may not be verified yet.
    fn limited(&self, set: &PolicySet, realm: &Realm, request: &PolicyRequest<'_>) -> PolicyVerdict {
        let verdict = set.authorize(request);
        let Some(used) = self.identity.as_ref().filter(|_| !matches!(verdict, PolicyVerdict::Deny(_))) else {
            return verdict;
        };
        let is_used = used.name(request.account);
        let denied = used.names().take_while(|name| *name != is_used).find_map(|name| {
            let resource = &realm.identity(used.owner, name);
            let verdict = set.authorize(&PolicyRequest { resource, ..*request });
            matches!(verdict, PolicyVerdict::Deny(_)).then_some(verdict)
        });
        denied.unwrap_or(verdict)
    }
}

/// The different ones, or that there is none.
fn or_none<T: Ord>(mut values: Vec<T>) -> Vec<Option<T>> {
    values.sort_unstable();
    values.dedup();
    if values.is_empty() { vec![None] } else { values.into_iter().map(Some).collect() }
}
