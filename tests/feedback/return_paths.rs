//! What next hosts hear in MAIL FROM, and mail that is refused because of it.

use postrider_testkit::Security;

use crate::Outcome;
use crate::world::{BACK, SENDER, World};

/// The reply to a message from this sender.
async fn reply_to(world: &World, sender: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut client = world.relay.endpoint(Security::StartTls, true)?.connect().await?;
    let (user, password) = world.relay.credentials();
    client.login(user, password).await?;
    let content = format!("From: {SENDER}\r\nSubject: from {sender}\r\n\r\nbody\r\n");
    let reply = client.send(sender, &["ann@example.net"], content.as_bytes()).await?;
    Ok(format!("{} {}", reply.code, reply.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn they_name_the_message_and_the_null_sender_stays() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&["ann@example.net", "bob@example.net"], "for two").await?;
    let (local, domain) = sent.return_path.split_once('@').ok_or("no address")?;
    assert_eq!((domain, local.len() <= 64), (BACK, true), "{}", sent.return_path);
    assert!(reply_to(&world, "").await?.starts_with("250 "));
    assert_eq!(world.arrived("Subject: from \r\n").await?.sender, "");
    // What comes back counts for the message that went out.
    let bounce = sent.bounce("bob@example.net", "5.1.1", "550 5.1.1 user unknown");
    world.bring(&sent.return_path.to_ascii_uppercase(), &bounce).await?.expect(250)?;
    let event = world.event(&sent.id, "Bounce").await?;
    assert_eq!(event["bounce"]["bouncedRecipients"][0]["emailAddress"], "bob@example.net", "{event:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_rather_have_it_refused_is_heard() -> Outcome {
    let world = World::direct("").await?;
    world.relay.cli(&["identities", "create", "sender.test"])?;
    let set = ["identities", "mail-from", "sender.test", "back.sender.test", "--on-failure"];
    // The domain has no MX record: SES's behaviours, by its own words.
    world.relay.cli(&[&set[..], &["reject"]].concat())?;
    let refused = reply_to(&world, SENDER).await?;
    assert_eq!(refused, "554 MAIL FROM domain not verified: DNS setup for MAIL FROM domain is invalid.");
    assert!(reply_to(&world, "").await?.starts_with("250 "), "a bounce that a smarthost relays has no return path");
    world.relay.cli(&[&set[..], &["use-default"]].concat())?;
    let mut world = world;
    assert!(reply_to(&world, SENDER).await?.starts_with("250 "));
    let arrived = world.arrived(&format!("Subject: from {SENDER}\r\n")).await?;
    assert!(arrived.sender.ends_with(&format!("@{BACK}")), "{}", arrived.sender);
    Ok(())
}
