//! Zones that are really signed, by the tools of ldns, from a root of their own.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::nsd::Zone;

/// A root and a zone below it, ready for [`Nsd`](crate::Nsd).
#[derive(Debug)]
pub struct Signed {
    /// The root and the zone.
    pub zones: Vec<Zone>,
    /// The file with the root's key: what a resolver has to trust.
    pub anchor: PathBuf,
    directory: TempDir,
}

impl Signed {
    /// Signs `zone`, a top-level domain that the name server at `server` has,
    /// and makes the root above it.
    ///
    /// # Errors
    /// A missing program, or a zone that it does not take.
    pub fn new(zone: &Zone, server: Ipv4Addr, ttl: Duration) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("signed-").tempdir()?;
        let mut signed = Self { zones: Vec::new(), anchor: PathBuf::new(), directory };
        let name = zone.name().to_owned();
        let (key, root_key) = (signed.key(&format!("{name}."))?, signed.key(".")?);
        let mut root = Zone::new("");
        root.line(&format!("{name}. IN NS ns.{name}.")).line(&format!("ns.{name}. IN A {server}"));
        root.line(fs::read_to_string(signed.path(&format!("{key}.ds")))?.trim_end());
        for (zone, key) in [(zone, &key), (&root, &root_key)] {
            let done = signed.sign(zone, key, server, ttl)?;
            signed.zones.push(done);
        }
        signed.anchor = signed.path(&format!("{root_key}.key"));
        Ok(signed)
    }

    /// Makes a key; gives the base name of its files.
    fn key(&self, zone: &str) -> io::Result<String> {
        Ok(self.run("ldns-keygen", &["-k", "-a", "ECDSAP256SHA256", zone])?.trim().to_owned())
    }

    fn sign(&self, zone: &Zone, key: &str, server: Ipv4Addr, ttl: Duration) -> io::Result<Zone> {
        fs::write(self.path("zone"), zone.text(server, ttl))?;
        self.run("ldns-signzone", &["-o", &format!("{}.", zone.name()), "-f", "signed", "zone", key])?;
        Ok(Zone::complete(zone.name(), fs::read_to_string(self.path("signed"))?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        let output = Command::new(program).args(arguments).current_dir(self.directory.path()).output();
        let missing = "`cargo xtask test` installs ldnsutils";
        let output = output.map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}; {missing}")))?;
        if !output.status.success() {
            return Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))));
        }
        String::from_utf8(output.stdout).map_err(io::Error::other)
    }
}
