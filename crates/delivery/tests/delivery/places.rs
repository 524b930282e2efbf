//! Places that lanes share: a backlog of one keeps nobody else out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use postrider_delivery::Settings;
use postrider_mail::MessageId;

use crate::rig::{MINUTE, Rig, is_delivered, routes};
use crate::server::{Say, Server};
use crate::shaped::shaped;

const ONE_PLACE: &str = "[provider.big]\nmx = [\".provider.example\"]\nconnections = 1\n";

/// Two domains whose hosts are of one provider.
async fn two_of_a_provider() -> Rig {
    let rig = Rig::new().await;
    rig.mx("busy.example", "mx1.provider.example", "198.51.100.1");
    rig.mx("calm.example", "mx2.provider.example", "198.51.100.2");
    rig
}

async fn send_to_busy(rig: &Rig, count: usize) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(rig.send(&["ann@busy.example"]).await);
    }
    ids
}

/// How long one message to the calm domain takes while the busy one has the place.
async fn wait_of_calm(rig: &mut Rig, busy: &Server, settings: Settings) -> (Duration, usize) {
    Server::start(&rig.net, "198.51.100.2:25");
    rig.deliver(settings);
    send_to_busy(rig, 60).await;
    busy.until(|seen| !seen.messages.is_empty()).await;
    let began = rig.clock.now();
    let calm = rig.send(&["bob@calm.example"]).await;
    assert!(is_delivered(&rig.outcome(calm).await));
    (rig.clock.now().saturating_since(began), busy.seen().messages.len())
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_connections_are_short_gives_its_place_up_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = two_of_a_provider().await;
    // A second for the greeting: the backlog lasts.
    let busy = Server::scripted(&rig.net, "198.51.100.1:25", |moment| match moment.line.as_str() {
        "" => Say::After(Duration::from_secs(1), "220 mx ESMTP"),
        _ => Say::Usual,
    });
    let rules = format!("{ONE_PLACE}[provider.big.site]\nmessages_per_connection = 5\n");
    let (_, taken) = wait_of_calm(&mut rig, &busy, shaped(&dir, &rules)).await;
    assert!(taken <= 25, "{taken}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_for_its_turns_keeps_no_place_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = two_of_a_provider().await;
    let busy = Server::start(&rig.net, "198.51.100.1:25");
    let rules = format!("{ONE_PLACE}[site.\"mx1.provider.example\"]\nrate = \"1/h\"\n");
    let (waited, taken) = wait_of_calm(&mut rig, &busy, shaped(&dir, &rules)).await;
    assert!(waited <= 3 * MINUTE && taken == 1, "{waited:?} {taken}");
    // Nor does it lose its turns.
    tokio::time::sleep(5 * 60 * MINUTE).await;
    let taken = busy.seen().messages.len();
    assert!((5..=6).contains(&taken), "{taken}");
}

#[tokio::test(start_paused = true)]
async fn slow_sites_do_not_take_all_that_delivery_may_hold() {
    let mut rig = Rig::new().await;
    rig.mx("busy.example", "mx.busy.example", "198.51.100.1");
    rig.mx("calm.example", "mx.calm.example", "198.51.100.2");
    // It takes so much at first that its lane may hold a thousand.
    let (asked, is_healed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, healed) = (asked.clone(), is_healed.clone());
    let busy = Server::scripted(&rig.net, "198.51.100.1:25", move |moment| {
        // The script is asked twice for each line.
        let is_slow = moment.line.starts_with("MAIL") && counted.fetch_add(1, Ordering::Relaxed) >= 600;
        match is_slow && !healed.load(Ordering::Relaxed) {
            true => Say::After(4 * MINUTE, "250 ok"),
            false => Say::Usual,
        }
    });
    Server::start(&rig.net, "198.51.100.2:25");
    let mut settings = routes(&[]);
    settings.limits.ready = 400;
    let ids = send_to_busy(&rig, 900).await;
    rig.deliver(settings);
    tokio::time::sleep(MINUTE).await;
    let taken = busy.seen().messages.len();
    assert!((250..350).contains(&taken), "{taken}");
    let began = rig.clock.now();
    let calm = rig.send(&["bob@calm.example"]).await;
    assert!(is_delivered(&rig.outcome(calm).await));
    let waited = rig.clock.now().saturating_since(began);
    assert!(waited < MINUTE, "{waited:?}");
    is_healed.store(true, Ordering::Relaxed);
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
}
