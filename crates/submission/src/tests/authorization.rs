//! What policies let a client send, and identities of other accounts.

use postrider_account::{Identity, IdentityName, PolicyOwner, Realm};
use postrider_mailauth::dkim::Sealing;
use postrider_spool::SOURCE_ARN_TAG;

use super::*;
use crate::{DkimSettings, KeyRing, KeyRingDeps, Signing};

const KEY: &str = include_str!("../../../mailauth/tests/keys/rsa-2048-pkcs8.pem");
const USER_ARN: &str = "arn:aws:iam::000000000001:user/AKIAIOSFODNN7EXAMPLE";
const LENT: &str = "arn:aws:ses:us-east-1:000000000002:identity/lent.example";

fn owner() -> AccountId {
    AccountId::new(2).unwrap()
}

fn realm() -> Realm {
    Settings::default().realm()
}

/// The client's account has example.com, another one lent.example; both are verified.
async fn world() -> World {
    let world =
        world_with(|settings| settings.unverified_senders = UnverifiedSenders::Reject, Default::default()).await;
    for (account, name) in [(AccountId::default(), "example.com"), (owner(), "lent.example")] {
        let identity = Identity { trusted: true, ..Identity::new(account, name.parse().unwrap()) };
        world.accounts.identities().create(identity).await.unwrap();
    }
    world
}

impl World {
    async fn limit(&self, condition: &str) {
        let text = format!(
            r#"{{"Statement":{{"Effect":"Allow","Action":"ses:SendRawEmail","Resource":"*","Condition":{condition}}}}}"#
        );
        self.put(&PolicyOwner::Credential(USER.to_owned()), &text).await;
    }

    async fn lend(&self, effect: &str, condition: &str) {
        let text = format!(
            r#"{{"Statement":{{"Effect":"{effect}","Principal":{{"AWS":"000000000001"}},"Action":"ses:SendRawEmail",
                "Resource":"{LENT}","Condition":{condition}}}}}"#
        );
        let name: IdentityName = "lent.example".parse().unwrap();
        self.put(&PolicyOwner::Identity(owner(), name), &text).await;
    }

    async fn put(&self, owner: &PolicyOwner, text: &str) {
        self.accounts.policies().put(owner, "test", text, &realm()).await.unwrap();
    }

    /// The reply to a message from `ann` of this domain, with these fields in its header.
    async fn reply(&self, domain: &str, fields: &str) -> String {
        let content = format!("From: Ann <ann@{domain}>\r\n{fields}\r\nbody\r\n");
        let mut message = request(Some(&format!("ann@{domain}")), &["b@example.org", "c@example.org"], &[]);
        message.content = vec![Bytes::from(content)];
        match self.submission.submit(message).await {
            Ok(_) => "taken".to_owned(),
            Err(refusal) => refusal.reply().to_string(),
        }
    }
}

fn denied(resource: &str) -> String {
    format!(
        "554 5.7.1 Access denied: User `{USER_ARN}' is not authorized to perform `ses:SendRawEmail' on resource \
         `{resource}'"
    )
}

#[tokio::test]
async fn a_credential_may_what_its_policies_allow() {
    let world = world().await;
    let example = denied("arn:aws:ses:us-east-1:000000000001:identity/example.com");
    assert_eq!(world.reply("example.com", "").await, "taken");
    for (condition, is_taken) in [
        (r#"{"ForAllValues:StringLike":{"ses:Recipients":"*@example.org"}}"#, true),
        (r#"{"ForAllValues:StringLike":{"ses:Recipients":"b@*"}}"#, false),
        (r#"{"ForAnyValue:StringLike":{"ses:Recipients":"b@*"}}"#, true),
        (r#"{"StringEquals":{"ses:FromDisplayName":"Ann","ses:FromAddress":"ann@example.com"}}"#, true),
        (r#"{"StringEquals":{"ses:FromDisplayName":"Bob"}}"#, false),
        (r#"{"StringEquals":{"ses:FeedbackAddress":"ann@example.com"}}"#, true),
        (r#"{"StringEquals":{"ses:FeedbackAddress":"bounces@example.com"}}"#, false),
        (r#"{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"},"Bool":{"aws:SecureTransport":"true"}}"#, true),
        (r#"{"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, false),
        (r#"{"DateLessThan":{"aws:CurrentTime":"2017-08-05T01:00:00Z"}}"#, true),
        (r#"{"DateLessThan":{"aws:CurrentTime":"2017-08-05T00:41:02Z"}}"#, false),
        (r#"{"Null":{"aws:UserAgent":"true"}}"#, true),
    ] {
        world.limit(condition).await;
        let expected = if is_taken { "taken" } else { &example };
        assert_eq!(world.reply("example.com", "").await, expected, "{condition}");
    }
    // Bounces go to the envelope's sender, whatever a field says.
    world.limit(r#"{"StringEquals":{"ses:FeedbackAddress":"bounces@example.com"}}"#).await;
    assert_eq!(world.reply("example.com", "Return-Path: <bounces@example.com>\r\n").await, example);
    world.accounts.credentials().delete(USER).await.unwrap();
    world.accounts.policies().forget(&PolicyOwner::Credential(USER.to_owned())).await.unwrap();
    assert_eq!(world.reply("example.com", "").await, example, "a session outlives its credential");
}

#[tokio::test]
async fn identities_of_others_must_be_named_and_allow_it() {
    let world = world().await;
    let named = format!("X-SES-SOURCE-ARN: {LENT}\r\n");
    let unverified = world.reply("lent.example", "").await;
    assert!(unverified.starts_with("554 5.7.1 Message rejected: Email address is not verified."), "{unverified}");
    assert_eq!(world.reply("lent.example", &named).await, denied(LENT));
    world.lend("Allow", "{}").await;
    assert_eq!(world.reply("lent.example", &named).await, "taken");
    assert!(world.reply("lent.example", "").await.contains("not verified"), "it must be named");
    let all = format!("{named}X-SES-FROM-ARN: {LENT}\r\nX-SES-RETURN-PATH-ARN: {LENT}\r\nX-SES-SOURCE-ARN: none\r\n");
    assert_eq!(world.reply("lent.example", &all).await, "taken", "the first of each counts");
    assert_eq!(world.reply("example.com", &named).await, denied(LENT), "it does not cover the address");
    let none = LENT.replace("lent", "absent");
    assert_eq!(world.reply("absent.example", &format!("X-SES-SOURCE-ARN: {none}\r\n")).await, denied(&none));

    world.limit(r#"{"StringEquals":{"ses:FromAddress":"bob@lent.example"}}"#).await;
    assert_eq!(world.reply("lent.example", &named).await, denied(LENT), "the credential's own policy denies it");
    world.limit("{}").await;
    world.lend("Deny", "{}").await;
    assert_eq!(world.reply("lent.example", &named).await, denied(LENT), "the change holds at once");
}

#[tokio::test]
async fn each_author_has_a_name_of_its_own() {
    let world = world().await;
    let from = |from: &str| {
        let mut message = request(Some("ann@example.com"), &["b@example.org"], &[]);
        message.content = vec![Bytes::from(format!("From: {from}\r\n\r\nbody\r\n"))];
        world.submission.submit(message)
    };
    world.limit(r#"{"StringEquals":{"ses:FromDisplayName":"Marketing"}}"#).await;
    assert!(from("Marketing <ann@example.com>, Marketing <bob@example.com>").await.is_ok());
    for bad in [
        "Marketing <ann@example.com>, The CEO <bob@example.com>",
        "Marketing <ann@example.com>, The CEO <ann@example.com>",
        "Marketing <ann@example.com>, bob@example.com",
        "ann@example.com (The CEO)",
        "The CEO: ann@example.com;",
    ] {
        assert!(matches!(from(bad).await, Err(Refusal::AccessDenied(_))), "{bad}");
    }
    world.limit(r#"{"StringNotLike":{"ses:FromDisplayName":"*CEO*"}}"#).await;
    assert!(from("ann@example.com").await.is_ok());
    for bad in ["The CEO <ann@example.com>", "ann@example.com (The CEO)", "The CEO: ann@example.com;"] {
        assert!(matches!(from(bad).await, Err(Refusal::AccessDenied(_))), "a name that is seen: {bad}");
    }
}

#[tokio::test]
async fn what_of_a_name_can_not_be_read_is_no_way_around_a_policy() {
    let world = world().await;
    let from = |from: &[u8]| {
        let mut message = request(Some("ann@example.com"), &["b@example.org"], &[]);
        message.content = vec![Bytes::from([b"From: ", from, b"\r\n\r\nbody\r\n"].concat())];
        world.submission.submit(message)
    };
    let unreadable: [&[u8]; 4] = [
        b"Jos\xe9 <ann@example.com>",
        b"=?utf-8?q?Jos=e9?= <ann@example.com>",
        b"=?x-own?q?Jos=e9?= <ann@example.com>",
        b"ann@example.com (Jos\xe9)",
    ];
    for name in unreadable {
        assert!(from(name).await.is_ok(), "nobody asks: {}", name.escape_ascii());
    }
    let condition = |operator: &str| format!(r#"{{"{operator}":{{"ses:FromDisplayName":"*Jos\u00e9*"}}}}"#);
    for operator in ["StringNotLike", "StringLike"] {
        world.limit(&condition(operator)).await;
        for name in unreadable {
            let refused = matches!(from(name).await, Err(Refusal::AccessDenied(_)));
            assert!(refused, "{operator}: {}", name.escape_ascii());
        }
    }
    assert!(from("=?iso-8859-1?q?Jos=e9?= <ann@example.com>".as_bytes()).await.is_ok());
    assert!(matches!(from(b"jos\xe9@example.com").await, Err(Refusal::BadAddress(_))));
}

#[tokio::test]
async fn arns_that_name_no_identity_are_explained() {
    let world = world().await;
    for (field, why) in [
        ("X-SES-SOURCE-ARN: lent.example", "an ARN has six parts: arn:partition:service:region:account:resource"),
        (
            "X-SES-FROM-ARN: arn:aws:sns:us-east-1:000000000002:topic",
            "the ARN of an identity is arn:partition:ses:region:account:identity/DOMAIN-OR-ADDRESS",
        ),
        (
            "X-SES-SOURCE-ARN: arn:aws:ses:eu-west-1:000000000002:identity/lent.example",
            "it is of another region: here it is us-east-1",
        ),
        ("X-SES-FROM-ARN: arn:aws:ses:us-east-1:2:identity/lent.example", "the account of an ARN has 12 digits"),
    ] {
        let (name, _) = field.split_once(':').unwrap();
        let expected = format!("554 5.6.0 Transaction failed: {name}: {why}");
        assert_eq!(world.reply("lent.example", &format!("{field}\r\n")).await, expected);
    }
}

#[tokio::test]
async fn the_owner_of_a_lent_identity_signs() {
    let world = world().await;
    world.lend("Allow", "{}").await;
    let (clock, random) = (Clock::simulated(NOW), Random::seeded(5));
    let ring = KeyRing::new(KeyRingDeps {
        accounts: world.accounts.clone(),
        sealer: Sealing::ephemeral(&random).unwrap().into(),
        clock: clock.clone(),
        random: random.clone(),
        max_open: 2,
        retention: Duration::from_hours(1),
    });
    let (domain, selector) = ("lent.example".parse().unwrap(), "s1".parse().unwrap());
    ring.import(owner(), &domain, selector, KEY).await.unwrap();
    ring.rotate(owner(), &domain, Some(&"s1".parse().unwrap()), true).await.unwrap();
    let signing = Signing::start(ring, &DkimSettings::default(), None, world.metrics.clone()).unwrap();
    let deps = SubmissionDeps {
        spool: world.spool.clone(),
        accounts: world.accounts.clone(),
        clock,
        random,
        metrics: world.metrics.clone(),
    };
    let submission = Submission::signing(deps, world.submission.settings().clone(), signing);
    let content = format!("From: ann@lent.example\r\nX-SES-SOURCE-ARN: {LENT}\r\n\r\nbody\r\n");
    let mut message = request(Some("ann@lent.example"), &["b@example.org"], &[]);
    message.content = vec![Bytes::from(content)];
    submission.submit(message).await.unwrap();
    let (message, text) = world.due().await;
    assert!(text.contains("d=lent.example"), "{text}");
    assert!(!text.to_uppercase().contains("X-SES-"), "{text}");
    assert_eq!(message.account, AccountId::default(), "it is the delegate's mail");
    assert_eq!(message.origin.tags, [(SOURCE_ARN_TAG.to_owned(), LENT.to_owned())], "from its owner's identity");
}
