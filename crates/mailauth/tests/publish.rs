//! Dynamic updates against a real name server, Knot DNS.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData};
use postrider_base::{Clock, Metrics, Random, TcpDialer, Timestamp};
use postrider_dns::{HickoryResolver, NameServer, Resolver as _, Settings};
use postrider_mailauth::publish::{Error, Outcome, Published, Publisher, Target, TsigKey};
use postrider_mailauth::records::{Data, Need, Place, Plan, PlanInput, PlannedKey, Record, plan};
use postrider_testkit::knot::{Knot, MAY, MAY_NOT, SECRET};
use postrider_testkit::nsd::Zone;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn start() -> Knot {
    let mut zone = Zone::new("example.com");
    zone.line("@ 77 IN TXT \"site-verification=abc\"");
    zone.line("busy IN MX 10 mx.elsewhere.example.");
    zone.line("busy IN TXT \"v=spf1 -all\"");
    zone.line("alias IN CNAME www");
    zone.line("below IN NS ns.elsewhere.example.");
    Knot::start(&[zone, Zone::new("2.0.192.in-addr.arpa")]).unwrap()
}

fn key(name: &str, secret: &str) -> TsigKey {
    TsigKey::parse(&format!("key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};")).unwrap()
}

fn target(server: SocketAddr) -> Target {
    Target { server, zone: None, key: Some(key(MAY, SECRET)) }
}

fn publisher(clock: Clock) -> Publisher {
    Publisher { dialer: Arc::new(TcpDialer), clock, random: Random::system() }
}

async fn publish(target: &Target, records: &[Record], dry_run: bool) -> Result<Vec<Published>, Error> {
    publisher(Clock::system()).publish(target, records, dry_run).await
}

fn the_plan(mail_from: &str) -> Plan {
    plan(&PlanInput {
        domain: "example.com".parse().unwrap(),
        keys: vec![PlannedKey {
            selector: "k1".into(),
            // As long as that of an RSA key of 4,096 bits.
            record: format!("v=DKIM1; k=rsa; p={}", "A".repeat(736)),
            replaces: None,
            why: "the key that signs".into(),
        }],
        mail_from: Some(mail_from.parse().unwrap()),
        return_path: None,
        bounce_host: "mx.relay.example".parse().unwrap(),
        operator_domain: Some("relay.example".parse().unwrap()),
        sources: vec![],
        dmarc_reports: None,
        tls_reports: None,
    })
}

fn text(name: &str, text: &str) -> Record {
    Record {
        name: name.into(),
        data: Data::Txt(text.into()),
        ttl: 3600,
        place: Place::Domain,
        need: Need::Must,
        why: String::new(),
        replaces: None,
        state: None,
    }
}

fn resolver(knot: &Knot) -> HickoryResolver {
    let mut settings = Settings { servers: vec![NameServer(knot.address())], ..Settings::default() };
    settings.dnssec.validate = false;
    HickoryResolver::new(&settings, &Metrics::new()).unwrap()
}

fn outcomes(published: &[Published]) -> Vec<&Outcome> {
    published.iter().map(|published| &published.outcome).collect()
}

#[tokio::test]
async fn a_plan_is_published_once_and_found_again() {
    let knot = start();
    let target = target(knot.address());
    let mut plan = the_plan("bounce.example.com");
    plan.records.push(text("example.com", "v=spf1 include:_spf.relay.example ~all"));

    let dry = publish(&target, &plan.records, true).await.unwrap();
    assert!(outcomes(&dry).iter().all(|outcome| **outcome == Outcome::WouldAdd), "{dry:?}");
    let resolver = resolver(&knot);
    assert!(resolver.txt("k1._domainkey.example.com").await.is_err(), "a dry run changes nothing");

    let first = publish(&target, &plan.records, false).await.unwrap();
    assert!(outcomes(&first).iter().all(|outcome| **outcome == Outcome::Added), "{first:?}");
    plan.check(&resolver).await;
    let right = |record: &Record| record.state == Some(postrider_mailauth::records::State::Right);
    assert!(plan.records.iter().all(right), "{plan:#?}");
    let apex = resolver.txt("example.com").await.unwrap();
    assert_eq!(apex.value.len(), 2, "what was there stays");
    assert_eq!(apex.ttl.as_secs(), 77, "with its time to live");

    let second = publish(&target, &plan.records, false).await.unwrap();
    assert!(outcomes(&second).iter().all(|outcome| **outcome == Outcome::AlreadyRight), "{second:?}");
}

#[tokio::test]
async fn what_is_not_ours_stays_as_it_is() {
    let knot = start();
    let target = target(knot.address());
    let mut records = the_plan("busy.example.com").records;
    records.retain(|record| record.name == "busy.example.com");
    records.push(text("busy.example.com", "v=spf1 include:_spf.relay.example ~all"));
    records.push(text("alias.example.com", "v=DMARC1; p=none"));
    records.push(text("x.below.example.com", "v=DMARC1; p=none"));
    records.push(text("_spf.relay.example", "v=spf1 ~all"));
    let published = publish(&target, &records, false).await.unwrap();
    let [Outcome::Left { found: mx, .. }, Outcome::Left { advice, .. }, Outcome::Left { found: alias, .. }, rest @ ..] =
        &outcomes(&published)[..]
    else {
        panic!("{published:?}")
    };
    assert_eq!(mx, "10 mx.elsewhere.example.");
    assert!(advice.contains("v=spf1 include:_spf.relay.example -all"), "{advice}");
    assert!(alias.starts_with("CNAME www.example.com"), "{alias}");
    assert_eq!(rest, [&Outcome::Outside, &Outcome::Outside]);
    let resolver = resolver(&knot);
    let mx = resolver.mx(&"busy.example.com".parse().unwrap()).await.unwrap();
    assert_eq!(mx.value[0].exchange, "mx.elsewhere.example");
    assert_eq!(resolver.txt("busy.example.com").await.unwrap().value, ["v=spf1 -all"]);
}

#[tokio::test]
async fn a_key_takes_the_place_of_the_one_that_had_its_selector() {
    let knot = start();
    let (target, resolver) = (target(knot.address()), resolver(&knot));
    let name = "k1._domainkey.example.com";
    let key = |p: &str| text(name, &format!("v=DKIM1; k=rsa; p={p}"));
    let renewed = |p: &str, old: &str| Record { replaces: Some(format!("v=DKIM1; k=rsa; p={old}")), ..key(p) };
    publish(&target, &[key("QUFB")], false).await.unwrap();

    let published = publish(&target, &[renewed("Q0ND", "QkJC")], false).await.unwrap();
    assert!(matches!(published[0].outcome, Outcome::Left { .. }), "somebody else's: {published:?}");
    let dry = publish(&target, &[renewed("QkJC", "QUFB")], true).await.unwrap();
    assert_eq!(outcomes(&dry), [&Outcome::WouldReplace]);
    assert_eq!(resolver.txt(name).await.unwrap().value, ["v=DKIM1; k=rsa; p=QUFB"]);

    for expected in [Outcome::Replaced, Outcome::AlreadyRight] {
        let published = publish(&target, &[renewed("QkJC", "QUFB")], false).await.unwrap();
        assert_eq!(outcomes(&published), [&expected]);
    }
    let resolver = self::resolver(&knot);
    assert_eq!(resolver.txt(name).await.unwrap().value, ["v=DKIM1; k=rsa; p=QkJC"]);
}

#[tokio::test]
async fn reverse_zones_are_zones_too() {
    let knot = start();
    let ptr =
        Record { name: "7.2.0.192.in-addr.arpa".into(), data: Data::Ptr("out.relay.example".into()), ..text("", "") };
    let published = publish(&target(knot.address()), &[ptr], false).await.unwrap();
    assert_eq!(outcomes(&published), [&Outcome::Added]);
    let found = resolver(&knot).ptr("192.0.2.7".parse().unwrap()).await.unwrap();
    assert_eq!(found.value, ["out.relay.example"]);
}

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let knot = start();
    let good = target(knot.address());
    let records = [text("_dmarc.example.com", "v=DMARC1; p=none")];
    let with = |key| Target { key: Some(key), ..good.clone() };

    let unknown = publish(&with(key("nobody.knows", SECRET)), &records, false).await.unwrap_err();
    assert!(matches!(&unknown, Error::BadKey { key, .. } if key == "nobody.knows"), "{unknown}");
    let wrong = publish(&with(key(MAY, "d3Jvbmc=")), &records, false).await.unwrap_err();
    assert!(matches!(wrong, Error::BadSignature { .. }), "{wrong}");
    // Knot does not tell keys that it does not know from those that may not.
    let may_not = publish(&with(key(MAY_NOT, SECRET)), &records, false).await.unwrap_err();
    assert!(matches!(may_not, Error::BadKey { .. }), "{may_not}");
    let unsigned = publish(&Target { key: None, ..good.clone() }, &records, false).await.unwrap_err();
    assert!(matches!(unsigned, Error::Refused { .. } | Error::NotAuthorized { .. }), "{unsigned}");

    let elsewhere = publish(&good, &[text("_dmarc.example.org", "x")], false).await.unwrap_err();
    assert!(
        matches!(&elsewhere, Error::WrongZone { zone, .. } if zone.starts_with("_dmarc.example.org")),
        "{elsewhere}"
    );
    let inside = Target { zone: Some("sub.example.com".into()), ..good.clone() };
    let inside = publish(&inside, &records, false).await.unwrap_err();
    assert!(matches!(&inside, Error::WrongZone { zone, .. } if zone.starts_with("sub.example.com")), "{inside}");

    let late = Clock::simulated(Timestamp::from_millis(Clock::system().now().as_millis() + 3_600_000));
    let late = publisher(late).publish(&good, &records, false).await.unwrap_err();
    assert!(matches!(late, Error::BadTime { .. }), "{late}");
    assert!(resolver(&knot).txt("_dmarc.example.com").await.is_err(), "nothing was published");

    let address = knot.address();
    drop(knot);
    let gone = publish(&target(address), &records, false).await.unwrap_err();
    assert!(matches!(gone, Error::Unreachable { .. }), "{gone}");
}

/// A server that keeps `example.com`, has nothing in it, and says `code` to every update.
async fn acted(code: ResponseCode, spoil: fn(&mut Message)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Ok(length) = stream.read_u16().await {
            let mut question = vec![0; length.into()];
            stream.read_exact(&mut question).await.unwrap();
            let question = Message::from_vec(&question).unwrap();
            let mut answer = Message::response(question.id, question.op_code);
            answer.metadata.authoritative = true;
            if question.op_code == OpCode::Update {
                answer.metadata.response_code = code;
                spoil(&mut answer);
            } else {
                let zone = Name::from_ascii("example.com.").unwrap();
                let soa = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, 1);
                answer.add_authority(hickory_proto::rr::Record::from_rdata(zone, 1, RData::SOA(soa)));
            }
            let bytes = answer.to_vec().unwrap();
            stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn what_servers_say_is_told_apart() {
    use ResponseCode as R;
    let records = [text("_dmarc.example.com", "v=DMARC1; p=none")];
    let said = async |code, spoil: fn(&mut Message)| {
        let target = Target { server: acted(code, spoil).await, zone: None, key: None };
        publish(&target, &records, false).await
    };
    let quiet: fn(&mut Message) = |_| {};
    assert!(said(R::NoError, quiet).await.is_ok());
    assert!(matches!(said(R::Refused, quiet).await, Err(Error::Refused { .. })));
    assert!(matches!(said(R::NotAuth, quiet).await, Err(Error::NotAuthorized { .. })));
    assert!(matches!(said(R::NotZone, quiet).await, Err(Error::WrongZone { .. })));
    assert!(matches!(said(R::YXRRSet, quiet).await, Err(Error::Changed { .. })));
    assert!(matches!(said(R::NotImp, quiet).await, Err(Error::Failed { .. })));
    assert!(matches!(said(R::NoError, |answer| answer.metadata.id ^= 1).await, Err(Error::Untrusted { .. })));

    let unsigned = target(acted(R::NoError, quiet).await);
    let unsigned = publish(&unsigned, &records, false).await;
    assert!(matches!(unsigned, Err(Error::Untrusted { .. })), "whoever stands in between can not say yes");
}
