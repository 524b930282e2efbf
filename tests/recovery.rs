//! What a bad day does to the state directory, and that no acknowledged
//! message is lost by it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use postrider_base::{Clock, Random};
use postrider_testkit::client::{Client, Security};
use postrider_testkit::relay::{Relay, RelayOptions};
use postrider_testkit::{Policy, Received, Sink, postfix};

type Outcome = Result<(), Box<dyn Error>>;

/// Short retries, so that mail leaves soon after the remote opens.
const RETRY: &str = "[delivery]\nretry = [\"1s\"]\n";

/// A remote that defers everything until it is opened, then keeps the subjects.
#[derive(Clone, Default)]
struct Gate {
    open: Arc<AtomicBool>,
    subjects: Arc<Mutex<Vec<String>>>,
}

impl Policy for Gate {
    fn recipient(&self, _: &str) -> String {
        if self.open.load(Ordering::SeqCst) { "250 Ok".to_owned() } else { "451 4.3.0 closed".to_owned() }
    }

    fn message(&self, message: Received) -> String {
        let text = String::from_utf8_lossy(&message.content).into_owned();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default();
        let whole = text.ends_with(&format!("end of {subject}\r\n"));
        self.subjects.lock().push(if whole { subject.to_owned() } else { format!("damaged {subject}") });
        "250 Ok".to_owned()
    }
}

struct Scene {
    gate: Gate,
    sink: Sink,
    relay: Relay,
    promised: BTreeSet<String>,
}

impl Scene {
    async fn new(configuration: &str, state: Option<PathBuf>) -> io::Result<Self> {
        let gate = Gate::default();
        let sink = Sink::start(gate.clone(), Clock::system()).await?;
        let options = RelayOptions {
            state,
            ..RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), &format!("{RETRY}{configuration}"))
        };
        Ok(Self { gate, sink, relay: Relay::start(options)?, promised: BTreeSet::new() })
    }

    async fn connect(&self) -> io::Result<Client> {
        let mut client = self.relay.endpoint(Security::StartTls, true)?.connect().await?;
        let (user, password) = self.relay.credentials();
        client.login(user, password).await?;
        Ok(client)
    }

    /// Submits messages named `prefix-N`; those with a 250 are promised.
    async fn submit(&mut self, prefix: &str, count: usize, padding: usize) -> io::Result<Vec<String>> {
        let mut client = self.connect().await?;
        let mut replies = Vec::new();
        for number in 0..count {
            let subject = format!("{prefix}-{number}");
            let padding = "padding of some length\r\n".repeat(padding / 24);
            let content = format!("From: a@example.com\r\nSubject: {subject}\r\n\r\n{padding}end of {subject}\r\n");
            let reply = client.send("a@example.com", &["b@example.net"], content.as_bytes()).await?;
            if reply.code == 250 {
                self.promised.insert(subject);
            }
            replies.push(reply.to_string());
        }
        Ok(replies)
    }

    /// Opens the remote and waits until every promised message arrived, whole.
    async fn all_arrive(&mut self) {
        self.gate.open.store(true, Ordering::SeqCst);
        let patience = std::time::Duration::from_secs(60);
        // A message may come twice around a kill, so the count alone proves nothing.
        let missing = async {
            let mut count = self.promised.len() as u64;
            loop {
                self.sink.wait_for(count).await;
                let arrived: BTreeSet<String> = self.gate.subjects.lock().iter().cloned().collect();
                if self.promised.is_subset(&arrived) {
                    return;
                }
                count = self.sink.accepted() + 1;
            }
        };
        let done = tokio::time::timeout(patience, missing).await.is_ok();
        let arrived: BTreeSet<String> = self.gate.subjects.lock().iter().cloned().collect();
        let lost: Vec<_> = self.promised.difference(&arrived).collect();
        assert!(
            done && lost.is_empty(),
            "lost {lost:?} of {}\n{}",
            self.promised.len(),
            self.relay.log().unwrap_or_default()
        );
        assert!(!arrived.iter().any(|subject| subject.starts_with("damaged")), "{arrived:?}");
    }

    fn spool(&self, name: &str) -> PathBuf {
        self.relay.state().join("spool").join(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sled_directories_may_go_at_any_time() -> Outcome {
    let mut scene = Scene::new("", None).await?;
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
    let mut scene = Scene::new("", None).await?;
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
    let mut scene = Scene::new("[spool]\nsegment_bytes = \"1MiB\"\n", None).await?;
    let random = Random::seeded(11);
    for round in 0..6 {
        scene.submit(&format!("round{round}"), 20, 2000).await?;
        scene.relay.kill()?;
        // What a power cut leaves of a write that was never synced: its
        // beginning, then what stood there before.
        append_torn(&last_segment(&scene.spool(""))?, &random)?;
        scene.relay.launch()?;
    }
    scene.all_arrive().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_452_and_passes() -> Outcome {
    let mount = Mount::tmpfs("48m")?;
    let spool = "[spool]\nsegment_bytes = \"2MiB\"\nmin_free_bytes = \"8MB\"\n\n[events]\nsegment_bytes = \"1MiB\"\n";
    let mut scene = Scene::new(spool, Some(mount.0.path().join("state"))).await?;
    let mut refused = Vec::new();
    for batch in 0..40 {
        let replies = scene.submit(&format!("batch{batch}"), 10, 200_000).await?;
        refused = replies.into_iter().filter(|reply| !reply.starts_with("250")).collect();
        if !refused.is_empty() {
            break;
        }
    }
    assert!(refused.iter().all(|reply| reply.starts_with("452")), "{refused:?}");
    assert!(!refused.is_empty(), "the disk never filled");
    scene.all_arrive().await;
    // Mail flows again by itself once there is room.
    let mut flowing = Vec::new();
    for _ in 0..100 {
        flowing = scene.submit("again", 1, 100).await?;
        if flowing[0].starts_with("250") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(flowing[0].starts_with("250"), "{flowing:?}\n{}", scene.relay.log()?);
    scene.all_arrive().await;
    scene.relay.kill()?;
    Ok(())
}

/// A file system of its own, gone with the value.
struct Mount(tempfile::TempDir);

impl Mount {
    fn tmpfs(size: &str) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("small-disk-").tempdir()?;
        let path = directory.path().display().to_string();
        postfix::run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs", &path])?;
        Ok(Self(directory))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon of a failed test may still hold files.
        let _ = postfix::run("umount", &["-l", &self.0.path().display().to_string()]);
    }
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

/// Overwrites some of the zeros behind the last record with noise.
fn append_torn(segment: &Path, random: &Random) -> io::Result<()> {
    let mut bytes = fs::read(segment)?;
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let length = usize::try_from(random.below(5000)).map_err(io::Error::other)?;
    let until = (end + length).min(bytes.len());
    random.fill(&mut bytes[end..until]);
    fs::write(segment, bytes)
}
