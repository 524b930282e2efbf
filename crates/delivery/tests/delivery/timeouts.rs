//! How long a silent host is waited for, step by step (RFC 5321 section
//! 4.5.3.2).

use std::time::Duration;

use postrider_mail::{DelayType, Disposition, Stage};
use postrider_spool::Content;

use crate::rig::{HOST, Rig, is_delivered, routes};
use crate::server::{Say, Server};

const MINUTE: u64 = 60;

#[tokio::test(start_paused = true)]
async fn each_step_has_the_time_that_the_standard_gives_it() {
    for (at, say, seconds, stage) in [
        ("", Say::Silence, 5 * MINUTE, Stage::Banner),
        ("EHLO", Say::Silence, 5 * MINUTE, Stage::Ehlo),
        ("MAIL", Say::Silence, 5 * MINUTE, Stage::MailFrom),
        ("RCPT", Say::Silence, 5 * MINUTE, Stage::RcptTo),
        ("DATA", Say::Silence, 2 * MINUTE, Stage::Data),
        ("content", Say::Deaf, 3 * MINUTE, Stage::EndOfData),
        (".", Say::Silence, 10 * MINUTE, Stage::EndOfData),
    ] {
        let mut rig = Rig::new().await;
        rig.mx("example.com", "mx.example.com", "198.51.100.1");
        Server::scripted(&rig.net, HOST, move |moment| {
            let hit = if at.is_empty() { moment.line.is_empty() } else { moment.line.starts_with(at) };
            if hit { say.clone() } else { Say::Usual }
        });
        rig.deliver(routes(&[]));
        let began = rig.clock.now();
        let mut message = rig.message(&["ann@example.com"]);
        // More than the network holds on its way.
        message.content = Content::from(b"Subject: hello\r\n\r\nline\r\n".repeat(10_000));
        let id = rig.accept(message).await;
        let outcome = rig.outcome(id).await;
        let lost = Disposition::Deferred(DelayType::TransientCommunicationFailure);
        assert_eq!(
            (outcome.disposition, outcome.diagnostic.as_str()),
            (lost, "421 4.4.2 Connection timed out"),
            "{at}"
        );
        assert_eq!(outcome.remote.unwrap().stage, stage, "{at}");
        let took = outcome.at.saturating_since(began).as_secs();
        // A last word is looked for after a write that failed.
        assert!((seconds..=seconds + 2).contains(&took), "{at}: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_open_is_given_up_after_half_a_minute() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig.net.silence(HOST.parse().unwrap());
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(outcome.remote.unwrap().stage, Stage::Connect);
    assert_eq!(outcome.at.saturating_since(began).as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn farewells_keep_nobody_waiting() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "QUIT" | "RSET" => Say::Silence,
        line if line.starts_with("RCPT TO:<bad") => Say::Reply("550 5.1.1 no"),
        _ => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let id = rig.send(&["bad@example.com"]).await;
    rig.outcome(id).await;
    let began = rig.clock.now();
    let id = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(10));
    server.until(|seen| seen.open.0 == 0).await;
}
