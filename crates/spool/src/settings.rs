//! The spool's bounds.

use postrider_base::{Period, Size};
use serde::{Deserialize, Serialize};

/// Bounds of the spool. At a bound senders get a transient refusal; nothing
/// that was accepted is ever dropped for one.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Bytes of queued messages at which new ones are refused until some have
    /// left. The log may take up to twice as much on disk.
    pub max_bytes: Size,
    /// Queued messages at which new ones are refused until some have left.
    pub max_messages: u64,
    /// Free disk space below which new messages are refused, so that there
    /// is always room to record what became of the accepted ones.
    pub min_free_bytes: Size,
    /// Memory for the bodies of messages that were just accepted, so that
    /// their first delivery reads nothing from disk. Beyond it bodies are
    /// read back when they are delivered.
    pub body_memory: Size,
    /// How long an outcome may wait for company before it is synced alone:
    /// after a power cut, what was delivered within this time is delivered
    /// again.
    pub outcome_sync: Period,
    /// Age at which a message that is still queued moves from memory to the
    /// index on disk.
    pub index_after: Period,
    /// Messages that may be in memory alone, because they are younger than
    /// `index_after` or because the index is slow. At the bound the reply to
    /// the next message waits until some have left; after 10 seconds the
    /// message is refused.
    pub max_young: usize,
    /// Messages in memory alone above which the reply to the next one is delayed:
    /// the more of them there are the longer, up to a second just below
    /// `max_young`. So clients slow down to what is delivered before anything is
    /// refused. At or above `max_young`: no delay before that.
    pub young_high_water: usize,
    /// How long what is due may wait to be taken for delivery, in memory or in the
    /// index, before the reply to the next message is delayed: the longer it waits the
    /// longer, up to a second at ten times this. Mail for sites that are slow, paused or
    /// held does not count. Only accounts are slowed down that have mail waiting like that:
    /// they take turns, so that one that floods does not slow the others. Zero: no such delay.
    pub pace_after: Period,
    /// Waiting messages that each queue (account and recipient domain) keeps
    /// at hand in memory when it has messages due.
    pub ready_batch: usize,
    /// Changes that may wait for the index on disk before outcomes of
    /// deliveries are held back.
    pub index_backlog: usize,
    /// Size of one file of the log.
    pub segment_bytes: Size,
    /// Files of the log, 1 to 64, that are kept to be used again while mail comes and goes
    /// in a rush and there is space for at least 64 of them; to fill a new one costs as much as
    /// writing it. At rest all but two are given back within 20 seconds.
    pub most_spare_files: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_bytes: Size::from_bytes(20_000_000_000),
            max_messages: 2_000_000,
            min_free_bytes: Size::from_bytes(1_000_000_000),
            body_memory: Size::from_bytes(256_000_000),
            outcome_sync: Period::from_millis(100),
            index_after: Period::from_secs(2),
            max_young: 65_536,
            young_high_water: 49_152,
            pace_after: Period::from_mins(1),
            ready_batch: 64,
            index_backlog: 16_384,
            segment_bytes: Size::from_bytes(64 << 20),
            most_spare_files: 16,
        }
    }
}

impl Settings {
    /// Checks what types cannot; the error names the key.
    pub fn validate(&self) -> Result<(), String> {
        let least = |key: &str, ok: bool, what: &str| match ok {
            true => Ok(()),
            false => Err(format!("{key}: must be at least {what}")),
        };
        least("max_bytes", self.max_bytes.bytes() >= 1_000_000, "1MB")?;
        least("max_messages", self.max_messages >= 1, "1")?;
        least("max_young", self.max_young >= 1, "1")?;
        least("ready_batch", self.ready_batch >= 1, "1")?;
        least("index_backlog", self.index_backlog >= 1, "1")?;
        least("segment_bytes", self.segment_bytes.bytes() >= 1 << 20, "1MiB")?;
        if !(1..=64).contains(&self.most_spare_files) {
            return Err("most_spare_files: must be 1 to 64".into());
        }
        match self.outcome_sync.as_duration().as_secs() {
            0..=9 => Ok(()),
            _ => Err("outcome_sync: must be below 10s".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked_and_named() {
        assert_eq!(Settings::default().validate(), Ok(()));
        let bad = [
            ("max_bytes", Settings { max_bytes: Size::from_bytes(1), ..Settings::default() }),
            ("max_messages", Settings { max_messages: 0, ..Settings::default() }),
            ("max_young", Settings { max_young: 0, ..Settings::default() }),
            ("ready_batch", Settings { ready_batch: 0, ..Settings::default() }),
            ("index_backlog", Settings { index_backlog: 0, ..Settings::default() }),
            ("segment_bytes", Settings { segment_bytes: Size::from_kib(1), ..Settings::default() }),
            ("most_spare_files", Settings { most_spare_files: 0, ..Settings::default() }),
            ("most_spare_files", Settings { most_spare_files: 65, ..Settings::default() }),
            ("outcome_sync", Settings { outcome_sync: Period::from_secs(10), ..Settings::default() }),
        ];
        for (key, settings) in bad {
            assert!(settings.validate().unwrap_err().starts_with(key));
        }
    }
}
