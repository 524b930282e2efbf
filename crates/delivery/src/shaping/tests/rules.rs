//! Which rules hold where, and what a file must not say.

use super::*;
use crate::route::{Host, Route, RouteTable};
use crate::shaping::file::TlsMinimum;
use crate::target::Target;

#[test]
fn providers_are_known_by_their_hosts() {
    let shaping = shaping("").unwrap();
    for (hosts, provider) in [
        ("gmail-smtp-in.l.google.com alt1.gmail-smtp-in.l.google.com", Some("google")),
        ("ASPMX.L.GOOGLE.COM. alt1.aspmx.l.google.com", Some("google")),
        ("aspmx2.googlemail.com,aspmx.l.google.com", Some("google")),
        ("hotmail-com.olc.protection.outlook.com", Some("microsoft-consumer")),
        ("contoso-com.mail.protection.outlook.com", Some("microsoft")),
        ("contoso-com.o-v1.mx.microsoft", Some("microsoft")),
        ("mta5.am0.yahoodns.net,mta6.am0.yahoodns.net,mta7.am0.yahoodns.net", Some("yahoo")),
        ("mx01.mail.icloud.com,mx02.mail.icloud.com", Some("apple")),
        ("mx1a1.comcast.net,mx2h1.comcast.net", Some("comcast")),
        ("smtp-in.orange.fr", Some("orange")),
        ("mx00.emig.gmx.net,mx01.emig.gmx.net", Some("gmx")),
        // Only some of the hosts: what the others say is not the provider's word.
        ("aspmx.l.google.com alt1.aspmx.l.google.com backup.example", None),
        ("gone.l.google.com mx.attacker.example", None),
        ("aspmx.l.google.com,mx.example.net", None),
        ("mx.example.net aspmx.l.google.com", None),
        // Names that only look like it.
        ("mx.notgoogle.com", None),
        ("google.com.example.net", None),
        ("mx.example.net", None),
    ] {
        let rules = shaping.rules(&Place::mx(hosts));
        assert_eq!(rules.provider.as_ref().map(|provider| &*provider.name), provider, "{hosts}");
    }
}

/// The place of a static route.
fn routed(target: &str) -> Place {
    let routes = RouteTable::parse(&[("*".to_owned(), target.to_owned())].into(), &[]).unwrap();
    let Route::Static(route) = routes.lookup(&"example.com".parse().unwrap()) else { panic!("{target}") };
    Place::of(&Target::of_route(route))
}

#[test]
fn places_of_the_operator_are_alike_by_name_and_others_by_their_hosts() {
    assert!(routed("smtp://127.0.0.1:4001").is_like(&routed("smtp://127.0.0.1:4001")));
    assert!(!routed("smtp://127.0.0.1:4001").is_like(&routed("smtp://127.0.0.1:4002")));
    assert!(!routed("smtp://mx.example.com").is_like(&Place::mx("mx.example.com")));
    let hosts = vec![vec![Host::parse("mx.example.com").unwrap()]];
    let proved = Place::of(&Target::of_hosts(hosts, true, false));
    assert!(*proved.name != *"mx.example.com" && proved.is_like(&Place::mx("mx.example.com")));
    assert!(!Place::mx("mx.example.com").is_like(&Place::mx("mx.example.net")));
}

#[test]
fn a_site_that_nobody_knows_starts_with_five_connections() {
    let rules = shaping("").unwrap().rules(&Place::mx("mx.example.net"));
    assert_eq!((rules.initial_connections, rules.connections, rules.messages_per_connection), (5, 20, 100));
    assert_eq!((rules.rate, rules.retry), (None, None));
    assert_eq!(rules.tls, TlsMinimum::Opportunistic);
}

#[test]
fn published_numbers_are_kept() {
    let shaping = shaping("").unwrap();
    let yahoo = shaping.rules(&Place::mx("mta5.am0.yahoodns.net"));
    assert_eq!(yahoo.messages_per_connection, 20);
    let comcast = shaping.rules(&Place::mx("mx1a1.comcast.net"));
    assert_eq!((comcast.connections, comcast.recipients_per_transaction), (25, 100));
    let google = shaping.rules(&Place::mx("aspmx.l.google.com"));
    assert_eq!(google.tls, TlsMinimum::Encrypted);
    let outlook = shaping.rules(&Place::mx("outlook-com.olc.protection.outlook.com"));
    assert!(outlook.provider.unwrap().connections.unwrap() <= 500);
}

#[test]
fn an_operators_file_overrides_key_by_key() {
    let own = r#"
        [default]
        connections = 3
        [provider.google]
        connections = 7
        rate = "100/m"
        [provider.google.site]
        rate = "10/m"
        [provider.mine]
        mx = [".mine.example"]
        [site."MX.example.net."]
        initial_connections = 2
        retry = ["1m", "10m"]
        [domain."vip.example"]
        messages_per_connection = 3
    "#;
    let shaping = shaping(own).unwrap();
    let google = shaping.rules(&Place::mx("aspmx.l.google.com"));
    let provider = google.provider.clone().unwrap();
    assert_eq!((provider.connections, provider.rate.unwrap().to_string()), (Some(7), "100/m".to_owned()));
    assert_eq!(provider.mx, [".google.com", ".googlemail.com"], "what is left out stays");
    assert_eq!((google.messages_per_connection, google.connections), (50, 3));
    assert_eq!(google.rate.unwrap().to_string(), "10/m");

    let site = shaping.rules(&Place::mx("mx.example.net"));
    assert_eq!((site.initial_connections, site.connections), (2, 3));
    assert_eq!(site.retry.unwrap().len(), 2);
    assert!(shaping.has_own(&"vip.example".parse().unwrap()) && !shaping.has_own(&"other.example".parse().unwrap()));
    let own = shaping.rules(&Place::mx("mx.example.net for vip.example"));
    assert_eq!((own.messages_per_connection, own.initial_connections), (3, 2));
    assert_eq!(&*shaping.rules(&Place::mx("a.mine.example")).provider.unwrap().name, "mine");
}

#[test]
fn each_rule_says_where_it_is_from() {
    let own = "[provider.yahoo.site]\nconnections = 4\n[site.'mta5.am0.yahoodns.net']\nrate = '5/s'";
    let shaping = shaping(own).unwrap();
    let why = shaping.explain(&Place::mx("mta5.am0.yahoodns.net"));
    let of = |key: &str| why.iter().find(|rule| rule.key == key).map(|rule| (rule.value.as_str(), rule.from.as_str()));
    assert_eq!(of("connections"), Some(("4", "[provider.yahoo.site] in own.toml")));
    assert_eq!(of("rate"), Some(("5/s", "[site.\"mta5.am0.yahoodns.net\"] in own.toml")));
    assert_eq!(of("messages_per_connection"), Some(("20", "[provider.yahoo.site] in built-in shaping.toml")));
    assert_eq!(of("recipients_per_transaction"), Some(("100", "limits.recipients_per_transaction")));
    assert_eq!(of("retry"), None, "the schedule of the settings");
}

#[test]
fn the_settings_of_a_site_are_the_default() {
    let mut settings = Settings::default();
    settings.limits.connections_per_site = 2;
    settings.limits.messages_per_connection = 9;
    let rules = shaping_with(&settings, "").unwrap().rules(&Place::mx("mx.example.net"));
    assert_eq!((rules.initial_connections, rules.connections, rules.messages_per_connection), (2, 2, 9));
}

#[test]
fn a_wrong_file_says_what_where_and_what_was_expected() {
    for (own, expected) in [
        ("[default]\nconnections = 0", "default.connections: expected 1 to"),
        ("[provider.new]\nconnections = 5", "provider.new.mx: expected ends of host names"),
        ("[provider.google]\nmx = ['google.com']", "provider.google.mx: expected ends"),
        ("[provider.google]\nmx = []", "provider.google.mx: expected at least one"),
        ("[provider.google.site]\nretry = []", "provider.google.site.retry: expected at least one wait"),
        ("[site.'mx.example']\nretry = ['0s']", "site.\"mx.example\".retry: expected"),
        ("[site.x]\nmessages_per_connection = 0", "site.\"x\".messages_per_connection: expected 1 to"),
        ("[domain.'Vip.example']\nconnections = 1", "domain.\"Vip.example\": expected a domain in lower case"),
        ("[domain.'a b']\nconnections = 1", "domain.\"a b\": expected a domain"),
        ("[default]\nconnectoins = 1", "line 2, [default], key connectoins: unknown field"),
    ] {
        let error = shaping(own).unwrap_err();
        assert!(error.starts_with("shaping.file: own.toml: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let mut settings = Settings::default();
    settings.shaping.file = Some("/nonexistent/shaping.toml".into());
    let error = Shaping::new(&settings).unwrap_err().to_string();
    assert!(error.starts_with("shaping.file: /nonexistent/shaping.toml: "), "{error}");
}
