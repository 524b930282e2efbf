use super::*;
use proptest::prelude::*;

const DATE: &str = "Sat, 05 Aug 2017 00:41:02 +0000";
const ID: &str = "0100@us-east-1.example.com";

fn stamp(preserve: Preserve) -> Stamp<'static> {
    Stamp { date: DATE, message_id: ID, preserve, max_received: 50, rules: HeaderRules::Rfc }
}

/// The whole message after the header work, as text.
fn rewritten(message: &str, preserve: Preserve) -> Result<(String, Understood), Refusal> {
    let mut out = Vec::new();
    let understood = rewrite(message.as_bytes(), &stamp(preserve), &mut out)?;
    out.extend_from_slice(&message.as_bytes()[understood.body_offset..]);
    Ok((String::from_utf8(out).unwrap(), understood))
}

fn auto(message: &str) -> String {
    rewritten(message, Preserve::Auto).unwrap().0
}

fn refusal(message: &str) -> Refusal {
    rewritten(message, Preserve::Auto).unwrap_err()
}

/// `{DATE}` and `{ID}` stand for our two fields.
fn expected(text: &str) -> String {
    text.replace("{DATE}", &format!("Date: {DATE}\r\n")).replace("{ID}", &format!("Message-ID: <{ID}>\r\n"))
}

#[test]
fn fields_are_replaced_added_and_taken_off() {
    for (name, message, result) in [
        (
            "replaced in their places, the rest byte for byte",
            "X-A:1\r\nDate: yesterday\r\nsubject:  a\r\n\tb \r\nMESSAGE-ID:\r\n <x@y>\r\nFrom:a@b\r\n\r\nbody\r\n",
            "X-A:1\r\n{DATE}subject:  a\r\n\tb \r\n{ID}From:a@b\r\n\r\nbody\r\n",
        ),
        ("added when missing", "From: a@b\r\n\r\nbody", "From: a@b\r\n{DATE}{ID}\r\nbody"),
        (
            "taken off, folded or not, in any case",
            "bcc: a@b,\r\n c@d\r\nReturn-Path: <a@b>\r\nX-Ses-Source-Arn: arn\r\nBcc:\r\nx-ses-: 1\r\nTo: a@b\r\n\r\n",
            "To: a@b\r\n{DATE}{ID}\r\n",
        ),
        (
            "others stay",
            "X-SES: 1\r\nX-SESSION: 1\r\nX-Mailer: m\r\nResent-Bcc: a@b\r\n\r\n",
            "X-SES: 1\r\nX-SESSION: 1\r\nX-Mailer: m\r\nResent-Bcc: a@b\r\n{DATE}{ID}\r\n",
        ),
        (
            "a missing blank line is put there",
            "Subject: s\r\nHello,\r\nDate: no\r\n",
            "Subject: s\r\n{DATE}{ID}\r\nHello,\r\nDate: no\r\n",
        ),
        ("no header at all", "\r\nbody\r\n", "{DATE}{ID}\r\nbody\r\n"),
        ("nothing at all", "", "{DATE}{ID}\r\n"),
        ("a header alone", "Subject: s", "Subject: s\r\n{DATE}{ID}\r\n"),
        ("only what is taken off", "Bcc: a@b\r\n\r\n", "{DATE}{ID}\r\n"),
        ("blank before the colon", "Bcc : a@b\r\nDate\t: x\r\n\r\n", "{DATE}{ID}\r\n"),
    ] {
        assert_eq!(auto(message), expected(result), "{name}");
    }
}

#[test]
fn a_clients_signature_keeps_what_it_covers() {
    let signed = |names: &str| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256;\r\n\th = {names}; bh=h=; b=Ab\r\nDate: mine\r\nMessage-ID: <mine>\r\n\r\n"
        )
    };
    let kept = |message: &str, preserve| {
        let out = rewritten(message, preserve).unwrap().0;
        (out.contains("Date: mine\r\n"), out.contains("Message-ID: <mine>\r\n"))
    };
    let both = signed("From:Date:\r\n\t Message-Id");
    assert_eq!(kept(&both, Preserve::Auto), (true, true));
    assert_eq!(kept(&both, Preserve::Never), (false, false));
    assert_eq!(kept(&signed("from:date"), Preserve::Auto), (true, false));
    assert_eq!(kept(&signed("from:message-id"), Preserve::Auto), (false, true));
    assert_eq!(kept(&signed("from:x-date"), Preserve::Auto), (false, false));
    assert_eq!(kept(&signed("from"), Preserve::Always), (true, true));
    // The order of the fields does not matter, and one of two signatures is enough.
    let late = "Date: mine\r\nDKIM-Signature: h=from\r\nDKIM-Signature: h=date\r\n\r\n";
    assert_eq!(kept(late, Preserve::Auto), (true, false));
}

#[test]
fn signed_absence_is_not_filled() {
    let message = "DKIM-Signature: h=date:from\r\nFrom: a@b\r\n\r\n";
    assert_eq!(auto(message), expected("DKIM-Signature: h=date:from\r\nFrom: a@b\r\n{ID}\r\n"));
    let always = rewritten(message, Preserve::Always).unwrap().0;
    assert_eq!(always, expected("DKIM-Signature: h=date:from\r\nFrom: a@b\r\n{DATE}{ID}\r\n"));
}

#[test]
fn repeated_fields_are_refused_by_name() {
    for name in ["Subject", "From", "Date", "Message-ID", "Content-Type", "MIME-Version", "References"] {
        let message = format!("{name}: a@b.c\r\nX: b\r\n{}: c\r\n\r\n", name.to_uppercase());
        assert_eq!(refusal(&message), Refusal::DuplicateHeader(name));
    }
    for name in ["To", "Cc", "X-Foo", "DKIM-Signature", "Comments", "Resent-From", "Bcc"] {
        let message = format!("{name}: a\r\n{name}: b\r\n\r\n{name}: c\r\n");
        assert!(rewritten(&message, Preserve::Auto).is_ok(), "{name}");
    }
    // What comes after the header does not count.
    assert!(rewritten("Subject: a\r\n\r\nSubject: b\r\n", Preserve::Auto).is_ok());
}

#[test]
fn loops_end() {
    let message = |hops| "Received: by x; y\r\n".repeat(hops) + "\r\n";
    assert!(rewritten(&message(50), Preserve::Auto).is_ok());
    assert_eq!(refusal(&message(51)), Refusal::TooManyHops);
}

#[test]
fn bounds_of_the_header() {
    let long = format!("X: {}\r\n\r\n", "x".repeat(1 << 20));
    assert_eq!(refusal(&long), Refusal::HeaderTooLong);
    assert_eq!(refusal(&"a:\r\n".repeat(10_001)), Refusal::TooManyFields);
}

#[test]
fn commands_are_understood_and_the_first_wins() {
    let (_, understood) = rewritten(
        "X-SES-CONFIGURATION-SET: news\r\nX-Ses-Message-Tags: campaign=spring, a_b = c-d,\r\n bad=\u{e4}, =x, y, z=\r\n\
         x-ses-configuration-set: other\r\nX-SES-MESSAGE-TAGS: late=1\r\n\r\n",
        Preserve::Auto,
    )
    .unwrap();
    assert_eq!(understood.configuration_set.as_deref(), Some("news"));
    let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(understood.tags, [tag("campaign", "spring"), tag("a_b", "c-d")]);
    let set = |value: &str| {
        let message = format!("X-SES-CONFIGURATION-SET: {value}\r\nX-SES-CONFIGURATION-SET: ok\r\n\r\n");
        rewritten(&message, Preserve::Auto).unwrap().1.configuration_set
    };
    assert_eq!(set(""), None);
    for no_name in ["two words", "\u{e4}", &"x".repeat(65)] {
        assert_eq!(set(no_name).as_deref(), Some(no_name), "a set that does not exist");
    }
    assert_eq!(set(&"x".repeat(70)), Some("x".repeat(65)), "still none that can exist");
}

#[test]
fn all_senders_are_understood() {
    let (written, understood) = rewritten(
        "From: =?utf-8?q?J=C3=BC?= <ann@example.com>,\r\n bob@example.com\r\nSender: <eve@example.com>\r\n\
         Return-Path: <back@example.org>\r\nReturn-Path: <>\r\nReply-To: a@b, c@d\r\nX-SES-SOURCE-ARN: arn:1\r\n\
         x-ses-from-arn: arn:2\r\nX-SES-FROM-ARN: arn:3\r\nX-SES-RETURN-PATH-ARN: arn:4\r\n\r\n",
        Preserve::Auto,
    )
    .unwrap();
    let address = |text: &str| text.parse::<EmailAddress>().unwrap();
    let senders = Senders {
        from: vec![
            Mailbox { address: address("ann@example.com"), name: Some("J\u{fc}".into()) },
            Mailbox { address: address("bob@example.com"), name: None },
        ],
        sender: Some(address("eve@example.com")),
        return_path: Some(address("back@example.org")),
        source_arn: Some("arn:1".into()),
        from_arn: Some("arn:2".into()),
        return_path_arn: Some("arn:4".into()),
    };
    assert_eq!(understood.senders, senders);
    assert!(!written.to_ascii_lowercase().contains("arn") && !written.contains("Return-Path"));
}

#[test]
fn bad_addresses_are_refused_with_the_place() {
    for name in ["From", "Sender", "Return-Path", "Reply-To"] {
        let reply = refusal(&format!("{name}: <a b@c>\r\n\r\n")).reply().to_string();
        let text = "Transaction failed: Address contains illegal characters in user name: '<a b@c>'.";
        assert_eq!(reply, format!("554 5.1.7 {text}"), "{name}");
    }
    for passes in ["To: <a b@c>", "Sender:", "Return-Path: <>", "Reply-To: Team:;", "From: Nobody:;", "X: <a b@c>"] {
        assert!(rewritten(&format!("{passes}\r\n\r\n"), Preserve::Auto).is_ok(), "{passes}");
    }
}

#[test]
fn by_the_rules_of_ses_59_fields_are_there_once() {
    let by_ses = |message: &str| {
        let stamp = Stamp { rules: HeaderRules::Ses, ..stamp(Preserve::Auto) };
        rewrite(message.as_bytes(), &stamp, &mut Vec::new()).map(drop)
    };
    let twice = |name: &str| format!("From: a@b\r\n{name}: <a@b>\r\n{}: <a@b>\r\n\r\n", name.to_uppercase());
    for name in ["Subject", "DKIM-Signature", "Return-Path", "Comments", "Delivered-To", "VBR-Info", "acceptLanguage"] {
        assert_eq!(by_ses(&twice(name)), Err(Refusal::DuplicateHeader(name)));
    }
    for name in ["To", "Cc", "Bcc", "Received", "Resent-From", "X-Mailer", "List-Unsubscribe-Post"] {
        assert_eq!(by_ses(&twice(name)), Ok(()), "{name}");
    }
    assert_eq!(by_ses("Accept-Language: a\r\nacceptLanguage: b\r\nFrom: a@b\r\n\r\n"), Ok(()), "two names");
    for without in ["To: a@b\r\n\r\n", "From: Nobody:;\r\n\r\n", ""] {
        assert_eq!(by_ses(without), Err(Refusal::MissingHeader("From")), "{without}");
    }
}

#[test]
fn the_clients_header_is_captured_up_to_a_whole_field() {
    let (_, understood) = rewritten("Date: mine\r\nX-SES-A: 1\r\nSubject: a\r\n b\r\n\r\n", Preserve::Auto).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let fields = [pair("Date", "mine"), pair("X-SES-A", "1"), pair("Subject", "a b")];
    assert_eq!(understood.original, OriginalHeaders { fields: fields.to_vec(), truncated: false });

    let message = format!("A: {}\r\nB: {}\r\nC: c\r\n\r\n", "x".repeat(9_000), "y".repeat(2_000));
    let (_, understood) = rewritten(&message, Preserve::Auto).unwrap();
    assert!(understood.original.truncated);
    assert_eq!(understood.original.fields.len(), 1);
}

#[test]
fn of_a_long_header_the_author_is_kept() {
    let captured = |message: &str| {
        let (_, understood) = rewritten(message, Preserve::Auto).unwrap();
        assert!(understood.original.truncated && !understood.senders.from.is_empty());
        let fields = understood.original.fields;
        let room: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        assert!(room <= MAX_CAPTURED);
        fields.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let long = |name: &str, len: usize| format!("{name}: {}\r\n", "x".repeat(len));
    let (a, b, from) = (long("A", 9_000), long("B", 2_000), "From: ann@example.com\r\n");
    assert_eq!(captured(&format!("{a}{b}{from}C: c\r\n\r\n")), ["A", "From"]);
    assert_eq!(captured(&format!("C: c\r\n{}{from}\r\n", long("A", 10_220))), ["C", "From"]);
    assert_eq!(captured(&format!("C: c\r\nFrom: ann@example.com ({})\r\n\r\n", "x".repeat(10_240))), ["C"]);
}

proptest! {
    #[test]
    fn whatever_comes_the_body_stays_and_commands_go(
        header in "((Bcc|X-SES-A|Subject-[a-z]|To|DKIM-Signature|Received)[ \t]?:[ -~]{0,12}(\r\n[ \t][ -~]{0,9}){0,2}\r\n){0,8}",
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let message = [header.as_bytes(), b"\r\n", &body].concat();
        let mut out = Vec::new();
        let understood = rewrite(&message, &stamp(Preserve::Auto), &mut out).unwrap();
        prop_assert_eq!(&message[understood.body_offset..], &body[..]);
        let block = HeaderBlock::parse(&out).unwrap();
        prop_assert_eq!(block.body_offset(), out.len());
        for field in block.fields() {
            let name = field.name_str().to_ascii_lowercase();
            prop_assert!(name != "bcc" && !name.starts_with("x-ses-"), "{}", name);
        }
    }

    #[test]
    fn any_bytes_at_all_lose_nothing_of_the_body(message: Vec<u8>) {
        let mut out = Vec::new();
        if let Ok(understood) = rewrite(&message, &stamp(Preserve::Auto), &mut out) {
            let block = HeaderBlock::parse(&message).unwrap();
            prop_assert_eq!(understood.body_offset, block.body_offset());
            prop_assert!(out.ends_with(b"\r\n"));
        }
    }
}
