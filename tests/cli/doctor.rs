//! `postrider dns`, `postrider doctor`, `postrider explain`.

use std::net::SocketAddr;
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::knot::{Knot, MAY, SECRET};
use postrider_testkit::nsd::{Nsd, Zone};
use postrider_testkit::ports::free_address;
use postrider_testkit::{Accept, Relay, RelayOptions, Security, Sink};
use serde_json::Value;

use crate::support::{Node, free_port, postrider, refusal, stdout};

const NODE: &str = "[delivery.sources.out1]\nipv4 = \"198.51.100.7\"\nehlo_name = \"out.relay.example\"\n\
     [spool]\nmin_free_bytes = \"1MB\"\n";

/// A node that asks this name server, where one is given.
fn node(server: Option<SocketAddr>) -> Node {
    let node = Node::new();
    node.configure(NODE);
    let text = std::fs::read_to_string(node.path("postrider.toml")).unwrap();
    let text = text.replace("[server]\n", "[server]\noperator_domain = \"relay.example\"\n");
    let text = match server {
        Some(server) => text.replace("127.0.0.1:9", &server.to_string()),
        None => text,
    };
    let text = text.replace("[dns]\n", "[dns]\ndnssec = { validate = false }\ntimeout = \"500ms\"\nattempts = 1\n");
    std::fs::write(node.path("postrider.toml"), text).unwrap();
    node
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_plan_is_a_zone_file_that_a_name_server_reads() {
    let node = node(None);
    let plan = node.told(&["dns", "plan", "example.com", "--dmarc-reports", "dmarc@example.com"]);
    assert!(
        plan.contains("_dmarc.example.com. 3600 IN TXT \"v=DMARC1; p=none; rua=mailto:dmarc@example.com\""),
        "{plan}"
    );
    assert!(plan.contains("_spf.relay.example. 3600 IN TXT \"v=spf1 ip4:198.51.100.7 ~all\""), "{plan}");
    assert!(plan.contains("7.100.51.198.in-addr.arpa. 3600 IN PTR out.relay.example."), "{plan}");
    assert!(plan.contains("; note: example.com has no DKIM key"), "{plan}");

    let mut zone = Zone::new("example.com");
    for line in plan.lines().filter(|line| line.contains("example.com. 3600")) {
        zone.line(line);
    }
    let address = free_address().unwrap();
    let _nsd = Nsd::start(address, &[zone], Duration::from_secs(5)).unwrap();
    let there = self::node(Some(address));
    let checked = json(&there.told(&["dns", "plan", "example.com", "--check", "--json"]));
    let state = |name: &str| {
        let records = checked["records"].as_array().unwrap();
        records.iter().find(|record| record["name"] == name).unwrap()["state"]["is"].clone()
    };
    assert_eq!(state("_dmarc.example.com"), "right");
    assert_eq!(state("example.com"), "right");
    assert_eq!(state("_spf.relay.example"), "unknown", "the server does not keep that zone");

    let csv = node.told(&["dns", "plan", "example.com", "--format", "csv"]);
    assert!(csv.starts_with("name,type,ttl,value,need,place,state,why\r\n"), "{csv}");
    let script = node.told(&["dns", "plan", "example.com", "--format", "nsupdate"]);
    assert!(script.contains("update add _dmarc.example.com. 3600 IN TXT \"v=DMARC1; p=none\"\n"), "{script}");
}

#[test]
fn a_plan_is_published_to_a_server_that_takes_updates() {
    let knot = Knot::start(&[Zone::new("example.com")]).unwrap();
    let node = node(Some(knot.address()));
    let key = node.path("key");
    std::fs::write(&key, format!("key \"{MAY}\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};")).unwrap();
    let (server, key) = (knot.address().to_string(), key.display().to_string());
    let publish = ["dns", "plan", "example.com", "--publish", "--server", &server, "--key", &key];

    let dry = node.told(&[&publish[..], &["--dry-run"]].concat());
    assert!(dry.contains("would add") && !dry.contains("added"), "{dry}");
    let first = json(&node.told(&[&publish[..], &["--json"]].concat()));
    let outcome = |published: &Value, name: &str| {
        let records = published.as_array().unwrap();
        records.iter().find(|record| record["name"] == name).unwrap()["outcome"].clone()
    };
    assert_eq!(outcome(&first, "_dmarc.example.com"), "added");
    assert_eq!(outcome(&first, "_spf.relay.example"), "outside");
    let second = json(&node.told(&[&publish[..], &["--json"]].concat()));
    assert_eq!(outcome(&second, "_dmarc.example.com"), "already-right");

    std::fs::write(node.path("key"), "key \"nobody\" { algorithm hmac-sha256; secret \"aGk=\"; };").unwrap();
    let unknown = node.run(&publish);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(refusal(&unknown).contains("BADKEY"));
    let without = node.run(&["dns", "plan", "example.com", "--publish"]);
    assert_eq!(without.status.code(), Some(2), "it must be said where");
}

#[test]
fn the_doctor_says_what_is_wrong_and_exits_so() {
    let mut zone = Zone::new("example.com");
    zone.line("@ IN MX 10 mx\n@ IN TXT \"v=spf1 include:_spf.relay.example -all\"");
    zone.line("_dmarc IN TXT \"v=DMARC1; p=reject\"");
    let mut relay = Zone::new("relay.example");
    relay.line("_spf IN TXT \"v=spf1 ip4:192.0.2.1 -all\"\nout IN A 198.51.100.7");
    let mut reverse = Zone::new("100.51.198.in-addr.arpa");
    reverse.line("7 IN PTR out.relay.example.");
    let address = free_address().unwrap();
    // A policy is looked for all the way up.
    let com = Zone::new("com");
    let _nsd = Nsd::start(address, &[zone, relay, reverse, com], Duration::from_secs(5)).unwrap();
    let node = node(Some(address));

    let sick = node.run(&["doctor", "example.com"]);
    assert_eq!(sick.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&sick.stderr), "", "the findings say it all");
    let said = stdout(&sick);
    for words in [
        "fail  identity        example.com: it belongs to no identity",
        "fail  dkim            example.com: there is no key that signs for this domain",
        "fail  spf             example.com: 198.51.100.7: fail",
        "pass  spf-lookups     example.com: it takes 1 of 10 DNS lookups",
        "fail  dmarc           example.com: policy reject",
        "is refused: it shows as bounces",
        "pass  mx              example.com: it takes mail: mx.example.com",
        "do: make one: `postrider identities create example.com`",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }

    let host = node.run(&["doctor", "--self", "--json"]);
    let findings = json(&stdout(&host))["findings"].clone();
    let verdict = |check: &str| {
        let findings = findings.as_array().unwrap();
        findings.iter().find(|finding| finding["check"] == check).unwrap()["verdict"].clone()
    };
    assert_eq!(verdict("ptr"), "pass", "{findings}");
    assert_eq!(verdict("outbound"), "skip");
    assert_eq!(verdict("disk"), "pass");
    assert_eq!(host.status.code(), Some(0), "{findings}");

    // Through the daemon it is the same, and there is a certificate then.
    let _daemon = node.serve();
    let host = node.run(&["doctor", "--self"]);
    assert_eq!(host.status.code(), Some(1), "the certificate is self-signed");
    assert!(stdout(&host).contains("warn  certificate"), "{}", stdout(&host));
    assert_eq!(node.run(&["doctor", "example.com"]).status.code(), Some(2));
    let closed = free_address().unwrap();
    let probed = node.run(&["doctor", "--self", "--probe", &closed.to_string()]);
    assert!(stdout(&probed).contains("outbound"), "{}", stdout(&probed));
    let unknown = node.run(&["doctor", "0100018bcfe56800-16db2f1c-7db3-4f6c-8a5e-4b1d3f0f7f7a-000000"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(refusal(&node.run(&["doctor", "a b"])).contains("neither a domain nor a message id"));
}

#[test]
fn what_would_be_used_is_explained() {
    let node = node(None);
    node.told(&["pools", "create", "bulk"]);
    node.told(&["configuration-sets", "create", "news", "--tls", "require", "--pool", "bulk"]);
    let plain = node.told(&["explain", "--from", "ann@example.com"]);
    for words in
        ["identity", "not signed", "out1 198.51.100.7 (EHLO out.relay.example)", "as the client says in MAIL FROM"]
    {
        assert!(plain.contains(words), "{words}\n{plain}");
    }
    let rows = json(&node.told(&["explain", "--from", "ann@example.com", "--configuration-set", "news", "--json"]));
    let row = |what: &str| rows.as_array().unwrap().iter().find(|row| row["what"] == what).unwrap().clone();
    assert_eq!(row("configuration-set")["value"], "news");
    assert_eq!(row("pool")["value"], "bulk");
    assert_eq!(row("source")["why"], "the pool has no address");
    assert_eq!(row("tls")["value"], "required");
    let nobody = node.run(&["explain", "--from", "ann@example.com", "--credential", "AKIANOBODY"]);
    assert_eq!(nobody.status.code(), Some(3));
    assert!(refusal(&nobody).contains("there is no credential"));
    assert_eq!(node.run(&["explain"]).status.code(), Some(2));
}

/// A node that takes its own bounces.
fn with_return_paths(server: Option<SocketAddr>) -> Node {
    let node = node(server);
    let file = node.path("postrider.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let verp = "[submission]\nreturn_path = \"verp\"\n";
    let listener = format!("[[listener]]\naddress = \"127.0.0.1:{}\"\nrole = \"feedback\"\n", free_port());
    std::fs::write(&file, text.replacen("[submission]\n", verp, 1) + &listener).unwrap();
    node
}

#[test]
fn return_paths_of_the_relay_need_a_domain_of_their_own() {
    let zones = ["example.com", "relay.example", "com"].map(Zone::new);
    let knot = Knot::start(&zones).unwrap();
    let node = with_return_paths(Some(knot.address()));
    let plan = node.told(&["dns", "plan", "example.com"]);
    assert!(plan.contains("bounces.relay.example. 3600 IN MX 10 relay.example.com."), "{plan}");
    assert!(plan.contains("bounces.relay.example. 3600 IN TXT \"v=spf1 include:_spf.relay.example ~all\""), "{plan}");
    for subject in ["example.com", "--self"] {
        let sick = node.run(&["doctor", subject]);
        assert_eq!(sick.status.code(), Some(2));
        let said = stdout(&sick);
        assert!(said.contains("fail  return-path-mx  bounces.relay.example: it has no MX record"), "{said}");
        assert!(said.contains("do: publish MX 10 relay.example.com. and no other"), "{said}");
        assert!(said.contains("fail  feedback        relay.example.com: it has no address"), "{said}");
    }
    let plain = self::node(Some(knot.address()));
    let said = stdout(&plain.run(&["doctor", "example.com"]));
    assert!(said.contains("skip  return-path-mx  example.com: return paths are what clients say"), "{said}");
}

#[test]
fn the_return_path_is_explained() {
    let node = with_return_paths(None);
    let explained = |more: &[&str]| {
        let rows = json(&node.told(&[&["explain", "--from", "ann@example.com", "--json"], more].concat()));
        let rows = rows.as_array().unwrap().clone();
        let row = |what: &str, part: &str| {
            let is_it = |row: &&Value| row["what"] == what && row["value"].as_str().unwrap().contains(part);
            let row = rows.iter().find(is_it).unwrap_or_else(|| panic!("{what} {part} in {rows:#?}"));
            (row["value"].as_str().unwrap().to_owned(), row["why"].as_str().unwrap().to_owned())
        };
        (row("return-path", ""), row("decision", ""), rows.iter().any(|row| row["value"] == "mail-from: refused"))
    };
    let ((path, why), ..) = explained(&[]);
    assert_eq!(path, "an address in bounces.relay.example that names the message");
    assert_eq!(why, "the identity has no MAIL FROM domain");

    node.told(&["identities", "create", "example.com", "--trust"]);
    node.told(&["identities", "mail-from", "example.com", "bounce.example.com"]);
    let ((path, why), (decision, _), refused) = explained(&[]);
    assert_eq!(path, "an address in bounces.relay.example that names the message");
    assert_eq!(why, "the MAIL FROM domain bounce.example.com is PENDING");
    assert_eq!((decision.as_str(), refused), ("accepted", false));

    node.told(&["identities", "mail-from", "example.com", "bounce.example.com", "--on-failure", "reject"]);
    let ((path, _), (decision, why), refused) = explained(&[]);
    assert_eq!((path.as_str(), decision.as_str(), refused), ("refused", "refused", true));
    assert!(why.contains("the MAIL FROM domain of the author's identity is not verified"), "{why}");
}

/// What the doctor finds of a domain whose records are all published.
fn assert_well(findings: &Value) {
    let verdicts = |check: &str| -> Vec<Value> {
        let found = findings.as_array().unwrap().iter().filter(|finding| finding["check"] == check);
        found.map(|finding| finding["verdict"].clone()).collect()
    };
    assert_eq!(verdicts("dkim"), ["pass", "pass", "pass"], "{findings:#}");
    for check in ["identity", "mail-from-mx", "spf", "spf-lookups", "alignment-dkim", "alignment-spf", "dmarc"] {
        assert_eq!(verdicts(check), ["pass"], "{check} {findings:#}");
    }
    assert_eq!(verdicts("mail-from"), ["warn"], "return paths are what clients say: {findings:#}");
}

/// What a part of the relay did meanwhile, which nobody had to do.
fn assert_audited(node: &Node, name: &str, part: &str, what: &str) {
    let recorded = || node.told(&["audit", "--name", name, "--json"]);
    let mut tries = 0..200;
    while recorded().is_empty() {
        assert!(tries.next().is_some(), "no {name}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let record = json(recorded().lines().next().unwrap());
    assert_eq!(record["userIdentity"]["invokedBy"], part, "{record:#}");
    assert!(record["requestParameters"]["what"].as_str().unwrap().contains(what), "{record:#}");
}

#[test]
fn a_domain_gets_well_by_what_it_is_told() {
    let zones = ["example.com", "relay.example", "com", "100.51.198.in-addr.arpa"].map(Zone::new);
    let knot = Knot::start(&zones).unwrap();
    let node = node(Some(knot.address()));
    node.told(&["identities", "create", "example.com", "--trust"]);
    node.told(&["identities", "mail-from", "example.com", "bounce.example.com"]);
    assert_eq!(node.run(&["doctor", "example.com"]).status.code(), Some(2), "nothing is published");

    let key = node.path("key");
    std::fs::write(&key, format!("key \"{MAY}\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};")).unwrap();
    let (server, key) = (knot.address().to_string(), key.display().to_string());
    for zone in ["example.com", "relay.example", "100.51.198.in-addr.arpa"] {
        let publish = ["dns", "plan", "example.com", "--publish", "--server", &server, "--key", &key, "--zone", zone];
        let told = node.told(&publish);
        assert!(told.contains("added") && !told.contains("left as it is"), "{told}");
    }
    let plan = json(&node.told(&["dns", "plan", "example.com", "--check", "--json"]));
    let records = plan["records"].as_array().unwrap();
    let keys = records.iter().filter(|record| record["name"].as_str().unwrap().ends_with("._domainkey.example.com"));
    assert_eq!(keys.count(), 3, "{plan:#}");
    for record in records.iter().filter(|record| record["need"] != "may") {
        assert_eq!(record["state"]["is"], "right", "{record:#}");
    }

    let waits = node.run(&["doctor", "example.com"]);
    assert!(stdout(&waits).contains("no key signs yet"), "{}", stdout(&waits));
    let _daemon = node.serve();
    node.told(&["identities", "verify", "example.com"]);
    let well = node.run(&["doctor", "example.com", "--json"]);
    assert_well(&json(&stdout(&well))["findings"]);
    let host = stdout(&node.run(&["doctor", "--self"]));
    assert!(host.contains("pass  ptr"), "{host}");
    assert_audited(&node, "RotateDkimKey", "rotation", "");
    let verified = "MAIL FROM domain bounce.example.com of identity";
    assert_audited(&node, "UpdateVerificationStatus", "upkeep", verified);

    // What is mended is seen at once, though the relay keeps that it was absent.
    let dmarc = || {
        let plan = json(&node.told(&["dns", "plan", "news.example.com", "--check", "--json"]));
        let records = plan["records"].as_array().unwrap();
        let dmarc = records.iter().find(|record| record["name"] == "_dmarc.news.example.com").unwrap();
        dmarc["state"]["is"].clone()
    };
    assert_eq!(dmarc(), "missing");
    node.told(&["dns", "plan", "news.example.com", "--publish", "--server", &server, "--key", &key]);
    assert_eq!(dmarc(), "right");

    let explained = node.told(&["explain", "--from", "ann@news.example.com"]);
    for words in ["example.com (trusted by configuration)", "d=example.com s=", "nearest domain above"] {
        assert!(explained.contains(words), "{words}\n{explained}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_followed_to_its_domain() {
    let sink = Sink::start(Accept, Clock::system()).await.unwrap();
    let nobody =
        "[dns]\nservers = [\"127.0.0.1:9\"]\ntimeout = \"200ms\"\nattempts = 1\ndnssec = { validate = false }\n";
    let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), nobody)).unwrap();
    let mut client = relay.endpoint(Security::StartTls, false).unwrap().connect().await.unwrap();
    let (user, password) = relay.credentials();
    client.login(user, password).await.unwrap();
    let content = b"From: me@example.com\r\nSubject: Hello\r\n\r\nHello.\r\n";
    let reply = client.send("me@example.com", &["you@example.net"], content).await.unwrap().expect(250).unwrap();
    let id = reply.text().split_whitespace().last().unwrap().to_owned();

    let mut command = postrider(&["doctor", &id, "--json", "--config"]);
    let examined = command.arg(relay.path("relay.toml")).output().unwrap();
    assert_eq!(examined.status.code(), Some(2), "the domain is no identity");
    let examined = json(&stdout(&examined));
    assert_eq!(examined["message"]["steps"][0]["what"], "accepted", "{examined:#}");
    let identity = &examined["findings"][0];
    assert_eq!((&identity["check"], &identity["subject"]), (&"identity".into(), &"example.com".into()), "{examined:#}");
}
