//! Bytes that do not read back as they were written.

use super::*;
use crate::Lsn;
use crate::format::{DATA_START, TRAILER, VERSION};
use postrider_base::{Disk, OpenMode};

/// A log with these batches, cleanly closed.
fn closed(batches: &[Vec<Entry>]) -> SimDisk {
    let mut rig = Rig::new();
    for batch in batches {
        rig.synced(batch.clone());
    }
    rig.close();
    rig.disk
}

#[test]
fn a_tail_torn_at_every_byte_loses_the_last_batch_only() {
    let batches = [vec![entry(1, 50)], vec![entry(2, 60)], vec![entry(3, 70), entry(4, 0)]];
    let mut rig = Rig::new();
    rig.synced(batches[0].clone());
    rig.synced(batches[1].clone());
    let from = DATA_START + rig.log.segments()[0].bytes;
    let before = rig.disk.fork();
    rig.synced(batches[2].clone());
    let to = DATA_START + rig.log.segments()[0].bytes;
    let path = segment_path(1);
    let file = rig.disk.open(&path, OpenMode::Read).unwrap();
    let mut last = vec![0; usize::try_from(to - from).unwrap()];
    file.read_exact_at(&mut last, from).unwrap();
    for cut in 0..=last.len() {
        let disk = before.fork();
        let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
        file.write_all_at(&last[..cut], from).unwrap();
        let rig = Rig::open(&disk, &small()).unwrap();
        let whole = cut == last.len();
        assert_eq!(rig.report.batches, 2 + u64::from(whole), "cut at {cut}");
        assert_eq!(rig.report.damage, []);
        let expected = batches[..2 + usize::from(whole)].concat();
        for (replayed, entry) in rig.replayed.iter().zip(&expected) {
            check(&rig.log, replayed, entry);
        }
        // Seen as torn once its header is whole, but for the zeros at its end.
        let torn = (52..last.len()).contains(&cut);
        assert_eq!(rig.report.torn.is_some(), torn, "cut at {cut}");
        // What follows takes its place and nothing of it comes back.
        let mut rig = rig;
        let next = rig.synced(vec![entry(9, 9)]);
        assert_eq!(next.lsn, Lsn::new(3 + u64::from(whole)));
        let rig = rig.reopen().unwrap();
        assert_eq!(rig.replayed.len(), expected.len() + 1);
    }
}

#[test]
fn a_flipped_bit_anywhere_never_makes_a_wrong_record() {
    let batches = [vec![entry(1, 30)], vec![entry(2, 40), entry(3, 0)], vec![entry(4, 20)]];
    let entries = batches.concat();
    let disk = closed(&batches);
    let path = segment_path(1);
    let marked = 56; // the empty batch of the close
    let data = {
        let rig = Rig::open(&disk.fork(), &small()).unwrap();
        usize::try_from(DATA_START + rig.log.segments()[0].bytes).unwrap()
    };
    for at in 0..data {
        let disk = disk.fork();
        disk.damage(&path, at, 1 << (at % 8)).unwrap();
        let rig = Rig::open(&disk, &small()).unwrap();
        let mut left = entries.iter();
        let mut unreadable = 0;
        for replayed in &rig.replayed {
            let entry = left
                .find(|entry| entry.head == replayed.head && entry.kind == replayed.kind)
                .expect("a record that was never written, or out of order");
            match rig.log.read(replayed.location) {
                Ok(body) => assert_eq!(body, joined(entry)),
                Err(Error::Corrupt { .. }) => unreadable += 1,
                Err(error) => panic!("{error}"),
            }
        }
        let lost = entries.len() - rig.replayed.len() + unreadable;
        let used = [0..36, 2048..2084, 4096..data - marked];
        let expected = used.iter().any(|range| range.contains(&at));
        assert_eq!(!rig.report.damage.is_empty(), expected, "at {at}: {:?}", rig.report);
        assert_eq!(lost > 0, expected && at >= 4096, "at {at}");
        if expected {
            let again = rig.reopen().unwrap();
            assert!(again.report.damage.is_empty(), "at {at}: found twice");
        }
    }
}

#[test]
fn flips_in_a_sealed_segment_are_found() {
    let mut rig = Rig::new();
    for seed in 0..12 {
        rig.synced(vec![entry(seed, 2000)]);
    }
    let disk = rig.disk.clone();
    let len = 16 << 10;
    let end = usize::try_from(DATA_START + rig.log.segments()[0].bytes).unwrap();
    let first_next = rig.log.segments()[1].first_lsn.unwrap().get();
    for at in (0..len).step_by(7) {
        let disk = disk.fork();
        disk.damage(&segment_path(1), at, 0x10).unwrap();
        let rig = Rig::open(&disk, &small()).unwrap();
        for (replayed, seed) in rig.replayed.iter().zip(0..) {
            let entry = entry(seed, 2000);
            assert_eq!(replayed.head, entry.head);
            // Bodies of sealed segments are verified when they are read.
            match rig.log.read(replayed.location) {
                Ok(body) => assert_eq!(body, joined(&entry)),
                Err(error) => assert!(seed < first_next && (4096..end).contains(&at), "{error}"),
            }
        }
        assert_eq!(rig.replayed.len(), 12, "at {at}");
    }
}

#[test]
fn a_seal_that_was_not_finished_is_no_damage() {
    let mut rig = Rig::new();
    let mut batches = 0;
    while rig.log.segments().len() < 2 {
        rig.synced(vec![entry(batches, 2000)]);
        batches += 1;
    }
    let disk = rig.disk.fork();
    // The trailer came to the disk, the end of the footer did not, and the
    // first batch of the next segment was never written.
    disk.damage(&segment_path(1), (16 << 10) - TRAILER - 1, 1).unwrap();
    disk.damage(&segment_path(2), 4096, 1).unwrap();
    let unfinished = Rig::open(&disk, &small()).unwrap();
    assert_eq!(unfinished.report.damage, []);
    assert_eq!(unfinished.replayed.len() as u64, batches - 1);
    assert!(!disk.exists(&dir().join("quarantine")));
    // With the next segment the seal is known to have been synced.
    let disk = rig.disk.fork();
    disk.damage(&segment_path(1), (16 << 10) - TRAILER - 1, 1).unwrap();
    assert_eq!(Rig::open(&disk, &small()).unwrap().replayed.len() as u64, batches);
}

#[test]
fn a_lost_header_refuses_to_open() {
    let disk = closed(&[vec![entry(1, 10)]]);
    for at in [10, 2058] {
        disk.damage(&segment_path(1), at, 1).unwrap();
    }
    let error = Rig::open(&disk, &small()).err().unwrap();
    assert!(matches!(error, Error::Corrupt { segment: 1, offset: 0 }), "{error}");
    let accept = Options { accept_loss: true, ..small() };
    let rig = Rig::open(&disk, &accept).unwrap();
    assert_eq!(rig.report.lost, [1]);
    assert!(rig.replayed.is_empty());
    let kept = disk.read_dir(&dir().join("quarantine")).unwrap();
    assert_eq!(kept.len(), 1);
}

#[test]
fn a_segment_that_was_cut_short_is_damage() {
    let mut rig = Rig::new();
    for seed in 0..20 {
        rig.synced(vec![entry(seed, 2000)]);
    }
    for length in [0, 36, 600, 4095, 4096, 9000] {
        let disk = rig.disk.fork();
        disk.open(&segment_path(2), OpenMode::ReadWrite).unwrap().set_len(length).unwrap();
        let strict = Rig::open(&disk, &small());
        if length < 36 {
            assert!(matches!(strict, Err(Error::Corrupt { segment: 2, offset: 0 })), "cut to {length}");
            continue;
        }
        let cut = strict.unwrap();
        assert!(!cut.report.damage.is_empty(), "cut to {length}");
        assert!((13..20).contains(&cut.replayed.len()), "cut to {length}: {}", cut.replayed.len());
    }
}

#[test]
fn damaged_segments_are_kept_as_evidence() {
    let disk = closed(&[vec![entry(1, 10)], vec![entry(2, 10)]]);
    disk.damage(&segment_path(1), 4096 + 60, 1).unwrap();
    let rig = Rig::open(&disk, &small()).unwrap();
    assert_eq!(rig.report.damage.len(), 1);
    assert_eq!(rig.report.damage[0].batches, 1);
    assert_eq!(rig.report.damage[0].segment, 1);
    assert_eq!(rig.report.damage[0].offset, 4096);
    assert_eq!(rig.replayed.len(), 1);
    assert_eq!(disk.read_dir(&dir().join("quarantine")).unwrap().len(), 1);
}

#[test]
fn a_missing_segment_refuses_to_open() {
    for gone in [1, 2] {
        let mut rig = Rig::new();
        for seed in 0..20 {
            rig.synced(vec![entry(seed, 2000)]);
        }
        let all = rig.log.segments();
        rig.disk.remove_file(&segment_path(gone)).unwrap();
        let error = Rig::open(&rig.disk, &small()).err().unwrap();
        assert!(matches!(error, Error::Gap { first, last, .. } if first == gone && last == gone), "{error}");
        let accept = Options { accept_loss: true, ..small() };
        let rig = Rig::open(&rig.disk, &accept).unwrap();
        assert_eq!(rig.report.lost, [gone]);
        let lost = all.iter().find(|it| it.number == gone).unwrap();
        let lost = lost.last_lsn.unwrap().get() - lost.first_lsn.unwrap().get() + 1;
        assert_eq!(rig.replayed.len() as u64, 20 - lost);
    }
}

#[test]
fn the_lost_last_segment_is_missed_by_those_made_ahead() {
    let mut rig = Rig::new();
    for seed in 0..20 {
        rig.synced(vec![entry(seed, 2000)]);
    }
    let last = rig.log.segments().last().unwrap().number;
    rig.disk.remove_file(&segment_path(last)).unwrap();
    match Rig::open(&rig.disk, &small()).map(|_| ()) {
        Err(Error::Gap { first, last: to, .. }) => assert_eq!((first, to), (last, last)),
        other => panic!("{other:?}"),
    }
    let again = Rig::open(&rig.disk, &Options { accept_loss: true, ..small() }).unwrap();
    assert_eq!(again.report.lost, [last]);
}

#[test]
fn another_format_version_refuses_to_open() {
    let disk = closed(&[vec![entry(1, 10)]]);
    let file = disk.open(&segment_path(1), OpenMode::ReadWrite).unwrap();
    let mut header = [0; 36];
    file.read_exact_at(&mut header, 0).unwrap();
    header[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let crc = crc32fast::hash(&header[8..]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    let error = Rig::open(&disk, &small()).err().unwrap();
    assert!(matches!(error, Error::Version { segment: 1, found, .. } if found == VERSION + 1), "{error}");
}

#[test]
fn a_record_inside_a_body_is_not_a_record() {
    // The bytes of a real batch, handed in as a body, after damage makes the
    // scan look for the next header.
    let mut rig = Rig::new();
    rig.synced(vec![entry(1, 10)]);
    let file = rig.disk.open(&segment_path(1), OpenMode::Read).unwrap();
    let mut record = vec![0; 200];
    file.read_exact_at(&mut record, 4096).unwrap();
    rig.synced(vec![Entry { kind: 1, head: "x".into(), body: vec![record.into()] }]);
    rig.synced(vec![entry(3, 10)]);
    let second = usize::try_from(rig.replayed_from(2).location.offset).unwrap() - 40;
    rig.close();
    rig.disk.damage(&segment_path(1), second, 1).unwrap();
    let rig = rig.reopen().unwrap();
    let lsns: Vec<u64> = rig.replayed.iter().map(|it| it.lsn.get()).collect();
    assert_eq!(lsns, [1, 3]);
}

impl Rig {
    fn replayed_from(&self, lsn: u64) -> Replayed {
        self.log.read_from(Lsn::new(lsn), 0).unwrap().remove(0)
    }
}
