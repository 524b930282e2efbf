use std::time::Duration;

use postrider_mail::{Disposition, MessageId};
use postrider_spool::{Error, Feed, FeedItem, FeedRecord, Lsn, Selector};

use crate::rig::{Rig, deliver, drain, outcomes, within};

/// What a record says: a message, and whether it was accepted.
fn gist(item: &FeedItem) -> (MessageId, bool) {
    match &item.record {
        FeedRecord::Accepted(record) => (record.id, true),
        FeedRecord::Outcomes { id, .. } => (*id, false),
        _ => panic!("no other records"),
    }
}

pub(crate) async fn read_all(feed: &mut Feed) -> Vec<FeedItem> {
    let mut all = Vec::new();
    while let Some(items) = within(Duration::from_secs(1), feed.next()).await {
        all.extend(items.unwrap());
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_feed_sees_each_synced_record_once_and_in_order() {
    let mut rig = Rig::new();
    rig.feeds = &["events", "other"];
    let spool = rig.open().await;
    let (mut events, mut other) = (spool.feed("events", Lsn::ZERO), spool.feed("other", Lsn::ZERO));
    let first = rig.accept(&spool, &["a@example.org"]).await;
    assert_eq!(gist(&events.next().await.unwrap()[0]), (first, true));
    let claim = spool.take_due(1).await.pop().unwrap();
    let dsn = rig.message(&["b@example.org"]);
    let dsn_id = dsn.id;
    let delivered = outcomes(&claim, Disposition::Delivered, rig.clock.now());
    claim.finish(delivered.clone(), vec![dsn]).await.unwrap();
    let items = events.next().await.unwrap();
    assert_eq!(items.iter().map(gist).collect::<Vec<_>>(), [(first, false), (dsn_id, true)]);
    assert_eq!((items[0].lsn, items[0].index + 1), (items[1].lsn, items[1].index));
    assert!(matches!(&items[0].record, FeedRecord::Outcomes { outcomes, .. } if outcomes[..] == delivered[..]));
    spool.delete(&Selector::All).await.unwrap();
    let gists = read_all(&mut other).await;
    let gists: Vec<_> = gists.iter().map(gist).collect();
    assert_eq!(gists, [(first, true), (first, false), (dsn_id, true), (dsn_id, false)]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_waits_for_the_reader_and_for_nobody_else() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let mut feed = spool.feed("events", Lsn::ZERO);
    rig.accept(&spool, &["a@example.org"]).await;
    let second = Duration::from_secs(1);
    assert!(within(second, spool.told("events")).await.is_none(), "nothing was read");
    let items = feed.next().await.unwrap();
    assert!(within(second, spool.told("events")).await.is_none(), "nothing was acknowledged");
    let waiting = spool.told("events");
    feed.ack(items[0].lsn);
    assert!(within(second, waiting).await.is_some());
    // An outcome is seen a moment after it is written, and waited for.
    deliver(spool.take_due(1).await.pop().unwrap()).await;
    let read = async {
        let items = feed.next().await.unwrap();
        feed.ack(items[0].lsn);
    };
    let (told, ()) = tokio::join!(within(second, spool.told("events")), read);
    assert!(told.is_some());
    rig.accept(&spool, &["a@example.org"]).await;
    drop(feed);
    assert!(within(second, spool.told("events")).await.is_some(), "nobody reads");
}

#[tokio::test(start_paused = true)]
async fn an_unsynced_outcome_is_not_seen() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let mut feed = spool.feed("events", Lsn::ZERO);
    rig.accept(&spool, &["a@example.org"]).await;
    feed.next().await.unwrap();
    deliver(spool.take_due(1).await.pop().unwrap()).await;
    assert!(within(Duration::from_millis(20), feed.next()).await.is_none());
    assert!(within(Duration::from_millis(200), feed.next()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_feed_goes_on_where_its_reader_was() {
    let mut rig = Rig::new();
    rig.feeds = &["events"];
    let spool = rig.open().await;
    for _ in 0..10 {
        rig.accept(&spool, &["a@example.org"]).await;
    }
    drain(&spool).await;
    let mut feed = spool.feed("events", Lsn::ZERO);
    let before = read_all(&mut feed).await;
    assert_eq!(before.len(), 20);
    spool.close().await.unwrap();
    assert!(matches!(feed.next().await, Err(Error::Closed)));
    drop((spool, feed));
    let spool = rig.open().await;
    let again = read_all(&mut spool.feed("events", Lsn::ZERO)).await;
    assert_eq!(again, before);
    let rest = read_all(&mut spool.feed("events", before[4].lsn.next())).await;
    assert_eq!(rest, before[5..]);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_before_every_feed_has_read_it() {
    let mut rig = Rig::new();
    rig.feeds = &["events"];
    let spool = rig.open().await;
    let mut expected = Vec::new();
    for _ in 0..400 {
        expected.push(rig.accept(&spool, &["a@example.org"]).await);
        drain(&spool).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let full = spool.stat().segments;
    assert!(full > 5);
    drop(spool);
    let spool = rig.open().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut feed = spool.feed("events", Lsn::ZERO);
    let items = read_all(&mut feed).await;
    let accepted = items.iter().map(gist).filter(|(_, accepted)| *accepted);
    assert_eq!(accepted.map(|(id, _)| id).collect::<Vec<_>>(), expected);
    assert!(spool.stat().segments >= full);
    feed.ack(items.last().unwrap().lsn);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(spool.stat().segments <= 2, "{} of {full} left", spool.stat().segments);
}
