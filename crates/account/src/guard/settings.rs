//! What the operator chooses about wrong passwords.

use postrider_base::{Network, Period};
use serde::{Deserialize, Serialize};

/// Bans of addresses that guess passwords, and the delays of wrong answers.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BanSettings {
    /// Whether addresses are banned at all. Wrong passwords are delayed either way.
    pub enabled: bool,
    /// Different wrong passwords from one address (IPv6: one /64 network) within `window`
    /// that earn it a ban. The same wrong password again counts once: that is a client
    /// with an old configuration, not an attacker.
    pub failures: u32,
    /// How long a wrong password counts.
    pub window: Period,
    /// How long the first ban lasts; each further one lasts twice as long as the one before.
    pub duration: Period,
    /// The longest ban.
    pub max_duration: Period,
    /// Networks that are delayed and never banned, as are addresses that have
    /// authenticated in the last 30 days.
    pub exempt: Vec<Network>,
    /// The longest that the answer to a wrong password is held back. It begins with a
    /// quarter of a second and doubles with each one, by address and by user name.
    pub max_delay: Period,
    /// Addresses, and user names, that are remembered at the same time, about 200 bytes of
    /// memory each.
    pub max_entries: u32,
}

impl Default for BanSettings {
    fn default() -> BanSettings {
        BanSettings {
            enabled: true,
            failures: 10,
            window: Period::from_hours(1),
            duration: Period::from_mins(15),
            max_duration: Period::from_hours(24),
            exempt: Vec::new(),
            max_delay: Period::from_secs(5),
            max_entries: 100_000,
        }
    }
}

impl BanSettings {
    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        for (key, count) in [("failures", self.failures), ("max_entries", self.max_entries)] {
            if count == 0 {
                return Err(format!("{key}: must be at least 1"));
            }
        }
        for (key, period) in [("window", self.window), ("duration", self.duration)] {
            if period.is_zero() {
                return Err(format!("{key}: must be longer than 0s"));
            }
        }
        if self.max_duration < self.duration {
            return Err("max_duration: must be at least duration".to_owned());
        }
        // Longer, and clients give up before they learn that the password is wrong.
        if self.max_delay > Period::from_mins(1) {
            return Err("max_delay: must be at most 1m".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_refused_by_name() {
        assert_eq!(BanSettings::default().validate(), Ok(()));
        let with = |change: fn(&mut BanSettings)| {
            let mut settings = BanSettings::default();
            change(&mut settings);
            settings.validate().unwrap_err()
        };
        assert!(with(|s| s.failures = 0).starts_with("failures:"));
        assert!(with(|s| s.max_entries = 0).starts_with("max_entries:"));
        assert!(with(|s| s.window = Period::from_secs(0)).starts_with("window:"));
        assert!(with(|s| s.max_duration = Period::from_secs(1)).starts_with("max_duration:"));
        assert!(with(|s| s.max_delay = Period::from_hours(1)).starts_with("max_delay:"));
    }
}
