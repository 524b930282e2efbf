//! What is said twice is one event, also when the relay dies in between.

use std::time::Duration;

use postrider_testkit::Client;

use crate::Outcome;
use crate::world::{COMPLAINTS, Sent, World};

const ADDRESS: &str = "ann@example.net";

fn bounce(sent: &Sent) -> String {
    sent.bounce(ADDRESS, "5.2.1", "550 5.2.1 mailbox disabled")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_comes_again_is_one_event() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&[ADDRESS], "bounced twice").await?;
    for _ in 0..3 {
        world.bring(&sent.return_path, &bounce(&sent)).await?.expect(250)?;
        world.bring(COMPLAINTS, &sent.complaint("abuse", ADDRESS)).await?.expect(250)?;
    }
    // Two copies of one transaction, and after a restart.
    let mut client = world.stranger().await?;
    client.send("", &[&sent.return_path, &sent.return_path], bounce(&sent).as_bytes()).await?.expect(250)?;
    drop(client);
    world.relay.stop()?;
    world.relay.launch()?;
    world.bring(&sent.return_path, &bounce(&sent)).await?.expect(250)?;
    // What comes later is told later.
    let last = world.delivered(&[ADDRESS.replace("ann", "bob").as_str()], "last").await?;
    world.bring(&last.return_path, &last.bounce("bob@example.net", "5.2.1", "550 5.2.1 no")).await?.expect(250)?;
    world.event(&last.id, "Bounce").await?;
    world.event(&sent.id, "Bounce").await?;
    world.event(&sent.id, "Complaint").await?;
    Ok(())
}

/// Says everything up to the final dot.
async fn up_to_the_dot(client: &mut Client, sent: &Sent) -> std::io::Result<()> {
    client.command("MAIL FROM:<>").await?.expect(250)?;
    client.command(&format!("RCPT TO:<{}>", sent.return_path)).await?.expect(250)?;
    client.command("DATA").await?.expect(354).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_content_and_reply_makes_neither_none_nor_two() -> Outcome {
    const ROUNDS: u64 = 12;
    let mut world = World::direct("").await?;
    let (mut sent, mut unanswered) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        sent.push(world.delivered(&[ADDRESS], &format!("killed {round}")).await?);
        let last = &sent[sent.len() - 1];
        let mut client = world.stranger().await?;
        up_to_the_dot(&mut client, last).await?;
        let content = bounce(last).into_bytes();
        let finish = tokio::spawn(async move { client.finish(&content).await });
        // From before it is read to after it is written.
        tokio::time::sleep(Duration::from_micros(400 * round)).await;
        world.relay.kill()?;
        let answered = finish.await?.is_ok_and(|reply| reply.code == 250);
        world.relay.launch()?;
        if !answered {
            // The remote has no reply, and tries again (RFC 5321 section 4.5.4.1).
            unanswered += 1;
            while world.bring(&last.return_path, &bounce(last)).await?.code == 451 {
                // The relay is still finding out what it has.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    for sent in &sent {
        world.event(&sent.id, "Bounce").await?;
    }
    assert!(unanswered > 0, "every kill came too late");
    Ok(())
}
