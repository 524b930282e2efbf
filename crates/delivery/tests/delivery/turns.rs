//! Turns of a message rate: taken for messages, and for nothing else.

use crate::rig::{HOST, HOUR, MINUTE, is_delivered, rig};
use crate::server::{Say, Server};
use crate::shaped::shaped;

#[tokio::test(start_paused = true)]
async fn nobody_without_a_message_takes_a_turn() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig().await;
    let server = Server::start(&rig.net, HOST);
    let delivery = rig.deliver(shaped(&dir, "[site.\"mx.example.com\"]\nrate = \"1/h\"\n"));
    let first = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(first).await));
    server.until(|seen| seen.open.0 == 0).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(delivery.sites(), []);
    tokio::time::sleep(2 * HOUR).await;
    for late in [MINUTE, HOUR + MINUTE] {
        let id = rig.send(&["ann@example.com"]).await;
        let outcome = rig.outcome(id).await;
        let waited = outcome.at.saturating_since(id.timestamp());
        assert!(is_delivered(&outcome) && waited <= late, "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_message_has_gone_is_the_next_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig().await;
    Server::start(&rig.net, HOST);
    rig.deliver(shaped(&dir, "[site.\"mx.example.com\"]\nrate = \"1/h\"\n"));
    let first = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(first).await));
    // Two wait for the next turn; the first one's time is over before that.
    let mut short = rig.message(&["ann@example.com"]);
    short.expires_at = short.accepted_at.saturating_add(10 * MINUTE);
    let (short, long) = (rig.accept(short).await, rig.send(&["bob@example.com"]).await);
    assert!(!is_delivered(&rig.outcome(short).await));
    let outcome = rig.outcome(long).await;
    let waited = outcome.at.saturating_since(long.timestamp());
    assert!(is_delivered(&outcome) && waited <= HOUR + MINUTE, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_site_that_cannot_be_reached_has_used_no_turn() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig().await;
    // Only the first connection is turned away.
    Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "" if moment.connection == 0 => Say::Close,
        _ => Say::Usual,
    });
    rig.deliver(shaped(&dir, "[site.\"mx.example.com\"]\nrate = \"1/h\"\n"));
    let id = rig.send(&["ann@example.com"]).await;
    let outcomes = rig.until_final(id).await;
    let last = outcomes.last().unwrap();
    assert!(outcomes.len() == 2 && is_delivered(last), "{outcomes:?}");
    assert!(last.at.saturating_since(id.timestamp()) < 10 * MINUTE, "{outcomes:?}");
}
