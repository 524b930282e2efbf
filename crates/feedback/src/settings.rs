//! What the operator chooses about what comes back.

use postrider_base::Size;
use postrider_mail::EmailAddress;
use serde::{Deserialize, Serialize};

/// What is taken at feedback listeners, and how much is made of it.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Addresses that were given to mailbox providers for their complaints (RFC 6449). Reports of
    /// one of our messages become Complaint events; everything else goes to
    /// `upkeep.operator_address`.
    pub complaint_addresses: Vec<EmailAddress>,
    /// Bytes at the front of a message that are read for a report. What is behind them, mostly
    /// the end of the message that came back, is not looked at.
    pub max_read_bytes: Size,
    /// Recipients of one report that are looked at; the others are counted.
    pub max_recipients: u16,
    /// Messages an hour that are passed on to one sender, and to the operator, besides the
    /// notices of bounces. Who sends more to the operator is told to come again later; of what
    /// is for senders the rest is not mailed, and its events are there all the same.
    pub passed_on_per_hour: u32,
    /// What was passed on to senders and is remembered, so that nothing is told twice; the
    /// oldest is forgotten first, and everything at a restart. About 150 bytes of memory each.
    pub max_remembered: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            complaint_addresses: Vec::new(),
            max_read_bytes: Size::from_mib(1),
            max_recipients: 1_000,
            passed_on_per_hour: 100,
            max_remembered: 100_000,
        }
    }
}

/// Less would cut reports off whose first part is long.
const MIN_READ: Size = Size::from_bytes(64 * 1024);
/// A report is read as a whole, in memory.
const MAX_READ: Size = Size::from_mib(64);
/// Fewer would be forgotten before the journal has them.
const MIN_REMEMBERED: u32 = 10_000;
/// Most addresses for complaints: each RCPT is compared with all of them.
const MAX_COMPLAINT_ADDRESSES: usize = 100;

impl Settings {
    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        let given = self.complaint_addresses.len();
        if given > MAX_COMPLAINT_ADDRESSES {
            return Err(format!("complaint_addresses: expected at most {MAX_COMPLAINT_ADDRESSES}, got {given}"));
        }
        if !(MIN_READ..=MAX_READ).contains(&self.max_read_bytes) {
            return Err(format!("max_read_bytes: expected {MIN_READ} to {MAX_READ}, got {}", self.max_read_bytes));
        }
        let at_least_one =
            [("max_recipients", u32::from(self.max_recipients)), ("passed_on_per_hour", self.passed_on_per_hour)];
        if self.max_remembered < MIN_REMEMBERED {
            return Err(format!("max_remembered: expected at least {MIN_REMEMBERED}, got {}", self.max_remembered));
        }
        match at_least_one.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(format!("{key}: must be at least 1")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_survive() {
        let settings = Settings::default();
        assert_eq!(settings.validate(), Ok(()));
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings);
        assert!(toml::from_str::<Settings>("complaint_address = []").is_err());
        assert!(toml::from_str::<Settings>("complaint_addresses = [\"nobody\"]").is_err());
    }

    #[test]
    fn bad_values_are_named() {
        let wrong = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().unwrap_err()
        };
        assert!(wrong(|s| s.max_read_bytes = Size::from_bytes(1)).starts_with("max_read_bytes: expected 64KiB"));
        assert!(wrong(|s| s.max_read_bytes = Size::from_mib(65)).starts_with("max_read_bytes:"));
        assert!(wrong(|s| s.max_recipients = 0).starts_with("max_recipients:"));
        assert!(wrong(|s| s.passed_on_per_hour = 0).starts_with("passed_on_per_hour:"));
        assert!(wrong(|s| s.max_remembered = 9_999).starts_with("max_remembered:"));
        let many = |s: &mut Settings| s.complaint_addresses = vec!["fbl@example.com".parse().unwrap(); 101];
        assert!(wrong(many).starts_with("complaint_addresses:"));
    }
}
