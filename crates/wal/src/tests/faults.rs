//! What a failing disk means to callers: a clear error, never a yes that is
//! none, and all well again without a hand.

use std::sync::mpsc;

use postrider_base::sim_disk::{Fault, Operation};

use super::*;

#[test]
fn a_read_only_disk_ends_the_log_and_keeps_what_was_synced() {
    let mut rig = Rig::new();
    let kept = rig.synced(vec![entry(1, 500)]);
    rig.disk.set_read_only(true);
    let error = rig.commit(vec![entry(2, 500)], Durability::Synced).unwrap_err();
    assert!(matches!(error, Error::Poisoned(_)), "{error}");
    assert!(error.to_string().contains("writing segment 1: Read-only file system"), "{error}");
    assert_eq!(rig.log.read(kept.locations[0]).unwrap(), joined(&entry(1, 500)));
    // It does not open either, and says why.
    let error = Rig::open(&rig.disk, &small()).err().unwrap();
    assert!(error.to_string().contains("Read-only file system"), "{error}");
    rig.disk.set_read_only(false);
    let mut rig = rig.reopen().unwrap();
    assert_eq!(rig.replayed.len(), 1);
    rig.synced(vec![entry(3, 500)]);
}

#[test]
fn no_space_where_space_was_taken_is_not_taken_for_a_full_disk() {
    // As on a thinly provisioned volume: part of the group may be written.
    let mut rig = Rig::new();
    rig.synced(vec![entry(1, 500)]);
    rig.disk.fail(Operation::Write, 1, Fault::NoSpace);
    let error = rig.commit(vec![entry(2, 500)], Durability::Synced).unwrap_err();
    assert!(matches!(error, Error::Poisoned(_)) && !error.is_transient(), "{error}");
    rig.disk.crash(1);
    assert_eq!(rig.reopen().unwrap().replayed.len(), 1);
}

#[test]
fn a_segment_that_cannot_be_made_is_a_passing_error() {
    use Operation::{Create, Rename, SyncDirectory, Write};
    for operation in [Create, Write, Rename, SyncDirectory] {
        let options = Options { spare_segments: 0, ..small() };
        let mut rig = Rig::open(&SimDisk::new(), &options).unwrap();
        rig.disk.fail(operation, 1, Fault::InputOutput);
        let error = rig.commit(vec![entry(1, 500)], Durability::Synced).unwrap_err();
        assert!(error.is_transient() && !rig.log.poisoned(), "{operation:?}: {error}");
        assert!(error.to_string().contains("Input/output error"), "{operation:?}: {error}");
        rig.synced(vec![entry(2, 500)]);
        rig.disk.crash_dropping_all();
        let rig = rig.reopen().unwrap();
        assert_eq!(rig.replayed.len(), 1, "{operation:?}");
        check(&rig.log, &rig.replayed[0], &entry(2, 500));
    }
}

#[test]
fn a_read_that_fails_is_an_error_of_its_own_and_no_damage() {
    let mut rig = Rig::new();
    let location = rig.synced(vec![entry(1, 500)]).locations[0];
    rig.disk.fail(Operation::Read, 1, Fault::InputOutput);
    let error = rig.log.read(location).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(rig.log.read(location).unwrap(), joined(&entry(1, 500)));
    // At each read of an opening: refused, nothing given up, then fine.
    let mut failed = 0;
    for nth in 1..30 {
        rig.disk.fail(Operation::Read, nth, Fault::InputOutput);
        match Rig::open(&rig.disk, &small()) {
            Err(Error::Io { .. }) => failed += 1,
            Ok(opened) => assert_eq!((opened.replayed.len(), opened.report.damage.len()), (1, 0)),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(failed > 2, "{failed}");
}

#[test]
fn while_the_disk_does_not_answer_nobody_hears_yes() {
    let disk = SimDisk::new();
    let dir = dir().to_owned();
    let (log, _) = Log::open(Arc::new(disk.clone()), &dir, small(), &mut drop).unwrap();
    let commit = |seed| {
        let (done, result) = mpsc::channel();
        let commit = log.submit(vec![entry(seed, 100)], Durability::Synced);
        std::thread::spawn(move || done.send(block_on(commit)).unwrap());
        result
    };
    commit(0).recv().unwrap().unwrap();
    let before = log.synced();
    disk.stall_syncs(true);
    let waiting = [commit(1), commit(2), commit(3)];
    while log.written() == before {
        std::thread::yield_now();
    }
    assert!(waiting.iter().all(|it| it.try_recv().is_err()));
    assert_eq!(log.synced(), before);
    disk.stall_syncs(false);
    for result in waiting {
        result.recv().unwrap().unwrap();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}
