//! The mailbox simulator: which domains are its, and what its mailboxes do.

use crate::{Domain, EmailAddress};

/// SES's mailbox simulator, which stands for ours too: programs have its addresses built in.
pub const SES_SIMULATOR: &str = "simulator.amazonses.com";

/// Whether mail to this domain is for the mailbox simulator: SES's name for it, or
/// `simulator.` before the operator's domain. It is never looked up in the DNS and leaves this
/// host never, so it counts in no quota and in no rate.
#[must_use]
pub fn is_simulator(domain: &Domain, operator_domain: &str) -> bool {
    let name = domain.as_str();
    let own = || name.strip_prefix("simulator.").is_some_and(|rest| rest.eq_ignore_ascii_case(operator_domain));
    name == SES_SIMULATOR || own()
}

/// A mailbox of the simulator, as SES has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedMailbox {
    /// `success`: takes mail.
    Success,
    /// `bounce`: does not exist.
    Bounce,
    /// `complaint`: takes mail, and complains about it.
    Complaint,
    /// `ooto`: takes mail, and answers that nobody is in the office.
    OutOfOffice,
    /// `suppressionlist`: bounces as if it were on the global suppression list.
    SuppressionList,
}

impl SimulatedMailbox {
    /// Which one an address is, with or without a label; none of another domain, or when the
    /// simulator has no such mailbox.
    #[must_use]
    pub fn of(address: &EmailAddress, operator_domain: &str) -> Option<Self> {
        if !is_simulator(address.domain(), operator_domain) {
            return None;
        }
        let base = address.without_label();
        match base.as_ref().unwrap_or(address).local().to_ascii_lowercase().as_str() {
            "success" => Some(Self::Success),
            "bounce" => Some(Self::Bounce),
            "complaint" => Some(Self::Complaint),
            "ooto" => Some(Self::OutOfOffice),
            "suppressionlist" => Some(Self::SuppressionList),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_are_the_simulators_and_no_others() {
        let is = |domain: &str| is_simulator(&domain.parse().unwrap(), "Example.com");
        assert!(is("simulator.amazonses.com") && is("SIMULATOR.amazonSES.com"));
        assert!(is("simulator.example.com"));
        for other in ["amazonses.com", "a.simulator.amazonses.com", "simulator.example.net", "example.com", "simulator"]
        {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn mailboxes_have_labels_and_no_case() {
        let of = |address: &str| SimulatedMailbox::of(&address.parse().unwrap(), "example.com");
        assert_eq!(of("bounce@simulator.amazonses.com"), Some(SimulatedMailbox::Bounce));
        assert_eq!(of("Bounce+label1@simulator.example.com"), Some(SimulatedMailbox::Bounce));
        assert_eq!(of("suppressionlist@simulator.example.com"), Some(SimulatedMailbox::SuppressionList));
        for other in ["bounce@example.com", "bounces@simulator.amazonses.com", "bounce@simulator.example.net"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
