//! What the next host offers, and what messages need of it.

use postrider_mail::{BodyType, BounceKind, Disposition};
use postrider_spool::{Content, NewMessage};

use crate::rig::{HOST, Rig, is_delivered, routes};
use crate::server::{Say, Server, Setup};

async fn rig_with(domain: &str, extensions: &[&'static str]) -> (Rig, Server) {
    let rig = Rig::new().await;
    rig.mx(domain, "mx.example.com", "198.51.100.1");
    let setup = Setup { extensions: extensions.to_vec(), ..Setup::default() };
    let server = Server::with(&rig.net, HOST, setup, |_| Say::Usual);
    rig.deliver(routes(&[]));
    (rig, server)
}

fn international(rig: &Rig, to: &str, header: &str) -> NewMessage {
    let mut message = rig.message(&[to]);
    message.envelope.smtp_utf8 = true;
    message.content = Content::from(format!("{header}\r\n\r\nGr\u{fc}\u{df}e\r\n").into_bytes());
    message
}

#[tokio::test(start_paused = true)]
async fn a_host_without_smtputf8_gets_what_is_ascii_after_all() {
    for (to, domain, wire) in [
        ("ann@example.com", "example.com", "RCPT TO:<ann@example.com>"),
        ("ann@b\u{fc}cher.example", "xn--bcher-kva.example", "RCPT TO:<ann@xn--bcher-kva.example>"),
    ] {
        let (mut rig, server) = rig_with(domain, &["8BITMIME"]).await;
        let id = rig.accept(international(&rig, to, "Subject: hello")).await;
        assert!(is_delivered(&rig.outcome(id).await));
        assert_eq!(server.seen().with("MAIL"), ["MAIL FROM:<sender@example.net>"]);
        assert_eq!(server.seen().with("RCPT"), [wire]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_without_smtputf8_does_not_get_the_rest() {
    for (to, header) in [("j\u{fc}rgen@example.com", "Subject: hello"), ("ann@example.com", "Subject: Gr\u{fc}\u{df}e")]
    {
        let (mut rig, server) = rig_with("example.com", &["8BITMIME"]).await;
        let id = rig.accept(international(&rig, to, header)).await;
        let outcome = rig.outcome(id).await;
        assert_eq!(outcome.disposition, Disposition::Bounced(BounceKind::TransientGeneral));
        assert_eq!(outcome.status.to_string(), "5.6.7");
        assert!(server.seen().with("MAIL").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_with_smtputf8_gets_everything() {
    let (mut rig, server) = rig_with("example.com", &["8BITMIME", "SMTPUTF8"]).await;
    let id = rig.accept(international(&rig, "j\u{fc}rgen@example.com", "Subject: Gr\u{fc}\u{df}e")).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert_eq!(server.seen().with("MAIL"), ["MAIL FROM:<sender@example.net> SMTPUTF8"]);
    assert_eq!(server.seen().with("RCPT"), ["RCPT TO:<j\u{fc}rgen@example.com>"]);
}

#[tokio::test(start_paused = true)]
async fn another_host_may_offer_what_the_first_does_not() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 1, "a.example").add_address("a.example", "198.51.100.1");
    rig.zones.add_mx("example.com", 2, "b.example").add_address("b.example", "198.51.100.2");
    let first = Server::start(&rig.net, HOST);
    let setup = Setup { extensions: vec!["SMTPUTF8"], ..Setup::default() };
    Server::with(&rig.net, "198.51.100.2:25", setup, |_| Say::Usual);
    rig.deliver(routes(&[]));
    let id = rig.accept(international(&rig, "j\u{fc}rgen@example.com", "Subject: hello")).await;
    let outcome = rig.outcome(id).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert_eq!(outcome.remote.unwrap().host, "b.example");
    assert!(first.seen().with("MAIL").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_international_neighbour_keeps_nobody_from_their_mail() {
    for second_offers in [false, true] {
        let mut rig = Rig::new().await;
        rig.zones.add_mx("example.com", 1, "a.example").add_address("a.example", "198.51.100.1");
        rig.zones.add_mx("example.com", 2, "b.example").add_address("b.example", "198.51.100.2");
        let first = Server::start(&rig.net, HOST);
        let extensions = if second_offers { vec!["SMTPUTF8"] } else { vec![] };
        let second =
            Server::with(&rig.net, "198.51.100.2:25", Setup { extensions, ..Setup::default() }, |_| Say::Usual);
        rig.deliver(routes(&[]));
        let mut message = rig.message(&["j\u{fc}rgen@example.com", "ann@example.com", "bob@example.com"]);
        message.envelope.smtp_utf8 = true;
        let id = rig.accept(message).await;
        let outcomes = rig.outcomes(id, 3).await;
        let hosts: Vec<_> = outcomes.iter().map(|outcome| outcome.remote.as_ref().unwrap().host.as_str()).collect();
        assert!(outcomes[1..].iter().all(is_delivered), "{outcomes:?}");
        assert_eq!(first.seen().with("MAIL"), ["MAIL FROM:<sender@example.net> SIZE=45"]);
        assert_eq!(first.seen().with("RCPT"), ["RCPT TO:<ann@example.com>", "RCPT TO:<bob@example.com>"]);
        if second_offers {
            assert!(is_delivered(&outcomes[0]));
            assert_eq!(hosts, ["b.example", "a.example", "a.example"]);
            assert_eq!(second.seen().with("RCPT"), ["RCPT TO:<j\u{fc}rgen@example.com>"]);
        } else {
            assert_eq!(outcomes[0].status.to_string(), "5.6.7");
            assert!(second.seen().with("MAIL").is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_beside_it_does_not_put_the_bounce_off() {
    for dead in ["a.example", "b.example"] {
        let mut rig = Rig::new().await;
        let (one, two) = if dead == "a.example" { (2, 1) } else { (1, 2) };
        rig.zones.add_mx("example.com", one, "live.example").add_address("live.example", "198.51.100.1");
        rig.zones.add_mx("example.com", two, dead).add_address(dead, "198.51.100.2");
        Server::start(&rig.net, HOST);
        rig.deliver(routes(&[]));
        let id = rig.accept(international(&rig, "j\u{fc}rgen@example.com", "Subject: hello")).await;
        assert_eq!(rig.outcome(id).await.status.to_string(), "5.6.7", "{dead}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_raw_utf8_header_without_the_parameter_is_8bit_mail_like_any() {
    let (mut rig, server) = rig_with("example.com", &["8BITMIME"]).await;
    let mut message = international(&rig, "ann@example.com", "Subject: Gr\u{fc}\u{df}e");
    message.envelope.smtp_utf8 = false;
    message.envelope.body = BodyType::EightBitMime;
    let id = rig.accept(message).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert_eq!(server.seen().with("MAIL"), ["MAIL FROM:<sender@example.net> BODY=8BITMIME"]);
    assert!(server.seen().messages[0].starts_with("Subject: Gr\u{fc}\u{df}e\r\n"));
}

fn binary(rig: &Rig) -> NewMessage {
    let mut message = rig.message(&["ann@example.com"]);
    message.envelope.body = BodyType::BinaryMime;
    message.content = Content::from(b"Subject: hello\r\n\r\n\0.\r\n.\n\r..\r\n.\r\n".to_vec());
    message
}

#[tokio::test(start_paused = true)]
async fn binary_content_goes_octet_for_octet() {
    let (mut rig, server) = rig_with("example.com", &["8BITMIME", "CHUNKING", "BINARYMIME"]).await;
    let id = rig.accept(binary(&rig)).await;
    assert!(is_delivered(&rig.outcome(id).await));
    let seen = server.seen();
    assert_eq!(seen.with("MAIL"), ["MAIL FROM:<sender@example.net> BODY=BINARYMIME"]);
    assert_eq!(seen.messages[0].as_bytes(), binary(&rig).content.to_bytes());
    assert!(seen.with("DATA").is_empty());
}

#[tokio::test(start_paused = true)]
async fn chunks_are_used_where_they_are_offered_and_wanted() {
    for (wanted, offered) in [(true, true), (false, true), (true, false)] {
        let mut rig = Rig::new().await;
        rig.mx("example.com", "mx.example.com", "198.51.100.1");
        let mut extensions = vec!["PIPELINING", "8BITMIME"];
        extensions.extend(offered.then_some("CHUNKING"));
        let server = Server::with(&rig.net, HOST, Setup { extensions, ..Setup::default() }, |moment| {
            if moment.line.starts_with("RCPT TO:<bad") { Say::Reply("550 5.1.1 no such user") } else { Say::Usual }
        });
        rig.deliver(postrider_delivery::Settings { chunking: wanted, ..routes(&[]) });
        for to in ["ann@example.com", "bob@example.com", "cid@example.com"] {
            // From the second on the content does not wait for the replies.
            let id = rig.send(&[to, "bad@example.com"]).await;
            let outcomes = rig.outcomes(id, 2).await;
            assert!(is_delivered(&outcomes[0]), "{outcomes:?}");
            assert_eq!(outcomes[1].status.to_string(), "5.1.1");
        }
        let id = rig.send(&["bad@example.com"]).await;
        assert_eq!(rig.outcome(id).await.status.to_string(), "5.1.1");
        let id = rig.send(&["dan@example.com"]).await;
        assert!(is_delivered(&rig.outcome(id).await));
        let seen = server.seen();
        let content = rig.message(&["ann@example.com"]).content.to_bytes();
        assert!(seen.messages.iter().all(|message| message.as_bytes() == content), "{:?}", seen.messages);
        assert_eq!((seen.messages.len(), seen.connections), (4, 1));
        assert_eq!(seen.with("BDAT").is_empty(), !(wanted && offered));
        assert_eq!(seen.with("DATA").is_empty(), wanted && offered);
    }
}

#[tokio::test(start_paused = true)]
async fn binary_content_goes_nowhere_else() {
    for extensions in [&["8BITMIME"][..], &["8BITMIME", "CHUNKING"], &["BINARYMIME"]] {
        let (mut rig, server) = rig_with("example.com", extensions).await;
        let id = rig.accept(binary(&rig)).await;
        let outcome = rig.outcome(id).await;
        assert_eq!(outcome.disposition, Disposition::Bounced(BounceKind::TransientContentRejected));
        assert_eq!(outcome.status.to_string(), "5.6.3");
        assert!(server.seen().with("MAIL").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_host_are_kept() {
    let (mut rig, server) = rig_with("example.com", &["PIPELINING", "LIMITS RCPTMAX=2 MAILMAX=2"]).await;
    let recipients: Vec<_> = (0..7).map(|n| format!("user{n}@example.com")).collect();
    let id = rig.send(&recipients.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(rig.outcomes(id, 7).await.iter().all(is_delivered));
    // Two recipients in a transaction, two transactions over a connection.
    assert_eq!((server.seen().messages.len(), server.seen().connections), (4, 2));
    let next = rig.send(&["user8@example.com"]).await;
    assert!(is_delivered(&rig.outcome(next).await));
    assert_eq!(server.seen().connections, 3);
}
