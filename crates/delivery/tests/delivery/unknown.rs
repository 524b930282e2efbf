//! Outcomes that nobody knows: the content was sent, and no reply came.

use std::time::Duration;

use crate::rig::{HOST, Rig, is_delivered, routes};
use crate::server::{Say, Server, Setup};

/// A host that takes the first message of a connection, and the next ones in one
/// flight, of which it says this instead of any reply.
async fn rig_where_the_second_gets(say: Say) -> (Rig, Server) {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let setup = Setup { extensions: vec!["PIPELINING", "8BITMIME", "CHUNKING"], ..Setup::default() };
    let server = Server::with(&rig.net, HOST, setup, move |moment| {
        let is_second = moment.connection == 0 && moment.taken == 1 && moment.line.starts_with("MAIL");
        if is_second { say.clone() } else { Say::Usual }
    });
    (rig, server)
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_whole_and_not_answered_is_not_sent_again_at_once() {
    let (mut rig, server) = rig_where_the_second_gets(Say::Close).await;
    rig.deliver(routes(&[]));
    let first = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(first).await));
    let second = rig.send(&["ann@example.com"]).await;
    let outcomes = rig.until_final(second).await;
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    let wait = outcomes[1].at.saturating_since(outcomes[0].at);
    assert!(wait >= Duration::from_secs(100) && is_delivered(&outcomes[1]), "{outcomes:?}");
    assert_eq!(server.seen().connections, 2);
}

#[tokio::test(start_paused = true)]
async fn the_reply_to_what_was_sent_whole_has_ten_minutes() {
    for (late, is_in_time) in [(9, true), (11, false)] {
        let (mut rig, server) =
            rig_where_the_second_gets(Say::After(Duration::from_secs(late * 60), "250 sender ok")).await;
        let mut settings = routes(&[]);
        settings.timeouts.transaction = postrider_base::Period::from_mins(1);
        rig.deliver(settings);
        let first = rig.send(&["ann@example.com"]).await;
        assert!(is_delivered(&rig.outcome(first).await));
        let second = rig.send(&["ann@example.com"]).await;
        let outcome = rig.outcome(second).await;
        assert_eq!(is_delivered(&outcome), is_in_time, "{outcome:?}");
        assert_eq!(server.seen().connections, 1);
    }
}
