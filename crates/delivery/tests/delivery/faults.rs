//! What goes wrong in the middle of an attempt, in the relay or at the host.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use postrider_base::{Dialed, Dialer};
use postrider_mail::{DelayType, Disposition};

use crate::rig::{HOST, MINUTE, Rig, is_delivered, rig, routes};
use crate::server::{Say, Server, Setup};

/// Panics for each of the first few connections.
struct Faulty {
    faults: usize,
    dialled: AtomicUsize,
    behind: Arc<dyn Dialer>,
}

impl Dialer for Faulty {
    fn dial(&self, to: SocketAddr, from: Option<IpAddr>) -> BoxFuture<'_, std::io::Result<Dialed>> {
        assert!(self.dialled.fetch_add(1, Ordering::Relaxed) >= self.faults, "a fault made up for this test");
        self.behind.dial(to, from)
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_attempt_and_is_not_repeated_at_once() {
    let mut rig = Rig::new().await;
    let inside = postrider_base::SimNet::new();
    let server = Server::start(&inside, "127.0.0.1:25");
    let faulty = Arc::new(Faulty { faults: 2, dialled: AtomicUsize::new(0), behind: Arc::new(inside) });
    rig.built_in.insert("inbox".into(), faulty.clone());
    let delivery = rig.deliver(routes(&[("*", "inbox:")]));
    let began = rig.clock.now();
    let id = rig.send(&["ann@example.com", "bob@example.com"]).await;
    for attempt in 1..=2 {
        for outcome in rig.outcomes(id, 2).await {
            assert_eq!(outcome.disposition, Disposition::Deferred(DelayType::InternalFailure));
            assert_eq!(outcome.diagnostic, "451 4.3.0 The attempt failed for a fault of this relay");
            assert_eq!(outcome.attempt, attempt);
        }
    }
    assert!(rig.outcomes(id, 2).await.iter().all(is_delivered));
    // After 2 and 5 minutes, with the jitter.
    assert!(rig.clock.now().saturating_since(began) > 6 * MINUTE);
    assert_eq!((faulty.dialled.load(Ordering::Relaxed), rig.metrics.attempts_failed.get()), (3, 2));
    assert_eq!(server.seen().messages.len(), 1);
    tokio::time::sleep(MINUTE).await;
    let connections: usize = delivery.sites().iter().map(|site| site.connections).sum();
    assert_eq!((connections, rig.spool.stat().in_delivery), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_slow_with_each_recipient_does_not_keep_the_connection_for_hours() {
    let mut rig = rig().await;
    // Almost as slow as each reply may be.
    let setup = Setup { extensions: vec!["PIPELINING"], ..Setup::default() };
    let server = Server::with(&rig.net, HOST, setup, |moment| match moment.line.starts_with("RCPT") {
        true => Say::After(4 * MINUTE + Duration::from_secs(50), "250 ok"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let recipients: Vec<_> = (0..20).map(|n| format!("r{n}@example.com")).collect();
    let id = rig.send(&recipients.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for outcome in rig.outcomes(id, 20).await {
        assert_eq!(outcome.diagnostic, "421 4.4.2 Connection timed out");
        assert!(outcome.at.saturating_since(began) <= 30 * MINUTE + Duration::from_secs(1));
    }
    // Ten at a time are too many still, five are not.
    assert!(!rig.outcomes(id, 20).await.iter().any(is_delivered));
    assert!(rig.outcomes(id, 20).await.iter().all(is_delivered));
    assert_eq!(server.seen().messages.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn recipients_beyond_what_a_host_takes_at_once_follow_at_once() {
    for (extensions, said) in [
        (vec!["PIPELINING"], "452 4.5.3 too many recipients"),
        (vec![], "452 4.5.3 too many recipients"),
        (vec!["PIPELINING"], "552 too many recipients"),
        (vec!["PIPELINING"], "452 4.5.3 Recipients belong to multiple regions ATTR38"),
    ] {
        let mut rig = rig().await;
        let setup = Setup { extensions, ..Setup::default() };
        let server = Server::with(&rig.net, HOST, setup, move |moment| {
            let enough = moment.line.starts_with("RCPT") && moment.named >= 3;
            if enough { Say::Reply(said) } else { Say::Usual }
        });
        rig.deliver(routes(&[]));
        let began = rig.clock.now();
        let recipients: Vec<_> = (0..10).map(|n| format!("r{n}@example.com")).collect();
        let id = rig.send(&recipients.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let outcomes = rig.outcomes(id, 10).await;
        assert!(outcomes.iter().all(|outcome| is_delivered(outcome) && outcome.attempt == 1), "{outcomes:?}");
        let seen = server.seen();
        assert_eq!((seen.connections, seen.messages.len(), seen.with("MAIL").len()), (1, 4, 4), "{said}");
        // The bound is learnt the first time.
        assert_eq!(seen.with("RCPT").len(), 10 + 7, "{said}");
        assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_no_recipient_at_all_is_asked_again_later() {
    let mut rig = rig().await;
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT") {
        true => Say::Reply("452 4.5.3 too many recipients"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com", "bob@example.com"]).await;
    for outcome in rig.outcomes(id, 2).await {
        assert!(matches!(outcome.disposition, Disposition::Deferred(_)), "{outcome:?}");
    }
    assert_eq!(server.seen().with("MAIL").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_host_ends_costs_the_rest_no_attempt() {
    for at in ["MAIL", "RCPT TO:<r3", "RCPT TO:<r5", "DATA"] {
        let mut rig = rig().await;
        let server = Server::scripted(&rig.net, HOST, move |moment| {
            let ends = moment.connection == 0 && moment.taken == 1 && moment.line.starts_with(at);
            if ends { Say::Last("421 4.7.0 too many messages in this session") } else { Say::Usual }
        });
        let mut settings = routes(&[]);
        settings.limits.recipients_per_transaction = 3;
        rig.deliver(settings);
        let recipients: Vec<_> = (0..6).map(|n| format!("r{n}@example.com")).collect();
        let id = rig.send(&recipients.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let outcomes = rig.outcomes(id, 6).await;
        assert!(outcomes.iter().all(|outcome| is_delivered(outcome) && outcome.attempt == 1), "{at} {outcomes:?}");
        let seen = server.seen();
        assert_eq!((seen.connections, seen.messages.len()), (2, 2), "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_host_ends_at_once_defers() {
    for (at, connections) in [("RCPT", 1), ("DATA", 1), (".", 1)] {
        let mut rig = rig().await;
        let server = Server::scripted(&rig.net, HOST, move |moment| {
            if moment.line.starts_with(at) { Say::Last("421 4.7.0 not now") } else { Say::Usual }
        });
        rig.deliver(routes(&[]));
        let id = rig.send(&["ann@example.com"]).await;
        let outcome = rig.outcome(id).await;
        assert_eq!(outcome.diagnostic, "421 4.7.0 not now", "{at}");
        assert_eq!(server.seen().connections, connections, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_before_a_stop_is_not_delivered_again() {
    let mut rig = rig().await;
    let server =
        Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("MAIL") && moment.taken == 1 {
            true => Say::Silence,
            false => Say::Usual,
        });
    let mut settings = routes(&[]);
    settings.limits.recipients_per_transaction = 1;
    rig.deliver(settings);
    let id = rig.send(&["ann@example.com", "bob@example.com"]).await;
    server.until(|seen| seen.with("MAIL").len() == 2).await;
    rig.scope.clone().close(MINUTE).await.unwrap();
    assert!(is_delivered(&rig.outcome(id).await));
    let view = rig.spool.show(id).await.unwrap().unwrap();
    assert_eq!(view.recipients.iter().map(|recipient| recipient.done).collect::<Vec<_>>(), [true, false]);
}
