//! A disk that fails: nothing is acknowledged that may not be there, nothing is
//! delivered any more, the daemon ends with an error, and the next one has it all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider_testkit::client::Client;
use postrider_testkit::scene::{content, send};
use postrider_testkit::{Fault, Scene, Volume};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{BINARY, FAILURE, Outcome, fill, segments, takes_mail_again};

const SESSIONS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_is_never_a_250() -> Outcome {
    log_fails("fdatasync").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_is_never_a_250() -> Outcome {
    log_fails("pwrite64,pwritev").await
}

async fn log_fails(calls: &str) -> Outcome {
    // Nothing else is to be written meanwhile: the clients' messages are the first to fail.
    let mut scene = Scene::new(BINARY, "[delivery]\nretry = [\"5s\"]\n", None).await?;
    scene.submit("before", 10, 1000).await?;
    let mut waiting = Vec::new();
    for _ in 0..SESSIONS {
        let mut client = scene.connect().await?;
        client.begin("a@example.com", &["b@example.net"]).await?.map_err(|reply| reply.to_string())?;
        waiting.push(client);
    }
    let pid = scene.relay.pid().ok_or("not running")?;
    let fault = Fault::inject(pid, calls, "error=EIO", &segments(&scene, "spool"))?;
    let mut sessions = JoinSet::new();
    for mut client in waiting {
        sessions.spawn(async move { client.finish(&content("refused", 1000)).await });
    }
    for reply in sessions.join_all().await {
        assert_eq!(reply?.to_string(), FAILURE);
    }
    // Written or not, what was refused is not delivered by this process.
    scene.gate.open();
    let greeting = greeting(&scene).await;
    assert!(greeting.is_empty() || greeting == "421 Temporary service failure\r\n", "{greeting}");
    assert!(!scene.relay.wait()?.success());
    assert_eq!(scene.gate.subjects(), [""; 0]);
    let log = scene.relay.log()?;
    assert!(log.contains("the log failed") && log.contains("Input/output error"), "{log}");
    drop(fault);

    scene.relay.launch()?;
    scene.relay.cli(&["queue", "retry", "--all"])?;
    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    assert!(scene.relay.stop()?.success());
    Ok(())
}

/// Mail goes on until the daemon ends; what was acknowledged meanwhile is true.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_fails_ends_the_daemon_and_costs_no_mail() -> Outcome {
    let mut scene = Scene::new(BINARY, "", None).await?;
    scene.submit("before", 10, 1000).await?;
    let pid = scene.relay.pid().ok_or("not running")?;
    let fault = Fault::inject(pid, "fdatasync", "error=EIO", &segments(&scene, "journal"))?;
    // The session may end with the daemon.
    let _ = scene.submit("during", 10, 1000).await;
    assert!(!scene.relay.wait()?.success());
    let log = scene.relay.log()?;
    assert!(log.contains("the journal has failed") && log.contains("Input/output error"), "{log}");
    drop(fault);

    scene.relay.launch()?;
    scene.all_arrive().await;
    // The journal is behind the queue by a moment.
    for _ in 0..100 {
        if sends(&scene)? >= scene.promised.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What was written and not acknowledged may be there as well, all once.
    let (sends, promised) = (sends(&scene)?, scene.promised.len());
    assert!((promised..=promised + 1).contains(&sends), "{sends} events for {promised} messages");
    Ok(())
}

/// As the journal; whoever asks for a credential hears that there is none.
#[tokio::test(flavor = "multi_thread")]
async fn account_tables_that_fail_end_the_daemon_and_cost_no_mail() -> Outcome {
    let mut scene = Scene::new(BINARY, "", None).await?;
    scene.submit("before", 10, 1000).await?;
    let pid = scene.relay.pid().ok_or("not running")?;
    let fault = Fault::inject(pid, "fdatasync", "error=EIO", &segments(&scene, "store"))?;
    let create = ["credentials", "create", "--label", "new"];
    assert!(scene.relay.cli(&create).is_err());
    assert!(!scene.relay.wait()?.success());
    let log = scene.relay.log()?;
    assert!(log.contains("the log of the account tables has failed") && log.contains("Input/output error"), "{log}");
    drop(fault);

    scene.relay.launch()?;
    scene.relay.cli(&create)?;
    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    Ok(())
}

/// The written segment is well, but the file system gives no other: there is
/// space, so that no client hears of storage. It passes without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_can_not_be_opened_is_waited_for() -> Outcome {
    let mut scene = Scene::new(BINARY, "[spool]\nsegment_bytes = \"2MiB\"\n", None).await?;
    let spool = scene.relay.state().join("spool");
    let spares: Vec<PathBuf> = (1..=32).map(|number| spool.join(format!("spare-{number:010}.log"))).collect();
    let pid = scene.relay.pid().ok_or("not running")?;
    let fault = Fault::inject(pid, "openat", "error=EIO", &spares)?;
    assert_eq!(fill(&mut scene).await?, FAILURE);
    let log = scene.relay.log()?;
    assert!(log.contains("no room for the log") && log.contains("Input/output error"), "{log}");
    drop(fault);

    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    assert!(scene.relay.stop()?.success());
    Ok(())
}

/// Bodies that wait on go to a log of their own; it fails while the rest is well.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_can_not_be_kept_aside_stays_where_it_is() -> Outcome {
    let mut scene = Scene::new(BINARY, "[spool]\nsegment_bytes = \"1MiB\"\n", None).await?;
    for reply in scene.submit("kept", 3, 50_000).await? {
        let id = reply.strip_prefix("250 Ok ").ok_or("not accepted")?;
        scene.relay.cli(&["queue", "hold", id])?;
    }
    let aside = scene.relay.state().join("spool").join("cold");
    let aside: Vec<PathBuf> =
        (0..8).map(|number| aside.join(format!("segment-{}.log", (1_u64 << 40) + number))).collect();
    let pid = scene.relay.pid().ok_or("not running")?;
    let fault = Fault::inject(pid, "fdatasync", "error=EIO", &aside)?;
    // Around those that are held everything comes and goes, until the session ends with the daemon.
    scene.gate.open();
    for batch in 0..50 {
        if scene.submit(&format!("passing{batch}"), 20, 50_000).await.is_err() {
            break;
        }
    }
    assert!(!scene.relay.wait()?.success());
    let log = scene.relay.log()?;
    assert!(log.contains("the log failed") && log.contains("Input/output error"), "{log}");
    drop(fault);

    scene.relay.launch()?;
    scene.relay.cli(&["queue", "release", "--all"])?;
    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    assert!(scene.relay.stop()?.success());
    Ok(())
}

/// The index is only derived: without it the queue goes on, in memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_fails_costs_nothing() -> Outcome {
    let mut scene = Scene::new(BINARY, "[spool]\nindex_after = \"100ms\"\n", None).await?;
    scene.submit("before", 10, 1000).await?;
    let index = scene.relay.state().join("spool").join("index");
    let files = files_below(&index)?;
    let pid = scene.relay.pid().ok_or("not running")?;
    let calls = "pread64,pwrite64,sync_file_range,fsync,fdatasync,ftruncate";
    let fault = Fault::inject(pid, calls, "error=EIO", &files)?;
    for round in 0..10 {
        scene.submit(&format!("during{round}"), 10, 1000).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = scene.relay.log()?;
    assert!(log.contains("making the index anew") && log.contains("Input/output error"), "{log}");
    scene.all_arrive().await;
    drop(fault);
    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    assert!(scene.relay.stop()?.success());
    scene.relay.launch()?;
    Ok(())
}

/// The file system finds an error in itself under load and turns read-only.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_under_load() -> Outcome {
    let volume = Volume::ext4(256)?;
    let configuration = "[spool]\nsegment_bytes = \"4MiB\"\nmin_free_bytes = \"8MB\"\n\n\
                         [events]\nsegment_bytes = \"1MiB\"\n";
    let mut scene = Scene::new(BINARY, configuration, Some(&volume)).await?;
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        sessions.spawn(load(scene.connect().await?, number));
    }
    scene.submit("before", 100, 1000).await?;
    volume.turn_read_only()?;
    for (promised, last) in sessions.join_all().await {
        scene.promised.extend(promised);
        let last = last.map_or_else(|error| error.to_string(), |reply| reply.to_string());
        // A session between two messages is told that the relay stops.
        assert!(
            ["451 Temporary", "421 ", "unexpected end", "Connection", "Broken"]
                .iter()
                .any(|said| last.starts_with(said)),
            "{last}"
        );
    }
    assert!(!scene.relay.wait()?.success());
    assert!(scene.relay.log()?.contains("Read-only file system"), "{}", scene.relay.log()?);
    let still = scene.relay.launch().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(still.contains("Read-only file system"), "{still}");

    volume.mount_again()?;
    scene.relay.launch()?;
    takes_mail_again(&mut scene).await?;
    scene.all_arrive().await;
    assert!(scene.relay.stop()?.success());
    Ok(())
}

/// Sends until it is not taken any more: what was taken, and the last reply.
async fn load(mut client: Client, number: usize) -> (Vec<String>, io::Result<postrider_testkit::Reply>) {
    let mut promised = Vec::new();
    loop {
        let subject = format!("load{number}-{}", promised.len());
        match send(&mut client, &subject, 10_000).await {
            Ok(reply) if reply.code == 250 => promised.push(subject),
            last => return (promised, last),
        }
    }
}

/// What a new client hears; nothing where the door is closed already.
async fn greeting(scene: &Scene) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(scene.relay.starttls()).await {
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut text)).await;
    }
    text
}

fn sends(scene: &Scene) -> io::Result<usize> {
    let events = scene.relay.cli(&["events", "since", "1h"])?.stdout;
    let lines = events.split(|&byte| byte == b'\n');
    Ok(lines.filter(|line| line.starts_with(b"{\"eventType\":\"Send\"")).count())
}

fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files.extend(files_below(&path)?),
            false => files.push(path),
        }
    }
    Ok(files)
}
