//! Addresses that mail leaves from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use postrider_testkit::Conduct;

use crate::Outcome;
use crate::world::{Plan, SHORT, World, address};

const EACH: u64 = 20;

#[tokio::test]
async fn mail_leaves_from_the_sources_under_their_names_and_comes_back_from_the_same() -> Outcome {
    let greylist = Conduct { greylist: Some(Duration::from_secs(2)), ..Conduct::default() };
    let sites = vec![("open".to_owned(), Conduct::default()), ("greylist".to_owned(), greylist)];
    let sources = BTreeMap::from([("198.18.250.1", "out1.relay.test"), ("198.18.250.2", "out2.relay.test")]);
    let mut configuration = format!("[delivery]\nretry = [\"1s\"]\n{SHORT}[delivery.warm_up]\nenabled = false\n");
    for (number, (ip, name)) in sources.iter().enumerate() {
        configuration.push_str(&format!("[delivery.sources.out{number}]\nipv4 = \"{ip}\"\nehlo_name = \"{name}\"\n"));
    }
    let Some(mut world) = World::of(Plan::of(sites, configuration))? else { return Ok(()) };
    for domain in ["open", "greylist"] {
        let recipients: Vec<String> = (0..EACH).map(|number| format!("u{number}@{domain}.test")).collect();
        world.send(&recipients, 100).await?;
    }
    for number in 0..2 {
        world.provider.until(address(number), |seen| seen.taken >= EACH).await;
        let seen = world.provider.seen(address(number));
        // A message that moved to the other address would begin its wait anew.
        assert_eq!(seen.taken, EACH);
        let used: BTreeSet<IpAddr> = seen.messages.iter().map(|message| message.from).collect();
        assert_eq!(used.len(), 2, "{used:?}");
        for ip in &used {
            assert!(sources.contains_key(ip.to_string().as_str()), "{ip}");
        }
        let greetings: BTreeSet<&str> = seen.with("EHLO").into_iter().collect();
        assert_eq!(greetings, BTreeSet::from(["EHLO out1.relay.test", "EHLO out2.relay.test"]));
    }
    // The events say which address it was.
    let arrived = world.provider.seen(address(1));
    let recipients: Vec<String> = (0..EACH).map(|number| format!("u{number}@greylist.test")).collect();
    let events = world
        .until("every delivery is told", |events| {
            let told = |to: &String| events[to].iter().any(|event| event["eventType"] == "Delivery");
            recipients.iter().all(|to| events.contains_key(to) && told(to))
        })
        .await?;
    for message in &arrived.messages {
        let told = events[&message.received.recipients[0]].iter().find(|event| event["eventType"] == "Delivery");
        let told = told.ok_or("no delivery")?;
        assert_eq!(told["mail"]["tags"]["ses:outgoing-ip"][0], message.from.to_string(), "{told}");
    }
    Ok(())
}
