//! What the policies of a credential and of an identity come to.

use postrider_mail::AccountId;

use super::{Policies, PolicyRequest, PolicyVerdict};
use crate::IdentityName;

/// What policies say about sending in the name of one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDecision {
    /// What the policies of the credential say; none when it has none, and may all.
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
}

impl Policies {
    /// Whether a credential may send in the name of an account's identity. `names` are that
    /// identity and the domain that it lies in: the policies of the first that says anything
    /// decide, so that those of an address beat those of its domain, both ways.
    #[must_use]
    pub fn decide(&self, request: &PolicyRequest<'_>, owner: AccountId, names: &[&IdentityName]) -> PolicyDecision {
        let credential = self.of_credential(request.user_name);
        let identity = names.iter().find_map(|name| match self.of_identity(owner, name)?.authorize(request) {
            PolicyVerdict::NoMatch => None,
            verdict => Some(((*name).clone(), verdict)),
        });
        PolicyDecision {
            credential: credential.map(|set| set.authorize(request)),
            identity,
            is_foreign: owner != request.account,
        }
    }

    /// Whether no policy has a say in what a credential does with these identities of its own
    /// account. Cheaper than [`Policies::decide`].
    #[must_use]
    pub fn are_silent<'a>(
        &self,
        user_name: &str,
        account: AccountId,
        mut names: impl Iterator<Item = &'a IdentityName>,
    ) -> bool {
        self.of_credential(user_name).is_none() && names.all(|name| self.of_identity(account, name).is_none())
    }
}
