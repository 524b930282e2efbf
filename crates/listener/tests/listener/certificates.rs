//! Certificates: wrong ones, changed ones, reloaded ones.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Client, Relay, World, connector, listen};
use postrider_account::RecipientOverflow;
use postrider_listener::{CertificateError, Error, Listen, ListenAddress, ListenTls, Listeners, Settings, TlsSettings};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A pair in the world's directory, signed by itself.
struct Pair {
    settings: TlsSettings,
    certificate: CertificateDer<'static>,
}

fn write_pair(world: &World, name: &str) -> Pair {
    let directory = world.directory.path();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["mail.example.com".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let (chain, key_path) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}-key.pem")));
    std::fs::write(&chain, certificate.pem()).unwrap();
    std::fs::write(&key_path, key.serialize_pem()).unwrap();
    Pair {
        settings: TlsSettings { certificate: Some(chain), key: Some(key_path), ..TlsSettings::default() },
        certificate: CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap(),
    }
}

fn start(world: &World, tls: &TlsSettings) -> Result<(Listeners, std::net::SocketAddr), Error> {
    let listeners = world.start(&Settings::default(), tls)?;
    let wrapper = listeners.addresses().nth(1).unwrap().0;
    Ok((listeners, wrapper))
}

/// Whether a client that trusts only this certificate gets through.
async fn shows(address: std::net::SocketAddr, certificate: &CertificateDer<'static>) -> bool {
    let tls = connector(certificate.clone(), rustls::ALL_VERSIONS);
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("mail.example.com").unwrap();
    tls.connect(name, stream).await.is_ok()
}

#[tokio::test]
async fn wrong_certificates_are_named() {
    let world = World::new(RecipientOverflow::Reject).await;
    let (one, other) = (write_pair(&world, "one"), write_pair(&world, "other"));
    let mixed = TlsSettings { key: other.settings.key, ..one.settings.clone() };
    let error = start(&world, &mixed).err().unwrap();
    assert!(matches!(error, Error::Certificate(CertificateError::Mismatch { .. })), "{error}");
    let missing = TlsSettings { certificate: Some(PathBuf::from("/nowhere/cert.pem")), ..one.settings };
    let error = start(&world, &missing).err().unwrap().to_string();
    assert!(error.starts_with("/nowhere/cert.pem: No such file"), "{error}");
}

#[tokio::test]
async fn a_reload_replaces_the_certificate_or_keeps_it() {
    let world = World::new(RecipientOverflow::Reject).await;
    let (one, other) = (write_pair(&world, "one"), write_pair(&world, "other"));
    let (listeners, wrapper) = start(&world, &one.settings).unwrap();
    assert!(shows(wrapper, &one.certificate).await);
    assert!(!shows(wrapper, &other.certificate).await);

    let restart = listeners.reload(&listen(), &Settings::default(), &other.settings).unwrap();
    assert!(restart.is_empty());
    assert!(shows(wrapper, &other.certificate).await);

    let broken = TlsSettings { key: one.settings.key, ..other.settings };
    assert!(listeners.reload(&listen(), &Settings::default(), &broken).is_err());
    assert!(shows(wrapper, &other.certificate).await);
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_noticed() {
    let world = World::new(RecipientOverflow::Reject).await;
    let one = write_pair(&world, "one");
    let (_listeners, wrapper) = start(&world, &one.settings).unwrap();
    let certificate = one.settings.certificate.unwrap();

    // A broken file changes nothing; the repaired one does.
    std::fs::write(&certificate, "half a fi").unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(shows(wrapper, &one.certificate).await);
    let renewed = write_pair(&world, "one");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(shows(wrapper, &renewed.certificate).await);
}

#[tokio::test]
async fn settings_change_for_new_connections() {
    let relay = Relay::start().await;
    let enhanced = Settings { enhanced_status_codes: true, ..Settings::default() };
    let mut before = relay.clear().await;
    let mut listeners = listen();
    listeners.pop();
    let restart = relay.listeners.reload(&listeners, &enhanced, &TlsSettings::default()).unwrap();
    assert_eq!(restart, ["listener"]);
    let mut after = relay.clear().await;
    assert_eq!(before.say("NOOP\r\n").await, "250 Ok\r\n");
    assert_eq!(after.say("NOOP\r\n").await, "250 2.0.0 Ok\r\n");
}

#[tokio::test]
async fn a_taken_port_is_named_and_nothing_listens() {
    let relay = Relay::start().await;
    let world = World::new(RecipientOverflow::Reject).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let on = |address: std::net::SocketAddr| Listen::on(ListenAddress::One(address), ListenTls::StartTls);
    let list = [on(free), on(relay.starttls)];
    let error =
        Listeners::start(&list, &Settings::default(), &TlsSettings::default(), world.deps.clone(), &world.scope);
    let expected = format!("listener {}: the port is taken by another program", relay.starttls);
    assert_eq!(error.err().unwrap().to_string(), expected);
    assert!(tokio::net::TcpStream::connect(free).await.is_err());
    // The other relay is not disturbed.
    Client::plain(relay.starttls).await.reply().await;
}
