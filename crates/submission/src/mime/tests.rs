//! Whole messages.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn look(message: &str) -> Result<(), MimeFault> {
    work(message.as_bytes(), &BlockedAttachments::default()).0
}

fn illegal(name: &str) -> Result<(), MimeFault> {
    Err(MimeFault::IllegalFilename(name.to_owned()))
}

/// A multipart of these parts, each its header and body.
fn mixed(parts: &[&str]) -> String {
    let mut message = "From: a@b.c\r\nContent-Type: multipart/mixed; boundary=\"=_1\"\r\n\r\nold reader\r\n".to_owned();
    for part in parts {
        write!(message, "--=_1\r\n{part}\r\n").unwrap();
    }
    message + "--=_1--\r\n"
}

const TEXT: &str = "Content-Type: text/plain\r\n\r\nhello";
const EXE: &str = "Content-Type: application/octet-stream; name=a.exe\r\n\r\nMZ";

#[test]
fn a_message_without_parts_is_decided_from_its_header() {
    assert_eq!(look("From: a@b.c\r\n\r\nContent-Type: x/y; name=a.exe\r\n"), Ok(()));
    let named = |disposition: &str| look(&format!("Content-Disposition: {disposition}\r\n\r\nMZ"));
    assert_eq!(named("attachment; filename=a.pdf"), Ok(()));
    assert_eq!(named("attachment;\r\n filename=\"a.EXE\""), illegal("a.EXE"));
    let mail = format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{}", "--x\r\n".repeat(1_000));
    let (result, work) = work(mail.as_bytes(), &BlockedAttachments::default());
    assert_eq!((result, work), (Ok(()), 43), "the body is not looked at");
}

#[test]
fn names_are_found_in_parts_however_deep() {
    assert_eq!(look(&mixed(&[TEXT, "Content-Type: application/pdf; name=a.pdf\r\n\r\n%PDF"])), Ok(()));
    assert_eq!(look(&mixed(&[TEXT, EXE])), illegal("a.exe"));
    let inner = |part: &str| {
        format!("Content-Type: multipart/alternative;\r\n boundary=\"=_1_2\"\r\n\r\n--=_1_2\r\n{part}\r\n--=_1_2--")
    };
    assert_eq!(look(&mixed(&[&inner(EXE)])), illegal("a.exe"));
    assert_eq!(look(&mixed(&[&inner(TEXT), TEXT])), Ok(()));
    assert_eq!(look(&mixed(&[&inner(TEXT), EXE])), illegal("a.exe"), "behind the inner multipart");
    let forwarded = format!("Content-Type: message/rfc822\r\n\r\n{}", mixed(&[TEXT, EXE]).replace("=_1", "=_2"));
    assert_eq!(look(&mixed(&[&forwarded])), illegal("a.exe"), "in an attached message");
    assert_eq!(look(&forwarded), illegal("a.exe"), "in a message as a whole");
    let digest = mixed(&["\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nMZ"]);
    assert_eq!(look(&digest), Ok(()), "a body of that look");
    assert_eq!(look(&digest.replace("mixed", "digest")), illegal("a.exe"), "parts of a digest are messages");
}

#[test]
fn what_looks_like_a_part_is_one_only_between_boundaries() {
    let body = "Content-Type: text/plain\r\n\r\n--=_2\r\nContent-Type: x/y; name=a.exe\r\n\r\n -=_1\r\n--=_";
    assert_eq!(look(&mixed(&[body])), Ok(()));
    let prologue = mixed(&[TEXT]).replace("old reader", EXE);
    assert_eq!(look(&prologue), Ok(()), "in front of the first part");
    assert_eq!(look(&(mixed(&[TEXT]) + EXE)), Ok(()), "behind the last part");
    let encoded = format!("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{EXE}");
    assert_eq!(look(&mixed(&[&encoded])), Ok(()), "text of another encoding");
}

#[test]
fn odd_delimiters_hide_nothing() {
    let message = mixed(&[TEXT, EXE]);
    for (odd, why) in [
        (message.replace("--=_1\r\n", "--=_1 \t\r\n"), "blanks behind"),
        (message.replace("--=_1\r\n", "--=_1 and more\r\n"), "text behind"),
        (message.replace("\r\n", "\n"), "bare line feeds"),
        (message.replace("--=_1--\r\n", ""), "no end"),
        (message.replace("MZ\r\n--=_1--\r\n", ""), "a header at the end"),
        (message.replace("\r\n\r\nMZ", ""), "a header without a blank line"),
        (message.replace("hello\r\n", ""), "a part without a body"),
        (message.replace("boundary=\"=_1\"", "boundary=\"=_1 \""), "a blank in the boundary"),
        (message.replace("boundary=\"=_1\"", "BOUNDARY==_1"), "no quotation marks"),
        (message.replace("Content-Type: app", "X-A: b\r\nno field\r\nContent-type : app"), "odd fields"),
        (message.replace("; name", ";\r\n\tname"), "folded"),
        (format!("Content-Transfer-Encoding: base64\r\n{message}"), "an encoding that no multipart has"),
    ] {
        assert_eq!(look(&odd), illegal("a.exe"), "{why}");
    }
    // One boundary that another one begins with.
    let long =
        mixed(&[&format!("Content-Type: multipart/mixed; boundary=\"=_1a\"\r\n\r\n--=_1a\r\n{TEXT}\r\n--=_1a--\r\n")]);
    assert_eq!(look(&long), Ok(()));
    assert_eq!(look(&long.replace("--=_1--", &format!("--=_1\r\n{EXE}"))), illegal("a.exe"));
}

#[test]
fn signed_and_encrypted_mail_passes() {
    let signed = mixed(&[TEXT, "Content-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\nMII="])
        .replace("multipart/mixed", "multipart/signed; protocol=\"application/pkcs7-signature\"");
    assert_eq!(look(&signed), Ok(()));
    let encrypted = mixed(&[
        "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1",
        "Content-Type: application/octet-stream; name=encrypted.asc\r\n\r\n-----BEGIN PGP MESSAGE-----",
    ]);
    assert_eq!(look(&encrypted.replace("mixed", "encrypted")), Ok(()));
    assert_eq!(look("Content-Type: application/pkcs7-mime; name=smime.p7m\r\n\r\nMII="), Ok(()));
}

#[test]
fn parts_that_can_not_be_told_apart_are_refused() {
    assert_eq!(look("Content-Type: multipart/mixed\r\n\r\n--x\r\n"), Err(MimeFault::NoBoundary));
    assert_eq!(look("Content-Type: multipart/mixed; boundary=x\r\n\r\ntext\r\n"), Err(MimeFault::NoPart));
    assert_eq!(
        look("Content-Type: multipart/mixed; boundary=x\r\n\r\n--x--\r\n"),
        Ok(()),
        "a multipart of one empty part"
    );
    let long = "x".repeat(MAX_BOUNDARY + 1);
    assert_eq!(
        look(&format!("Content-Type: multipart/mixed; boundary={long}\r\n\r\n--{long}\r\n")),
        Err(MimeFault::LongBoundary)
    );
    let field = format!("X: {}\r\nContent-Type: text/plain;\r\n x={0}", "x".repeat(MAX_FIELD));
    assert_eq!(look(&mixed(&[&field])), Err(MimeFault::LongField));
    let nested = |depth: usize| {
        let part = |level: usize| format!("Content-Type: multipart/mixed; boundary={level}\r\n\r\n--{level}\r\n");
        (0..depth).map(part).collect::<String>() + "Content-Type: text/plain\r\n\r\n"
    };
    assert_eq!(look(&nested(MAX_DEPTH)), Ok(()));
    assert_eq!(look(&nested(MAX_DEPTH + 1)), Err(MimeFault::TooDeep));
    // A bounce has the header of a message alone: what that announces does not come.
    let bounce = "Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=y\r\n";
    assert_eq!(look(&mixed(&[bounce])), Ok(()));
}

#[test]
fn pieces_change_nothing() {
    let message =
        mixed(&[TEXT, "X: y\r\nContent-Disposition: attachment;\r\n filename*0=\"a.e\";\r\n filename*1=xe\r\n\r\nMZ"]);
    let header = postrider_mail::HeaderBlock::parse(message.as_bytes()).unwrap();
    let mut top = PartHeader::default();
    header.fields().for_each(|field| top.read(field.name(), field.raw_value()));
    for size in 1..100 {
        let body: Vec<Bytes> =
            message.as_bytes()[header.body_offset()..].chunks(size).map(Bytes::copy_from_slice).collect();
        let refused = check(&top, &body, &BlockedAttachments::default()).unwrap_err();
        assert_eq!(refused, Refusal::Mime(MimeFault::IllegalFilename("a.exe".into())), "{size}");
        assert_eq!(check(&top, &body, &BlockedAttachments::of(&[]).unwrap()), Ok(()), "switched off");
    }
}

/// Whoever sends megabytes that are made to be read slowly makes the relay look at each byte
/// some times, not some thousand times.
#[test]
fn hostile_mail_costs_no_more_than_its_length() {
    let near = |byte: char| format!("{}{byte}", "x".repeat(69));
    let levels = ('a'..='z').chain('0'..='5');
    let deep: String = levels
        .map(|byte| format!("Content-Type: multipart/mixed; boundary={0}\r\n\r\n--{0}\r\n", near(byte)))
        .collect();
    let in_parts = |text: &str| format!("Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n{text}");
    let parameters = |text: &str| in_parts(&format!("Content-Disposition: attachment{text}\r\n\r\n--x\r\n").repeat(20));
    for (why, message) in [
        (
            "lines that are nearly every boundary",
            deep.clone() + "\r\n" + &format!("--{}\r\n", "x".repeat(69)).repeat(5_000),
        ),
        ("hyphens", deep + "\r\n" + &"--\r\n".repeat(50_000)),
        ("empty parts", in_parts(&"--x\r\n".repeat(50_000))),
        ("messages in messages", in_parts(&"Content-Type: message/rfc822\r\n\r\n".repeat(10_000))),
        ("one long line", in_parts(&"-".repeat(1_000_000))),
        (
            "sections in the wrong order",
            parameters(&(0..4_000).rev().map(|n| format!(";filename*{n}=x")).collect::<String>()),
        ),
        ("parameters without end", parameters(&";filename=".repeat(6_000))),
        ("open quotation marks", parameters(&";filename=\"\\\"".repeat(5_000))),
        ("beginnings of encoded words", parameters(&format!(";filename=\"{}\"", "=?a?q?x ".repeat(7_000)))),
        ("encoded words", parameters(&format!(";filename=\"{}\"", "=?a?q?x?= ".repeat(6_000)))),
        ("folds", parameters(&";\r\n filename=x".repeat(4_000))),
    ] {
        let (_, work) = work(message.as_bytes(), &BlockedAttachments::default());
        let times = work / message.len() as u64;
        assert!(times < 2 * MAX_DEPTH as u64, "{why}: each byte was looked at {times} times");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_walked_through(message: Vec<u8>) {
        let (_, work) = work(&message, &BlockedAttachments::default());
        prop_assert!(work <= 4 * message.len() as u64 + 4);
    }

    #[test]
    fn any_parts_are_walked_through(
        text in "(Content-Type: (multipart/mixed; ?boundary=[ab]{0,2}|message/rfc822|text/plain; name[*=a.\"']{0,9})\r\n|--[ab]{0,2}(--)?\r\n|\r\n|Content-Disposition:[;a*0-2= \"]{0,12}\r\n){0,40}",
    ) {
        let (_, work) = work(text.as_bytes(), &BlockedAttachments::default());
        prop_assert!(work <= 80 * text.len() as u64 + 80);
    }

    /// A file of a bad name is found wherever it is, and a good one harms nobody.
    #[test]
    fn a_file_is_found_at_every_depth(depth in 0_usize..20, is_bad: bool) {
        let name = if is_bad { "a.exe" } else { "a.txt" };
        let mut part = format!("Content-Disposition: attachment; filename={name}\r\n\r\nMZ\r\n");
        for level in 0..depth {
            part = match level % 3 {
                0 => format!("Content-Type: message/rfc822\r\n\r\n{part}"),
                _ => format!("Content-Type: multipart/mixed; boundary=b{level}.\r\n\r\n--b{level}.\r\n{TEXT}\r\n--b{level}.\r\n{part}\r\n--b{level}.--\r\n"),
            };
        }
        prop_assert_eq!(look(&part), if is_bad { illegal("a.exe") } else { Ok(()) });
    }
}
