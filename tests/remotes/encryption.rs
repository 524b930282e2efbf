//! What had to be encrypted never leaves in clear, whatever a remote, or
//! somebody on the way to it, does to STARTTLS. What need not be arrives.

use std::sync::Arc;

use postrider_testkit::provider::Seen;
use postrider_testkit::{Act, Authority, Conduct, Issued, Point};
use rustls::ServerConfig;

use crate::Outcome;
use crate::world::{Plan, SHORT, World, address, first_attempt};

/// The one host whose certificate proves its name.
const GOOD: &str = "good";

/// How a remote spoils STARTTLS.
fn spoiled(good: &Arc<ServerConfig>) -> Vec<(&'static str, Conduct)> {
    let tls = || Conduct::with_tls(good.clone());
    let at = |point, act| tls().and(point, act);
    vec![
        ("none", Conduct::default()),
        ("stripped", Conduct { tls_stripped: true, ..tls() }),
        ("refused-for-now", at(Point::StartTls, Act::reply("454 4.7.0 TLS not available"))),
        ("refused", at(Point::StartTls, Act::reply("502 5.5.1 not implemented"))),
        ("closed", at(Point::StartTls, Act::Close)),
        ("closed-in-handshake", at(Point::Handshake, Act::Close)),
        ("reset-in-handshake", at(Point::Handshake, Act::Reset)),
        ("silent-in-handshake", at(Point::Handshake, Act::Silence)),
        ("garbage", at(Point::Handshake, Act::say(b"\x16\x03\x01\x00\x05INJECTED: \r\n\x00\xff"))),
        ("plaintext", at(Point::Handshake, Act::say("250 mx.test INJECTED\r\n250 ok\r\n250 ok\r\n"))),
    ]
}

/// Hosts with which a session is encrypted: with certificates that prove
/// nothing, and with one that does.
fn encrypting(authority: &Authority) -> Result<Vec<(&'static str, Conduct)>, Box<dyn std::error::Error>> {
    let shows = |issued: Issued| Ok::<_, rustls::Error>(Conduct::with_tls(issued.server()?));
    let willing = |conduct: Conduct| Conduct { extensions: vec!["PIPELINING", "REQUIRETLS"], ..conduct };
    let early = Act::say("220 go\r\n250-mx.test INJECTED\r\n250 SIZE 1\r\n");
    Ok(vec![
        ("wrong-name", willing(shows(authority.issue(&["elsewhere.test"])?)?)),
        ("expired", willing(shows(authority.issue_expired(&["mx.expired.test"])?)?)),
        ("unknown-authority", willing(shows(Authority::new()?.issue(&["mx.unknown-authority.test"])?)?)),
        // A host, or somebody before it, that answers before it is asked.
        ("answers-early", shows(authority.issue(&["elsewhere.test"])?)?.and(Point::StartTls, early)),
        (GOOD, shows(authority.issue(&["mx.good.test"])?)?),
    ])
}

/// Each host is reached by three domains: its own, one whose route wants
/// STARTTLS, and one to which messages go that require TLS.
fn domains(name: &str) -> [String; 3] {
    [name.to_owned(), format!("must-{name}"), format!("require-{name}")]
}

#[tokio::test]
async fn what_must_be_encrypted_is_never_told_in_clear() -> Outcome {
    let authority = Authority::new()?;
    let good = authority.issue(&["mx.test"])?.server()?;
    let (spoiled, encrypting) = (spoiled(&good), encrypting(&authority)?);
    let sites: Vec<_> =
        spoiled.iter().chain(&encrypting).map(|(name, conduct)| ((*name).to_owned(), conduct.clone())).collect();
    let files = tempfile::tempdir()?;
    let trusted = files.path().join("authorities.pem");
    std::fs::write(&trusted, authority.pem())?;
    let configuration =
        format!("[delivery]\nretry = [\"1h\"]\n{SHORT}[delivery.tls]\nca_file = \"{}\"\n", trusted.display());
    let mut plan = Plan::of(sites.clone(), configuration);
    for (name, _) in &sites {
        plan.routes.push((format!("must-{name}.test"), format!("smtp+starttls://mx.{name}.test")));
        plan.zone.mx(&format!("require-{name}"), &[&format!("mx.{name}")]);
    }
    let Some(world) = World::of(plan)? else { return Ok(()) };

    // A second time, when it is known what the hosts are like.
    for round in 0..2 {
        let mut recipients = Vec::new();
        for (name, _) in &sites {
            let [open, must, require] = domains(name).map(|domain| format!("you{round}@{domain}.test"));
            world.send(&[open.clone(), must.clone()], 100).await?;
            world.require_tls(&require).await?;
            recipients.extend([open, must, require]);
        }
        let events = world.until_tried(&recipients).await?;
        for (number, (name, _)) in sites.iter().enumerate() {
            let [open, must, require] = domains(name).map(|domain| {
                first_attempt(&events[&format!("you{round}@{domain}.test")])
                    .map(|(kind, reply)| (kind.to_owned(), reply.to_owned()))
                    .unwrap_or_default()
            });
            assert_kept_secret(name, &world.provider.seen(address(number)));
            assert_eq!(open.0, "Delivery", "{name}: {open:?}");
            // A route that wants TLS wants a proof of the host's name with it.
            assert_eq!(must.0, if name == GOOD { "Delivery" } else { "DeliveryDelay" }, "{name}: {must:?}");
            assert_ne!(require.0, "Delivery", "{name}: {require:?}");
        }
    }
    for (number, (name, _)) in sites.iter().enumerate() {
        let seen = world.provider.seen(address(number));
        let encrypted = seen.messages.iter().filter(|message| message.encrypted).count();
        assert_eq!(encrypted > 0, number >= spoiled.len(), "{name}");
    }
    let log = world.relay.log()?;
    assert!(!log.contains("panicked") && !log.lines().any(|line| line.starts_with("INJECTED")), "{log}");
    Ok(())
}

/// Nobody who listened has heard of the messages that had to be encrypted.
fn assert_kept_secret(name: &str, seen: &Seen) {
    for line in seen.told_in_clear() {
        assert!(
            !line.contains("must-") && !line.contains("require-") && !line.contains("REQUIRETLS"),
            "{name}: {line}"
        );
    }
    for message in seen.messages.iter().filter(|message| !message.encrypted) {
        let recipients = message.received.recipients.concat();
        assert!(!recipients.contains("must-") && !recipients.contains("require-"), "{name}: {recipients}");
    }
}
