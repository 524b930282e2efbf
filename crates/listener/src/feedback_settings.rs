//! What the operator chooses about connections that bring feedback.

use postrider_base::{Period, Size};
use serde::{Deserialize, Serialize};

use crate::Settings;

/// Bounds of sessions at feedback listeners, where anybody may come. They are apart from those
/// of submission, so that no crowd there takes the places of those who submit mail. What is not
/// here holds as at all other listeners.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct FeedbackSettings {
    /// Most connections at the same time. For one more the oldest of those that have not named
    /// a return path of ours gives way; where there is none, it gets 421.
    pub max_connections: usize,
    /// Most connections at the same time from one address (IPv6: one /64 network).
    pub max_connections_per_address: usize,
    /// Most connections at the same time from one /24 network (IPv6: /48).
    pub max_connections_per_network: usize,
    /// Most messages of one connection; at one more, 421.
    pub max_messages: u32,
    /// Most recipients of one message; one more gets 452, so that its server comes again with
    /// the rest. RFC 5321 section 4.5.3.1.8 asks for 100.
    pub max_recipients: u32,
    /// Recipients that mail is not taken for in one connection; then 421.
    pub max_unknown_recipients: u32,
    /// Longest message. It should have room for the longest that is submitted, which may come
    /// back whole, and for what is said of it.
    pub max_message_bytes: Size,
    /// Longest silence (RFC 5321 section 4.5.3.2.7 asks for 5 minutes).
    pub idle: Period,
    /// Time in which a client must have named a return path of ours, however busy it is. Who
    /// has only mail for the operator or complaints must have brought it by then.
    pub recipient_within: Period,
    /// Longest session: when it is over no further command is taken, and the content of a
    /// message that is on its way is the last; then 421.
    pub session_time: Period,
    /// Memory for the content of messages that are being received, over all connections. At
    /// the bound DATA and BDAT get 452.
    pub content_memory: Size,
    /// Wrong commands in a session since its last accepted message; then 421.
    pub max_errors: u32,
}

impl Default for FeedbackSettings {
    fn default() -> FeedbackSettings {
        FeedbackSettings {
            max_connections: 500,
            max_connections_per_address: 20,
            max_connections_per_network: 50,
            max_messages: 100,
            max_recipients: 100,
            max_unknown_recipients: 20,
            max_message_bytes: Size::from_mib(16),
            idle: Period::from_mins(5),
            recipient_within: Period::from_mins(5),
            session_time: Period::from_mins(30),
            content_memory: Size::from_mib(128),
            max_errors: 10,
        }
    }
}

impl FeedbackSettings {
    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        let counts = [
            ("max_connections", self.max_connections),
            ("max_connections_per_address", self.max_connections_per_address),
            ("max_connections_per_network", self.max_connections_per_network),
            ("max_messages", self.max_messages as usize),
            ("max_recipients", self.max_recipients as usize),
            ("max_unknown_recipients", self.max_unknown_recipients as usize),
            ("max_errors", self.max_errors as usize),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(format!("{key}: must be at least 1"));
        }
        let periods =
            [("idle", self.idle), ("recipient_within", self.recipient_within), ("session_time", self.session_time)];
        if let Some((key, _)) = periods.iter().find(|(_, period)| period.is_zero()) {
            return Err(format!("{key}: must be longer than 0s"));
        }
        if self.max_message_bytes < Size::from_bytes(65_536) {
            // RFC 5321 section 4.5.3.1.7
            return Err("max_message_bytes: must be at least 64KiB".to_owned());
        }
        if self.content_memory < self.max_message_bytes {
            return Err("content_memory: must have room for one message of max_message_bytes".to_owned());
        }
        Ok(())
    }

    /// The bounds of a feedback session, by those that hold everywhere.
    pub(crate) fn within(&self, everywhere: &Settings) -> Settings {
        Settings {
            max_connections: self.max_connections,
            max_connections_per_address: self.max_connections_per_address,
            max_connections_per_network: self.max_connections_per_network,
            // All are strangers here until they name a return path: there is no place apart for them.
            max_unauthenticated: usize::MAX,
            max_messages: self.max_messages,
            idle_before_auth: self.idle,
            idle: self.idle,
            auth_within: self.recipient_within,
            content_memory: self.content_memory,
            max_errors: self.max_errors,
            // No program compares the texts of a mail exchanger with SES's.
            enhanced_status_codes: true,
            ..everywhere.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_refused_by_name() {
        assert_eq!(FeedbackSettings::default().validate(), Ok(()));
        let with = |change: fn(&mut FeedbackSettings)| {
            let mut settings = FeedbackSettings::default();
            change(&mut settings);
            settings.validate().unwrap_err()
        };
        assert!(with(|s| s.max_unknown_recipients = 0).starts_with("max_unknown_recipients:"));
        assert!(with(|s| s.recipient_within = Period::from_secs(0)).starts_with("recipient_within:"));
        assert!(with(|s| s.session_time = Period::from_secs(0)).starts_with("session_time:"));
        assert!(with(|s| s.max_message_bytes = Size::from_bytes(1)).starts_with("max_message_bytes:"));
        assert!(with(|s| s.content_memory = Size::from_mib(1)).starts_with("content_memory:"));
    }
}
