//! Enhanced status codes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// An enhanced status code such as `5.1.1` (RFC 3463 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EnhancedStatus {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// What the status is about: 1 address, 2 mailbox, 4 network, 7 policy, ...
    pub subject: u16,
    /// What exactly, within the subject.
    pub detail: u16,
}

impl EnhancedStatus {
    /// The code `class.subject.detail`.
    pub const fn new(class: u8, subject: u16, detail: u16) -> EnhancedStatus {
        EnhancedStatus { class, subject, detail }
    }

    /// Takes a code and the blanks after it off the front of a reply's text.
    pub(crate) fn split_off(text: &str) -> Option<(EnhancedStatus, &str)> {
        let end = text.find([' ', '\t']).unwrap_or(text.len());
        let status = text[..end].parse().ok()?;
        Some((status, text[end..].trim_start()))
    }
}

impl FromStr for EnhancedStatus {
    type Err = Error;

    fn from_str(text: &str) -> Result<EnhancedStatus, Error> {
        let number = |part: Option<&str>| {
            part.filter(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|p| p.parse::<u16>().ok())
                .ok_or(Error::EnhancedStatus)
        };
        let mut parts = text.split('.');
        let class = match parts.next() {
            Some("2") => 2,
            Some("4") => 4,
            Some("5") => 5,
            _ => return Err(Error::EnhancedStatus),
        };
        let (subject, detail) = (number(parts.next())?, number(parts.next())?);
        match parts.next() {
            None => Ok(EnhancedStatus::new(class, subject, detail)),
            Some(_) => Err(Error::EnhancedStatus),
        }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_and_print() {
        for text in ["5.1.1", "2.0.0", "4.7.999", "5.0.10"] {
            assert_eq!(text.parse::<EnhancedStatus>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for bad in ["", "5", "5.1", "5.1.", "5.1.1.1", "3.1.1", "5.1.1000", "5.a.1", "5.+1.1", "5..1", " 5.1.1"] {
            assert_eq!(bad.parse::<EnhancedStatus>(), Err(Error::EnhancedStatus), "{bad:?}");
        }
    }
}
