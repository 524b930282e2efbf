//! What a policy makes of the hosts that a domain's mail may go to.

use std::sync::Arc;

use postrider_mail::Domain;

use crate::finding::Finding;
use crate::lane::Demand;
use crate::route::Host;
use crate::sts::policy::{Mode, Policy};
use crate::target::Target;

/// Where the mail of a domain goes, or why it goes nowhere.
#[derive(Clone)]
pub(crate) struct Way {
    /// By the domain's policy.
    target: Result<Arc<Target>, Finding>,
    /// For messages whose senders want them delivered all the same (RFC 8689
    /// section 3), where that makes a difference.
    waived: Option<Arc<Target>>,
}

impl Way {
    /// The same for all messages.
    pub(crate) fn of(target: Arc<Target>) -> Self {
        Self { target: Ok(target), waived: None }
    }

    /// Whether the policy names none of the domain's hosts.
    pub(crate) fn is_closed(&self) -> bool {
        self.target.is_err()
    }

    /// The way of messages whose senders ask this of TLS.
    pub(crate) fn for_demand(&self, demand: Demand) -> Result<&Arc<Target>, &Finding> {
        match &self.waived {
            Some(target) if demand == Demand::Waived => Ok(target),
            _ => self.target.as_ref(),
        }
    }
}

/// The way to the hosts of `target`, which the DNS named, under the policy of
/// `domain`. What is left of them is a target of its own; `named` gives each its name.
pub(crate) fn apply(target: Target, domain: &Domain, policy: Option<&Policy>, named: impl Fn(Target) -> Target) -> Way {
    let Some(policy) = policy.filter(|policy| policy.mode == Mode::Enforce) else {
        return Way::of(Arc::new(named(target)));
    };
    let allowed = |host: &Host| matches!(host, Host::Name(name) if policy.allows(name));
    let hosts = target.hosts.iter().map(|group| group.iter().filter(|host| allowed(host)).cloned().collect::<Vec<_>>());
    let hosts: Vec<_> = hosts.filter(|group| !group.is_empty()).collect();
    let enforced = match hosts.is_empty() {
        true => {
            let text = format!("no mail host of {domain} is named by its MTA-STS policy");
            Err(Finding::no_tls(&text))
        }
        false => Ok(Arc::new(named(Target::of_hosts(hosts, target.proved, true)))),
    };
    Way { target: enforced, waived: Some(Arc::new(named(target))) }
}
