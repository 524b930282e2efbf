//! Feedback rules: each against its own example, and what they do.

use std::time::Duration;

use futures_util::FutureExt;
use postrider_base::metrics::{Feedback, PauseKind};
use postrider_mail::{BounceKind, Stage};

use super::*;
use crate::shaping::Action;
use crate::shaping::feedback::{Effect, comparable};

/// Domains whose hosts are at the providers of the built-in rules.
const HOSTS: [(&str, &str); 10] = [
    ("google", "aspmx.l.google.com"),
    ("microsoft", "contoso-com.mail.protection.outlook.com"),
    ("microsoft-consumer", "hotmail-com.olc.protection.outlook.com"),
    ("yahoo", "mta5.am0.yahoodns.net"),
    ("apple", "mx01.mail.icloud.com"),
    ("comcast", "mx1a1.comcast.net"),
    ("orange", "smtp-in.orange.fr"),
    ("mimecast", "eu-smtp-inbound-1.mimecast.com"),
    ("gmx", "mx00.emig.gmx.net"),
    ("", "mx.example.net"),
];

fn hosts(provider: Option<&str>) -> &'static str {
    HOSTS.iter().find(|(name, _)| *name == provider.unwrap_or_default()).unwrap().1
}

#[test]
fn each_built_in_rule_is_the_first_to_match_its_example() {
    let shaping = shaping("").unwrap();
    let providers: Vec<_> = shaping.providers().map(|provider| provider.name.clone()).collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for provider in providers.iter().map(|name| Some(&**name)).chain([None]) {
        for rule in shaping.feedback_of(provider).filter(|rule| rule.provider.as_deref() == provider) {
            seen.insert(rule.name.clone());
            let example = reply(&rule.example);
            let text = comparable(&example);
            let mut rules = shaping.feedback_of(provider);
            let first = rules.find(|other| other.matches(rule.example_stage(), &example, &text)).unwrap();
            if first.name != rule.name {
                wrong.push(format!("{} is taken by {}", rule.name, first.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen.len() >= 25, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn each_built_in_rule_does_what_it_says() {
    let rules: Vec<_> = {
        let shaping = shaping("").unwrap();
        let all = HOSTS.map(|(name, _)| Some(name).filter(|name| !name.is_empty()));
        let of =
            |provider| shaping.feedback_of(provider).filter(move |rule| rule.provider.as_deref() == provider).cloned();
        all.into_iter().flat_map(|provider| of(provider).collect::<Vec<_>>()).collect()
    };
    for rule in rules {
        // A world of its own for each: no rule sees what another one did.
        let world = World::new("").await;
        let gate = world.gate(hosts(rule.provider.as_deref()));
        let permits: Vec<_> = std::iter::from_fn(|| gate.connection().now_or_never()).collect();
        let limit = gate.limit();
        let heard = gate.heard(Some("example.com"), rule.example_stage(), &reply(&rule.example), true);
        let pause = gate.pause(&"user.example".parse().unwrap(), || Some("example.com"));
        let name = &rule.name;
        match rule.effect {
            Effect::Ignore => assert_eq!((heard.action, pause), (None, None), "{name}"),
            Effect::Slow => {
                assert_eq!(permits.len(), limit, "{name}");
                assert_eq!(heard.action, Some(Action::Slowed), "{name}");
                assert!(rule.is_about_provider || limit == 1 || gate.limit() < limit, "{name}");
                assert_eq!(world.metrics.shaping_slowed.get(), 1, "{name}");
            }
            Effect::PauseSource(_) => {
                assert_eq!(heard.action, Some(Action::Paused(pause.clone().unwrap())), "{name}");
                assert_eq!(pause.unwrap().kind, PauseKind::Source, "{name}");
            }
            Effect::PauseSigningDomain(_) => {
                assert_eq!(pause.unwrap().kind, PauseKind::SigningDomain, "{name}");
                assert_eq!(gate.pause(&"user.example".parse().unwrap(), || Some("other.example")), None, "{name}");
            }
            Effect::BlockSource(_) => {
                assert_eq!(heard.action, Some(Action::Blocked(pause.unwrap())), "{name}");
            }
            Effect::Bounce(kind) => assert_eq!(heard.action, Some(Action::Bounce(kind)), "{name}"),
        }
        drop(permits);
    }
}

#[tokio::test]
async fn a_rule_of_the_operator_comes_first_and_replaces_its_namesake() {
    let own = r#"
        [[feedback]]
        name = "full-is-final"
        stages = ["rcpt"]
        codes = [452]
        text = ["mailbox..is full"]
        action = "bounce"
        bounce = "Transient/MailboxFull"
        example = "452 4.2.2 The mailbox of ann@example.com is full"
        [[feedback]]
        name = "rate-limited"
        text = ["slow down"]
        action = "ignore"
        example = "451 4.7.1 Please slow down"
    "#;
    let world = World::new(own).await;
    let gate = world.gate("mx.example.net");
    let full = reply("452 4.2.2 The mailbox of bob@example.com is full");
    let bounce = Some(Action::Bounce(BounceKind::TransientMailboxFull));
    assert_eq!(gate.heard(None, Stage::RcptTo, &full, true).action, bounce);
    assert_eq!(gate.heard(None, Stage::EndOfData, &full, true).action, None, "at another stage");
    assert_eq!(gate.heard(None, Stage::RcptTo, &reply("451 4.7.1 Please slow down"), true).action, None);
    assert_eq!(gate.heard(None, Stage::RcptTo, &reply("451 4.7.1 Rate limit exceeded"), true).action, None, "replaced");
    assert_eq!(world.metrics.shaping_feedback.of(Feedback::Bounce).get(), 1);
}

#[tokio::test]
async fn a_rule_of_one_provider_is_no_rule_of_another() {
    let world = World::new("").await;
    let tss04 = reply("421 4.7.0 [TSS04] you know why");
    assert!(world.gate(hosts(Some("yahoo"))).heard(None, Stage::MailFrom, &tss04, true).action.is_some());
    assert!(world.gate(hosts(Some("google"))).heard(None, Stage::MailFrom, &tss04, true).action.is_none());
}

#[tokio::test]
async fn a_host_that_has_the_content_blocks_only_by_a_rule_for_that() {
    let world = World::new("").await;
    let listed = reply("550 5.7.1 A link in it is blocked using zen.spamhaus.org");
    let stranger = world.gate("mx.example.net");
    assert_eq!(stranger.heard(None, Stage::EndOfData, &listed, true).action, None);
    assert_eq!(stranger.heard(None, Stage::RcptTo, &listed, false).action, None);
    assert!(stranger.heard(None, Stage::RcptTo, &listed, true).action.is_some());
    let google = world.gate(hosts(Some("google")));
    let blocked = reply("550 5.7.1 This is due to the very low reputation of the sending IP address");
    assert!(google.heard(None, Stage::EndOfData, &blocked, true).action.is_some());
}

#[tokio::test]
async fn a_time_in_a_reply_is_heard_within_bounds() {
    let world = World::new("").await;
    let gate = world.gate("mx.example.net");
    let after = |text: &str| gate.heard(None, Stage::RcptTo, &reply(text), true).retry_after;
    assert_eq!(after("450 4.2.0 Greylisted, try again in 300 seconds"), Some(Duration::from_secs(300)));
    assert_eq!(after("450 4.2.0 Greylisted, try again in 9 days"), Some(Duration::from_secs(4 * 3600)));
    assert_eq!(after("450 4.2.0 Greylisted, try again in 0 seconds"), Some(Duration::from_secs(1)));
    assert_eq!(after("550 5.7.1 Blocked, try again in 300 seconds"), None, "a refusal for good");
    assert_eq!(after("250 2.0.0 Ok, come back in 300 seconds"), None);
    assert_eq!(world.metrics.shaping_retry_after.get(), 3);
    let pause = gate.heard(
        None,
        Stage::Banner,
        &reply("421 4.7.1 Mail from 192.0.2.7 temporarily deferred, retry in 90 seconds"),
        true,
    );
    let Some(Action::Paused(pause)) = pause.action else { panic!("{pause:?}") };
    assert_eq!(pause.until.unwrap().saturating_since(pause.since), Duration::from_secs(90));
}

#[test]
fn wrong_rules_say_what_was_expected() {
    let rule = |more: &str| format!("[[feedback]]\nname = 'x'\nexample = '421 4.7.0 slow down'\n{more}\n");
    for (own, expected) in [
        (rule("text = ['slow']"), "action: expected \"ignore\", \"slow\""),
        (rule("action = 'slow'"), "text: expected words of the reply"),
        (rule("action = 'slow'\ntext = ['fast']"), "example: expected a reply that the rule matches"),
        (rule("action = 'slow'\ntext = ['slow']\ncodes = [250]"), "codes: expected reply codes from 400 to 599"),
        (rule("action = 'slow'\ntext = ['slow']\nenhanced = ['four']"), "enhanced: expected codes such as"),
        (rule("action = 'slow'\ntext = ['slow']\nfor = '1h'"), "for: expected only beside"),
        (rule("action = 'pause-source'\ntext = ['slow']"), "for: expected how long"),
        (rule("action = 'block-source'\ntext = ['slow']\nfor = '8d'"), "for: expected how long"),
        (rule("action = 'bounce'\ntext = ['slow']"), "bounce: expected one of Undetermined/Undetermined"),
        (rule("action = 'slow'\ntext = ['slow']\nbounce = 'Transient/General'"), "bounce: expected only beside"),
        (rule("action = 'slow'\ntext = ['slow']\nprovider = 'gogle'"), "provider: expected one that is known"),
        (rule("action = 'slow'\ntext = ['slow']\nabout = 'provider'"), "about: expected \"provider\" only beside"),
        (rule("action = 'slow'\ntext = ['slow']").repeat(2), "name: expected a name of its own"),
        ("[[feedback]]\naction = 'slow'\ntext = ['a']\nexample = '421 a'".to_owned(), "name: expected a name"),
        (
            "[[feedback]]\nname = 'x'\naction = 'slow'\ntext = ['a']\nexample = 'a'".to_owned(),
            "example: expected a reply",
        ),
    ] {
        let error = shaping(&own).unwrap_err();
        assert!(error.contains("feedback \"") && error.contains(expected), "{error}");
    }
}
