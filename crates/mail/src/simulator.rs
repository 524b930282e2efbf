//! Which domains are the mailbox simulator's.

use crate::Domain;

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
}
