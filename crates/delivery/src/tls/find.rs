//! What the DNS says of a mail host: its addresses, and whether a session with
//! it has to be what its TLSA records say (RFC 7672 section 2.2).

use std::net::IpAddr;
use std::sync::Arc;

use postrider_dns::{Answer, DnsError, Resolver, Tlsa};

use super::dane::DanePolicy;
use super::level::{HostPolicy, Proof, Required};

/// A host that was looked up.
pub(crate) struct Found {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) policy: HostPolicy,
}

/// Looks up a host that an MX record names. `is_proved` says whether that record
/// is: only then do its TLSA records count (RFC 7672 section 2.2.1), and nothing
/// else is worth a proof.
///
/// # Errors
/// The host has no addresses, or nobody can say whether it has TLSA records: it
/// must be passed over then, or else keeping the answer away would be enough to
/// get the mail in clear (RFC 7672 section 2.1).
pub(crate) async fn find(resolver: &dyn Resolver, host: &str, port: u16, is_proved: bool) -> Result<Found, DnsError> {
    if !is_proved {
        let answer = resolver.addresses(host).await?;
        remark(host, &answer);
        return Ok(Found { addresses: answer.value, policy: HostPolicy::default() });
    }
    let answer = resolver.proved_addresses(host).await?;
    remark(host, &answer);
    let records = tlsa(resolver, host, port, &answer).await?;
    let required = match records {
        None => Required::Nothing,
        Some((base, records)) => match DanePolicy::new(&base, host, &records) {
            Some(policy) => Required::Dane(Arc::new(policy)),
            None => Required::Encryption,
        },
    };
    let proof = if answer.authenticated { Proof::Dnssec } else { Proof::None };
    Ok(Found { addresses: answer.value, policy: HostPolicy { required, proof, authorities: None } })
}

/// RFC 5321 section 5.1: an MX must not be an alias. It is followed all the same.
fn remark(host: &str, answer: &Answer<Vec<IpAddr>>) {
    if let Some(alias) = &answer.alias {
        tracing::debug!(%host, target = %alias.target, "this mail host is an alias");
    }
}

/// The TLSA records of a host and the name that they are found at (RFC 7672
/// section 2.2.2): that at the end of its aliases when all of them are proved,
/// else its own, as long as its own zone is signed.
async fn tlsa(
    resolver: &dyn Resolver,
    host: &str,
    port: u16,
    addresses: &Answer<Vec<IpAddr>>,
) -> Result<Option<(String, Vec<Tlsa>)>, DnsError> {
    let alias = addresses.alias.as_ref();
    if let Some(alias) = alias.filter(|_| addresses.authenticated)
        && let Some(records) = tlsa_at(resolver, &alias.target, port).await?
    {
        return Ok(Some((alias.target.to_string(), records)));
    }
    if addresses.authenticated || alias.is_some_and(|alias| alias.first_proved) {
        let records = tlsa_at(resolver, host, port).await?;
        return Ok(records.map(|records| (host.to_owned(), records)));
    }
    Ok(None)
}

/// The TLSA records of a name, where they are proved.
async fn tlsa_at(resolver: &dyn Resolver, host: &str, port: u16) -> Result<Option<Vec<Tlsa>>, DnsError> {
    match resolver.tlsa(host, port).await {
        Ok(answer) => Ok(answer.authenticated.then_some(answer.value)),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_dns::Zones;
    use postrider_dns::zones::Failure;

    fn record(usage: u8) -> Tlsa {
        Tlsa { usage, selector: 1, matching: 1, data: vec![usage; 32] }
    }

    /// The TLSA base domain, or what else is required.
    async fn required(zones: &Zones, host: &str) -> String {
        match find(zones, host, 25, true).await.unwrap().policy.required {
            Required::Nothing => "nothing".to_owned(),
            Required::Encryption => "encryption".to_owned(),
            Required::Webpki(_) => "webpki".to_owned(),
            Required::Dane(dane) => dane.base.clone(),
        }
    }

    fn signed() -> Zones {
        let zones = Zones::new();
        zones.set_authenticated(true).add_address("mx.example.com", "192.0.2.1");
        zones
    }

    #[tokio::test]
    async fn proved_records_bind() {
        let zones = signed();
        assert_eq!(required(&zones, "mx.example.com").await, "nothing");
        zones.add_tlsa("mx.example.com", 25, record(3));
        assert_eq!(required(&zones, "mx.example.com").await, "mx.example.com");
        let found = find(&zones, "mx.example.com", 25, true).await.unwrap();
        assert_eq!((found.addresses.len(), found.policy.proof), (1, Proof::Dnssec));
    }

    #[tokio::test]
    async fn without_a_proved_mx_nobody_asks() {
        let zones = signed();
        zones.add_tlsa("mx.example.com", 25, record(3));
        let found = find(&zones, "mx.example.com", 25, false).await.unwrap();
        assert_eq!((found.policy.required.is_tls(), found.policy.proof), (false, Proof::None));
        assert_eq!(zones.queries("_25._tcp.mx.example.com"), 0);
    }

    #[tokio::test]
    async fn records_or_addresses_without_proof_do_not_bind() {
        let zones = signed();
        zones.set_authenticated(false).add_tlsa("mx.example.com", 25, record(3));
        assert_eq!(required(&zones, "mx.example.com").await, "nothing");
        let zones = Zones::new();
        zones.add_address("mx.example.com", "192.0.2.1");
        zones.set_authenticated(true).add_tlsa("mx.example.com", 25, record(3));
        assert_eq!(required(&zones, "mx.example.com").await, "nothing");
        assert_eq!(zones.queries("_25._tcp.mx.example.com"), 0);
    }

    #[tokio::test]
    async fn unusable_records_ask_for_encryption() {
        let zones = signed();
        zones.add_tlsa("mx.example.com", 25, record(0)).add_tlsa("mx.example.com", 25, record(1));
        assert_eq!(required(&zones, "mx.example.com").await, "encryption");
    }

    #[tokio::test]
    async fn the_end_of_aliases_comes_first_where_all_are_proved() {
        let zones = signed();
        zones.add_alias("alias.example.com", "mx.example.com").add_tlsa("alias.example.com", 25, record(3));
        assert_eq!(required(&zones, "alias.example.com").await, "alias.example.com");
        zones.add_tlsa("mx.example.com", 25, record(3));
        assert_eq!(required(&zones, "alias.example.com").await, "mx.example.com");
    }

    #[tokio::test]
    async fn an_alias_that_leads_out_of_signed_zones_keeps_its_own_records() {
        let zones = signed();
        zones.add_alias("alias.example.com", "mx.example.net").add_tlsa("alias.example.com", 25, record(3));
        zones.add_tlsa("mx.example.net", 25, record(3));
        zones.set_authenticated(false).add_address("mx.example.net", "192.0.2.2");
        assert_eq!(required(&zones, "alias.example.com").await, "alias.example.com");
        let found = find(&zones, "alias.example.com", 25, true).await.unwrap();
        assert_eq!(found.policy.proof, Proof::None);
    }

    #[tokio::test]
    async fn a_failure_is_no_absence() {
        for failure in [Failure::ServFail, Failure::Timeout, Failure::Bogus] {
            let zones = signed();
            zones.fail("_25._tcp.mx.example.com", failure);
            assert!(find(&zones, "mx.example.com", 25, true).await.is_err());
            let zones = signed();
            zones.fail("mx.example.com", failure);
            assert!(find(&zones, "mx.example.com", 25, true).await.is_err());
        }
    }
}
