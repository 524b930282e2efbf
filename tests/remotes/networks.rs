//! Networks that fail under the relay, and come back.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use postrider_testkit::{Act, Conduct, Keep, Network, Point, Provider};

use crate::Outcome;
use crate::world::{Plan, SHORT, World, address, first_attempt, outcome};

const RETRY: &str = "[delivery]\nretry = [\"1s\"]\n";
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// A message that no buffer on its way takes whole.
const LARGE: usize = 8_000_000;

/// A world with `far.test` behind a cable, and `near.test` not.
struct Divided {
    world: World,
    far: Provider,
    _beyond: Network,
}

impl Divided {
    fn new() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        // The far end first: this thread moves into the near one.
        let Some(beyond) = Network::if_allowed()? else { return Ok(None) };
        let mut plan = Plan::of(vec![("near".to_owned(), Conduct::default())], format!("{RETRY}{SHORT}"));
        plan.zone.domain("far", FAR);
        let Some(world) = World::of(plan)? else { return Ok(None) };
        world.network.connect(&beyond, "192.0.2.1/24", "192.0.2.2/24")?;
        let listener = beyond.within(|| TcpListener::bind("192.0.2.2:25"))?;
        let far = Provider::start(listener, Keep::All, world.clock.clone())?;
        Ok(Some(Self { world, far, _beyond: beyond }))
    }

    /// Waits for an attempt at this recipient that came to nothing.
    async fn until_deferred(&self, recipient: &str) -> Outcome {
        let events = self.world.until_tried(&[recipient.to_owned()]).await?;
        let (kind, reply) = first_attempt(&events[recipient]).ok_or("no attempt")?;
        assert_eq!(kind, "DeliveryDelay", "{reply}");
        assert!(reply.contains("421 4.4."), "{reply}");
        Ok(())
    }

    /// Whoever is not behind the cable gets mail meanwhile.
    async fn assert_near_is_served(&mut self) -> Outcome {
        let before = self.world.provider.seen(address(0)).taken;
        self.world.send(&["you@near.test".to_owned()], 100).await?;
        let arrival = self.world.provider.until(address(0), |seen| seen.taken > before);
        tokio::time::timeout(Duration::from_secs(2), arrival).await?;
        Ok(())
    }

    /// Asserts that delivery was told once and nothing else was final.
    async fn assert_delivered_once(&self, recipient: &str) -> Outcome {
        let events = self.world.until("delivery", |events| {
            events.get(recipient).is_some_and(|events| events.iter().any(|event| event["eventType"] == "Delivery"))
        });
        let events = events.await?;
        let kinds: Vec<_> = events[recipient].iter().filter_map(outcome).map(|(kind, _)| kind).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == "Delivery").count(), 1, "{kinds:?}");
        assert!(!kinds.contains(&"Bounce"), "{kinds:?}");
        Ok(())
    }
}

#[tokio::test]
async fn a_message_cut_off_in_the_middle_arrives_once_when_the_network_is_back() -> Outcome {
    let Some(mut divided) = Divided::new()? else { return Ok(()) };
    let recipient = "you@far.test".to_owned();
    divided.far.set(FAR, Conduct::but(Point::Content, Act::Stall));
    divided.world.send(std::slice::from_ref(&recipient), LARGE).await?;
    divided.far.until(FAR, |seen| !seen.with("DATA").is_empty()).await;
    divided.world.network.pull()?;
    divided.far.set(FAR, Conduct::default());
    divided.assert_near_is_served().await?;
    divided.until_deferred(&recipient).await?;
    divided.assert_near_is_served().await?;
    divided.world.network.plug()?;
    divided.far.until(FAR, |seen| seen.taken > 0).await;
    divided.assert_delivered_once(&recipient).await?;
    let seen = divided.far.seen(FAR);
    assert_eq!(seen.taken, 1);
    let text = seen.messages[0].received.unstuffed();
    assert!(
        text.ends_with(format!("end of {recipient}\r\n").as_bytes()) && text.len() > LARGE,
        "{} octets",
        text.len()
    );
    Ok(())
}

/// The one case in which mail comes twice (RFC 1047): nobody knows what became
/// of it, and twice is better than never.
#[tokio::test]
async fn a_reply_that_is_lost_repeats_the_message_and_not_its_delivery_event() -> Outcome {
    let Some(mut divided) = Divided::new()? else { return Ok(()) };
    let recipient = "you@far.test".to_owned();
    divided.far.set(FAR, Conduct { tarpit: Duration::from_secs(1), ..Conduct::default() });
    divided.world.send(std::slice::from_ref(&recipient), 100).await?;
    divided.far.until(FAR, |seen| seen.dots == 1).await;
    divided.world.network.pull()?;
    divided.far.set(FAR, Conduct::default());
    divided.far.until(FAR, |seen| seen.taken == 1).await;
    divided.until_deferred(&recipient).await?;
    divided.world.network.plug()?;
    divided.far.until(FAR, |seen| seen.taken == 2).await;
    divided.assert_delivered_once(&recipient).await?;
    let seen = divided.far.seen(FAR);
    let ids: Vec<_> = seen.messages.iter().map(|message| message_id(&message.received.unstuffed())).collect();
    assert_eq!((seen.taken, &ids[0]), (2, &ids[1]), "one message, for whoever removes duplicates");
    assert!(ids[0].is_some());
    Ok(())
}

fn message_id(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).map(str::to_owned)
}

#[tokio::test]
async fn mail_waits_while_names_can_not_be_resolved() -> Outcome {
    let names = ["known", "killed", "frozen"];
    let sites = names.map(|name| (name.to_owned(), Conduct::default())).to_vec();
    let Some(mut world) = World::of(Plan::of(sites, format!("{RETRY}{SHORT}")))? else { return Ok(()) };
    let to = |name: &str| vec![format!("you@{name}.test")];
    world.send(&to("known"), 100).await?;
    world.provider.until(address(0), |seen| seen.taken == 1).await;
    for (number, name) in (1..).zip(&names[1..]) {
        match *name {
            "killed" => world.dns.kill()?,
            _ => world.dns.freeze()?,
        }
        world.send(&to(name), 100).await?;
        // What is known is known.
        world.send(&to("known"), 100).await?;
        world.provider.until(address(0), |seen| seen.taken == number + 1).await;
        let events = world.until_tried(&to(name)).await?;
        let (kind, reply) = first_attempt(&events[&to(name)[0]]).ok_or("no attempt")?;
        let lookup = format!("421 4.4.0 Unable to lookup DNS for {name}.test");
        assert!(kind == "DeliveryDelay" && reply.contains(&lookup), "{kind} {reply}");
        match *name {
            "killed" => world.dns.start_again()?,
            _ => world.dns.thaw()?,
        }
        let site = address(usize::try_from(number)?);
        world.provider.until(site, |seen| seen.taken == 1).await;
    }
    let events = world.events().await?;
    let bounces = events.values().flatten().filter(|event| event["eventType"] == "Bounce").count();
    assert_eq!(bounces, 0);
    Ok(())
}
