//! Encryption on the way out.

use std::path::PathBuf;
use std::sync::Arc;

use postrider_delivery::Settings;
use postrider_delivery::settings::{Smarthost, SmarthostTls};
use postrider_mail::{AttemptOutcome, DelayType, Disposition, Stage};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, PublicKeyData as _};
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::rig::{HOST, Rig, is_delivered, routes};
use crate::server::{Moment, Say, Server, Setup};

/// A host's certificate and the authority that signed it.
pub(crate) struct Certificate {
    acceptor: TlsAcceptor,
    /// SubjectPublicKeyInfo.
    pub(crate) key: Vec<u8>,
    directory: tempfile::TempDir,
}

impl Certificate {
    pub(crate) fn new(host: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), key: key.subject_public_key_info(), directory }
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub(crate) fn setup(&self) -> Setup {
        Setup { acceptor: Some(self.acceptor.clone()), ..Setup::default() }
    }
}

async fn deliver_one(rig: &mut Rig, settings: Settings) -> AttemptOutcome {
    rig.deliver(settings);
    let id = rig.send(&["ann@example.com"]).await;
    rig.outcome(id).await
}

/// It is answered, and what follows is no handshake.
fn broken_starttls(moment: &Moment) -> Say {
    match moment.line.as_str() {
        "STARTTLS" => Say::Reply("220 go"),
        line if line.contains('\u{fffd}') || line.starts_with('\u{16}') => Say::Close,
        _ => Say::Usual,
    }
}

#[tokio::test(start_paused = true)]
async fn starttls_is_used_when_offered_and_the_certificate_only_noted() {
    for (host, authenticated) in [("mx.example.com", true), ("other.example.com", false)] {
        let certificate = Certificate::new(host);
        let mut rig = Rig::new().await;
        rig.mx("example.com", "mx.example.com", "198.51.100.1");
        let server = Server::with(&rig.net, HOST, certificate.setup(), |_| Say::Usual);
        let mut settings = routes(&[]);
        settings.tls.ca_file = Some(certificate.authority());
        let outcome = deliver_one(&mut rig, settings).await;
        assert!(is_delivered(&outcome), "{outcome:?}");
        let tls = outcome.tls.unwrap();
        assert_eq!((tls.version.as_str(), tls.authenticated), ("TLSv1.3", authenticated));
        assert!(tls.cipher.starts_with("TLS_AES") || tls.cipher.starts_with("TLS_CHACHA"), "{}", tls.cipher);
        assert_eq!(server.seen().with("EHLO").len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_starttls_goes_on_in_clear_where_it_is_only_an_offer() {
    let certificate = Certificate::new("mx.example.com");
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let server = Server::with(&rig.net, HOST, certificate.setup(), broken_starttls);
    let outcome = deliver_one(&mut rig, routes(&[])).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert_eq!((outcome.tls, server.seen().connections), (None, 2));

    let mut rig = Rig::new().await;
    Server::with(&rig.net, HOST, certificate.setup(), broken_starttls);
    let outcome = deliver_one(&mut rig, routes(&[("*", "smtp+starttls://198.51.100.1")])).await;
    assert_eq!(outcome.status.to_string(), "4.7.5");
    assert_eq!(outcome.remote.unwrap().stage, Stage::StartTls);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_breaks_off_where_tls_begins_gets_clear_where_it_is_only_an_offer() {
    type Break = (&'static str, fn() -> Say);
    let breaks: [Break; 4] = [
        ("STARTTLS", || Say::Close),
        ("STARTTLS", || Say::Reply("what?")),
        ("STARTTLS", || Say::Silence),
        // The second EHLO of a connection comes inside TLS.
        ("EHLO inside", || Say::Close),
    ];
    for (at, say) in breaks {
        let certificate = Certificate::new("mx.example.com");
        let mut rig = Rig::new().await;
        rig.mx("example.com", "mx.example.com", "198.51.100.1");
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::with(&rig.net, HOST, certificate.setup(), move |moment| {
            // A script is asked twice about each command.
            let ehlo = moment.line.starts_with("EHLO") && moment.connection == 0;
            let inside = ehlo && asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 1;
            let hit = if at == "STARTTLS" { moment.line == at } else { inside };
            if hit { say() } else { Say::Usual }
        });
        let outcome = deliver_one(&mut rig, routes(&[])).await;
        assert!(is_delivered(&outcome), "{at}: {outcome:?}");
        assert_eq!((outcome.tls, server.seen().connections), (None, 2), "{at}");

        let mut rig = Rig::new().await;
        let server = Server::with(&rig.net, HOST, certificate.setup(), move |moment| match moment.line.as_str() {
            "STARTTLS" => say(),
            _ => Say::Usual,
        });
        let target = "smtp+starttls://198.51.100.1?verify=none";
        assert!(!is_delivered(&deliver_one(&mut rig, routes(&[("*", target)])).await), "{at}");
        assert!(server.seen().with("MAIL").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn required_tls_that_is_not_offered_defers() {
    let mut rig = Rig::new().await;
    let server = Server::start(&rig.net, HOST);
    let outcome = deliver_one(&mut rig, routes(&[("*", "smtp+starttls://198.51.100.1")])).await;
    assert_eq!(outcome.disposition, Disposition::Deferred(DelayType::General));
    assert_eq!(outcome.status.to_string(), "4.7.5");
    assert!(server.seen().with("MAIL").is_empty());
}

#[tokio::test(start_paused = true)]
async fn implicit_tls_begins_with_the_handshake() {
    let certificate = Certificate::new("mx.example.com");
    let mut rig = Rig::new().await;
    rig.zones.add_address("mx.example.com", "10.0.0.1");
    let setup = Setup { implicit: true, ..certificate.setup() };
    Server::with(&rig.net, "10.0.0.1:465", setup, |_| Say::Usual);
    let mut settings = routes(&[("*", "smtps://mx.example.com")]);
    settings.tls.ca_file = Some(certificate.authority());
    let outcome = deliver_one(&mut rig, settings).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert!(outcome.tls.unwrap().authenticated);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_requires_tls_wants_the_host_to_prove_its_name() {
    for (target, is_good) in [
        ("smtp+starttls://mx.example.com", false),
        ("smtp+starttls://mx.example.com?verify=other.example.com", true),
        ("smtp+starttls://mx.example.com?verify=third.example.com", false),
        ("smtp+starttls://mx.example.com?verify=none", true),
        ("smtp+starttls://10.0.0.1?verify=other.example.com", true),
        ("smtp+starttls://10.0.0.1", false),
        ("smtp://mx.example.com", true),
    ] {
        let certificate = Certificate::new("other.example.com");
        let mut rig = Rig::new().await;
        rig.zones.add_address("mx.example.com", "10.0.0.1");
        let server = Server::with(&rig.net, "10.0.0.1:25", certificate.setup(), |_| Say::Usual);
        let mut settings = routes(&[("*", target)]);
        settings.tls.ca_file = Some(certificate.authority());
        let outcome = deliver_one(&mut rig, settings).await;
        assert_eq!(is_delivered(&outcome), is_good, "{target}: {outcome:?}");
        if is_good {
            assert!(outcome.tls.is_some(), "{target}");
        } else {
            assert_eq!(outcome.status.to_string(), "4.7.5", "{target}");
            assert!(server.seen().with("MAIL").is_empty(), "{target}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_may_be_for_an_address() {
    let certificate = Certificate::new("10.0.0.1");
    let mut rig = Rig::new().await;
    Server::with(&rig.net, "10.0.0.1:25", certificate.setup(), |_| Say::Usual);
    let mut settings = routes(&[("*", "smtp+starttls://10.0.0.1")]);
    settings.tls.ca_file = Some(certificate.authority());
    let outcome = deliver_one(&mut rig, settings).await;
    assert!(outcome.tls.unwrap().authenticated);
}

#[tokio::test(start_paused = true)]
async fn a_broken_starttls_is_remembered_where_it_is_only_an_offer() {
    let certificate = Certificate::new("mx.example.com");
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let server = Server::with(&rig.net, HOST, certificate.setup(), broken_starttls);
    let mut settings = routes(&[("strict.example", "smtp+starttls://mx.example.com?verify=none")]);
    settings.limits.messages_per_connection = 1;
    rig.deliver(settings);
    let handshakes = || server.seen().with("STARTTLS").len();
    for expected in [1, 1, 1] {
        let id = rig.send(&["ann@example.com"]).await;
        assert!(is_delivered(&rig.outcome(id).await));
        assert_eq!(handshakes(), expected);
    }
    // What has to be encrypted is not sent in clear because of it.
    let id = rig.send(&["ann@strict.example"]).await;
    assert_eq!(rig.outcome(id).await.status.to_string(), "4.7.5");
    assert_eq!((handshakes(), server.seen().messages.len()), (2, 3));
    // The host may have been mended.
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    let id = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert!(handshakes() > 2);
}

fn smarthost(certificate: &Certificate, password: &str) -> Settings {
    let password_file = certificate.directory.path().join("password");
    std::fs::write(&password_file, password).unwrap();
    Settings {
        smarthost: Some(Smarthost {
            host: "smart.example.com".into(),
            tls: SmarthostTls::Starttls,
            ca_file: Some(certificate.authority()),
            user: Some("user".into()),
            password_file: Some(password_file),
            ..Smarthost::default()
        }),
        ..Settings::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_smarthost_proves_its_name_and_gets_the_password() {
    let certificate = Certificate::new("smart.example.com");
    let mut rig = Rig::new().await;
    rig.zones.add_address("smart.example.com", "10.0.0.1");
    let setup = Setup { extensions: vec!["AUTH PLAIN LOGIN"], ..certificate.setup() };
    let server = Server::with(&rig.net, "10.0.0.1:587", setup, |_| Say::Usual);
    let outcome = deliver_one(&mut rig, smarthost(&certificate, "secret\n")).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert!(outcome.tls.unwrap().authenticated);
    // "\0user\0secret"
    assert_eq!(server.seen().with("AUTH"), ["AUTH PLAIN AHVzZXIAc2VjcmV0"]);
}

#[tokio::test(start_paused = true)]
async fn each_smarthost_has_a_password_of_its_own() {
    let (first, second) = (Certificate::new("smart.example.com"), Certificate::new("backup.example.com"));
    let mut rig = Rig::new().await;
    rig.zones.add_address("smart.example.com", "10.0.0.1").add_address("backup.example.com", "10.0.0.2");
    let start = |certificate: &Certificate, address: &str| {
        let setup = Setup { extensions: vec!["AUTH PLAIN LOGIN"], ..certificate.setup() };
        Server::with(&rig.net, address, setup, |_| Say::Usual)
    };
    let (smart, backup) = (start(&first, "10.0.0.1:587"), start(&second, "10.0.0.2:587"));
    let mut settings = smarthost(&first, "secret");
    let mut other = smarthost(&second, "other").smarthost.unwrap();
    other.host = "backup.example.com".into();
    settings.smarthosts.insert("backup".into(), other);
    settings.routes.insert("example.org".into(), "smarthost:backup".into());
    rig.deliver(settings);
    for (to, site) in [("ann@example.com", "smart.example.com"), ("ann@example.org", "backup.example.com")] {
        let id = rig.send(&[to]).await;
        let outcome = rig.outcome(id).await;
        assert!(is_delivered(&outcome), "{outcome:?}");
        assert_eq!(outcome.remote.unwrap().host, site);
    }
    // "\0user\0secret" and "\0user\0other"
    assert_eq!(smart.seen().with("AUTH"), ["AUTH PLAIN AHVzZXIAc2VjcmV0"]);
    assert_eq!(backup.seen().with("AUTH"), ["AUTH PLAIN AHVzZXIAb3RoZXI="]);
}

#[tokio::test(start_paused = true)]
async fn a_smarthost_with_another_name_gets_nothing() {
    let certificate = Certificate::new("other.example.com");
    let mut rig = Rig::new().await;
    rig.zones.add_address("smart.example.com", "10.0.0.1");
    let setup = Setup { extensions: vec!["AUTH PLAIN LOGIN"], ..certificate.setup() };
    let server = Server::with(&rig.net, "10.0.0.1:587", setup, |_| Say::Usual);
    let outcome = deliver_one(&mut rig, smarthost(&certificate, "secret")).await;
    assert_eq!(outcome.status.to_string(), "4.7.5");
    assert!(server.seen().with("AUTH").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refused_password_defers_as_our_own_trouble() {
    let certificate = Certificate::new("smart.example.com");
    let mut rig = Rig::new().await;
    rig.zones.add_address("smart.example.com", "10.0.0.1");
    let setup = Setup { extensions: vec!["AUTH LOGIN"], ..certificate.setup() };
    Server::with(&rig.net, "10.0.0.1:587", setup, |moment| match moment.line.starts_with("AUTH") {
        true => Say::Reply("535 5.7.8 no"),
        false => Say::Usual,
    });
    let outcome = deliver_one(&mut rig, smarthost(&certificate, "wrong")).await;
    assert_eq!(outcome.disposition, Disposition::Deferred(DelayType::InternalFailure));
    assert_eq!(outcome.remote.unwrap().stage, Stage::Auth);
}

#[tokio::test(start_paused = true)]
async fn missing_files_are_named() {
    let certificate = Certificate::new("smart.example.com");
    let rig = Rig::new().await;
    for (spoil, key) in [
        ((|s| s.password_file = Some("/nowhere".into())) as fn(&mut Smarthost), "smarthost.password_file: /nowhere: "),
        (|s| s.ca_file = Some("/nowhere".into()), "smarthost.ca_file: /nowhere: "),
    ] {
        let mut settings = smarthost(&certificate, "secret");
        settings.smarthost.as_mut().map(spoil).unwrap();
        let error = postrider_delivery::Delivery::start(rig.deps(settings), &rig.scope).err().unwrap().to_string();
        assert!(error.starts_with(key), "{error}");
    }
}
