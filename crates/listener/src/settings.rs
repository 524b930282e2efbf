//! What the operator chooses about connections.

use postrider_base::{Period, Size};
use serde::{Deserialize, Serialize};

use crate::FeedbackSettings;

/// Bounds of sessions. All can be changed without a restart; sessions that are
/// open keep what they began with.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Most connections at the same time, over all submission listeners; one more gets
    /// `421 Too many concurrent SMTP connections`.
    pub max_connections: usize,
    /// Most connections at the same time from one address (IPv6: one /64 network); one more
    /// gets the same reply.
    pub max_connections_per_address: usize,
    /// Most connections at the same time from one /24 network (IPv6: /48).
    pub max_connections_per_network: usize,
    /// Most connections at the same time of clients that have not authenticated. For one
    /// more the one that is there for the longest time gives way, with 421.
    pub max_unauthenticated: usize,
    /// Most messages of one connection, announced as MAILMAX (RFC 9422); at one more MAIL,
    /// 421.
    pub max_messages: u32,
    /// Longest silence before the client has authenticated; then
    /// `451 Timeout waiting for data from client`.
    pub idle_before_auth: Period,
    /// Longest silence after that (RFC 5321 asks for 5 minutes).
    pub idle: Period,
    /// Time in which a client must have authenticated, however busy it is.
    pub auth_within: Period,
    /// Time for a TLS handshake, and for the header of the PROXY protocol.
    pub handshake: Period,
    /// Time for one command from its first octet to its last; then 451 as above.
    pub command_time: Period,
    /// Time for the content of one message, all its chunks (BDAT) together; then 451.
    pub message_time: Period,
    /// Slowest rate in octets a second at which content may come, on average; below it 451.
    /// 0 is any rate.
    pub min_data_rate: Size,
    /// How long content may come at any rate, before the average counts.
    pub data_grace: Period,
    /// Memory for the content of messages that are being received, over all connections. At
    /// the bound DATA and BDAT get `452 Insufficient system storage`.
    pub content_memory: Size,
    /// Wrong commands in a session since its last accepted message; then 421.
    pub max_errors: u32,
    /// Commands that do not help to send mail (NOOP, RSET, VRFY, HELP, EHLO) since the last
    /// accepted message; beyond it each counts as an error.
    pub max_idle_commands: u32,
    /// Failed authentications in a session; then 421.
    pub max_auth_failures: u32,
    /// Longest command line in bytes.
    pub max_line_bytes: usize,
    /// Puts enhanced status codes (RFC 2034) before the texts of all replies, and announces
    /// that. SES has none, and some clients compare texts.
    pub enhanced_status_codes: bool,
    /// What becomes of line feeds without carriage return in messages: `convert` makes
    /// line ends of them, `reject` refuses the message.
    pub bare_line_feeds: BareLineFeeds,
    /// What is otherwise at feedback listeners.
    pub feedback: FeedbackSettings,
}

/// What becomes of line feeds without carriage return.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum BareLineFeeds {
    /// They become CRLF.
    #[default]
    Convert,
    /// The message is refused with 554.
    Reject,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_connections: 10_000,
            max_connections_per_address: 1_000,
            max_connections_per_network: 2_000,
            max_unauthenticated: 2_000,
            max_messages: 10_000,
            idle_before_auth: Period::from_secs(10),
            idle: Period::from_mins(5),
            auth_within: Period::from_mins(2),
            handshake: Period::from_secs(10),
            command_time: Period::from_mins(1),
            message_time: Period::from_mins(30),
            min_data_rate: Size::from_bytes(512),
            data_grace: Period::from_secs(30),
            content_memory: Size::from_mib(512),
            max_errors: 20,
            max_idle_commands: 100,
            max_auth_failures: 3,
            max_line_bytes: 2048,
            enhanced_status_codes: false,
            bare_line_feeds: BareLineFeeds::Convert,
            feedback: FeedbackSettings::default(),
        }
    }
}

impl Settings {
    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        let counts = [
            ("max_connections", self.max_connections),
            ("max_connections_per_address", self.max_connections_per_address),
            ("max_connections_per_network", self.max_connections_per_network),
            ("max_unauthenticated", self.max_unauthenticated),
            ("max_messages", self.max_messages as usize),
            ("max_errors", self.max_errors as usize),
            ("max_auth_failures", self.max_auth_failures as usize),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(format!("{key}: must be at least 1"));
        }
        let periods = [
            ("idle_before_auth", self.idle_before_auth),
            ("idle", self.idle),
            ("auth_within", self.auth_within),
            ("handshake", self.handshake),
            ("command_time", self.command_time),
            ("message_time", self.message_time),
            ("data_grace", self.data_grace),
        ];
        if let Some((key, _)) = periods.iter().find(|(_, period)| period.is_zero()) {
            return Err(format!("{key}: must be longer than 0s"));
        }
        if self.content_memory < Size::from_mib(16) {
            return Err("content_memory: must be at least 16MiB".to_owned());
        }
        // RFC 5321 section 4.5.3.1.4, and room for the base64 of a password.
        if !(512..=65_536).contains(&self.max_line_bytes) {
            return Err("max_line_bytes: must be 512 to 65536".to_owned());
        }
        self.feedback.validate().map_err(|error| format!("feedback.{error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_refused_by_name() {
        assert_eq!(Settings::default().validate(), Ok(()));
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().unwrap_err()
        };
        assert!(with(|s| s.max_connections = 0).starts_with("max_connections:"));
        assert!(with(|s| s.idle = Period::from_secs(0)).starts_with("idle:"));
        assert!(with(|s| s.max_unauthenticated = 0).starts_with("max_unauthenticated:"));
        assert!(with(|s| s.max_messages = 0).starts_with("max_messages:"));
        assert!(with(|s| s.message_time = Period::from_secs(0)).starts_with("message_time:"));
        assert!(with(|s| s.content_memory = Size::from_mib(1)).starts_with("content_memory:"));
        assert!(with(|s| s.max_line_bytes = 10).starts_with("max_line_bytes:"));
        assert!(with(|s| s.feedback.max_connections = 0).starts_with("feedback.max_connections:"));
    }
}
