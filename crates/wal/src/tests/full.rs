//! Reclaim, full disks, and disks that fail.

use super::*;
use crate::{Driver, Location, Lsn};
use postrider_base::Disk;
use postrider_base::sim_disk::{Fault, Operation};

fn filled(batches: u64) -> Rig {
    let mut rig = Rig::new();
    for seed in 0..batches {
        rig.synced(vec![entry(seed, 2000)]);
    }
    rig
}

#[test]
fn only_the_oldest_sealed_segment_is_retired() {
    let mut rig = filled(20);
    let segments = rig.log.segments();
    let (first, second) = (segments[0].number, segments[1].number);
    assert!(matches!(rig.retire(second), Err(Error::NotOldest(_))));
    assert!(matches!(rig.retire(99), Err(Error::NoSegment(99))));
    let gone = rig.log.entries(first).unwrap();
    rig.retire(first).unwrap();
    assert!(matches!(rig.log.read(gone[0].location), Err(Error::NoSegment(_))));
    assert_eq!(rig.log.segments()[0].number, second);
    let rig = rig.reopen().unwrap();
    assert_eq!(rig.replayed.len(), 20 - gone.len());
    assert_eq!(rig.replayed[0].lsn, gone.last().unwrap().lsn.next());
    // The one that is written is not retired even when it is the only one.
    let mut rig = filled(1);
    assert!(matches!(rig.retire(1), Err(Error::NotOldest(1))));
}

#[test]
fn the_space_of_single_entries_is_given_back() {
    let mut rig = Rig::new();
    for seed in 0..20 {
        rig.synced(vec![entry(2 * seed, 1500), entry(2 * seed + 1, 700)]);
    }
    let segment = rig.log.segments()[0];
    let all = rig.log.entries(segment.number).unwrap();
    let kept: Vec<Replayed> = vec![all[1].clone(), all[all.len() - 2].clone()];
    let before = rig.log.allocated(segment.number).unwrap();
    rig.log.release(segment.number, &|entry| kept.contains(entry)).unwrap();
    assert!(rig.log.allocated(segment.number).unwrap() + 4096 <= before);
    let last = rig.log.segments().last().unwrap().number;
    rig.log.release(last, &|_| false).unwrap();
    for _ in 0..2 {
        assert_eq!(rig.log.entries(segment.number).unwrap(), all);
        for entry in &all {
            let read = rig.log.read(entry.location);
            assert_eq!(read.is_ok(), kept.contains(entry), "{entry:?}");
        }
        rig = rig.reopen().unwrap();
        assert_eq!((rig.report.damage.len(), rig.replayed.len()), (0, 40));
    }
    for entry in rig.log.entries(last).unwrap() {
        assert!(rig.log.read(entry.location).is_ok(), "the last segment is still written");
    }
}

#[test]
fn recycled_files_bring_nothing_back() {
    let mut rig = filled(20);
    let old: Vec<Location> = rig.log.read_from(Lsn::new(1), 1 << 20).unwrap().iter().map(|it| it.location).collect();
    for round in 0..5 {
        let sealed: Vec<u64> = rig.log.segments().iter().filter(|it| it.sealed).map(|it| it.number).collect();
        for number in sealed {
            rig.retire(number).unwrap();
        }
        let last = rig.log.synced();
        let bytes = rig.log.usage().bytes;
        assert!(bytes <= 6 * (16 << 10), "{bytes}");
        for seed in 0..8 {
            rig.synced(vec![entry(1000 * round + seed, 1900)]);
        }
        rig = rig.reopen().unwrap();
        assert!(rig.replayed.iter().all(|it| it.lsn >= Lsn::new(last.get().saturating_sub(8))));
        assert_eq!(rig.report.damage, []);
        assert_eq!(rig.report.torn, None);
        let kept: Vec<_> = rig.replayed.iter().rev().take(8).rev().collect();
        for (replayed, seed) in kept.into_iter().zip(0..) {
            check(&rig.log, replayed, &entry(1000 * round + seed, 1900));
        }
    }
    for location in old {
        assert!(rig.log.read(location).is_err());
    }
}

fn retire_all(rig: &mut Rig) {
    let sealed: Vec<u64> = rig.log.segments().iter().filter(|it| it.sealed).map(|it| it.number).collect();
    for number in sealed {
        rig.retire(number).unwrap();
    }
    rig.settle();
}

fn spare_files(rig: &Rig) -> usize {
    let names = rig.disk.read_dir(dir()).unwrap();
    names.iter().filter(|path| crate::segment::number(path, "spare-").is_some()).count()
}

#[test]
fn files_of_a_rush_are_used_again_and_given_back_at_rest() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _time = runtime.enter();
    let options = Options { driver: Driver::Task, ..small() };
    let mut rig = Rig::open(&SimDisk::new(), &options).unwrap();
    for seed in 0..80 {
        rig.synced(vec![entry(seed, 2000)]);
    }
    retire_all(&mut rig);
    let spare = spare_files(&rig);
    assert!(spare > small().spare_segments, "{spare}");
    let (files, written) = (rig.disk.read_dir(dir()).unwrap().len(), rig.disk.stats().written_bytes);
    for seed in 0..40 {
        rig.synced(vec![entry(seed, 2000)]);
    }
    assert_eq!(rig.disk.read_dir(dir()).unwrap().len(), files);
    let written = rig.disk.stats().written_bytes - written;
    assert!(written < 2 * 40 * 2200, "{written}: a file was filled with zeros");
    retire_all(&mut rig);
    for _ in 0..2 {
        assert!(spare_files(&rig) > small().spare_segments);
        runtime.block_on(tokio::time::advance(Duration::from_secs(10)));
        rig.settle();
    }
    assert_eq!(spare_files(&rig), small().spare_segments);
    assert!(rig.reopen().is_ok());
}

#[test]
fn files_of_a_rush_are_given_back_at_once_when_asked() {
    let mut rig = filled(80);
    retire_all(&mut rig);
    assert!(spare_files(&rig) > small().spare_segments);
    rig.log.give_back_spare_files().unwrap();
    assert_eq!(spare_files(&rig), small().spare_segments);
    rig.synced(vec![entry(1, 2000)]);
    assert!(rig.reopen().is_ok());
}

#[test]
fn files_of_a_rush_are_not_kept_where_space_is_short() {
    let mut rig = filled(80);
    rig.disk.set_capacity(Some(40 * (16 << 10)));
    retire_all(&mut rig);
    assert_eq!(spare_files(&rig), small().spare_segments);
}

#[test]
fn a_crash_while_retiring_leaves_no_gap() {
    let rig = filled(20);
    let first = rig.log.segments()[0];
    let before = rig.disk.fork();
    for nth in 1..8 {
        for seed in 0..10 {
            let disk = before.fork();
            let mut rig = Rig::open(&disk, &small()).unwrap();
            rig.settle();
            disk.fail_sync(nth);
            let result = rig.retire(first.number);
            disk.crash(seed);
            let rig = rig.reopen().unwrap();
            let gone = first.last_lsn.unwrap().get();
            let left = rig.replayed.len() as u64;
            assert!(left == 20 - gone || (left == 20 && result.is_err()), "{nth} {seed}: {left}");
            // What is gone now is gone for good.
            disk.crash(seed);
            assert_eq!(rig.reopen().unwrap().replayed.len() as u64, left);
        }
    }
}

#[test]
fn a_retired_file_that_cannot_be_removed_is_no_damage_later() {
    let mut rig = filled(20);
    let (first, second) = (rig.log.segments()[0], rig.log.segments()[1]);
    rig.disk.fail(Operation::Rename, 1, Fault::InputOutput);
    assert!(matches!(rig.retire(first.number), Err(Error::Io { .. })));
    rig.retire(second.number).unwrap();
    assert!(rig.disk.exists(&segment_path(first.number)));
    let left = 20 - second.last_lsn.unwrap().get();
    let third = segment_path(second.number + 1);
    let rig = rig.reopen().unwrap();
    assert_eq!((rig.report.damage.len(), rig.replayed.len() as u64), (0, left));
    assert!(!rig.disk.exists(&segment_path(first.number)) && rig.disk.exists(&third));
}

#[test]
fn a_full_disk_is_transient() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(4 * (16 << 10)));
    let mut rig = Rig::open(&disk, &small()).unwrap();
    let mut accepted = 0;
    let full = loop {
        match rig.commit(vec![entry(accepted, 2000)], Durability::Synced) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(full.is_transient(), "{full}");
    assert!(rig.log.is_full() && !rig.log.poisoned());
    assert!(accepted >= 15, "only {accepted} batches in four segments");
    // Small ones still fit, and space helps.
    rig.synced(vec![entry(50, 10)]);
    rig.retire(1).unwrap();
    rig.settle();
    rig.synced(vec![entry(51, 2000)]);
    disk.set_capacity(None);
    rig.settle();
    assert!(!rig.log.is_full());
    let rig = rig.reopen().unwrap();
    assert_eq!(rig.replayed.last().unwrap().head, entry(51, 0).head);
}

#[test]
fn a_full_disk_does_not_keep_the_log_from_opening() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(3 * (16 << 10)));
    let mut rig = Rig::open(&disk, &small()).unwrap();
    rig.synced(vec![entry(1, 3000)]);
    disk.crash_dropping_all();
    for round in 0..3 {
        rig = rig.reopen().unwrap();
        assert_eq!(rig.replayed.len(), round + 1);
        rig.synced(vec![entry(2, 100)]);
        let sealed: Vec<u64> = rig.log.segments().iter().filter(|it| it.sealed).map(|it| it.number).collect();
        assert_eq!(sealed.len(), round + 1);
    }
}

#[test]
fn too_much_waiting_is_refused() {
    let options = Options { max_waiting_bytes: 5000, ..small() };
    let mut rig = Rig::open(&SimDisk::new(), &options).unwrap();
    let first = rig.log.submit(vec![entry(1, 6000)], Durability::Synced);
    let second = rig.log.submit(vec![entry(2, 10)], Durability::Synced);
    assert!(matches!(rig.run(second), Err(Error::Full(_))));
    rig.run(first).unwrap();
    rig.synced(vec![entry(2, 10)]);
}

#[test]
fn a_failed_write_or_sync_poisons_for_good() {
    for failing in [SimDisk::fail_write, SimDisk::fail_sync] {
        let mut rig = filled(2);
        failing(&rig.disk, 1);
        let batches = [entry(10, 500), entry(11, 500)];
        let commits = batches.map(|entry| rig.log.submit(vec![entry], Durability::Synced));
        for commit in commits {
            assert!(matches!(rig.run(commit), Err(Error::Poisoned(_))));
        }
        assert!(rig.log.poisoned());
        let event = rig.log.clone();
        rig.run(async move { event.poison_event().await });
        let syncs = rig.disk.stats().syncs;
        let late = rig.commit(vec![entry(12, 5)], Durability::Synced);
        assert!(matches!(late, Err(Error::Poisoned(_))));
        assert_eq!(rig.disk.stats().syncs, syncs, "a sync was tried again");
        // What was synced before can still be read, and comes back.
        check(&rig.log, &rig.log.read_from(Lsn::new(1), 0).unwrap()[0], &entry(0, 2000));
        rig.disk.crash(1);
        let rig = rig.reopen().unwrap();
        assert!(rig.replayed.len() >= 2);
    }
}

#[test]
fn after_a_failed_sync_what_the_cache_shows_is_synced_again() {
    let mut rig = filled(2);
    rig.disk.fail_sync(1);
    rig.commit(vec![entry(7, 100)], Durability::Synced).unwrap_err();
    // The process restarts; the machine does not.
    let rig = rig.reopen().unwrap();
    let shown = rig.replayed.len();
    rig.disk.crash_dropping_all();
    assert_eq!(rig.reopen().unwrap().replayed.len(), shown);
}

#[test]
fn spare_segments_are_made_ahead() {
    let mut rig = Rig::new();
    rig.synced(vec![entry(0, 10)]);
    rig.settle();
    let names = rig.disk.read_dir(dir()).unwrap();
    assert_eq!(names, [1, 2, 3].map(segment_path));
    let allocated = rig.disk.stats().written_bytes;
    for seed in 0..5 {
        drop(rig.log.submit(vec![entry(seed, 2000)], Durability::Synced));
    }
    while rig.writer.turn() == Turn::Worked {}
    let written = rig.disk.stats().written_bytes - allocated;
    assert!(written < 16 << 10, "a segment was filled on the way of a commit");
}
