//! What a simulated disk was told to refuse, and when.

use std::collections::HashMap;
use std::io;

use rustix::io::Errno;

/// What a [`SimDisk`](super::SimDisk) is asked to do, as far as it can be
/// told to fail at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reading bytes of a file.
    Read,
    /// Writing bytes of a file, or taking space for them. The first half of
    /// the bytes arrives.
    Write,
    /// Syncing a file or a directory. What it should have made durable stays
    /// readable; a file's bytes will never be durable, as on Linux.
    Sync,
    /// Syncing a directory.
    SyncDirectory,
    /// Making a file.
    Create,
    /// Giving a file another name.
    Rename,
    /// Taking a file's name away.
    Remove,
}

/// Why it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `EIO`: the device did not answer, or a sector cannot be read.
    InputOutput,
    /// `ENOSPC`: no block is left, also where space was thought to be taken.
    NoSpace,
    /// `EROFS`: the file system was mounted read-only after an error.
    ReadOnly,
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        let errno = match self {
            Self::InputOutput => Errno::IO,
            Self::NoSpace => Errno::NOSPC,
            Self::ReadOnly => Errno::ROFS,
        };
        errno.into()
    }
}

/// Failures to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: HashMap<Operation, (u64, Fault)>,
    /// Nothing can be changed any more.
    pub(super) read_only: bool,
}

impl Faults {
    /// The `nth` from now, 1 being the next.
    pub(super) fn plan(&mut self, operation: Operation, nth: u64, fault: Fault) {
        self.planned.insert(operation, (nth.max(1), fault));
    }

    /// Counts one operation towards a planned failure.
    pub(super) fn fire(&mut self, operation: Operation) -> io::Result<()> {
        let Some((left, fault)) = self.planned.get_mut(&operation) else { return Ok(()) };
        *left -= 1;
        match *left {
            0 => {
                let error = fault.error();
                self.planned.remove(&operation);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// As [`Faults::fire`], for what changes something.
    pub(super) fn change(&mut self, operation: Operation) -> io::Result<()> {
        match self.read_only {
            true => Err(Fault::ReadOnly.error()),
            false => self.fire(operation),
        }
    }
}
