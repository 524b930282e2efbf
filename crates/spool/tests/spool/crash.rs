//! A random life with power cuts, against what was promised.
//!
//! The model knows what every caller was told. After each restart: nobody who
//! was told yes is missing or changed; what ended, and when it is known to be
//! synced, stays ended; a bounce and its notification are there together; and
//! the feed says it all exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postrider_mail::{DelayType, Disposition, MessageId};
use postrider_spool::{Error, FeedRecord, Lsn, Selector, Spool};
use proptest::prelude::*;

use crate::feed::read_all;
use crate::rig::{BOUNCED, HOUR, Rig, assert_intact, body_of, due_now, outcomes, queue};

const DOMAINS: [&str; 3] = ["one.example", "two.example", "three.example"];
/// Longer than outcomes stay unsynced.
const SYNCED: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
enum Step {
    /// Accept a message to the first so many domains.
    Accept(usize),
    /// Begin to accept and go away.
    Abandon,
    /// Claim up to so many and deal with each in turn.
    Deliver(usize),
    Bounce(usize),
    Defer(usize),
    /// Register the attempt, and give the claim back.
    Start(usize),
    Hold(usize),
    HoldDomain(usize),
    ReleaseAll,
    Delete(usize),
    RetryAll,
    Wait(u64),
    Crash(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..=3usize).prop_map(Step::Accept),
        2 => Just(Step::Abandon),
        4 => (1..=4usize).prop_map(Step::Deliver),
        2 => (1..=2usize).prop_map(Step::Bounce),
        4 => (1..=4usize).prop_map(Step::Defer),
        1 => (1..=2usize).prop_map(Step::Start),
        1 => (0..20usize).prop_map(Step::Hold),
        1 => (0..3usize).prop_map(Step::HoldDomain),
        1 => Just(Step::ReleaseAll),
        1 => (0..20usize).prop_map(Step::Delete),
        1 => Just(Step::RetryAll),
        3 => prop_oneof![Just(50), Just(300), Just(5_000), Just(7_200_000)].prop_map(Step::Wait),
        3 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Reopen),
    ]
}

/// What a recipient was told to have become.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Waits,
    /// Ended, perhaps not yet synced.
    Ended,
    EndedForGood,
}

#[derive(Debug, Default)]
struct Model {
    /// Messages whose acceptance was confirmed, by recipient.
    messages: BTreeMap<MessageId, Vec<Fate>>,
    /// Bounces and the notifications that they caused, not known to be synced.
    bounces: Vec<((MessageId, u16), MessageId)>,
    /// Accepted or not: nobody was told.
    unsure: BTreeSet<MessageId>,
}

impl Model {
    fn end(&mut self, id: MessageId, recipients: impl Iterator<Item = u16>, fate: Fate) {
        if let Some(fates) = self.messages.get_mut(&id) {
            recipients.for_each(|index| fates[usize::from(index)] = fate);
        }
    }

    /// Whatever was written is synced now.
    fn synced(&mut self) {
        for fate in self.messages.values_mut().flatten() {
            if *fate == Fate::Ended {
                *fate = Fate::EndedForGood;
            }
        }
        self.bounces.clear();
    }

    fn nth(&self, n: usize) -> Option<MessageId> {
        let waiting = self.messages.iter().filter(|(_, fates)| fates.contains(&Fate::Waits));
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        waiting.get(n % waiting.len().max(1)).copied()
    }
}

struct Life {
    rig: Rig,
    open: Option<Spool>,
    model: Model,
}

impl Life {
    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Accept(domains) => {
                let to: Vec<_> = DOMAINS[..domains].iter().map(|domain| format!("a@{domain}")).collect();
                let to: Vec<&str> = to.iter().map(String::as_str).collect();
                let id = self.rig.accept(self.spool(), &to).await;
                self.model.messages.insert(id, vec![Fate::Waits; domains]);
                self.model.synced();
            }
            Step::Abandon => {
                let message = self.rig.message(&["a@one.example"]);
                self.model.unsure.insert(message.id);
                let mut accept = Box::pin(self.spool().accept(message));
                std::future::poll_fn(|cx| {
                    let _ = accept.as_mut().poll(cx);
                    std::task::Poll::Ready(())
                })
                .await;
            }
            Step::Deliver(max) => self.attempt(max, Disposition::Delivered).await,
            Step::Bounce(max) => self.attempt(max, BOUNCED).await,
            Step::Defer(max) => {
                self.attempt(max, Disposition::Deferred(DelayType::General)).await;
            }
            Step::Start(max) => {
                for mut claim in due_now(self.spool(), max).await {
                    claim.register().await.unwrap();
                }
            }
            Step::Hold(n) => {
                if let Some(id) = self.model.nth(n) {
                    self.spool().hold(&Selector::Message(id)).await.unwrap();
                }
            }
            Step::HoldDomain(n) => {
                let selector = Selector::Queue(queue(DOMAINS[n]));
                self.spool().hold(&selector).await.unwrap();
            }
            Step::ReleaseAll => self.spool().release(&Selector::All).await.unwrap(),
            Step::Delete(n) => {
                if let Some(id) = self.model.nth(n) {
                    assert!(self.spool().delete(&Selector::Message(id)).await.unwrap() > 0);
                    let all = (0u16..).take(self.model.messages[&id].len());
                    self.model.end(id, all, Fate::EndedForGood);
                    self.model.synced();
                }
            }
            Step::RetryAll => drop(self.spool().retry(&Selector::All).await.unwrap()),
            Step::Wait(millis) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                if Duration::from_millis(millis) >= SYNCED {
                    self.model.synced();
                }
            }
            Step::Crash(seed) => {
                self.rig.disk.crash(seed);
                self.reopen().await;
            }
            Step::Reopen => {
                self.spool().close().await.unwrap();
                self.model.synced();
                self.reopen().await;
            }
        }
    }

    async fn attempt(&mut self, max: usize, disposition: Disposition) {
        for claim in due_now(self.spool(), max).await {
            assert_intact(&claim).await;
            let (id, at) = (claim.id, self.rig.clock.now());
            let mut results = outcomes(&claim, disposition, at);
            let mut dsns = Vec::new();
            match disposition {
                Disposition::Deferred(_) => {
                    let next = at.saturating_add(HOUR);
                    results.iter_mut().for_each(|result| result.next_attempt = Some(next));
                }
                BOUNCED => {
                    let dsn = self.rig.message(&["sender@three.example"]);
                    let bounced = results.iter().map(|result| (id, result.recipient));
                    self.model.bounces.extend(bounced.map(|bounced| (bounced, dsn.id)));
                    self.model.messages.insert(dsn.id, vec![Fate::Waits]);
                    self.model.unsure.insert(dsn.id);
                    dsns.push(dsn);
                }
                _ => {}
            }
            let recipients: Vec<u16> = results.iter().map(|result| result.recipient).collect();
            claim.finish(results, dsns).await.unwrap();
            if disposition.is_terminal() {
                self.model.end(id, recipients.into_iter(), Fate::Ended);
            }
        }
    }

    fn spool(&self) -> &Spool {
        self.open.as_ref().unwrap()
    }

    async fn reopen(&mut self) {
        self.open = None;
        // Tasks of the former one let go of the disk.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.open = Some(self.rig.open().await);
        assert_eq!(self.spool().report().quarantined, 0);
        let feed = self.feed().await;
        let mut known = BTreeMap::new();
        for id in self.ids() {
            known.insert(id, self.waiting(id).await);
        }
        for (bounced, dsn) in std::mem::take(&mut self.model.bounces) {
            // A notification that bounced may be lost with its bounce.
            let there = feed.accepted.contains(&bounced.0);
            let ended = there && !known[&bounced.0].contains(&bounced.1);
            assert_eq!(ended, feed.accepted.contains(&dsn), "a bounce without its notification");
        }
        for (id, fates) in &mut self.model.messages {
            let waiting = &known[id];
            for (index, fate) in (0u16..).zip(fates) {
                let waits = waiting.contains(&index);
                let ended = feed.ended.contains(&(*id, index));
                match *fate {
                    Fate::EndedForGood => assert!(!waits, "{id} {index} is back"),
                    Fate::Waits if self.model.unsure.contains(id) => {}
                    Fate::Waits => assert!(waits, "{id} {index} is lost"),
                    Fate::Ended => {}
                }
                if !self.model.unsure.contains(id) || feed.accepted.contains(id) {
                    assert!(feed.accepted.contains(id), "the feed does not know {id}");
                    assert_eq!(waits, !ended, "{id} {index}: queue and feed disagree");
                    *fate = if waits { Fate::Waits } else { Fate::EndedForGood };
                }
            }
        }
        // Now it is known what became of those that nobody was told about.
        for id in std::mem::take(&mut self.model.unsure) {
            match feed.accepted.contains(&id) {
                true => {
                    let waits = known[&id].contains(&0);
                    let fate = if waits { Fate::Waits } else { Fate::EndedForGood };
                    self.model.messages.insert(id, vec![fate]);
                }
                false => drop(self.model.messages.remove(&id)),
            }
        }
    }

    fn ids(&self) -> BTreeSet<MessageId> {
        self.model.messages.keys().chain(&self.model.unsure).copied().collect()
    }

    /// The recipients of a message that wait.
    async fn waiting(&self, id: MessageId) -> BTreeSet<u16> {
        let view = self.spool().show(id).await.unwrap();
        let recipients = view.map(|view| view.recipients).unwrap_or_default();
        let waiting = (0u16..).zip(recipients).filter(|(_, recipient)| !recipient.done);
        waiting.map(|(index, _)| index).collect()
    }

    async fn feed(&self) -> Told {
        let mut told = Told::default();
        let mut feed = self.spool().feed("events", Lsn::ZERO);
        let mut last = None;
        for item in read_all(&mut feed).await {
            assert!(last < Some((item.lsn, item.index)), "the feed says something twice");
            last = Some((item.lsn, item.index));
            match item.record {
                FeedRecord::Accepted(record) => {
                    assert_eq!(record.size, body_of(record.id).len());
                    assert!(told.accepted.insert(record.id), "accepted twice");
                }
                FeedRecord::Outcomes { id, outcomes } => {
                    let ended = outcomes.iter().filter(|outcome| outcome.disposition.is_terminal());
                    told.ended.extend(ended.map(|outcome| (id, outcome.recipient)));
                }
                _ => panic!("no other records"),
            }
        }
        told
    }

    /// Everything that is left is delivered, and then all are accounted for.
    async fn end(mut self) {
        self.spool().release(&Selector::All).await.unwrap();
        self.spool().retry(&Selector::All).await.unwrap();
        loop {
            self.attempt(8, Disposition::Delivered).await;
            if due_now(self.spool(), 1).await.is_empty() {
                break;
            }
        }
        let stat = self.spool().stat();
        assert_eq!((stat.messages, stat.bytes, stat.in_delivery, stat.queues), (0, 0, 0, 0));
        assert_eq!(stat.body_memory, 0);
        tokio::time::sleep(SYNCED).await;
        let told = self.feed().await;
        for (id, fates) in &self.model.messages {
            for index in 0..fates.len() {
                let index = u16::try_from(index).unwrap();
                assert!(told.ended.contains(&(*id, index)), "{id} {index} did not end");
            }
        }
        let closed = self.spool().close().await;
        assert!(!matches!(closed, Err(Error::Poisoned)));
    }
}

/// What the feed said.
#[derive(Default)]
struct Told {
    accepted: BTreeSet<MessageId>,
    ended: BTreeSet<(MessageId, u16)>,
}

fn live(steps: &[Step], sled: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut rig = if sled { Rig::with_sled() } else { Rig::new() };
        rig.feeds = &["events"];
        rig.settings.ready_batch = 2;
        rig.settings.segment_bytes = postrider_base::Size::from_kib(16);
        let spool = rig.open().await;
        let model = Model::default();
        let mut life = Life { rig, open: Some(spool), model };
        for step in steps {
            life.take(step).await;
        }
        life.end().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_with_the_index_in_memory(steps in prop::collection::vec(step(), 1..60)) {
        live(&steps, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_with_the_index_in_sled(steps in prop::collection::vec(step(), 1..60)) {
        live(&steps, true);
    }
}
