//! What acceptance asks the author's identity, and the return path that its mail leaves with.

use postrider_account::{Identity, MailFrom, MailFromFailure, VerificationStatus};
use postrider_mail::VerpScope;
use postrider_mailauth::MacKey;
use postrider_spool::SOURCE_ARN_TAG;

use super::*;
use crate::{ReturnPath, ReturnPaths};

fn from_ann() -> SubmissionRequest {
    request(Some("ann@example.com"), &["b@example.org"], &["From: Ann <ann@mail.example.com>\r\n\r\n"])
}

/// Gives the domain a MAIL FROM domain of this status.
async fn set(world: &World, on_failure: MailFromFailure, status: VerificationStatus) {
    let (account, name) = (AccountId::default(), "example.com".parse().unwrap());
    let domain = "bounce.example.com".parse().unwrap();
    let mail_from = MailFrom { status, ..MailFrom::pending(domain, on_failure, NOW) };
    let identities = world.accounts.identities();
    if identities.find(account, &name).is_none() {
        identities.create(Identity::new(account, name.clone())).await.unwrap();
    }
    identities.change(account, &name, |identity| identity.mail_from = Some(mail_from)).await.unwrap();
}

#[tokio::test]
async fn mail_is_refused_where_its_mail_from_domain_is_not_verified_and_that_was_asked_for() {
    let world = world_with(|settings| settings.return_path = ReturnPath::Verp, Default::default()).await;
    world.submission.submit(from_ann()).await.unwrap();
    for status in [VerificationStatus::Pending, VerificationStatus::TemporaryFailure, VerificationStatus::Failed] {
        set(&world, MailFromFailure::Reject, status).await;
        assert_eq!(world.submission.submit(from_ann()).await, Err(Refusal::MailFromDomainNotVerified), "{status:?}");
        set(&world, MailFromFailure::UseDefault, status).await;
        world.submission.submit(from_ann()).await.unwrap();
    }
    set(&world, MailFromFailure::Reject, VerificationStatus::Success).await;
    world.submission.submit(from_ann()).await.unwrap();

    set(&world, MailFromFailure::Reject, VerificationStatus::Pending).await;
    for content in ["From: ann@example.net\r\n\r\n", "Subject: nobody's\r\n\r\n"] {
        let others = request(Some("ann@example.com"), &["b@example.org"], &[content]);
        world.submission.submit(others).await.unwrap();
    }
    let bounce = Envelope { sender: None, ..from_ann().envelope };
    world.submission.submit(SubmissionRequest { envelope: bounce, ..from_ann() }).await.unwrap();
}

#[tokio::test]
async fn a_mail_from_domain_that_no_return_path_is_in_decides_nothing() {
    let world = world().await;
    set(&world, MailFromFailure::Reject, VerificationStatus::Failed).await;
    world.submission.submit(from_ann()).await.unwrap();
}

#[tokio::test]
async fn mail_without_an_author_is_counted() {
    let world = world().await;
    for (content, count) in
        [("From: A \" b <ann@example.com>\r\n\r\n", 0), ("From: Ann:;\r\n\r\n", 1), ("To: x@y\r\n\r\n", 2)]
    {
        world.submission.submit(request(Some("ann@example.com"), &["b@example.org"], &[content])).await.unwrap();
        assert_eq!(world.metrics.messages_without_author.get(), count, "{content}");
    }
}

#[tokio::test]
async fn a_message_that_names_no_configuration_set_goes_with_that_of_its_identity() {
    let world = world().await;
    let (account, identities) = (AccountId::default(), world.accounts.identities());
    for name in ["news", "bills", "alerts"] {
        world.accounts.configuration_sets().create(account, name, Vec::new()).await.unwrap();
    }
    for (name, set) in [("example.com", Some("news")), ("bill@example.com", Some("bills")), ("ann@example.com", None)] {
        let default_configuration_set = set.map(str::to_owned);
        let identity = Identity { default_configuration_set, ..Identity::new(account, name.parse().unwrap()) };
        identities.create(identity).await.unwrap();
    }
    let mut taken = Vec::new();
    // Where the source is the author's domain it is not said.
    for (content, set, source) in [
        ("From: x@mail.example.com\r\n\r\n", Some("news"), Some("example.com")),
        ("From: bill+may@example.com\r\n\r\n", Some("bills"), Some("bill@example.com")),
        ("From: ann@example.com\r\n\r\n", Some("news"), Some("ann@example.com")),
        ("From: eve@example.com\r\n\r\n", Some("news"), None),
        ("From: bill@example.com\r\nX-SES-CONFIGURATION-SET: alerts\r\n\r\n", Some("alerts"), Some("bill@example.com")),
        ("From: x@example.net\r\n\r\n", None, None),
    ] {
        world.submission.submit(request(Some("x@example.com"), &["b@example.org"], &[content])).await.unwrap();
        // Kept, so that it is not due again.
        taken.extend(world.spool.take_due(10).await);
        let message = &taken.last().unwrap().message;
        assert_eq!(message.origin.configuration_set.as_deref(), set, "{content}");
        let arn = |name| format!("arn:aws:ses:us-east-1:000000000001:identity/{name}");
        let tags: Vec<_> = source.map(|name| (SOURCE_ARN_TAG.to_owned(), arn(name))).into_iter().collect();
        assert_eq!(message.origin.tags, tags, "{content}");
    }
}

#[tokio::test]
async fn the_domains_of_return_paths_are_those_that_identities_have_now() {
    let world = world().await;
    let paths = ReturnPaths::new(world.accounts.clone(), MacKey::new(&[7; 32]), "bounces.example.net".parse().unwrap());
    let is_ours = |domain: &str| paths.is_domain(&domain.parse().unwrap());
    assert!(is_ours("bounces.example.net") && !is_ours("bounce.example.com") && !is_ours("example.com"));
    set(&world, MailFromFailure::UseDefault, VerificationStatus::Pending).await;
    assert!(is_ours("Bounce.Example.com") && paths.clone().is_domain(&"bounce.example.com".parse().unwrap()));
    let (account, name) = (AccountId::default(), "example.com".parse().unwrap());
    world.accounts.identities().change(account, &name, |identity| identity.mail_from = None).await.unwrap();
    assert!(is_ours("bounces.example.net") && !is_ours("bounce.example.com"));
}

#[tokio::test]
async fn a_return_path_names_the_message_and_is_in_the_verified_domain() {
    let world = world().await;
    let key = MacKey::new(&[7; 32]);
    let paths = ReturnPaths::new(world.accounts.clone(), key, "bounces.example.net".parse().unwrap());
    let id = world.submission.submit(from_ann()).await.unwrap();
    let (message, _) = world.due().await;

    let path = paths.of(&message, VerpScope::One(0)).unwrap();
    assert_eq!(path.domain().as_str(), "bounces.example.net");
    let read = paths.read(&path.as_str().to_uppercase().parse().unwrap()).unwrap();
    assert_eq!((read.id, read.scope), (id, VerpScope::One(0)));
    let together = paths.of(&message, VerpScope::DomainOf(0)).unwrap();
    assert_eq!(paths.read(&together).unwrap().scope, VerpScope::DomainOf(0));
    assert_ne!(path, together);

    set(&world, MailFromFailure::UseDefault, VerificationStatus::TemporaryFailure).await;
    assert_eq!(paths.of(&message, VerpScope::One(0)), Some(path.clone()));
    set(&world, MailFromFailure::UseDefault, VerificationStatus::Success).await;
    assert_eq!(
        paths.of(&message, VerpScope::One(0)).unwrap(),
        format!("{}@bounce.example.com", path.local()).parse().unwrap()
    );
}

#[tokio::test]
async fn return_paths_of_others_are_nothing_and_the_null_sender_has_none() {
    let world = world().await;
    let with = |key| ReturnPaths::new(world.accounts.clone(), MacKey::new(&[key; 32]), "b.example".parse().unwrap());
    let (paths, others) = (with(1), with(2));
    world
        .submission
        .submit(SubmissionRequest { envelope: Envelope { sender: None, ..from_ann().envelope }, ..from_ann() })
        .await
        .unwrap();
    let (message, _) = world.due().await;
    assert_eq!(paths.of(&message, VerpScope::One(0)), None);

    let sent = Message { envelope: from_ann().envelope, ..(*message).clone() };
    let path = paths.of(&sent, VerpScope::One(0)).unwrap();
    assert!(paths.read(&path).is_some());
    assert_eq!(others.read(&path), None, "made with another key");
    assert_eq!(paths.read(&"ann@b.example".parse().unwrap()), None);
}
