//! Suppressed recipients are never named to anybody.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_mail::{AccountId, Disposition, SuppressionList, SuppressionReason};

use crate::rig::{Rig, is_delivered, rig, routes};
use crate::server::{Say, Server, Setup};

async fn suppress(rig: &Rig, address: &str) {
    let (account, address) = (AccountId::default(), address.parse().unwrap());
    rig.accounts.suppression().put(account, &address, SuppressionReason::Complaint).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_others_of_the_message_are_delivered() {
    let mut rig = rig().await;
    let server = Server::start(&rig.net, "198.51.100.1:25");
    suppress(&rig, "Bob@example.com").await;
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com", "bob@example.com", "cat@example.com"]).await;
    let outcomes = rig.outcomes(id, 3).await;
    assert!(is_delivered(&outcomes[0]) && is_delivered(&outcomes[2]));
    let Disposition::Suppressed(source) = outcomes[1].disposition else { panic!("{:?}", outcomes[1]) };
    assert_eq!(source.reason, SuppressionReason::Complaint);
    assert!(outcomes[1].remote.is_none());
    let seen = server.seen();
    assert!(seen.lines.iter().all(|line| !line.contains("bob")), "{:?}", seen.lines);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_dialled_when_all_are_suppressed() {
    let mut rig = rig().await;
    suppress(&rig, "ann@example.com").await;
    suppress(&rig, "bob@missing.example").await;
    rig.deliver(routes(&[]));
    for to in ["ann@example.com", "bob@missing.example"] {
        let id = rig.send(&[to]).await;
        assert!(matches!(rig.outcome(id).await.disposition, Disposition::Suppressed(_)));
    }
    assert_eq!(rig.net.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_looks_again() {
    let mut rig = rig().await;
    let server = Server::scripted(&rig.net, "198.51.100.1:25", |moment| match moment.line.starts_with("RCPT") {
        true => Say::Reply("450 4.2.0 later"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    assert!(!rig.outcome(id).await.disposition.is_terminal());
    suppress(&rig, "ann@example.com").await;
    let outcomes = rig.until_final(id).await;
    assert!(matches!(outcomes.last().unwrap().disposition, Disposition::Suppressed(_)));
    let named = server.seen().with("RCPT").len();
    assert_eq!(named, outcomes.len());
}

/// The host has the command before the RCPT when the entry is made: EHLO where the RCPT goes
/// out with the MAIL, else the MAIL.
#[tokio::test(start_paused = true)]
async fn an_entry_made_a_moment_before_the_rcpt_counts() {
    for (extensions, before) in [(vec!["PIPELINING"], "EHLO"), (vec![], "MAIL")] {
        let mut rig = rig().await;
        let suppression = rig.accounts.suppression().clone();
        let reply = if before == "EHLO" { "250-mx.example.com\r\n250 PIPELINING" } else { "250 Ok" };
        let setup = Setup { extensions, ..Setup::default() };
        let server = Server::with(&rig.net, "198.51.100.1:25", setup, move |moment| {
            if !moment.line.starts_with(before) {
                return Say::Usual;
            }
            let suppression = suppression.clone();
            tokio::spawn(async move {
                let address = "ann@example.com".parse().unwrap();
                suppression.put(AccountId::default(), &address, SuppressionReason::Complaint).await.unwrap();
            });
            Say::After(Duration::from_secs(5), reply)
        });
        rig.deliver(routes(&[]));
        let id = rig.send(&["ann@example.com"]).await;
        let outcome = rig.outcome(id).await;
        assert!(matches!(outcome.disposition, Disposition::Suppressed(_)), "{outcome:?}");
        let seen = server.seen();
        assert!(seen.with(before).len() == 1 && seen.with("RCPT").is_empty(), "{:?}", seen.lines);
    }
}

#[tokio::test(start_paused = true)]
async fn the_set_of_the_message_says_which_entries_hold() {
    let mut rig = rig().await;
    let server = Server::start(&rig.net, "198.51.100.1:25");
    suppress(&rig, "ann@example.com").await;
    let sets = rig.accounts.configuration_sets();
    sets.create(AccountId::default(), "off", vec![]).await.unwrap();
    sets.change(AccountId::default(), "off", |set| set.suppressed_reasons = Some(BTreeSet::new())).await.unwrap();
    rig.deliver(routes(&[]));
    let mut message = rig.message(&["ann@example.com"]);
    message.origin.configuration_set = Some("off".into());
    let id = rig.accept(message).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert_eq!(server.seen().with("RCPT").len(), 1);
    let id = rig.send(&["ann@example.com"]).await;
    let Disposition::Suppressed(source) = rig.outcome(id).await.disposition else { panic!("it was sent") };
    assert_eq!(source.list, SuppressionList::Account);
}
