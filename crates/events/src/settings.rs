//! The journal's bounds.

use std::path::PathBuf;

use postrider_base::{Period, Size};
use serde::{Deserialize, Serialize};

/// How much of the past the journal keeps, and where the mail log goes.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long events are kept. A message can be looked up for as long.
    pub retention: Period,
    /// Bytes on disk at which the oldest events go before their time.
    pub max_bytes: Size,
    /// Size of one file of the journal. Events go a file at a time.
    pub segment_bytes: Size,
    /// How often a recipient that stays deferred for the same reason is
    /// reported again.
    pub delay_interval: Period,
    /// Whether Delivery, DeliveryDelay and Bounce events have a member
    /// `postrider` with the record of the attempt: hosts, TLS, what was said. SES
    /// has none, and some readers of events refuse what they do not know.
    pub attempt_records: bool,
    /// Memory for what events say of messages that are under way: 1 to 2 KiB
    /// each, with the header fields that go into events. It is all that grows
    /// with the queue here: beyond it messages are read back from the journal
    /// when something happens to them. What allocators waste comes on top,
    /// about a fifth.
    pub message_memory: Size,
    /// File that gets the mail log, one line for each acceptance and attempt.
    /// Without one the lines go where the other log lines go, with the target
    /// `mail`.
    pub mail_log: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retention: Period::from_days(30),
            max_bytes: Size::from_bytes(20_000_000_000),
            segment_bytes: Size::from_mib(64),
            delay_interval: Period::from_hours(4),
            attempt_records: false,
            message_memory: Size::from_mib(64),
            mail_log: None,
        }
    }
}

impl Settings {
    /// Checks what the types can not; the error names the key.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn validate(&self) -> std::result::Result<(), String> {
        let segment = self.segment_bytes.bytes();
        if !(1 << 20..=1 << 30).contains(&segment) {
            return Err("segment_bytes: must be between 1MiB and 1GiB".into());
        }
        if self.max_bytes.bytes() < segment.saturating_mul(4) {
            return Err("max_bytes: must be at least four times segment_bytes".into());
        }
        if self.retention < Period::from_hours(1) {
            return Err("retention: must be at least 1h".into());
        }
        if self.delay_interval < Period::from_mins(1) {
            return Err("delay_interval: must be at least 1m".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_bad_values_are_named() {
        assert_eq!(Settings::default().validate(), Ok(()));
        type Spoil = fn(&mut Settings);
        let cases: [(&str, Spoil); 4] = [
            ("segment_bytes", |s| s.segment_bytes = Size::from_kib(4)),
            ("max_bytes", |s| s.max_bytes = Size::from_mib(100)),
            ("retention", |s| s.retention = Period::from_secs(1)),
            ("delay_interval", |s| s.delay_interval = Period::from_secs(1)),
        ];
        for (key, spoil) in cases {
            let mut settings = Settings::default();
            spoil(&mut settings);
            let error = settings.validate().unwrap_err();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
