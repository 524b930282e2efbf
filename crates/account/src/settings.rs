//! Bounds of account state.

use serde::{Deserialize, Serialize};

use crate::BanSettings;

/// Bounds of what accounts may keep.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The most SMTP credentials there may be. All of them are kept in memory,
    /// about 300 bytes each.
    pub max_credentials: u64,
    /// The most suppressed addresses there may be. Each takes about 16 bytes of memory
    /// and 100 bytes of disk. Beyond it, additions are refused.
    pub max_suppressed: u64,
    /// The most configuration sets there may be, of all accounts. All of them are kept in
    /// memory, about 300 bytes each; so are pools and identities.
    pub max_configuration_sets: u64,
    /// The most pools of dedicated addresses there may be.
    pub max_pools: u64,
    /// The most identities there may be.
    pub max_identities: u64,
    /// The most DKIM keys there may be, of all accounts: a domain has three, and three more
    /// where it signs twice. All of them are kept in memory, about 3 KB each.
    pub max_dkim_keys: u64,
    /// Bans, which have a section of their own in the configuration.
    #[serde(skip)]
    pub bans: BanSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_credentials: 10_000,
            max_suppressed: 20_000_000,
            max_configuration_sets: 100_000,
            max_pools: 10_000,
            max_identities: 100_000,
            max_dkim_keys: 100_000,
            bans: BanSettings::default(),
        }
    }
}

impl Settings {
    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        let bounds = [
            ("max_credentials", self.max_credentials),
            ("max_suppressed", self.max_suppressed),
            ("max_configuration_sets", self.max_configuration_sets),
            ("max_pools", self.max_pools),
            ("max_identities", self.max_identities),
            ("max_dkim_keys", self.max_dkim_keys),
        ];
        match bounds.iter().find(|(_, bound)| *bound == 0) {
            Some((key, _)) => Err(format!("{key} must be at least 1")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_bounds_are_refused_by_name() {
        assert_eq!(Settings::default().validate(), Ok(()));
        let none = Settings { max_suppressed: 0, ..Settings::default() };
        assert!(none.validate().unwrap_err().contains("max_suppressed"));
        let none = Settings { max_credentials: 0, ..Settings::default() };
        assert!(none.validate().unwrap_err().contains("max_credentials"));
    }
}
