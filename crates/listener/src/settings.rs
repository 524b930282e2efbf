//! What the operator chooses about connections.

use std::collections::HashSet;
use std::path::PathBuf;

use postrider_base::Period;
use serde::{Deserialize, Serialize};

use crate::ListenAddress;

/// One listener.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port. `*` stands for every address of this machine.
    pub address: ListenAddress,
    /// How TLS comes to the connection.
    #[serde(default)]
    pub tls: ListenTls,
    /// Whom it is for.
    #[serde(default)]
    pub role: ListenRole,
}

/// How TLS comes to a connection.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ListenTls {
    /// The client upgrades with STARTTLS (RFC 3207); before that it can do nothing else.
    #[serde(rename = "starttls")]
    #[default]
    StartTls,
    /// The connection begins with TLS (RFC 8314 section 3).
    TlsWrapper,
}

/// Whom a listener is for.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ListenRole {
    /// Authenticated clients that submit mail.
    #[default]
    Submission,
    /// Other mail servers that bring bounces and complaints. Not available yet.
    Feedback,
}

impl Listen {
    /// SES's ports: 25, 587 and 2587 with STARTTLS, 465 and 2465 with TLS from the start.
    #[must_use]
    pub fn defaults() -> Vec<Listen> {
        let on = |port, tls| Listen { address: ListenAddress::All(port), tls, role: ListenRole::Submission };
        vec![
            on(25, ListenTls::StartTls),
            on(587, ListenTls::StartTls),
            on(2587, ListenTls::StartTls),
            on(465, ListenTls::TlsWrapper),
            on(2465, ListenTls::TlsWrapper),
        ]
    }

    /// Checks what the types can not, of a whole list.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(list: &[Listen]) -> Result<(), String> {
        if list.is_empty() {
            return Err("at least one listener is needed".to_owned());
        }
        let mut seen = HashSet::new();
        for Listen { address, role, .. } in list {
            if *role == ListenRole::Feedback {
                return Err(format!("role: \"feedback\" (at {address}) is not available yet, only \"submission\" is"));
            }
            let any_port = matches!(address, ListenAddress::One(one) if one.port() == 0);
            if !any_port && !seen.insert(*address) {
                return Err(format!("address: {address} is listened on twice"));
            }
        }
        Ok(())
    }
}

/// Bounds of sessions. All can be changed without a restart; sessions that are
/// open keep what they began with.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Most connections at the same time, over all listeners; one more gets
    /// `421 Too many concurrent SMTP connections`.
    pub max_connections: usize,
    /// Most connections at the same time from one address (IPv6: one /64 network).
    pub max_connections_per_address: usize,
    /// Longest silence before the client has authenticated; then
    /// `451 Timeout waiting for data from client`.
    pub idle_before_auth: Period,
    /// Longest silence after that (RFC 5321 asks for 5 minutes).
    pub idle: Period,
    /// Time in which a client must have authenticated, however busy it is.
    pub auth_within: Period,
    /// Time for a TLS handshake.
    pub handshake: Period,
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
            idle_before_auth: Period::from_secs(10),
            idle: Period::from_mins(5),
            auth_within: Period::from_mins(2),
            handshake: Period::from_secs(10),
            max_errors: 20,
            max_idle_commands: 100,
            max_auth_failures: 3,
            max_line_bytes: 2048,
            enhanced_status_codes: false,
            bare_line_feeds: BareLineFeeds::Convert,
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
        ];
        if let Some((key, _)) = periods.iter().find(|(_, period)| period.is_zero()) {
            return Err(format!("{key}: must be longer than 0s"));
        }
        // RFC 5321 section 4.5.3.1.4, and room for the base64 of a password.
        if !(512..=65_536).contains(&self.max_line_bytes) {
            return Err("max_line_bytes: must be 512 to 65536".to_owned());
        }
        Ok(())
    }
}

/// The certificate that clients see. Both files are read again when they
/// change and on reload. Without them a self-signed certificate is made once
/// and kept; clients that verify certificates do not accept it unasked.
#[derive(Deserialize, Serialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// PEM file with the server's certificate, then those of its issuers.
    pub certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key, without pass phrase.
    pub key: Option<PathBuf>,
}

impl TlsSettings {
    /// Checks what the types can not; it does not read the files.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => Err("key: is needed beside certificate".to_owned()),
            (None, Some(_)) => Err("certificate: is needed beside key".to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(toml: &str) -> Result<Vec<Listen>, String> {
        #[derive(Deserialize)]
        struct File {
            listener: Vec<Listen>,
        }
        let file: File = toml::from_str(toml).map_err(|error| error.to_string())?;
        Listen::validate(&file.listener).map(|()| file.listener)
    }

    #[test]
    fn listeners_are_read() {
        let list = listen(
            "[[listener]]\naddress = \"0.0.0.0:587\"\ntls = \"starttls\"\nrole = \"submission\"\n\
             [[listener]]\naddress = \"*:465\"\ntls = \"tls-wrapper\"\n",
        )
        .unwrap();
        assert_eq!((list[0].tls, list[1].tls), (ListenTls::StartTls, ListenTls::TlsWrapper));
        assert_eq!(list[1].address, ListenAddress::All(465));
        Listen::validate(&Listen::defaults()).unwrap();
        let text = serde_json::to_string(&Listen::defaults()).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Listen>>(&text).unwrap(), Listen::defaults());
    }

    #[test]
    fn wrong_listeners_are_refused_by_name() {
        let with = |rest: &str| listen(&format!("[[listener]]\naddress = \"*:25\"\n{rest}")).unwrap_err();
        assert!(with("role = \"feedback\"").starts_with("role: \"feedback\" (at *:25) is not available yet"));
        assert!(with("tls = \"none\"").contains("starttls"));
        assert!(with("colour = \"red\"").contains("colour"));
        assert!(with("[[listener]]\naddress = \"*:25\"").contains("*:25 is listened on twice"));
        assert!(listen("listener = []").unwrap_err().contains("at least one"));
    }

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
        assert!(with(|s| s.max_line_bytes = 10).starts_with("max_line_bytes:"));
        let half = TlsSettings { certificate: Some("c.pem".into()), key: None };
        assert!(half.validate().unwrap_err().starts_with("key:"));
        assert_eq!(TlsSettings::default().validate(), Ok(()));
    }
}
