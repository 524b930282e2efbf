//! Hosts that have our address on a list, and those that only say so of something else.

use std::time::Duration;

use postrider_mail::Disposition;

use crate::rig::{HOST, HOUR, Rig, is_delivered, rig, routes};
use crate::server::{Say, Server};

const LISTED: &str = "550 5.7.1 Service unavailable; client host [192.0.2.7] blocked using zen.spamhaus.org";

/// A host that says so over its first connection, to the first command that begins with `at`
/// (`.` is the end of the data), and closes it.
fn lists(rig: &Rig, at: &'static str) -> Server {
    Server::scripted(&rig.net, HOST, move |moment| match moment.line.starts_with(at) {
        true if moment.connection == 0 => Say::Last(LISTED),
        _ => Say::Usual,
    })
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_of_a_block_has_not_failed_for_good() {
    let mut rig = rig().await;
    lists(&rig, "RCPT");
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert!(matches!(outcome.disposition, Disposition::Deferred(_)), "{outcome:?}");
    assert_eq!(outcome.status.to_string(), "4.7.1");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_message_holds_no_other() {
    let mut rig = rig().await;
    lists(&rig, ".");
    let delivery = rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert!(matches!(outcome.disposition, Disposition::Bounced(_)), "{outcome:?}");
    let other = rig.send(&["bob@example.com"]).await;
    assert!(is_delivered(&rig.outcome(other).await));
    assert_eq!(delivery.sites()[0].paused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_smarthost_passes_on_what_others_say_and_is_not_held() {
    let mut rig = Rig::new().await;
    lists(&rig, "RCPT");
    rig.deliver(routes(&[("*", "smtp://198.51.100.1:25")]));
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert!(matches!(outcome.disposition, Disposition::Bounced(_)), "{outcome:?}");
    let began = rig.clock.now();
    let other = rig.send(&["bob@example.org"]).await;
    assert!(is_delivered(&rig.outcome(other).await));
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_always_blocked_is_believed_at_last() {
    let mut rig = rig().await;
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT TO:<ann@") {
        true => Say::Reply(LISTED),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let id = rig.send(&["ann@example.com"]).await;
    let outcomes = rig.until_final(id).await;
    let (last, before) = outcomes.split_last().unwrap();
    assert!(before.len() == 3 && matches!(last.disposition, Disposition::Bounced(_)), "{outcomes:?}");
    assert!(rig.clock.now().saturating_since(began) < 6 * HOUR);
    // The last word has held nobody.
    let other = rig.send(&["bob@example.com"]).await;
    let outcome = rig.outcome(other).await;
    assert!(is_delivered(&outcome) && outcome.at.saturating_since(last.at) < HOUR / 60, "{outcome:?}");
    assert_eq!(server.seen().messages.len(), 1);
}
