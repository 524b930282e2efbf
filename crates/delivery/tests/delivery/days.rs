//! Days of retries, in milliseconds.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_delivery::Settings;
use postrider_delivery::settings::{SourceSettings, WarmUpSettings};
use postrider_dns::zones::Failure;
use postrider_mail::{AttemptOutcome, BounceKind, DelayType, Disposition};

use crate::rig::{DAY, HOST, HOUR, MINUTE, Rig, is_delivered, routes};
use crate::server::{Moment, Say, Server};

const SENDERS: &str = "198.51.100.9:25";
/// The waits of the schedule: the last one repeats.
const WAITS: [u32; 8] = [2, 5, 10, 20, 40, 60, 120, 240];

async fn rig() -> (Rig, Server) {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig.mx("example.net", "mx.example.net", "198.51.100.9");
    let senders = Server::start(&rig.net, SENDERS);
    (rig, senders)
}

/// Whether a script is asked at this place.
fn is_at(moment: &Moment, place: &str) -> bool {
    if place.is_empty() { moment.line.is_empty() } else { moment.line.starts_with(place) }
}

/// The outcomes of a message that is never taken, from its acceptance to the
/// one bounce message that its sender gets.
async fn four_days(rig: &mut Rig, senders: &Server) -> Vec<AttemptOutcome> {
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let id = rig.send(&["ann@example.com"]).await;
    let outcomes = rig.until_final(id).await;
    let (last, earlier) = outcomes.split_last().unwrap();
    assert_eq!(last.at.saturating_since(began).as_secs() / 3600, 96);
    assert!(earlier.iter().all(|outcome| matches!(outcome.disposition, Disposition::Deferred(_))));
    senders.until(|seen| seen.messages.len() == 1).await;
    tokio::time::sleep(5 * DAY).await;
    assert_eq!(senders.seen().messages.len(), 1, "one bounce and nothing after it");
    assert_eq!(senders.seen().with("MAIL FROM:<>").len(), 1);
    outcomes
}

fn assert_expired(outcomes: &[AttemptOutcome], last_reply: &str) {
    let last = outcomes.last().unwrap();
    assert_eq!(last.disposition, Disposition::Bounced(BounceKind::TransientGeneral));
    assert_eq!(last.status.to_string(), "4.4.7");
    let text = format!("550 4.4.7 Message expired: unable to deliver in 5760 minutes.<{last_reply}>");
    assert_eq!(last.diagnostic, text);
}

/// Each wait is the schedule's, within its jitter, but for the one that ends
/// with the message's life.
fn assert_waits(outcomes: &[AttemptOutcome]) {
    let (_, planned) = outcomes.split_last().unwrap();
    let (_, planned) = planned.split_last().unwrap();
    for (number, outcome) in planned.iter().enumerate() {
        let exact = MINUTE * WAITS[number.min(WAITS.len() - 1)];
        let wait = outcome.next_attempt.unwrap().saturating_since(outcome.at);
        assert!(wait >= exact.mul_f64(0.9) && wait <= exact.mul_f64(1.1), "wait {number}: {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn four_days_of_refusals_end_in_one_bounce_with_the_last_of_them() {
    for place in ["", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        let (mut rig, senders) = rig().await;
        let host = Server::scripted(&rig.net, HOST, move |moment| match is_at(moment, place) {
            true => Say::Reply("451 4.3.0 busy, come back"),
            false => Say::Usual,
        });
        let outcomes = four_days(&mut rig, &senders).await;
        assert_expired(&outcomes, "451 4.3.0 busy, come back");
        assert_waits(&outcomes);
        // Seven growing waits within 4 hours, then every 4 hours.
        assert!((28..=34).contains(&outcomes.len()), "{place}: {}", outcomes.len());
        assert!(host.seen().connections <= outcomes.len(), "{place}");
        // A transaction without a sender may be ended with nothing in it.
        assert!(host.seen().messages.iter().all(String::is_empty), "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn four_days_without_a_word_end_in_words_of_our_own() {
    for (silent, words) in
        [(false, "421 4.4.1 Failed to establish connection"), (true, "421 4.4.2 Connection timed out")]
    {
        let (mut rig, senders) = rig().await;
        if silent {
            rig.net.silence(HOST.parse::<SocketAddr>().unwrap());
        }
        let outcomes = four_days(&mut rig, &senders).await;
        assert_expired(&outcomes, words);
        assert_waits(&outcomes);
    }
}

#[tokio::test(start_paused = true)]
async fn four_days_without_names_end_as_a_domain_that_does_not_exist_does() {
    for failure in [Some(Failure::ServFail), Some(Failure::Silence), None] {
        let (mut rig, senders) = rig().await;
        match failure {
            Some(failure) => rig.zones.fail("example.com", failure),
            None => rig.zones.remove("example.com"),
        };
        let outcomes = four_days(&mut rig, &senders).await;
        assert_expired(&outcomes, "421 4.4.0 Unable to lookup DNS for example.com");
        let lost = Disposition::Deferred(DelayType::TransientCommunicationFailure);
        assert!(outcomes.iter().rev().skip(1).all(|outcome| outcome.disposition == lost), "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn mail_leaves_within_one_wait_when_the_trouble_of_days_is_over() {
    let (mut rig, senders) = rig().await;
    rig.zones.fail("example.com", Failure::ServFail);
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    tokio::time::sleep(3 * DAY).await;
    rig.zones.remove("example.com");
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let over = rig.clock.now();
    let host = Server::start(&rig.net, HOST);
    let last = rig.until_final(id).await.pop().unwrap();
    assert!(is_delivered(&last));
    assert!(last.at.saturating_since(over) <= (4 * HOUR).mul_f64(1.1));
    tokio::time::sleep(2 * DAY).await;
    assert_eq!((host.seen().messages.len(), senders.seen().messages.len()), (1, 0));
}

/// Takes what comes again from where it first came from, hours later.
fn greylisting(rig: &Rig, wait: Duration) -> impl Fn(&Moment) -> Say + Send + Sync + 'static {
    let (clock, known) = (rig.clock.clone(), Mutex::new(HashMap::new()));
    move |moment| {
        if !moment.line.starts_with("RCPT") {
            return Say::Usual;
        }
        let stranger = (moment.from, moment.line.clone());
        let first = *known.lock().entry(stranger).or_insert(clock.now());
        if clock.now().saturating_since(first) >= wait { Say::Usual } else { Say::Reply("451 4.7.1 Greylisted") }
    }
}

#[tokio::test(start_paused = true)]
async fn greylisting_for_hours_meets_the_same_source_again() {
    let (mut rig, _) = rig().await;
    Server::scripted(&rig.net, HOST, greylisting(&rig, 3 * HOUR));
    let source = |last: u8| SourceSettings { ipv4: Some([192, 0, 2, last].into()), ..SourceSettings::default() };
    let sources = (1..=4).map(|last| (format!("source{last}"), source(last))).collect();
    let warm_up = WarmUpSettings { enabled: false, ..WarmUpSettings::default() };
    rig.deliver(Settings { sources, warm_up, ..routes(&[]) });
    let began = rig.clock.now();
    let mut used = BTreeSet::new();
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(rig.send(&[&format!("u{number}@example.com")]).await);
    }
    for id in ids {
        let outcomes = rig.until_final(id).await;
        let last = outcomes.last().unwrap();
        assert!(is_delivered(last), "{}", last.diagnostic);
        // From anywhere else the three hours would begin anew.
        assert!(last.at.saturating_since(began) < 5 * HOUR);
        let own: BTreeSet<_> = outcomes.iter().filter_map(|outcome| outcome.remote.as_ref()?.source_ip).collect();
        assert_eq!(own.len(), 1, "{own:?}");
        used.extend(own);
    }
    assert_eq!(used.len(), 4, "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_deferred_together_does_not_come_back_together() {
    let (mut rig, _) = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match is_at(moment, "RCPT") {
        true => Say::Reply("451 4.3.0 busy"),
        false => Say::Usual,
    });
    rig.deliver(Settings { retry: vec![postrider_base::Period::from_hours(1)], ..routes(&[]) });
    let mut ids = Vec::new();
    for number in 0..100 {
        ids.push(rig.send(&[&format!("u{number}@example.com")]).await);
    }
    let mut waits = Vec::new();
    for id in ids {
        let outcome = rig.outcome(id).await;
        waits.push(outcome.next_attempt.unwrap().saturating_since(outcome.at));
    }
    waits.sort();
    // 12 minutes wide, and no tenth of it empty.
    assert!(waits[0] >= 54 * MINUTE && waits[99] <= 66 * MINUTE, "{waits:?}");
    let widest = waits.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(widest < MINUTE + MINUTE / 4 && waits[99] - waits[0] > 10 * MINUTE, "{waits:?}");
}
