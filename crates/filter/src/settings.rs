//! What the operator chooses about programs that judge messages.

use postrider_base::Period;
use serde::{Deserialize, Serialize};

use crate::Socket;

/// The virus scan before the first attempt to deliver a message.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ScanSettings {
    /// Where `clamd` listens: `unix:/PATH` or `tcp:IP:PORT`. Without it nothing is scanned.
    pub clamd: Option<Socket>,
    /// Whether mail leaves unscanned while the scanner gives no verdict. Else it waits.
    pub scan_fail_open: bool,
    /// Longest time for the scan of one message.
    pub timeout: Period,
    /// Most messages that are scanned at the same time, each over a connection of its own and
    /// with its content in memory.
    pub connections: usize,
    /// How long a message waits that got no verdict (twice as long each further time, an hour at
    /// most), and how often a scanner that does not
    /// answer is asked whether it does again.
    pub retry: Period,
}

impl Default for ScanSettings {
    fn default() -> Self {
        Self {
            clamd: None,
            scan_fail_open: false,
            timeout: Period::from_mins(2),
            connections: 8,
            retry: Period::from_secs(10),
        }
    }
}

impl ScanSettings {
    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.connections == 0 || self.connections > MAX_CONNECTIONS {
            return Err(format!("connections: expected 1 to {MAX_CONNECTIONS}, got {}", self.connections));
        }
        at_least_a_second("timeout", self.timeout)?;
        at_least_a_second("retry", self.retry)
    }
}

/// One of the operator's own filters, asked at the end of DATA.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MilterSettings {
    /// Where it listens: `unix:/PATH` or `tcp:IP:PORT`.
    pub socket: Socket,
    /// Longest time for one message, all of the filter's replies together.
    #[serde(default = "default_timeout")]
    pub timeout: Period,
    /// What becomes of messages while the filter gives no verdict.
    #[serde(default)]
    pub when_down: WhenDown,
    /// What becomes of changes to anything but the header: recipients, sender and body stay
    /// what was submitted.
    #[serde(default)]
    pub other_changes: OtherChanges,
}

/// What becomes of messages while a filter gives no verdict.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// Clients are told to come again later.
    #[default]
    Tempfail,
    /// They are taken as if there were no such filter.
    Accept,
}

/// What becomes of changes that are not supported.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OtherChanges {
    /// They are not offered, and a filter that makes or demands them counts as down.
    #[default]
    Refuse,
    /// They are offered, counted, and not made.
    Ignore,
}

impl MilterSettings {
    /// A filter with the defaults.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        let (when_down, other_changes) = (WhenDown::default(), OtherChanges::default());
        Self { socket, timeout: default_timeout(), when_down, other_changes }
    }

    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        at_least_a_second("timeout", self.timeout)
    }
}

fn default_timeout() -> Period {
    Period::from_secs(30)
}

/// What is more is a mistake: `clamd` has ten threads unless it is told otherwise.
const MAX_CONNECTIONS: usize = 1_000;

fn at_least_a_second(key: &str, period: Period) -> Result<(), String> {
    match period < Period::from_secs(1) {
        true => Err(format!("{key}: expected at least 1s, got {period}")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(ScanSettings::default().validate(), Ok(()));
        let filter: MilterSettings = serde_json::from_str(r#"{"socket": "unix:/run/filter"}"#).unwrap();
        assert_eq!(filter, MilterSettings::new("unix:/run/filter".parse().unwrap()));
        assert_eq!(filter.validate(), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let none = ScanSettings { connections: 0, ..ScanSettings::default() };
        assert!(none.validate().unwrap_err().starts_with("connections: "));
        let hasty = ScanSettings { retry: Period::from_millis(5), ..ScanSettings::default() };
        assert!(hasty.validate().unwrap_err().starts_with("retry: "));
        let error = serde_json::from_str::<MilterSettings>(r#"{"socket": "x"}"#).unwrap_err().to_string();
        assert!(error.contains("unix:/PATH"), "{error}");
    }
}
