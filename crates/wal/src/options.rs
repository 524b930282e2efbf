//! What an owner can choose.

use std::time::Duration;

use postrider_base::{Clock, Random};

use crate::Error;

/// How a log is laid out and driven. The defaults suit a busy queue; small
/// tables take smaller segments.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of a segment's file, 16 KiB to 1 GiB; 64 MiB by default. A batch
    /// is smaller than a segment. May change between two runs.
    pub segment_bytes: u64,
    /// Segments kept ready beside the one being written, 0 to 64; 2 by
    /// default. While they can not be made, [`crate::Log::is_full`] says so
    /// and what is left of them is for outcomes and reclaim.
    pub spare_segments: usize,
    /// The most files of retired segments that are kept to be used again while
    /// the log is in a rush and space is plenty (64 segments), 1 to 64; 16 by default. At rest all
    /// but [`spare_segments`](Self::spare_segments) of them are given back within
    /// 20 seconds; a new file that was not filled to its end may stay beside them.
    pub most_spare_files: usize,
    /// Use the files of retired segments again, and fill new ones with zeros
    /// first: a write over written blocks syncs faster. On by default. Off,
    /// the space of a new file is only reserved, and a retired one is removed.
    pub recycle: bool,
    /// Number of the first segment of a new log; 1 by default.
    pub first_segment: u64,
    /// The most bytes of one write; 4 MiB by default. A larger batch is
    /// written alone.
    pub max_group_bytes: usize,
    /// The most vectors of one write, 1 to 1,000; 1,000 by default.
    pub max_group_vectors: usize,
    /// The most bytes that wait to be written before [`Error::Full`]; 256 MiB
    /// by default.
    pub max_waiting_bytes: usize,
    /// The longest that a [`Buffered`](crate::Durability::Buffered) batch
    /// stays unsynced; 100 ms by default.
    pub buffered_sync: Duration,
    /// Wait for more batches before writing a group: at most three tenths of the
    /// recent time of a sync and 1 ms, and only for as many that are to be synced
    /// as the last sync was for. On by default: it saves syncs, and where a sync is
    /// quick it is hardly a wait.
    pub adaptive_wait: bool,
    /// The most bytes of recent heads kept in memory for
    /// [`read_from`](crate::Log::read_from); 8 MiB by default. The memory that
    /// they take may be up to twice that.
    pub recent_bytes: usize,
    /// Start although segments are missing or unreadable, and report what is
    /// lost. Off by default: an operator says so once.
    pub accept_loss: bool,
    /// Who runs the log.
    pub driver: Driver,
    /// Time, for [`buffered_sync`](Self::buffered_sync) and the wait.
    pub clock: Clock,
    /// Salts of segments.
    pub random: Random,
}

/// Who writes and syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Two threads of the log's own: one commits, one makes segments.
    Thread,
    /// One task of the current tokio runtime, for simulation in paused time
    /// over a disk that never blocks.
    Task,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            spare_segments: 2,
            most_spare_files: 16,
            recycle: true,
            first_segment: 1,
            max_group_bytes: 4 << 20,
            max_group_vectors: 1000,
            max_waiting_bytes: 256 << 20,
            buffered_sync: Duration::from_millis(100),
            adaptive_wait: true,
            recent_bytes: 8 << 20,
            accept_loss: false,
            driver: Driver::Thread,
            clock: Clock::system(),
            random: Random::system(),
        }
    }
}

impl Options {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if !(16 << 10..=1 << 30).contains(&self.segment_bytes) {
            return Err(Error::Option("segment_bytes is 16 KiB to 1 GiB"));
        }
        if self.spare_segments > 64 {
            return Err(Error::Option("spare_segments is 0 to 64"));
        }
        if !(1..=64).contains(&self.most_spare_files) {
            return Err(Error::Option("most_spare_files is 1 to 64"));
        }
        if !(1..=1000).contains(&self.max_group_vectors) {
            return Err(Error::Option("max_group_vectors is 1 to 1,000"));
        }
        Ok(())
    }
}
