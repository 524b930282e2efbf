//! Disks without room: for bytes, or for files.

use std::collections::BTreeSet;

use postrider_testkit::{Scene, Volume};

use crate::{BINARY, FAILURE, NO_ROOM, Outcome, fill, takes_mail_again};

const SMALL: &str =
    "[spool]\nsegment_bytes = \"2MiB\"\nmin_free_bytes = \"8MB\"\n\n[events]\nsegment_bytes = \"1MiB\"\n";

/// More than there are spare segments for.
const CRASHES: u32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_full_of_mail_is_a_452_and_passes() -> Outcome {
    let volume = Volume::ext4(64)?;
    let mut scene = Scene::new(BINARY, SMALL, Some(&volume)).await?;
    assert_eq!(fill(&mut scene).await?, NO_ROOM);
    // The next client hears it before it has sent anything.
    let mut client = scene.connect().await?;
    assert_eq!(client.command("MAIL FROM:<a@example.com>").await?.to_string(), NO_ROOM);
    assert!(scene.relay.log()?.contains("new messages are refused"), "{}", scene.relay.log()?);

    scene.all_arrive().await;
    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    assert!(scene.relay.stop()?.success());
    Ok(())
}

/// Somebody else has taken every byte: what was accepted leaves all the same,
/// and what became of it is written, into room that was taken before.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_byte_mail_leaves_and_is_not_forgotten() -> Outcome {
    let volume = Volume::ext4(64)?;
    let mut scene = Scene::new(BINARY, SMALL, Some(&volume)).await?;
    scene.submit("before", 20, 20_000).await?;
    volume.run("dd if=/dev/zero of=$DISK/filler bs=64k 2> /dev/null || true")?;
    assert_eq!(fill(&mut scene).await?, NO_ROOM);

    scene.all_arrive().await;
    let arrived = scene.gate.subjects();
    let once: BTreeSet<&String> = arrived.iter().collect();
    assert_eq!(once.len(), arrived.len(), "an outcome was forgotten: {arrived:?}");

    volume.run("rm $DISK/filler")?;
    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    assert!(scene.relay.stop()?.success());
    Ok(())
}

/// A daemon that dies again and again on a full disk comes back at the latest
/// when there is room, with all its mail.
#[tokio::test(flavor = "multi_thread")]
async fn crashes_on_a_full_disk_lose_nothing() -> Outcome {
    let volume = Volume::ext4(64)?;
    let mut scene = Scene::new(BINARY, SMALL, Some(&volume)).await?;
    scene.submit("before", 20, 20_000).await?;
    volume.run("dd if=/dev/zero of=$DISK/filler bs=64k 2> /dev/null || true")?;
    scene.relay.kill()?;
    for _ in 0..CRASHES {
        match scene.relay.launch() {
            Ok(()) => {
                assert_eq!(fill(&mut scene).await?, NO_ROOM);
                scene.relay.kill()?;
            }
            Err(error) => assert!(error.to_string().contains("No space left on device"), "{error}"),
        }
    }
    volume.run("rm $DISK/filler")?;
    scene.relay.launch()?;
    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    Ok(())
}

/// There are bytes enough, but no file can be made.
#[tokio::test(flavor = "multi_thread")]
async fn without_inodes_clients_come_again() -> Outcome {
    let volume = Volume::tmpfs("size=200m,nr_inodes=100")?;
    let mut scene = Scene::new(BINARY, SMALL, Some(&volume)).await?;
    scene.submit("before", 5, 1000).await?;
    volume.run("i=0; while touch $DISK/file-$i 2> /dev/null; do i=$((i + 1)); done")?;
    assert_eq!(fill(&mut scene).await?, FAILURE);
    let log = scene.relay.log()?;
    assert!(log.contains("no room for the log") && log.contains("No space left on device"), "{log}");

    volume.run("rm $DISK/file-*")?;
    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    assert!(scene.relay.stop()?.success());
    Ok(())
}
