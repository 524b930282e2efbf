//! What the operator chooses about DKIM.

use std::path::PathBuf;
use std::thread::available_parallelism;

use postrider_base::Period;
use serde::{Deserialize, Serialize};

/// Signing, and the keys for it.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct DkimSettings {
    /// The file that private keys are sealed by in the store: 64 hexadecimal digits, made at
    /// the first start. Without it, `dkim-sealing.key` among systemd's credentials where it
    /// is one, else `keys/dkim-sealing.key` in the state directory. Back it up apart from the
    /// store: without it, all DKIM keys are lost.
    pub sealing_key_file: Option<PathBuf>,
    /// Add a second signature, of the operator's domain, to all mail, as SES does. It needs
    /// an identity and a key of that domain in the operator's own account.
    pub operator_signature: bool,
    /// Threads that sign; 0 for as many as there are processors.
    pub threads: u32,
    /// Most messages that wait for those threads; the sessions of more are held up.
    pub queue: u32,
    /// Most private keys that are kept open in memory, about 10 KB each.
    pub max_open_keys: u32,
    /// How long a managed key signs before the next one takes its place, if its record has
    /// been seen in the DNS. With `0s` keys are changed by hand alone.
    pub rotation: Period,
    /// How often the records of all keys are looked at in the DNS.
    pub check_interval: Period,
}

impl Default for DkimSettings {
    fn default() -> Self {
        Self {
            sealing_key_file: None,
            operator_signature: false,
            threads: 0,
            queue: 1_000,
            max_open_keys: 10_000,
            rotation: Period::from_days(90),
            check_interval: Period::from_mins(15),
        }
    }
}

impl DkimSettings {
    /// The number of threads in effect.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => available_parallelism().map_or(1, usize::from),
            threads => threads as usize,
        }
    }

    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.threads > 1_024 {
            return Err("threads: must be at most 1024".to_owned());
        }
        for (key, number) in [("queue", self.queue), ("max_open_keys", self.max_open_keys)] {
            if !(1..=1_000_000).contains(&number) {
                return Err(format!("{key}: must be between 1 and 1000000"));
            }
        }
        let rotation = self.rotation.as_duration();
        if !rotation.is_zero() && rotation < Period::from_days(1).as_duration() {
            // The records of a key in use are in caches.
            return Err("rotation: must be at least 1d, or 0s".to_owned());
        }
        if self.check_interval.as_duration() < Period::from_secs(10).as_duration() {
            return Err("check_interval: must be at least 10s".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_refused_by_name() {
        assert_eq!(DkimSettings::default().validate(), Ok(()));
        assert!(DkimSettings::default().threads() >= 1);
        let with = |change: fn(&mut DkimSettings)| {
            let mut settings = DkimSettings::default();
            change(&mut settings);
            settings.validate().unwrap_err()
        };
        assert!(with(|s| s.threads = 1_025).starts_with("threads"));
        assert!(with(|s| s.queue = 0).starts_with("queue"));
        assert!(with(|s| s.max_open_keys = 1_000_001).starts_with("max_open_keys"));
        assert!(with(|s| s.rotation = Period::from_hours(23)).starts_with("rotation"));
        assert!(with(|s| s.check_interval = Period::from_secs(0)).starts_with("check_interval"));
    }
}
