//! Logs that earlier versions of the format wrote are read as they were meant.
//!
//! `tests/formats/v<version>` has the files of a log as a process left them
//! that was killed: one segment sealed, one not, the first one retired. When
//! the format changes, `write_a_log_for_later` adds a directory; the old ones
//! stay for ever, and so does the test that reads them.

#![allow(clippy::unwrap_used)] // A test fails by panicking.
#![allow(clippy::cast_possible_truncation)] // Lengths of a few bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use postrider_base::{Disk, OpenMode, Random, SimDisk};
use postrider_wal::{Driver, Durability, Entry, Error, Log, Options, Replayed};

/// The version that is written now.
const CURRENT: u32 = 1;
/// Batches that were in the segment that is gone.
const RETIRED: u64 = 3;
const DIR: &str = "/log";

fn files(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/v{version}"))
}

fn options() -> Options {
    Options { segment_bytes: 16 << 10, driver: Driver::Task, random: Random::seeded(1), ..Options::default() }
}

/// What was committed, a batch each: no entry, no head, no body, all kinds of
/// lengths, and as much as makes three segments.
fn history() -> Vec<Vec<Entry>> {
    let entry = |kind: u8, head: usize, body: usize| {
        let bytes =
            |length: usize, step: usize| (0..length).map(|at| ((at * step + usize::from(kind)) % 256) as u8).collect();
        let (head, body): (Vec<u8>, Vec<u8>) = (bytes(head, 7), bytes(body, 13));
        let (front, back) = body.split_at(body.len() / 3);
        Entry { kind, head: head.into(), body: vec![Bytes::copy_from_slice(front), Bytes::copy_from_slice(back)] }
    };
    let long = |kind| vec![entry(kind, 40, 3600)];
    let mixed = vec![entry(0, 0, 0), entry(1, 1, 0), entry(255, 0, 1), entry(7, 300, 500)];
    vec![
        long(1),
        long(2),
        long(3),
        // The second segment.
        mixed.clone(),
        long(4),
        long(5),
        vec![entry(6, 12, 0)],
        // The third.
        long(8),
        vec![],
        mixed,
        vec![entry(9, 0, 1000)],
    ]
}

fn open(disk: &SimDisk) -> Result<(Log, Vec<Replayed>), Error> {
    let mut replayed = Vec::new();
    let (log, report) = Log::open(Arc::new(disk.clone()), Path::new(DIR), options(), &mut |it| replayed.push(it))?;
    assert_eq!((report.damage, report.lost), (vec![], vec![]));
    Ok((log, replayed))
}

fn load(version: u32) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    for file in fs::read_dir(files(version)).unwrap() {
        let path = file.unwrap().path();
        let copy = disk.open(&Path::new(DIR).join(path.file_name().unwrap()), OpenMode::CreateNew).unwrap();
        copy.write_all_at(&fs::read(path).unwrap(), 0).unwrap();
        copy.sync_all().unwrap();
    }
    disk.sync_dir(Path::new(DIR)).unwrap();
    disk
}

fn joined(entry: &Entry) -> Vec<u8> {
    entry.body.concat()
}

#[tokio::test(start_paused = true)]
async fn logs_of_every_version_are_read() {
    for version in 1..=CURRENT {
        let disk = load(version);
        // The second time it was this version that wrote them again.
        for _ in 0..2 {
            let (log, replayed) = open(&disk).unwrap();
            let mut replayed = replayed.iter();
            for (lsn, batch) in (1..).zip(history()).filter(|(lsn, _)| *lsn > RETIRED) {
                for (index, entry) in (0..).zip(&batch) {
                    let it = replayed.next().unwrap();
                    assert_eq!((it.lsn.get(), it.index), (lsn, index), "version {version}");
                    assert_eq!((it.kind, &it.head), (entry.kind, &entry.head), "version {version}");
                    assert_eq!(log.read(it.location).unwrap(), joined(entry), "version {version}");
                }
            }
            assert_eq!(replayed.next(), None);
            log.close().await.unwrap();
        }
        let (log, _) = open(&disk).unwrap();
        let first = log.segments()[0].number;
        log.retire_oldest(first).await.unwrap();
        log.commit(vec![Entry::head_only(1, "new")], Durability::Synced).await.unwrap();
        drop(log);
        let (_, replayed) = open(&disk).unwrap();
        assert_eq!(replayed.last().unwrap().head, "new");
    }
}

/// Where a structure has its version, counted from its start: the checksum
/// before it covers all from there on.
const CHECKED_FROM: usize = 8;

#[tokio::test(start_paused = true)]
async fn a_later_version_is_refused_and_named() {
    const LATER: u32 = CURRENT + 1;
    let number = |disk: &SimDisk| {
        let paths = disk.read_dir(Path::new(DIR)).unwrap();
        let last = paths.last().unwrap().clone();
        let name = last.file_stem().unwrap().to_str().unwrap().to_owned();
        (last, name.trim_start_matches("segment-").parse::<u64>().unwrap())
    };
    // In the segment's header (both copies), and in that of a batch.
    for in_batch in [false, true] {
        let disk = load(CURRENT);
        let (path, segment) = number(&disk);
        let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
        let mut header = [0; 36];
        file.read_exact_at(&mut header, 0).unwrap();
        if in_batch {
            let salt: [u8; 8] = header[28..36].try_into().unwrap();
            let mut batch = [0; 56];
            file.read_exact_at(&mut batch, 4096).unwrap();
            batch[8..10].copy_from_slice(&u16::try_from(LATER).unwrap().to_le_bytes());
            let mut sum = crc32fast::Hasher::new();
            let seeded = [&salt[..], &segment.to_le_bytes(), &4096u64.to_le_bytes(), &batch[CHECKED_FROM..]];
            seeded.iter().for_each(|bytes| sum.update(bytes));
            batch[4..8].copy_from_slice(&sum.finalize().to_le_bytes());
            file.write_all_at(&batch, 4096).unwrap();
        } else {
            header[8..12].copy_from_slice(&LATER.to_le_bytes());
            let sum = crc32fast::hash(&header[CHECKED_FROM..]);
            header[4..8].copy_from_slice(&sum.to_le_bytes());
            file.write_all_at(&header, 0).unwrap();
            file.write_all_at(&header, 2048).unwrap();
        }
        let before = disk.stats().written_bytes;
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, Error::Version { found: LATER, known: CURRENT, .. }), "{error}");
        let said = error.to_string();
        assert_eq!(said, format!("segment {segment} has format version {LATER}, known is {CURRENT}"));
        assert_eq!(disk.stats().written_bytes, before, "what is not understood was written to");
    }
}

/// `cargo test -p postrider-wal --test formats -- --ignored`
#[tokio::test(start_paused = true)]
#[ignore = "writes the files that the other tests read, once for each version"]
async fn write_a_log_for_later() {
    let to = files(CURRENT);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::create_dir(&to).expect("the files of a version are never written again");
    let disk = SimDisk::new();
    let (log, _) = open(&disk).unwrap();
    for batch in history() {
        log.commit(batch, Durability::Synced).await.unwrap();
    }
    let segments = log.segments();
    assert_eq!(segments.iter().filter(|segment| segment.sealed).count(), 2);
    assert_eq!(segments[0].last_lsn.unwrap().get(), RETIRED);
    log.retire_oldest(segments[0].number).await.unwrap();
    for path in disk.read_dir(Path::new(DIR)).unwrap() {
        let name = path.file_name().unwrap();
        let number = name.to_str().unwrap().strip_prefix("segment-").and_then(|it| it.strip_suffix(".log"));
        let used = |number: &str| segments[1..].iter().any(|it| Ok(it.number) == number.parse());
        if number.is_some_and(used) {
            let file = disk.open(&path, OpenMode::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            fs::write(to.join(name), bytes).unwrap();
        }
    }
}
