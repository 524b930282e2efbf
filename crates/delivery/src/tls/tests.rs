//! Certificates good and bad, against every kind of TLSA record.

use std::sync::Arc;

use ::aws_lc_rs::digest::{self, SHA256, SHA512};
use postrider_base::{Clock, Timestamp};
use postrider_dns::Tlsa;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _};
use rustls::CertificateError as Bad;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::TlsAcceptor;

use super::dane::DanePolicy;
use super::verifier::{Rule, Verifier};
use super::*;

const HOST: &str = "mx.example.com";
const BASE: &str = "base.example.net";

/// A certificate with its key.
struct Certificate {
    der: CertificateDer<'static>,
    key: Vec<u8>,
    secret: Vec<u8>,
}

/// A root, an authority below it and what that signed.
struct Chain {
    root: Certificate,
    middle: Certificate,
    own: Certificate,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

fn certificate(der: &CertificateDer<'static>, key: &KeyPair) -> Certificate {
    Certificate { der: der.clone(), key: key.subject_public_key_info(), secret: key.serialize_der() }
}

impl Chain {
    fn new(host: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(authority("root"), key()).unwrap();
        let middle = CertifiedIssuer::signed_by(authority("middle"), key(), &root).unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        change(&mut params);
        let own_key = key();
        let own = params.signed_by(&own_key, &middle).unwrap();
        Self {
            root: certificate(root.der(), root.key()),
            middle: certificate(middle.der(), middle.key()),
            own: certificate(own.der(), &own_key),
        }
    }

    fn good() -> Self {
        Self::new(HOST, |_| {})
    }

    fn expired() -> Self {
        Self::new(HOST, |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1))
    }

    /// What a handshake thinks of the chain, with or without its root.
    fn checked(&self, records: &[Tlsa], with_root: bool) -> Result<(), rustls::Error> {
        let policy = DanePolicy::new(BASE, HOST, records).expect("usable records");
        let verifier = Verifier { rule: Rule::Dane(Arc::new(policy)), provider: Arc::new(default_provider()) };
        let mut others = vec![self.middle.der.clone()];
        others.extend(with_root.then(|| self.root.der.clone()));
        verifier.check(&self.own.der, &others, UnixTime::since_unix_epoch(NOW))
    }
}

const NOW: std::time::Duration = std::time::Duration::from_secs(1_700_000_000);

fn record(usage: u8, selector: u8, matching: u8, of: &Certificate) -> Tlsa {
    let selected: &[u8] = if selector == 0 { &of.der } else { &of.key };
    let data = match matching {
        0 => selected.to_vec(),
        1 => digest::digest(&SHA256, selected).as_ref().to_vec(),
        _ => digest::digest(&SHA512, selected).as_ref().to_vec(),
    };
    Tlsa { usage, selector, matching, data }
}

/// All selectors and matching types.
fn kinds() -> impl Iterator<Item = (u8, u8)> {
    (0..=1).flat_map(|selector| (0..=2).map(move |matching| (selector, matching)))
}

fn is(result: Result<(), rustls::Error>, kind: FailureKind) {
    let error = std::io::Error::other(result.unwrap_err());
    assert_eq!(Failure::of(&error).kind, kind, "{error}");
}

#[test]
fn a_known_certificate_is_good_whatever_is_in_it() {
    for (selector, matching) in kinds() {
        for chain in [Chain::good(), Chain::expired(), Chain::new("other.example.org", |_| {})] {
            let mut record = record(3, selector, matching, &chain.own);
            assert_eq!(chain.checked(std::slice::from_ref(&record), false), Ok(()));
            *record.data.last_mut().unwrap() ^= 1;
            is(chain.checked(&[record], true), FailureKind::CertificateNotTrusted);
        }
    }
}

#[test]
fn what_a_known_authority_signed_is_good_for_the_host_and_its_time() {
    for (selector, matching) in kinds() {
        for name in [HOST, BASE] {
            let chain = Chain::new(name, |_| {});
            for of in [&chain.root, &chain.middle] {
                let mut record = record(2, selector, matching, of);
                assert_eq!(chain.checked(std::slice::from_ref(&record), true), Ok(()), "{selector} {matching}");
                // The signature on a whole certificate says nothing about its key.
                if (selector, matching) != (0, 0) {
                    *record.data.last_mut().unwrap() ^= 1;
                    is(chain.checked(&[record], true), FailureKind::CertificateNotTrusted);
                }
            }
        }
        let other = Chain::new("other.example.org", |_| {});
        let records = [record(2, selector, matching, &other.root)];
        is(other.checked(&records, true), FailureKind::CertificateHostMismatch);
        let expired = Chain::expired();
        let records = [record(2, selector, matching, &expired.root)];
        is(expired.checked(&records, true), FailureKind::CertificateExpired);
        is(Chain::good().checked(&records, true), FailureKind::CertificateNotTrusted);
    }
}

#[test]
fn an_authority_that_is_not_sent_along_must_stand_in_the_zone_as_a_whole() {
    let chain = Chain::good();
    assert_eq!(chain.checked(&[record(2, 0, 0, &chain.root)], false), Ok(()));
    for (selector, matching) in kinds().filter(|kind| *kind != (0, 0)) {
        is(chain.checked(&[record(2, selector, matching, &chain.root)], false), FailureKind::CertificateNotTrusted);
    }
}

#[test]
fn no_certificate_is_its_own_authority() {
    let chain = Chain::good();
    assert!(chain.checked(&[record(2, 1, 1, &chain.own)], true).is_err());
    assert!(chain.checked(&[record(3, 1, 1, &chain.middle)], true).is_err());
}

#[test]
fn one_good_record_is_enough() {
    let (chain, next) = (Chain::good(), Chain::good());
    let records = [record(3, 1, 1, &next.own), record(2, 0, 1, &next.root), record(3, 1, 1, &chain.own)];
    assert_eq!(chain.checked(&records, false), Ok(()));
    assert_eq!(next.checked(&records, true), Ok(()));
}

#[test]
fn of_two_digests_the_stronger_one_counts() {
    let (chain, other) = (Chain::good(), Chain::good());
    let weak = record(3, 1, 1, &chain.own);
    let records = [weak.clone(), record(3, 1, 2, &other.own)];
    is(chain.checked(&records, true), FailureKind::CertificateNotTrusted);
    // Of another thing.
    assert_eq!(chain.checked(&[weak, record(3, 0, 2, &other.own)], true), Ok(()));
}

#[test]
fn what_mail_cannot_use_is_left_out() {
    let own = Chain::good().own;
    let short = Tlsa { data: vec![1; 31], ..record(3, 1, 1, &own) };
    let unusable = [
        record(0, 1, 1, &own),
        record(1, 1, 1, &own),
        record(4, 1, 1, &own),
        Tlsa { selector: 2, ..record(3, 1, 1, &own) },
        Tlsa { matching: 3, ..record(3, 1, 2, &own) },
        Tlsa { data: Vec::new(), ..record(3, 0, 0, &own) },
        short,
    ];
    assert_eq!(DanePolicy::new(HOST, HOST, &unusable), None);
    let mixed: Vec<Tlsa> = unusable.into_iter().chain([record(3, 1, 1, &own)]).collect();
    assert!(DanePolicy::new(HOST, HOST, &mixed).is_some());
}

#[test]
fn a_certificate_that_is_none_is_bad() {
    let chain = Chain::good();
    let policy = DanePolicy::new(BASE, HOST, &[record(2, 1, 1, &chain.root), record(3, 1, 1, &chain.own)]).unwrap();
    let verifier = Verifier { rule: Rule::Dane(Arc::new(policy)), provider: Arc::new(default_provider()) };
    for junk in [&b""[..], b"\x30", b"\x30\x82\xff\xff", &[0x30; 100]] {
        let now = UnixTime::since_unix_epoch(NOW);
        assert!(verifier.check(&CertificateDer::from(junk), &[CertificateDer::from(junk)], now).is_err());
    }
}

/// A client that trusts nobody, and a server with a certificate.
struct Pair {
    client: TlsClient,
    acceptor: TlsAcceptor,
}

impl Pair {
    fn new(chain: &Chain) -> Self {
        let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
        let key = PrivateKeyDer::try_from(chain.own.secret.clone()).unwrap();
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain.own.der.clone(), chain.middle.der.clone()], key)
            .unwrap();
        server.session_storage = rustls::server::ServerSessionMemoryCache::new(32);
        let client = TlsClient::new(&Settings::default(), &clock).unwrap();
        Self { client, acceptor: TlsAcceptor::from(Arc::new(server)) }
    }

    /// What became of the handshake; then whether it resumed another, and which
    /// name the client asked for.
    async fn shake(&self, required: Required) -> (Result<TlsInfo, Failure>, Option<(bool, String)>) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let policy = HostPolicy { required, ..HostPolicy::default() };
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let client = self.client.handshake(Box::new(near), HOST, address, &policy);
        let (client, server) = tokio::join!(client, self.acceptor.accept(far));
        let server = server.ok().map(|stream| {
            let session = stream.get_ref().1;
            let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            (resumed, session.server_name().unwrap_or_default().to_owned())
        });
        (client.map(|(_, info)| info), server)
    }
}

fn dane(records: &[Tlsa]) -> Required {
    Required::Dane(Arc::new(DanePolicy::new(BASE, HOST, records).unwrap()))
}

#[tokio::test]
async fn handshakes_that_check_never_resume_those_that_do_not() {
    let (chain, other) = (Chain::good(), Chain::good());
    let pair = Pair::new(&chain);
    let (first, _) = pair.shake(Required::Nothing).await;
    assert!(!first.unwrap().authenticated);
    let (again, server) = pair.shake(Required::Encryption).await;
    assert!(again.is_ok());
    assert_eq!(server, Some((true, HOST.to_owned())));
    let (refused, _) = pair.shake(dane(&[record(3, 1, 1, &other.own)])).await;
    assert_eq!(refused.unwrap_err().kind, FailureKind::CertificateNotTrusted);
    for _ in 0..2 {
        let (known, server) = pair.shake(dane(&[record(3, 1, 1, &chain.own)])).await;
        assert!(known.unwrap().authenticated);
        // The name is that of the TLSA records (RFC 7672 section 8.1).
        assert_eq!(server, Some((false, BASE.to_owned())));
    }
    let (refused, _) = pair.shake(Required::Webpki(vec![HOST.to_owned()])).await;
    assert_eq!(refused.unwrap_err().kind, FailureKind::CertificateNotTrusted);
}

#[tokio::test]
async fn authorities_of_the_operator_count_for_the_names_that_are_asked() {
    let chain = Chain::good();
    let pair = Pair::new(&chain);
    let mut roots = RootCertStore::empty();
    roots.add(chain.root.der.clone()).unwrap();
    let authorities = Some(Authorities(Arc::new(roots)));
    for (names, good) in
        [(vec![HOST], true), (vec!["x.example", HOST], true), (vec!["x.example"], false), (vec![], false)]
    {
        let names = names.into_iter().map(str::to_owned).collect();
        let policy =
            HostPolicy { required: Required::Webpki(names), authorities: authorities.clone(), ..HostPolicy::default() };
        let (near, far) = tokio::io::duplex(64 * 1024);
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let client = pair.client.handshake(Box::new(near), HOST, address, &policy);
        let (client, _) = tokio::join!(client, pair.acceptor.accept(far));
        match client {
            Ok((_, info)) => assert!(good && info.authenticated),
            Err(failure) => assert_eq!((good, failure.kind), (false, FailureKind::CertificateHostMismatch)),
        }
    }
}

#[test]
fn failures_have_the_kinds_that_receivers_are_told() {
    for (bad, kind) in [
        (Bad::NotValidForName, FailureKind::CertificateHostMismatch),
        (Bad::Expired, FailureKind::CertificateExpired),
        (Bad::UnknownIssuer, FailureKind::CertificateNotTrusted),
        (Bad::BadEncoding, FailureKind::ValidationFailure),
    ] {
        is(Err(rustls::Error::InvalidCertificate(bad)), kind);
    }
    let closed = Failure::of(&std::io::Error::other("peer\r\nis gone"));
    assert_eq!((closed.kind, closed.reason.lines().count()), (FailureKind::ValidationFailure, 1));
}
