//! What delivery counts: nothing that is declared stays at zero whatever happens.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider_base::Metrics;
use postrider_delivery::Settings;
use postrider_delivery::settings::SourceSettings;
use postrider_mail::{AccountId, SuppressionReason};

use crate::copies::shaped;
use crate::rig::{HOST, HOUR, Rig, routes};
use crate::server::{Say, Server};

/// All series, by name and labels.
fn series(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.encode();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn assert_counted(metrics: &Metrics, wanted: &[(&str, f64)]) {
    let series = series(metrics);
    for (name, value) in wanted {
        assert_eq!(series.get(*name), Some(value), "{name} in {series:#?}");
    }
}

/// A host that knows neither `gone@` nor has time for `later@`.
fn choosy(rig: &Rig) -> Server {
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "RCPT TO:<gone@example.com>" => Say::Reply("550 5.1.1 user unknown"),
        "RCPT TO:<later@example.com>" => Say::Reply("451 4.3.0 try again in 600 seconds"),
        _ => Say::Usual,
    })
}

#[tokio::test(start_paused = true)]
async fn attempts_their_outcomes_and_connections() {
    let mut rig = Rig::new().await;
    choosy(&rig);
    rig.zones.add_mx("dead.example", 10, "mx.dead.example").add_address("mx.dead.example", "198.51.100.4");
    let address = "never@example.com".parse().unwrap();
    let reason = SuppressionReason::Complaint;
    rig.accounts.suppression().put(AccountId::default(), &address, reason).await.unwrap();
    rig.deliver(routes(&[]));
    // Nobody is told of failures, so that these are all the attempts there are.
    let mut message = rig.message(&["ann@example.com", "gone@example.com", "later@example.com", "never@example.com"]);
    message.origin.credential = None;
    let first = rig.accept(message).await;
    rig.outcomes(first, 4).await;
    let second = rig.send(&["bob@example.com"]).await;
    rig.outcome(second).await;
    let dead = rig.send(&["ann@dead.example"]).await;
    rig.outcome(dead).await;
    assert_counted(
        &rig.metrics,
        &[
            ("postrider_delivery_attempts_total", 3.0),
            ("postrider_delivery_attempts_failed_total", 0.0),
            ("postrider_delivery_recipients_total{outcome=\"delivered\"}", 2.0),
            ("postrider_delivery_recipients_total{outcome=\"deferred\"}", 2.0),
            ("postrider_delivery_recipients_total{outcome=\"bounced\"}", 1.0),
            ("postrider_delivery_recipients_total{outcome=\"suppressed\"}", 1.0),
            ("postrider_delivery_attempt_duration_seconds_count", 3.0),
            ("postrider_outbound_connections_opened_total", 1.0),
            ("postrider_outbound_connections_open", 1.0),
            ("postrider_outbound_connections_reused_total", 1.0),
            ("postrider_outbound_connections_failed_total", 1.0),
            ("postrider_outbound_known_hosts", 2.0),
            ("postrider_shaping_retry_after_total", 1.0),
        ],
    );
    let levels: f64 =
        series(&rig.metrics).iter().filter(|(name, _)| name.contains("attempt_levels")).map(|(_, n)| n).sum();
    assert!((levels - 2.0).abs() < f64::EPSILON, "one for each transaction: {levels}");
}

#[tokio::test(start_paused = true)]
async fn each_source_for_itself() {
    let mut rig = Rig::new().await;
    choosy(&rig);
    let source =
        SourceSettings { ipv4: Some("192.0.2.1".parse().unwrap()), warm_up_start: 100, ..SourceSettings::default() };
    let rule = "[[feedback]]\nname = \"listed\"\ntext = [\"try again\"]\naction = \"block-source\"\nfor = \"1h\"\n\
        example = \"451 4.3.0 try again\"\n";
    let (settings, _file) = shaped(rule);
    rig.deliver(Settings { sources: [("out1".to_owned(), source)].into(), ..settings });
    let id = rig.send(&["ann@example.com", "gone@example.com", "later@example.com"]).await;
    rig.outcomes(id, 3).await;
    assert_counted(
        &rig.metrics,
        &[
            ("postrider_source_warm_up_percent{source=\"out1\"}", 100.0),
            ("postrider_source_attempts_total{source=\"out1\"}", 1.0),
            ("postrider_source_delivered_total{source=\"out1\"}", 1.0),
            ("postrider_source_deferred_total{source=\"out1\"}", 1.0),
            ("postrider_source_bounced_total{source=\"out1\"}", 1.0),
            ("postrider_source_blocked_total{source=\"out1\"}", 1.0),
            ("postrider_shaping_feedback_total{action=\"block_source\"}", 1.0),
            ("postrider_shaping_pauses{kind=\"block\"}", 1.0),
        ],
    );
    tokio::time::sleep(2 * HOUR).await;
    assert_counted(&rig.metrics, &[("postrider_shaping_pauses{kind=\"block\"}", 0.0)]);
}

#[tokio::test(start_paused = true)]
async fn each_action_of_a_rule() {
    for (action, series) in [
        ("slow", "postrider_shaping_slowed"),
        ("pause-source", "postrider_shaping_pauses{kind=\"source\"}"),
        ("pause-signing-domain", "postrider_shaping_pauses{kind=\"signing_domain\"}"),
        ("bounce", "postrider_delivery_recipients_total{outcome=\"bounced\"}"),
    ] {
        let mut rig = Rig::new().await;
        choosy(&rig);
        let kind = match action {
            "bounce" => "bounce = \"Transient/General\"\n",
            "slow" => "",
            _ => "for = \"1h\"\n",
        };
        let rule = format!(
            "[[feedback]]\nname = \"rule\"\ntext = [\"try again\"]\naction = \"{action}\"\n{kind}\
             example = \"451 4.3.0 try again\"\n"
        );
        let (settings, _file) = shaped(&rule);
        rig.deliver(settings);
        let id = rig.send(&["later@example.com"]).await;
        rig.outcome(id).await;
        let feedback = format!("postrider_shaping_feedback_total{{action=\"{}\"}}", action.replace('-', "_"));
        assert_counted(&rig.metrics, &[(&feedback, 1.0), (series, 1.0)]);
    }
}

#[tokio::test(start_paused = true)]
async fn lookups_that_are_under_way() {
    let mut rig = Rig::new().await;
    choosy(&rig);
    rig.zones.delay("example.com", Duration::from_secs(20));
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_counted(&rig.metrics, &[("postrider_outbound_sought_domains", 1.0)]);
    rig.outcome(id).await;
    assert_counted(&rig.metrics, &[("postrider_outbound_sought_domains", 0.0)]);
}
