use std::time::Duration;

use bytes::BytesMut;
use postrider_base::{Period, SimNet, Timestamp};
use postrider_filter::milter::{Packet, PacketParser};
use postrider_mail::{AccountId, Envelope, MessageId, Recipient};
use postrider_spool::Origin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const HEADER: &str = "Received: from x\r\n\tby y; date\r\nFrom: a@example.com\r\nSubject: hi\r\n\r\n";

fn message() -> NewMessage {
    let now = Timestamp::from_millis(1_700_000_000_000);
    NewMessage {
        id: MessageId::new(1, now, 7),
        account: AccountId::default(),
        accepted_at: now,
        expires_at: now.saturating_add(Duration::from_secs(60)),
        not_before: None,
        tls_optional: false,
        envelope: Envelope {
            sender: Some("a@example.com".parse().unwrap()),
            recipients: vec![Recipient::new("b@example.net".parse().unwrap())],
            ..Envelope::default()
        },
        origin: Origin {
            credential: Some("AKIAEXAMPLE".into()),
            client_ip: Some("192.0.2.7".parse().unwrap()),
            client_name: Some("client.example".into()),
            ..Origin::default()
        },
        content: Content::new(vec![Bytes::from_static(HEADER.as_bytes()), Bytes::from_static(b"body\r\n")]),
    }
}

/// What a filter says to each command, by its letter.
type Script = fn(u8) -> &'static [u8];

const AGREED: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\x31\0\0\0\0";
const CONTINUE: &[u8] = b"\0\0\0\x01c";

/// Says `end` at the end of the message, and before that to go on.
macro_rules! at_the_end {
    ($end:expr) => {
        |letter| match letter {
            b'O' => AGREED,
            b'D' | b'Q' => b"",
            b'E' => $end,
            _ => CONTINUE,
        }
    };
}

/// Filters with these scripts; all packets that they hear are in the channel.
async fn filters(
    scripts: &[Script],
    change: fn(&mut MilterSettings),
) -> (Filters, tokio::sync::mpsc::UnboundedReceiver<Packet>) {
    let net = SimNet::new();
    let (heard, hears) = tokio::sync::mpsc::unbounded_channel();
    let mut settings = Vec::new();
    for (number, script) in scripts.iter().enumerate() {
        let address = format!("127.0.0.1:{}", 9000 + number).parse().unwrap();
        let mut listener = net.listen(address);
        let (script, heard) = (*script, heard.clone());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await;
            let mut input = BytesMut::new();
            loop {
                while let Ok(Some(packet)) = PacketParser.next(&mut input) {
                    let said = script(packet.letter);
                    drop(heard.send(packet));
                    if stream.write_all(said).await.is_err() {
                        return;
                    }
                }
                if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        });
        let mut one = MilterSettings {
            timeout: Period::from_secs(5),
            ..MilterSettings::new(postrider_filter::Socket::Tcp(address))
        };
        change(&mut one);
        settings.push(one);
    }
    (Filters::new(&settings, Arc::new(net), "mx.example.net", &Metrics::new()), hears)
}

async fn judged(script: Script, change: fn(&mut MilterSettings)) -> Result<Option<NewMessage>, Refusal> {
    filters(&[script], change).await.0.judge(message(), None).await
}

fn text(message: &NewMessage) -> String {
    String::from_utf8(message.content.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_filter_sees_what_others_will_and_adds_to_it() {
    let script: Script = at_the_end!(b"\0\0\0\x0fhX-Scanned\0yes\0\0\0\0\x0bi\0\0\0\0X-A\0b\0\0\0\0\x01c");
    let (filters, mut hears) = filters(&[script], |_| {}).await;
    let Ok(Some(taken)) = filters.judge(message(), None).await else { panic!("taken") };
    let own = "Received: from x\r\n\tby y; date\r\n";
    let expected = format!("{own}X-A: b\r\nFrom: a@example.com\r\nSubject: hi\r\nX-Scanned: yes\r\n\r\nbody\r\n");
    assert_eq!(text(&taken), expected);
    assert_eq!(taken.content.chunks()[1].as_ptr(), message().content.chunks()[1].as_ptr(), "the body was copied");
    let mut heard = Vec::new();
    while let Ok(packet) = hears.try_recv() {
        heard.push((char::from(packet.letter), String::from_utf8_lossy(&packet.data).replace('\0', "|")));
    }
    let data = |letter: char| heard.iter().filter(|(it, _)| *it == letter).map(|(_, data)| &**data).collect::<Vec<_>>();
    assert_eq!(data('L'), ["From|a@example.com|", "Subject|hi|"]);
    assert_eq!(data('M'), ["<a@example.com>|"]);
    assert_eq!(data('B'), ["body\r\n"]);
    assert!(data('D').iter().any(|macros| macros.contains("{auth_authen}|AKIAEXAMPLE|")), "{heard:?}");
    assert!(data('D').iter().any(|macros| macros.contains("i|") && macros.contains("{mail_addr}|a@example.com|")));
}

#[tokio::test]
async fn refusals_are_passed_on_and_stop_the_others() {
    let refuses: Script = at_the_end!(b"\0\0\0\x0fy550 5.7.1 Bad\0");
    let (filters, _hears) = filters(&[refuses, |_| panic!("asked")], |_| {}).await;
    let Err(Refusal::Filtered(reply)) = filters.judge(message(), None).await else { panic!("refused") };
    assert_eq!(reply.to_string(), "550 5.7.1 Bad");
    assert_eq!(filters.metrics.filtered.of(FilterVerdict::Refused).get(), 1);
}

#[tokio::test]
async fn each_filter_sees_what_the_one_before_has_made() {
    let adds: Script = at_the_end!(b"\0\0\0\x07hX-A\0b\0\0\0\0\x01c");
    let removes: Script = at_the_end!(b"\0\0\0\x0am\0\0\0\x01X-A\0\0\0\0\0\x01c");
    let (filters, _hears) = filters(&[adds, removes], |_| {}).await;
    let Ok(Some(taken)) = filters.judge(message(), None).await else { panic!("taken") };
    assert_eq!(text(&taken), text(&message()));
}

#[tokio::test]
async fn a_message_is_thrown_away_or_held_as_a_filter_wants() {
    assert!(matches!(judged(at_the_end!(b"\0\0\0\x01d"), |_| {}).await, Ok(None)));
    let Ok(Some(held)) = judged(at_the_end!(b"\0\0\0\x05qodd\0\0\0\0\x01c"), |_| {}).await else { panic!("taken") };
    assert!(held.origin.hold);
}

#[tokio::test]
async fn without_a_verdict_it_is_as_the_settings_say() {
    let garbage: Script = |_| b"220 mail.example.com ESMTP\r\n";
    assert!(matches!(judged(garbage, |_| {}).await, Err(Refusal::FilterDown)));
    let accepted = judged(garbage, |filter| filter.when_down = WhenDown::Accept).await;
    let Ok(Some(taken)) = accepted else { panic!("taken") };
    assert_eq!(taken, message());
}

#[tokio::test(start_paused = true)]
async fn a_silent_filter_is_one_that_gives_no_verdict() {
    assert!(matches!(judged(|_| b"", |_| {}).await, Err(Refusal::FilterDown)));
}

#[tokio::test]
async fn the_author_is_not_changed_by_filters() {
    let spoils: Script = at_the_end!(b"\0\0\0\x11m\0\0\0\x01From\0x@evil\0\0\0\0\x01c");
    assert!(matches!(judged(spoils, |_| {}).await, Err(Refusal::FilterDown)));
    let ignored = judged(spoils, |filter| filter.other_changes = OtherChanges::Ignore).await;
    let Ok(Some(taken)) = ignored else { panic!("taken") };
    assert_eq!(taken, message());
}

#[tokio::test]
async fn a_header_over_its_bounds_is_refused_and_no_filter_is_asked() {
    let asked: Script = |_| panic!("asked");
    let (filters, _hears) = filters(&[asked], |filter| filter.when_down = WhenDown::Accept).await;
    let many = [&b"Received: from x\r\nFrom: a@example.com\r\n"[..], &b"a: b\r\n".repeat(10_000), b"\r\n"].concat();
    let long = [&b"Received: from x\r\na: "[..], &vec![b'x'; 1024 * 1024], b"\r\n\r\n"].concat();
    for (header, refusal) in [(many, Refusal::TooManyFields), (long, Refusal::HeaderTooLong)] {
        let content = Content::new(vec![Bytes::from(header), Bytes::from_static(b"body\r\n")]);
        let judged = filters.judge(NewMessage { content, ..message() }, None).await;
        assert_eq!(judged.unwrap_err().to_string(), refusal.to_string());
    }
}

#[tokio::test]
async fn a_filter_that_adds_too_much_gives_no_verdict() {
    let adds: Script = at_the_end!(b"\0\0\0\x07hX-A\0b\0\0\0\0\x01c");
    let full = [HEADER.trim_end().as_bytes(), b"\r\n", &b"a: b\r\n".repeat(9_997), b"\r\n"].concat();
    for (when_down, is_taken) in [(WhenDown::Tempfail, false), (WhenDown::Accept, true)] {
        let (mut filters, _hears) = filters(&[adds], |_| {}).await;
        filters.filters[0].when_down = when_down;
        let content = Content::new(vec![Bytes::from(full.clone())]);
        let judged = filters.judge(NewMessage { content: content.clone(), ..message() }, None).await;
        match judged {
            Ok(Some(message)) => assert!(is_taken && message.content == content),
            other => assert!(!is_taken && matches!(other, Err(Refusal::FilterDown)), "{other:?}"),
        }
    }
}
