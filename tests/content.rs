//! What clients of the real daemon hear of headers and attachments.

use std::error::Error;

use postrider_testkit::Scene;

type Outcome = Result<(), Box<dyn Error>>;

const BINARY: &str = env!("CARGO_BIN_EXE_postrider");

/// Header fields behind the From field, and what the end of DATA is answered with.
const HEADERS: [(&str, &str); 10] = [
    // Unknown fields are taken, To and Cc may be repeated.
    ("X-Anything: x\r\nTo: a@b.c\r\nTo: d@e.f\r\nComments: 1\r\nComments: 2\r\n", "250"),
    // Several signatures are no error.
    ("DKIM-Signature: v=1; h=from\r\nDKIM-Signature: v=1; h=from\r\n", "250"),
    ("Subject: a\r\nsubject: b\r\n", "554 Transaction failed: Duplicate header 'Subject'."),
    ("Content-Type: a/b\r\nContent-Type: a/b\r\n", "554 Transaction failed: Duplicate header 'Content-Type'."),
    ("Sender: <a b@c>\r\n", "554 Transaction failed: Address contains illegal characters in user name: '<a b@c>'."),
    ("Reply-To: Last, First <a@b.c>\r\n", "554 Transaction failed: Missing final '@domain': 'Last'."),
    ("Return-Path: @b.c\r\n", "554 Transaction failed: User name is missing: '@b.c'."),
    ("X-SES-CONFIGURATION-SET: none\r\n", "554 Message rejected: Configuration set does not exist: none"),
    // A tag of other characters is none, and harms nobody.
    ("X-SES-MESSAGE-TAGS: a=b, \u{fc}=c, d\r\n", "250"),
    (
        "Content-Disposition: attachment; filename*0=\"set.\"; filename*1*=%45xe\r\n",
        "554 Transaction failed: Illegal filename 'set.Exe'.",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_judged_in_the_known_words() -> Outcome {
    let scene = Scene::new(BINARY, "", None).await?;
    let mut session = scene.connect().await?;
    for (fields, expected) in HEADERS {
        let content = format!("From: ann@example.com\r\n{fields}\r\nHello\r\n");
        let reply = session.send("ann@example.com", &["b@example.org"], content.as_bytes()).await?;
        let answer = format!("{} {}", reply.code, reply.text());
        assert!(if expected == "250" { reply.code == 250 } else { answer == expected }, "{fields}: {answer}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn by_option_repeated_fields_are_refused_as_ses_does_and_files_pass() -> Outcome {
    let options = "[submission]\nheader_rules = \"ses\"\nblocked_attachments = [\"ses\", \"!crt\", \"zip\"]\n";
    let scene = Scene::new(BINARY, options, None).await?;
    let mut session = scene.connect().await?;
    let file = |name: &str| format!("From: ann@example.com\r\nContent-Type: a/b; name={name}\r\n\r\nx\r\n");
    for (content, expected) in [
        ("From: ann@example.com\r\nComments: 1\r\nComments: 2\r\n\r\n".to_owned(), "Duplicate header 'Comments'."),
        ("To: ann@example.com\r\n\r\n".to_owned(), "Missing required header 'From'."),
        (file("a.crt"), "Ok"),
        (file("a.zip"), "Illegal filename 'a.zip'."),
        (file("a.exe"), "Illegal filename 'a.exe'."),
    ] {
        let reply = session.send("ann@example.com", &["b@example.org"], content.as_bytes()).await?;
        assert!(reply.text().contains(expected), "{content}: {}", reply.text());
    }
    Ok(())
}
