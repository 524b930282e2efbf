//! Programs that judge messages, real ones: the virus scanner `clamd`, and filters on libmilter.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod clamd;
mod milters;

use std::error::Error;
use std::io;
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::client::Reply;
use postrider_testkit::{Record, Relay, RelayOptions, Sink};
use serde_json::Value;

use clamd::{Clamd, eicar};

type Outcome = Result<(), Box<dyn Error>>;

/// How long anything may take before the test calls it hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// A relay whose mail is all kept.
struct World {
    relay: Relay,
    kept: Record,
    _sink: Sink,
}

impl World {
    async fn new(configuration: &str) -> io::Result<Self> {
        let kept = Record::default();
        let sink = Sink::start(kept.clone(), Clock::system()).await?;
        let program = env!("CARGO_BIN_EXE_postrider");
        let relay = Relay::start(RelayOptions::to(program, sink.address(), configuration))?;
        Ok(Self { relay, kept, _sink: sink })
    }

    /// Submits a message to two domains.
    async fn submit(&self, subject: &str, body: &str) -> io::Result<Reply> {
        let content = format!("From: app@example.com\r\nX-Secret: s\r\nSubject: {subject}\r\n\r\n{body}\r\n");
        let mut client = self.relay.connect().await?;
        client.send("app@example.com", &["ann@example.net", "bob@example.org"], content.as_bytes()).await
    }

    /// As [`World::submit`]; the message is taken, and this is its id.
    async fn taken(&self, subject: &str, body: &str) -> io::Result<String> {
        let reply = self.submit(subject, body).await?.expect(250)?;
        Ok(reply.to_string().split_whitespace().last().unwrap_or_default().to_owned())
    }

    /// Waits until copies of a message have come; the first of them.
    async fn arrived(&self, subject: &str, copies: usize) -> String {
        let line = format!("\r\nSubject: {subject}\r\n");
        eventually(&format!("{copies} of {subject}"), || {
            let messages = self.kept.messages().into_iter();
            let texts = messages.map(|message| String::from_utf8_lossy(&message.content).into_owned());
            let found: Vec<String> = texts.filter(|text| text.contains(&line)).collect();
            (found.len() == copies).then(|| found[0].clone())
        })
        .await
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.relay.cli(arguments).unwrap();
        serde_json::Deserializer::from_slice(&output.stdout).into_iter().map(Result::unwrap).collect()
    }

    /// What `queue why` says of a message's first recipient.
    fn why(&self, id: &str) -> (String, String) {
        let said = self.json(&["queue", "why", id, "--json"]).remove(0);
        let first = &said["recipients"][0];
        (first["reason"].as_str().unwrap_or_default().into(), first["explanation"].as_str().unwrap_or_default().into())
    }

    /// Events of a message, by their types.
    fn events(&self, id: &str) -> Vec<Value> {
        let events = self.json(&["events", "since", "1h"]).into_iter();
        events.filter(|event| event["mail"]["messageId"] == id).collect()
    }
}

/// Looks again and again until there is something.
async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let step = Duration::from_millis(50);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(step).await;
    }
    panic!("{what} did not come within {PATIENCE:?}");
}

fn scanned(clamd: &Clamd) -> String {
    format!(
        "[delivery]\nretry = [\"1s\"]\n\n[delivery.scan]\nclamd = \"unix:{}\"\nretry = \"1s\"\ntimeout = \"5s\"\n",
        clamd.socket().display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virus_is_accepted_and_never_sent() -> Outcome {
    let mut clamd = Clamd::new()?;
    clamd.start()?;
    let world = World::new(&scanned(&clamd)).await?;
    let bad = world.taken("bad", &eicar()).await?;
    let attached = world.taken("worm", "Dear friend,\r\nI am a worm\r\n.\r\n").await?;
    world.taken("clean", "nothing to see").await?;
    world.arrived("clean", 2).await;
    for (id, signature) in [(&bad, "Own.Eicar"), (&attached, "Own.Worm")] {
        let events = eventually("a Reject event", || {
            let events = world.events(id);
            (events.len() >= 2).then_some(events)
        })
        .await;
        let types: Vec<&Value> = events.iter().map(|event| &event["eventType"]).collect();
        assert_eq!(types, ["Send", "Reject"], "one event for the whole message");
        assert_eq!(events[1]["reject"]["reason"], "Bad content");
        assert_eq!(events[1]["mail"]["destination"].as_array().map(Vec::len), Some(2));
        let log = world.relay.log()?;
        assert!(log.lines().any(|line| line.contains(id.as_str()) && line.contains(signature)), "{log}");
    }
    // Neither it nor a bounce has left.
    assert_eq!(world.kept.messages().len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_scanner_is_away_mail_waits() -> Outcome {
    let mut clamd = Clamd::new()?;
    let mut world = World::new(&scanned(&clamd)).await?;
    let first = world.taken("before", "text").await?;
    let (reason, _) = eventually("a reason", || Some(world.why(&first)).filter(|(why, _)| why == "not-scanned")).await;
    assert_eq!(reason, "not-scanned");
    clamd.start()?;
    world.arrived("before", 2).await;

    clamd.kill();
    let clean = world.taken("after", "text").await?;
    let bad = world.taken("bad", &eicar()).await?;
    eventually("a reason", || world.why(&clean).1.contains("no connection").then_some(())).await;
    // What waits for a scan waits for it after a crash, too.
    world.relay.kill()?;
    world.relay.launch()?;
    eventually("a reason", || world.why(&bad).1.contains("no connection").then_some(())).await;
    assert_eq!(world.kept.messages().len(), 2, "something left unscanned");
    clamd.start()?;
    world.arrived("after", 2).await;
    eventually("a Reject event", || world.events(&bad).iter().any(|it| it["eventType"] == "Reject").then_some(()))
        .await;
    assert_eq!(world.kept.messages().len(), 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_the_scanner_waits_and_says_so() -> Outcome {
    let mut clamd = Clamd::new()?;
    clamd.start()?;
    let world = World::new(&scanned(&clamd)).await?;
    let line = format!("{}\r\n", "x".repeat(98));
    let long = world.taken("long", &line.repeat(20_000)).await?;
    world.taken("short", "text").await?;
    world.arrived("short", 2).await;
    eventually("a reason", || world.why(&long).1.contains("size limit exceeded").then_some(())).await;
    assert_eq!(world.kept.messages().len(), 2);
    Ok(())
}
