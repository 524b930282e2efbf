//! Cuts at any moment of a recorded load.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider_base::Random;
use postrider_mail::MessageId;
use postrider_testkit::spool_load::Line;
use tempfile::TempDir;

use crate::cut::{Load, Timeline};
use crate::ledger::{Counts, Ledger};
use crate::look::look;
use crate::recording::{Call, Event, Step, record};
use crate::replay::Replay;
use crate::shadow::{Manner, Shadow};

/// The directory whose files are followed.
const STATE: &str = "state";

/// A load, from the first system call to the last, and what was before.
pub(crate) struct Recorded {
    events: Vec<Event>,
    root: PathBuf,
    shadow: Shadow,
    ledger: Ledger,
}

/// A cut before a step, and what it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) step: usize,
    pub(crate) manner: Manner,
    pub(crate) without_index: bool,
}

impl Recorded {
    /// Loads a spool with `before` messages and kills the program, then
    /// records another run, which recovers first and accepts `messages`.
    pub(crate) fn make(before: u64, messages: u64) -> Result<Self, Box<dyn Error>> {
        let directory = scratch()?;
        let root = directory.path().canonicalize()?.join(STATE);
        std::fs::create_dir(&root)?;
        let mut ledger = Ledger::default();
        if before > 0 {
            let load = Load::start(&root, u64::MAX, ledger, &Timeline::begin())?;
            load.wait_for(before);
            ledger = load.kill()?;
            ledger.killed();
        }
        Self::run(&directory, ledger, messages)
    }

    /// Records another run on what a cut left.
    pub(crate) fn after(&self, cut: Cut, messages: u64, random: &Random) -> Result<Self, Box<dyn Error>> {
        let mut replay = self.replay();
        for event in &self.events[..cut.step] {
            replay.step(event, self.start())?;
        }
        let directory = scratch()?;
        replay.restore(&directory.path().canonicalize()?.join(STATE), cut, random)?;
        let mut ledger = replay.ledger;
        ledger.cut(self.time(cut.step));
        Self::run(&directory, ledger, messages)
    }

    fn run(directory: &TempDir, ledger: Ledger, messages: u64) -> Result<Self, Box<dyn Error>> {
        let root = directory.path().canonicalize()?.join(STATE);
        let shadow = Shadow::of(&root)?;
        let arguments =
            [root.display().to_string(), format!("--messages={messages}"), format!("--cursor={}", ledger.cursor())];
        let program = Path::new(env!("CARGO_BIN_EXE_spool-load"));
        let events = record(program, &arguments, &directory.path().join("calls"))?;
        Ok(Self { events, root, shadow, ledger })
    }

    /// Steps, and syncs among them.
    pub(crate) fn size(&self) -> (usize, usize) {
        let syncs = self.events.iter().filter(|event| matches!(event.step, Step::Begin(Call::Sync(_))));
        (self.events.len(), syncs.count())
    }

    /// So many cuts in the order of time: half of them right before or after
    /// a call that makes something durable or changes a name, half anywhere.
    pub(crate) fn cuts(&self, count: u64, random: &Random) -> Vec<Cut> {
        let matters: Vec<usize> = self.edges().collect();
        let draw = |number: u64| {
            let anywhere = number.is_multiple_of(2) || matters.is_empty();
            let step = match anywhere {
                true => random.below(self.events.len() as u64 + 1),
                false => matters[usize::try_from(random.below(matters.len() as u64)).unwrap_or(0)] as u64,
            };
            let manner = match random.below(6) {
                0 => Manner::Nothing,
                1 => Manner::Everything,
                _ => Manner::Some(10 + random.below(85)),
            };
            let step = usize::try_from(step).unwrap_or(0);
            Cut { step, manner, without_index: random.below(2) == 0 }
        };
        let mut cuts: Vec<Cut> = (0..count).map(draw).collect();
        cuts.sort_by_key(|cut| cut.step);
        cuts
    }

    /// The steps before which, and after which, such a call ends.
    fn edges(&self) -> impl Iterator<Item = usize> {
        let mut doing = HashMap::new();
        let ends = self.events.iter().enumerate().filter_map(move |(index, event)| match &event.step {
            Step::Begin(call) => {
                let matters = matches!(
                    call,
                    Call::Sync(_) | Call::Rename { .. } | Call::Remove(_) | Call::Truncate { .. } | Call::Punch { .. }
                );
                doing.insert(event.thread, matters);
                None
            }
            Step::End(_) => doing.remove(&event.thread).unwrap_or_default().then_some(index),
        });
        ends.flat_map(|index| [index, index + 1])
    }

    /// Plays the recording and compares at each cut.
    pub(crate) async fn check(&self, cuts: &[Cut], random: &Random) -> Result<Counts, Box<dyn Error>> {
        let mut replay = self.replay();
        let mut cuts = cuts.iter().peekable();
        let mut total = Counts::default();
        for step in 0..=self.events.len() {
            while let Some(cut) = cuts.next_if(|cut| cut.step <= step) {
                total += self.compare(&replay, *cut, random).await?;
            }
            if let Some(event) = self.events.get(step) {
                replay.step(event, self.start())?;
            }
        }
        Ok(total)
    }

    async fn compare(&self, replay: &Replay, cut: Cut, random: &Random) -> Result<Counts, Box<dyn Error>> {
        let directory = scratch()?;
        let state = directory.path().join(STATE);
        replay.restore(&state, cut, random)?;
        let mut ledger = replay.ledger.clone();
        ledger.cut(self.time(cut.step));
        let found = look(&state, ledger.cursor()).await;
        let counts = found.and_then(|found| ledger.settle(&found));
        let kept = |wrong| {
            let directory = directory.keep();
            format!("of {} steps, {cut:?}, kept in {}:\n{wrong}", self.events.len(), directory.display())
        };
        Ok(counts.map_err(kept)?)
    }

    fn replay(&self) -> Replay {
        Replay::new(&self.root, self.shadow.clone(), self.ledger.clone())
    }

    fn start(&self) -> Duration {
        self.events.first().map_or(Duration::ZERO, |event| event.at)
    }

    /// When a step began, since the first one.
    fn time(&self, step: usize) -> Duration {
        self.events.get(step).or(self.events.last()).map_or(Duration::ZERO, |event| event.at - self.start())
    }

    /// The same without any sync between the begin of the acceptance of a
    /// message and its acknowledgement, and the step after the latter.
    pub(crate) fn without_sync_of(&self, id: MessageId) -> Option<(Self, usize)> {
        let begin = self.step_of(Line::Accepting(id))?;
        let end = self.step_of(Line::Acked(id))?;
        let mut events = self.events.clone();
        for event in &mut events[begin..end] {
            if matches!(event.step, Step::Begin(Call::Sync(_))) {
                event.step = Step::Begin(Call::Nothing);
            }
        }
        let Self { root, shadow, ledger, .. } = self;
        Some((Self { events, root: root.clone(), shadow: shadow.clone(), ledger: ledger.clone() }, end + 1))
    }

    /// The last message that was acknowledged before it was attempted.
    pub(crate) fn acked_and_untouched(&self) -> Option<MessageId> {
        let mut attempted = BTreeSet::new();
        let mut last = None;
        for line in self.events.iter().flat_map(lines) {
            match line {
                Line::Ending(attempt, _) | Line::Deferring(attempt) => drop(attempted.insert(attempt.id)),
                Line::Acked(id) if !attempted.contains(&id) => last = Some(id),
                _ => {}
            }
        }
        last
    }

    fn step_of(&self, line: Line) -> Option<usize> {
        self.events.iter().position(|event| lines(event).contains(&line))
    }
}

/// What is told in a step.
fn lines(event: &Event) -> Vec<Line> {
    match &event.step {
        Step::Begin(Call::Write { descriptor: 1, bytes, .. }) => {
            String::from_utf8_lossy(bytes).lines().filter_map(|line| line.parse().ok()).collect()
        }
        _ => Vec::new(),
    }
}

/// In memory, where there is such a place: these syncs need not reach a disk.
fn scratch() -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("power-");
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir())
}
