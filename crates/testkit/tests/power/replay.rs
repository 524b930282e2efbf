//! A recording played step by step on a shadow of the disk, beside what the
//! program told meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider_testkit::spool_load::Line;

use crate::ledger::Ledger;
use crate::recording::{Call, Event, Place, Step};
use crate::shadow::{Change, Node, Shadow};

const STANDARD_OUTPUT: i32 = 1;

pub(crate) struct Replay {
    /// Whose files are followed.
    root: PathBuf,
    pub(crate) shadow: Shadow,
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

    fn end(&mut self, Running { began, call, node }: Running, result: i64) -> Option<()> {
        let at = self.steps;
        let succeeded = result >= 0;
        match call {
            Call::Write { descriptor, offset, .. } => {
                let Some(node) = node else { return Some(()) };
                let length = usize::try_from(result).ok();
                self.shadow.end(node, began, length, at);
                if let (None, Some(length), Some(open)) = (offset, length, self.open.get_mut(&descriptor)) {
                    open.position += length as u64;
                }
            }
            Call::Truncate { .. } | Call::Allocate { .. } | Call::Punch { .. } => {
                let Some(node) = node else { return Some(()) };
                self.shadow.end(node, began, succeeded.then_some(usize::MAX), at);
            }
            Call::Sync(_) if succeeded => {
                if let Some(node) = node {
                    self.shadow.sync(node, began);
                }
            }
            Call::Open { place, create, truncate } if succeeded => {
                let number = i32::try_from(result).ok()?;
                self.open.remove(&number);
                if let Some(path) = self.path(&place) {
                    let node = match self.shadow.find(&path) {
                        Some(node) => node,
                        None if create => self.shadow.create(&path, at)?,
                        None => return None,
                    };
                    if truncate {
                        self.shadow.begin(node, Change::Length(0), at);
                        self.shadow.end(node, at, Some(0), at);
                    }
                    self.open.insert(number, Descriptor { node, path, position: 0 });
                }
            }
            Call::Duplicate(descriptor) if succeeded => {
                let same = self.open.get(&descriptor).cloned();
                let number = i32::try_from(result).ok()?;
                same.map(|same| self.open.insert(number, same));
            }
            Call::Seek(descriptor) if succeeded => {
                if let Some(open) = self.open.get_mut(&descriptor) {
                    open.position = u64::try_from(result).ok()?;
                }
            }
            Call::Rename { from, to } if succeeded => {
                if let (Some(from), Some(to)) = (self.path(&from), self.path(&to)) {
                    self.shadow.rename(&from, &to, at)?;
                }
            }
            Call::Remove(place) if succeeded => {
                if let Some(path) = self.path(&place) {
                    self.shadow.remove(&path, at)?;
                }
            }
            Call::MakeDirectory(place) if succeeded => {
                if let Some(path) = self.path(&place) {
                    self.shadow.make_directory(&path, at)?;
                }
            }
            _ => {}
        }
        Some(())
    }

    /// Relative to the root; none outside.
    fn path(&self, place: &Place) -> Option<PathBuf> {
        match place.below {
            Some(descriptor) => Some(self.open.get(&descriptor)?.path.join(&place.path)),
            None => place.path.strip_prefix(&self.root).ok().map(Path::to_owned),
        }
    }
}
