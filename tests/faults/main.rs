//! The real daemon on a bad disk: the client is told, nothing that got a 250 is
//! lost, the log says what is wrong, and when the disk is well again so is the
//! relay, without a hand.

mod admission;
mod failing;
mod full;
mod slow;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use postrider_testkit::Scene;

type Outcome = Result<(), Box<dyn Error>>;

const BINARY: &str = env!("CARGO_BIN_EXE_postrider");

/// What clients are told when there is no room.
const NO_ROOM: &str = "452 Insufficient system storage";
/// What clients are told when the disk does not do what it should.
const FAILURE: &str = "451 Temporary service failure";

/// Files of a room's log in its first life, those included that are made later.
fn segments(scene: &Scene, room: &str) -> Vec<PathBuf> {
    let directory = scene.relay.state().join(room);
    (1..=16).map(|number| directory.join(format!("segment-{number:010}.log"))).collect()
}

/// Submits until a message is refused, and gives the reply to it.
async fn fill(scene: &mut Scene) -> Result<String, Box<dyn Error>> {
    for batch in 0..60 {
        let replies = scene.submit(&format!("batch{batch}"), 10, 200_000).await?;
        if let Some(refused) = replies.into_iter().find(|reply| !reply.starts_with("250")) {
            return Ok(refused);
        }
    }
    Err("nothing was ever refused".into())
}

/// Waits until a message is taken again.
async fn takes_mail_again(scene: &mut Scene) -> Outcome {
    let mut last = String::new();
    for attempt in 0..200 {
        last = match scene.submit(&format!("again{attempt}"), 1, 100).await {
            Ok(replies) => replies.concat(),
            // Turned away at the door.
            Err(error) => error.to_string(),
        };
        if last.starts_with("250") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("{last}\n{}", scene.relay.log()?).into())
}
