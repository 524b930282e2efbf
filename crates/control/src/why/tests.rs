use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, Metrics, SimDisk};
use postrider_mail::{
    AccountId, AttemptOutcome, DelayType, Delays, Disposition, EnhancedStatus, Envelope, Recipient, Stage,
};
use postrider_spool::{Content, Driver, NewMessage, Origin, SpoolOptions};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

fn domain() -> Domain {
    "example.com".parse().unwrap()
}

fn options(disk: &SimDisk) -> SpoolOptions {
    SpoolOptions {
        disk: Arc::new(disk.clone()),
        dir: "/spool".into(),
        index_dir: None,
        clock: Clock::simulated(now()),
        settings: postrider_spool::Settings::default(),
        metrics: Metrics::new(),
        feeds: &[],
        start_held: false,
        accept_loss: false,
        driver: Driver::Task,
    }
}

fn message(number: u128) -> NewMessage {
    NewMessage {
        id: MessageId::new(1, now(), number),
        account: AccountId::default(),
        accepted_at: now(),
        expires_at: now().saturating_add(96 * HOUR),
        not_before: None,
        tls_optional: false,
        envelope: Envelope {
            sender: Some("sender@example.net".parse().unwrap()),
            recipients: vec![Recipient::new("ann@example.com".parse().unwrap())],
            ..Envelope::default()
        },
        origin: Origin::default(),
        content: Content::from(b"Subject: hello\r\n\r\nhello\r\n".to_vec()),
    }
}

/// Why the only recipient of a message waits in a spool without a daemon.
async fn why(spool: &Spool, id: MessageId) -> RecipientWhy {
    let why = explain(Rooms { spool, events: None, delivery: None }, id).await.unwrap();
    assert!(!why.ended && !why.recovering && why.recipients.len() == 1, "{why:?}");
    why.recipients.into_iter().next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn without_a_daemon_that_is_the_reason() {
    let spool = Spool::open(options(&SimDisk::new())).await.unwrap();
    let sent = message(1);
    let id = sent.id;
    spool.accept(sent).await.unwrap();
    let found = why(&spool, id).await;
    assert_eq!((found.reason.as_str(), found.attempts), ("no-daemon", 0));
    assert!(found.advice.unwrap().contains("systemctl start postrider"));
    let unknown = explain(Rooms { spool: &spool, events: None, delivery: None }, message(9).id).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
}

#[tokio::test(start_paused = true)]
async fn each_hold_is_named_with_what_releases_it() {
    let spool = Spool::open(options(&SimDisk::new())).await.unwrap();
    let sent = message(1);
    let (id, queue) = (sent.id, QueueKey { account: sent.account, domain: domain() });
    spool.accept(sent).await.unwrap();
    let holds = [
        (Selector::Message(id), "the message is held", id.to_string()),
        (Selector::Queue(queue), "all mail for example.com", "--domain example.com".to_owned()),
        (Selector::Domain(domain()), "all mail for example.com", "--domain example.com".to_owned()),
        (Selector::All, "everything is held", "--all".to_owned()),
    ];
    for (selector, text, release) in holds {
        let as_advised = match &selector {
            Selector::Queue(_) => Selector::Domain(domain()),
            other => other.clone(),
        };
        spool.hold(&selector).await.unwrap();
        let found = why(&spool, id).await;
        assert_eq!(found.reason, "held", "{selector:?}");
        assert!(found.explanation.starts_with(text), "{selector:?}: {}", found.explanation);
        assert_eq!(found.advice.unwrap(), format!("let it go: `postrider queue release {release}`"));
        spool.release(&as_advised).await.unwrap();
        assert_eq!(why(&spool, id).await.reason, "no-daemon", "{selector:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_due_says_when_and_what_was_said() {
    let spool = Spool::open(options(&SimDisk::new())).await.unwrap();
    let later = now().saturating_add(HOUR);
    let scheduled = NewMessage { not_before: Some(later), ..message(1) };
    let (first, second) = (scheduled.id, message(2).id);
    spool.accept(scheduled).await.unwrap();
    let found = why(&spool, first).await;
    assert_eq!((found.reason.as_str(), found.until), ("not-due", Some(later)));
    assert!(found.explanation.starts_with("its sender asked that it is not sent before "), "{}", found.explanation);

    spool.accept(message(2)).await.unwrap();
    let claim = spool.take_due(1).await.remove(0);
    let said = "451 4.3.0 try again later";
    let outcome = AttemptOutcome {
        recipient: 0,
        at: now(),
        attempt: 1,
        disposition: Disposition::Deferred(DelayType::General),
        status: EnhancedStatus::new(4, 3, 0),
        diagnostic: said.to_owned(),
        remote: None,
        tls: None,
        delays: Delays::default(),
        next_attempt: Some(later),
        record: None,
    };
    claim.finish(vec![outcome], Vec::new()).await.unwrap();
    let found = why(&spool, second).await;
    assert_eq!((found.reason.as_str(), found.attempts, found.until), ("not-due", 1, Some(later)));
    assert!(found.explanation.contains("after attempt 1") && found.explanation.contains(said), "{}", found.explanation);
    assert_eq!(found.advice.unwrap(), format!("try now: `postrider queue retry {second}`"));
    assert_eq!(found.last_reply.as_deref(), Some(said));
}

#[tokio::test(start_paused = true)]
async fn while_old_mail_is_read_nobody_waits_for_the_answer() {
    let disk = SimDisk::new();
    let spool = Spool::open(options(&disk)).await.unwrap();
    let id = message(1).id;
    spool.accept(message(1)).await.unwrap();
    disk.crash(1);
    let spool = Spool::open_behind(options(&disk)).await.unwrap();
    let why = explain(Rooms { spool: &spool, events: None, delivery: None }, id).await.unwrap();
    assert_eq!(why, MessageWhy { id, ended: false, recovering: true, recipients: Vec::new() });
    spool.recovered().await.unwrap();
    assert!(!explain(Rooms { spool: &spool, events: None, delivery: None }, id).await.unwrap().recovering);
}

/// An answer of delivery, with the word for it, something that the explanation says, and
/// something that the advice names.
type Answer = (Why, &'static str, &'static str, &'static str);

const TO_THE_SITE: &str = "postrider queue sites --site 'mx.example.com'";
const TO_THE_RULES: &str = "postrider shaping show 'mx.example.com'";

fn site() -> String {
    "mx.example.com".to_owned()
}

fn host() -> Option<String> {
    Some("mx.example.com[192.0.2.1]:25".to_owned())
}

/// Each that is not about a message whose turn has come.
fn answers() -> Vec<Answer> {
    let since = now();
    let paused = |by: &str| Why::Paused {
        site: site(),
        name: "example.com".to_owned(),
        source: None,
        signing_domain: None,
        by: by.to_owned(),
        since: now(),
        until: None,
        why: "too fast".to_owned(),
    };
    vec![
        (Why::RouteHolds, "route-holds", "is hold:", "postrider queue release --domain example.com"),
        (Why::LookingUp { since }, "looking-up", "looked up", "[dns]"),
        (Why::Scanning { since }, "scanning", "scanned for viruses", "[delivery.scan]"),
        (
            Why::NotScanned { why: "no answer in time".to_owned(), since },
            "not-scanned",
            "not been scanned for viruses: no answer in time",
            "scan_fail_open",
        ),
        (
            Why::NoConnection { site: site(), limit: 7, since },
            "connection-limit",
            "all 7 connections",
            "delivery.limits.connections",
        ),
        (
            Why::InDelivery { site: site(), host: host(), stage: Stage::Data, since },
            "in-delivery",
            "(stage: ",
            TO_THE_SITE,
        ),
        (paused("operator"), "paused", "because of an operator: too fast", "postrider resume 'example.com'"),
        (paused("source"), "paused", "because of a reply: too fast", "postrider resume 'example.com'"),
        (paused("signing_domain"), "paused", "because of a reply: too fast", "postrider resume 'example.com'"),
        (paused("block"), "paused", "the address is blocked: too fast", "unblocked, then lift it"),
        (
            Why::NoSource { site: site(), until: None, why: "pool x has no address".to_owned() },
            "no-source",
            "pool x has no address",
            "postrider sources list",
        ),
        (Why::Parked { site: site(), ready: 3 }, "parked", "3 messages are before it", TO_THE_SITE),
        (Why::Settling, "settling", "written down", "postrider spool"),
        (Why::Turn, "turn", "its turn comes", "delivery.limits.ready"),
    ]
}

/// Each that is.
fn answers_of_ready() -> Vec<Answer> {
    let since = now();
    let ready = |wait| Why::Ready { site: site(), before: 0, others: 0, wait };
    vec![
        (ready(Wait::FirstConnection { host: host(), stage: Stage::Banner, since }), "ready", "192.0.2.1", TO_THE_SITE),
        (ready(Wait::SiteLimit { open: 5, limit: 5 }), "connection-limit", "5 of the 5", TO_THE_RULES),
        (
            ready(Wait::ProviderLimit { provider: "big".to_owned(), open: 5, limit: 5 }),
            "connection-limit",
            "big may have",
            TO_THE_RULES,
        ),
        (ready(Wait::TotalLimit { limit: 7 }), "connection-limit", "all 7 connections", "delivery.limits.connections"),
        (
            ready(Wait::Rate { of: site(), rate: "1/h".to_owned(), next: Some(now()) }),
            "rate-limit",
            "gets 1/h; the next message may go 2023",
            TO_THE_RULES,
        ),
        (ready(Wait::Busy { connections: 2, limit: 2 }), "ready", "2 of 2 connections", TO_THE_SITE),
    ]
}

#[test]
fn each_answer_has_its_word_and_names_what_can_be_done() {
    for (why, word, text, advice) in answers().into_iter().chain(answers_of_ready()) {
        let said = format!("{why:?}");
        let reason = in_words(why, &domain());
        assert_eq!(reason.word, word, "{said}");
        assert!(reason.text.contains(text) && !reason.text.contains('\n'), "{said}: {}", reason.text);
        let given = reason.advice.unwrap_or_else(|| panic!("{said}: no advice"));
        assert!(given.contains(advice), "{said}: {given}");
    }
}

#[test]
fn those_before_it_are_counted_in_words() {
    let text = |before, others| {
        let wait = Wait::Busy { connections: 1, limit: 1 };
        in_words(Why::Ready { site: "mx".to_owned(), before, others, wait }, &domain()).text
    };
    assert!(text(0, 0).starts_with("it is ready for mx, the only one: "));
    assert!(text(0, 4).starts_with("it is ready for mx, the next one to its domain, with 4 others for the site: "));
    assert!(
        text(2, 4).starts_with("it is ready for mx, behind 2 to the same domain, with 4 others in all for the site: ")
    );
}
