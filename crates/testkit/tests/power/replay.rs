//! A recording played step by step on a shadow of the disk, beside what the
//! program told meanwhile.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider_base::Random;
use postrider_testkit::spool_load::Line;

use crate::cut::remove_index;
use crate::ledger::Ledger;
use crate::recorded::Cut;
use crate::recording::{Call, Event, Place, Step};
use crate::shadow::{Change, Node, Shadow};

const STANDARD_OUTPUT: i32 = 1;

pub(crate) struct Replay {
    /// Whose files are followed.
    root: PathBuf,
    shadow: Shadow,
    pub(crate) ledger: Ledger,
    /// Steps so far: the time of the shadow.
    steps: usize,
    open: HashMap<i32, Descriptor>,
    /// What each thread is doing.
    running: HashMap<u32, Running>,
}

#[derive(Clone, Debug)]
struct Descriptor {
    node: Node,
    /// Relative to the root.
    path: PathBuf,
    position: u64,
}

/// A call that has begun, with its descriptor resolved: it may stand for
/// another file by the end.
struct Running {
    began: usize,
    call: Call,
    node: Option<Node>,
}

impl Replay {
    pub(crate) fn new(root: &Path, shadow: Shadow, ledger: Ledger) -> Self {
        Self { root: root.to_owned(), shadow, ledger, steps: 0, open: HashMap::new(), running: HashMap::new() }
    }

    /// Takes the next step; `start` is when the recording began.
    pub(crate) fn step(&mut self, event: &Event, start: Duration) -> Result<(), String> {
        self.steps += 1;
        match &event.step {
            Step::Begin(call) => {
                let running = self.begin(call, event.at.saturating_sub(start))?;
                self.running.insert(event.thread, running);
                Ok(())
            }
            Step::End(result) => {
                let running = self.running.remove(&event.thread).ok_or("a call ends that did not begin")?;
                let known = self.end(running, *result);
                known.ok_or_else(|| format!("step {} can not be followed: {result}", self.steps))
            }
        }
    }

    /// Makes the directory as a cut at this moment may leave it.
    pub(crate) fn restore(&self, target: &Path, cut: Cut, random: &Random) -> io::Result<()> {
        self.shadow.restore(target, cut.manner, random)?;
        if cut.without_index {
            remove_index(target)?;
        }
        Ok(())
    }

    fn begin(&mut self, call: &Call, at: Duration) -> Result<Running, String> {
        let mut node = None;
        match call {
            // From here on the number may stand for another file.
            Call::Close(descriptor) => drop(self.open.remove(descriptor)),
            Call::Write { descriptor: STANDARD_OUTPUT, bytes, .. } => self.told(bytes, at)?,
            Call::Write { descriptor, offset, bytes } => {
                if let Some(open) = self.open.get_mut(descriptor) {
                    node = Some(open.node);
                    let offset = offset.unwrap_or(open.position);
                    self.shadow.begin(open.node, Change::Bytes { offset, bytes: bytes.clone() }, self.steps);
                }
            }
            Call::Truncate { descriptor, length } => {
                node = self.change(*descriptor, Change::Length(*length));
            }
            Call::Allocate { descriptor, offset, length } => {
                let change = Change::Zeros { offset: *offset, length: *length, extends: true };
                node = self.change(*descriptor, change);
            }
            Call::Punch { descriptor, offset, length } => {
                let change = Change::Zeros { offset: *offset, length: *length, extends: false };
                node = self.change(*descriptor, change);
            }
            Call::Sync(descriptor) => node = self.open.get(descriptor).map(|open| open.node),
            Call::Unknown(descriptor, name) if descriptor.is_none_or(|number| self.open.contains_key(&number)) => {
                return Err(format!("the shadow knows no {name}"));
            }
            _ => {}
        }
        Ok(Running { began: self.steps, call: call.clone(), node })
    }

    fn change(&mut self, descriptor: i32, change: Change) -> Option<Node> {
        let node = self.open.get(&descriptor)?.node;
        self.shadow.begin(node, change, self.steps);
        Some(node)
    }

    fn told(&mut self, bytes: &[u8], at: Duration) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        for line in text.lines() {
            self.ledger.take(line.parse::<Line>()?, at);
        }
        Ok(())
    }

    /// A call has ended; none where the shadow can not follow.
    fn end(&mut self, Running { began, call, node }: Running, result: i64) -> Option<()> {
        if let (Some(node), Call::Write { .. } | Call::Truncate { .. } | Call::Allocate { .. } | Call::Punch { .. }) =
            (node, &call)
        {
            self.shadow.end(node, began, usize::try_from(result).ok(), self.steps);
        }
        // What failed has changed nothing.
        let Ok(result) = u64::try_from(result) else { return Some(()) };
        match call {
            Call::Write { descriptor, offset: None, .. } => {
                if let Some(open) = self.open.get_mut(&descriptor) {
                    open.position += result;
                }
            }
            Call::Seek(descriptor) => {
                if let Some(open) = self.open.get_mut(&descriptor) {
                    open.position = result;
                }
            }
            Call::Sync(_) => {
                if let Some(node) = node {
                    self.shadow.sync(node, began);
                }
            }
            Call::Duplicate(descriptor) => {
                let same = self.open.get(&descriptor).cloned();
                let number = i32::try_from(result).ok()?;
                same.map(|same| self.open.insert(number, same));
            }
            Call::Open { place, create, truncate } => {
                return self.opened(&place, create, truncate, i32::try_from(result).ok()?);
            }
            other => return self.named(&other),
        }
        Some(())
    }

    fn opened(&mut self, place: &Place, create: bool, truncate: bool, number: i32) -> Option<()> {
        self.open.remove(&number);
        let Some(path) = self.path(place) else { return Some(()) };
        let node = match self.shadow.find(&path) {
            Some(node) => node,
            None if create => self.shadow.create(&path, self.steps)?,
            None => return None,
        };
        if truncate {
            self.shadow.begin(node, Change::Length(0), self.steps);
            self.shadow.end(node, self.steps, Some(0), self.steps);
        }
        self.open.insert(number, Descriptor { node, path, position: 0 });
        Some(())
    }

    /// A name has changed, if the call is about names and the name is below the root.
    fn named(&mut self, call: &Call) -> Option<()> {
        match call {
            Call::Rename { from, to } => match (self.path(from), self.path(to)) {
                (Some(from), Some(to)) => self.shadow.rename(&from, &to, self.steps),
                (None, None) => Some(()),
                _ => None,
            },
            Call::Remove(place) => match self.path(place) {
                Some(path) => self.shadow.remove(&path, self.steps),
                None => Some(()),
            },
            Call::MakeDirectory(place) => match self.path(place) {
                Some(path) => self.shadow.make_directory(&path, self.steps).map(|_| ()),
                None => Some(()),
            },
            _ => Some(()),
        }
    }

    /// Relative to the root; none outside.
    fn path(&self, place: &Place) -> Option<PathBuf> {
        match place.below {
            Some(descriptor) => Some(self.open.get(&descriptor)?.path.join(&place.path)),
            None => place.path.strip_prefix(&self.root).ok().map(Path::to_owned),
        }
    }
}
