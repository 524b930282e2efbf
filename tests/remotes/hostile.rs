//! Remotes that break every rule, all at once, and one that does not.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider_testkit::{Act, Conduct, Point};
use serde_json::Value;

use crate::Outcome;
use crate::world::{Plan, SENDER_HOST, SHORT, World, address, first_attempt, outcome};

/// Long enough for the first attempt of everybody; then a second one is made,
/// and it is the last.
const LIFE: &str = "12s";
/// Within this time an attempt must be over: more than all timeouts of a
/// session that can follow each other, on a machine with other things to do.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(10);
/// Message sizes: one that fits into any buffer, and one that does not.
const SMALL: usize = 100;
const LARGE: usize = 8_000_000;

const LOST: Expected = Expected::Deferred("421 4.4.2 Connection lost");
const TIMED_OUT: Expected = Expected::Deferred("421 4.4.2 Connection timed out");
const NO_SMTP: Expected = Expected::Deferred("421 4.5.0 The host does not speak SMTP");

/// What becomes of the first attempt, and what the event quotes.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Delivered,
    Deferred(&'static str),
    Bounced(&'static str),
}

struct Case {
    name: String,
    conduct: Conduct,
    expected: Expected,
    padding: usize,
}

fn case(name: impl Into<String>, point: Point, act: Act, expected: Expected) -> Case {
    Case { name: name.into(), conduct: Conduct::but(point, act), expected, padding: SMALL }
}

/// The moments at which a small message meets a host.
const POINTS: [(&str, Point); 6] = [
    ("banner", Point::Banner),
    ("ehlo", Point::Ehlo),
    ("mail", Point::Mail),
    ("rcpt", Point::Rcpt),
    ("data", Point::Data),
    ("end", Point::End),
];

/// Everything that can be wrong at every point.
fn everywhere() -> Vec<Case> {
    let long = || "250 ".to_owned() + &"x".repeat(1 << 20) + "\r\n";
    let lines = || "250-one of very many lines\r\n".repeat(10_000);
    let mut cases = Vec::new();
    for (place, point) in POINTS {
        let mut add = |what: &str, act: Act, expected: Expected| {
            let mut case = case(format!("{what}-{place}"), point, act.clone(), expected);
            if point == Point::Ehlo {
                // Who refuses EHLO is asked with HELO.
                case.conduct = case.conduct.and(Point::Helo, act);
            }
            cases.push(case);
        };
        add("close", Act::Close, LOST);
        // A reset right behind the connection is seen before or after it stands.
        add("reset", Act::Reset, if point == Point::Banner { Expected::Deferred("421 4.4.") } else { LOST });
        add("silence", Act::Silence, TIMED_OUT);
        add("drip", Act::Drip(b"250-slow\r\n", Duration::from_millis(100)), TIMED_OUT);
        add("line", Act::say(long()), NO_SMTP);
        add("octets", Act::Flood(b"x"), TIMED_OUT);
        add("lines", Act::say(lines()), NO_SMTP);
        add("endless", Act::Flood(b"250-KEYWORD of many\r\n"), NO_SMTP);
        add("noise", Act::say(b"\x00\xff\xfe\x80 INJECTED: noise\r\n\r\n"), NO_SMTP);
        add("later", Act::reply("451 4.3.2 not now"), Expected::Deferred("451 4.3.2 not now"));
        // A host that is against us is no word on the recipient.
        let is_about_us = matches!(point, Point::Banner | Point::Ehlo | Point::Mail);
        let never = if is_about_us { Expected::Deferred } else { Expected::Bounced };
        add("never", Act::reply("554 5.7.1 not you"), never("554 5.7.1 not you"));
        add("inject", Act::say(injection("550")), never("INJECTED"));
        add("inject4", Act::say(injection("450")), Expected::Deferred("INJECTED"));
    }
    cases
}

/// A reply in whose text everything is that could be mistaken for the end of a
/// line or of a value.
fn injection(code: &str) -> Vec<u8> {
    let mut reply = Vec::new();
    for text in [
        &b"4.0.0 carriage return\rINJECTED: cr"[..],
        b"INJECTED: \x00 nul \x0b \x0c \x1b[2J\x1b[31mred \x7f \x08",
        b"\xff\xfe\xc3\x28 8bit \xe2\x80\xa8INJECTED: line separator \xc2\x85INJECTED: next line \xe2\x80\xae",
        b"\"}],\"INJECTED\":[{\"quote\\\" <INJECTED@x> %0d%0aINJECTED: percent ${jndi:x} \t tab",
    ] {
        reply.extend_from_slice(code.as_bytes());
        reply.push(b'-');
        reply.extend_from_slice(text);
        reply.extend_from_slice(b"\r\n");
    }
    reply.extend_from_slice(code.as_bytes());
    reply.extend_from_slice(b" INJECTED: last\r\n");
    reply
}

/// What is wrong at one point only.
fn special() -> Vec<Case> {
    let say = |text: &str| Act::say(text);
    let all = "220 mx\r\n250 mx\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n221 bye\r\n";
    let mut cases = vec![
        case("replies-first", Point::Banner, say(all), NO_SMTP),
        case(
            "replies-first-at-ehlo",
            Point::Ehlo,
            say("250 mx\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"),
            NO_SMTP,
        ),
        case(
            "mixed-codes-at-ehlo",
            Point::Ehlo,
            say("250-mx\r\n550-PIPELINING\r\n250 8BITMIME\r\n"),
            Expected::Delivered,
        ),
        case("mixed-codes-yes", Point::Rcpt, say("550-5.1.1 no\r\n250 2.1.5 but yes\r\n"), Expected::Delivered),
        case(
            "mixed-codes-no",
            Point::Rcpt,
            say("250-2.1.5 yes\r\n550 5.1.1 unknown\r\n"),
            Expected::Bounced("5.1.1 unknown"),
        ),
        case(
            "strange-keywords",
            Point::Ehlo,
            say(
                "250-\r\n250-SIZE 99999999999999999999999\r\n250-AUTH\r\n250-SIZE -1\r\n250-\x01\x02\r\n250-LIMITS RCPTMAX=x MAILMAX=\r\n250 DSN DSN DSN\r\n",
            ),
            Expected::Delivered,
        ),
        case("code-999", Point::Mail, say("999 what\r\n"), NO_SMTP),
        case("code-000", Point::Rcpt, say("000 what\r\n"), NO_SMTP),
        case("code-25", Point::Mail, say("25\r\n"), NO_SMTP),
        case("code-2500", Point::Mail, say("2500 ok\r\n"), NO_SMTP),
        case("no-reply-at-all", Point::Banner, say("HTTP/1.1 400 Bad Request\r\nServer: INJECTED\r\n\r\n"), NO_SMTP),
        case("354-to-the-dot", Point::End, say("354 go on\r\n"), NO_SMTP),
        case("250-to-data", Point::Data, say("250 fine\r\n"), NO_SMTP),
        case(
            "farewell-at-rcpt",
            Point::Rcpt,
            Act::Last(b"421 4.3.2 going down\r\n"[..].into()),
            Expected::Deferred("421 4.3.2 going down"),
        ),
        case(
            "farewell-at-the-dot",
            Point::End,
            Act::Last(b"421 4.3.2 going down\r\n"[..].into()),
            Expected::Deferred("421 4.3.2 going down"),
        ),
        case("rude-at-quit", Point::Quit, Act::Reset, Expected::Delivered),
    ];
    cases.extend(in_the_content());
    cases
}

/// What is wrong while the content is written.
fn in_the_content() -> Vec<Case> {
    let cases = [
        ("stalls-in-the-content", Act::Stall, TIMED_OUT),
        ("resets-in-the-content", Act::Reset, LOST),
        (
            "refuses-in-the-content",
            Act::Last(b"552 5.3.4 too large\r\n"[..].into()),
            Expected::Bounced("552 5.3.4 too large"),
        ),
    ];
    let large = |(name, act, expected)| Case { padding: LARGE, ..case(name, Point::Content, act, expected) };
    cases.map(large).into()
}

#[tokio::test]
async fn remotes_that_break_every_rule_break_nothing_else() -> Outcome {
    let cases: Vec<Case> = everywhere().into_iter().chain(special()).collect();
    let mut sites: Vec<_> = cases.iter().map(|case| (case.name.clone(), case.conduct.clone())).collect();
    sites.push(("healthy".to_owned(), Conduct::default()));
    let configuration = format!("[delivery]\nretry = [\"1h\"]\n{SHORT}\n[submission]\nexpiry = \"{LIFE}\"\n");
    let Some(mut world) = World::of(Plan::of(sites, configuration))? else { return Ok(()) };
    let pid = world.relay.pid();

    let recipients: Vec<String> = cases.iter().map(|case| format!("you@{}.test", case.name)).collect();
    for (case, recipient) in cases.iter().zip(&recipients) {
        world.send(std::slice::from_ref(recipient), case.padding).await?;
    }
    assert_healthy(&mut world, address(cases.len())).await?;

    let events = world.until_tried(&recipients).await?;
    let wrong: Vec<String> =
        cases.iter().zip(&recipients).filter_map(|(case, recipient)| wrong(case, &events[recipient])).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let failed: Vec<_> =
        cases.iter().zip(&recipients).filter(|(case, _)| !matches!(case.expected, Expected::Delivered)).collect();
    let ended = |events: &BTreeMap<String, Vec<Value>>| {
        failed.iter().all(|(_, to)| events[*to].iter().any(|event| event["eventType"] == "Bounce"))
    };
    let events = world.until("every failure is final", ended).await?;
    for (case, recipient) in &failed {
        assert_ended_once(&case.name, &events[*recipient]);
    }
    world.provider.until(SENDER_HOST, |seen| seen.taken >= failed.len() as u64).await;
    assert_notifications(&world, failed.len());
    assert_log(&world.relay.log()?);
    assert_eq!(world.relay.pid(), pid);
    assert!(world.relay.stop()?.success(), "{}", world.relay.log()?);
    Ok(())
}

/// A site that does nothing wrong gets its mail at once, all the time.
async fn assert_healthy(world: &mut World, host: std::net::Ipv4Addr) -> Outcome {
    const MESSAGES: usize = 60;
    let mut client = world.client().await?;
    let mut accepted = Vec::new();
    for number in 0..MESSAGES {
        let content = crate::world::content(&format!("healthy {number}"), SMALL);
        client.send("", &["you@healthy.test"], &content).await?.expect(250)?;
        accepted.push(world.clock.instant());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.provider.until(host, |seen| seen.taken >= MESSAGES as u64).await;
    let mut delays: Vec<Duration> = Vec::new();
    for message in &world.provider.seen(host).messages {
        let text = String::from_utf8_lossy(&message.received.content).into_owned();
        let number = text.lines().find_map(|line| line.strip_prefix("Subject: healthy ")).ok_or("no subject")?;
        delays.push(message.at.saturating_duration_since(accepted[number.parse::<usize>()?]));
    }
    delays.sort();
    // Far below the shortest timeout: nothing waited for a site that hangs.
    assert!(delays[MESSAGES / 2] < Duration::from_millis(300), "{delays:?}");
    assert!(delays[MESSAGES - 1] < Duration::from_millis(1_500), "{delays:?}");
    Ok(())
}

/// What is wrong with the first attempt, if anything.
fn wrong(case: &Case, events: &[Value]) -> Option<String> {
    let (kind, reply) = first_attempt(events)?;
    let (right, quoted) = match case.expected {
        Expected::Delivered => ("Delivery", "250"),
        Expected::Deferred(quoted) => ("DeliveryDelay", quoted),
        Expected::Bounced(quoted) => ("Bounce", quoted),
    };
    let took = events.iter().find(|event| event["eventType"] != "Send").and_then(age)?;
    if kind == right && reply.contains(quoted) && took < LONGEST_ATTEMPT {
        return None;
    }
    Some(format!("{}: {kind} after {took:?} with {reply:?} and not {:?}", case.name, case.expected))
}

/// From the message's acceptance to the event.
fn age(event: &Value) -> Option<Duration> {
    let time = |text: &Value| postrider_base::Timestamp::parse_rfc3339(text.as_str()?);
    let at = ["delivery", "deliveryDelay", "bounce"].iter().find_map(|part| time(&event[*part]["timestamp"]))?;
    Some(at.saturating_since(time(&event["mail"]["timestamp"])?))
}

/// One bounce, and nothing after it.
fn assert_ended_once(name: &str, events: &[Value]) {
    let bounces = events.iter().filter(|event| event["eventType"] == "Bounce").count();
    assert_eq!(bounces, 1, "{name}: {events:?}");
    let last = events.last().and_then(outcome);
    assert!(matches!(last, Some(("Bounce", _))), "{name}: {last:?}");
    if let Some(("DeliveryDelay", _)) = first_attempt(events) {
        let (_, reply) = last.unwrap_or_default();
        assert!(
            reply.starts_with("smtp; 550 4.4.7 Message expired: unable to deliver in 0 minutes.<"),
            "{name}: {reply}"
        );
    }
}

/// One for each failure, to its sender, with nothing in it that a remote made
/// look like more than a text.
fn assert_notifications(world: &World, failures: usize) {
    let seen = world.provider.seen(SENDER_HOST);
    assert_eq!(seen.messages.len(), failures);
    let mut about_injections = 0;
    for message in &seen.messages {
        assert_eq!(message.received.sender, "");
        let text = String::from_utf8(message.received.unstuffed()).expect("a notification is UTF-8");
        assert!(!text.replace("\r\n", "").replace('\t', "").contains(char::is_control), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("INJECTED")), "{text}");
        // What programs read has nothing but ASCII (RFC 3464 section 2.1).
        let status = text.split("message/delivery-status").nth(1).and_then(|rest| rest.split("\r\n--").next());
        assert!(status.is_some_and(str::is_ascii), "{text}");
        about_injections += usize::from(text.contains("INJECTED"));
    }
    assert!(about_injections >= 2 * POINTS.len(), "{about_injections} notifications quote the injections");
}

/// No line of the log begins with what a remote said, and none moves the cursor.
fn assert_log(log: &str) {
    assert!(!log.contains("panicked"), "{log}");
    for line in log.lines() {
        assert!(!line.trim_start().starts_with("INJECTED"), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
