//! Messages in memory, and how each record changes what waits where.
//!
//! A message is in memory while it is young (then it is nowhere else but in
//! the log) and while somebody deals with it. Everything here happens under
//! one lock that is held for microseconds; changes for the index are
//! collected and handed on in the same order.

use std::collections::hash_map::Entry;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_mail::{AttemptOutcome, Domain, MessageId};
use postrider_wal::{Location, Lsn};
use smallvec::SmallVec;

use crate::admission::{Admissions, Body};
use crate::claim::DueRecipient;
use crate::due::{Due, Slot};
use crate::id_map::IdMap;
use crate::index::{Change, put};
use crate::lives::{Lives, Share};
use crate::message::{AcceptedRecord, QueueKey};
use crate::row::Row;
use crate::transfer::Taken;
use crate::under_way::{Standstill, UnderWay};
use crate::young::Youth;

/// A message in memory.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    /// As it was accepted; none when only its state was read.
    pub record: Option<Arc<AcceptedRecord>>,
    pub row: Row,
    pub body: Option<Arc<Body>>,
    /// What the last attempts said, one for each recipient that had one.
    pub last: Vec<AttemptOutcome>,
    /// Not in the index.
    pub young: bool,
    /// Attempts have begun that the index does not know of.
    pub unsaved: bool,
    /// The log does not give it back; never handed out.
    pub damaged: bool,
    /// How many deal with it. An old message leaves memory with the last.
    pub pins: u32,
}

/// The queues that a message waits in, and when it is due in each: mostly one.
type Places = SmallVec<[(QueueKey, Timestamp); 1]>;

/// What is known of messages right now.
#[derive(Debug)]
pub(crate) struct State {
    pub messages: IdMap<Active>,
    pub due: Due,
    /// What of them lies in which segment.
    pub lives: Lives,
    /// Segment of the record that says which queues are held.
    pub holds_segment: Option<u64>,
    /// How far files were imported, and the segment of the record that says so.
    pub taken: (Taken, Option<u64>),
    /// Changes for the index, to be sent before the lock is released.
    pub changes: Vec<Change>,
    /// All batches up to here are taken in.
    taken_in: Lsn,
    /// Messages with records handed to the log and not taken in yet.
    under_way: Arc<UnderWay>,
    /// Messages being read from the index and the log, how often, and whether
    /// they ended meanwhile.
    loading: IdMap<(u32, bool)>,
    /// Young messages by age; some have left.
    ages: VecDeque<(Timestamp, MessageId)>,
    admissions: Arc<Admissions>,
    youth: Arc<Youth>,
}

/// What of a message is handed out for delivery.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub record: Arc<AcceptedRecord>,
    pub body: Option<Arc<Body>>,
    pub location: Location,
    pub recipients: Vec<DueRecipient>,
    /// Whether the log knows of attempts, or will not take the acceptance
    /// for one.
    pub fresh: bool,
}

impl State {
    pub(crate) fn new(
        due: Due,
        lives: Lives,
        under_way: Arc<UnderWay>,
        admissions: Arc<Admissions>,
        youth: Arc<Youth>,
    ) -> Self {
        Self {
            messages: IdMap::default(),
            due,
            lives,
            holds_segment: None,
            taken: (Taken::default(), None),
            changes: Vec::new(),
            taken_in: Lsn::ZERO,
            under_way,
            loading: IdMap::default(),
            ages: VecDeque::new(),
            admissions,
            youth,
        }
    }

    /// A message that the log and the index know, at the start.
    pub(crate) fn restore(&mut self, id: MessageId, row: &Row) {
        for (queue, due) in row.places() {
            self.due.restore(&queue, (due, id));
        }
        self.admissions.admit_anyway(size(row.location)).keep();
        self.lives.add(Share::of(row));
    }

    /// A message was accepted. Whether it is the first young one.
    pub(crate) fn accepted(
        &mut self,
        record: Arc<AcceptedRecord>,
        row: Row,
        body: Option<Arc<Body>>,
        now: Timestamp,
    ) -> bool {
        let id = record.id;
        let taken = self.taken(record, row, body, Vec::new(), now);
        if taken {
            self.ages.push_back((now, id));
        }
        taken && self.ages.len() == 1
    }

    /// A message came from another spool. It does not get young: see
    /// [`State::index_now`].
    pub(crate) fn imported(
        &mut self,
        record: Arc<AcceptedRecord>,
        row: Row,
        last: Vec<AttemptOutcome>,
        now: Timestamp,
    ) {
        self.taken(record, row, None, last, now);
    }

    fn taken(
        &mut self,
        record: Arc<AcceptedRecord>,
        row: Row,
        body: Option<Arc<Body>>,
        last: Vec<AttemptOutcome>,
        now: Timestamp,
    ) -> bool {
        let (id, location) = (record.id, row.location);
        if row.is_done() || self.messages.contains_key(&id) {
            self.admissions.release(size(location));
            return false;
        }
        for (queue, due) in row.places() {
            self.due.add_fresh(&queue, (due, id), now);
        }
        self.lives.add(Share::of(&row));
        let active =
            Active { record: Some(record), row, body, last, young: true, unsaved: false, damaged: false, pins: 0 };
        self.youth.add();
        self.messages.insert(id, active);
        true
    }

    /// Changes what is left to do for a message in memory, and everything
    /// that follows from it. Whether there is such a message.
    pub(crate) fn change(&mut self, id: MessageId, now: Timestamp, change: impl FnOnce(&mut Active)) -> bool {
        let Some(active) = self.messages.get_mut(&id) else { return false };
        let before: Places = active.row.places().collect();
        let (share, location) = (Share::of(&active.row), active.row.location);
        change(active);
        let after: Places = active.row.places().collect();
        self.lives.change(share, Share::of(&active.row));
        // Of a damaged message nothing is left but its state.
        self.admissions.shrink(size(location).saturating_sub(size(active.row.location)));
        match after.is_empty() {
            true => self.ended(id, before, now),
            false => self.shifted(id, &before, &after, now),
        }
        true
    }

    fn ended(&mut self, id: MessageId, before: Places, now: Timestamp) {
        let Some(active) = self.messages.remove(&id) else { return };
        for (queue, due) in &before {
            self.due.end(queue, (*due, id), now);
        }
        self.lives.remove(Share::of(&active.row));
        self.admissions.release(size(active.row.location));
        if let Some((_, ended)) = self.loading.get_mut(&id) {
            *ended = true;
        }
        match active.young {
            true => self.youth.remove(),
            false => self.changes.push(Change::Remove { id, left: before.into_vec() }),
        }
    }

    fn shifted(
        &mut self,
        id: MessageId,
        before: &[(QueueKey, Timestamp)],
        after: &[(QueueKey, Timestamp)],
        now: Timestamp,
    ) {
        let mut deferred = false;
        for (queue, due) in before {
            match after.iter().find(|(key, _)| key == queue) {
                None => self.due.end(queue, (*due, id), now),
                Some((_, new)) if new == due => {}
                Some(_) => deferred = true,
            }
        }
        let Some(active) = self.messages.get_mut(&id) else { return };
        if active.young && !deferred {
            return;
        }
        let was_young = std::mem::take(&mut active.young);
        active.unsaved = false;
        if was_young {
            self.youth.remove();
        }
        let row = active.row.clone();
        let (left, took) = match was_young {
            true => {
                active.body = None;
                (Vec::new(), after.to_vec())
            }
            false => {
                let left = before.iter().filter(|place| !after.contains(place));
                let took = after.iter().filter(|place| !before.contains(place));
                (left.cloned().collect(), took.cloned().collect())
            }
        };
        self.changes.push(Change::Put { id, row, left, took });
        for (queue, new) in after {
            let old = before.iter().find(|(key, _)| key == queue);
            let old = old.map_or(*new, |(_, due)| *due);
            if was_young || old != *new {
                self.due.reslot(queue, (old, id), (*new, id), now);
            }
        }
    }

    /// Moves young messages that are older than `age` to the index, up to
    /// `max`. When the next one will be, if any.
    pub(crate) fn age(&mut self, age: Duration, max: usize, now: Timestamp) -> Option<Timestamp> {
        self.shrink();
        for _ in 0..max {
            let (since, id) = *self.ages.front()?;
            let at = since.saturating_add(age);
            if at > now {
                return Some(at);
            }
            self.ages.pop_front();
            self.index_now(id, now);
        }
        self.ages.front().map(|(since, _)| since.saturating_add(age))
    }

    /// Moves a message to the index that is in memory alone.
    pub(crate) fn index_now(&mut self, id: MessageId, now: Timestamp) {
        if let Some(active) = self.messages.get_mut(&id)
            && std::mem::take(&mut active.young)
        {
            self.youth.remove();
            active.body = None;
            self.changes.push(put(id, &active.row));
            for (queue, due) in active.row.places() {
                self.due.reslot(&queue, (due, id), (due, id), now);
            }
            self.forget_if_idle(id);
        }
    }

    /// Gives back the room of a crowd that has gone.
    fn shrink(&mut self) {
        let is_mostly_empty = |capacity: usize, used: usize| capacity > 8192 && capacity / 8 > used;
        if is_mostly_empty(self.messages.capacity(), self.messages.len()) {
            self.messages.shrink_to(4 * self.messages.len());
        }
        self.under_way.shrink();
        if is_mostly_empty(self.ages.capacity(), self.ages.len()) {
            self.ages.shrink_to(4 * self.ages.len());
        }
    }

    /// What is due of a message that is in memory, pinned for one claim.
    pub(crate) fn parcel(&mut self, id: MessageId, domain: &Domain, now: Timestamp) -> Option<Parcel> {
        let active = self.messages.get_mut(&id)?;
        if active.row.held || active.damaged {
            return None;
        }
        let record = Arc::clone(active.record.as_ref()?);
        let waiting = active.row.unit(domain)?.waiting.iter();
        let due = waiting.filter(|waiting| waiting.due <= now);
        let recipients: Vec<_> = due
            .map(|waiting| DueRecipient {
                index: waiting.recipient,
                attempts: waiting.attempts,
                last: last_of(&active.last, waiting.recipient).cloned(),
            })
            .collect();
        if recipients.is_empty() {
            return None;
        }
        active.pins += 1;
        Some(Parcel {
            record,
            body: active.body.clone(),
            location: active.row.location,
            fresh: active.young && recipients.iter().all(|recipient| recipient.attempts == 0),
            recipients,
        })
    }

    /// A claim ends. `slot` is where its message waited when it was claimed,
    /// for one that never came into memory.
    pub(crate) fn give_back(&mut self, queue: &QueueKey, slot: Slot, pinned: bool, now: Timestamp) {
        let id = slot.1;
        let active = self.messages.get(&id);
        let young = active.is_some_and(|active| active.young);
        let slot = match active {
            Some(active) => active.row.due(&queue.domain).map(|due| (due, id)),
            None if pinned => None,
            None => Some(slot),
        };
        self.due.give_back(queue, id, slot, young, now);
        if pinned {
            self.unpin(id);
        }
    }

    /// A claim ends whose message turned out not to wait in its queue.
    pub(crate) fn discard(&mut self, queue: &QueueKey, id: MessageId, now: Timestamp) {
        let active = self.messages.get(&id);
        let young = active.is_some_and(|active| active.young);
        let usable = active.filter(|active| !active.damaged || active.row.held);
        let slot = usable.and_then(|active| Some((active.row.due(&queue.domain)?, id)));
        self.due.give_back(queue, id, slot, young, now);
    }

    /// Keeps a message in memory, if it is there.
    pub(crate) fn pin(&mut self, id: MessageId) -> bool {
        let active = self.messages.get_mut(&id);
        active.map(|active| active.pins += 1).is_some()
    }

    pub(crate) fn unpin(&mut self, id: MessageId) {
        if let Some(active) = self.messages.get_mut(&id) {
            active.pins = active.pins.saturating_sub(1);
        }
        self.forget_if_idle(id);
    }

    /// A message is about to be read from the index and the log.
    pub(crate) fn load_begins(&mut self, id: MessageId) {
        self.loading.entry(id).or_default().0 += 1;
    }

    /// A message was read, or was not found. What is in memory is newer.
    pub(crate) fn load_ends(&mut self, id: MessageId, loaded: Option<Active>) {
        let Some((count, ended)) = self.loading.get_mut(&id) else { return };
        let ended = *ended;
        *count -= 1;
        if *count == 0 {
            self.loading.remove(&id);
        }
        let Some(loaded) = loaded.filter(|_| !ended) else { return };
        match self.messages.entry(id) {
            Entry::Vacant(place) => {
                place.insert(loaded);
            }
            Entry::Occupied(known) => {
                let known = known.into_mut();
                if known.record.is_none() {
                    (known.record, known.body, known.damaged) = (loaded.record, loaded.body, loaded.damaged);
                }
            }
        }
    }

    /// Takes messages that nobody deals with out of memory again. One with a
    /// record under way stays, though nobody waits for it: what the record
    /// says happens to what is in memory.
    pub(crate) fn forget_if_idle(&mut self, id: MessageId) {
        let idle = |active: &Active| active.pins == 0 && !active.young;
        let is_busy = || self.loading.contains_key(&id) || self.under_way.contains(id);
        if self.messages.get(&id).is_some_and(idle)
            && !is_busy()
            && let Some(Active { row, unsaved: true, .. }) = self.messages.remove(&id)
        {
            self.changes.push(Change::Put { id, row, left: Vec::new(), took: Vec::new() });
        }
    }

    /// A record that was under way is taken in, or failed.
    pub(crate) fn came(&mut self, id: MessageId) {
        if self.under_way.came(id) {
            self.forget_if_idle(id);
        }
    }

    /// A batch is taken in, and all before it.
    pub(crate) fn came_to(&mut self, lsn: Lsn) {
        self.taken_in = self.taken_in.max(lsn);
    }

    /// All batches up to this one are taken in.
    pub(crate) fn taken_in(&self) -> Lsn {
        self.taken_in
    }

    /// Messages that do not belong into the index now.
    pub(crate) fn not_indexed(&self, under_way: &Standstill<'_>) -> HashSet<MessageId> {
        let young = self.messages.iter().filter(|(_, active)| active.young);
        let accepting = under_way.ids().filter(|id| !self.messages.contains_key(id));
        young.map(|(id, _)| *id).chain(accepting).collect()
    }
}

/// Bytes of a message as the bounds count them.
fn size(location: Location) -> u64 {
    u64::from(location.len)
}

/// What the last attempt of a recipient said.
pub(crate) fn last_of(last: &[AttemptOutcome], recipient: u16) -> Option<&AttemptOutcome> {
    last.iter().find(|outcome| outcome.recipient == recipient)
}
