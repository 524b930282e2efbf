//! The simulated disk keeps, loses and refuses what it should.

use super::*;

fn with_file() -> (SimDisk, PathBuf, Arc<dyn DiskFile>) {
    let (disk, path) = (SimDisk::new(), PathBuf::from("/state/log"));
    disk.create_dir_all(parent(&path)).unwrap();
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    (disk, path, file)
}

fn contents(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn what_was_synced_survives_and_the_rest_may_not() {
    let (disk, path, file) = with_file();
    disk.sync_dir(parent(&path)).unwrap();
    file.write_all_at(b"synced", 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"unsure", 6).unwrap();
    assert_eq!(contents(&disk, &path), b"syncedunsure");
    disk.crash_dropping_all();
    assert_eq!(contents(&disk, &path), b"synced");
    assert!(file.len().is_err(), "a handle survived the crash");
}

#[test]
fn names_need_their_directory_synced() {
    let (disk, path, file) = with_file();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    let other = path.with_extension("new");
    let forked = disk.fork();
    disk.crash_dropping_all();
    assert!(!disk.exists(&path));
    forked.rename(&path, &other).unwrap();
    forked.crash_dropping_all();
    assert_eq!(forked.read_dir(parent(&path)).unwrap(), std::slice::from_ref(&path));
    forked.rename(&path, &other).unwrap();
    forked.sync_dir(parent(&path)).unwrap();
    forked.remove_file(&other).unwrap();
    forked.crash_dropping_all();
    assert_eq!(contents(&forked, &other), b"x");
}

#[test]
fn crashes_keep_drop_and_tear_by_seed() {
    let outcome = |seed| {
        let (disk, path, file) = with_file();
        file.sync_data().unwrap();
        disk.sync_dir(parent(&path)).unwrap();
        file.write_all_at(&[1; 1000], 100).unwrap();
        disk.crash(seed);
        contents(&disk, &path)
    };
    let all: Vec<Vec<u8>> = (0..50).map(outcome).collect();
    assert_eq!(all[7], outcome(7));
    assert!(all.iter().any(Vec::is_empty));
    assert!(all.iter().any(|b| b.len() == 1100 && b[100..] == [1; 1000]));
    let torn = |b: &Vec<u8>| b.len() == 1100 && b[100..512] == [0; 412] && b[512] == 1;
    assert!(all.iter().any(torn), "none torn at a sector");
}

#[test]
fn planned_faults_fire_once() {
    let (disk, path, file) = with_file();
    disk.sync_dir(parent(&path)).unwrap();
    disk.fail_write(2);
    file.write_all_at(b"one!", 0).unwrap();
    assert!(file.write_all_vectored_at(&[b"tw", b"o!"], 4).is_err());
    assert_eq!(contents(&disk, &path), b"one!tw");
    disk.fail_sync(1);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    disk.crash_dropping_all();
    assert_eq!(contents(&disk, &path), b"", "a failed sync was repaired");
}

#[test]
fn the_capacity_holds_and_overwriting_needs_none() {
    let (disk, path, file) = with_file();
    disk.set_capacity(Some(10));
    file.allocate(8).unwrap();
    file.write_all_at(b"12345678", 0).unwrap();
    let full = file.write_all_at(b"123", 8).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.available_bytes(&path).unwrap(), 2);
    disk.set_capacity(None);
    file.write_all_at(b"123", 8).unwrap();
}

#[test]
fn a_halted_disk_does_nothing_until_the_crash() {
    let (disk, path, file) = with_file();
    disk.sync_dir(parent(&path)).unwrap();
    disk.halt();
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(disk.open(&path, OpenMode::Read).is_err());
    disk.crash(0);
    disk.damage(&path, 5, 1).unwrap();
    assert!(disk.damage(Path::new("/none"), 0, 1).is_err());
    assert_eq!(contents(&disk, &path), b"");
}

#[test]
fn each_operation_can_be_made_to_fail_once() {
    use Operation::{Create, Read, Remove, Rename, SyncDirectory};
    let (disk, path, file) = with_file();
    let (other, dir) = (path.with_extension("new"), parent(&path).to_owned());
    let attempts: [(Operation, &dyn Fn() -> io::Result<()>); 5] = [
        (Read, &|| file.read_at(&mut [0], 0).map(drop)),
        (SyncDirectory, &|| disk.sync_dir(&dir)),
        (Rename, &|| disk.rename(&path, &other)),
        (Remove, &|| disk.remove_file(&other)),
        (Create, &|| disk.open(&path, OpenMode::CreateNew).map(drop)),
    ];
    for (operation, attempt) in attempts {
        disk.fail(operation, 1, Fault::InputOutput);
        assert_eq!(attempt().unwrap_err().raw_os_error(), Some(5), "{operation:?}");
        attempt().unwrap();
    }
    disk.fail(Operation::Write, 2, Fault::NoSpace);
    file.write_all_at(b"1", 0).unwrap();
    assert_eq!(file.write_all_at(b"2", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_directory_whose_sync_failed_is_synced_by_the_next() {
    for again in [false, true] {
        let (disk, path, file) = with_file();
        file.sync_data().unwrap();
        disk.fail(Operation::SyncDirectory, 1, Fault::InputOutput);
        disk.sync_dir(parent(&path)).unwrap_err();
        if again {
            disk.sync_dir(parent(&path)).unwrap();
        }
        disk.crash_dropping_all();
        assert_eq!(disk.exists(&path), again);
    }
}

#[test]
fn a_read_only_disk_changes_nothing_and_is_read() {
    let (disk, path, file) = with_file();
    disk.sync_dir(parent(&path)).unwrap();
    file.write_all_at(b"synced", 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"lost", 6).unwrap();
    disk.set_read_only(true);
    let other = path.with_extension("new");
    let refused = [
        file.write_all_at(b"x", 0),
        file.allocate(100),
        file.set_len(1),
        file.sync_data(),
        disk.rename(&path, &other),
        disk.remove_file(&path),
        disk.create_dir_all(Path::new("/else")),
        disk.open(&other, OpenMode::CreateNew).map(drop),
        disk.open(&path, OpenMode::ReadWrite).map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(contents(&disk, &path), b"syncedlost");
    // With nothing to write there is nothing to refuse.
    disk.sync_dir(parent(&path)).unwrap();
    file.sync_data().unwrap();
    disk.set_read_only(false);
    file.sync_data().unwrap();
    disk.crash_dropping_all();
    assert_eq!(contents(&disk, &path), b"synced", "what a failed sync had to write was written later");
}

#[test]
fn a_stalled_sync_waits_and_a_crash_ends_it() {
    for crash in [false, true] {
        let (disk, path, file) = with_file();
        disk.sync_dir(parent(&path)).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        disk.stall_syncs(true);
        let (done, result) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(file.sync_data()).unwrap());
        // Others are served meanwhile.
        assert_eq!(contents(&disk, &path), b"x");
        assert!(result.try_recv().is_err());
        match crash {
            true => disk.crash_dropping_all(),
            false => disk.stall_syncs(false),
        }
        assert_eq!(result.recv().unwrap().is_err(), crash);
        disk.crash_dropping_all();
        assert_eq!(contents(&disk, &path), if crash { &b""[..] } else { b"x" });
    }
}

#[test]
fn what_a_dead_process_wrote_is_there_and_still_not_synced() {
    let (disk, path, file) = with_file();
    let process = disk.for_process();
    process.sync_dir(parent(&path)).unwrap();
    file.write_all_at(b"written", 0).unwrap();
    disk.kill();
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(process.remove_file(&path).is_err());
    assert_eq!(contents(&disk, &path), b"written");
    disk.crash_dropping_all();
    assert_eq!(contents(&disk, &path), b"");
}
