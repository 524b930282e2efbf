//! Sums of connections, rates and what success and complaints make of them.

use std::time::Duration;

use futures_util::FutureExt;
use postrider_base::metrics::ShapingWait;
use postrider_mail::Stage;
use tokio::time::{advance, timeout};

use super::*;
use crate::shaping::{Action, Permit};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// As many connections as there are.
fn all(gate: &Gate) -> Vec<Permit> {
    std::iter::from_fn(|| gate.connection().now_or_never()).collect()
}

/// The rate of a gate's site.
fn rate(gate: &Gate) -> Option<String> {
    gate.site.throttle.pacer.rate().map(|rate| rate.to_string())
}

fn slow_down(gate: &Gate) -> Option<Action> {
    gate.heard(None, Stage::EndOfData, &reply("451 4.7.1 Please slow down"), true).action
}

#[tokio::test(start_paused = true)]
async fn a_site_grows_with_what_it_takes_up_to_its_limit() {
    let world = World::new("[default]\nconnections = 7").await;
    let gate = world.gate("mx.example.net");
    assert_eq!((gate.limit(), all(&gate).len()), (5, 5));
    for _ in 0..10 {
        gate.taken();
    }
    assert_eq!(gate.limit(), 6);
    for _ in 0..100 {
        gate.taken();
    }
    assert_eq!((gate.limit(), all(&gate).len()), (7, 7));
}

#[tokio::test(start_paused = true)]
async fn lanes_of_a_site_share_its_connections() {
    let world = World::new("").await;
    let (one, other) = (world.gate_from("mx.example.net", "a"), world.gate_from("mx.example.net", "b"));
    let mut held = all(&one);
    assert_eq!(held.len(), 5);
    let mut first = Box::pin(other.connection());
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(world.metrics.shaping_waits.of(ShapingWait::SiteConnection).get(), 2, "one of all() as well");
    // A worker that is idle is told at once, a busy one after its fair turn.
    let now = world.clock.instant();
    assert!(!held[1].must_yield(1, now));
    assert!(held[0].must_yield(10, now));
    assert!(!held[1].must_yield(10, now), "one waits, one leaves");
    drop(held.remove(0));
    let _kept = first.as_mut().now_or_never().expect("a place has become free");
    let mut second = Box::pin(other.connection());
    assert!(second.as_mut().now_or_never().is_none());
    assert!(held[0].must_yield(0, now + MINUTE), "it has had its time");
}

#[tokio::test(start_paused = true)]
async fn a_provider_bounds_the_sum_of_its_sites() {
    let world = World::new("[provider.microsoft]\nconnections = 6").await;
    let tenants: Vec<_> =
        (0..4).map(|tenant| world.gate(&format!("tenant{tenant}.mail.protection.outlook.com"))).collect();
    let mut held: Vec<_> = all(&tenants[0]);
    assert_eq!(held.len(), 5);
    held.extend(all(&tenants[1]));
    assert_eq!(held.len(), 6);
    let stranger = world.gate("mx.example.net");
    assert_eq!(all(&stranger).len(), 5, "others are not concerned");
    // Whoever waits is served in turn.
    let mut waiting: Vec<_> = tenants[1..].iter().map(|gate| Box::pin(gate.connection())).collect();
    for wait in &mut waiting {
        assert!(wait.as_mut().now_or_never().is_none());
    }
    for wait in &mut waiting {
        drop(held.pop());
        held.insert(0, timeout(SECOND, wait.as_mut()).await.expect("it is its turn"));
    }
    assert_eq!(held.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_hears_that_its_place_is_wanted() {
    let world = World::new("[default]\nconnections = 1").await;
    let (one, other) = (world.gate_from("mx.example.net", "a"), world.gate_from("mx.example.net", "b"));
    let held = one.connection().await;
    assert!(timeout(MINUTE, held.wanted()).await.is_err(), "nobody wants it");
    let waiting = tokio::spawn(async move { drop(other.connection().await) });
    timeout(SECOND, held.wanted()).await.unwrap();
    drop(held);
    timeout(SECOND, waiting).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn rates_of_site_and_provider_both_hold() {
    let world = World::new("[provider.yahoo]\nrate = '60/m'\n[provider.yahoo.site]\nrate = '30/m'").await;
    let (one, other) = (world.gate("mta5.am0.yahoodns.net"), world.gate("mta6.am0.yahoodns.net"));
    let start = world.clock.instant();
    for _ in 0..31 {
        one.turn().await.used();
    }
    let took = world.clock.instant() - start;
    assert!((MINUTE..MINUTE + SECOND).contains(&took), "{took:?}");
    let send = |gate: Gate| async move {
        for _ in 0..30 {
            gate.turn().await.used();
        }
    };
    let start = world.clock.instant();
    tokio::join!(send(one), send(other), send(world.gate("mta7.am0.yahoodns.net")));
    let took = world.clock.instant() - start;
    assert!((Duration::from_secs(88)..Duration::from_secs(92)).contains(&took), "90 at 60 a minute: {took:?}");
    assert!(world.metrics.shaping_waits.of(ShapingWait::Rate).get() > 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_rate_nobody_waits() {
    let world = World::new("").await;
    let gate = world.gate("mx.example.net");
    let start = world.clock.instant();
    for _ in 0..100_000 {
        gate.turn().await.used();
        gate.taken();
    }
    assert_eq!(world.clock.instant(), start);
}

#[tokio::test(start_paused = true)]
async fn a_complaint_halves_and_success_gives_back() {
    let world = World::new("[default]\nconnections = 8\ninitial_connections = 8\nrate = '120/m'").await;
    let gate = world.gate("mx.example.net");
    let held = all(&gate);
    assert_eq!(slow_down(&gate), Some(Action::Slowed));
    assert_eq!((gate.limit(), rate(&gate).unwrap()), (4, "120/120s".to_owned()));
    // The other connections say the same at the same time.
    advance(SECOND).await;
    assert_eq!(slow_down(&gate), Some(Action::Slowed));
    assert_eq!(gate.limit(), 4);
    drop(held);
    let held = all(&gate);
    advance(MINUTE).await;
    slow_down(&gate);
    assert_eq!((held.len(), gate.limit(), rate(&gate).unwrap()), (4, 2, "120/240s".to_owned()));
    // Time alone gives nothing back, and success only with time.
    advance(9 * MINUTE).await;
    gate.taken();
    assert_eq!(gate.limit(), 2);
    advance(2 * MINUTE).await;
    assert_eq!(gate.limit(), 2);
    gate.taken();
    assert_eq!((gate.limit(), rate(&gate).unwrap()), (4, "120/120s".to_owned()));
    gate.taken();
    assert_eq!(gate.limit(), 4, "one halving in ten minutes");
    advance(11 * MINUTE).await;
    gate.taken();
    assert_eq!((gate.limit(), rate(&gate).unwrap()), (8, "120/m".to_owned()));
    assert_eq!(world.metrics.shaping_slowed.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn complaints_without_end_leave_one_connection_and_one_message_a_minute() {
    let world = World::new("[default]\nrate = '5/s'").await;
    let gate = world.gate("mx.example.net");
    for _ in 0..20 {
        advance(MINUTE).await;
        slow_down(&gate);
    }
    assert_eq!((gate.limit(), all(&gate).len()), (1, 1));
    let start = world.clock.instant();
    gate.turn().await.used();
    timeout(2 * MINUTE, gate.turn()).await.expect("never less than one a minute").used();
    assert!(world.clock.instant() - start >= 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn without_a_rate_half_of_what_was_sent_is_sent() {
    let world = World::new("").await;
    let gate = world.gate("mx.example.net");
    for _ in 0..1_200 {
        advance(SECOND / 10).await;
        gate.taken();
    }
    assert_eq!(rate(&gate), None);
    slow_down(&gate);
    let start = world.clock.instant();
    for _ in 0..300 {
        gate.turn().await.used();
    }
    let took = (world.clock.instant() - start).as_secs();
    assert!((55..=65).contains(&took), "300 at 5 a second took {took} s");
}

#[tokio::test(start_paused = true)]
async fn a_complaint_about_the_provider_concerns_all_its_sites() {
    let world = World::new("").await;
    let (one, other) =
        (world.gate("a-com.mail.protection.outlook.com"), world.gate("b-com.mail.protection.outlook.com"));
    let held: Vec<_> = [all(&one), all(&other)].into_iter().flatten().collect();
    assert_eq!(held.len(), 10);
    one.heard(None, Stage::MailFrom, &reply("451 4.7.500 Server busy. Please try again later from [192.0.2.7]."), true);
    drop(held);
    assert_eq!((all(&one).len(), one.limit()), (5, 5));
    let held = all(&one);
    assert_eq!((held.len(), all(&other).len()), (5, 0), "five in all");
}

#[tokio::test(start_paused = true)]
async fn new_rules_hold_at_once() {
    let world = World::new("").await;
    let gate = world.gate("mta5.am0.yahoodns.net");
    let held = all(&gate);
    assert_eq!(held.len(), 5);
    let mut waiting = Box::pin(gate.connection());
    assert!(waiting.as_mut().now_or_never().is_none());
    world.governor.reload(shaping("[provider.yahoo.site]\ninitial_connections = 6\nrate = '1/m'").unwrap());
    assert!(waiting.as_mut().now_or_never().is_some());
    assert_eq!((gate.limit(), rate(&gate).as_deref()), (6, Some("1/m")));
    world.governor.reload(shaping("[provider.yahoo]\nconnections = 1").unwrap());
    assert_eq!((rate(&gate), gate.rules().provider.as_ref().unwrap().connections), (None, Some(1)));
    drop(held);
    assert_eq!(all(&gate).len(), 1);
    world.governor.reload(shaping("[provider.yahoo]\nmx = ['.elsewhere.example']").unwrap());
    assert!(gate.rules().provider.is_none());
}

#[tokio::test(start_paused = true)]
async fn idle_sites_are_forgotten_and_slowed_ones_are_not() {
    let world = World::new("").await;
    let used = world.gate("used.example.net");
    let slowed = world.gate("slowed.example.net");
    slow_down(&slowed);
    drop(slowed);
    for number in 0..20_000 {
        drop(world.gate(&format!("mx{number}.example.net")));
    }
    let known = world.governor.0.throttles().len();
    assert!(known <= 2_000, "{known} sites are remembered");
    assert_eq!(world.governor.0.sites_called("slowed.example.net").len(), 1);
    assert_eq!(world.governor.0.sites_called("used.example.net").len(), 1);
    drop(used);
}

#[tokio::test]
async fn a_domain_with_limits_of_its_own_is_a_site_of_its_own() {
    let world = World::new("[domain.'vip.example']\nconnections = 2").await;
    let vip = world.gate("mx.example.net for vip.example");
    let rest = world.gate("mx.example.net");
    assert_eq!((all(&vip).len(), all(&rest).len()), (2, 5));
}
