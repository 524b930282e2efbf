use super::*;

const KEY: &str = include_str!("../../tests/keys/rsa-2048-pkcs8.pem");

fn signer() -> Signer {
    Signer::new("example.com".parse().unwrap(), "s1".parse().unwrap(), PrivateKey::from_pem(KEY).unwrap())
}

/// The signature field of this message, unfolded.
fn sign(message: &str) -> Result<String, SignError> {
    let block = HeaderBlock::parse(message.as_bytes()).unwrap();
    let digested = Digested::new(&block, [&message.as_bytes()[block.body_offset()..]])?;
    let mut out = Vec::new();
    signer().sign(&digested, Timestamp::from_millis(1_700_000_000_999), &mut out)?;
    let text = String::from_utf8(out).unwrap();
    assert!(text.lines().all(|line| line.len() <= 78), "{text}");
    assert!(!text.trim_end().ends_with(';'), "{text}");
    Ok(text.replace(";\r\n\t", "; ").replace("\r\n\t", ""))
}

fn tag<'a>(field: &'a str, name: &str) -> Option<&'a str> {
    let value = field.split_once(": ").unwrap().1;
    value.split(';').find_map(|tag| tag.trim().strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn the_tags_say_who_when_and_how() {
    let field = sign("From: a@example.com\r\n\r\nbody\r\n").unwrap();
    for (name, value) in [
        ("v", "1"),
        ("a", "rsa-sha256"),
        ("c", "relaxed/simple"),
        ("d", "example.com"),
        ("s", "s1"),
        ("t", "1700000000"),
        ("h", "From:From:Reply-To:Subject:Date:Message-ID:To:Cc"),
    ] {
        assert_eq!(tag(&field, name), Some(value), "{field}");
    }
    assert_eq!((tag(&field, "x"), tag(&field, "l")), (None, None));
    assert_eq!(field, sign("From: a@example.com\r\n\r\nbody\r\n").unwrap(), "nothing in it is random");
}

#[test]
fn what_readers_see_is_covered_once_more_than_it_is_there() {
    let field = sign(
        "Received: x\r\nReturn-Path: <a@b>\r\nX-Mailer: y\r\nTo: a@b\r\nTo: c@d\r\nfrom: a@example.com\r\nList-Id: <l.example.com>\r\n\
         MIME-Version: 1.0\r\nList-Unsubscribe: <https://example.com/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\n",
    )
    .unwrap();
    assert_eq!(
        tag(&field, "h").unwrap(),
        "From:From:Reply-To:Subject:Date:Message-ID:To:To:To:Cc:MIME-Version:MIME-Version:List-Unsubscribe:List-Unsubscribe:\
         List-Unsubscribe-Post:List-Unsubscribe-Post:List-Id"
    );
}

#[test]
fn no_from_no_signature() {
    assert_eq!(sign("To: a@example.com\r\n\r\nbody\r\n"), Err(SignError::NoFrom));
    assert_eq!(sign("\r\nFrom: in@the.body\r\n"), Err(SignError::NoFrom));
}

#[test]
fn every_covered_byte_counts_and_no_other() {
    let message = "Received: one\r\nFrom: a@example.com\r\nSubject: hello  you\r\n\r\nbody\r\n";
    let signed = sign(message).unwrap();
    let same = ["Received: two\r\n", "From:a@example.com\r\n", "subject: hello\r\n\tyou \r\n", "\r\nbody\r\n\r\n"];
    assert_eq!(sign(&same.concat()).unwrap(), signed);
    for (from, to) in [("hello", "hallo"), ("body", "body "), ("Subject", "To"), ("a@", "b@")] {
        assert_ne!(sign(&message.replace(from, to)).unwrap(), signed, "{from}");
    }
}
