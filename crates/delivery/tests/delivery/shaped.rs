//! What operators and senders say about how mail leaves, in force.

use std::path::PathBuf;
use std::time::Duration;

use postrider_account::{ConfigurationOption, TlsPolicy};
use postrider_base::Period;
use postrider_delivery::Settings;
use postrider_delivery::shaping::PauseRequest;
use postrider_mail::{AccountId, BounceKind, Disposition, MessageId};

use crate::rig::{HOST, MINUTE, Rig, is_delivered, rig, routes};
use crate::server::{Say, Server, Setup};
use crate::tls::Certificate;

/// Settings with a shaping file that says this.
pub(crate) fn shaped(dir: &tempfile::TempDir, rules: &str) -> Settings {
    let file: PathBuf = dir.path().join("shaping.toml");
    std::fs::write(&file, rules).unwrap();
    let mut settings = routes(&[]);
    settings.shaping.file = Some(file);
    settings
}

async fn send_with(rig: &Rig, set: &str, recipient: &str) -> MessageId {
    let mut message = rig.message(&[recipient]);
    message.expires_at = message.accepted_at.saturating_add(10 * MINUTE);
    message.origin.configuration_set = Some(set.to_owned());
    rig.accept(message).await
}

async fn make_set(rig: &Rig, name: &str, option: ConfigurationOption) {
    rig.accounts.configuration_sets().create(AccountId::default(), name, vec![option]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn connections_are_counted_over_all_sites_of_a_provider() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new().await;
    let mut servers = Vec::new();
    for n in 0..5 {
        let (host, ip) = (format!("mx{n}.provider.example"), format!("198.51.100.{n}"));
        rig.mx(&format!("d{n}.example"), &host, &ip);
        // An octet a second: each message keeps its connection for a while.
        servers.push(Server::scripted(&rig.net, &format!("{ip}:25"), |moment| match moment.line.as_str() {
            "." => Say::Slow("250 taken\r\n"),
            _ => Say::Usual,
        }));
    }
    let settings = shaped(&dir, "[provider.big]\nmx = [\".provider.example\"]\nconnections = 3\n");
    rig.deliver(settings);
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(rig.send(&[&format!("ann@d{}.example", n % 5)]).await);
    }
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
        let open: usize = servers.iter().map(|server| server.seen().open.0).sum();
        assert!(open <= 3, "{open}");
    }
    assert!(servers.iter().all(|server| server.seen().with("MAIL").len() == 10));
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_over_all_connections() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig().await;
    let server = Server::start(&rig.net, HOST);
    rig.deliver(shaped(&dir, "[site.\"mx.example.com\"]\nrate = \"60/m\"\n"));
    let began = rig.clock.now();
    let mut ids = Vec::new();
    for _ in 0..120 {
        ids.push(rig.send(&["ann@example.com"]).await);
    }
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    let took = rig.clock.now().saturating_since(began);
    assert!(took > Duration::from_secs(100) && took < Duration::from_secs(130), "{took:?}");
    assert_eq!(server.seen().messages.len(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_site_that_wants_a_pause_gets_it_and_nobody_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig().await;
    rig.mx("other.example", "mx.other.example", "198.51.100.2");
    Server::start(&rig.net, "198.51.100.2:25");
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.connection == 0 && moment.line == "." {
        true => Say::Last("421 4.7.0 too much mail from you, slow down"),
        false => Say::Usual,
    });
    let rule = "[[feedback]]\nname = \"test\"\ncodes = [421]\n\
                text = [\"too much mail\"]\nexample = \"421 4.7.0 too much mail from you\"\n\
                action = \"pause-source\"\nfor = \"30m\"\n";
    let mut settings = shaped(&dir, rule);
    settings.limits.initial_connections_per_site = 1;
    let delivery = rig.deliver(settings);
    let first = rig.send(&["ann@example.com"]).await;
    assert!(matches!(rig.outcome(first).await.disposition, Disposition::Deferred(_)));
    let began = rig.clock.now();
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(rig.send(&["ann@example.com"]).await);
    }
    let other = rig.send(&["bob@other.example"]).await;
    assert!(is_delivered(&rig.outcome(other).await));
    let sites = delivery.sites();
    let site = sites.iter().find(|site| site.name == "mx.example.com").unwrap();
    let (_, why) = site.pause.as_ref().unwrap();
    assert!(site.paused == 1 && why.contains("too much mail"), "{site:?}");
    for id in ids {
        let outcome = rig.outcome(id).await;
        assert!(is_delivered(&outcome) && outcome.attempt == 1, "{outcome:?}");
    }
    let waited = rig.clock.now().saturating_since(began);
    assert!(waited >= 29 * MINUTE && waited < 31 * MINUTE, "{waited:?}");
    assert!(is_delivered(&rig.outcome(first).await));
    assert_eq!(server.seen().messages.len(), 21);
}

#[tokio::test(start_paused = true)]
async fn what_expires_behind_a_pause_bounces_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "." => Say::Reply("451 4.7.0 too much mail from you"),
        _ => Say::Usual,
    });
    let rule = "[[feedback]]\nname = \"test\"\ncodes = [451]\n\
                text = [\"too much mail\"]\nexample = \"451 4.7.0 too much mail from you\"\n\
                action = \"pause-source\"\nfor = \"4h\"\n";
    rig.deliver(shaped(&dir, rule));
    let first = rig.send(&["ann@example.com"]).await;
    rig.outcome(first).await;
    let mut message = rig.message(&["bob@example.com"]);
    message.expires_at = message.accepted_at.saturating_add(10 * MINUTE);
    let id = rig.accept(message).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(outcome.disposition, Disposition::Bounced(BounceKind::TransientGeneral));
    assert!(
        outcome.diagnostic.starts_with("550 4.4.7 Message expired: unable to deliver in 10 minutes.<"),
        "{outcome:?}"
    );
    assert!(outcome.diagnostic.contains("too much mail"), "{outcome:?}");
    let life = outcome.at.saturating_since(id.timestamp());
    assert!(life < 11 * MINUTE, "{life:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_lifted_lets_go_what_outlived_another() {
    let mut rig = rig().await;
    Server::start(&rig.net, HOST);
    let delivery = rig.deliver(routes(&[]));
    let pause = PauseRequest { name: "example.com".into(), source: None, time: None, reason: None };
    delivery.pause(pause).await.unwrap();
    let mut short = rig.message(&["ann@example.com"]);
    short.expires_at = short.accepted_at.saturating_add(10 * MINUTE);
    let (short, long) = (rig.accept(short).await, rig.send(&["bob@example.com"]).await);
    assert!(matches!(rig.outcome(short).await.disposition, Disposition::Bounced(_)));
    delivery.resume("example.com", None).await.unwrap();
    let outcome = rig.outcome(long).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    let waited = outcome.at.saturating_since(long.timestamp());
    assert!(waited < 11 * MINUTE, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn try_again_in_so_long_is_kept_to() {
    let mut rig = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match moment.connection == 0 && moment.line.starts_with("RCPT") {
        true => Say::Reply("450 4.2.0 greylisted, please try again in 900 seconds"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    let wait = outcome.next_attempt.unwrap().saturating_since(outcome.at).as_secs();
    assert!((900..=990).contains(&wait), "{wait}");
}

#[tokio::test(start_paused = true)]
async fn a_configuration_set_has_waits_and_a_demand_of_its_own() {
    let mut rig = rig().await;
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT TO:<slow") {
        true => Say::Reply("450 4.2.0 later"),
        false => Say::Usual,
    });
    make_set(&rig, "codes", ConfigurationOption::Retry(Some(vec![Period::from_secs(30)]))).await;
    make_set(&rig, "secret", ConfigurationOption::Tls(TlsPolicy::Require)).await;
    rig.deliver(routes(&[]));
    let id = send_with(&rig, "codes", "slow@example.com").await;
    for _ in 0..3 {
        let outcome = rig.outcome(id).await;
        let wait = outcome.next_attempt.unwrap().saturating_since(outcome.at);
        assert!(wait >= Duration::from_secs(27) && wait <= Duration::from_secs(33), "{wait:?}");
    }
    // The host has no TLS: this one never leaves in clear, others do.
    let secret = send_with(&rig, "secret", "ann@example.com").await;
    let outcome = rig.outcome(secret).await;
    assert!(matches!(outcome.disposition, Disposition::Deferred(_)), "{outcome:?}");
    let open = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(open).await));
    assert_eq!(server.seen().messages.len(), 1);
    let last = rig.until_final(secret).await.pop().unwrap();
    assert_eq!(last.disposition, Disposition::Bounced(BounceKind::TransientGeneral));
    assert_eq!(server.seen().messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_site_that_has_to_prove_its_name_gets_nothing_without() {
    let dir = tempfile::tempdir().unwrap();
    // The name is the host's, another's, and none: a host without TLS.
    for (name, proved) in [(Some("mx.example.com"), true), (Some("other.example"), false), (None, false)] {
        let mut rig = rig().await;
        make_set(&rig, "secret", ConfigurationOption::Tls(TlsPolicy::Require)).await;
        let certificate = Certificate::new(name.unwrap_or("mx.example.com"));
        let setup = name.map_or_else(Setup::default, |_| certificate.setup());
        let server = Server::with(&rig.net, HOST, setup, |_| Say::Usual);
        let mut settings = shaped(&dir, "[site.\"mx.example.com\"]\ntls = \"authenticated\"\n");
        settings.tls.ca_file = Some(certificate.authority());
        rig.deliver(settings);
        for id in [rig.send(&["ann@example.com"]).await, send_with(&rig, "secret", "ann@example.com").await] {
            let outcome = rig.outcome(id).await;
            assert_eq!(is_delivered(&outcome), proved, "{name:?} {outcome:?}");
            assert!(proved || matches!(outcome.disposition, Disposition::Deferred(_)), "{outcome:?}");
        }
        assert_eq!(server.seen().messages.len(), if proved { 2 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_one_signing_domain_lets_the_others_of_the_queue_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "." if moment.connection == 0 && moment.taken == 0 => Say::Reply("421 4.7.28 too much mail from your domain"),
        _ => Say::Usual,
    });
    let rule = "[[feedback]]\nname = \"test\"\ncodes = [421]\ntext = [\"too much mail\"]\n\
                example = \"421 4.7.28 too much mail from your domain\"\n\
                action = \"pause-signing-domain\"\nfor = \"30m\"\n";
    rig.deliver(shaped(&dir, rule));
    let began = rig.clock.now();
    let from = |rig: &Rig, domain: &str| {
        let mut message = rig.message(&["ann@example.com"]);
        message.origin.headers.fields = vec![("From".to_owned(), format!("Ann <ann@{domain}>"))];
        message
    };
    let first = rig.accept(from(&rig, "bulk.example")).await;
    assert!(!is_delivered(&rig.outcome(first).await));
    let (bulk, codes) = (from(&rig, "bulk.example"), from(&rig, "codes.example"));
    let (bulk, codes) = (rig.accept(bulk).await, rig.accept(codes).await);
    assert!(is_delivered(&rig.outcome(codes).await));
    assert!(rig.clock.now().saturating_since(began) < MINUTE);
    assert!(is_delivered(&rig.outcome(bulk).await));
    assert!(rig.clock.now().saturating_since(began) >= 30 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_demand_that_comes_later_holds_for_what_waits_already() {
    let mut rig = rig().await;
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "." if moment.taken == 0 => Say::After(MINUTE, "250 taken"),
        _ => Say::Usual,
    });
    make_set(&rig, "secret", ConfigurationOption::Tls(TlsPolicy::Optional)).await;
    let mut settings = routes(&[]);
    settings.limits.connections_per_site = 1;
    settings.limits.initial_connections_per_site = 1;
    rig.deliver(settings);
    rig.send(&["ann@example.com"]).await;
    server.until(|seen| !seen.with("DATA").is_empty()).await;
    // In the lane of those who ask nothing, behind the first.
    let secret = send_with(&rig, "secret", "bob@example.com").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sets = rig.accounts.configuration_sets();
    sets.set(AccountId::default(), "secret", vec![ConfigurationOption::Tls(TlsPolicy::Require)]).await.unwrap();
    let outcome = rig.outcome(secret).await;
    assert!(matches!(outcome.disposition, Disposition::Deferred(_)), "{outcome:?}");
    assert!(outcome.diagnostic.contains("STARTTLS"), "{outcome:?}");
    assert!(server.seen().lines.iter().all(|line| !line.contains("bob@example.com")));
}

#[tokio::test(start_paused = true)]
async fn a_block_of_our_address_costs_no_message() {
    let mut rig = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match moment.connection == 0 && moment.line.starts_with("RCPT") {
        true => Say::Reply(
            "550 5.7.1 Service unavailable; client host [192.0.2.7] blocked using zen.example, try again in 2 hours",
        ),
        false => Say::Usual,
    });
    let delivery = rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert!(matches!(outcome.disposition, Disposition::Deferred(_)), "{outcome:?}");
    // Another one does not even try before the time that the host named.
    let other = rig.send(&["bob@example.com"]).await;
    tokio::time::sleep(MINUTE).await;
    assert!(delivery.sites()[0].paused == 1);
    for id in [id, other] {
        assert!(is_delivered(&rig.outcome(id).await));
        let waited = rig.clock.now().saturating_since(began);
        assert!(waited >= 119 * MINUTE && waited < 150 * MINUTE, "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_site_that_the_rules_move_out_of_a_paused_provider_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig().await;
    Server::start(&rig.net, HOST);
    let delivery = rig.deliver(shaped(&dir, "[provider.big]\nmx = [\".example.com\"]\n"));
    let pause = PauseRequest { name: "big".into(), source: None, time: None, reason: None };
    delivery.pause(pause).await.unwrap();
    let id = rig.send(&["ann@example.com"]).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(delivery.sites()[0].paused, 1);
    delivery.reload(shaped(&dir, "[provider.big]\nmx = [\".example.org\"]\n")).unwrap();
    let outcome = rig.outcome(id).await;
    let waited = outcome.at.saturating_since(id.timestamp());
    assert!(is_delivered(&outcome) && waited < 2 * MINUTE, "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_pause_concerns_only_those_that_it_held() {
    let mut rig = rig().await;
    rig.mx("other.example", "mx.other.example", "198.51.100.2");
    Server::start(&rig.net, HOST);
    Server::start(&rig.net, "198.51.100.2:25");
    let delivery = rig.deliver(routes(&[]));
    for name in ["example.com", "mx.other.example"] {
        let pause = PauseRequest { name: name.into(), source: None, time: None, reason: None };
        delivery.pause(pause).await.unwrap();
    }
    let (soon, late) = (rig.send(&["ann@example.com"]).await, rig.send(&["ann@other.example"]).await);
    tokio::time::sleep(MINUTE).await;
    delivery.resume("example.com", None).await.unwrap();
    assert!(is_delivered(&rig.outcome(soon).await));
    assert_eq!(rig.metrics.outbound_recalled.get(), 1);
    delivery.resume("mx.other.example", None).await.unwrap();
    assert!(is_delivered(&rig.outcome(late).await));
    assert_eq!(rig.metrics.outbound_recalled.get(), 2);
}
