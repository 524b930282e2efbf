//! Whether a message is taken: what is asked between the end of its content and its 250, in
//! this order.
//!
//! Each check is a small function with a refusal of its own, asks what is in memory at this
//! moment and keeps nothing: a change holds for the next message.

mod account;
mod authorization;
#[cfg(test)]
mod changes;
mod identity;
mod question;
pub(crate) mod quota;
mod sandbox;
mod sets;
mod source;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use postrider_account::{Accounts, ConfigurationSet, Realm, Resolved, UsedAddress};
use postrider_base::Timestamp;
use postrider_mail::{AccountId, Envelope};

use crate::header::Senders;
use crate::{Refusal, UnverifiedSenders};

pub use question::{Answer, Question};

/// A message, as far as the checks look at it.
pub(crate) struct Submitted<'a> {
    /// Whose it is.
    pub(crate) account: AccountId,
    /// The user name of the credential that sends it.
    pub(crate) credential: &'a str,
    pub(crate) envelope: &'a Envelope,
    pub(crate) senders: &'a Senders,
    /// The configuration set that it names.
    pub(crate) set: Option<&'a str>,
    /// Where it comes from, if that is known.
    pub(crate) client_ip: Option<IpAddr>,
    pub(crate) has_tls: bool,
    pub(crate) now: Timestamp,
}

/// What the checks have found out about a message.
#[derive(Debug, Default)]
pub(crate) struct Decision<'a> {
    /// Whom its author's address belongs to, where that is an identity of the account.
    pub(crate) resolved: Option<Resolved>,
    /// Whose keys sign it: the owner of its author's identity, where that is another account's.
    pub(crate) signer: Option<AccountId>,
    /// The rules that it is sent with.
    pub(crate) set: Option<Arc<ConfigurationSet>>,
    /// The addresses that it is sent as, and as what.
    used: Vec<UsedAddress<'a>>,
}

/// The rules that decide whether a message is taken, but for what is asked of its content, of
/// filters and of quotas. A cheap handle.
#[derive(Clone, Debug)]
pub struct Rules {
    accounts: Accounts,
    /// Where the relay is, in ARNs and in refusals.
    realm: Realm,
    unverified_senders: UnverifiedSenders,
    /// Below which the simulator is.
    operator_domain: String,
}

/// One of the checks: what it looks at, in a word, and how.
struct Check {
    name: &'static str,
    ask: for<'a> fn(&Rules, &Submitted<'a>, &mut Decision<'a>) -> Result<(), Refusal>,
}

/// All of them. What talks to others (attachments, filters) and what takes from something
/// (quotas) comes behind them.
const CHECKS: [Check; 5] = [
    Check { name: "account", ask: account::may_send },
    Check { name: "senders", ask: identity::may_be_used },
    Check { name: "policies", ask: policies_let_it },
    Check { name: "configuration-set", ask: sets::may_send },
    Check { name: "recipients", ask: sandbox::lets_it },
];

impl Rules {
    /// # Errors
    /// The refusal of the first check that is not passed.
    pub(crate) fn decide<'a>(&self, submitted: &Submitted<'a>) -> Result<Decision<'a>, Refusal> {
        let mut decision = Decision::default();
        CHECKS.iter().try_for_each(|check| (check.ask)(self, submitted, &mut decision))?;
        Ok(decision)
    }
}

fn policies_let_it<'a>(rules: &Rules, submitted: &Submitted<'a>, decision: &mut Decision<'a>) -> Result<(), Refusal> {
    authorization::credential_may(submitted, &rules.accounts, &rules.realm, &decision.used)
}
