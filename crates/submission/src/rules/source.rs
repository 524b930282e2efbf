//! Which identity a message is sent from, as events say.

use postrider_account::{IdentityName, SenderRole, UsedAddress};

use super::{Decision, Rules, Submitted};

impl Rules {
    /// The ARN of the identity of the author's address, without one of the envelope's sender:
    /// the most specific one, of its owner's account. What a message names as its source by an
    /// ARN comes first. Nothing where it is just the domain, in the sender's account: that is
    /// seen from the message.
    pub(crate) fn source_arn(&self, submitted: &Submitted<'_>, decision: &Decision<'_>) -> Option<String> {
        let in_role = |role| decision.used.iter().find(move |used| used.role == role);
        let (source, from) = (in_role(SenderRole::Source), in_role(SenderRole::From));
        let named = |used: &&UsedAddress<'_>| used.identity.as_ref().is_some_and(|identity| identity.named.is_some());
        let seen = from.or(source)?;
        let used = source.filter(named).unwrap_or(seen);
        let identity = used.identity.as_ref()?;
        let most_specific = &identity.resolved.identity.name;
        let is_own = identity.owner == submitted.account;
        if is_own && matches!(most_specific, IdentityName::Domain(domain) if domain == seen.address.domain()) {
            return None;
        }
        let name = identity.named.as_ref().unwrap_or(most_specific);
        Some(self.realm.identity(identity.owner, name).to_string())
    }
}
