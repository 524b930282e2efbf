//! Copies made while changes go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

fn table(store: &Store) -> Table<u64, u64> {
    store.table("numbers")
}

async fn copied(store: &Store, to: &World) -> Store {
    let checkpoint = store.checkpoint().await.unwrap();
    // What happens from now on is not in it.
    table(store).put(&u64::MAX, &1).await.unwrap();
    Store::restore(Arc::new(to.disk.clone()), dir(), checkpoint.records()).await.unwrap();
    to.open()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_is_in_it_and_batches_are_whole() {
    let world = World::new();
    let store = world.open();
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    // Both rows of a round are written together; one row of each round before goes.
    let (writer, counter, stopped) = (store.clone(), acknowledged.clone(), stop.clone());
    let writing = tokio::spawn(async move {
        let rows = table(&writer);
        for round in 1u64.. {
            let mut batch = Batch::new();
            batch.put(&rows, &0, &round).unwrap();
            batch.put(&rows, &1, &round).unwrap();
            batch.put(&rows, &(1_000 + round), &round).unwrap();
            batch.delete(&rows, &(1_000 + round - 1)).unwrap();
            writer.write(batch).await.unwrap();
            counter.store(round, Ordering::SeqCst);
            if stopped.load(Ordering::SeqCst) {
                return;
            }
        }
    });
    for _ in 0..5 {
        let before = acknowledged.load(Ordering::SeqCst);
        while acknowledged.load(Ordering::SeqCst) < before + 200 {
            tokio::task::yield_now().await;
        }
        let known = acknowledged.load(Ordering::SeqCst);
        let to = World::new();
        let copy = copied(&store, &to).await;
        let rows = table(&copy);
        let round = rows.get(&0).unwrap().unwrap();
        assert!(round >= known, "{round} of {known}");
        assert_eq!(rows.get(&1).unwrap(), Some(round));
        assert_eq!(rows.get(&(1_000 + round)).unwrap(), Some(round));
        assert_eq!(rows.len().unwrap(), 3);
        copy.close().await.unwrap();
        table(&store).delete(&u64::MAX).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    writing.await.unwrap();
}

#[tokio::test]
async fn the_log_is_kept_as_long_as_it_is_needed_and_no_longer() {
    let world = World::new();
    let store = world.open();
    let rows = table(&store);
    rows.put(&1, &1).await.unwrap();
    let checkpoint = store.checkpoint().await.unwrap();
    let fill = async |rounds: u64| {
        for round in 0..rounds {
            rows.write((0..1_000).map(|key| Change::Put(key + 10, round)).collect()).await.unwrap();
        }
    };
    fill(20).await;
    let grown = store.log().segments().len();
    assert!(grown > 5, "{grown}");
    let to = World::new();
    Store::restore(Arc::new(to.disk.clone()), dir(), checkpoint.records()).await.unwrap();
    let copy = to.open();
    assert_eq!((table(&copy).get(&1).unwrap(), table(&copy).len().unwrap()), (Some(1), 1));
    drop(checkpoint);
    // Compaction follows a round of writes: the second one waits for it.
    fill(2).await;
    assert!(store.log().segments().len() < grown, "compaction goes on");
}

#[tokio::test]
async fn what_is_no_record_is_not_restored() {
    let to = World::new();
    let records = [Ok::<_, Error>(bytes::Bytes::from_static(b"\x09nonsense"))];
    let error = Store::restore(Arc::new(to.disk.clone()), dir(), records.into_iter()).await.unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
}

#[tokio::test]
async fn an_empty_store_and_a_closed_one() {
    let world = World::new();
    let store = world.open();
    let to = World::new();
    let copy = copied(&store, &to).await;
    assert!(table(&copy).is_empty().unwrap());
    store.close().await.unwrap();
    assert!(store.checkpoint().await.is_err());
}
