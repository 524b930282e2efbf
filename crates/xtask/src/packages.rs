//! The Debian packages that tests and benchmarks need: real peers, not
//! imitations. Nothing is installed without saying what and why.

use std::path::{Path, PathBuf};
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
    Package { name: "iproute2", proof: &["/usr/sbin/ip", "/sbin/ip", "/bin/ip"], why: "makes networks for tests" },
    Package { name: "dovecot-lmtpd", proof: &["/usr/lib/dovecot/lmtp"], why: "real local delivery" },
    Package { name: "nsd", proof: &["/usr/sbin/nsd"], why: "a real authoritative DNS server" },
    Package { name: "knot", proof: &["/usr/sbin/knotd"], why: "a real DNS server that takes updates" },
    Package { name: "ldnsutils", proof: &["/usr/bin/ldns-signzone"], why: "signs the zones of tests" },
    Package { name: "curl", proof: &["/usr/bin/curl"], why: "a client" },
    Package { name: "openssl", proof: &["/usr/bin/openssl"], why: "s_client, as SES's guide uses it" },
    Package { name: "msmtp", proof: &["/usr/bin/msmtp"], why: "a client" },
    Package { name: "s-nail", proof: &["/usr/bin/s-nail"], why: "a client" },
    Package { name: "php-cli", proof: &["/usr/bin/php"], why: "runs PHPMailer" },
    Package {
        name: "libphp-phpmailer",
        proof: &["/usr/share/php/libphp-phpmailer/autoload.php"],
        why: "PHP's library for mail",
    },
    Package { name: "default-jdk-headless", proof: &["/usr/bin/javac"], why: "runs Jakarta Mail" },
    Package {
        name: "libjakarta-mail-java",
        proof: &["/usr/share/java/jakarta-mail.jar"],
        why: "Java's library for mail, JavaMail in the past",
    },
    Package {
        name: "libjakarta-activation-java",
        proof: &["/usr/share/java/jakarta-activation.jar"],
        why: "what Jakarta Mail needs",
    },
    Package { name: "golang-go", proof: &["/usr/bin/go"], why: "Go's net/smtp" },
    Package { name: "nodejs", proof: &["/usr/bin/node", "/usr/local/bin/node"], why: "runs nodemailer" },
    Package { name: "npm", proof: &["/usr/bin/npm", "/usr/local/bin/npm"], why: "gets nodemailer" },
    Package { name: "m4", proof: &["/usr/bin/m4"], why: "makes Sendmail's configuration" },
    Package { name: "strace", proof: &["/usr/bin/strace"], why: "makes the disk of a running daemon fail" },
    Package {
        name: "e2fsprogs",
        proof: &["/usr/sbin/mkfs.ext4"],
        why: "makes small file systems to fill and to break",
    },
    Package { name: "opendkim", proof: &["/usr/sbin/opendkim"], why: "verifies our signatures" },
    Package {
        name: "opendmarc",
        proof: &["/usr/sbin/opendmarc"],
        why: "says as a receiver what aligns, by DMARC, beside OpenDKIM and Postfix",
    },
    Package {
        name: "clamav-daemon",
        proof: &["/usr/sbin/clamd"],
        why: "a real virus scanner, with signatures of our own",
    },
    Package {
        name: "python3-milter",
        proof: &["/usr/lib/python3/dist-packages/Milter"],
        why: "a filter on Sendmail's libmilter",
    },
    Package { name: "python3-dkim", proof: &["/usr/bin/dkimverify"], why: "verifies our signatures" },
    Package {
        name: "python3-spf",
        proof: &["/usr/lib/python3/dist-packages/spf.py"],
        why: "evaluates the SPF records that we evaluate",
    },
    Package { name: "python3-nacl", proof: &["/usr/lib/python3/dist-packages/nacl"], why: "Ed25519 in python3-dkim" },
    Package { name: "systemd", proof: &["/usr/bin/systemd-analyze"], why: "systemd-analyze checks the unit files" },
];

/// What `cargo xtask bench relay` needs besides.
pub(crate) const FOR_BENCHMARKS: &[Package] = &[
    Package { name: "sasl2-bin", proof: &["/usr/sbin/saslpasswd2"], why: "AUTH in the Postfix that is measured" },
    Package {
        name: "libeatmydata1",
        proof: &["/usr/share/doc/libeatmydata1"],
        why: "runs the relay without syncing, for comparison",
    },
];

/// What `cargo xtask bench server` needs.
pub(crate) const FOR_COUNTING: &[Package] = &[
    Package { name: "strace", proof: &["/usr/bin/strace"], why: "counts system calls" },
    Package { name: "valgrind", proof: &["/usr/bin/valgrind"], why: "counts instructions" },
];

/// What `cargo xtask fuzz` needs.
pub(crate) const FOR_FUZZING: &[Package] =
    &[Package { name: "g++", proof: &["/usr/bin/g++", "/usr/bin/c++"], why: "libFuzzer is C++" }];

/// Mail servers whose packages exclude each other: unpacked below `target/peers` instead.
const PEERS: &[&str] = &["exim4-daemon-light", "opensmtpd", "sendmail-base", "sendmail-bin", "sendmail-cf"];
/// Libraries that the unpacked programs want, and would have got by being installed.
const LIBRARIES: &[Package] = &[
    Package { name: "libevent-2.1-7", proof: &["/usr/share/doc/libevent-2.1-7"], why: "OpenSMTPD needs it" },
    Package { name: "libgnutls-dane0", proof: &["/usr/share/doc/libgnutls-dane0"], why: "Exim needs it" },
    Package { name: "libidn12", proof: &["/usr/share/doc/libidn12"], why: "Exim needs it" },
    Package { name: "libldap-2.5-0", proof: &["/usr/share/doc/libldap-2.5-0"], why: "Sendmail needs it" },
    Package { name: "liblockfile1", proof: &["/usr/share/doc/liblockfile1"], why: "Sendmail needs it" },
    Package { name: "libnsl2", proof: &["/usr/share/doc/libnsl2"], why: "Exim and Sendmail need it" },
    Package { name: "libwrap0", proof: &["/usr/share/doc/libwrap0"], why: "Sendmail needs it" },
];
/// The library of Node.js, in the version that is tested.
const NODEMAILER: &str = "nodemailer@10.6.0";

/// Gets the programs that can not be installed.
pub(crate) fn unpack_peers() -> Result<()> {
    ensure(&[LIBRARIES])?;
    let home = Path::new("target/peers");
    std::fs::create_dir_all(home).context("making target/peers")?;
    for name in PEERS {
        let folder = home.join(name);
        if folder.join("usr").is_dir() {
            continue;
        }
        say(&format!(
            "unpacks Debian package {name} into {}: a mail server that can not be beside another",
            folder.display()
        ));
        let download = tempfile(home)?;
        checked(Command::new("apt-get").args(["download", "-q", name]).current_dir(&download))?;
        let archive = std::fs::read_dir(&download)?.next().context("apt-get download left nothing")??.path();
        checked(Command::new("dpkg").arg("-x").arg(archive).arg(&folder))?;
        std::fs::remove_dir_all(download)?;
    }
    let modules = home.join("nodemailer");
    if !modules.join("node_modules/nodemailer/package.json").is_file() {
        say(&format!("npm install {NODEMAILER}: the library of Node.js for mail"));
        std::fs::create_dir_all(&modules)?;
        checked(
            Command::new("npm").args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&modules).arg(NODEMAILER),
        )?;
    }
    Ok(())
}

/// An empty folder, which apt can write to.
fn tempfile(home: &Path) -> Result<PathBuf> {
    let folder = home.join("download");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn checked(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

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
