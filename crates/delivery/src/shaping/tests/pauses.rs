//! Pauses: of operators and of replies, their ends, and a restart.

use std::time::Duration;

use postrider_base::Scope as Tasks;
use postrider_base::metrics::PauseKind;
use postrider_mail::{Domain, Stage};
use tokio::time::{advance, timeout};

use super::*;
use crate::shaping::orders::Order;
use crate::shaping::{Action, Pause};

const HOUR: Duration = Duration::from_secs(3600);

const DEFERRED: &str = "421 4.7.1 Messages from 192.0.2.7 temporarily deferred due to poor reputation";
const LISTED: &str = "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org";

fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

impl World {
    fn order(&self, name: &str, source: Option<&str>, time: Option<Duration>) -> Order {
        let since = self.clock.now();
        Order {
            name: name.to_owned(),
            is_provider: self.governor.0.provider_called(name).is_some(),
            source: source.map(str::to_owned),
            since,
            until: time.map(|time| since.saturating_add(time)),
            reason: "because".to_owned(),
        }
    }

    async fn pause(&self, name: &str, source: Option<&str>, time: Option<Duration>) {
        self.governor.pause(self.order(name, source, time)).await.unwrap();
    }

    fn pauses(&self, kind: PauseKind) -> i64 {
        self.metrics.shaping_pauses.of(kind).get()
    }
}

fn is_paused(gate: &Gate, to: &str) -> bool {
    gate.pause(&domain(to), || None).is_some()
}

#[tokio::test]
async fn an_operator_pauses_a_domain_a_host_a_site_or_a_provider() {
    let world = World::new("").await;
    let yahoo = world.gate_from("mta5.am0.yahoodns.net,mta6.am0.yahoodns.net", "a");
    let other = world.gate_from("mx.example.net", "b");
    for (name, source, expected) in [
        ("yahoo", None, [true, true, false]),
        ("yahoo", Some("a"), [true, true, false]),
        ("yahoo", Some("b"), [false, false, false]),
        ("mta6.am0.yahoodns.net", None, [true, true, false]),
        ("mta5.am0.yahoodns.net,mta6.am0.yahoodns.net", None, [true, true, false]),
        ("aol.com", None, [false, true, false]),
        ("mx.example.net", None, [false, false, true]),
        ("user.example", Some("b"), [false, false, true]),
    ] {
        world.pause(name, source, None).await;
        let found = [is_paused(&yahoo, "yahoo.com"), is_paused(&yahoo, "aol.com"), is_paused(&other, "user.example")];
        assert_eq!(found, expected, "{name} {source:?}");
        assert_eq!(world.pauses(PauseKind::Operator), 1);
        assert_eq!(world.governor.resume(name, None).await.unwrap(), 1);
        assert!(!is_paused(&yahoo, "aol.com") && !is_paused(&other, "user.example"));
    }
    assert_eq!(world.pauses(PauseKind::Operator), 0);
}

#[tokio::test]
async fn pauses_of_operators_survive_a_restart_and_others_do_not() {
    let world = World::new("").await;
    let gate = world.gate_from("mx.example.net", "a");
    world.pause("mx.example.net", Some("a"), None).await;
    world.pause("gone.example", None, None).await;
    world.governor.resume("gone.example", None).await.unwrap();
    gate.heard(None, Stage::Banner, &reply(DEFERRED), true);
    let metrics = Metrics::new();
    let again = Governor::new(shaping("").unwrap(), &world.store, &world.clock, &metrics).unwrap();
    let of = |source: &str| again.gate_at(Place::mx("mx.example.net"), Some(source.into()));
    let pause = of("a").pause(&domain("user.example"), || None).unwrap();
    assert_eq!((pause.kind, &*pause.why, pause.until), (PauseKind::Operator, "because", None));
    assert!(!is_paused(&of("b"), "user.example"));
    assert_eq!(again.0.pause_views().len(), 1);
    assert_eq!(metrics.shaping_pauses.of(PauseKind::Operator).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn pauses_end_by_themselves_and_say_so() {
    let world = World::new("").await;
    let tasks = Tasks::new("test");
    world.governor.start(&tasks);
    let gate = world.gate("mx.example.net");
    // The disk first: while it works, nobody else holds simulated time.
    world.pause("user.example", None, Some(HOUR)).await;
    gate.heard(None, Stage::Banner, &reply(DEFERRED), true);
    assert!(is_paused(&gate, "other.example") && is_paused(&gate, "user.example"));
    let ended = timeout(HOUR, world.governor.ended()).await.unwrap();
    let other = world.gate("mx.other.example");
    for name in ["other.example", "user.example"] {
        assert!(ended.len() == 1 && gate.was_held_by(&ended[0], &domain(name)));
        assert!(!other.was_held_by(&ended[0], &domain(name)), "another site is not concerned");
    }
    assert!(!is_paused(&gate, "other.example") && is_paused(&gate, "user.example"));
    assert_eq!((world.pauses(PauseKind::Source), world.pauses(PauseKind::Operator)), (0, 1));
    let ended = timeout(HOUR, world.governor.ended()).await.unwrap();
    assert!(ended.len() == 1 && gate.was_held_by(&ended[0], &domain("user.example")));
    assert!(!gate.was_held_by(&ended[0], &domain("other.example")), "another domain is not concerned");
    assert!(!is_paused(&gate, "user.example"));
    assert_eq!(world.pauses(PauseKind::Operator), 0);
    assert!(world.governor.0.pause_views().is_empty());
    tasks.close(HOUR).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_a_source_leaves_others_alone() {
    let world = World::new("").await;
    let (one, other) = (world.gate_from("mx.example.net", "a"), world.gate_from("mx.example.net", "b"));
    let heard = one.heard(None, Stage::Banner, &reply(DEFERRED), true);
    assert!(matches!(heard.action, Some(Action::Paused(_))));
    assert!(is_paused(&one, "user.example") && !is_paused(&other, "user.example"));
    assert!(!is_paused(&world.gate_from("mx.other.example", "a"), "user.example"));
    assert!(world.governor.is_paused("mx.example.net", Some(&"a".into())));
    assert!(!world.governor.is_paused("mx.example.net", Some(&"b".into())));
    // The same from connections that were open makes it no longer than the last one says.
    advance(Duration::from_secs(60)).await;
    one.heard(None, Stage::Banner, &reply(DEFERRED), true);
    assert_eq!(world.pauses(PauseKind::Source), 1);
    advance(Duration::from_secs(29 * 60 + 50)).await;
    assert!(is_paused(&one, "user.example"));
    advance(Duration::from_secs(11)).await;
    assert!(!is_paused(&one, "user.example"));
}

#[tokio::test]
async fn what_a_provider_says_of_a_source_holds_for_all_its_sites() {
    let world = World::new("").await;
    let yahoo = world.gate_from("mta5.am0.yahoodns.net", "a");
    let aol = world.gate_from("mx-aol.mail.gm0.yahoodns.net", "a");
    yahoo.heard(None, Stage::MailFrom, &reply("421 4.7.0 [TSS04] Messages from 192.0.2.7 temporarily deferred"), true);
    assert!(is_paused(&aol, "aol.com"));
    assert!(!is_paused(&world.gate_from("mx-aol.mail.gm0.yahoodns.net", "b"), "aol.com"));
    assert_eq!(world.governor.resume("yahoo", None).await.unwrap(), 1);
    assert!(!is_paused(&aol, "aol.com"));
}

#[tokio::test]
async fn a_blocked_source_pauses_and_is_counted_apart() {
    let world = World::new("").await;
    let heard = world.gate_from("mx.example.net", "a").heard(None, Stage::RcptTo, &reply(LISTED), true);
    assert!(matches!(heard.action, Some(Action::Blocked(Pause { kind: PauseKind::Block, .. }))), "{heard:?}");
    assert_eq!((world.pauses(PauseKind::Block), world.pauses(PauseKind::Source)), (1, 0));
}

#[tokio::test]
async fn a_signing_domain_pauses_at_one_site_whatever_its_source() {
    let world = World::new("").await;
    let rate = reply(
        "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your DKIM domain [a.example 36].",
    );
    let (one, other) = (world.gate_from("aspmx.l.google.com", "a"), world.gate_from("aspmx.l.google.com", "b"));
    assert_eq!(one.heard(None, Stage::EndOfData, &rate, true).action, None, "it is not known who signs");
    one.heard(Some("A.example"), Stage::EndOfData, &rate, true);
    let to = domain("gmail.com");
    for gate in [&one, &other] {
        assert!(gate.pause(&to, || Some("a.example")).is_some());
        assert!(gate.pause(&to, || Some("b.example")).is_none() && gate.pause(&to, || None).is_none());
    }
    assert!(world.gate("mx.example.net").pause(&to, || Some("a.example")).is_none());
    assert_eq!(world.governor.resume("google", Some("a")).await.unwrap(), 0, "no pause of a source");
    assert_eq!(world.governor.resume("google", None).await.unwrap(), 1);
}

#[tokio::test]
async fn a_site_remembers_a_bounded_number_of_signing_domains() {
    let world = World::new("").await;
    let gate = world.gate("aspmx.l.google.com");
    let rate = reply("421 4.7.28 unusual rate of unsolicited mail originating from your DKIM domain [a 36].");
    for number in 0..3_000 {
        gate.heard(Some(&format!("d{number}.example")), Stage::EndOfData, &rate, true);
    }
    assert_eq!(world.pauses(PauseKind::SigningDomain), 1_000);
    assert!(gate.pause(&domain("gmail.com"), || Some("d2999.example")).is_some());
}
