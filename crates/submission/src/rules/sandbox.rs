//! The sandbox: whoever is in it writes only to their own verified identities and to the
//! simulator.

use postrider_account::Resolved;
use postrider_mail::{AccountId, EmailAddress, is_simulator};

use super::{Decision, Rules, Submitted};
use crate::Refusal;

pub(super) fn lets_it(rules: &Rules, submitted: &Submitted<'_>, decision: &mut Decision<'_>) -> Result<(), Refusal> {
    let refused = unverified(rules, submitted, decision);
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Refusal::NotVerified { identities: refused, region: rules.realm.region.clone() }),
    }
}

/// The recipients that the sandbox refuses. In the sandbox are mail of an account that is, of a
/// credential that is, and mail as an identity whose owner is.
pub(super) fn unverified(rules: &Rules, submitted: &Submitted<'_>, decision: &Decision<'_>) -> Vec<String> {
    let is_sandboxed = |account: AccountId| rules.accounts.tenants().find(account).sandbox;
    let credentials = rules.accounts.credentials();
    let mut owners = decision.used.iter().filter_map(|used| used.identity.as_ref()).map(|identity| identity.owner);
    if !is_sandboxed(submitted.account)
        && !credentials.is_sandboxed(submitted.credential)
        && !owners.any(|owner| owner != submitted.account && is_sandboxed(owner))
    {
        return Vec::new();
    }
    let may_receive = |address: &EmailAddress| {
        let resolve = || rules.accounts.identities().resolve(submitted.account, address);
        is_simulator(address.domain(), &rules.operator_domain) || resolve().as_ref().is_some_and(Resolved::is_verified)
    };
    let recipients = submitted.envelope.recipients.iter().map(|recipient| &recipient.address);
    recipients.filter(|address| !may_receive(address)).map(ToString::to_string).collect()
}
