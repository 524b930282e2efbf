//! Providers that want something before they take mail: patience, manners, a
//! new connection. All of it arrives, once.

use std::time::Duration;

use postrider_testkit::{Conduct, Point};

use crate::Outcome;
use crate::world::{Plan, SHORT, World, address};

const RETRY: &str = "[delivery]\nretry = [\"1s\"]\n";

#[tokio::test]
async fn mail_for_providers_with_wishes_arrives_once() -> Outcome {
    let usual = Conduct::default;
    let sites = [
        ("greylist", Conduct { greylist: Some(Duration::from_secs(2)), ..usual() }),
        ("few-at-a-time", Conduct { messages_per_connection: Some(3), ..usual() }),
        ("tarpit", Conduct { tarpit: Duration::from_millis(300), ..usual() }),
        ("no-pipelining", Conduct { extensions: Vec::new(), ..usual() }),
        ("no-ehlo", Conduct::refusing(Point::Ehlo, "502 5.5.1 what is EHLO?")),
    ];
    let sites = sites.map(|(name, conduct)| (name.to_owned(), conduct));
    let Some(mut world) = World::of(Plan::of(sites.to_vec(), format!("{RETRY}{SHORT}")))? else { return Ok(()) };
    const EACH: u64 = 10;
    for (name, _) in &sites {
        let recipients: Vec<String> = (0..EACH).map(|number| format!("u{number}@{name}.test")).collect();
        world.send(&recipients, 1_000).await?;
    }
    for (number, (name, _)) in sites.iter().enumerate() {
        world.provider.until(address(number), |seen| seen.taken >= EACH).await;
        let seen = world.provider.seen(address(number));
        let mut recipients: Vec<_> = seen.messages.iter().flat_map(|message| &message.received.recipients).collect();
        recipients.sort();
        recipients.dedup();
        assert_eq!((seen.taken, recipients.len() as u64), (EACH, EACH), "{name}");
    }
    assert!(!world.relay.log()?.contains("panicked"));
    // Who greylists has seen everybody twice at least.
    assert!(world.provider.seen(address(0)).with("RCPT").len() as u64 >= 2 * EACH);
    Ok(())
}
