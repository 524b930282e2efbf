//! The Debian packages that tests and benchmarks need: real peers, not
//! imitations. Nothing is installed without saying what and why.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::say;

/// A package, a file that proves it is there, and why we want it.
pub(crate) struct Package {
    name: &'static str,
    proof: &'static [&'static str],
    why: &'static str,
}

/// What `cargo xtask test` needs.
pub(crate) const FOR_TESTS: &[Package] = &[
    Package { name: "postfix", proof: &["/usr/sbin/postfix"], why: "a real smarthost client" },
    Package {
        name: "libsasl2-modules",
        proof: &["/usr/lib/x86_64-linux-gnu/sasl2/libplain.so", "/usr/lib/aarch64-linux-gnu/sasl2/libplain.so"],
        why: "AUTH PLAIN and LOGIN in Postfix",
    },
    Package {
        name: "ca-certificates",
        proof: &["/etc/ssl/certs/ca-certificates.crt"],
        why: "trust roots for outbound TLS",
    },
    Package { name: "swaks", proof: &["/usr/bin/swaks"], why: "a real SMTP test client" },
    Package { name: "libnet-ssleay-perl", proof: &["/usr/share/doc/libnet-ssleay-perl"], why: "TLS in swaks" },
    Package { name: "libio-socket-ssl-perl", proof: &["/usr/share/doc/libio-socket-ssl-perl"], why: "TLS in swaks" },
    Package { name: "python3", proof: &["/usr/bin/python3"], why: "Python's smtplib as a client" },
    Package { name: "nsd", proof: &["/usr/sbin/nsd"], why: "a real authoritative DNS server" },
    Package { name: "systemd", proof: &["/usr/bin/systemd-analyze"], why: "systemd-analyze checks the unit files" },
];

/// What `cargo xtask bench relay` needs besides.
pub(crate) const FOR_BENCHMARKS: &[Package] =
    &[Package { name: "sasl2-bin", proof: &["/usr/sbin/saslpasswd2"], why: "AUTH in the Postfix that is measured" }];

/// What `cargo xtask fuzz` needs.
pub(crate) const FOR_FUZZING: &[Package] =
    &[Package { name: "g++", proof: &["/usr/bin/g++", "/usr/bin/c++"], why: "libFuzzer is C++" }];

/// Installs what is missing, or says clearly why it cannot.
pub(crate) fn ensure(wanted: &[&[Package]]) -> Result<()> {
    let missing: Vec<&Package> = wanted
        .iter()
        .flat_map(|packages| packages.iter())
        .filter(|package| !package.proof.iter().any(|file| Path::new(file).exists()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        say(&format!("needs Debian package {}: {}", package.name, package.why));
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this is no Debian system: install by hand: {}", names.join(" "));
    }
    if !am_root()? {
        bail!(
            "not root, so nothing was installed; run: sudo apt-get install --no-install-recommends {}",
            names.join(" ")
        );
    }
    apt(&["update", "-q"])?;
    let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
    install.extend(names);
    apt(&install)
}

fn apt(arguments: &[&str]) -> Result<()> {
    say(&format!("apt-get {}", arguments.join(" ")));
    let output = Command::new("/usr/bin/apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("running apt-get")?;
    if !output.status.success() {
        bail!("apt-get {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn am_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output().context("running id")?;
    Ok(output.stdout == b"0\n")
}
