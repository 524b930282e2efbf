//! Validation against really signed zones: the tools of ldns sign them, NSD
//! serves them.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use postrider_base::Metrics;
use postrider_dns::{Answer, DnsError, HickoryResolver, Resolver, Settings, Tlsa, Validation};
use postrider_mail::Domain;
use server::Nsd;
use tempfile::TempDir;

const HEAD: &str = "$TTL 300\n@ IN SOA ns.test. hostmaster.test. 1 3600 600 86400 77\n@ IN NS ns.test.\n";

/// A host with a TLSA record, and all kinds of names.
const RECORDS: &str = "\
@       IN MX   10 mx
mx      IN A    192.0.2.1
mx      IN AAAA 2001:db8::1
v4      IN A    192.0.2.4
_25._tcp.mx IN TLSA 3 1 1 0101010101010101010101010101010101010101010101010101010101010101
inside  IN CNAME mx
v4alias IN CNAME v4
outside IN CNAME mx.open.test.
away    IN CNAME absent
*.wild  IN MX   10 mx
";

/// Where keys and zones are made.
struct Signer(TempDir);

impl Signer {
    fn new() -> Signer {
        Signer(tempfile::tempdir().unwrap())
    }

    /// A new key for a zone: its base name.
    fn key(&self, zone: &str) -> String {
        let output = self.run("ldns-keygen", &["-k", "-a", "ECDSAP256SHA256", zone]);
        output.trim().to_owned()
    }

    /// The DS record of a key.
    fn ds(&self, key: &str) -> String {
        fs::read_to_string(self.path(&format!("{key}.ds"))).unwrap() + "\n"
    }

    fn sign(&self, zone: &str, key: &str, text: &str, options: &[&str]) -> String {
        fs::write(self.path("zone"), format!("$ORIGIN {zone}\n{text}")).unwrap();
        let mut arguments = options.to_vec();
        arguments.extend(["-o", zone, "-f", "signed", "zone", key]);
        self.run("ldns-signzone", &arguments);
        fs::read_to_string(self.path("signed")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).current_dir(self.0.path()).output();
        let output = output.expect("this test needs ldns's tools: install the Debian package `ldnsutils`");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A whole DNS: root, a zone `test` of which not everything below is signed, and
/// zones of every condition below it.
struct World {
    nsd: Nsd,
    signer: Signer,
    anchor: PathBuf,
}

impl World {
    fn new() -> World {
        let signer = Signer::new();
        let text = format!("{HEAD}{RECORDS}");
        let mut test = format!("{HEAD}ns IN A 127.0.0.1\nopen IN NS ns.test.\n");
        let mut zones = vec![("open.test", format!("$ORIGIN open.test.\n{text}"))];
        let mut add = |name: &'static str, options: &[&str], spoil: fn(String) -> String| {
            let zone = format!("{name}.");
            let key = signer.key(&zone);
            test.push_str(&format!("{zone} IN NS ns.test.\n{}", signer.ds(&key)));
            zones.push((name, spoil(signer.sign(&zone, &key, &text, options))));
        };
        let whole = |text: String| text;
        add("secure.test", &[], whole);
        add("nsec3.test", &["-n", "-t", "0"], whole);
        add("forged.test", &[], |text| text.replace("192.0.2.1", "192.0.2.66").replace("10 mx.", "9 mx."));
        add("expired.test", &["-i", "20200101", "-e", "20200201"], whole);
        add("stripped.test", &[], |text| {
            text.lines().filter(|line| !is_of_dnssec(line)).collect::<Vec<_>>().join("\n") + "\n"
        });
        add("vanished.test", &[], |text| {
            text.lines()
                .filter(|line| !line.starts_with("_25._tcp") && !line.contains("NSEC"))
                .collect::<Vec<_>>()
                .join("\n")
                + "\n"
        });
        let (test_key, root_key) = (signer.key("test."), signer.key("."));
        let root = format!("{HEAD}test. IN NS ns.test.\nns.test. IN A 127.0.0.1\n{}", signer.ds(&test_key));
        zones.push(("test", signer.sign("test.", &test_key, &test, &["-n", "-p", "-t", "0"])));
        zones.push((".", signer.sign(".", &root_key, &root, &[])));
        let anchor = signer.path(&format!("{root_key}.key"));
        World { nsd: Nsd::start(&zones), signer, anchor }
    }

    fn settings(&self) -> Settings {
        let mut settings = self.nsd.settings();
        settings.dnssec.trust_anchor_file = Some(self.anchor.clone());
        settings
    }

    fn resolver(&self) -> HickoryResolver {
        HickoryResolver::new(&self.settings()).unwrap()
    }
}

fn is_of_dnssec(line: &str) -> bool {
    ["RRSIG", "NSEC", "DNSKEY"].iter().any(|kind| line.contains(&format!("\t{kind}\t")))
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn tlsa() -> Tlsa {
    Tlsa { usage: 3, selector: 1, matching: 1, data: vec![1; 32] }
}

#[tokio::test]
async fn what_is_signed_is_proved() {
    let world = World::new();
    let resolver = world.resolver();
    for zone in ["secure.test", "nsec3.test"] {
        let mx = resolver.mx(&domain(zone)).await.unwrap();
        assert!(mx.authenticated && mx.alias.is_none(), "{mx:?}");
        assert_eq!(mx.value[0].exchange, format!("mx.{zone}"));
        let addresses = resolver.proved_addresses(&format!("mx.{zone}")).await.unwrap();
        assert_eq!((addresses.value.len(), addresses.authenticated), (2, true));
        let one = resolver.proved_addresses(&format!("v4.{zone}")).await.unwrap();
        assert_eq!((one.value.len(), one.authenticated), (1, true));
        let records = resolver.tlsa(&format!("mx.{zone}"), 25).await.unwrap();
        assert_eq!((records.value, records.authenticated, records.ttl), (vec![tlsa()], true, Duration::from_secs(300)));
        let wild = resolver.mx(&domain(&format!("any.wild.{zone}"))).await.unwrap();
        assert!(wild.authenticated, "{wild:?}");
    }
    assert_eq!(resolver.validation(), Validation::Works);
}

#[tokio::test]
async fn absence_is_proved_where_the_zone_is_signed() {
    let world = World::new();
    let resolver = world.resolver();
    let ttl = Duration::from_secs(77);
    for (zone, proved) in [("secure.test", true), ("nsec3.test", true), ("open.test", false)] {
        let absent = resolver.mx(&domain(&format!("absent.{zone}"))).await;
        assert_eq!(absent, Err(DnsError::NoSuchDomain { ttl, proved }), "{zone}");
        let other = resolver.mx(&domain(&format!("mx.{zone}"))).await;
        assert_eq!(other, Err(DnsError::NoRecords { ttl, proved }), "{zone}");
        let other = resolver.tlsa(&format!("v4.{zone}"), 25).await;
        assert_eq!(other, Err(DnsError::NoSuchDomain { ttl, proved }), "{zone}");
        // Through an alias too.
        let other = resolver.mx(&domain(&format!("inside.{zone}"))).await;
        assert_eq!(other, Err(DnsError::NoRecords { ttl, proved }), "{zone}");
        let absent = resolver.mx(&domain(&format!("away.{zone}"))).await;
        assert_eq!(absent, Err(DnsError::NoSuchDomain { ttl, proved }), "{zone}");
    }
}

#[tokio::test]
async fn what_is_not_signed_is_answered_all_the_same() {
    let world = World::new();
    let resolver = world.resolver();
    let mx = resolver.mx(&domain("open.test")).await.unwrap();
    assert!(!mx.authenticated);
    let addresses = resolver.proved_addresses("mx.open.test").await.unwrap();
    assert_eq!((addresses.value.len(), addresses.authenticated), (2, false));
    assert!(!resolver.tlsa("mx.open.test", 25).await.unwrap().authenticated);
}

#[tokio::test]
async fn what_should_be_proved_and_is_not_is_never_believed() {
    let world = World::new();
    let resolver = world.resolver();
    for zone in ["forged.test", "expired.test", "stripped.test"] {
        let mx = resolver.mx(&domain(zone)).await.unwrap_err();
        assert!(matches!(mx, DnsError::Bogus { .. }) && mx.is_temporary(), "{zone}: {mx:?}");
        // Nobody asked for a proof.
        assert!(resolver.addresses(&format!("mx.{zone}")).await.is_ok());
    }
    for zone in ["expired.test", "stripped.test", "vanished.test"] {
        let records = resolver.tlsa(&format!("mx.{zone}"), 25).await.unwrap_err();
        assert!(matches!(records, DnsError::Bogus { .. }), "{zone}: {records:?}");
    }
    assert!(resolver.mx(&domain("vanished.test")).await.unwrap().authenticated);
    assert_eq!(resolver.validation(), Validation::Works);
}

#[tokio::test]
async fn aliases_are_as_sure_as_their_weakest_step() {
    let world = World::new();
    let resolver = world.resolver();
    let facts = |answer: Answer<_>| {
        let alias = answer.alias.unwrap();
        let addresses: Vec<std::net::IpAddr> = answer.value;
        (addresses.len(), answer.authenticated, alias.target.to_string(), alias.first_proved)
    };
    for zone in ["secure.test", "nsec3.test"] {
        let inside = resolver.proved_addresses(&format!("inside.{zone}")).await.unwrap();
        assert_eq!(facts(inside), (2, true, format!("mx.{zone}"), true));
        let one = resolver.proved_addresses(&format!("v4alias.{zone}")).await.unwrap();
        assert_eq!(facts(one), (1, true, format!("v4.{zone}"), true));
        let outside = resolver.proved_addresses(&format!("outside.{zone}")).await.unwrap();
        assert_eq!(facts(outside), (2, false, "mx.open.test".to_owned(), true));
    }
    let open = resolver.proved_addresses("inside.open.test").await.unwrap();
    assert_eq!(facts(open), (2, false, "mx.open.test".to_owned(), false));
}

#[tokio::test]
async fn the_operator_may_leave_out_a_domain_or_everything() {
    let world = World::new();
    let mut settings = world.settings();
    settings.dnssec.insecure = vec!["Expired.test".to_owned()];
    let resolver = HickoryResolver::new(&settings).unwrap();
    assert!(!resolver.mx(&domain("expired.test")).await.unwrap().authenticated);
    assert!(resolver.mx(&domain("forged.test")).await.is_err());
    settings.dnssec.validate = false;
    let resolver = HickoryResolver::new(&settings).unwrap();
    assert!(!resolver.mx(&domain("forged.test")).await.unwrap().authenticated);
    assert_eq!(resolver.validation(), Validation::Off);
}

#[tokio::test]
async fn servers_that_prove_nothing_turn_validation_off_and_nothing_else() {
    let world = World::new();
    // Another root's keys: nothing that these servers say can be proved.
    let stranger = world.signer.key(".");
    let mut settings = world.settings();
    settings.dnssec.trust_anchor_file = Some(world.signer.path(&format!("{stranger}.key")));
    let resolver = HickoryResolver::new(&settings).unwrap();
    for zone in ["secure.test", "forged.test", "open.test"] {
        assert!(!resolver.mx(&domain(zone)).await.unwrap().authenticated, "{zone}");
        assert!(resolver.proved_addresses(&format!("mx.{zone}")).await.is_ok());
    }
    assert!(matches!(resolver.validation(), Validation::Broken { .. }));
    let metrics = Metrics::new();
    metrics.dnssec.set(1);
    let probing = resolver.keep_probing(&metrics);
    assert!(tokio::time::timeout(Duration::from_millis(100), probing).await.is_err());
    assert_eq!(metrics.dnssec.get(), 0);
}

#[tokio::test]
async fn servers_that_only_cannot_answer_for_the_root_do_no_harm() {
    let nsd = Nsd::start(&[("example.com", format!("$ORIGIN example.com.\n{HEAD}{RECORDS}"))]);
    let resolver = HickoryResolver::new(&nsd.settings()).unwrap();
    assert!(!resolver.mx(&domain("example.com")).await.unwrap().authenticated);
    assert!(matches!(resolver.validation(), Validation::Broken { .. }));
}

#[test]
fn a_bad_trust_anchor_is_named() {
    let signer = Signer::new();
    let island = signer.key("island.test.");
    let files: [&Path; 3] =
        [Path::new("/nowhere"), &signer.path(&format!("{island}.key")), &signer.path(&format!("{island}.ds"))];
    for file in files {
        let mut settings = Settings::default();
        settings.dnssec.trust_anchor_file = Some(file.to_owned());
        let error = HickoryResolver::new(&settings).err().unwrap().to_string();
        assert!(error.contains("dnssec.trust_anchor_file: "), "{error}");
    }
}
