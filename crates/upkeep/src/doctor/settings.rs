//! What the operator can choose about the doctor.

use postrider_base::Period;
use postrider_mail::Domain;
use serde::{Deserialize, Serialize};

/// Most block lists: each is asked about each source address.
const MOST_LISTS: usize = 32;

/// Whom `postrider doctor` asks beyond the DNS. Nobody unless named here.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Block lists (RFC 5782) that the source addresses are looked up in, such as
    /// `zen.spamhaus.org`. Many lists want no questions from public resolvers, or a contract.
    pub dnsbl: Vec<String>,
    /// A host with or without a port, 25 unless given, that takes mail from anywhere: each
    /// source address connects to it, to see whether the way out is open.
    pub probe: Option<String>,
    /// A web server, host with or without a port, 80 unless given: the `Date` of its answer is
    /// compared with our clock.
    pub time: Option<String>,
    /// How long one connection may take.
    pub timeout: Period,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { dnsbl: Vec::new(), probe: None, time: None, timeout: Period::from_secs(10) }
    }
}

impl Settings {
    /// Checks what the types can not say.
    ///
    /// # Errors
    /// Names the key and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        if self.dnsbl.len() > MOST_LISTS {
            return Err(format!("dnsbl: must be at most {MOST_LISTS} lists"));
        }
        if let Some(bad) = self.dnsbl.iter().find(|list| list.parse::<Domain>().is_err()) {
            return Err(format!("dnsbl: must be domain names, found {bad:?}"));
        }
        for (key, host) in [("probe", &self.probe), ("time", &self.time)] {
            if let Some(host) = host.as_ref().filter(|host| host_and_port(host, 1).is_none()) {
                return Err(format!("{key}: must be a host with or without a port, found {host:?}"));
            }
        }
        if self.timeout.is_zero() {
            return Err("timeout: must be more than 0s".to_owned());
        }
        Ok(())
    }
}

/// `host`, `host:port`, `192.0.2.1:port`, `[2001:db8::1]:port`.
pub(super) fn host_and_port(text: &str, port: u16) -> Option<(String, u16)> {
    let is_host = |host: &str| host.parse::<Domain>().is_ok() || host.parse::<std::net::IpAddr>().is_ok();
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some((address.ip().to_string(), address.port()));
    }
    if is_host(text) {
        return Some((text.trim_matches(['[', ']']).to_owned(), port));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_host(host).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_ports_or_not() {
        let read = |text| host_and_port(text, 25);
        assert_eq!(read("mx.example.net"), Some(("mx.example.net".into(), 25)));
        assert_eq!(read("mx.example.net:2525"), Some(("mx.example.net".into(), 2525)));
        assert_eq!(read("127.0.0.1:2525"), Some(("127.0.0.1".into(), 2525)));
        assert_eq!(read("[2001:db8::1]:26"), Some(("2001:db8::1".into(), 26)));
        assert_eq!(read("2001:db8::1"), Some(("2001:db8::1".into(), 25)));
        for bad in ["", "a b", "host:", "host:0", "host:99999", ":25"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().err().unwrap_or_default()
        };
        assert_eq!(with(|_| {}), "");
        assert!(with(|s| s.dnsbl = vec!["a b".into()]).starts_with("dnsbl: "));
        assert!(with(|s| s.dnsbl = vec!["a.example".into(); 33]).starts_with("dnsbl: "));
        assert!(with(|s| s.probe = Some("x:y".into())).starts_with("probe: "));
        assert!(with(|s| s.time = Some(String::new())).starts_with("time: "));
        assert!(with(|s| s.timeout = Period::from_secs(0)).starts_with("timeout: "));
    }
}
