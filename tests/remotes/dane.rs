//! Hosts whose certificates the DNS knows (RFC 7672), in a zone that is really
//! signed: whoever stands between them and the relay gets nothing.

use postrider_testkit::{Act, Authority, Conduct, Point};

use crate::Outcome;
use crate::world::{Plan, SHORT, World, address, first_attempt};

#[tokio::test]
async fn hosts_that_the_dns_vouches_for_get_mail_over_tls_or_not_at_all() -> Outcome {
    let (authority, other) = (Authority::new()?, Authority::new()?.issue(&["mx.test"])?);
    let issued = authority.issue(&["whatever.test"])?;
    let tls = Conduct::with_tls(issued.server()?);
    let willing = Conduct { extensions: vec!["PIPELINING", "REQUIRETLS"], ..tls.clone() };
    let (own, others) = (Some(issued.tlsa()), Some(other.tlsa()));
    let cases = [
        // Nobody signed the certificate, and nobody has to.
        ("known", tls.clone(), own.clone(), "Delivery"),
        ("somebody-else", tls.clone(), others, "DeliveryDelay"),
        ("stripped", Conduct { tls_stripped: true, ..tls.clone() }, own.clone(), "DeliveryDelay"),
        ("refused", tls.clone().and(Point::StartTls, Act::reply("454 4.7.0 no")), own.clone(), "DeliveryDelay"),
        ("cut", tls.and(Point::Handshake, Act::Reset), own.clone(), "DeliveryDelay"),
        ("unknown", Conduct::default(), None, "Delivery"),
        ("require", willing, own, "Delivery"),
    ];
    let sites: Vec<_> = cases.iter().map(|(name, conduct, ..)| ((*name).to_owned(), conduct.clone())).collect();
    let mut plan = Plan::of(sites, format!("[delivery]\nretry = [\"1h\"]\n{SHORT}"));
    plan.signed = true;
    for (name, _, tlsa, _) in &cases {
        if let Some(tlsa) = tlsa {
            plan.zone.line(&format!("_25._tcp.mx.{name} IN TLSA {tlsa}"));
        }
    }
    let Some(world) = World::of(plan)? else { return Ok(()) };

    let recipients: Vec<String> = cases.iter().map(|(name, ..)| format!("you@{name}.test")).collect();
    for recipient in &recipients {
        match recipient.as_str() {
            "you@require.test" => world.require_tls(recipient).await?,
            _ => world.send(std::slice::from_ref(recipient), 100).await.map(drop)?,
        }
    }
    let events = world.until_tried(&recipients).await?;
    for (number, (name, _, tlsa, expected)) in cases.iter().enumerate() {
        let attempt = first_attempt(&events[&recipients[number]]);
        assert_eq!(attempt.map(|(kind, _)| kind), Some(*expected), "{name}: {attempt:?}\n{}", world.relay.log()?);
        let said = attempt.map(|(_, said)| said).unwrap_or_default();
        assert!(*expected == "Delivery" || said.contains("TLSA records"), "{name}: {said}");
        let seen = world.provider.seen(address(number));
        assert_eq!(seen.taken, u64::from(*expected == "Delivery"), "{name}");
        assert!(tlsa.is_none() || seen.told_in_clear().is_empty(), "{name}: {:?}", seen.told_in_clear());
        assert!(seen.messages.iter().all(|message| message.encrypted == tlsa.is_some()), "{name}");
    }
    Ok(())
}
