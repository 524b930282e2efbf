//! A disk that takes its time.

use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::scene::send;
use postrider_testkit::{Fault, Scene};
use tokio::task::JoinSet;

use crate::{BINARY, Outcome, segments};

const SESSIONS: u32 = 12;
const DELAY: Duration = Duration::from_millis(400);

/// No 250 comes before its sync, and those who wait share one.
#[tokio::test(flavor = "multi_thread")]
async fn clients_wait_for_a_slow_sync_together() -> Outcome {
    let mut scene = Scene::new(BINARY, "", None).await?;
    scene.submit("before", 1, 1000).await?;
    let clock = Clock::system();
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(scene.connect().await?);
    }
    let pid = scene.relay.pid().ok_or("not running")?;
    let fault =
        Fault::inject(pid, "fdatasync", &format!("delay_enter={}", DELAY.as_micros()), &segments(&scene, "spool"))?;
    let began = clock.instant();
    let mut sessions = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let clock = clock.clone();
        sessions.spawn(async move {
            let subject = format!("slow-{number}");
            let asked = clock.instant();
            let reply = send(&mut client, &subject, 1000).await;
            (subject, reply, clock.instant() - asked)
        });
    }
    for (subject, reply, took) in sessions.join_all().await {
        assert_eq!(reply?.code, 250);
        assert!(took >= DELAY, "acknowledged after {took:?}, before the sync");
        scene.promised.insert(subject);
    }
    let took = clock.instant() - began;
    assert!(took < DELAY * (SESSIONS / 2), "{SESSIONS} messages took {took:?}: each had a sync of its own");
    drop(fault);
    scene.all_arrive().await;
    assert!(scene.relay.stop()?.success());
    Ok(())
}
