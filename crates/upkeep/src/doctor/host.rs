//! This machine: certificates, the resolver, the disk, the key that seals keys.

use std::path::PathBuf;
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_dns::{Resolver, Validation};
use postrider_mail::Domain;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{BounceFacts, Finding, SourceFact};

/// Certificates are renewed long before.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What the relay knows of its machine.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// The relay's name, as clients reach it.
    pub hostname: String,
    /// The addresses that mail leaves from.
    pub sources: Vec<SourceFact>,
    /// Where bounces come back to; none where return paths are what clients say.
    pub bounces: Option<BounceFacts>,
    /// The certificates that listeners show.
    pub certificates: Vec<CertificateFact>,
    /// The directories that must not run full.
    pub disks: Vec<DiskFact>,
    /// Whether the key that seals private keys can be used: its fault otherwise; none where
    /// none is needed.
    pub sealing: Option<Result<(), String>>,
}

/// A certificate of a listener.
#[derive(Clone, Debug)]
pub struct CertificateFact {
    /// Its file.
    pub path: PathBuf,
    /// The file's bytes, or why it cannot be read.
    pub pem: Result<Vec<u8>, String>,
    /// The name by which clients come.
    pub hostname: String,
}

/// Room on a disk.
#[derive(Clone, Debug)]
pub struct DiskFact {
    /// The directory.
    pub path: PathBuf,
    /// Bytes that are free, or why that is not known.
    pub free: Result<u64, String>,
    /// Below this no mail is accepted, in bytes.
    pub reserve: u64,
}

pub(super) fn certificate(fact: &CertificateFact, now: Timestamp) -> Finding {
    const CHECK: &str = "certificate";
    let subject = fact.path.display();
    let fail = |words: String| Finding::fail(CHECK, &subject, words, "set tls.certificate and tls.key to a good one");
    let pem = match &fact.pem {
        Ok(pem) => pem,
        Err(reason) => return fail(format!("it cannot be read: {reason}")),
    };
    let Some(Ok(der)) = CertificateDer::pem_slice_iter(pem).next() else {
        return fail("there is no certificate in it".to_owned());
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
        return fail("it is damaged".to_owned());
    };
    let at = |time: i64| Timestamp::from_millis(u64::try_from(time).unwrap_or(0).saturating_mul(1_000));
    let (begins, ends) =
        (at(certificate.validity.not_before.timestamp()), at(certificate.validity.not_after.timestamp()));
    if ends <= now {
        return fail(format!("it has expired: {}", ends.rfc3339()));
    }
    if begins > now {
        return fail(format!("it is not valid before {}", begins.rfc3339()));
    }
    if certificate.issuer() == certificate.subject() {
        let words = "it is self-signed: clients that look at certificates refuse it";
        return Finding::warn(CHECK, &subject, words, "get one from an authority, and set tls.certificate and tls.key");
    }
    let names = names(&certificate);
    if !names.iter().any(|name| covers(name, &fact.hostname)) {
        let words = format!("it names {}, and clients come to {}", names.join(", "), fact.hostname);
        return Finding::warn(CHECK, &subject, words, "get one with that name, or set server.hostname");
    }
    let left = ends.saturating_since(now);
    let words = format!("it names {} and is valid for {} days", fact.hostname, left.as_secs() / 86_400);
    match left < SOON {
        true => Finding::warn(CHECK, &subject, words, "renew it; `postrider reload` reads it again"),
        false => Finding::pass(CHECK, &subject, words),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// RFC 9525 section 6.3: a star stands for the whole first label.
fn covers(name: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    name == host || name.strip_prefix('*').is_some_and(|rest| host.find('.').is_some_and(|dot| &host[dot..] == rest))
}

/// Whether the name servers let answers be validated.
pub(super) async fn dnssec(resolver: &dyn Resolver, hostname: &str) -> Finding {
    const CHECK: &str = "dnssec";
    // Validation is tried with the first question that asks for proof.
    if let Ok(domain) = hostname.parse::<Domain>() {
        let _ = resolver.mx(&domain).await;
    }
    match resolver.validation() {
        Validation::Works => Finding::pass(CHECK, "resolver", "answers are validated, and DANE works"),
        Validation::Broken { reason } => {
            let advice = "use name servers that hand DNSSEC records through, such as an own unbound ([dns] servers)";
            Finding::warn(CHECK, "resolver", format!("answers cannot be validated, and DANE is off: {reason}"), advice)
        }
        _ => Finding::skip(CHECK, "resolver", "validation is switched off (dns.dnssec.validate), and DANE with it"),
    }
}

pub(super) fn disk(fact: &DiskFact) -> Finding {
    const CHECK: &str = "disk";
    let subject = fact.path.display();
    let megabytes = |bytes: u64| format!("{} MB", bytes / 1_000_000);
    let free = match &fact.free {
        Ok(free) => *free,
        Err(reason) => return Finding::fail(CHECK, subject, format!("not known: {reason}"), "look at the directory"),
    };
    let words = format!("{} are free, of which {} are kept in reserve", megabytes(free), megabytes(fact.reserve));
    if free <= fact.reserve {
        let words = format!("{words}: no mail is accepted");
        return Finding::fail(CHECK, subject, words, "make room: `postrider spool` says what takes it");
    }
    match free < fact.reserve.saturating_mul(2) {
        true => Finding::warn(CHECK, subject, words, "make room before the reserve is reached"),
        false => Finding::pass(CHECK, subject, words),
    }
}

pub(super) fn sealing(facts: &super::HostFacts) -> Option<Finding> {
    const CHECK: &str = "sealing-key";
    Some(match facts.sealing.as_ref()? {
        Ok(()) => Finding::pass(CHECK, "-", "the key that seals private keys is there"),
        Err(reason) => {
            let advice =
                "put the file back: without it no message is signed, and no copy of it is in the state directory";
            Finding::fail(CHECK, "-", reason, advice)
        }
    })
}

#[cfg(test)]
mod tests {
    use postrider_testkit::Authority;

    use super::*;
    use crate::doctor::Verdict;

    /// Valid from 1975 to 4096, as rcgen makes them.
    fn made(name: &str) -> Vec<u8> {
        Authority::new().unwrap().issue(&[name]).unwrap().chain_pem.into_bytes()
    }

    fn self_made(name: &str) -> Vec<u8> {
        rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap().cert.pem().into_bytes()
    }

    #[test]
    fn certificates_are_judged() {
        let fact = |pem: Result<Vec<u8>, String>, hostname: &str| CertificateFact {
            path: "/etc/cert.pem".into(),
            pem,
            hostname: hostname.into(),
        };
        let year = |year: u64| Timestamp::from_millis((year - 1970) * 31_556_952_000);
        for (pem, hostname, now, verdict, word) in [
            (Ok(made("mx.example")), "mx.example", 2026, Verdict::Pass, "valid for"),
            (Ok(made("*.example")), "MX.example", 2026, Verdict::Pass, "valid for"),
            (Ok(made("*.example")), "a.mx.example", 2026, Verdict::Warn, "clients come to a.mx.example"),
            (Ok(made("mx.example")), "mx.example", 1971, Verdict::Fail, "not valid before"),
            (Ok(made("mx.example")), "mx.example", 4097, Verdict::Fail, "expired"),
            (Ok(self_made("mx.example")), "mx.example", 2026, Verdict::Warn, "self-signed"),
            (Ok(b"hello".to_vec()), "mx.example", 2026, Verdict::Fail, "no certificate"),
            (Err("no such file".to_owned()), "mx.example", 2026, Verdict::Fail, "no such file"),
        ] {
            let finding = certificate(&fact(pem, hostname), year(now));
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.contains(word), "{finding:?}");
        }
    }

    #[test]
    fn disks_are_judged() {
        let verdict = |free: Result<u64, String>| disk(&DiskFact { path: "/x".into(), free, reserve: 10 }).verdict;
        assert_eq!(verdict(Ok(20)), Verdict::Pass);
        assert_eq!(verdict(Ok(19)), Verdict::Warn);
        assert_eq!(verdict(Ok(10)), Verdict::Fail);
        assert_eq!(verdict(Err("gone".into())), Verdict::Fail);
    }
}
