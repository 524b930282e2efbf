//! Policies, which operators paste from anywhere.

use std::net::{IpAddr, Ipv4Addr};

use postrider_account::{Attached, Policy, PolicyRequest, PolicySet, PolicyVerdict, Realm, SEND_RAW_EMAIL};
use postrider_base::Timestamp;
use postrider_mail::AccountId;

/// A policy is read or refused in one line of bounded length; what is read decides the same
/// each time, and denies only when it says so.
pub fn policy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for attached in [Attached::Credential, Attached::Identity(None)] {
        let policy = match Policy::parse("fuzzed", &text, attached) {
            Ok(policy) => policy,
            Err(error) => {
                let error = error.to_string();
                assert!(error.len() < 2_048 && !error.contains(['\r', '\n']), "{error:?}");
                continue;
            }
        };
        assert_eq!(Policy::parse("fuzzed", policy.text(), attached).as_ref(), Ok(&policy));
        let set = PolicySet::new(vec![policy]);
        let verdict = asked(&set);
        assert_eq!(asked(&set), verdict);
        if let PolicyVerdict::Deny(_) = verdict {
            assert!(text.contains("Deny") || text.contains('\\'), "nothing denies");
        }
    }
}

fn asked(set: &PolicySet) -> PolicyVerdict {
    let realm = Realm { partition: "aws".to_owned(), region: "us-east-1".to_owned() };
    let (account, user_name) = (AccountId::default(), "AKIAIOSFODNN7EXAMPLE");
    let address = "ann@example.com".parse().expect("it is an address");
    let identity = "example.com".parse().expect("it is a domain");
    set.authorize(&PolicyRequest {
        action: SEND_RAW_EMAIL,
        resource: &realm.identity(account, &identity),
        account,
        user_name,
        principal: &realm.user(account, user_name),
        from: Some(&address),
        from_display_name: Some("Ann"),
        feedback: None,
        recipients: &[&address, &address],
        source_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        is_secure: true,
        user_agent: None,
        now: Timestamp::from_millis(1_900_000_000_000),
    })
}
