//! Clients that take for ever.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::support::{MEMORY, Outcome, Siege, attack_from, last_words};

const TIMEOUT: &str = "451 Timeout waiting for data from client\r\n";

/// One octet after the other, each before the server would call it silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_trickles_is_cut_off() -> Outcome {
    let siege = Siege::lay("[sessions]\nidle_before_auth = \"1s\"\nauth_within = \"2s\"\n").await?;
    let good = siege.good_client().await?;
    let mut attackers = JoinSet::new();
    for _ in 0..50 {
        let mut stream = attack_from(2, siege.relay.starttls()).await?;
        attackers.spawn(async move {
            let (mut reader, mut writer) = stream.split();
            let trickle = async {
                while writer.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                said = last_words(&mut reader) => said,
                () = trickle => unreachable!("never ends"),
            }
        });
    }
    while let Some(said) = attackers.join_next().await {
        assert!(said??.ends_with(TIMEOUT));
    }
    assert_eq!(siege.metric("postrider_connections_timed_out_total", "starttls").await?, 50);
    siege.assert_bounded(MEMORY)?;
    good.assert_served().await
}

/// An authenticated client that begins a message and lets it trickle.
#[tokio::test(flavor = "multi_thread")]
async fn content_that_trickles_is_cut_off() -> Outcome {
    let siege = Siege::lay("[sessions]\nmessage_time = \"2s\"\nidle = \"1s\"\n").await?;
    let good = siege.good_client().await?;
    let mut client = siege.client().await?;
    client.begin("a@b.example", &["c@d.example"]).await?.map_err(|refused| refused.to_string())?;
    // The server's words end the loop: nothing else does.
    while client.write(b"x\r\n").await.is_ok() {
        match tokio::time::timeout(Duration::from_millis(200), client.reply()).await {
            Ok(reply) => {
                assert_eq!(reply?.to_string(), TIMEOUT.trim_end());
                break;
            }
            Err(_) => continue,
        }
    }
    siege.until("postrider_connections_timed_out_total", "starttls", |count| count == 1).await?;
    good.assert_served().await
}

/// Connections that never say a word, as many as there are places for strangers.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_silent_connections_shut_nobody_out() -> Outcome {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all)?;
    let siege = Siege::lay("[sessions]\nidle_before_auth = \"30s\"\nauth_within = \"30s\"\n").await?;
    let good = siege.good_client().await?;
    let mut silent = Vec::new();
    for count in 0..5_000_u32 {
        let target = if count % 2 == 0 { siege.relay.starttls() } else { siege.relay.wrapper() };
        silent.push(attack_from(u8::try_from(count % 200 + 2)?, target).await?);
    }
    siege.until("postrider_connections_given_way_total", "", |gone| gone >= 3_000).await?;
    // Somebody new is still served, and so is who was there before.
    let mut late = siege.client().await?;
    late.command("NOOP").await?.expect(250)?;
    siege.assert_bounded(MEMORY)?;
    good.assert_served().await
}
