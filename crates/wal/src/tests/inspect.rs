//! Reading without changing.

use super::*;
use crate::format::{DATA_START, TRAILER};
use crate::{Body, Inspected, Inspection, Part, Zeros, inspect};
use postrider_base::{Disk, OpenMode};

fn inspected(disk: &SimDisk, zeros: Zeros) -> (Inspection, Vec<Inspected>) {
    let mut entries = Vec::new();
    let before = disk.stats();
    let found = inspect(disk, dir(), zeros, &mut |entry| entries.push(entry)).unwrap();
    let after = disk.stats();
    assert_eq!((after.writes, after.syncs), (before.writes, before.syncs), "something was written");
    (found, entries)
}

/// The parts at fault, in the order of their finding.
fn parts(disk: &SimDisk) -> Vec<(u64, Part)> {
    let (found, _) = inspected(disk, Zeros::Damage);
    assert_eq!(found.fault_count, found.faults.len() as u64);
    found.faults.iter().map(|fault| (fault.segment, fault.part)).collect()
}

/// Twelve entries in two sealed segments and one that is written to.
fn three_segments() -> (Rig, Vec<Entry>) {
    let mut rig = Rig::new();
    let entries: Vec<Entry> = (0..12).map(|seed| entry(seed, 2000)).collect();
    for entry in &entries {
        rig.synced(vec![entry.clone()]);
    }
    assert_eq!(rig.log.segments().iter().filter(|segment| segment.sealed).count(), 2);
    (rig, entries)
}

fn place(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

#[test]
fn a_log_without_fault_is_read_whole_and_left_alone() {
    let (rig, entries) = three_segments();
    let (found, read) = inspected(&rig.disk, Zeros::Damage);
    assert_eq!((found.faults.len(), found.torn, found.segments, found.batches), (0, None, 3, 12));
    assert_eq!(found.last, rig.log.synced());
    assert_eq!(read.len(), entries.len());
    for (read, entry) in read.iter().zip(&entries) {
        check(&rig.log, &read.entry, entry);
        assert_eq!(read.body, Body::Good(joined(entry).into()));
    }
}

#[test]
fn what_is_retired_or_made_ahead_is_not_missed() {
    let (mut rig, _) = three_segments();
    let before = rig.disk.fork();
    rig.retire(1).unwrap();
    let (found, read) = inspected(&rig.disk, Zeros::Damage);
    assert_eq!((found.faults.len(), found.segments), (0, 2));
    assert!(found.unused > 0);
    assert_eq!(read[0].entry.location.segment, 2);
    // It was named as gone before it went.
    let file = rig.disk.open(&segment_path(1), OpenMode::CreateNew).unwrap();
    let old = before.open(&segment_path(1), OpenMode::Read).unwrap();
    let mut bytes = vec![0; 16 << 10];
    old.read_exact_at(&mut bytes, 0).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let (again, _) = inspected(&rig.disk, Zeros::Damage);
    assert_eq!((again.faults.len(), again.segments, again.unused), (0, 2, found.unused + 1));
    let (nothing, none) = inspected(&SimDisk::new(), Zeros::Damage);
    assert_eq!((nothing, none.len()), (Inspection::default(), 0));
}

#[test]
fn a_flip_anywhere_in_a_sealed_segment_is_found_and_loses_nothing_else() {
    let (rig, entries) = three_segments();
    let info = rig.log.segments()[0];
    let end = place(DATA_START + info.bytes);
    let last = place(info.file_bytes) - TRAILER;
    // What the footer takes: each batch's header, table and head, and its offset.
    let in_it = entries.iter().take(place(info.last_lsn.unwrap().get()));
    let footer = last - in_it.map(|entry| 8 + 56 + 13 + entry.head.len()).sum::<usize>();
    for at in (0..place(info.file_bytes)).step_by(5) {
        let disk = rig.disk.fork();
        disk.damage(&segment_path(1), at, 0x10).unwrap();
        let expected = match at {
            0..36 | 2048..2084 => vec![Part::HeaderCopy],
            at if at >= last => vec![Part::Trailer],
            at if at >= footer => vec![Part::Footer],
            at if (4096..end).contains(&at) => vec![],
            _ => {
                assert_eq!(parts(&disk), [], "at {at}");
                continue;
            }
        };
        let (found, read) = inspected(&disk, Zeros::Damage);
        assert_eq!(found.fault_count, 1, "at {at}: {found:?}");
        let part = found.faults[0].part;
        match expected.first() {
            Some(expected) => assert_eq!(part, *expected, "at {at}"),
            None => assert!(matches!(part, Part::Batch | Part::Body), "at {at}: {part}"),
        }
        assert_eq!(found.faults[0].batches, 0);
        assert_eq!(read.len(), entries.len(), "at {at}");
        let bad = read.iter().filter(|read| read.body == Body::Damaged).count();
        assert_eq!(bad, usize::from(part == Part::Body), "at {at}");
    }
}

#[test]
fn a_lost_batch_in_the_unsealed_tail_is_counted() {
    let mut rig = Rig::new();
    for seed in 0..3 {
        rig.synced(vec![entry(seed, 100)]);
    }
    let torn = rig.disk.fork();
    let end = place(DATA_START + rig.log.segments()[0].bytes);
    torn.damage(&segment_path(1), end - 1, 1).unwrap();
    let (found, read) = inspected(&torn, Zeros::Damage);
    assert_eq!((found.faults.len(), read.len()), (0, 2), "the ordinary trace of a crash");
    assert!(found.torn.is_some());
    assert_eq!(found.last.get(), 2);

    rig.disk.damage(&segment_path(1), place(DATA_START) + 20, 1).unwrap();
    let (found, read) = inspected(&rig.disk, Zeros::Damage);
    assert_eq!((found.faults[0].part, found.faults[0].batches, read.len()), (Part::Batch, 1, 2));
}

#[test]
fn missing_and_foreign_segments_are_named() {
    let (rig, _) = three_segments();
    let gap = rig.disk.fork();
    gap.remove_file(&segment_path(2)).unwrap();
    assert_eq!(parts(&gap), [(2, Part::Missing)]);

    let headless = rig.disk.fork();
    for at in [10, 2058] {
        headless.damage(&segment_path(1), at, 1).unwrap();
    }
    assert_eq!(parts(&headless), [(1, Part::Header)]);

    // Another segment under this name.
    let swapped = rig.disk.fork();
    swapped.rename(&segment_path(1), &segment_path(2)).unwrap();
    assert_eq!(parts(&swapped), [(2, Part::Header), (1, Part::Missing)]);
}

#[test]
fn space_given_back_is_no_damage_where_that_is_done() {
    let (rig, entries) = three_segments();
    let (_, read) = inspected(&rig.disk, Zeros::Damage);
    let location = read[1].entry.location;
    let file = rig.disk.open(&segment_path(1), OpenMode::ReadWrite).unwrap();
    file.write_all_at(&vec![0; joined(&entries[1]).len()], location.offset).unwrap();
    let (found, read) = inspected(&rig.disk, Zeros::GivenBack);
    assert_eq!((found.faults.len(), &read[1].body), (0, &Body::Zeros));
    assert_eq!(parts(&rig.disk), [(1, Part::Body)]);
    // Half of a body was not given back by anybody.
    file.write_all_at(b"x", location.offset + 5).unwrap();
    let (found, read) = inspected(&rig.disk, Zeros::GivenBack);
    assert_eq!((found.faults[0].part, &read[1].body), (Part::Body, &Body::Damaged));
}

#[test]
fn a_place_that_cannot_be_read_hides_only_itself() {
    let (rig, entries) = three_segments();
    let file = rig.disk.open(&segment_path(1), OpenMode::ReadWrite).unwrap();
    file.set_len(12 << 10).unwrap();
    let (found, read) = inspected(&rig.disk, Zeros::Damage);
    assert!(found.faults.iter().any(|fault| fault.part == Part::Trailer && fault.segment == 1), "{found:?}");
    assert!(read.len() < entries.len());
    assert!(found.faults.iter().map(|fault| fault.batches).sum::<u64>() > 0);
}
