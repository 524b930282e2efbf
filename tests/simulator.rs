//! The mailbox simulator, as who tests a program with it meets it: nothing leaves the host.

use std::error::Error;
use std::time::Duration;

use postrider_testkit::Scene;
use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

const BINARY: &str = env!("CARGO_BIN_EXE_postrider");

/// The events of the relay, once there are so many.
async fn events(scene: &Scene, count: usize) -> Result<Vec<Value>, Box<dyn Error>> {
    for _ in 0..400 {
        let said = String::from_utf8(scene.relay.cli(&["events", "since", "1d"])?.stdout)?;
        let events: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        if events.len() >= count {
            return Ok(events);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("the events never come".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_mailboxes_deliver_bounce_and_complain_as_sess_do() -> Outcome {
    let mut scene = Scene::new(BINARY, "", None).await?;
    scene.gate.open();
    let mut session = scene.connect().await?;
    for (to, expected) in [
        ("success+label@simulator.amazonses.com", &["Send", "Delivery"][..]),
        ("bounce+label@simulator.amazonses.com", &["Send", "Bounce"]),
        ("complaint+label@simulator.amazonses.com", &["Send", "Delivery", "Complaint"]),
        ("suppressionlist@simulator.amazonses.com", &["Send", "Bounce"]),
        ("ooto@simulator.amazonses.com", &["Send", "Delivery"]),
    ] {
        let before = events(&scene, 0).await?.len();
        let message =
            format!("From: ann@example.com\r\nSubject: {}\r\n\r\nHello\r\n", to.split('@').next().unwrap_or(to));
        let reply = session.send("ann@example.com", &[to], message.as_bytes()).await?;
        assert_eq!(reply.code, 250, "{to}: {}", reply.text());
        let events = events(&scene, before + expected.len()).await?;
        let kinds: Vec<&str> = events[before..].iter().filter_map(|event| event["eventType"].as_str()).collect();
        assert_eq!(kinds, expected, "{to}");
        let last = &events[events.len() - 1];
        match to.split(['+', '@']).next() {
            Some("bounce") => {
                let bounce = &last["bounce"];
                assert_eq!((&bounce["bounceType"], &bounce["bounceSubType"]), (&"Permanent".into(), &"General".into()));
                let recipient = &bounce["bouncedRecipients"][0];
                assert_eq!((&recipient["emailAddress"], &recipient["status"]), (&to.into(), &"5.1.1".into()));
                assert_eq!(recipient["diagnosticCode"], "smtp; 550 5.1.1 user unknown");
            }
            Some("suppressionlist") => assert_eq!(last["bounce"]["bounceSubType"], "Suppressed"),
            Some("complaint") => {
                assert_eq!(last["complaint"]["complaintFeedbackType"], "abuse");
                assert_eq!(last["complaint"]["complainedRecipients"][0]["emailAddress"], to);
            }
            _ => {}
        }
    }
    // Two write back, beside the bounces that the relay writes itself.
    let expected = ["damaged FW: complaint+label", "damaged Auto: ooto"].map(str::to_owned);
    let written = async {
        loop {
            let count = scene.sink.accepted();
            if expected.iter().all(|subject| scene.gate.subjects().contains(subject)) {
                return;
            }
            scene.sink.wait_for(count + 1).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), written).await?;
    // It counts for nothing, and nobody is put on a list.
    let listed = scene.relay.cli(&["--json", "suppression", "list"])?.stdout;
    assert!(!String::from_utf8(listed)?.contains("simulator"), "a mailbox of the simulator is suppressed");
    let rates: Value = serde_json::from_slice(&scene.relay.cli(&["--json", "reputation"])?.stdout)?;
    assert!(!rates.to_string().contains("\"recipients\":1"), "{rates}");
    assert!(scene.relay.stop()?.success());
    Ok(())
}
