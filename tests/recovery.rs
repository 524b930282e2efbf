//! What a bad day does to the state directory, and that no acknowledged
//! message is lost by it.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use postrider_base::Random;
use postrider_testkit::Scene;

type Outcome = Result<(), Box<dyn Error>>;

const BINARY: &str = env!("CARGO_BIN_EXE_postrider");

#[tokio::test(flavor = "multi_thread")]
async fn the_sled_directories_may_go_at_any_time() -> Outcome {
    let mut scene = Scene::new(BINARY, "", None).await?;
    scene.submit("before", 50, 1000).await?;
    scene.relay.kill()?;
    for room in ["spool", "store"] {
        fs::remove_dir_all(scene.relay.state().join(room).join("index"))?;
    }
    scene.relay.launch()?;
    // The credential came back from the log as well.
    scene.submit("after", 5, 1000).await?;
    scene.all_arrive().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_sled_files_are_made_again() -> Outcome {
    let mut scene = Scene::new(BINARY, "", None).await?;
    scene.submit("before", 50, 1000).await?;
    // A clean stop, after which the files would be believed.
    assert!(scene.relay.stop()?.success());
    let random = Random::seeded(7);
    for room in ["spool", "store"] {
        damage(&scene.relay.state().join(room).join("index"), &random)?;
    }
    scene.relay.launch()?;
    scene.submit("after", 5, 1000).await?;
    scene.all_arrive().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_costs_nothing_that_was_acknowledged() -> Outcome {
    let mut scene = Scene::new(BINARY, "[spool]\nsegment_bytes = \"1MiB\"\n", None).await?;
    let random = Random::seeded(11);
    for round in 0..6 {
        scene.submit(&format!("round{round}"), 20, 2000).await?;
        scene.relay.kill()?;
        // What a power cut leaves of a write that was never synced: its
        // beginning, then what stood there before.
        append_torn(&last_segment(&scene.relay.state().join("spool"))?, &random)?;
        scene.relay.launch()?;
    }
    scene.all_arrive().await;
    Ok(())
}

/// Flips bytes all over every file of a directory.
fn damage(directory: &Path, random: &Random) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            damage(&path, random)?;
            continue;
        }
        let mut bytes = fs::read(&path)?;
        let length = bytes.len() as u64;
        for _ in 0..length.div_ceil(64) {
            let at = usize::try_from(random.below(length)).map_err(io::Error::other)?;
            bytes[at] ^= 0x5a;
        }
        fs::write(&path, bytes)?;
    }
    Ok(())
}

/// The segment that was written last.
fn last_segment(spool: &Path) -> io::Result<PathBuf> {
    let mut segments: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            segments.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    segments.sort();
    segments.pop().map(|(_, path)| path).ok_or_else(|| io::Error::other("no segment"))
}

/// A record may end in so many zeros, which are no room behind it.
const ITS_OWN: usize = 64;

/// Overwrites some of the zeros behind the last record with noise.
fn append_torn(segment: &Path, random: &Random) -> io::Result<()> {
    let mut bytes = fs::read(segment)?;
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1 + ITS_OWN).min(bytes.len());
    let length = usize::try_from(random.below(5000)).map_err(io::Error::other)?;
    let until = (end + length).min(bytes.len());
    random.fill(&mut bytes[end..until]);
    fs::write(segment, bytes)
}
