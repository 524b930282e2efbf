//! Quotas as clients of the real daemon meet them, and as they outlive it.

use std::error::Error;
use std::time::Duration;

use postrider_testkit::Scene;
use postrider_testkit::client::Client;
use postrider_testkit::relay::Relay;
use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

const BINARY: &str = env!("CARGO_BIN_EXE_postrider");
const DAILY: &str = "Throttling failure: Daily message quota exceeded.";
const RATE: &str = "Throttling failure: Maximum sending rate exceeded.";

async fn send(client: &mut Client, to: &[&str]) -> Result<(u16, String), Box<dyn Error>> {
    let reply = client.send("ann@example.com", to, b"From: ann@example.com\r\n\r\nHello\r\n").await?;
    Ok((reply.code, reply.text().to_owned()))
}

/// The first answer that is not that what was sent before is still counted.
async fn first_answer(client: &mut Client, to: &[&str]) -> Result<(u16, String), Box<dyn Error>> {
    for _ in 0..200 {
        match send(client, to).await? {
            (451, _) => tokio::time::sleep(Duration::from_millis(50)).await,
            answer => return Ok(answer),
        }
    }
    Err("what was sent before is never counted".into())
}

fn quota(relay: &Relay) -> Result<Value, Box<dyn Error>> {
    let quotas: Value = serde_json::from_slice(&relay.cli(&["--json", "quota"])?.stdout)?;
    Ok(quotas[0].clone())
}

fn sends(relay: &Relay) -> Result<usize, Box<dyn Error>> {
    let events = String::from_utf8(relay.cli(&["events", "since", "1d"])?.stdout)?;
    Ok(events.lines().filter(|line| line.contains("\"eventType\":\"Send\"")).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daily_quota_is_answered_in_the_known_words_and_outlives_the_daemon() -> Outcome {
    let mut scene = Scene::new(BINARY, "", None).await?;
    scene.relay.cli(&["accounts", "set", "1", "--daily-quota", "3"])?;
    let mut session = scene.connect().await?;
    let (two, one) = (["a@example.org", "b@example.org"], ["c@example.org"]);
    assert_eq!(first_answer(&mut session, &two).await?.0, 250);
    assert_eq!(send(&mut session, &two).await?, (454, DAILY.to_owned()));
    assert_eq!(send(&mut session, &one).await?.0, 250, "the session goes on, and there is room for one");
    assert_eq!(send(&mut session, &one).await?, (454, DAILY.to_owned()));
    assert_eq!(send(&mut session, &["success@simulator.amazonses.com"]).await?.0, 250, "it is outside");
    scene.relay.kill()?;
    scene.relay.launch()?;
    assert_eq!(first_answer(&mut scene.connect().await?, &one).await?, (454, DAILY.to_owned()));
    assert!(scene.relay.stop()?.success());
    let expected = serde_json::json!(
        { "AccountId": "000000000001", "Max24HourSend": 3, "MaxSendRate": -1, "SentLast24Hours": 3 }
    );
    assert_eq!(quota(&scene.relay)?, expected, "without a daemon");
    scene.relay.launch()?;
    assert_eq!(first_answer(&mut scene.connect().await?, &one).await?, (454, DAILY.to_owned()));
    assert_eq!(quota(&scene.relay)?, expected);
    assert_eq!(sends(&scene.relay)?, 3, "what is put off has no event");
    let table = String::from_utf8(scene.relay.cli(&["quota", "--account", "1"])?.stdout)?;
    let row: Vec<&str> = table.lines().last().unwrap_or_default().split_whitespace().collect();
    assert_eq!(row, ["000000000001", "3", "3", "100%", "-"], "{table}");
    assert!(scene.relay.cli(&["quota", "--account", "somebody"]).is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_of_a_credential_holds_at_once_and_outlives_the_daemon() -> Outcome {
    let mut scene = Scene::new(BINARY, "", None).await?;
    let credential = |relay: &Relay| -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_slice::<Value>(&relay.cli(&["--json", "credentials", "list"])?.stdout)?[0].clone())
    };
    let user = credential(&scene.relay)?["user_name"].as_str().unwrap_or_default().to_owned();
    let mut session = scene.connect().await?;
    let (two, one) = (["a@example.org", "b@example.org"], ["c@example.org"]);
    assert_eq!(first_answer(&mut session, &two).await?.0, 250);
    scene.relay.cli(&["credentials", "set", &user, "--daily-quota", "3"])?;
    assert_eq!(first_answer(&mut session, &two).await?, (454, DAILY.to_owned()), "with what was sent before");
    assert_eq!(send(&mut session, &one).await?.0, 250, "the session goes on, and there is room for one");
    scene.relay.kill()?;
    scene.relay.launch()?;
    assert_eq!(first_answer(&mut scene.connect().await?, &one).await?, (454, DAILY.to_owned()));
    assert!(scene.relay.stop()?.success());
    scene.relay.launch()?;
    let mut session = scene.connect().await?;
    assert_eq!(first_answer(&mut session, &one).await?, (454, DAILY.to_owned()));
    let shown = credential(&scene.relay)?;
    assert_eq!((&shown["daily_quota"], &shown["sent_last_24_hours"]), (&Value::from(3), &Value::from(3)), "{shown}");
    scene.relay.cli(&["credentials", "set", &user, "--no-daily-quota"])?;
    assert_eq!(send(&mut session, &one).await?.0, 250);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_answered_in_the_known_words_and_passes() -> Outcome {
    let scene = Scene::new(BINARY, "", None).await?;
    scene.relay.cli(&["accounts", "set", "1", "--max-rate", "1"])?;
    let mut session = scene.connect().await?;
    let mut answers = Vec::new();
    // On a slow machine the second may be over before the next is sent.
    while answers.len() < 100 && !answers.contains(&(454, RATE.to_owned())) {
        answers.push(send(&mut session, &["a@example.org"]).await?);
    }
    assert_eq!(answers.first().map(|(code, _)| *code), Some(250));
    assert!(answers.contains(&(454, RATE.to_owned())), "{answers:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(send(&mut session, &["a@example.org"]).await?.0, 250);
    Ok(())
}
