//! Policies that recipient domains publish (MTA-STS, RFC 8461).

use postrider_delivery::Settings;
use postrider_delivery::sts::policy::Mode;
use postrider_mail::{AttemptOutcome, BounceKind, DelayType, Disposition};

use crate::rig::{DAY, HOUR, Rig, is_delivered, routes};
use crate::server::{Say, Server, Setup};
use crate::web::{Authority, Reply, Web};

const GOOD: &str = "198.51.100.1";
const OTHER: &str = "198.51.100.2";

/// A domain with two hosts, of which the policy names the one that is not
/// preferred.
struct World {
    rig: Rig,
    authority: Authority,
    web: Web,
    settings: Settings,
}

fn policy(mode: &str) -> Reply {
    Reply::text(&format!("version: STSv1\r\nmode: {mode}\r\nmx: mx.example.com\r\nmax_age: 604800\r\n"))
}

impl World {
    async fn new(mode: &str) -> Self {
        let (rig, authority) = (Rig::new().await, Authority::new());
        rig.zones
            .add_mx("example.com", 10, "other.example.net")
            .add_address("other.example.net", OTHER)
            .add_mx("example.com", 20, "mx.example.com")
            .add_address("mx.example.com", GOOD)
            .add_txt("_mta-sts.example.com", "v=STSv1; id=1;")
            .add_address("mta-sts.example.com", "198.51.100.80");
        let web = Web::start(&rig.net, "198.51.100.80:443", authority.acceptor("mta-sts.example.com"), policy(mode));
        let mut settings = routes(&[]);
        settings.tls.ca_file = Some(authority.file());
        Self { rig, authority, web, settings }
    }

    /// A host with a certificate for this name; without TLS where there is none.
    fn host(&self, ip: &str, name: Option<&str>) -> Server {
        let setup = Setup { acceptor: name.map(|name| self.authority.acceptor(name)), ..Setup::default() };
        Server::with(&self.rig.net, &format!("{ip}:25"), setup, |_| Say::Usual)
    }

    async fn send(&mut self) -> AttemptOutcome {
        let id = self.rig.send(&["ann@example.com"]).await;
        self.rig.outcome(id).await
    }

    /// One message, with the delivery just started.
    async fn deliver_one(&mut self) -> AttemptOutcome {
        self.rig.deliver(self.settings.clone());
        self.send().await
    }
}

fn assert_deferred(outcome: &AttemptOutcome, text: &str) {
    assert_eq!(outcome.disposition, Disposition::Deferred(DelayType::General), "{outcome:?}");
    assert_eq!(outcome.status.to_string(), "4.7.5");
    assert!(outcome.diagnostic.contains(text), "{}", outcome.diagnostic);
}

#[tokio::test(start_paused = true)]
async fn mail_goes_to_a_host_of_the_policy_that_proves_its_name() {
    let mut world = World::new("enforce").await;
    let good = world.host(GOOD, Some("mx.example.com"));
    let other = world.host(OTHER, Some("other.example.net"));
    let delivery = world.rig.deliver(world.settings.clone());
    let outcome = world.send().await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert!(outcome.tls.unwrap().authenticated);
    assert_eq!((good.seen().messages.len(), other.seen().connections), (1, 0));
    let kept = delivery.policy(&"example.com".parse().unwrap()).unwrap().unwrap();
    assert_eq!((kept.policy.mode, kept.id.as_str()), (Mode::Enforce, "1"));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_prove_its_name_gets_nothing_until_the_mail_expires() {
    for name in [Some("other.example.net"), None] {
        let mut world = World::new("enforce").await;
        let good = world.host(GOOD, name);
        let other = world.host(OTHER, Some("other.example.net"));
        world.rig.deliver(world.settings.clone());
        let id = world.rig.send(&["ann@example.com"]).await;
        let outcomes = world.rig.until_final(id).await;
        let (last, deferred) = outcomes.split_last().unwrap();
        assert!(deferred.len() > 10, "{}", deferred.len());
        for outcome in deferred {
            assert_deferred(outcome, "No acceptable TLS");
        }
        assert_eq!(last.disposition, Disposition::Bounced(BounceKind::TransientGeneral));
        assert!(last.at.saturating_since(outcomes[0].at) > 4 * DAY - HOUR);
        assert!(good.seen().with("MAIL").is_empty() && other.seen().connections == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn mail_to_hosts_that_the_policy_does_not_name_waits_for_another_policy() {
    let mut world = World::new("enforce").await;
    world.web.now_replies(Reply::text("version: STSv1\nmode: enforce\nmx: *.mail.example.com\nmax_age: 604800\n"));
    let good = world.host(GOOD, Some("mx.example.com"));
    world.rig.deliver(world.settings.clone());
    let id = world.rig.send(&["ann@example.com"]).await;
    let outcome = world.rig.outcome(id).await;
    assert_deferred(&outcome, "no mail host of example.com is named by its MTA-STS policy");
    assert_eq!(good.seen().connections, 0);
    world.web.now_replies(policy("enforce"));
    let outcome = world.rig.outcome(id).await;
    assert_deferred(&outcome, "no mail host");
    world.rig.zones.remove("_mta-sts.example.com").add_txt("_mta-sts.example.com", "v=STSv1; id=2;");
    let outcome = world.rig.outcome(id).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_in_testing_and_one_taken_back_keep_nothing_from_leaving() {
    for mode in ["testing", "none"] {
        let mut world = World::new(mode).await;
        let other = world.host(OTHER, None);
        assert!(is_delivered(&world.deliver_one().await), "{mode}");
        assert_eq!((other.seen().messages.len(), world.web.requests().len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_that_can_be_fetched_mail_leaves_as_ever() {
    for reply in [Reply::Silence, Reply::Drip(vec![b'x'; 100]), Reply::status("200 OK", "text/html", "<html>")] {
        let mut world = World::new("enforce").await;
        world.web.now_replies(reply);
        let other = world.host(OTHER, None);
        assert!(is_delivered(&world.deliver_one().await));
        assert_eq!(other.seen().messages.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn who_hides_the_policy_later_hides_it_from_nobody() {
    let mut world = World::new("enforce").await;
    world.host(GOOD, Some("mx.example.com"));
    assert!(is_delivered(&world.deliver_one().await));
    // Now somebody sits in between: no record, no policy, a host of his own.
    world.rig.zones.remove("_mta-sts.example.com").remove("mta-sts.example.com").remove("mx.example.com");
    let other = world.host(OTHER, None);
    world.rig.power_cut().await;
    tokio::time::sleep(2 * HOUR).await;
    let outcome = world.deliver_one().await;
    assert!(matches!(outcome.disposition, Disposition::Deferred(_)), "{outcome:?}");
    tokio::time::sleep(5 * DAY).await;
    assert_eq!(other.seen().connections, 0);
    // The policy's life is over.
    tokio::time::sleep(2 * DAY).await;
    assert!(is_delivered(&world.send().await));
}

#[tokio::test(start_paused = true)]
async fn a_sender_who_wants_it_delivered_all_the_same_has_it() {
    let mut world = World::new("enforce").await;
    let other = world.host(OTHER, None);
    world.rig.deliver(world.settings.clone());
    let mut message = world.rig.message(&["ann@example.com"]);
    message.tls_optional = true;
    let id = world.rig.accept(message).await;
    assert!(is_delivered(&world.rig.outcome(id).await));
    assert!(matches!(world.send().await.disposition, Disposition::Deferred(_)));
    assert_eq!(other.seen().messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_domain_without_a_policy_shares_nothing_with_one_that_has_it() {
    let mut world = World::new("enforce").await;
    world.rig.zones.add_mx("example.org", 10, "mx.example.com");
    let good = world.host(GOOD, Some("another.example.com"));
    world.rig.deliver(world.settings.clone());
    let id = world.rig.send(&["bob@example.org"]).await;
    assert!(is_delivered(&world.rig.outcome(id).await));
    assert_deferred(&world.send().await, "No acceptable TLS");
    assert_eq!(good.seen().messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn turned_off_nobody_is_asked() {
    let mut world = World::new("enforce").await;
    world.settings.tls.mta_sts = false;
    let other = world.host(OTHER, None);
    assert!(is_delivered(&world.deliver_one().await));
    assert_eq!((other.seen().messages.len(), world.rig.zones.queries("_mta-sts.example.com")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_domain_hold_under_its_policy() {
    let mut world = World::new("enforce").await;
    let good = world.host(GOOD, Some("mx.example.com"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shaping.toml");
    std::fs::write(&file, "[domain.\"example.com\"]\nrate = \"1/h\"\n").unwrap();
    world.settings.shaping.file = Some(file);
    world.rig.deliver(world.settings.clone());
    let (first, second) = (world.rig.send(&["ann@example.com"]).await, world.rig.send(&["bob@example.com"]).await);
    let (first, second) = (world.rig.outcome(first).await, world.rig.outcome(second).await);
    assert!(is_delivered(&first) && is_delivered(&second), "{first:?} {second:?}");
    let (earlier, later) = (first.at.min(second.at), first.at.max(second.at));
    assert!(later.saturating_since(earlier) >= HOUR - HOUR / 60, "{first:?} {second:?}");
    assert_eq!(good.seen().messages.len(), 2);
}
