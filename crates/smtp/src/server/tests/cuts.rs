//! However the input is cut, the same happens.

use proptest::prelude::*;

use super::*;

/// Everything that can be seen of a session.
#[derive(Debug, PartialEq)]
struct Observed {
    output: Vec<u8>,
    /// Envelope and content.
    messages: Vec<(String, Vec<u8>)>,
    transcript: Vec<Spoken>,
    closed: bool,
}

/// What comes of a dialogue that is cut like this.
fn observe(wire: &[u8], cuts: &[usize]) -> Observed {
    let mut profile = open();
    profile.auth = true;
    profile.extensions.binary_mime = true;
    profile.limits.max_message_bytes = 60;
    profile.limits.max_line_bytes = 64;
    profile.limits.max_recipients = 2;
    let mut driver = Driver::new(profile);
    driver.session.transcribe(true);
    let mut input = BytesMut::new();
    let mut rest = wire;
    let mut cuts = cuts.iter().copied().chain(std::iter::repeat(usize::MAX));
    while !rest.is_empty() {
        let size = cuts.next().unwrap_or(1).clamp(1, rest.len());
        input.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        driver.feed(&mut input);
    }
    let messages = driver.messages.iter().map(|message| (format!("{:?}", message.envelope), message.content.concat()));
    let messages = messages.collect();
    Observed { output: driver.output, messages, transcript: driver.session.take_transcript(), closed: driver.closed }
}

fn dialogue() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "EHLO c\r\n",
        "MAIL FROM:<a@b.example>\r\n",
        "RCPT TO:<c@d.example>\r\n",
        "MAIL FROM:<> BODY=BINARYMIME\r\n",
        "DATA\r\n",
        "BDAT 3\r\n",
        "BDAT 0\r\n",
        "BDAT 4 LAST\r\n",
        "bdat 0 last\r\n",
        "BDAT 100\r\n",
        "BDAT x\r\n",
        "S: x\r\n\r\n",
        "body\n",
        "..\r\n",
        "\r\n.\r\n",
        ".\r\n",
        "\n.\n",
        "\r",
        ".",
        "RSET\r\n",
        "AUTH LOGIN\r\n",
        "dXNlcg==\r\n",
        "*\r\n",
        "c2VjcmV0\r\n",
        "NOOP\n",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "\0",
        "QUIT\r\n",
    ];
    let piece = proptest::sample::select(pieces.to_vec());
    let begin = proptest::sample::select(vec!["", "DATA\r\n", "BDAT 5\r\n"]);
    (begin, proptest::collection::vec(piece, 0..30)).prop_map(|(begin, pieces)| {
        format!("EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n{begin}{}", pieces.concat()).into_bytes()
    })
}

proptest! {
    #[test]
    fn every_cut_gives_the_same_events(wire in dialogue(), cuts in proptest::collection::vec(1usize..9, 0..80)) {
        prop_assert_eq!(observe(&wire, &cuts), observe(&wire, &[]));
    }

    #[test]
    fn random_octets_never_panic(wire: Vec<u8>, cuts in proptest::collection::vec(1usize..9, 0..80)) {
        prop_assert_eq!(observe(&wire, &cuts), observe(&wire, &[]));
    }

    /// Whatever a body holds, it stays in one message when it was stuffed.
    #[test]
    fn never_two_messages_from_one(lines in proptest::collection::vec("[.a\r\n]{0,4}", 0..8), cuts in proptest::collection::vec(1usize..9, 0..80)) {
        let body = bytes::Bytes::from(lines.join("\r\n").replace("\r\n.\r\n", "\r\n\r\n"));
        let mut wire = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n\r\n".to_vec();
        wire.extend(crate::wire::stuff(&[body]).concat());
        prop_assert!(observe(&wire, &cuts).messages.len() <= 1);
    }

    /// Whatever chunks hold, they are one message, and what follows are commands.
    #[test]
    fn chunks_are_one_message(
        chunks in proptest::collection::vec(content(), 1..5), binary: bool, cuts in proptest::collection::vec(1usize..9, 0..80),
    ) {
        let body = if binary { " BODY=BINARYMIME" } else { "" };
        let mut wire = format!("EHLO c\r\nMAIL FROM:<a@b.example>{body}\r\nRCPT TO:<c@d.example>\r\n").into_bytes();
        for (index, chunk) in chunks.iter().enumerate() {
            let last = if index + 1 == chunks.len() { " LAST" } else { "" };
            wire.extend(format!("BDAT {}{last}\r\n", chunk.len()).into_bytes());
            wire.extend_from_slice(chunk);
        }
        wire.extend_from_slice(b"QUIT\r\n");
        let Observed { output, messages, closed, .. } = observe(&wire, &cuts);
        prop_assert!(closed && output.ends_with(b"221 Bye\r\n"));
        prop_assert!(messages.len() <= 1);
        let content = chunks.concat();
        if binary && content.len() <= 60 {
            prop_assert_eq!(&messages[0].1, &content);
        }
    }
}

/// What could be taken for the end of something.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let traps = [&b"\r\n.\r\n"[..], b"\n.\n", b"\r", b"\nQUIT\r\n", b"BDAT 0 LAST\r\n", b"\0", b"x", b"\xff"];
    proptest::collection::vec(proptest::sample::select(traps.to_vec()), 0..4).prop_map(|traps| traps.concat())
}
