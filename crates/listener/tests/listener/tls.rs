//! Certificates by name, clients with certificates, versions, key log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider_account::RecipientOverflow;
use postrider_base::Timestamp;
use postrider_base::metrics::HandshakeFailure;
use postrider_listener::{
    ClientCertificate, Listen, Listeners, Settings, SniCertificate, TlsSettings, TlsVersion, check_certificates,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Client, USER, World, listen};

/// Signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, names: &[&str]) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let (chain, key) = self.issue_pem(names);
        (
            CertificateDer::from_pem_slice(chain.as_bytes()).unwrap(),
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
    }

    fn issue_pem(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let (mails, names): (Vec<String>, Vec<String>) =
            names.iter().map(|name| (*name).to_owned()).partition(|name| name.contains('@'));
        let mut params = CertificateParams::new(names).unwrap();
        let mails = mails.into_iter().map(|mail| SanType::Rfc822Name(mail.try_into().unwrap()));
        params.subject_alt_names.extend(mails);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The authority itself, to trust.
    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Written to a file of this name.
    fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }

    fn write_pair(&self, directory: &Path, name: &str, names: &[&str]) -> SniCertificate {
        let (chain, key) = self.issue_pem(names);
        let pair = SniCertificate {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}-key.pem")),
        };
        std::fs::write(&pair.certificate, chain).unwrap();
        std::fs::write(&pair.key, key).unwrap();
        pair
    }
}

/// A client that trusts this authority, and may have a certificate.
fn client(
    trusted: &Authority,
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    versions: &[&'static SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.root()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

/// A relay with TLS wrappers of these kinds, and its authority.
struct Scene {
    world: World,
    authority: Authority,
    listeners: Listeners,
    addresses: Vec<SocketAddr>,
}

impl Scene {
    async fn new(change_tls: impl Fn(&mut TlsSettings, &Authority, &Path), changes: &[&dyn Fn(&mut Listen)]) -> Scene {
        let (world, authority) = (World::new(RecipientOverflow::Reject).await, Authority::new());
        let directory = world.directory.path().to_owned();
        let pair = authority.write_pair(&directory, "default", &["mail.example.com"]);
        let mut tls =
            TlsSettings { certificate: Some(pair.certificate), key: Some(pair.key), ..TlsSettings::default() };
        change_tls(&mut tls, &authority, &directory);
        let list: Vec<Listen> = changes
            .iter()
            .map(|change| {
                let mut wrapper = listen().remove(1);
                change(&mut wrapper);
                wrapper
            })
            .collect();
        let listeners = Listeners::start(&list, &Settings::default(), &tls, world.deps.clone(), &world.scope).unwrap();
        let addresses = listeners.addresses().map(|(address, _)| address).collect();
        Scene { world, authority, listeners, addresses }
    }
}

/// Whether a client that asks for this name gets a certificate for it.
async fn shows(address: SocketAddr, tls: &TlsConnector, name: &'static str) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    tls.connect(ServerName::try_from(name).unwrap(), stream).await.is_ok()
}

/// What the server says to MAIL from a client that has not authenticated, and whether the session was resumed.
async fn mail(address: SocketAddr, tls: &TlsConnector) -> Option<(String, bool)> {
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = tls.connect(ServerName::try_from("mail.example.com").unwrap(), stream).await.ok()?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    let mut client = Client { stream: Box::new(stream), resumed };
    // TLS 1.3 learns of a refused certificate with the first read, of the banner.
    while client.stream.read_u8().await.ok()? != b'\n' {}
    client.say("EHLO c\r\n").await;
    Some((client.say("MAIL FROM:<a@example.com>\r\n").await, resumed))
}

const MUST_AUTHENTICATE: &str = "530 Authentication required\r\n";

#[tokio::test]
async fn certificates_are_chosen_by_the_name_that_is_asked_for() {
    let scene = Scene::new(
        |tls, authority, directory| {
            tls.sni = vec![
                authority.write_pair(directory, "one", &["one.example.org", "*.wild.example"]),
                authority.write_pair(directory, "two", &["two.example.org"]),
            ];
        },
        &[&|_| {}],
    )
    .await;
    let tls = client(&scene.authority, None, rustls::ALL_VERSIONS);
    for name in ["mail.example.com", "one.example.org", "two.example.org", "smtp.wild.example"] {
        assert!(shows(scene.addresses[0], &tls, name).await, "{name}");
    }
    for name in ["three.example.org", "a.b.wild.example"] {
        assert!(!shows(scene.addresses[0], &tls, name).await, "{name}");
    }
}

#[tokio::test]
async fn a_broken_replacement_of_one_keeps_all() {
    let add = |tls: &mut TlsSettings, authority: &Authority, directory: &Path| {
        tls.sni = vec![authority.write_pair(directory, "one", &["one.example.org"])];
    };
    let scene = Scene::new(add, &[&|_| {}]).await;
    let directory = scene.world.directory.path();
    let mut changed = TlsSettings {
        certificate: Some(directory.join("default.pem")),
        key: Some(directory.join("default-key.pem")),
        ..TlsSettings::default()
    };
    changed.sni = vec![
        scene.authority.write_pair(directory, "new", &["new.example.org"]),
        SniCertificate { certificate: directory.join("one.pem"), key: directory.join("default-key.pem") },
    ];
    let reload = |tls: &TlsSettings| scene.listeners.reload(&[], &Settings::default(), tls);
    assert!(reload(&changed).unwrap_err().to_string().contains("does not belong to the certificate"));
    let tls = client(&scene.authority, None, rustls::ALL_VERSIONS);
    assert!(shows(scene.addresses[0], &tls, "one.example.org").await);
    assert!(!shows(scene.addresses[0], &tls, "new.example.org").await);
    changed.sni.truncate(1);
    reload(&changed).unwrap();
    assert!(shows(scene.addresses[0], &tls, "new.example.org").await);
    assert!(!shows(scene.addresses[0], &tls, "one.example.org").await);
}

#[tokio::test]
async fn the_oldest_version_can_be_raised() {
    let scene = Scene::new(|tls, _, _| tls.min_version = TlsVersion::V13, &[&|_| {}]).await;
    let only = |version| client(&scene.authority, None, &[version]);
    assert!(shows(scene.addresses[0], &only(&rustls::version::TLS13), "mail.example.com").await);
    assert!(!shows(scene.addresses[0], &only(&rustls::version::TLS12), "mail.example.com").await);
    assert_eq!(scene.world.metrics.tls_failure_reason.of(HandshakeFailure::Incompatible).get(), 1);
}

#[tokio::test]
async fn a_listed_certificate_stands_for_a_credential() {
    let clients = Authority::new();
    let (scene_clients, authorities) = (&clients, &tempfile::tempdir().unwrap());
    let change = move |listen: &mut Listen| {
        listen.client_ca = Some(scene_clients.write(authorities.path(), "clients.pem"));
        listen.client_certificates =
            vec![ClientCertificate { name: "App.example.com".into(), credential: USER.into() }];
    };
    let scene = Scene::new(|_, _, _| {}, &[&change, &|_| {}]).await;
    let [asked, not_asked] = scene.addresses[..] else { panic!("two listeners") };
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let with = |own| client(&scene.authority, own, &[version]);
        let listed = with(Some(clients.issue(&["app.example.com"])));
        assert_eq!(mail(asked, &listed).await.unwrap(), ("250 Ok\r\n".to_owned(), false));
        // A resumed session is the same client's.
        assert_eq!(mail(asked, &listed).await.unwrap(), ("250 Ok\r\n".to_owned(), true));
        // Where nobody asks for certificates it is nobody's: the session is not resumed there.
        assert_eq!(mail(not_asked, &listed).await.unwrap(), (MUST_AUTHENTICATE.to_owned(), false));
        let unlisted = with(Some(clients.issue(&["other.example.com"])));
        assert_eq!(mail(asked, &unlisted).await.unwrap().0, MUST_AUTHENTICATE);
        assert_eq!(mail(asked, &with(None)).await.unwrap().0, MUST_AUTHENTICATE);
        let forged = with(Some(Authority::new().issue(&["app.example.com"])));
        assert_eq!(mail(asked, &forged).await, None);
    }
    assert_eq!(scene.world.metrics.tls_failure_reason.of(HandshakeFailure::ClientCertificate).get(), 2);
}

#[tokio::test]
async fn names_are_compared_with_their_own_kind() {
    let (clients, others) = (Authority::new(), Authority::new());
    let files = tempfile::tempdir().unwrap();
    let pinned = clients.issue(&["anything.example"]);
    let digits: String = digest(&pinned.0);
    let list = |name: &str| vec![ClientCertificate { name: name.into(), credential: USER.into() }];
    let listen_for = |list: Vec<ClientCertificate>, authority: &Authority, file: &str| {
        let client_ca = authority.write(files.path(), file);
        move |listen: &mut Listen| {
            listen.client_ca = Some(client_ca.clone());
            listen.client_certificates = list.clone();
        }
    };
    let by_pin = listen_for(list(&format!("SHA256:{digits}")), &clients, "a.pem");
    let by_mail = listen_for(list("app@example.com"), &clients, "a.pem");
    let elsewhere = listen_for(list("app@example.com"), &others, "b.pem");
    let scene = Scene::new(|_, _, _| {}, &[&by_pin, &by_mail, &elsewhere]).await;
    let with = |own| client(&scene.authority, Some(own), rustls::ALL_VERSIONS);
    let pinned = with(pinned);
    assert_eq!(mail(scene.addresses[0], &pinned).await.unwrap().0, "250 Ok\r\n");
    assert_eq!(mail(scene.addresses[1], &pinned).await.unwrap().0, MUST_AUTHENTICATE);
    // A name that looks like the pin is none.
    let forged = with(clients.issue(&[&format!("sha256:{digits}")]));
    assert_eq!(mail(scene.addresses[0], &forged).await.unwrap().0, MUST_AUTHENTICATE);
    let mailed = with(clients.issue(&["app@example.com"]));
    assert_eq!(mail(scene.addresses[1], &mailed).await.unwrap(), ("250 Ok\r\n".to_owned(), false));
    assert_eq!(mail(scene.addresses[1], &mailed).await.unwrap(), ("250 Ok\r\n".to_owned(), true));
    // A session of one authority's client is no session where another one is trusted.
    assert_eq!(mail(scene.addresses[2], &mailed).await, None);
}

fn digest(certificate: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[tokio::test]
async fn a_certificate_without_a_name_can_not_be_chosen_by_name() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let sni = vec![authority.write_pair(directory.path(), "nameless", &["192.0.2.7"])];
    let settings = TlsSettings { sni, ..TlsSettings::default() };
    let error = check_certificates(&settings, &[], Timestamp::from_millis(0)).unwrap_err().to_string();
    assert!(error.ends_with("nameless.pem: it is for no DNS name, so nobody can ask for it"), "{error}");
}

#[tokio::test]
async fn keys_are_written_only_where_that_is_asked_for() {
    let mut world = World::new(RecipientOverflow::Reject).await;
    let path = world.directory.path().join("keys.log");
    world.deps.key_log = Some(path.clone());
    let listeners = world.start(&Settings::default(), &TlsSettings::default()).unwrap();
    let wrapper = listeners.addresses().nth(1).unwrap().0;
    let tls = crate::support::connector(world.root(), rustls::ALL_VERSIONS);
    Client::wrapped(wrapper, &tls).await.reply().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("CLIENT_HANDSHAKE_TRAFFIC_SECRET "), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // A file that others could read is closed to them; a link is not followed.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    world.start(&Settings::default(), &TlsSettings::default()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let link = world.directory.path().join("link.log");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for refused in [link, PathBuf::from("/nowhere/keys.log")] {
        world.deps.key_log = Some(refused.clone());
        let error = world.start(&Settings::default(), &TlsSettings::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("TLS key log {}: ", refused.display())), "{error}");
    }
}

#[tokio::test]
async fn certificates_are_checked_without_listening() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let now = Timestamp::from_millis(1_700_000_000_000);
    let issue = |name: &str, not_after: rcgen::CertificateParams| {
        let key = KeyPair::generate().unwrap();
        let certificate = not_after.signed_by(&key, &authority.0).unwrap();
        let pair = SniCertificate {
            certificate: directory.path().join(name),
            key: directory.path().join(format!("{name}.key")),
        };
        std::fs::write(&pair.certificate, certificate.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    };
    let until = |year, month, day| {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        params
    };
    // The time is 2023-11-14.
    let sni =
        vec![issue("good", until(2024, 11, 14)), issue("soon", until(2023, 11, 20)), issue("past", until(2023, 1, 1))];
    let settings = TlsSettings { sni, ..TlsSettings::default() };
    let warnings = check_certificates(&settings, &[], now).unwrap();
    let files: Vec<_> = warnings.iter().map(|w| (w.file.file_name().unwrap().to_str().unwrap(), w.expired)).collect();
    assert_eq!(files, [("soon", false), ("past", true)]);
    let mut listener = listen().remove(0);
    listener.client_ca = Some(directory.path().join("missing.pem"));
    assert!(check_certificates(&settings, &[listener], now).unwrap_err().to_string().contains("missing.pem: No such"));
}
