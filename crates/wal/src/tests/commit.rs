//! Committing and reading back.

use super::*;
use crate::{Location, Lsn};

#[test]
fn batches_come_back_after_a_reopen() {
    let mut rig = Rig::new();
    assert_eq!(rig.report, OpenReport::default());
    let batches: Vec<Vec<Entry>> = vec![
        vec![entry(1, 100)],
        vec![entry(2, 0), entry(3, 3000), Entry::head_only(9, "")],
        vec![],
        vec![entry(4, 1)],
    ];
    let mut locations = Vec::new();
    for (at, batch) in batches.iter().enumerate() {
        let committed = rig.synced(batch.clone());
        assert_eq!(committed.lsn, Lsn::new(at as u64 + 1));
        assert_eq!(committed.locations.len(), batch.len());
        locations.extend(committed.locations);
    }
    let entries = batches.concat();
    for _ in 0..3 {
        rig = rig.reopen().unwrap();
        assert_eq!(rig.report.batches, 4);
        assert_eq!(rig.report.last, Lsn::new(4));
        assert!(rig.report.damage.is_empty());
        assert_eq!(rig.replayed.len(), entries.len());
        for ((replayed, entry), location) in rig.replayed.iter().zip(&entries).zip(&locations) {
            check(&rig.log, replayed, entry);
            assert_eq!(&replayed.location, location, "a location moved");
        }
        let places: Vec<_> = rig.replayed.iter().map(|it| (it.lsn.get(), it.index)).collect();
        assert_eq!(places, [(1, 0), (2, 0), (2, 1), (2, 2), (4, 0)]);
    }
}

#[test]
fn a_group_is_one_write_and_one_sync() {
    let mut rig = Rig::new();
    rig.synced(vec![entry(0, 10)]);
    let before = (rig.disk.stats(), rig.log.usage());
    let commits: Vec<_> = (1..=20).map(|seed| rig.log.submit(vec![entry(seed, 50)], Durability::Synced)).collect();
    for (commit, lsn) in commits.into_iter().zip(2..) {
        assert_eq!(rig.run(commit).unwrap().lsn, Lsn::new(lsn));
    }
    let after = (rig.disk.stats(), rig.log.usage());
    assert_eq!(after.0.writes, before.0.writes + 1);
    assert_eq!(after.0.syncs, before.0.syncs + 1);
    assert_eq!(after.1.groups, before.1.groups + 1);
    assert_eq!(after.1.batches, before.1.batches + 20);
}

#[test]
fn groups_keep_to_their_limits() {
    let limits = Options { max_group_bytes: 1000, max_group_vectors: 7, ..small() };
    let mut rig = Rig::open(&SimDisk::new(), &limits).unwrap();
    rig.synced(vec![]);
    let commits: Vec<_> = [10, 10, 10, 700, 700, 2000, 10]
        .into_iter()
        .map(|body| rig.log.submit(vec![entry(1, body)], Durability::Synced))
        .collect();
    let before = rig.log.usage().groups;
    for commit in commits {
        rig.run(commit).unwrap();
    }
    // Three vectors a batch: two small ones fill a group; a large one is alone.
    assert_eq!(rig.log.usage().groups - before, 5);
}

#[test]
fn buffered_is_written_and_synced_with_the_next_synced_group() {
    let mut rig = Rig::new();
    rig.commit(vec![entry(1, 10)], Durability::Buffered).unwrap();
    assert_eq!((rig.log.written(), rig.log.synced()), (Lsn::new(1), Lsn::ZERO));
    assert!(rig.log.read_from(Lsn::new(1), 1000).unwrap().is_empty());
    rig.synced(vec![entry(2, 10)]);
    assert_eq!(rig.log.synced(), Lsn::new(2));
    assert_eq!(*rig.log.committed().borrow(), Lsn::new(2));
    rig.disk.crash_dropping_all();
    let rig = rig.reopen().unwrap();
    assert_eq!(rig.report.batches, 2);
}

#[test]
fn buffered_is_synced_after_a_while() {
    let soon = Options { buffered_sync: Duration::ZERO, ..small() };
    let mut rig = Rig::open(&SimDisk::new(), &soon).unwrap();
    rig.commit(vec![entry(1, 10)], Durability::Buffered).unwrap();
    rig.settle();
    assert_eq!(rig.log.synced(), Lsn::new(1));
    rig.disk.crash_dropping_all();
    assert_eq!(rig.reopen().unwrap().report.batches, 1);
}

#[test]
fn buffered_is_synced_after_a_while_also_when_more_and_more_comes() {
    let soon = Options { buffered_sync: Duration::ZERO, ..small() };
    let mut rig = Rig::open(&SimDisk::new(), &soon).unwrap();
    for seed in 1..4 {
        let _written = rig.log.submit(vec![entry(seed, 10)], Durability::Buffered);
        assert_eq!(rig.writer.turn(), Turn::Worked);
        assert_eq!(rig.log.synced(), Lsn::new(seed));
    }
}

#[test]
fn buffered_survives_the_end_of_the_process() {
    let mut rig = Rig::new();
    rig.commit(vec![entry(1, 10)], Durability::Buffered).unwrap();
    let rig = rig.reopen().unwrap();
    assert_eq!(rig.report.batches, 1);
    rig.disk.crash_dropping_all();
    assert_eq!(rig.reopen().unwrap().report.batches, 1, "not synced at start");
}

#[test]
fn segments_roll_over() {
    let mut rig = Rig::new();
    for seed in 0..40 {
        rig.synced(vec![entry(seed, 2000)]);
    }
    let segments = rig.log.segments();
    assert!(segments.len() >= 6, "{segments:?}");
    let sealed = segments.iter().filter(|segment| segment.sealed).count();
    assert_eq!(sealed, segments.len() - 1);
    for pair in segments.windows(2) {
        assert_eq!(pair[0].number + 1, pair[1].number);
        assert_eq!(pair[0].last_lsn.unwrap().next(), pair[1].first_lsn.unwrap());
    }
    let of_second = rig.log.entries(segments[1].number).unwrap();
    assert_eq!(of_second[0].lsn, segments[1].first_lsn.unwrap());
    let rig = rig.reopen().unwrap();
    assert_eq!(rig.replayed.len(), 40);
    for (replayed, seed) in rig.replayed.iter().zip(0..) {
        check(&rig.log, replayed, &entry(seed, 2000));
    }
}

#[test]
fn the_feed_reads_from_memory_and_from_disk() {
    for recent_bytes in [0, 2000, 1 << 20] {
        let options = Options { recent_bytes, ..small() };
        let mut rig = Rig::open(&SimDisk::new(), &options).unwrap();
        for seed in 1..=30 {
            rig.synced(vec![entry(seed, 1500), entry(seed + 100, 0)]);
        }
        for max_bytes in [0, 500, 1 << 20] {
            let mut next = Lsn::new(1);
            let mut seen = Vec::new();
            loop {
                let got = rig.log.read_from(next, max_bytes).unwrap();
                let Some(last) = got.last() else { break };
                next = last.lsn.next();
                seen.extend(got);
            }
            assert_eq!(seen.len(), 60);
            for (at, entry) in seen.iter().enumerate() {
                assert_eq!(entry.lsn.get(), at as u64 / 2 + 1);
                assert_eq!(usize::from(entry.index), at % 2);
            }
            check(&rig.log, &seen[40], &entry(21, 1500));
        }
        assert!(rig.log.read_from(Lsn::new(31), 1000).unwrap().is_empty());
    }
}

#[test]
fn too_large_is_refused_at_once() {
    let mut rig = Rig::new();
    let long_head = Entry::head_only(1, vec![0; Entry::MAX_HEAD + 1]);
    for batch in [vec![entry(1, 16 << 10)], vec![long_head], vec![Entry::default(); 65_536]] {
        let error = rig.commit(batch, Durability::Synced).unwrap_err();
        assert!(matches!(error, Error::TooLarge(_)), "{error}");
    }
    // The largest that fits: header, footer and trailer take the rest.
    let head = entry(1, 0).head.len() as u64;
    let fixed = 4096 + 2 * (56 + 13 + head) + 8 + 64;
    let largest = usize::try_from((16 << 10) - fixed).unwrap();
    assert!(rig.commit(vec![entry(1, largest + 1)], Durability::Synced).is_err());
    for seed in 1..4 {
        rig.synced(vec![entry(seed, largest)]);
    }
    assert_eq!(rig.reopen().unwrap().replayed.len(), 3);
}

#[test]
fn reading_nonsense_is_an_error() {
    let mut rig = Rig::new();
    let good = rig.synced(vec![entry(1, 100)]).locations[0];
    assert_eq!(Location::from_bytes(good.to_bytes()), good);
    let wrong = [
        Location { offset: good.offset + 1, ..good },
        Location { len: good.len - 1, ..good },
        Location { len: u32::MAX, ..good },
        Location { offset: u64::MAX, ..good },
        Location { crc: good.crc ^ 1, ..good },
    ];
    for location in wrong {
        let error = rig.log.read(location).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    let elsewhere = Location { segment: 77, ..good };
    assert!(matches!(rig.log.read(elsewhere), Err(Error::NoSegment(77))));
    assert!(rig.log.read(Location { len: 0, crc: 0, ..good }).unwrap().is_empty());
}

#[test]
fn a_closed_log_takes_nothing_and_keeps_everything() {
    let mut rig = Rig::new();
    let pending = rig.log.submit(vec![entry(1, 10)], Durability::Buffered);
    rig.close();
    assert_eq!(rig.run(pending).unwrap().lsn, Lsn::new(1));
    let late = rig.log.submit(vec![entry(2, 10)], Durability::Synced);
    assert!(matches!(rig.run(late), Err(Error::Closed)));
    rig.disk.crash_dropping_all();
    let rig = rig.reopen().unwrap();
    assert_eq!(rig.replayed.len(), 1);
}

#[test]
fn options_have_bounds() {
    for options in [
        Options { segment_bytes: 1, ..small() },
        Options { segment_bytes: 2 << 30, ..small() },
        Options { spare_segments: 65, ..small() },
        Options { max_group_vectors: 0, ..small() },
    ] {
        assert!(matches!(Rig::open(&SimDisk::new(), &options), Err(Error::Option(_))));
    }
}

#[test]
fn a_group_of_buffered_batches_does_not_wait_for_those_of_before() {
    let mut rig = Rig::new();
    let commits: Vec<_> = (0..20).map(|seed| rig.log.submit(vec![entry(seed, 50)], Durability::Synced)).collect();
    for commit in commits {
        rig.run(commit).unwrap();
    }
    rig.writer.assume_sync_time(Duration::from_millis(1));
    assert_eq!(rig.writer.patience(), Some((20, Duration::from_micros(300))));
    for left in [Some(10), Some(5), Some(2), None] {
        rig.commit(vec![entry(1, 50)], Durability::Buffered).unwrap();
        assert_eq!(rig.writer.patience().map(|(batches, _)| batches), left);
    }
}
