//! Hosts that take mail for any domain, and want to know whom from.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::route::is_short_name;
use crate::settings::is_host_name;

/// A host that other domains' mail is handed to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Smarthost {
    /// Host name or address. A name's A and AAAA records are dialled, never
    /// its MX records.
    pub host: String,
    /// Port, 587 by default.
    pub port: u16,
    /// How the session is encrypted.
    pub tls: SmarthostTls,
    /// Check the host's certificate; turn it off only for a host that cannot
    /// have a proper one.
    pub verify: bool,
    /// PEM file with the authorities that the host's certificate is checked
    /// against, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// User name for AUTH. Needs TLS that is not optional.
    pub user: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
}

impl Default for Smarthost {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 587,
            tls: SmarthostTls::Starttls,
            verify: true,
            ca_file: None,
            user: None,
            password_file: None,
        }
    }
}

impl Smarthost {
    /// Checks what serde cannot. The error names what is wrong within this section.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_err() && !is_host_name(&self.host) {
            return Err(format!("host: expected a host name or an address, found {:?}", self.host));
        }
        if self.port == 0 {
            return Err("port: expected 1 to 65535".to_owned());
        }
        if self.user.is_some() != self.password_file.is_some() {
            return Err("user: expected together with password_file".to_owned());
        }
        let optional = matches!(self.tls, SmarthostTls::None | SmarthostTls::Opportunistic);
        if self.user.is_some() && optional {
            return Err("tls: expected \"starttls\" or \"wrapper\" beside user, so that the password never \
                 travels in clear"
                .to_owned());
        }
        Ok(())
    }
}

/// The section of the smarthost of this name; the one without a name has its own.
pub(crate) fn section(name: &str) -> String {
    if name.is_empty() { "smarthost".to_owned() } else { format!("smarthosts.{name}") }
}

/// Checks all smarthosts with their names.
pub(crate) fn validate<'a>(smarthosts: impl Iterator<Item = (&'a str, &'a Smarthost)>) -> Result<(), String> {
    for (name, smarthost) in smarthosts {
        if !name.is_empty() && !is_short_name(name) {
            return Err(format!(
                "smarthosts.{name:?}: expected a name of lower-case letters, digits and hyphens with a letter first"
            ));
        }
        smarthost.validate().map_err(|error| format!("{}.{error}", section(name)))?;
    }
    Ok(())
}

/// How a session with a smarthost is encrypted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmarthostTls {
    /// Never.
    None,
    /// STARTTLS where it is offered, in clear otherwise.
    Opportunistic,
    /// STARTTLS or no session.
    #[default]
    Starttls,
    /// TLS from the first byte (port 465).
    Wrapper,
}
