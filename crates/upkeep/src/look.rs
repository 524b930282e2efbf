//! What the DNS says about identities and MAIL FROM domains.

use std::time::Duration;

use postrider_account::{Accounts, DkimKey, Identity, KeyState};
use postrider_dns::{DnsError, Resolver};
use postrider_mail::{Domain, sanitize_text};
use postrider_mailauth::records::{Data, Need, Place, Record, State, TTL, compare};

use crate::machine::Finding;

/// How long one question may take; then the DNS has not answered.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longest words of a stranger's that are kept.
const SHOWN: usize = 300;

/// Whether the keys that sign for a domain are published: of the domain itself or, where it
/// has none, of the nearest domain of the account's that it lies in.
pub(crate) async fn proof(resolver: &dyn Resolver, accounts: &Accounts, identity: &Identity) -> Finding {
    let domain = identity.name.domain();
    let above = accounts.identities().domains(identity.account, domain).map(|above| above.name.domain().clone());
    let keys = above.map(|domain| wanted(accounts, identity, &domain)).find(|keys| !keys.is_empty());
    let Some(keys) = keys else {
        return Finding::Wrong(format!("{domain} has no DKIM key that could be published"));
    };
    let mut finding = Finding::Right;
    for key in keys {
        finding = finding.and(is_published(resolver, &key.record_name(), &key.public).await);
    }
    finding
}

/// The keys that sign; those that will, while there is none.
fn wanted(accounts: &Accounts, identity: &Identity, domain: &Domain) -> Vec<std::sync::Arc<DkimKey>> {
    let keys = accounts.dkim_keys();
    match keys.current(identity.account, domain) {
        none if none.is_empty() => {
            let mut keys = keys.of_domain(identity.account, domain);
            keys.retain(|key| key.state == KeyState::Next);
            keys
        }
        current => current,
    }
}

/// Whether a name has the text of our key, by itself or behind aliases.
pub(crate) async fn is_published(resolver: &dyn Resolver, name: &str, text: &str) -> Finding {
    let found = match ask(resolver.txt(name)).await {
        Ok(texts) => texts.into_iter().map(Data::Txt).collect::<Vec<_>>(),
        Err(absent) if absent.is_absence() => return Finding::Wrong(format!("{name} has no TXT record: {absent}")),
        Err(error) => return Finding::Unknown(format!("{name}: {error}")),
    };
    let data = Data::Txt(text.to_owned());
    let (name, why) = (name.to_owned(), String::new());
    let record =
        Record { name, data, ttl: TTL, place: Place::Domain, need: Need::Must, why, replaces: None, state: None };
    match compare(&record, &found) {
        State::Right => Finding::Right,
        State::Differs { found, .. } => {
            Finding::Wrong(sanitize_text(format!("{} is not our key but {found}", record.name), SHOWN))
        }
        _ => Finding::Wrong(format!("{} is not our key", record.name)),
    }
}

/// Whether bounces to the domain come back to `host`, and the domain says who may send in
/// its name: SES asks for exactly one MX record, and for an SPF record.
pub(crate) async fn mail_from(resolver: &dyn Resolver, domain: &Domain, host: &Domain) -> Finding {
    mx(resolver, domain, host).await.and(spf(resolver, domain).await)
}

async fn mx(resolver: &dyn Resolver, domain: &Domain, host: &Domain) -> Finding {
    let wanted = format!("should be {host} alone");
    match ask(resolver.mx(domain)).await {
        Ok(found) if matches!(&found[..], [only] if only.exchange == host.as_str()) => Finding::Right,
        Ok(found) => {
            let found: Vec<_> = found.iter().map(|mx| format!("{} {}.", mx.preference, mx.exchange)).collect();
            let found = sanitize_text(found.join(", "), SHOWN);
            Finding::Wrong(format!("the MX of {domain} {wanted}, and is {found}"))
        }
        Err(absent) if absent.is_absence() => Finding::Wrong(format!("{domain} has no MX record; it {wanted}")),
        Err(error) => Finding::Unknown(format!("MX of {domain}: {error}")),
    }
}

async fn spf(resolver: &dyn Resolver, domain: &Domain) -> Finding {
    // RFC 7208 section 4.5
    let is_spf = |text: &&String| {
        let (version, rest) = text.split_at_checked(6).unwrap_or((text, ""));
        version.eq_ignore_ascii_case("v=spf1") && (rest.is_empty() || rest.starts_with(' '))
    };
    match ask(resolver.txt(domain.as_str())).await.map(|texts| texts.iter().filter(is_spf).count()) {
        Ok(1) => Finding::Right,
        Ok(0) => Finding::Wrong(format!("{domain} has no SPF record")),
        Ok(several) => Finding::Wrong(format!("{domain} has {several} SPF records, which count as none")),
        Err(absent) if absent.is_absence() => Finding::Wrong(format!("{domain} has no SPF record")),
        Err(error) => Finding::Unknown(format!("SPF of {domain}: {error}")),
    }
}

async fn ask<T>(question: impl Future<Output = postrider_dns::Reply<T>>) -> Result<Vec<T>, DnsError> {
    match tokio::time::timeout(DEADLINE, question).await {
        Ok(reply) => reply.map(|answer| answer.value),
        Err(_) => Err(DnsError::Temporary { reason: "no answer in time".into() }),
    }
}

#[cfg(test)]
mod tests {
    use postrider_dns::Zones;
    use postrider_dns::zones::Failure;

    use super::*;

    const KEY: &str = "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQ";
    const NAME: &str = "s1._domainkey.example.com";

    async fn published(zones: &Zones) -> Finding {
        is_published(zones, NAME, KEY).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_seen_as_it_is() {
        let zones = Zones::new();
        assert!(matches!(published(&zones).await, Finding::Wrong(why) if why.contains("does not exist")));
        zones.add_mx(NAME, 1, "mx.example.com");
        assert!(matches!(published(&zones).await, Finding::Wrong(why) if why.contains("no such records")));
        // The strings of a record are joined by the resolver (RFC 7208 section 3.3).
        zones.add_txt(NAME, KEY);
        assert_eq!(published(&zones).await, Finding::Right);
        zones.remove(NAME).add_txt(NAME, "k=rsa;p=MIIBIjANBgkq hkiG9w0BAQ; v=DKIM1");
        assert_eq!(published(&zones).await, Finding::Right);
        for other in ["v=DKIM1; k=rsa; p=MIIBother", "v=DKIM1; k=rsa; p=", "hello\r\nworld"] {
            zones.remove(NAME).add_txt(NAME, other);
            let Finding::Wrong(why) = published(&zones).await else { panic!("{other}") };
            assert!(why.starts_with("s1._domainkey.example.com is not our key") && !why.contains('\n'), "{why}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn aliases_are_followed() {
        let zones = Zones::new();
        zones.add_alias(NAME, "one.example.net").add_alias("one.example.net", "two.example.net");
        assert!(matches!(published(&zones).await, Finding::Wrong(_)), "they lead nowhere");
        zones.add_txt("two.example.net", KEY);
        assert_eq!(published(&zones).await, Finding::Right);
        zones.fail("two.example.net", Failure::ServFail);
        assert!(matches!(published(&zones).await, Finding::Unknown(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_is_no_absence() {
        for failure in [Failure::ServFail, Failure::Timeout, Failure::Silence] {
            let zones = Zones::new();
            zones.add_txt(NAME, KEY).fail(NAME, failure);
            assert!(matches!(published(&zones).await, Finding::Unknown(_)), "{failure:?}");
            zones.fail("bounce.example.com", failure);
            let (domain, host) = ("bounce.example.com".parse().unwrap(), "mx.example.net".parse().unwrap());
            assert!(matches!(mail_from(&zones, &domain, &host).await, Finding::Unknown(_)), "{failure:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_from_domain_has_one_mx_and_one_spf_record() {
        let zones = Zones::new();
        let (domain, host): (Domain, Domain) =
            ("bounce.example.com".parse().unwrap(), "mx.example.net".parse().unwrap());
        let wrong = async || match mail_from(&zones, &domain, &host).await {
            Finding::Wrong(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(wrong().await.contains("has no MX record"));
        zones.add_mx(domain.as_str(), 10, "MX.example.net.");
        assert!(wrong().await.contains("has no SPF record"));
        zones.add_txt(domain.as_str(), "v=spf10 -all").add_txt(domain.as_str(), "other");
        assert!(wrong().await.contains("has no SPF record"));
        zones.add_txt(domain.as_str(), "V=spf1 include:example.net ~all");
        assert_eq!(mail_from(&zones, &domain, &host).await, Finding::Right);
        zones.add_txt(domain.as_str(), "v=spf1");
        assert!(wrong().await.contains("2 SPF records"));
        zones.add_mx(domain.as_str(), 20, "mx.example.org");
        let why = wrong().await;
        assert!(why.contains("should be mx.example.net alone, and is 10 mx.example.net., 20 mx.example.org."), "{why}");
        zones.remove(domain.as_str()).add_mx(domain.as_str(), 10, "mx.example.org");
        assert!(wrong().await.contains("alone"));
    }
}
