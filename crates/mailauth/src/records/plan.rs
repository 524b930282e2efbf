//! From what the relay knows to what is to be published.

use std::collections::BTreeSet;
use std::net::IpAddr;

use postrider_mail::{Domain, EmailAddress};

use super::{Data, Need, Place, Plan, Record, TTL, reverse_name, spf};

/// What a plan is made from.
#[derive(Clone, Debug)]
pub struct PlanInput {
    /// The domain that mail is sent from.
    pub domain: Domain,
    /// Its DKIM keys.
    pub keys: Vec<PlannedKey>,
    /// Its own MAIL FROM domain.
    pub mail_from: Option<Domain>,
    /// The relay's own domain of return paths, for mail without a MAIL FROM domain; none where
    /// return paths are what clients say.
    pub return_path: Option<Domain>,
    /// The host that takes bounces: what the MX records of these domains name.
    pub bounce_host: Domain,
    /// The domain of whoever runs the relay: `_spf` below it lists the sources.
    pub operator_domain: Option<Domain>,
    /// The addresses that mail leaves from, with the names that they go by.
    pub sources: Vec<PlannedSource>,
    /// Who reads the DMARC reports.
    pub dmarc_reports: Option<EmailAddress>,
    /// Who reads the reports on TLS.
    pub tls_reports: Option<EmailAddress>,
}

/// A DKIM key to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedKey {
    /// Where: `<selector>._domainkey.<domain>`.
    pub selector: String,
    /// The text to publish there (RFC 6376 section 3.6.1).
    pub record: String,
    /// The text of the key that had the selector before, where that may go.
    pub replaces: Option<String>,
    /// Why it is to be published, in one line.
    pub why: String,
}

/// An address that mail leaves from.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedSource {
    /// The address.
    pub address: IpAddr,
    /// The name that it gives in EHLO, and that its reverse DNS is to give.
    pub host: String,
}

/// What to publish. Each record says why.
#[must_use]
pub fn plan(input: &PlanInput) -> Plan {
    let mut plan = Plan { domain: input.domain.to_string(), records: Vec::new(), notes: Vec::new() };
    plan.dkim(input);
    plan.mail_from(input);
    plan.domain_spf(input);
    plan.dmarc(input);
    plan.transport(input);
    plan.return_path(input);
    plan.operator_spf(input);
    plan.hosts(input);
    plan
}

impl Plan {
    fn add(&mut self, name: String, data: Data, place: Place, need: Need, why: impl Into<String>) {
        self.records.push(Record { name, data, ttl: TTL, place, need, why: why.into(), replaces: None, state: None });
    }

    fn dkim(&mut self, input: &PlanInput) {
        if input.keys.is_empty() {
            self.notes.push(format!("{} has no DKIM key: nothing of it can be signed", input.domain));
        }
        for key in &input.keys {
            let name = format!("{}._domainkey.{}", key.selector, input.domain);
            self.add(name, Data::Txt(key.record.clone()), Place::Domain, Need::Must, key.why.clone());
            if let Some(record) = self.records.last_mut() {
                record.replaces.clone_from(&key.replaces);
            }
        }
    }

    /// SES wants exactly one MX record, and an SPF record for the domain that the envelope names.
    fn mail_from(&mut self, input: &PlanInput) {
        let Some(domain) = &input.mail_from else { return };
        let mx = Data::Mx { preference: 10, exchange: input.bounce_host.to_string() };
        let why = "bounces come back to the relay; it must be the only MX record there";
        self.add(domain.to_string(), mx, Place::Domain, Need::Must, why);
        let Some(mechanism) = mechanism(input) else { return };
        let text = Data::Txt(format!("v=spf1 {mechanism} ~all"));
        let why = "SPF of the MAIL FROM domain: with it SPF passes, aligned with the From domain";
        self.add(domain.to_string(), text, Place::Domain, Need::Must, why);
    }

    /// What a MAIL FROM domain needs, for the domain that stands in where there is none.
    fn return_path(&mut self, input: &PlanInput) {
        let Some(domain) = input.return_path.as_ref().filter(|domain| input.mail_from.as_ref() != Some(*domain)) else {
            return;
        };
        let mx = Data::Mx { preference: 10, exchange: input.bounce_host.to_string() };
        let why =
            "bounces of mail without a MAIL FROM domain come back to the relay; it must be the only MX record there";
        self.add(domain.to_string(), mx, Place::Operator, Need::Must, why);
        let Some(mechanism) = mechanism(input) else { return };
        let text = Data::Txt(format!("v=spf1 {mechanism} ~all"));
        let why = "SPF of the domain that return paths are in without a MAIL FROM domain";
        self.add(domain.to_string(), text, Place::Operator, Need::Must, why);
    }

    /// Counts where the envelope names the domain itself: where clients say what it names.
    fn domain_spf(&mut self, input: &PlanInput) {
        let Some(mechanism) = mechanism(input) else {
            self.notes.push("no source address is configured, so SPF cannot be planned: see [delivery.sources]".into());
            return;
        };
        let cost = match &input.operator_domain {
            Some(_) => {
                let addresses: Vec<_> = input.sources.iter().map(|source| source.address).collect();
                format!("; it costs {} of the 10 DNS lookups that SPF allows", spf::lookups(&addresses))
            }
            None => String::new(),
        };
        let (need, when) = match (&input.return_path, &input.mail_from) {
            (Some(_), _) => (Need::May, "SPF of the domain itself, for a time when return paths are what clients say"),
            (None, Some(_)) => {
                (Need::May, "SPF of the domain itself, for mail that leaves without the MAIL FROM domain")
            }
            (None, None) => (Need::Should, "SPF of the domain itself: envelopes name it"),
        };
        let why = format!("{when}; put the term into the record that is there, as there may be one alone{cost}");
        let text = Data::Txt(format!("v=spf1 {mechanism} ~all"));
        self.add(input.domain.to_string(), text, Place::Domain, need, why);
    }

    fn dmarc(&mut self, input: &PlanInput) {
        let name = format!("_dmarc.{}", input.domain);
        let reports = input.dmarc_reports.as_ref();
        let rua = reports.map_or_else(String::new, |address| format!("; rua=mailto:{address}"));
        let why =
            "large receivers ask for a DMARC policy; begin with none, read the reports, then quarantine and reject";
        self.add(name, Data::Txt(format!("v=DMARC1; p=none{rua}")), Place::Domain, Need::Should, why);
        let Some(elsewhere) = reports.map(|address| address.domain()).filter(|to| !is_within(to, &input.domain)) else {
            return;
        };
        // RFC 7489 section 7.1
        let name = format!("{}._report._dmarc.{elsewhere}", input.domain);
        let why = "without it nobody sends reports on this domain to an address of another";
        self.add(name, Data::Txt("v=DMARC1".into()), Place::Operator, Need::Should, why);
    }

    /// About mail to the domain, not from it.
    fn transport(&mut self, input: &PlanInput) {
        let domain = &input.domain;
        let why = format!(
            "mail to {domain} is then sent over authenticated TLS alone; first serve the policy at \
             https://mta-sts.{domain}/.well-known/mta-sts.txt (RFC 8461), and change the id with it"
        );
        let text = Data::Txt("v=STSv1; id=1".into());
        self.add(format!("_mta-sts.{domain}"), text, Place::Domain, Need::May, why);
        if let Some(address) = &input.tls_reports {
            let text = Data::Txt(format!("v=TLSRPTv1; rua=mailto:{address}"));
            let why = "others report on TLS with mail to the domain (RFC 8460)";
            self.add(format!("_smtp._tls.{domain}"), text, Place::Domain, Need::May, why);
        }
    }

    fn operator_spf(&mut self, input: &PlanInput) {
        match &input.operator_domain {
            Some(operator) if !input.sources.is_empty() => {
                let addresses: Vec<_> = input.sources.iter().map(|source| source.address).collect();
                self.records.extend(spf::operator_records(operator.as_str(), &addresses));
            }
            Some(_) => {}
            None => self.notes.push(
                "server.operator_domain is not set: SPF records list the addresses themselves, and change with them"
                    .into(),
            ),
        }
    }

    fn hosts(&mut self, input: &PlanInput) {
        let mut seen = BTreeSet::new();
        for PlannedSource { address, host } in input.sources.iter().filter(|source| seen.insert(source.address)) {
            let why = "the name that the relay greets with leads to the address";
            self.add(host.clone(), Data::address(*address), Place::Operator, Need::Must, why);
        }
        let mut seen = BTreeSet::new();
        for PlannedSource { address, host } in input.sources.iter().filter(|source| seen.insert(source.address)) {
            let why = "large receivers refuse mail from an address whose reverse DNS does not lead to a name and back";
            self.add(reverse_name(*address), Data::Ptr(host.clone()), Place::Network, Need::Must, why);
        }
    }
}

/// What lets the sources pass: the operator's include, or the addresses themselves.
fn mechanism(input: &PlanInput) -> Option<String> {
    if input.sources.is_empty() {
        return None;
    }
    Some(match &input.operator_domain {
        Some(operator) => format!("include:{}", spf::include_of(operator.as_str())),
        None => {
            let term = |source: &PlannedSource| match source.address {
                IpAddr::V4(v4) => format!("ip4:{v4}"),
                IpAddr::V6(v6) => format!("ip6:{v6}"),
            };
            input.sources.iter().map(term).collect::<Vec<_>>().join(" ")
        }
    })
}

fn is_within(inner: &Domain, outer: &Domain) -> bool {
    inner == outer || inner.as_str().strip_suffix(outer.as_str()).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::records) fn input() -> PlanInput {
        PlanInput {
            domain: "example.com".parse().unwrap(),
            keys: vec![PlannedKey {
                selector: "k1".into(),
                record: format!("v=DKIM1; k=rsa; p={}", "A".repeat(392)),
                replaces: None,
                why: "the key that signs".into(),
            }],
            mail_from: Some("bounce.example.com".parse().unwrap()),
            return_path: None,
            bounce_host: "mx.relay.example".parse().unwrap(),
            operator_domain: Some("relay.example".parse().unwrap()),
            sources: vec![
                PlannedSource { address: "192.0.2.1".parse().unwrap(), host: "out1.relay.example".into() },
                PlannedSource { address: "2001:db8::1".parse().unwrap(), host: "out1.relay.example".into() },
            ],
            dmarc_reports: Some("dmarc@reports.example".parse().unwrap()),
            tls_reports: Some("tls@example.com".parse().unwrap()),
        }
    }

    fn find<'a>(plan: &'a Plan, name: &str, kind: &str) -> Option<&'a Record> {
        plan.records.iter().find(|record| record.name == name && record.data.kind() == kind)
    }

    fn value(plan: &Plan, name: &str, kind: &str) -> String {
        find(plan, name, kind).unwrap_or_else(|| panic!("{name} {kind}")).data.to_string()
    }

    #[test]
    fn everything_is_planned() {
        let plan = plan(&input());
        assert!(value(&plan, "k1._domainkey.example.com", "TXT").starts_with("v=DKIM1; k=rsa; p=AAAA"));
        assert_eq!(value(&plan, "bounce.example.com", "MX"), "10 mx.relay.example.");
        assert_eq!(value(&plan, "bounce.example.com", "TXT"), "v=spf1 include:_spf.relay.example ~all");
        assert_eq!(value(&plan, "example.com", "TXT"), "v=spf1 include:_spf.relay.example ~all");
        assert!(
            find(&plan, "example.com", "TXT").unwrap().why.ends_with("costs 1 of the 10 DNS lookups that SPF allows")
        );
        assert_eq!(value(&plan, "_dmarc.example.com", "TXT"), "v=DMARC1; p=none; rua=mailto:dmarc@reports.example");
        assert_eq!(value(&plan, "example.com._report._dmarc.reports.example", "TXT"), "v=DMARC1");
        assert_eq!(value(&plan, "_smtp._tls.example.com", "TXT"), "v=TLSRPTv1; rua=mailto:tls@example.com");
        assert_eq!(value(&plan, "_mta-sts.example.com", "TXT"), "v=STSv1; id=1");
        assert_eq!(value(&plan, "_spf.relay.example", "TXT"), "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 ~all");
        assert_eq!(value(&plan, "out1.relay.example", "AAAA"), "2001:db8::1");
        assert_eq!(value(&plan, "1.2.0.192.in-addr.arpa", "PTR"), "out1.relay.example.");
        assert_eq!(plan.notes, Vec::<String>::new());
    }

    #[test]
    fn what_is_not_known_is_said() {
        let bare = PlanInput {
            keys: vec![],
            mail_from: None,
            operator_domain: None,
            sources: vec![],
            dmarc_reports: Some("dmarc@mail.example.com".parse().unwrap()),
            tls_reports: None,
            ..input()
        };
        let plan = plan(&bare);
        assert_eq!(plan.notes.len(), 3, "{:?}", plan.notes);
        let names: Vec<_> = plan.records.iter().map(|record| record.name.as_str()).collect();
        assert_eq!(names, ["_dmarc.example.com", "_mta-sts.example.com"], "reports within the domain need no leave");
    }

    #[test]
    fn the_relays_own_return_paths_need_what_a_mail_from_domain_needs() {
        let own = |mail_from: Option<&str>, return_path: &str| PlanInput {
            mail_from: mail_from.map(|domain| domain.parse().unwrap()),
            return_path: Some(return_path.parse().unwrap()),
            ..input()
        };
        for mail_from in [None, Some("bounce.example.com")] {
            let plan = plan(&own(mail_from, "bounces.relay.example"));
            assert_eq!(value(&plan, "bounces.relay.example", "MX"), "10 mx.relay.example.");
            let spf = find(&plan, "bounces.relay.example", "TXT").unwrap();
            assert_eq!(spf.data.to_string(), "v=spf1 include:_spf.relay.example ~all");
            assert_eq!((spf.place, spf.need), (Place::Operator, Need::Must));
            assert_eq!(find(&plan, "bounce.example.com", "MX").is_some(), mail_from.is_some());
            assert_eq!(find(&plan, "example.com", "TXT").unwrap().need, Need::May, "envelopes do not name it");
        }
        let same = plan(&own(Some("bounce.example.com"), "bounce.example.com"));
        assert_eq!(same.records.iter().filter(|record| record.name == "bounce.example.com").count(), 2);
        let no_sources = plan(&PlanInput { sources: vec![], ..own(None, "bounces.relay.example") });
        assert!(find(&no_sources, "bounces.relay.example", "TXT").is_none());
    }

    #[test]
    fn without_an_operator_domain_the_addresses_are_named() {
        let plan = plan(&PlanInput { operator_domain: None, ..input() });
        assert_eq!(value(&plan, "example.com", "TXT"), "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 ~all");
        assert!(find(&plan, "_spf.relay.example", "TXT").is_none());
    }
}
