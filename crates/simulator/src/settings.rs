//! Bounds of an inbox.

use postrider_base::{Period, Size};
use serde::{Deserialize, Serialize};

/// How much an inbox keeps and how many it serves at a time.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Messages kept; the oldest go first.
    pub max_messages: u32,
    /// Bytes of content kept over all messages; the oldest go first.
    pub max_bytes: Size,
    /// Bytes of one message; a larger one is refused.
    pub max_message_bytes: Size,
    /// Sessions at a time; one more is answered 421.
    pub max_connections: u32,
    /// How long a client may be silent.
    pub idle_timeout: Period,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_messages: 100,
            max_bytes: Size::from_mib(64),
            max_message_bytes: Size::from_mib(16),
            max_connections: 100,
            idle_timeout: Period::from_mins(5),
        }
    }
}

impl Settings {
    /// Checks what the types can not say.
    ///
    /// # Errors
    /// Names the key and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        let checks = [
            (self.max_messages > 0, "max_messages: must be at least 1"),
            (self.max_connections > 0, "max_connections: must be at least 1"),
            (!self.idle_timeout.is_zero(), "idle_timeout: must be more than 0s"),
            (self.max_message_bytes <= self.max_bytes, "max_message_bytes: must not be more than max_bytes"),
        ];
        match checks.into_iter().find(|(right, _)| !right) {
            Some((_, what)) => Err(what.to_owned()),
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
        assert!(toml::from_str::<Settings>("max_mesages = 1").is_err());
    }

    #[test]
    fn bad_values_are_named() {
        let none = Settings { max_messages: 0, ..Settings::default() };
        assert!(none.validate().unwrap_err().starts_with("max_messages:"));
        let large = Settings { max_bytes: Size::from_mib(1), ..Settings::default() };
        assert!(large.validate().unwrap_err().starts_with("max_message_bytes:"));
    }
}
