//! A spool that lives through the steps, and the model beside it.

mod carried;
mod restart;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use postrider_base::Disk;
use postrider_mail::{DelayType, Disposition};
use postrider_spool::{Claim, Content, Error, FeedItem, FeedRecord, Lsn, NewMessage, Result, Selector, Spool};
use postrider_wal::Error as LogError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::carried::Carrier;
use super::index::Indexes;
use super::model::{Fate, Message, Model, Outcomes, Told};
use super::steps::{Act, End, Failure, IndexFate, Step, Verdict};
use super::tally::Tally;
use crate::rig::{BOUNCED, DIR, HOUR, Rig, due_now, outcome, queue, within};

const DOMAINS: [&str; 3] = ["one.example", "two.example", "three.example"];
/// Longer than outcomes stay unsynced.
const SYNCED: Duration = Duration::from_millis(200);
/// More than failures can be to come.
const TRIES: usize = 10;
/// A moment: what is done at once is done.
const MOMENT: Duration = Duration::from_millis(20);

pub(super) struct Life<'a> {
    rig: Rig,
    tally: &'a Tally,
    open: Option<Spool>,
    model: Model,
    told: Told,
    /// The last batch of the feed that was read, and the last that is not
    /// needed again.
    read: Lsn,
    acknowledged: Lsn,
    /// Domains held, if that is known.
    holds: Option<BTreeSet<usize>>,
    works: Vec<Work>,
    indexes: Indexes,
    carrier: Carrier,
    /// The last one that was to come.
    failure: Option<Failure>,
    read_only: bool,
    restarts: u64,
}

/// Batches about one claim, handed in one after the other; they wait while
/// the disk is full.
struct Work {
    batches: VecDeque<Outcomes>,
    results: mpsc::UnboundedReceiver<Result<()>>,
    task: JoinHandle<()>,
}

/// Whether an operator's wish was taken.
#[derive(Clone, Copy, PartialEq)]
enum Taken {
    Yes,
    No,
    Unsure,
}

impl<'a> Life<'a> {
    pub(super) async fn begin(rig: Rig, tally: &'a Tally) -> Self {
        Self {
            open: Some(rig.open().await),
            rig,
            tally,
            model: Model::default(),
            told: Told::default(),
            read: Lsn::ZERO,
            acknowledged: Lsn::ZERO,
            holds: Some(BTreeSet::new()),
            works: Vec::new(),
            indexes: Indexes::default(),
            carrier: Carrier::default(),
            failure: None,
            read_only: false,
            restarts: 0,
        }
    }

    pub(super) async fn take(&mut self, step: &Step) {
        match step {
            Step::Accept(to, length) => {
                if self.accept(to, *length).await {
                    self.model.synced();
                }
            }
            Step::Abandon => self.abandon().await,
            Step::Attempt { claims, verdicts, one_by_one } => self.attempt(*claims, verdicts, *one_by_one).await,
            Step::Start(max) => self.start(*max).await,
            Step::Operator(act) => self.operate(*act).await,
            Step::Compact(failure) => self.compact(*failure).await,
            Step::Import(file) => self.import(*file).await,
            Step::Read { acknowledge } => self.read(*acknowledge).await,
            Step::Wait(millis) => self.wait(Duration::from_millis(*millis)).await,
            Step::Fail(failure) => self.fail(*failure),
            Step::Full(None) => self.make_room().await,
            Step::Full(Some(segments)) => self.fill(*segments),
            Step::ReadOnly => {
                self.rig.disk.set_read_only(true);
                self.read_only = true;
            }
            Step::HurtIndex(step) => self.indexes.hurt(*step, self.rig.index_dir().as_deref()),
            Step::End(end, index) => self.end(*end, *index).await,
        }
        self.collect();
        if self.failed() {
            // Its process ends, and perhaps the machine with it.
            let cause = self.failure.filter(|_| !self.read_only);
            self.tally.count(cause.map_or("the log failed".into(), |it| format!("the log failed: {:?}", it.operation)));
            let end = if self.restarts.is_multiple_of(2) { End::Killed } else { End::PowerCut(self.restarts) };
            self.end(end, IndexFate::Kept).await;
        }
    }

    fn spool(&self) -> &Spool {
        self.open.as_ref().unwrap()
    }

    fn failed(&self) -> bool {
        matches!(self.spool().admit(0), Err(Error::Poisoned))
    }

    fn message(&self, to: &[usize], length: usize) -> NewMessage {
        let to = to.iter().enumerate().map(|(n, domain)| format!("r{n}@{}", DOMAINS[*domain]));
        let to: Vec<String> = to.collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let mut message = self.rig.message(&to);
        let mut content = format!("Subject: {}\r\n\r\n", message.id).into_bytes();
        content.extend(message.id.to_bytes().iter().cycle().take(length));
        message.content = Content::from(content);
        message
    }

    /// Whether it was accepted, and so all before it is synced.
    async fn accept(&mut self, to: &[usize], length: usize) -> bool {
        let message = self.message(to, length);
        let (id, content) = (message.id, message.content.clone());
        let accepted = self.spool().accept(message).await;
        match &accepted {
            Ok(()) => drop(self.model.messages.insert(id, Message::new(content, to.len()))),
            Err(Error::Full(_) | Error::NoFile) => {
                self.tally.count("refused: full");
                self.model.refused.insert(id);
            }
            Err(Error::Poisoned) => drop(self.model.messages.insert(id, Message::unsure(content, to.len()))),
            Err(error) => panic!("{error}"),
        }
        accepted.is_ok()
    }

    async fn abandon(&mut self) {
        let message = self.message(&[0], 100);
        self.model.messages.insert(message.id, Message::unsure(message.content.clone(), 1));
        let mut accept = Box::pin(self.spool().accept(message));
        std::future::poll_fn(|cx| {
            let _ = accept.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
    }

    async fn attempt(&mut self, max: usize, verdicts: &[Verdict], one_by_one: bool) {
        let is_split = one_by_one && max.is_multiple_of(2);
        for mut claim in due_now(self.spool(), max).await {
            self.check(&claim).await;
            let mut verdicts = verdicts.to_vec();
            while let Some(part) = is_split.then(|| claim.split_first()).flatten() {
                self.deal_with(part, &verdicts, false);
                verdicts.rotate_left(1);
            }
            self.deal_with(claim, &verdicts, one_by_one);
            // Most are done in a moment; on a full disk they wait.
            if let Some(work) = self.works.last_mut() {
                let _ = within(MOMENT, &mut work.task).await;
            }
            self.collect();
        }
    }

    /// Only what waits is handed out, and as it was accepted.
    async fn check(&self, claim: &Claim) {
        let message = self.model.messages.get(&claim.id).expect("a message that nobody sent");
        let domain = DOMAINS.iter().position(|domain| *domain == claim.queue.domain.as_str()).unwrap();
        let held = self.holds.as_ref().is_some_and(|holds| holds.contains(&domain));
        assert!(!held && message.held != Some(true), "{} is held", claim.id);
        for due in &claim.recipients {
            let fate = message.recipients[usize::from(due.index)].fate;
            assert_eq!(fate, Fate::Waits, "{} {} is handed out", claim.id, due.index);
        }
        let content = claim.content().await.unwrap();
        assert_eq!(content.to_bytes(), message.content.to_bytes(), "{} has changed", claim.id);
    }

    fn deal_with(&mut self, mut claim: Claim, verdicts: &[Verdict], one_by_one: bool) {
        let (mut batches, mut records) = (VecDeque::new(), Vec::new());
        let (mut together, mut bounced) = (Vec::new(), false);
        let at = self.rig.clock.now();
        for (due, verdict) in claim.recipients.iter().zip(verdicts.iter().cycle()) {
            let disposition = match verdict {
                Verdict::Delivered => Disposition::Delivered,
                Verdict::Bounced => BOUNCED,
                Verdict::Deferred => Disposition::Deferred(DelayType::General),
                Verdict::Nothing => continue,
            };
            let mut result = outcome(&claim, due.index, disposition, at);
            result.next_attempt = (!disposition.is_terminal()).then(|| at.saturating_add(HOUR));
            bounced |= *verdict == Verdict::Bounced;
            together.push(result);
            if one_by_one {
                records.push((std::mem::take(&mut together), std::mem::take(&mut bounced)));
            }
        }
        records.push((together, bounced));
        let mut work = Vec::new();
        for (outcomes, bounced) in records.into_iter().filter(|(outcomes, _)| !outcomes.is_empty()) {
            let dsn = bounced.then(|| self.message(&[2], 200));
            let recipients = outcomes.iter().map(|it| (it.recipient, it.attempt, it.disposition.is_terminal()));
            let batch = Outcomes { id: claim.id, recipients: recipients.collect(), dsn: dsn.as_ref().map(|it| it.id) };
            self.model.begin(claim.id, batch.recipients.iter().map(|it| (it.0, it.1)));
            batches.push_back(batch);
            if let Some(dsn) = &dsn {
                self.model.messages.insert(dsn.id, Message::unsure(dsn.content.clone(), 1));
            }
            work.push((outcomes, Vec::from_iter(dsn)));
        }
        let (sender, results) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            for (outcomes, dsns) in work {
                let _ = sender.send(claim.record(outcomes, dsns).await);
            }
        });
        self.works.push(Work { batches, results, task });
    }

    /// Hears what became of batches.
    fn collect(&mut self) {
        for work in &mut self.works {
            while let Ok(result) = work.results.try_recv() {
                let batch = work.batches.pop_front().unwrap();
                match result {
                    Ok(()) => self.model.wrote(batch),
                    Err(Error::Poisoned | Error::Closed) => self.model.lost_sight(batch),
                    Err(error) => panic!("an outcome was refused: {error}"),
                }
            }
        }
        self.works.retain(|work| !work.batches.is_empty());
    }

    async fn start(&mut self, max: usize) {
        for mut claim in due_now(self.spool(), max).await {
            self.model.begin(claim.id, claim.recipients.iter().map(|due| (due.index, due.attempts + 1)));
            taken(&claim.register().await);
        }
    }

    async fn operate(&mut self, act: Act) {
        match act {
            Act::Hold(n) => self.hold_one(n, true).await,
            Act::Release(n) => self.hold_one(n, false).await,
            Act::HoldDomain(n) => {
                let selector = Selector::Queue(queue(DOMAINS[n]));
                match taken(&self.spool().hold(&selector).await) {
                    Taken::Yes => drop(self.holds.as_mut().map(|holds| holds.insert(n))),
                    Taken::No => {}
                    Taken::Unsure => self.holds = None,
                }
            }
            Act::ReleaseAll => self.release_all().await,
            Act::Delete(n) => self.delete(n).await,
            Act::RetryAll => drop(taken(&self.spool().retry(&Selector::All).await)),
        }
    }

    async fn hold_one(&mut self, n: usize, held: bool) {
        let Some(id) = self.model.nth_waiting(n) else { return };
        let selector = Selector::Message(id);
        let result = match held {
            true => self.spool().hold(&selector).await,
            false => self.spool().release(&selector).await,
        };
        let known = &mut self.model.messages.get_mut(&id).unwrap().held;
        match taken(&result) {
            Taken::Yes => *known = Some(held),
            Taken::No => {}
            Taken::Unsure => *known = None,
        }
    }

    async fn release_all(&mut self) {
        let released = taken(&self.spool().release(&Selector::All).await) == Taken::Yes;
        // Otherwise some are released, or none, or all.
        self.holds = released.then(BTreeSet::new);
        for message in self.model.messages.values_mut().filter(|message| message.held != Some(false)) {
            message.held = released.then_some(false);
        }
    }

    async fn delete(&mut self, n: usize) {
        let id = self.model.nth_waiting(n).filter(|_| self.works.is_empty());
        let Some(id) = id else { return };
        let deleted = self.spool().delete(&Selector::Message(id)).await;
        let fate = match taken(&deleted) {
            Taken::Yes => Fate::EndedForGood,
            Taken::No => return,
            Taken::Unsure => Fate::Unsure,
        };
        assert!(deleted.is_err() || deleted.unwrap() > 0, "{id} waited");
        for recipient in &mut self.model.messages.get_mut(&id).unwrap().recipients {
            if recipient.fate == Fate::Waits {
                recipient.fate = fate;
            }
        }
    }

    async fn wait(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        self.collect();
        if time >= SYNCED && !self.failed() {
            self.model.synced();
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
        self.rig.disk.fail(failure.operation, failure.nth, failure.fault);
    }

    fn fill(&self, segments: u64) {
        let disk = &self.rig.disk;
        disk.set_capacity(Some(1 << 40));
        let used = (1 << 40) - disk.available_bytes(DIR.as_ref()).unwrap();
        disk.set_capacity(Some(used + segments * self.rig.settings.segment_bytes.bytes()));
    }

    /// There is space again, and without a hand messages are accepted soon.
    async fn make_room(&mut self) {
        self.rig.disk.set_capacity(None);
        // Each failure that is still to come may refuse one.
        for _ in 0..TRIES {
            if self.accept(&[1], 100).await {
                return self.model.synced();
            }
            if self.failed() || self.read_only {
                return;
            }
            self.wait(Duration::from_secs(1)).await;
        }
        panic!("refused, though there is space");
    }

    async fn compact(&mut self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.fail(failure);
        }
        let Err(error) = self.spool().compact().await else { return };
        assert!(passes(&error), "{error:?}");
        let cause = self.failure.filter(|_| !self.read_only).map(|it| it.operation);
        self.tally.count(format!("reclaim failed: {cause:?}"));
    }

    /// Reads on in the feed, which says everything once.
    async fn read(&mut self, acknowledge: bool) {
        let mut feed = self.spool().feed("events", self.acknowledged.next());
        let mut last = None;
        while let Some(items) = within(MOMENT, feed.next()).await {
            for item in passing(items) {
                assert!(last < Some((item.lsn, item.index)), "the feed goes back");
                last = Some((item.lsn, item.index));
                if item.lsn > self.read {
                    self.hear(item.record);
                }
            }
        }
        if let Some((lsn, _)) = last {
            self.read = self.read.max(lsn);
        }
        if acknowledge {
            feed.ack(self.read);
            self.acknowledged = self.read;
            // Time for what can now be given back.
            tokio::time::sleep(MOMENT).await;
        }
    }

    fn hear(&mut self, record: FeedRecord) {
        match record {
            FeedRecord::Accepted(record) | FeedRecord::Imported(record) => {
                let message = self.model.messages.get(&record.id).expect("a message that nobody sent");
                assert_eq!(record.size, message.content.len());
                assert!(self.told.accepted.insert(record.id), "taken twice");
            }
            FeedRecord::Outcomes { id, outcomes } => {
                for outcome in outcomes.iter().filter(|outcome| outcome.disposition.is_terminal()) {
                    assert!(self.told.ended.insert((id, outcome.recipient)), "ended twice");
                }
            }
            _ => panic!("no other records"),
        }
    }
}

/// What a feed said; the disk may not have answered, and does so the next time.
fn passing(items: Result<Vec<FeedItem>>) -> Vec<FeedItem> {
    items.unwrap_or_else(|error| {
        assert!(passes(&error), "{error}");
        Vec::new()
    })
}

/// Whether a spool that did not open may open the next time.
fn passes(error: &Error) -> bool {
    match error {
        Error::Unrecovered(reason) => passes(reason),
        Error::Io(_) | Error::Log(LogError::Io { .. }) | Error::Full(_) | Error::NoFile | Error::Poisoned => true,
        _ => false,
    }
}

/// What an operator's wish came to; a full disk refuses it.
fn taken<T>(result: &Result<T>) -> Taken {
    match result {
        Ok(_) => Taken::Yes,
        Err(Error::Full(_) | Error::NoFile) => Taken::No,
        Err(Error::Poisoned) => Taken::Unsure,
        Err(error) => panic!("{error}"),
    }
}
