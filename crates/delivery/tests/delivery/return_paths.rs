//! What hosts hear in MAIL FROM where bounces are to find their messages.

use postrider_account::{Identity, MailFrom, MailFromFailure, VerificationStatus};
use postrider_delivery::Delivery;
use postrider_mail::{AccountId, VerpScope};
use postrider_submission::{MacKey, ReturnPaths};

use crate::rig::{HOST, Rig, is_delivered, routes};
use crate::server::{Say, Server};

async fn rig() -> (Rig, ReturnPaths) {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let domain = "bounces.example.net".parse().unwrap();
    let paths = ReturnPaths::new(rig.accounts.clone(), MacKey::new(&[1; 32]), domain);
    (rig, paths)
}

fn deliver(rig: &Rig, paths: &ReturnPaths) {
    let mut deps = rig.deps(routes(&[]));
    deps.return_paths = Some(paths.clone());
    Delivery::start(deps, &rig.scope).unwrap();
}

/// The address in a MAIL command.
fn sender(line: &str) -> &str {
    let (_, rest) = line.split_once('<').unwrap();
    rest.split_once('>').unwrap().0
}

#[tokio::test(start_paused = true)]
async fn a_return_path_leads_back_to_the_message_and_its_recipient() {
    let (mut rig, paths) = rig().await;
    let host = Server::scripted(&rig.net, HOST, |moment| {
        match moment.line.starts_with("RCPT TO:<bob") && moment.connection == 0 {
            true => Say::Reply("450 4.2.0 greylisted"),
            false => Say::Usual,
        }
    });
    deliver(&rig, &paths);
    let id = rig.send(&["ann@example.com", "bob@example.com"]).await;
    rig.outcomes(id, 2).await;
    assert!(is_delivered(&rig.outcome(id).await));
    let seen = host.seen();
    let read = |at: usize| paths.read(&sender(seen.with("MAIL")[at]).parse().unwrap()).unwrap();
    assert_eq!((read(0).id, read(0).scope), (id, VerpScope::DomainOf(0)), "together");
    assert_eq!((read(1).id, read(1).scope), (id, VerpScope::One(1)), "bob alone");
    assert!(sender(seen.with("MAIL")[0]).ends_with("@bounces.example.net"));
}

#[tokio::test(start_paused = true)]
async fn it_is_in_the_mail_from_domain_of_the_author() {
    let (mut rig, paths) = rig().await;
    let host = Server::start(&rig.net, HOST);
    let mut identity = Identity::new(AccountId::default(), "example.org".parse().unwrap());
    let domain = "back.example.org".parse().unwrap();
    let pending = MailFrom::pending(domain, MailFromFailure::UseDefault, rig.clock.now());
    identity.mail_from = Some(MailFrom { status: VerificationStatus::Success, ..pending });
    rig.accounts.identities().create(identity).await.unwrap();
    deliver(&rig, &paths);
    let mut message = rig.message(&["ann@example.com"]);
    message.origin.headers.fields = vec![("From".to_owned(), "Zoe <zoe@example.org>".to_owned())];
    let id = rig.accept(message).await;
    assert!(is_delivered(&rig.outcome(id).await));
    let seen = host.seen();
    let path = sender(seen.with("MAIL")[0]).to_owned();
    assert!(path.ends_with("@back.example.org"), "{path}");
    assert_eq!(paths.read(&path.parse().unwrap()).unwrap().scope, VerpScope::One(0));
}

#[tokio::test(start_paused = true)]
async fn the_null_sender_stays_and_a_bounce_goes_to_the_sender_himself() {
    let (mut rig, paths) = rig().await;
    let host = Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT TO:<gone") {
        true => Say::Reply("550 5.1.1 no such user"),
        false => Say::Usual,
    });
    deliver(&rig, &paths);
    let mut null = rig.message(&["ann@example.com"]);
    null.envelope.sender = None;
    let null = rig.accept(null).await;
    assert!(is_delivered(&rig.outcome(null).await));
    assert_eq!(sender(host.seen().with("MAIL")[0]), "");
    rig.send(&["gone@example.com"]).await;
    let bounce = rig.own_message().await;
    assert_eq!(bounce.envelope.recipients[0].address, "sender@example.net".parse().unwrap());
    assert_eq!(bounce.envelope.sender, None);
}
