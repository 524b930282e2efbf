//! The bytes of a simulated file: what is read, what is durable, and the
//! changes between the two.

use std::sync::Arc;

use parking_lot::Mutex;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Not yet synced, oldest first.
    pub(super) changes: Vec<Change>,
}

#[derive(Debug)]
pub(super) enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// What a crash does to one unsynced change.
pub(super) enum Fate {
    Keep,
    Drop,
    /// Sector `n` survives when bit `n % 64` is set.
    Tear(u64),
}

impl Content {
    pub(super) fn stored(bytes: Vec<u8>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { seen: bytes.clone(), durable: bytes, changes: Vec::new() }))
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.changes.push(change);
    }

    pub(super) fn after_crash(&mut self, fate: &mut dyn FnMut() -> Fate) -> Vec<u8> {
        for change in self.changes.drain(..) {
            match (fate(), change) {
                (Fate::Keep, change) | (Fate::Tear(_), change @ Change::SetLen(_)) => {
                    change.apply(&mut self.durable);
                }
                (Fate::Drop, _) => {}
                (Fate::Tear(survivors), Change::Write(offset, bytes)) => {
                    tear(&mut self.durable, offset, &bytes, survivors);
                }
            }
        }
        self.durable.clone()
    }
}

fn tear(into: &mut Vec<u8>, offset: usize, bytes: &[u8], survivors: u64) {
    let mut from = 0;
    while from < bytes.len() {
        let sector = (offset + from) / SECTOR;
        let to = ((sector + 1) * SECTOR - offset).min(bytes.len());
        if survivors >> (sector % 64) & 1 == 1 {
            write(into, offset + from, &bytes[from..to]);
        }
        from = to;
    }
}

impl Change {
    pub(super) fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => write(to, *offset, bytes),
            Self::SetLen(length) => to.resize(*length, 0),
        }
    }
}

fn write(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    into[offset..end].copy_from_slice(bytes);
}
