//! Which certificate a client sees.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate;

/// The certificates in use.
#[derive(Debug)]
pub(super) struct Current(pub(super) ArcSwap<Certificates>);

/// Certificates by the names that clients ask for.
#[derive(Debug)]
pub(super) struct Certificates {
    /// For those who ask for no name, or for another one.
    default: Arc<CertifiedKey>,
    /// Names in lower case; `*.example.com` stands for one label in its place.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// The first of `others` that has a name is the one for it.
    pub(super) fn new(default: Arc<CertifiedKey>, others: Vec<Arc<CertifiedKey>>) -> Certificates {
        let mut by_name = HashMap::new();
        for certified in others {
            for name in certified.cert.first().map(certificate::dns_names).unwrap_or_default() {
                by_name.entry(name).or_insert_with(|| certified.clone());
            }
        }
        Certificates { default, by_name }
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            // RFC 9525 section 6.3: the first label alone, and the whole of it.
            let (_, rest) = name.split_once('.')?;
            self.by_name.get(&format!("*.{rest}"))
        })
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        let asked = hello.server_name().filter(|_| !certificates.by_name.is_empty());
        let found = asked.and_then(|name| certificates.find(name)).unwrap_or(&certificates.default);
        Some(found.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    fn certified(names: &[&str]) -> Arc<CertifiedKey> {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let chain = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        let path = Path::new("x.pem");
        certificate::certified_key(
            (path, chain.as_bytes()),
            (path, key.serialize_pem().as_bytes()),
            &default_provider(),
        )
        .unwrap()
    }

    #[test]
    fn names_are_found_exactly_then_by_wildcard() {
        let (exact, wild) = (certified(&["mail.example.com"]), certified(&["*.Example.com", "example.org"]));
        let certificates = Certificates::new(certified(&["localhost"]), vec![exact.clone(), wild.clone()]);
        let is = |name: &str, expected: &Arc<CertifiedKey>| {
            certificates.find(name).is_some_and(|found| Arc::ptr_eq(found, expected))
        };
        assert!(is("MAIL.example.com", &exact) && is("smtp.example.com", &wild) && is("example.org", &wild));
        for name in ["example.com", "a.b.example.com", "localhost", "", "."] {
            assert!(certificates.find(name).is_none(), "{name}");
        }
    }
}
