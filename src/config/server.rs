//! Who this node is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use postrider_base::Period;
use postrider_mail::{AccountId, Domain};
use serde::{Deserialize, Serialize};

/// The names, the place and the size of this node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    pub(crate) hostname: Option<String>,
    pub(crate) operator_domain: Option<String>,
    pub(crate) region: String,
    pub(crate) partition: String,
    pub(crate) account: AccountId,
    pub(crate) node: NodeNumber,
    pub(crate) state_dir: PathBuf,
    pub(crate) threads: Option<usize>,
    pub(crate) drain: Period,
    pub(crate) accept_loss: bool,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            hostname: None,
            operator_domain: None,
            region: "us-east-1".to_owned(),
            partition: "aws".to_owned(),
            account: AccountId::default(),
            node: NodeNumber(0x0100),
            state_dir: PathBuf::from("/var/lib/postrider"),
            threads: None,
            drain: Period::from_secs(30),
            accept_loss: false,
        }
    }
}

impl Server {
    /// The name that the node goes by: the configured one, or the system's.
    pub(crate) fn hostname(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| {
            let system = rustix::system::uname();
            let name = system.nodename().to_string_lossy().to_ascii_lowercase();
            // A name that is no domain (it has an underscore, say) cannot stand in EHLO.
            if name.parse::<Domain>().is_ok() { name } else { "localhost".to_owned() }
        })
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.state_dir.as_os_str().is_empty() {
            return Err("state_dir: expected a path".to_owned());
        }
        if self.threads.is_some_and(|threads| !(1..=1024).contains(&threads)) {
            return Err("threads: expected 1 to 1024".to_owned());
        }
        if self.drain.is_zero() {
            return Err("drain: expected more than 0s".to_owned());
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.partition.is_empty() || !self.partition.chars().all(word) {
            return Err(format!("partition: expected letters, digits and hyphens, found {:?}", self.partition));
        }
        Ok(())
    }
}

/// A node's number, written as the four hexadecimal digits that its message ids start with.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct NodeNumber(pub(crate) u16);

impl FromStr for NodeNumber {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeNumber, String> {
        let digits = text.len() == 4 && text.chars().all(|c| c.is_ascii_hexdigit());
        match u16::from_str_radix(text, 16) {
            Ok(number) if digits => Ok(NodeNumber(number)),
            _ => Err(format!("expected four hexadecimal digits such as \"0100\", found {text:?}")),
        }
    }
}

impl TryFrom<String> for NodeNumber {
    type Error = String;

    fn try_from(text: String) -> Result<NodeNumber, String> {
        text.parse()
    }
}

impl From<NodeNumber> for String {
    fn from(number: NodeNumber) -> String {
        number.to_string()
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_numbers_are_four_digits() {
        assert_eq!("01ff".parse::<NodeNumber>().unwrap(), NodeNumber(0x01ff));
        assert_eq!(NodeNumber(0x0100).to_string(), "0100");
        for bad in ["", "1", "+100", "01000", "xyzw"] {
            assert!(bad.parse::<NodeNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_are_checked() {
        let refusal = |change: fn(&mut Server)| {
            let mut server = Server::default();
            change(&mut server);
            server.validate().unwrap_err()
        };
        assert!(Server::default().validate().is_ok());
        assert!(refusal(|server| server.threads = Some(0)).starts_with("threads: "));
        assert!(refusal(|server| server.partition = "a b".to_owned()).starts_with("partition: "));
        assert!(refusal(|server| server.state_dir = PathBuf::new()).starts_with("state_dir: "));
        assert!(refusal(|server| server.drain = Period::from_secs(0)).starts_with("drain: "));
    }

    #[test]
    fn there_is_always_a_hostname() {
        assert!(!Server::default().hostname().is_empty());
    }
}
