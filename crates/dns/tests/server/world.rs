//! A whole DNS with really signed zones: the tools of ldns sign them, NSD serves
//! them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use postrider_base::Metrics;
use postrider_dns::{HickoryResolver, Settings};
use tempfile::TempDir;

use crate::server::Nsd;

pub(crate) const HEAD: &str = "$TTL 300\n@ IN SOA ns.test. hostmaster.test. 1 3600 600 86400 77\n@ IN NS ns.test.\n";

/// A host with a TLSA record, and all kinds of names.
pub(crate) const RECORDS: &str = "\
@       IN MX   10 mx
mx      IN A    192.0.2.1
mx      IN AAAA 2001:db8::1
v4      IN A    192.0.2.4
_25._tcp.mx IN TLSA 3 1 1 0101010101010101010101010101010101010101010101010101010101010101
star    IN A    192.0.2.5
*._tcp.star IN TLSA 3 1 1 0101010101010101010101010101010101010101010101010101010101010101
linked  IN A    192.0.2.6
_25._tcp.linked IN CNAME _25._tcp.mx
inside  IN CNAME mx
v4alias IN CNAME v4
outside IN CNAME mx.open.test.
across  IN CNAME mx.nsec3.test.
away    IN CNAME absent
*.wild  IN MX   10 mx
";

/// Where keys and zones are made.
pub(crate) struct Signer(TempDir);

impl Signer {
    pub(crate) fn new() -> Signer {
        Signer(tempfile::tempdir().unwrap())
    }

    /// A new key for a zone: its base name.
    pub(crate) fn key(&self, zone: &str) -> String {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
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
pub(crate) struct World {
    pub(crate) nsd: Nsd,
    pub(crate) signer: Signer,
    anchor: PathBuf,
}

impl World {
    pub(crate) fn new() -> World {
        let signer = Signer::new();
        let text = format!("{HEAD}{RECORDS}");
        let mut test = format!("{HEAD}ns IN A 127.0.0.1\nopen IN NS ns.test.\ninner.low IN NS ns.test.\n");
        let unsigned = |name: &'static str| (name, format!("$ORIGIN {name}.\n{text}"));
        let mut zones = vec![unsigned("open.test"), unsigned("inner.low.test")];
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

    pub(crate) fn settings(&self) -> Settings {
        let mut settings = self.nsd.settings();
        settings.dnssec.trust_anchor_file = Some(self.anchor.clone());
        settings
    }

    pub(crate) fn resolver(&self) -> HickoryResolver {
        HickoryResolver::new(&self.settings(), &Metrics::new()).unwrap()
    }
}

fn is_of_dnssec(line: &str) -> bool {
    ["RRSIG", "NSEC", "DNSKEY"].iter().any(|kind| line.contains(&format!("\t{kind}\t")))
}
