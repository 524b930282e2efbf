//! What independent programs say of the same: pyspf evaluates the same records, dkimpy makes
//! the signatures and chains that are verified here.

#![expect(clippy::unwrap_used, reason = "a helper that can not go on fails its test")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use postrider_base::{Clock, Random, Timestamp};
use postrider_dns::Zones;
use postrider_mailauth::dkim::PrivateKey;
use postrider_mailauth::verify::arc::ArcResult;
use postrider_mailauth::verify::dkim::DkimResult;
use postrider_mailauth::verify::spf::{SpfQuery, evaluate};
use postrider_mailauth::verify::{Connection, Limits, verify};
use serde_json::{Value, json};

/// What exists beside the record that is tried.
const ZONE: [(&str, &str, &str); 21] = [
    ("example.com", "A", "192.0.2.1"),
    ("example.com", "MX", "mx.example.net"),
    ("a.example.net", "A", "192.0.2.1"),
    ("a.example.net", "AAAA", "2001:db8::1"),
    ("b.example.net", "A", "198.51.100.7"),
    ("b.example.net", "A", "192.0.2.130"),
    ("mx.example.net", "A", "192.0.2.99"),
    ("m.example.net", "MX", "a.example.net"),
    ("m.example.net", "MX", "b.example.net"),
    ("pass.example.net", "TXT", "v=spf1 ip4:192.0.2.0/24 -all"),
    ("fail.example.net", "TXT", "v=spf1 -all"),
    ("soft.example.net", "TXT", "v=spf1 ip4:203.0.113.1 ~all"),
    ("deep.example.net", "TXT", "v=spf1 include:soft.example.net include:pass.example.net ?all"),
    ("loop.example.net", "TXT", "v=spf1 include:loop.example.net -all"),
    ("bad.example.net", "TXT", "v=spf1 ip4:1.2.3 -all"),
    ("redirect.example.net", "TXT", "v=spf1 redirect=deep.example.net"),
    ("1.2.0.192.in-addr.arpa", "PTR", "a.example.net"),
    ("1.2.0.192.in-addr.arpa", "PTR", "forged.example.org"),
    ("forged.example.org", "A", "192.0.2.77"),
    ("1.2.0.192.strong-bad.example.com", "A", "127.0.0.2"),
    ("example.com.list.example.net", "A", "127.0.0.2"),
];

/// What records are made of. A term that finds nothing is rare, because the two count those in
/// different ways (RFC 7208 section 4.6.4 leaves it open).
const TERMS: &[&str] = &[
    "all",
    "-all",
    "~all",
    "?all",
    "+ALL",
    "a",
    "-a",
    "a/24",
    "a:b.example.net",
    "~a:b.example.net/25",
    "a:a.example.net//64",
    "mx",
    "mx/25",
    "?mx:m.example.net",
    "mx:m.example.net/32//0",
    "ip4:192.0.2.1",
    "-ip4:192.0.2.0/24",
    "ip4:198.51.100.0/24",
    "ip6:2001:db8::/32",
    "ip6:::ffff:192.0.2.1",
    "include:pass.example.net",
    "-include:fail.example.net",
    "include:soft.example.net",
    "include:deep.example.net",
    "include:redirect.example.net",
    "exists:%{ir}.%{l}.%{d}",
    "-exists:%{o}.list.example.net",
    "exists:%{d2}.list.example.net",
    "ptr:example.net",
    "~ptr:example.org",
    "ptr:net",
    "redirect=fail.example.net",
    "redirect=deep.example.net",
    "unknown=%{d}",
    "exp=%{d}.example.net",
];
/// Terms that end an evaluation, now and then.
const ODD: &[&str] = &[
    "include:bad.example.net",
    "include:loop.example.net",
    "include:absent.example.net",
    "redirect=absent.example.net",
    "ip4:192.0.2.1/33",
    "a:",
    "what",
    "all:x",
    "a:%{x}.example.net",
    "ip4:192.0.2.1/",
    "mx:/24",
    "exists",
    "include",
    "redirect=pass.example.net redirect=pass.example.net",
    "a:foo",
    "ip6:192.0.2.1",
    "exp=",
    "a/24/24",
    "a//129",
    "=x",
    "a=b=c",
    "%",
    "x=%",
    "ptr:",
    "ip4:192.0.2.01",
];

fn run(script: &str, arguments: &[&Path], input: &Value) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent").join(script);
    // Debian's own Python, which has Debian's packages.
    let mut child = Command::new("/usr/bin/python3")
        .arg("-I")
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`cargo xtask test` installs python3, python3-dkim and python3-spf");
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the program failed: see above");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn pick<'a>(random: &Random, from: &[&'a str]) -> &'a str {
    from[usize::try_from(random.below(from.len() as u64)).unwrap()]
}

fn record(random: &Random) -> String {
    let mut text = "v=spf1".to_owned();
    for _ in 0..=random.below(5) {
        let from = if random.below(12) == 0 { ODD } else { TERMS };
        let term = pick(random, from);
        // pyspf refuses a modifier twice that it does not know; RFC 7208 section 6 ignores it.
        if text.split(' ').all(|known| known != term) {
            text.push(' ');
            text.push_str(term);
        }
    }
    text
}

#[tokio::test]
async fn pyspf_says_the_same_of_two_thousand_records() {
    let random = Random::seeded(7208);
    let records: Vec<String> = (0..2_000).map(|_| record(&random)).collect();
    let theirs = run("spf.py", &[], &json!({ "zone": ZONE, "records": records }));
    let zones = Zones::new();
    let mut seen = std::collections::BTreeMap::new();
    for (record, theirs) in records.iter().zip(theirs.as_array().unwrap()) {
        zones.remove("example.com");
        for (name, kind, value) in ZONE {
            match kind {
                "A" | "AAAA" if name == "example.com" || seen.is_empty() => drop(zones.add_address(name, value)),
                "MX" if name == "example.com" || seen.is_empty() => drop(zones.add_mx(name, 10, value)),
                "TXT" if seen.is_empty() => drop(zones.add_txt(name, value)),
                "PTR" if seen.is_empty() => drop(zones.add_ptr("192.0.2.1", value)),
                _ => {}
            }
        }
        zones.add_txt("example.com", record);
        let query = SpfQuery {
            ip: "192.0.2.1".parse().unwrap(),
            domain: "example.com",
            sender: "strong-bad@example.com",
            helo: "mx.example.com",
            receiver: "mx.example.net",
            at: Timestamp::default(),
        };
        let report = evaluate(&zones, &query).await;
        assert_eq!(report.result.as_str(), theirs.as_str().unwrap(), "{record}: {}", report.reason);
        *seen.entry(report.result.as_str()).or_insert(0) += 1;
    }
    // None of them is there by chance alone.
    for result in ["pass", "fail", "softfail", "neutral", "permerror"] {
        assert!(seen[result] > 50, "{seen:?}");
    }
}

const BODIES: [&str; 9] = [
    "",
    "a",
    "a\r\n",
    "a  b\t c \r\n\r\nd\r\n",
    "a\r\n\r\n\r\n",
    "a\r\n \r\n",
    "a\r\n \t \r\n\t\r\n",
    " \r\n",
    "- \r\n.\r\n\r\n \r\n\r\nz",
];

#[tokio::test]
async fn what_dkimpy_signs_and_seals_passes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/rsa-2048-pkcs1.pem");
    let key = PrivateKey::from_pem(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let record = key.public().unwrap().record();
    let zones = Zones::new();
    zones.add_txt("s._domainkey.example.com", &record).add_txt("s._domainkey.list.example", &record);
    let mut messages = Vec::new();
    for body in BODIES {
        for (header, form) in
            [("simple", "simple"), ("simple", "relaxed"), ("relaxed", "simple"), ("relaxed", "relaxed")]
        {
            for length in [false, true] {
                let text = format!(
                    "From: a@example.com\r\nSubject:  a \t b\r\n\tc\r\nX-Empty:\r\nTo: b@example.net\r\n\r\n{body}"
                );
                messages.push(json!([header, form, length, text]));
            }
        }
    }
    let signed = run("sign.py", &[&file], &json!(messages));
    let clock = Clock::system();
    let connection = Connection { ip: None, helo: "", mail_from: "", receiver: "mx.example.net" };
    for (asked, message) in messages.iter().zip(signed.as_array().unwrap()) {
        let message: Vec<u8> = message.as_str().unwrap().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        let verdict = verify(&zones, &clock, &message, &connection, &Limits::default()).await.unwrap();
        let [dkim] = verdict.dkim.as_slice() else { panic!("{verdict:?}") };
        assert_eq!(dkim.result, DkimResult::Pass, "{asked}: {}", dkim.reason);
        assert_eq!(verdict.arc.result, ArcResult::Pass, "{asked}: {}", verdict.arc.reason);
        // The same with another word in it passes nowhere.
        let changed = String::from_utf8_lossy(&message).replace("Subject:  a", "Subject:  A");
        let verdict = verify(&zones, &clock, changed.as_bytes(), &connection, &Limits::default()).await.unwrap();
        assert_eq!((verdict.dkim[0].result, verdict.arc.result), (DkimResult::Fail, ArcResult::Fail), "{asked}");
    }
}
