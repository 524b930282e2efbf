//! What an operator may say about name resolution.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use postrider_base::Period;
use postrider_mail::Domain;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How names are resolved, and how long answers are kept.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Name servers to ask, each an address with or without a port. Empty:
    /// those of /etc/resolv.conf.
    pub servers: Vec<NameServer>,
    /// How long one try at one server may take.
    pub timeout: Period,
    /// How often a question is tried before it counts as failed.
    pub attempts: u32,
    /// Questions under way at one server at a time.
    pub max_active_requests: u32,
    /// Answers kept in memory, of each type of record, and zones whose keys are known.
    pub cache_entries: u32,
    /// An answer is kept at least this long, whatever its zone says.
    pub min_ttl: Period,
    /// An answer is kept at most this long, whatever its zone says.
    pub max_ttl: Period,
    /// That a name or record does not exist is kept at most this long.
    pub negative_max_ttl: Period,
    /// That no server answered is kept this long.
    pub failure_ttl: Period,
    /// Which answers are proved.
    pub dnssec: Dnssec,
}

/// Validation of answers with DNSSEC (RFC 4035). What is proved is the ground for
/// DANE; MX records, and addresses and TLSA records of hosts whose MX records are
/// proved, are validated, and no others.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Dnssec {
    /// Validate. Where the name servers do not hand through what it takes, a
    /// warning says so and everything goes on as if nothing were signed.
    pub validate: bool,
    /// File with the keys that are trusted, as DNSKEY records, instead of those
    /// of the root that IANA publishes. It must have one of the root.
    pub trust_anchor_file: Option<PathBuf>,
    /// Domains that nothing is validated of, nor of what is below them: zones
    /// that exist only inside, or are in disorder (RFC 7646). The names here by
    /// default are of the first kind: for the public root they do not exist.
    pub insecure: Vec<String>,
    /// How often it is probed whether the name servers let answers be validated.
    pub probe: Period,
}

impl Default for Dnssec {
    fn default() -> Dnssec {
        let insecure = ["internal", "lan", "local"].map(str::to_owned).to_vec();
        Dnssec { validate: true, trust_anchor_file: None, insecure, probe: Period::from_hours(1) }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            servers: Vec::new(),
            timeout: Period::from_secs(5),
            attempts: 2,
            max_active_requests: 1000,
            cache_entries: 100_000,
            min_ttl: Period::from_secs(5),
            max_ttl: Period::from_days(1),
            negative_max_ttl: Period::from_mins(15),
            failure_ttl: Period::from_secs(30),
            dnssec: Dnssec::default(),
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
            (!self.timeout.is_zero(), "timeout: must be more than 0s"),
            ((1..=10).contains(&self.attempts), "attempts: must be 1 to 10"),
            ((1..=65_535).contains(&self.max_active_requests), "max_active_requests: must be 1 to 65535"),
            ((2..=10_000_000).contains(&self.cache_entries), "cache_entries: must be 2 to 10000000"),
            (!self.dnssec.probe.is_zero(), "dnssec.probe: must be more than 0s"),
            (
                self.dnssec.insecure.iter().all(|name| name.parse::<Domain>().is_ok()),
                "dnssec.insecure: must be domain names",
            ),
            (self.min_ttl <= self.max_ttl, "min_ttl: must not be more than max_ttl"),
            (self.min_ttl <= self.negative_max_ttl, "min_ttl: must not be more than negative_max_ttl"),
        ];
        match checks.into_iter().find(|(right, _)| !right) {
            Some((_, what)) => Err(what.to_owned()),
            None => Ok(()),
        }
    }
}

/// A name server: `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53` or
/// `[2001:db8::53]:5353`. The port is 53 unless given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameServer(pub SocketAddr);

const DNS_PORT: u16 = 53;

impl FromStr for NameServer {
    type Err = String;

    fn from_str(text: &str) -> Result<NameServer, String> {
        let with_port = text.parse::<SocketAddr>();
        let without = || text.parse::<IpAddr>().map(|ip| (ip, DNS_PORT).into());
        with_port
            .or_else(|_| without())
            .map(NameServer)
            .map_err(|_| format!("expected an IP address with or without a port, got {text:?}"))
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            DNS_PORT => self.0.ip().fmt(f),
            _ => self.0.fmt(f),
        }
    }
}

impl Serialize for NameServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NameServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NameServer, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_read_and_print() {
        for text in ["192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353"] {
            assert_eq!(text.parse::<NameServer>().unwrap().to_string(), text);
        }
        for bad in ["", "ns.example.com", "192.0.2.53:", "192.0.2.53:99999"] {
            assert!(bad.parse::<NameServer>().is_err(), "{bad}");
        }
    }

    #[test]
    fn defaults_are_valid_and_survive() {
        let settings = Settings::default();
        assert_eq!(settings.validate(), Ok(()));
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings);
        assert!(toml::from_str::<Settings>("server = []").is_err());
        assert!(toml::from_str::<Settings>("servers = ['localhost']").is_err());
    }

    #[test]
    fn bad_values_are_named() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().unwrap_err()
        };
        assert!(with(|s| s.attempts = 0).starts_with("attempts:"));
        assert!(with(|s| s.timeout = Period::from_secs(0)).starts_with("timeout:"));
        assert!(with(|s| s.cache_entries = 0).starts_with("cache_entries:"));
        assert!(with(|s| s.max_active_requests = 0).starts_with("max_active"));
        assert!(with(|s| s.min_ttl = Period::from_days(2)).starts_with("min_ttl:"));
        assert!(with(|s| s.dnssec.probe = Period::from_secs(0)).starts_with("dnssec.probe:"));
        assert!(with(|s| s.dnssec.insecure = vec!["a..b".to_owned()]).starts_with("dnssec.insecure:"));
    }
}
