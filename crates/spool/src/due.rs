//! Which message is next: accounts in turn, an account's queues in turn, oldest
//! due first within each.
//!
//! A queue keeps in memory its fresh messages (they are nowhere else) and a
//! window of the waiting ones in the index: the earliest, up to a bound. What
//! lies beyond the window is read when the window is used up, so that memory
//! does not grow with the queue. A queue that is parked or held stands
//! neither in the ready ring nor among the timers, whatever it holds.

mod aside;
mod passed;

use std::collections::{BTreeSet, HashMap, VecDeque};

use postrider_base::Timestamp;
use postrider_mail::{AccountId, MessageId};

use crate::message::QueueKey;
use crate::records::Holds;
use crate::row::NEVER;
use crate::turns::Turns;
use aside::Aside;
use passed::Passed;

/// A message's place in a queue. Order is the order of delivery.
pub(crate) type Slot = (Timestamp, MessageId);

/// The next part of the index that a queue needs.
#[derive(Debug, PartialEq)]
pub(crate) struct Refill {
    pub queue: QueueKey,
    /// Read what comes after this.
    pub after: Option<Slot>,
    /// Read up to this many that are due, and one that is not.
    pub limit: usize,
    pub now: Timestamp,
}

/// All queues.
#[derive(Debug)]
pub(crate) struct Due {
    queues: HashMap<QueueKey, Queue>,
    /// Queues with something due, by account.
    ready: Turns<AccountId, VecDeque<QueueKey>>,
    /// Queues whose first message is due later.
    timers: BTreeSet<(Timestamp, QueueKey)>,
    /// What to ask the index for.
    refills: Vec<Refill>,
    /// Bound of a queue's window.
    batch: usize,
    holds: Holds,
    /// Somebody takes what is due.
    is_taken_from: bool,
    /// While something is due: since when that has waited to be taken.
    behind_since: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    fresh: BTreeSet<Slot>,
    window: BTreeSet<Slot>,
    /// Boxed, since it is rare.
    aside: Option<Box<Aside>>,
    /// What it went past, if it did.
    passed: Option<Box<Passed>>,
    /// The refill under way is of no use: the queue is to be read from its beginning.
    again: bool,
    /// The index may have slots after `covered` that the window lacks.
    more: bool,
    covered: Option<Slot>,
    /// A refill is under way; slots added to the index meanwhile.
    refilling: bool,
    added: Vec<Slot>,
    claimed: BTreeSet<MessageId>,
    /// Messages, claimed ones included.
    waiting: u32,
    /// How often what was set aside was called back.
    recalls: u32,
    parked: bool,
    held: bool,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Place {
    #[default]
    Nowhere,
    /// In the ring; since when something has been due here without a break.
    Ready(Timestamp),
    /// It has left the ring by its turn, or until it is known what comes next.
    Between(Timestamp),
    Timer(Timestamp),
}

/// A queue in numbers, as far as memory knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QueueState {
    pub key: QueueKey,
    pub waiting: u64,
    pub claimed: u64,
    pub parked: bool,
    pub held: bool,
}

impl Due {
    pub(crate) fn new(batch: usize, holds: Holds) -> Self {
        Self {
            queues: HashMap::new(),
            ready: Turns::default(),
            timers: BTreeSet::new(),
            refills: Vec::new(),
            batch,
            holds,
            is_taken_from: false,
            behind_since: None,
        }
    }

    /// A message that is in the index, at the start.
    pub(crate) fn restore(&mut self, key: &QueueKey, slot: Slot) {
        let queue = entry(&mut self.queues, &self.holds, key);
        queue.waiting += 1;
        match queue.window.first() {
            Some(first) if *first <= slot => queue.more = true,
            first => {
                queue.more |= first.is_some();
                queue.window = BTreeSet::from([slot]);
            }
        }
        queue.covered = queue.window.first().copied();
    }

    /// Schedules every queue, after they were restored.
    pub(crate) fn start(&mut self, now: Timestamp) {
        let keys: Vec<_> = self.queues.keys().cloned().collect();
        keys.iter().for_each(|key| self.schedule(key, now));
    }

    /// A message that is only in memory joins a queue.
    pub(crate) fn add_fresh(&mut self, key: &QueueKey, slot: Slot, now: Timestamp) {
        let queue = entry(&mut self.queues, &self.holds, key);
        queue.waiting += 1;
        queue.fresh.insert(slot);
        self.schedule(key, now);
    }

    /// A message's due time changed, or it went from memory to the index
    /// (the same slot, then). It is in the index afterwards.
    pub(crate) fn reslot(&mut self, key: &QueueKey, old: Slot, new: Slot, now: Timestamp) {
        let batch = self.batch;
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.fresh.remove(&old);
        queue.window.remove(&old);
        let is_passed = queue.passed.as_mut().is_some_and(|passed| passed.remove(&old)) && old == new;
        if old != new {
            queue.let_in(new.1);
        }
        if !is_passed && !queue.claimed.contains(&new.1) {
            queue.insert(new, batch);
        }
        self.schedule(key, now);
    }

    /// A message leaves a queue.
    pub(crate) fn end(&mut self, key: &QueueKey, slot: Slot, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.fresh.remove(&slot);
        queue.window.remove(&slot);
        queue.let_in(slot.1);
        if let Some(passed) = &mut queue.passed {
            passed.remove(&slot);
        }
        queue.waiting = queue.waiting.saturating_sub(1);
        self.schedule(key, now);
    }

    /// Claims up to `max` due slots, one from each account in turn, from its
    /// queues in turn.
    pub(crate) fn take(&mut self, max: usize, now: Timestamp) -> Vec<(QueueKey, Slot)> {
        self.wake(now);
        let mut taken = Vec::new();
        let mut first = None::<Timestamp>;
        while taken.len() < max
            && let Some(Some(key)) = self.ready.next(|_, queues| (queues.pop_front(), !queues.is_empty()))
        {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            let ready_since = queue.ready_since(now);
            queue.place = Place::Between(ready_since);
            if let Some(slot) = queue.pop(now) {
                queue.claimed.insert(slot.1);
                let since = slot.0.max(ready_since);
                first = Some(first.map_or(since, |first| first.min(since)));
                taken.push((key.clone(), slot));
            }
            self.schedule(&key, now);
        }
        self.is_taken_from = true;
        // What is left has waited about as long as what was taken.
        self.behind_since = first.or(self.behind_since).filter(|_| !self.ready.is_empty());
        taken
    }

    /// A claim ends; `slot` is where its message now waits, if it does.
    pub(crate) fn give_back(&mut self, key: &QueueKey, id: MessageId, slot: Option<Slot>, fresh: bool, now: Timestamp) {
        let batch = self.batch;
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.claimed.remove(&id);
        match slot {
            Some(slot) if fresh => drop(queue.fresh.insert(slot)),
            Some(slot) => queue.insert(slot, batch),
            None => {}
        }
        self.schedule(key, now);
    }

    /// What a refill read, in order, and whether the index has no more.
    pub(crate) fn refilled(&mut self, key: &QueueKey, slots: &[Slot], end: bool, now: Timestamp) {
        let batch = self.batch;
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.refilling = false;
        if std::mem::take(&mut queue.again) {
            queue.forget_window();
            return self.schedule(key, now);
        }
        queue.more = !end;
        queue.covered = slots.last().copied().max(queue.covered);
        let claimed = &queue.claimed;
        let free = slots.iter().filter(|slot| !claimed.contains(&slot.1));
        queue.window.extend(free);
        for slot in std::mem::take(&mut queue.added) {
            queue.insert(slot, batch);
        }
        self.schedule(key, now);
    }

    /// The index was made anew: windows are to be read again.
    pub(crate) fn forget_windows(&mut self, now: Timestamp) {
        for queue in self.queues.values_mut() {
            queue.forget_window();
            queue.refilling = false;
            queue.again = false;
        }
        self.start(now);
    }

    /// Refills asked for since the last call.
    pub(crate) fn refills(&mut self) -> Vec<Refill> {
        std::mem::take(&mut self.refills)
    }

    pub(crate) fn park(&mut self, key: &QueueKey, parked: bool, now: Timestamp) {
        entry(&mut self.queues, &self.holds, key).parked = parked;
        self.schedule(key, now);
    }

    pub(crate) fn holds(&self) -> &Holds {
        &self.holds
    }

    pub(crate) fn set_holds(&mut self, holds: Holds, now: Timestamp) {
        for (key, queue) in &mut self.queues {
            queue.held = holds.covers(key);
        }
        self.holds = holds;
        self.start(now);
    }

    /// Whether something is due now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether an account has something due that nobody has taken yet. With turns that is not for
    /// long unless it has more than its share.
    pub(crate) fn has_to_wait(&self, account: AccountId) -> bool {
        self.ready.get(&account).is_some_and(|queues| !queues.is_empty())
    }

    /// Since when the oldest of what is due has waited to be taken, where something is
    /// and somebody takes it at all. What waits in queues that nothing is wanted from
    /// does not count.
    pub(crate) fn behind_since(&self) -> Option<Timestamp> {
        self.behind_since
    }

    /// When the next message of a queue that may be handed out is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn is_claimed(&self, key: &QueueKey, id: MessageId) -> bool {
        self.queues.get(key).is_some_and(|queue| queue.claimed.contains(&id))
    }

    /// How often what was set aside in a queue was called back.
    pub(crate) fn recalls(&self, key: &QueueKey) -> u32 {
        self.queues.get(key).map_or(0, |queue| queue.recalls)
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = QueueState> + '_ {
        self.queues.iter().map(|(key, queue)| QueueState {
            key: key.clone(),
            waiting: queue.waiting.into(),
            claimed: queue.claimed.len() as u64,
            parked: queue.parked,
            held: queue.held,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.queues.len()
    }

    /// Moves queues whose time has come into the ring.
    fn wake(&mut self, now: Timestamp) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.timers.pop_first()
        {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.place = Place::Ready(now);
                self.ready.of(&key.account).push_back(key);
                self.comes_due(now);
            }
        }
    }

    /// Puts a queue where its first message says.
    fn schedule(&mut self, key: &QueueKey, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        if queue.is_empty() && !matches!(queue.place, Place::Ready(_)) {
            if let Place::Timer(at) = queue.place {
                self.timers.remove(&(at, key.clone()));
            }
            self.queues.remove(key);
            return;
        }
        if queue.wants_refill() {
            queue.refilling = true;
            self.refills.push(Refill { queue: key.clone(), after: queue.covered, limit: self.batch, now });
        }
        let place = queue.wanted_place(now);
        if queue.place == place {
            return;
        }
        match (queue.place, place) {
            // A queue leaves the ring by its turn only, to keep its place.
            (Place::Ready(_), _) => return,
            (Place::Timer(at), _) => drop(self.timers.remove(&(at, key.clone()))),
            (Place::Nowhere | Place::Between(_), _) => {}
        }
        queue.place = place;
        match place {
            Place::Ready(_) => {
                self.ready.of(&key.account).push_back(key.clone());
                self.comes_due(now);
            }
            Place::Timer(at) => drop(self.timers.insert((at, key.clone()))),
            Place::Nowhere | Place::Between(_) => {}
        }
    }

    fn comes_due(&mut self, now: Timestamp) {
        if self.is_taken_from {
            self.behind_since.get_or_insert(now);
        }
    }
}

impl Queue {
    fn blocked(&self) -> bool {
        self.parked || self.held
    }

    fn is_empty(&self) -> bool {
        self.waiting == 0 && self.claimed.is_empty() && !self.parked && !self.refilling
    }

    fn wants_refill(&self) -> bool {
        self.window.is_empty() && self.more && !self.refilling && !self.blocked()
    }

    fn head(&self) -> Option<Slot> {
        let aside = self.aside.as_ref().and_then(|aside| aside.first());
        let heads = [self.fresh.first(), self.window.first(), aside];
        heads.into_iter().flatten().min().copied()
    }

    fn is_ready(&self) -> bool {
        matches!(self.place, Place::Ready(_) | Place::Between(_))
    }

    fn ready_since(&self, now: Timestamp) -> Timestamp {
        match self.place {
            Place::Ready(since) | Place::Between(since) => since,
            Place::Nowhere | Place::Timer(_) => now,
        }
    }

    fn wanted_place(&self, now: Timestamp) -> Place {
        match self.head() {
            Some(_) if self.blocked() => Place::Nowhere,
            Some((at, _)) if at <= now => Place::Ready(self.ready_since(now)),
            // What comes next may be due, too.
            None if self.refilling && self.is_ready() => Place::Between(self.ready_since(now)),
            Some((NEVER, _)) | None => Place::Nowhere,
            Some((at, _)) => Place::Timer(at),
        }
    }

    fn pop(&mut self, now: Timestamp) -> Option<Slot> {
        loop {
            let mut slot = self.head().filter(|(at, _)| *at <= now && !self.blocked())?;
            if !self.fresh.remove(&slot) && !self.window.remove(&slot) {
                // It has been due for longer than it has been back.
                slot.0 = self.let_in(slot.1).unwrap_or(slot.0);
            } else if self.aside.as_ref().is_some_and(|aside| aside.contains(slot.1)) {
                continue;
            }
            // A refill may have read a place that was left meanwhile. The end
            // of the claim brings the message back to its right one.
            if !self.claimed.contains(&slot.1) {
                return Some(slot);
            }
        }
    }

    /// Everything in the index is to be read again.
    fn forget_window(&mut self) {
        self.window.clear();
        self.added.clear();
        self.covered = None;
        self.more = true;
    }

    /// A message is not set aside any more; when it was due before, if it was.
    fn let_in(&mut self, id: MessageId) -> Option<Timestamp> {
        self.aside.as_mut()?.remove(id)
    }

    /// Takes in a slot that is in the index, if the window reaches so far.
    fn insert(&mut self, slot: Slot, bound: usize) {
        if self.refilling {
            return self.added.push(slot);
        }
        if self.more && self.covered < Some(slot) {
            return;
        }
        self.window.insert(slot);
        if self.window.len() > 2 * bound {
            while self.window.len() > bound {
                self.window.pop_last();
            }
            self.more = true;
            self.covered = self.window.last().copied();
        }
    }
}

fn entry<'a>(queues: &'a mut HashMap<QueueKey, Queue>, holds: &Holds, key: &QueueKey) -> &'a mut Queue {
    if !queues.contains_key(key) {
        let queue = Queue { held: holds.covers(key), ..Queue::default() };
        queues.insert(key.clone(), queue);
    }
    queues.get_mut(key).expect("it was inserted just now")
}

#[cfg(test)]
mod tests;
