//! The envelope: what SMTP says about a message outside of its content.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{EmailAddress, Error};

/// Sender, recipients and parameters of one mail transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse-path; `None` is the null one, `<>`.
    pub sender: Option<EmailAddress>,
    /// The forward-paths in the order of their RCPT commands. Outcomes name
    /// recipients by their index here.
    pub recipients: Vec<Recipient>,
    /// `BODY=` (RFC 6152, RFC 3030).
    pub body: BodyType,
    /// `SMTPUTF8` was given (RFC 6531 section 3.4).
    pub smtp_utf8: bool,
    /// `RET=` (RFC 3461 section 4.3); `None` when not given.
    pub ret: Option<Ret>,
    /// `ENVID=`, decoded from xtext (RFC 3461 section 4.4).
    pub envid: Option<String>,
    /// `REQUIRETLS` was given (RFC 8689 section 2).
    pub require_tls: bool,
}

/// One recipient of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Where the message goes.
    pub address: EmailAddress,
    /// `NOTIFY=`.
    pub notify: Notify,
    /// `ORCPT=`, decoded from xtext: address type, `;`, address
    /// (RFC 3461 section 4.2).
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient without DSN parameters.
    pub fn new(address: EmailAddress) -> Recipient {
        Recipient { address, notify: Notify::default(), orcpt: None }
    }
}

/// How the content is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BodyType {
    /// `7BIT`, or no parameter.
    #[default]
    SevenBit,
    /// `8BITMIME` (RFC 6152).
    EightBitMime,
    /// `BINARYMIME` (RFC 3030).
    BinaryMime,
}

impl BodyType {
    /// The keyword of the `BODY=` parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            BodyType::SevenBit => "7BIT",
            BodyType::EightBitMime => "8BITMIME",
            BodyType::BinaryMime => "BINARYMIME",
        }
    }
}

/// How much of the message a failure notification returns (RFC 3461 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header only.
    Headers,
}

impl Ret {
    /// The keyword of the `RET=` parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Ret::Full => "FULL",
            Ret::Headers => "HDRS",
        }
    }
}

/// When the sender wants to be told (RFC 3461 section 4.1). The default is
/// that no `NOTIFY` was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notify(u8);

impl Notify {
    /// Tell nothing, whatever happens.
    pub const NEVER: Notify = Notify(1);
    /// Tell when delivered.
    pub const SUCCESS: Notify = Notify(2);
    /// Tell when delivery failed for good.
    pub const FAILURE: Notify = Notify(4);
    /// Tell when delivery is late.
    pub const DELAY: Notify = Notify(8);

    /// Whether the client gave the parameter.
    pub fn is_given(self) -> bool {
        self.0 != 0
    }

    /// Whether a delivery is to be reported.
    pub fn wants_success(self) -> bool {
        self.has(Notify::SUCCESS)
    }

    /// Whether a failure is to be reported: it is unless the client said otherwise.
    pub fn wants_failure(self) -> bool {
        !self.is_given() || self.has(Notify::FAILURE)
    }

    /// Whether a delay is to be reported. Without the parameter a relay may
    /// choose (RFC 3461 section 4.1); this one does not.
    pub fn wants_delay(self) -> bool {
        self.has(Notify::DELAY)
    }

    fn has(self, flag: Notify) -> bool {
        self.0 & flag.0 != 0
    }
}

impl BitOr for Notify {
    type Output = Notify;

    /// Both wishes; `NEVER` stands alone and wins.
    fn bitor(self, other: Notify) -> Notify {
        if self.has(Notify::NEVER) || other.has(Notify::NEVER) { Notify::NEVER } else { Notify(self.0 | other.0) }
    }
}

impl FromStr for Notify {
    type Err = Error;

    /// Reads the value of a `NOTIFY=` parameter, in any case.
    fn from_str(text: &str) -> Result<Notify, Error> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Ok(Notify::NEVER);
        }
        text.split(',').try_fold(Notify::default(), |all, word| {
            let flag = NOTIFY_WORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
            flag.map(|(_, flag)| all | *flag).ok_or(Error::Notify)
        })
    }
}

const NOTIFY_WORDS: [(&str, Notify); 3] =
    [("SUCCESS", Notify::SUCCESS), ("FAILURE", Notify::FAILURE), ("DELAY", Notify::DELAY)];

impl fmt::Display for Notify {
    /// The value of a `NOTIFY=` parameter; nothing when none was given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has(Notify::NEVER) {
            return f.write_str("NEVER");
        }
        let mut comma = "";
        for (name, flag) in NOTIFY_WORDS {
            if self.has(flag) {
                write!(f, "{comma}{name}")?;
                comma = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_reads_and_prints() {
        for text in ["NEVER", "SUCCESS", "SUCCESS,FAILURE,DELAY", "FAILURE,DELAY"] {
            assert_eq!(text.parse::<Notify>().unwrap().to_string(), text);
        }
        assert_eq!("delay,Failure".parse(), Ok(Notify::DELAY | Notify::FAILURE));
        for bad in ["", "NEVER,SUCCESS", "SUCCESS,", "ALWAYS", "SUCCESS, DELAY"] {
            assert_eq!(bad.parse::<Notify>(), Err(Error::Notify), "{bad}");
        }
    }

    #[test]
    fn what_is_wanted() {
        let unsaid = Notify::default();
        assert!(unsaid.wants_failure() && !unsaid.wants_success() && !unsaid.wants_delay());
        assert!(!Notify::NEVER.wants_failure());
        assert!(!Notify::SUCCESS.wants_failure());
        assert_eq!(Notify::NEVER | Notify::FAILURE, Notify::NEVER);
    }

    #[test]
    fn an_envelope_survives_the_disk() {
        let envelope = Envelope {
            sender: Some("a@b.c".parse().unwrap()),
            recipients: vec![Recipient {
                notify: Notify::FAILURE | Notify::DELAY,
                orcpt: Some("rfc822;x@y.z".into()),
                ..Recipient::new("d@e.f".parse().unwrap())
            }],
            ret: Some(Ret::Full),
            body: BodyType::EightBitMime,
            ..Envelope::default()
        };
        let bytes = postcard::to_allocvec(&envelope).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(envelope.clone()));
        let json = serde_json::to_string(&envelope).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&json).unwrap(), envelope);
    }
}
