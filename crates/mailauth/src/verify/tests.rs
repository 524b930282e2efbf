//! Whole messages: the examples of the RFCs, messages signed here, and damaged ones.

use mail_auth::arc::{ArcSealer, Set};
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::{Header, HeaderWriter as _};
use mail_auth::dkim::DkimSigner;
use mail_auth::{ArcOutput, AuthenticatedMessage, AuthenticationResults};
use postrider_base::Timestamp;
use postrider_dns::Zones;
use postrider_dns::zones::Failure;
use proptest::prelude::*;

use super::arc::ArcResult;
use super::*;

const NOW: u64 = 1_528_637_909;

async fn look(zones: &Zones, message: &[u8]) -> Verdict {
    let connection = Connection { ip: None, helo: "", mail_from: "", receiver: "mx.example.net" };
    look_with(zones, message, &connection).await
}

async fn look_with(zones: &Zones, message: &[u8], connection: &Connection<'_>) -> Verdict {
    let clock = Clock::simulated(Timestamp::from_millis(NOW * 1000));
    verify(zones, &clock, message, connection, &Limits::default()).await.unwrap()
}

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn rfc_zones() -> Zones {
    let zones = Zones::new();
    zones
        .add_txt(
            "brisbane._domainkey.example.com",
            "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
        )
        .add_txt("brisbane._domainkey.football.example.com", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
        .add_txt(
            "test._domainkey.football.example.com",
            "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
        );
    zones
}

/// RFC 6376 appendix A.2
const RFC_6376: &str = "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
";

/// RFC 8463 appendix A.3
const RFC_8463: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
";

fn results(verdict: &Verdict) -> Vec<DkimResult> {
    verdict.dkim.iter().map(|one| one.result).collect()
}

#[tokio::test]
async fn the_examples_of_the_rfcs_pass() {
    let zones = rfc_zones();
    let old = look(&zones, &crlf(RFC_6376)).await;
    assert_eq!(results(&old), [DkimResult::Pass], "{:?}", old.dkim);
    assert_eq!((old.dkim[0].bits, old.dkim[0].identity.as_deref()), (Some(1024), Some("joe@football.example.com")));
    let new = look(&zones, &crlf(RFC_8463)).await;
    assert_eq!(results(&new), [DkimResult::Pass, DkimResult::Pass], "{:?}", new.dkim);
    assert_eq!((new.dkim[0].algorithm.as_str(), new.dkim[0].bits), ("ed25519-sha256", None));
    assert_eq!((new.dmarc.result, new.arc.result), (DmarcResult::None, ArcResult::None));
}

#[tokio::test]
async fn changes_are_seen() {
    let zones = rfc_zones();
    for (from, to, expected) in [
        ("dinner", "supper", DkimResult::Fail),
        ("the game.", "the game!", DkimResult::Fail),
        ("From: Joe SixPack", "From:  Joe  SixPack ", DkimResult::Pass),
        ("Joe.\n", "Joe. \n \n\t\n\n", DkimResult::Pass),
        ("From: Joe", "From: x@example.net\nFrom: Joe", DkimResult::Fail),
        ("from : to", "to", DkimResult::Fail),
        ("t=1528637909", "t=1528637909; x=1528637908", DkimResult::PermError),
        ("t=1528637909", "t=1; x=1528637908", DkimResult::Fail),
        ("v=1; a", "v=2; a", DkimResult::Neutral),
        ("v=1; a", "a", DkimResult::PermError),
        ("i=@football", "i=@other", DkimResult::PermError),
        ("a=ed25519-sha256", "a=rsa-sha1", DkimResult::PermError),
        ("a=ed25519-sha256", "a=rsa-sha256", DkimResult::PermError),
        ("s=brisbane", "s=absent", DkimResult::PermError),
        ("s=brisbane", "s=test", DkimResult::PermError),
        ("bh=2jUS", "bh=!jUS", DkimResult::Neutral),
    ] {
        assert!(RFC_8463.contains(from));
        let verdict = look(&zones, &crlf(&RFC_8463.replacen(from, to, 1))).await;
        let first = &verdict.dkim[0];
        assert_eq!(first.result, expected, "{from} -> {to}: {}", first.reason);
    }
}

#[tokio::test]
async fn keys_that_do_not_count() {
    for (record, expected) in [
        ("v=DKIM1; k=ed25519; p=", DkimResult::PermError),
        ("v=DKIM1; k=ed448; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", DkimResult::PermError),
        ("v=DKIM1; k=ed25519; h=sha1; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", DkimResult::PermError),
        ("v=DKIM1; k=ed25519; s=tlsrpt; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", DkimResult::PermError),
        (
            "v=DKIM1; k=ed25519; t=s:y; h=sha1:sha256; s=*; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            DkimResult::Pass,
        ),
        ("v=DKIM1; k=ed25519; p=21qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", DkimResult::Fail),
        // 512 bits.
        (
            "v=DKIM1; p=MEgCQQC2WTpbUCThwWq7M7HAa0Rv6C9Z1mGbYNVvAoyBrwfKpcYtJ3rd6p7BWGN1fJqLxXxmFVqZ7nJ7xVbqyCxkF5BnAgMBAAE=",
            DkimResult::PermError,
        ),
        ("nonsense", DkimResult::PermError),
        ("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=; h=sha256; h=sha1", DkimResult::PermError),
    ] {
        let zones = Zones::new();
        zones.add_txt("brisbane._domainkey.football.example.com", record);
        let verdict = look(&zones, &crlf(RFC_8463)).await;
        let first = &verdict.dkim[0];
        assert_eq!(first.result, expected, "{record}: {}", first.reason);
        assert_eq!(first.testing, record.contains("s:y"));
    }
}

#[tokio::test(start_paused = true)]
async fn silent_name_servers_are_not_waited_for() {
    let zones = rfc_zones();
    zones.fail("brisbane._domainkey.football.example.com", Failure::Silence);
    zones.fail("test._domainkey.football.example.com", Failure::ServFail);
    zones.add_txt("_dmarc.football.example.com", "v=DMARC1; p=reject");
    let verdict = look(&zones, &crlf(RFC_8463)).await;
    assert_eq!(results(&verdict), [DkimResult::TempError, DkimResult::TempError]);
    assert_eq!(verdict.dmarc.result, DmarcResult::TempError);
}

/// Signs with mail-auth; the key's record is put into the zones.
fn sign(zones: &Zones, domain: &str, message: &str, length: bool) -> String {
    let key = Ed25519Key::from_pkcs8_der(&Ed25519Key::generate_pkcs8().unwrap()).unwrap();
    publish(zones, "s", domain, &key);
    let signer =
        DkimSigner::from_key(key).domain(domain).selector("s").headers(["From", "Subject"]).body_length(length);
    format!("{}{message}", signer.sign(message.as_bytes()).unwrap().to_header())
}

fn publish(zones: &Zones, selector: &str, domain: &str, key: &Ed25519Key) {
    use base64::Engine as _;
    let public = base64::engine::general_purpose::STANDARD.encode(key.public_key());
    zones.add_txt(&format!("{selector}._domainkey.{domain}"), &format!("v=DKIM1; k=ed25519; p={public}"));
}

const PLAIN: &str = "From: a@example.com\r\nSubject: b\r\n\r\nc\r\n";

/// An address alone, the domain, and the domain with a MAIL FROM of its own: who vouches for
/// mail of example.com that a relay sends.
#[tokio::test]
async fn three_ways_to_send_through_a_relay() {
    let zones = Zones::new();
    zones
        .add_txt("_dmarc.example.com", "v=DMARC1; p=reject")
        .add_txt("bounces.relay.example", "v=spf1 ip4:192.0.2.1 -all")
        .add_txt("bounce.example.com", "v=spf1 ip4:192.0.2.1 -all");
    let by_relay = sign(&zones, "relay.example", PLAIN, false);
    let by_domain = sign(&zones, "example.com", PLAIN, false);
    for (message, mail_from, expected, spf, dkim) in [
        (&by_relay, "x@bounces.relay.example", DmarcResult::Fail, false, false),
        (&by_domain, "x@bounces.relay.example", DmarcResult::Pass, false, true),
        (&by_domain, "x@bounce.example.com", DmarcResult::Pass, true, true),
    ] {
        let ip = Some(IpAddr::from([192, 0, 2, 1]));
        let connection = Connection { ip, helo: "mx.relay.example", mail_from, receiver: "mx.example.net" };
        let verdict = look_with(&zones, message.as_bytes(), &connection).await;
        assert_eq!(verdict.spf.as_ref().unwrap().result, SpfResult::Pass);
        assert_eq!(results(&verdict), [DkimResult::Pass]);
        let dmarc = &verdict.dmarc;
        assert_eq!((dmarc.result, dmarc.spf, dmarc.dkim), (expected, spf, dkim), "{}", dmarc.reason);
    }
}

#[tokio::test]
async fn without_mail_from_the_ehlo_name_counts() {
    let zones = Zones::new();
    zones.add_txt("mx.relay.example", "v=spf1 ip4:192.0.2.1 -all");
    let ip = Some(IpAddr::from([192, 0, 2, 1]));
    let connection = Connection { ip, helo: "mx.relay.example", mail_from: "", receiver: "mx.example.net" };
    let verdict = look_with(&zones, PLAIN.as_bytes(), &connection).await;
    assert!(verdict.spf_of_helo && verdict.spf.unwrap().result == SpfResult::Pass);
}

#[tokio::test]
async fn the_beginning_of_a_body_is_not_the_body() {
    let zones = Zones::new();
    let signed = sign(&zones, "example.com", PLAIN, true);
    assert_eq!(results(&look(&zones, signed.as_bytes()).await), [DkimResult::Pass]);
    let longer = look(&zones, format!("{signed}more\r\n").as_bytes()).await;
    assert_eq!(results(&longer), [DkimResult::Policy], "{}", longer.dkim[0].reason);
}

#[tokio::test]
async fn authors_are_one_or_there_is_no_policy() {
    let zones = Zones::new();
    zones.add_txt("_dmarc.example.com", "v=DMARC1; p=reject");
    for (from, expected) in [
        ("From: a@example.com", DmarcResult::Fail),
        ("From: \"x@example.net\" <a@EXAMPLE.com>", DmarcResult::Fail),
        ("From: a@example.com, b@example.com", DmarcResult::Fail),
        ("From: a@example.com, b@example.net", DmarcResult::None),
        ("From: a@example.com\r\nFrom: b@example.net", DmarcResult::None),
        ("From: a@example.com, b@ex_ample.net", DmarcResult::None),
        ("From: nobody", DmarcResult::None),
        ("To: a@example.com", DmarcResult::None),
    ] {
        let verdict = look(&zones, format!("{from}\r\n\r\nc\r\n").as_bytes()).await;
        assert_eq!(verdict.dmarc.result, expected, "{from}: {}", verdict.dmarc.reason);
    }
}

/// Who signed is the one whose key was asked for, and nobody that the signature names besides.
#[tokio::test]
async fn nobody_signs_in_the_name_of_another() {
    let zones = Zones::new();
    zones.add_txt("_dmarc.example.com", "v=DMARC1; p=reject");
    let key = Ed25519Key::generate_pkcs8().unwrap();
    publish(&zones, "s", "attacker.example", &Ed25519Key::from_pkcs8_der(&key).unwrap());
    // The second `d=` is the attacker's own, and what is hashed has the first one too.
    for other in ["d=example.com; d=", "d=example.com; D=", "x; d=example.com; d=", "d=example.com;d="] {
        let forged = sign_as(&key, "attacker.example", PLAIN, |field| field.replace(" d=", &format!(" {other}")));
        let verdict = look(&zones, forged.as_bytes()).await;
        assert_eq!(results(&verdict), [DkimResult::PermError], "{other}: {}", verdict.dkim[0].reason);
        assert_eq!(verdict.dmarc.result, DmarcResult::Fail, "{other}");
    }
    let own = sign_as(&key, "attacker.example", PLAIN, |field| field.replace(" d=", " D="));
    let verdict = look(&zones, own.as_bytes()).await;
    assert_eq!((verdict.dkim[0].result, &*verdict.dkim[0].domain), (DkimResult::Pass, "attacker.example"));
}

/// Signs, with a signature field that is changed before it is signed.
fn sign_as(key: &[u8], domain: &str, message: &str, change: impl Fn(String) -> String) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let (header, body) = message.split_once("\r\n\r\n").unwrap();
    let hash = STANDARD.encode(digest(&SHA256, body.as_bytes()));
    let field = change(format!(" v=1; a=ed25519-sha256; c=simple/simple; d={domain}; s=s; h=from; bh={hash}; b="));
    let from = header.split("\r\n").next().unwrap();
    let signed = format!("{from}\r\nDKIM-Signature:{field}");
    let key = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(key).unwrap();
    // RFC 8463 section 3
    let signature = STANDARD.encode(key.sign(digest(&SHA256, signed.as_bytes()).as_ref()));
    format!("DKIM-Signature:{field}{signature}\r\n{message}")
}

/// Passes a message on as a list at `domain` would: results, signature and seal go on top.
fn seal(zones: &Zones, domain: &str, message: &str) -> String {
    let key = Ed25519Key::from_pkcs8_der(&Ed25519Key::generate_pkcs8().unwrap()).unwrap();
    publish(zones, "arc", domain, &key);
    let parsed = AuthenticatedMessage::parse(message.as_bytes()).unwrap();
    let links = parsed.as_headers.iter().zip(&parsed.ams_headers).zip(&parsed.aar_headers);
    let so_far = links.fold(ArcOutput::default(), |output, ((seal, signature), results)| {
        output.with_set(Set {
            signature: Header::new(signature.name, signature.value, &signature.header),
            seal: Header::new(seal.name, seal.value, &seal.header),
            results: Header::new(results.name, results.value, &results.header),
        })
    });
    let results = AuthenticationResults::new(domain);
    let sealer = ArcSealer::from_key(key).domain(domain).selector("arc").headers(["From", "Subject"]);
    let set = sealer.seal(&parsed, &results, &so_far.with_result(mail_auth::DkimResult::Pass)).unwrap();
    format!("{}{message}", set.to_header())
}

#[tokio::test]
async fn chains_are_whole_or_broken() {
    let zones = Zones::new();
    let one = seal(&zones, "first.example", PLAIN);
    let changed = one.replace("\r\n\r\nc", "\r\n\r\nchanged by a list: c");
    let three = seal(&zones, "third.example", &seal(&zones, "second.example", &changed));
    let whole = look(&zones, three.as_bytes()).await.arc;
    assert_eq!(whole.result, ArcResult::Pass, "{}", whole.reason);
    assert_eq!(whole.sealers, ["first.example", "second.example", "third.example"]);
    let first_seal = &one[..one.find("\r\nARC-Message-Signature").unwrap()];
    for (what, broken) in [
        ("changed after it was sealed", changed.clone()),
        ("a link is missing", three.replacen("i=2;", "i=9;", 1)),
        ("a link is there twice", three.replacen("i=2;", "i=1;", 1)),
        ("found broken", three.replace("cv=none", "cv=fail")),
        ("no number", three.replacen("i=3;", "i=0;", 1)),
        ("half a link", three.replacen("ARC-Seal", "X-Seal", 1)),
        ("another seal", three.replace(first_seal, &first_seal.replace("b=", "b=AAAA"))),
        ("sealed by none", three.replace("d=first.example", "d=other.example")),
        ("names two sealers", three.replacen("d=first.example", "d=other.example; d=first.example", 1)),
        ("too long", "ARC-Seal: i=1; a=ed25519-sha256; s=a; d=b; cv=none; b=AAAA\r\n".repeat(51) + PLAIN),
    ] {
        let arc = look(&zones, broken.as_bytes()).await.arc;
        assert_eq!(arc.result, ArcResult::Fail, "{what}: {}", arc.reason);
    }
    zones.fail("arc._domainkey.second.example", Failure::ServFail);
    assert_eq!(look(&zones, three.as_bytes()).await.arc.result, ArcResult::TempError);
}

#[tokio::test]
async fn work_is_bounded() {
    let zones = rfc_zones();
    let signature = crlf(&RFC_8463[..RFC_8463.find("From: Joe").unwrap()]);
    let many = [signature.repeat(50), crlf(RFC_8463)].concat();
    let verdict = look(&zones, &many).await;
    assert_eq!((verdict.dkim.len(), verdict.dkim_ignored), (10, 92));
    assert_eq!(zones.queries("brisbane._domainkey.football.example.com"), 1);
    let names = format!("h=From{}", ":x".repeat(300));
    let listed = look(&zones, &crlf(&RFC_8463.replacen("h=from", &names, 1))).await;
    assert_eq!(listed.dkim[0].result, DkimResult::PermError);
    let clock = Clock::simulated(Timestamp::default());
    let connection = Connection { ip: None, helo: "", mail_from: "", receiver: "" };
    let small = Limits { fields: 3, size: 1000, ..Limits::default() };
    let fields = verify(&zones, &clock, b"a:b\r\na:b\r\na:b\r\na:b\r\n\r\n", &connection, &small).await;
    assert_eq!(fields, Err(VerifyError::TooManyFields(3)));
    let long = Limits { header: 5, ..Limits::default() };
    let header = verify(&zones, &clock, b"a:b\r\nc:d\r\n\r\n", &connection, &long).await;
    assert_eq!(header, Err(VerifyError::HeaderTooLarge(5)));
    let size = verify(&zones, &clock, &[b'a'; 1001], &connection, &small).await;
    assert_eq!(size, Err(VerifyError::TooLarge(1000)));
}

proptest! {
    #[test]
    fn damaged_messages_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30),
        cut: prop::sample::Index,
    ) {
        let zones = rfc_zones();
        let mut message = seal(&zones, "first.example", RFC_8463).into_bytes();
        for (place, byte) in changes {
            let place = place.index(message.len());
            message[place] = byte;
        }
        message.truncate(cut.index(message.len()) + message.len() / 2);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let verdict = runtime.block_on(look(&zones, &message));
        for one in &verdict.dkim {
            prop_assert!(one.reason.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{}", one.reason);
        }
    }
}
