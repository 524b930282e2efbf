//! What is known afterwards of what was said.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Commands with their replies and times.
fn said(talk: &Talk) -> Vec<(String, String, u32)> {
    let (exchanges, omitted) = talk.conversation.exchanges();
    assert_eq!(omitted, 0);
    exchanges.into_iter().map(|it| (it.command, it.reply, it.ms)).collect()
}

fn line(command: &str, reply: &str, ms: u32) -> (String, String, u32) {
    (command.to_owned(), reply.to_owned(), ms)
}

#[test]
fn each_command_has_its_reply_and_its_time() {
    let mut talk = Talk::ready("250-PIPELINING\r\n250-SIZE 1000\r\n");
    let at = |talk: &mut Talk, ms| talk.conversation.tick(Duration::from_millis(ms));
    assert_eq!(said(&talk)[1], line("EHLO relay.example", "250 mx PIPELINING SIZE 1000 Ok", 0));
    talk.conversation.forget();
    // The connection was idle for long: that is nobody's time.
    at(&mut talk, 60_000);
    talk.begins(transaction(&["a@b.example", "c@b.example"]));
    at(&mut talk, 60_010);
    talk.hears("250 Ok\r\n250 Ok\r\n");
    at(&mut talk, 60_030);
    talk.hears("550-5.1.1 no\r\n550 5.1.1 such user\r\n354 go\r\n");
    at(&mut talk, 60_100);
    talk.hears("250 2.0.0 Queued\r\n");
    let expected = [
        line("MAIL FROM:<s@relay.example> SIZE=14", "250 Ok", 10),
        line("RCPT TO:<a@b.example>", "250 Ok", 0),
        line("RCPT TO:<c@b.example>", "550 5.1.1 no such user", 20),
        line("DATA", "354 go", 0),
        line("(14 octets of content)", "250 2.0.0 Queued", 70),
    ];
    assert_eq!(said(&talk), expected);
}

#[test]
fn a_chunk_on_its_way_keeps_its_size() {
    let mut talk = Talk::ready_with(
        ClientConfig { chunking: true, ..config(TlsUse::Never) },
        "250-SIZE 1000\r\n250-PIPELINING\r\n250-CHUNKING\r\n",
    );
    for _ in 0..2 {
        talk.conversation.forget();
        talk.begins(transaction(&["a@b.example"]));
        talk.hears("250 Ok\r\n250 Ok\r\n");
        talk.hears("250 Ok\r\n");
        talk.hears("");
        assert_eq!(said(&talk)[0].0, "MAIL FROM:<s@relay.example> SIZE=14");
    }
}

#[test]
fn silence_is_written_down_with_what_it_answered() {
    let mut talk = Talk::ready("");
    talk.begins(transaction(&["a@b.example"]));
    talk.conversation.tick(Duration::from_secs(300));
    talk.conversation.lost();
    assert_eq!(*said(&talk).last().unwrap(), line("MAIL FROM:<s@relay.example>", "", 300_000));
    let mut talk = Talk::ready("");
    talk.begins(transaction(&["a@b.example"]));
    talk.hears("this is no reply\r\n");
    assert_eq!(said(&talk).last().unwrap().0, "MAIL FROM:<s@relay.example>");
    let mut talk = Talk::ready("");
    talk.hears("421 4.4.2 idle for too long\r\n");
    assert_eq!(said(&talk).last().unwrap().1, "421 4.4.2 idle for too long");
}

#[test]
fn secrets_are_never_written_down() {
    let credentials = Credentials { user: "jane".into(), password: "hunter2".into() };
    for (offered, replies) in
        [("PLAIN", &["235 yes\r\n"][..]), ("LOGIN", &["334 VXNlcg==\r\n", "334 UGFzcw==\r\n", "535 5.7.8 no\r\n"])]
    {
        let mut talk = Talk::new(ClientConfig { credentials: Some(credentials.clone()), ..config(TlsUse::Never) });
        talk.hears("220 mx\r\n");
        let (mut sent, _) = talk.hears(&format!("250-mx\r\n250 AUTH {offered}\r\n"));
        for reply in replies {
            sent.push_str(&talk.hears(reply).0);
        }
        let written = format!("{:?}", said(&talk));
        assert!(written.contains(&format!("AUTH {offered}")), "{written}");
        let secrets: Vec<_> = sent.split_whitespace().filter(|word| !["AUTH", offered].contains(word)).collect();
        assert!(!secrets.is_empty());
        for secret in secrets.into_iter().chain(["hunter2", "jane"]) {
            assert!(!written.contains(secret), "{secret} in {written}");
        }
    }
}

#[test]
fn of_many_recipients_the_refused_ones_are_kept() {
    let addresses: Vec<String> = (0..100).map(|n| format!("recipient-number-{n}@b.example")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut talk = Talk::ready(PIPELINING);
    talk.begins(transaction(&addresses));
    talk.hears("250 Ok\r\n");
    for number in 0..100 {
        talk.hears(if number == 80 { "550 no such user\r\n" } else { "250 Ok\r\n" });
    }
    talk.hears("354 go\r\n");
    talk.hears("250 Queued\r\n");
    let (exchanges, omitted) = talk.conversation.exchanges();
    assert_eq!(exchanges.len() + usize::from(omitted), 2 + 1 + 100 + 2);
    assert!(exchanges.iter().any(|it| it.command.contains("number-80@") && it.reply.starts_with("550")));
    assert_eq!(exchanges.last().unwrap().reply, "250 Queued");
}

proptest! {
    #[test]
    fn a_host_that_talks_without_end_is_cut_short(words in "[ -~\u{80}-\u{2fff}]{0,600}", count in 1usize..60) {
        let mut talk = Talk::ready("");
        for _ in 0..count {
            if talk.conversation.is_ready() {
                talk.begins(transaction(&["a@b.example"]));
                talk.hears(&format!("450 {words}\r\n"));
                talk.hears("");
            }
        }
        let (exchanges, _) = talk.conversation.exchanges();
        let bytes: usize = exchanges.iter().map(|it| it.command.len() + it.reply.len()).sum();
        prop_assert!(bytes < 5 * 1024 && exchanges.len() <= 32);
        prop_assert!(exchanges.iter().all(|it| !it.reply.contains(char::REPLACEMENT_CHARACTER)));
    }
}
