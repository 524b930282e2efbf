//! Bounds of account state.

use postrider_base::Size;
use serde::{Deserialize, Serialize};

use crate::{BanSettings, ReputationSettings};

/// Bounds of what accounts may keep.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The most SMTP credentials there may be. All of them are kept in memory,
    /// about 300 bytes each.
    pub max_credentials: u64,
    /// The most suppressed addresses there may be, of all accounts; and the most that the
    /// global list may have. Each takes about 2 bytes of memory and 50 bytes of disk. Beyond
    /// it, additions are refused.
    pub max_suppressed: u64,
    /// Whether addresses whose mailboxes servers said do not exist are kept from all accounts
    /// for 1, 2, 4, 8 and then 14 days. A house with one account gains nothing by it: its own
    /// list has them.
    pub global_suppression: bool,
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
    /// The most policies there may be, of all credentials and identities. All of them are kept
    /// in memory, about twice as long as their JSON.
    pub max_policies: u64,
    /// The most accounts there may be. All of them are kept in memory, about 400 bytes each.
    pub max_accounts: u64,
    /// Accounts whose use of their quota has metrics of its own, with the account's number for a
    /// label: the first that send. Of the others `postrider quota` tells.
    pub usage_metrics: u32,
    /// The longest that one file of the audit log becomes, 4 KiB at least.
    pub audit_file_size: Size,
    /// The most files of the audit log, the one that is written to among them; the oldest
    /// ones are removed. At least 2.
    pub audit_files: u32,
    /// Bans, which have a section of their own in the configuration.
    #[serde(skip)]
    pub bans: BanSettings,
    /// Rates of bounces and complaints, which have a section of their own too.
    #[serde(skip)]
    pub reputation: ReputationSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_credentials: 10_000,
            max_suppressed: 20_000_000,
            global_suppression: false,
            max_configuration_sets: 100_000,
            max_pools: 10_000,
            max_identities: 100_000,
            max_dkim_keys: 100_000,
            max_policies: 100_000,
            max_accounts: 100_000,
            usage_metrics: 100,
            audit_file_size: Size::from_mib(16),
            audit_files: 32,
            bans: BanSettings::default(),
            reputation: ReputationSettings::default(),
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
            ("max_policies", self.max_policies),
            ("max_accounts", self.max_accounts),
        ];
        if self.audit_file_size.bytes() < 4 << 10 {
            return Err("audit_file_size must be at least 4KiB".to_owned());
        }
        if self.audit_files < 2 {
            return Err("audit_files must be at least 2".to_owned());
        }
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
