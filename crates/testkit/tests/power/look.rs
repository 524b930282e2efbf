//! Opening what a cut left, and looking at everything in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use postrider_mail::MessageId;
use postrider_spool::{Error, Feed, Lsn, QueueKey, Selector, Spool};
use postrider_testkit::spool_load::{FEED, body, heard, options, recipients};

use crate::ledger::Found;

/// How long anything may take before it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Claims asked for at once.
const STEP: usize = 256;

/// Opens the spool, reads everything that waits, and the feed from the batch
/// after `cursor` on, and closes it again.
pub(crate) async fn look(directory: &Path, cursor: u64) -> Result<Found, String> {
    let work = async {
        let spool = Spool::open(options(directory)).await.map_err(|error| format!("opening: {error}"))?;
        let mut found = Found { cursor, ..Found::default() };
        waiting(&spool, &mut found).await.map_err(|error| format!("reading the queue: {error}"))?;
        if spool.stat().quarantined > 0 {
            found.wrong.push(format!("a cut left damage: {}", notes(directory)));
        }
        let mut feed = spool.feed(FEED, Lsn::new(cursor + 1));
        spool.close().await.map_err(|error| format!("closing: {error}"))?;
        read(&mut feed, &mut found).await.map_err(|error| format!("reading the feed: {error}"))?;
        Ok(found)
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err("the spool does not answer".to_owned()))
}

/// The notes in the quarantine.
fn notes(directory: &Path) -> String {
    let files = std::fs::read_dir(directory.join("spool/quarantine")).into_iter().flatten().flatten();
    let notes = files.map(|file| {
        let note = std::fs::read(file.path()).unwrap_or_default();
        format!("{}: {}", file.file_name().display(), String::from_utf8_lossy(&note[..note.len().min(100)]).trim())
    });
    notes.collect::<Vec<_>>().join("; ")
}

/// Claims everything, since a claim shows the bytes.
async fn waiting(spool: &Spool, found: &mut Found) -> Result<(), Error> {
    let listed: BTreeSet<(MessageId, QueueKey)> = spool
        .list(&Selector::All, usize::MAX)
        .await?
        .into_iter()
        .map(|entry| (entry.id, QueueKey { account: entry.account, domain: entry.domain }))
        .collect();
    spool.retry(&Selector::All).await?;
    let mut claims = BTreeMap::new();
    while claims.len() < listed.len() {
        // A message whose bytes are gone is held, and never comes.
        let Ok(due) = tokio::time::timeout(PATIENCE / 4, spool.take_due(STEP)).await else { break };
        claims.extend(due.into_iter().map(|claim| ((claim.id, claim.queue.clone()), claim)));
    }
    if !claims.keys().eq(listed.iter()) {
        found.wrong.push("what is listed is not what is due".to_owned());
    }
    for ((id, _), claim) in &claims {
        match claim.content().await {
            Ok(content) if content.to_bytes() == body(*id) => {}
            Ok(_) => found.wrong.push(format!("{id} has other bytes than were accepted")),
            Err(error) => found.wrong.push(format!("{id}: {error}")),
        }
        let envelope = claim.message.envelope.recipients.iter().map(|recipient| &recipient.address);
        if !envelope.eq(recipients(*id).iter()) {
            found.wrong.push(format!("{id} has other recipients than were accepted"));
        }
    }
    for (id, _) in listed {
        let Some(view) = spool.show(id).await? else {
            found.wrong.push(format!("{id} is listed and can not be shown"));
            continue;
        };
        let waits = (0..).zip(&view.recipients).filter(|(_, recipient)| !recipient.done);
        found.waiting.insert(id, waits.map(|(index, recipient)| (index, recipient.attempts)).collect());
    }
    Ok(())
}

async fn read(feed: &mut Feed, found: &mut Found) -> Result<(), Error> {
    let mut place = (Lsn::new(found.cursor), u16::MAX);
    loop {
        match feed.next().await {
            Ok(items) => {
                for item in &items {
                    if (item.lsn, item.index) <= place {
                        found.wrong.push(format!("the feed goes back from {place:?} to {}", item.lsn));
                    }
                    place = (item.lsn, item.index);
                    found.feed.extend(heard(item));
                }
                found.cursor = place.0.get();
            }
            Err(Error::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
