//! What RFC 7208 says, section by section.

use postrider_dns::Zones;
use postrider_dns::zones::Failure;
use proptest::prelude::*;

use super::*;

async fn ask(zones: &Zones, ip: &str, domain: &str) -> SpfReport {
    let sender = format!("strong-bad@{domain}");
    let query = SpfQuery {
        ip: ip.parse().unwrap(),
        domain,
        sender: &sender,
        helo: "mail.example.com",
        receiver: "mx.example.net",
        at: Timestamp::from_millis(1_000_000),
    };
    evaluate(zones, &query).await
}

/// Adds `v=spf1 <terms>` to `example.com` and asks about 192.0.2.1.
async fn of_terms(zones: &Zones, terms: &str) -> SpfReport {
    zones.remove("example.com");
    zones.add_txt("example.com", &format!("v=spf1 {terms}")).add_address("example.com", "192.0.2.1");
    ask(zones, "192.0.2.1", "example.com").await
}

#[tokio::test]
async fn names_that_are_none_have_no_record() {
    let zones = Zones::new();
    for name in
        ["", "single", "a..example.com", &format!("{}.example.com", "a".repeat(64)), "[192.0.2.1]", &"a.".repeat(200)]
    {
        assert_eq!(ask(&zones, "192.0.2.1", name).await.result, SpfResult::None, "{name}");
    }
    assert_eq!(zones.queries("single"), 0);
}

#[tokio::test]
async fn exactly_one_record() {
    let zones = Zones::new();
    zones
        .add_txt("one.example", "v=spf10 +all")
        .add_txt("one.example", "V=SPF1 -all")
        .add_txt("two.example", "v=spf1 -all")
        .add_txt("two.example", "v=spf1 -all")
        .add_txt("other.example", "v=spf2.0/pra +all")
        .fail("silent.example", Failure::Timeout)
        .fail("broken.example", Failure::ServFail);
    assert_eq!(ask(&zones, "192.0.2.1", "one.example").await.result, SpfResult::Fail);
    assert_eq!(ask(&zones, "192.0.2.1", "two.example").await.result, SpfResult::PermError);
    for name in ["other.example", "absent.example"] {
        assert_eq!(ask(&zones, "192.0.2.1", name).await.result, SpfResult::None);
    }
    for name in ["silent.example", "broken.example"] {
        assert_eq!(ask(&zones, "192.0.2.1", name).await.result, SpfResult::TempError);
    }
}

#[tokio::test]
async fn mechanisms_match_or_not() {
    let zones = Zones::new();
    zones
        .add_address("a.example.net", "192.0.2.1")
        .add_address("six.example.net", "2001:db8::1")
        .add_mx("mx.example.net", 10, "a.example.net")
        .add_mx("null.example.net", 0, ".")
        .add_ptr("192.0.2.1", "host.example.org")
        .add_ptr("192.0.2.1", "forged.example.net")
        .add_address("host.example.org", "192.0.2.1")
        .add_address("forged.example.net", "192.0.2.9")
        .add_address("1.2.0.192.strong-bad.example.com", "127.0.0.2")
        .add_txt("pass.example.net", "v=spf1 ip4:192.0.2.1 -all")
        .add_txt("fail.example.net", "v=spf1 -all")
        .add_txt("neutral.example.net", "v=spf1")
        .add_txt("bad.example.net", "v=spf1 what");
    let cases = [
        ("all", SpfResult::Pass),
        ("-all", SpfResult::Fail),
        ("~all", SpfResult::SoftFail),
        ("?all", SpfResult::Neutral),
        ("", SpfResult::Neutral),
        ("a -all", SpfResult::Pass),
        ("a:a.example.net/32 -all", SpfResult::Pass),
        ("a:forged.example.net/28 -all", SpfResult::Pass),
        ("a:forged.example.net/29 -all", SpfResult::Fail),
        ("a:six.example.net//0 -all", SpfResult::Fail),
        ("a:absent.example.net -all", SpfResult::Fail),
        ("a:192.0.2.1 -all", SpfResult::PermError),
        ("mx -all", SpfResult::Fail),
        ("mx:mx.example.net -all", SpfResult::Pass),
        ("mx:null.example.net -all", SpfResult::Fail),
        ("ptr:example.org -all", SpfResult::Pass),
        ("ptr:host.example.org -all", SpfResult::Pass),
        ("ptr:ample.org -all", SpfResult::Fail),
        ("ptr:example.net -all", SpfResult::Fail),
        ("ip4:192.0.2.0/31 -all", SpfResult::Pass),
        ("ip6:::ffff:192.0.2.1 -all", SpfResult::Fail),
        ("exists:%{ir}.%{l}.%{d} -all", SpfResult::Pass),
        ("exists:%{i}.%{l}.%{d} -all", SpfResult::Fail),
        ("exists:%{i} -all", SpfResult::Fail),
        ("include:pass.example.net -all", SpfResult::Pass),
        ("include:fail.example.net ?all", SpfResult::Neutral),
        ("include:neutral.example.net ~all", SpfResult::SoftFail),
        ("include:bad.example.net +all", SpfResult::PermError),
        ("include:absent.example.net +all", SpfResult::PermError),
        ("redirect=fail.example.net", SpfResult::Fail),
        ("redirect=fail.example.net ~all", SpfResult::SoftFail),
        ("redirect=absent.example.net", SpfResult::PermError),
        ("redirect=neutral.example.net", SpfResult::Neutral),
        ("+all what", SpfResult::PermError),
        ("include:example.com -all", SpfResult::PermError),
        ("redirect=example.com", SpfResult::PermError),
    ];
    for (terms, expected) in cases {
        let report = of_terms(&zones, terms).await;
        assert_eq!(report.result, expected, "{terms}: {}", report.reason);
        assert!(!report.reason.is_empty());
    }
}

#[tokio::test]
async fn a_silent_name_server_is_a_temporary_error() {
    let zones = Zones::new();
    zones.fail("silent.example", Failure::Timeout).add_ptr("192.0.2.1", "silent.example");
    for term in [
        "a:silent.example",
        "mx:silent.example",
        "include:silent.example",
        "exists:silent.example",
        "redirect=silent.example",
    ] {
        let report = of_terms(&zones, term).await;
        assert_eq!(report.result, SpfResult::TempError, "{term}");
        assert!(report.reason.contains("silent.example"), "{}", report.reason);
    }
    // Only the family of the client counts.
    zones.add_address("half.example", "2001:db8::1").fail("half.example", Failure::OtherFamily);
    zones.add_address("whole.example", "192.0.2.1").fail("whole.example", Failure::OtherFamily);
    for (term, result) in [
        ("a:half.example -all", SpfResult::TempError),
        ("exists:half.example -all", SpfResult::TempError),
        ("a:whole.example -all", SpfResult::Pass),
    ] {
        assert_eq!(of_terms(&zones, term).await.result, result, "{term}");
    }
    // RFC 7208 section 5.5: not so where the names of the client are asked for.
    assert_eq!(of_terms(&zones, "ptr:silent.example -all").await.result, SpfResult::Fail);
}

#[tokio::test(start_paused = true)]
async fn an_evaluation_ends() {
    let zones = Zones::new();
    zones.fail("silent.example", Failure::Silence);
    let report = of_terms(&zones, "ip4:192.0.2.2 a:silent.example").await;
    assert_eq!((report.result, report.lookups.len()), (SpfResult::TempError, 1));
}

#[tokio::test]
async fn ten_lookups_are_allowed_and_two_in_vain() {
    let zones = Zones::new();
    for n in 0..12 {
        zones.add_address(&format!("a{n}.example.net"), "198.51.100.1");
        zones.add_txt(&format!("chain{n}.example.net"), &format!("v=spf1 include:chain{}.example.net", n + 1));
    }
    let terms = |count: usize| (0..count).map(|n| format!("a:a{n}.example.net ")).collect::<String>();
    let ten = of_terms(&zones, &(terms(10) + "-all")).await;
    assert_eq!((ten.result, ten.lookups.len(), ten.void), (SpfResult::Fail, 10, 0));
    let eleven = of_terms(&zones, &(terms(11) + "-all")).await;
    assert_eq!(eleven.result, SpfResult::PermError);
    assert!(eleven.reason.ends_with("the first too many is a:a10.example.net of example.com"), "{}", eleven.reason);
    assert_eq!(of_terms(&zones, "include:chain0.example.net -all").await.result, SpfResult::PermError);
    let void = |count: usize| (0..count).map(|n| format!("a:void{n}.example.net ")).collect::<String>();
    assert_eq!(of_terms(&zones, &(void(2) + "+all")).await.result, SpfResult::Pass);
    let three = of_terms(&zones, &(void(3) + "+all")).await;
    assert_eq!((three.result, three.void), (SpfResult::PermError, 3));
    // Eleven exchangers of one domain are too many, whoever they are.
    for n in 0..11 {
        zones.add_mx("many.example.net", n, &format!("a{n}.example.net"));
    }
    assert_eq!(of_terms(&zones, "mx:many.example.net +all").await.result, SpfResult::PermError);
}

#[tokio::test]
async fn a_survey_counts_on() {
    let zones = Zones::new();
    let includes: String = (0..13).map(|n| format!(" include:i{n}.example.net")).collect();
    zones.add_txt("example.com", &format!("v=spf1{includes} ~all"));
    for n in 0..13 {
        zones.add_txt(&format!("i{n}.example.net"), "v=spf1 ip4:192.0.2.0/24 ~all");
    }
    let report = survey(&zones, "example.com").await;
    assert_eq!((report.lookups.len(), report.result), (13, SpfResult::SoftFail));
    assert_eq!((report.lookups[12].term.as_str(), report.lookups[12].depth), ("include:i12.example.net", 0));
}

#[tokio::test]
async fn the_domain_explains_a_failure() {
    let zones = Zones::new();
    zones
        .add_txt("why.example.com", "%{i} is not of %{d},%_see http://%{d}/?s=%{S}\r\n")
        .add_txt("ok.example.com", "%{c} is not one of %{d}'s")
        .add_txt("include.example.com", "v=spf1 -all exp=ok.example.com")
        .add_txt("redirect.example.com", "v=spf1 -all exp=ok.example.com");
    assert_eq!(of_terms(&zones, "-all exp=why.example.com").await.explanation, None);
    let good = of_terms(&zones, "-all exp=ok.example.com").await;
    assert_eq!(good.explanation.as_deref(), Some("192.0.2.1 is not one of example.com's"));
    let included = of_terms(&zones, "include:include.example.com -all").await;
    assert_eq!((included.result, included.explanation), (SpfResult::Fail, None));
    let redirected = of_terms(&zones, "redirect=redirect.example.com exp=absent.example.com").await;
    assert_eq!(redirected.explanation.as_deref(), Some("192.0.2.1 is not one of redirect.example.com's"));
}

#[tokio::test]
async fn the_address_of_a_mapped_client_is_its_ipv4_address() {
    let zones = Zones::new();
    zones.add_txt("example.com", "v=spf1 ip4:192.0.2.1 -all");
    assert_eq!(ask(&zones, "::ffff:192.0.2.1", "example.com").await.result, SpfResult::Pass);
}

proptest! {
    #[test]
    fn no_record_does_harm(record in "(a|mx|ptr|include|exists|redirect|exp|ip4|ip6|all|[-+~?:=/%{}.])*[ -~]{0,40}", ip: [u8; 16]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let zones = Zones::new();
            zones.add_txt("example.com", &format!("v=spf1 {record}"));
            let ip = IpAddr::from(ip).to_string();
            let report = ask(&zones, &ip, "example.com").await;
            assert!(report.lookups.len() <= MOST_LOOKUPS && !report.reason.contains('\n'));
        });
    }
}
