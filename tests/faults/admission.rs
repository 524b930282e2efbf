//! The bounds of the queue, as a client meets them: at MAIL by the size that it
//! announces, and again when the content is there.

use postrider_testkit::Scene;
use postrider_testkit::scene::content;

use crate::{BINARY, NO_ROOM, Outcome, takes_mail_again};

#[tokio::test(flavor = "multi_thread")]
async fn messages_beyond_max_messages_are_a_452() -> Outcome {
    let mut scene = Scene::new(BINARY, "[spool]\nmax_messages = 3\n", None).await?;
    // Two are past MAIL when there is room for one of them.
    let mut early = scene.connect().await?;
    early.begin("a@example.com", &["b@example.net"]).await?.map_err(|reply| reply.to_string())?;
    assert!(scene.submit("in", 3, 100).await?.iter().all(|reply| reply.starts_with("250")));
    assert_eq!(early.finish(&content("late", 100)).await?.to_string(), NO_ROOM);
    assert_eq!(early.command("MAIL FROM:<a@example.com>").await?.to_string(), NO_ROOM);
    let log = scene.relay.log()?;
    assert!(log.contains("new messages are refused") && log.contains("max_messages"), "{log}");

    scene.all_arrive().await;
    takes_mail_again(&mut scene).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_beyond_max_bytes_are_a_452() -> Outcome {
    let mut scene = Scene::new(BINARY, "[spool]\nmax_bytes = \"1MB\"\n", None).await?;
    assert!(scene.submit("in", 1, 700_000).await?[0].starts_with("250"));
    let mut client = scene.connect().await?;
    // Too large for what is left, too large for anybody, and small enough.
    assert_eq!(client.command("MAIL FROM:<a@example.com> SIZE=400000").await?.to_string(), NO_ROOM);
    assert_eq!(client.command("MAIL FROM:<a@example.com> SIZE=99999999999").await?.code, 552);
    assert_eq!(client.command("MAIL FROM:<a@example.com> SIZE=200000").await?.to_string(), "250 Ok");
    // It announced less than it sends.
    client.command("RCPT TO:<b@example.net>").await?.expect(250)?;
    client.command("DATA").await?.expect(354)?;
    assert_eq!(client.finish(&content("liar", 400_000)).await?.to_string(), NO_ROOM);

    scene.all_arrive().await;
    takes_mail_again(&mut scene).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_less_than_min_free_bytes_is_a_452() -> Outcome {
    let scene = Scene::new(BINARY, "[spool]\nmin_free_bytes = \"9000TB\"\n", None).await?;
    let mut client = scene.connect().await?;
    assert_eq!(client.command("MAIL FROM:<a@example.com>").await?.to_string(), NO_ROOM);
    let log = scene.relay.log()?;
    assert!(log.contains("new messages are refused") && log.contains("min_free_bytes"), "{log}");
    Ok(())
}
