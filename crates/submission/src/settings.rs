//! What the operator chooses about acceptance.

use postrider_account::Realm;
use postrider_base::{Period, Size};
use postrider_filter::MilterSettings;
use postrider_mail::Domain;
use postrider_spool::MAX_RECIPIENTS;
use serde::{Deserialize, Serialize};

use crate::{BlockedAttachments, HeaderRules};

/// Rules of acceptance, and the names that the relay goes by. The names are not keys of this
/// section: the whole relay shares them, and the binary fills them in from its own.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The relay's host name, as clients reach it: in the greeting, in `Received` fields
    /// and in bounces. Without it, `localhost`.
    #[serde(skip)]
    pub hostname: Option<String>,
    /// The region that SMTP passwords are derived for and that the relay names in
    /// `Message-ID` fields. SES's published derivation script takes only names of AWS
    /// regions, so that such a name lets it be used as it is.
    #[serde(skip)]
    pub region: String,
    /// The partition in ARNs.
    #[serde(skip)]
    pub partition: String,
    /// The domain behind the region in `Message-ID: <ID@REGION.DOMAIN>`. Without it,
    /// the host name.
    #[serde(skip)]
    pub operator_domain: Option<String>,
    /// Number of this machine, the first four hex digits of every message id. Two relays
    /// that share anything need different numbers.
    #[serde(skip)]
    pub node: u16,
    /// Longest message, with its header and its encoded attachments, in bytes on the wire.
    pub max_message_bytes: Size,
    /// Most recipients of one message, at most 3000: so many fit the queue's log whatever
    /// their domains are.
    pub max_recipients: u32,
    /// Most `Received` fields of a message; more mean that it runs in a loop.
    pub max_received: u32,
    /// Whether `Date` and `Message-ID` of the client survive.
    pub preserve: Preserve,
    /// What becomes of mail whose sender addresses belong to no verified identity of its
    /// account: `"reject"`, as SES does; or `"accept"`, for a relay whose every client may send
    /// as anybody. What else SES asks of a message is asked in any case.
    pub unverified_senders: UnverifiedSenders,
    /// Which fields a header may have once: `"rfc"`, or `"ses"` for all that SES names.
    pub header_rules: HeaderRules,
    /// Extensions of files that may not be attached: `"ses"` for those that SES refuses,
    /// `"none"`, or a list, in which `"ses"` stands for all of SES's and `"!crt"` takes one
    /// away that came before.
    pub blocked_attachments: BlockedAttachments,
    /// What next hosts hear in MAIL FROM: `"sender"`, what the client said; or `"verp"`, an
    /// address of the relay's that names the message and the recipient, so that a late
    /// bounce finds them. The latter needs a listener of the role `feedback`, which the MX
    /// records of MAIL FROM domains and of `return_path_domain` lead to.
    pub return_path: ReturnPath,
    /// The domain of such addresses for mail without a custom MAIL FROM domain. Without it,
    /// `bounces` in the operator's domain.
    pub return_path_domain: Option<String>,
    /// How long delivery of a message is tried before it bounces.
    pub expiry: Period,
    /// Longest time that a client may ask to hold a message before its delivery begins
    /// (FUTURERELEASE, RFC 4865); whole seconds are announced. With `0s` the extension is
    /// not announced. Held messages count as queued; their life counts from the release.
    pub max_hold: Period,
    /// Announce BINARYMIME (RFC 3030). Such messages go only to next hosts that take them
    /// as they are, and bounce (5.6.3) everywhere else: nothing is converted after signing.
    pub binary_mime: bool,
    /// The operator's own filters, by the milter protocol. Each message is shown to one after the
    /// other at the end of DATA, before it is signed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<MilterSettings>,
}

/// Whether `Date` and `Message-ID` of the client survive. SES replaces both always.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Preserve {
    /// Each of the two is left as it is where a DKIM signature of the client covers it,
    /// because replacing (or adding) it would break the signature; else it is replaced.
    #[default]
    Auto,
    /// They are kept, and added only where they are missing.
    Always,
    /// They are replaced, even where that breaks a signature.
    Never,
}

/// What becomes of mail from addresses that are nobody's verified identity.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UnverifiedSenders {
    /// It is refused.
    #[default]
    Reject,
    /// It is taken.
    Accept,
}

/// What next hosts hear in MAIL FROM.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ReturnPath {
    /// What the client said.
    #[default]
    Sender,
    /// An address that names the message and the recipient.
    Verp,
}

/// What is further away is a mistake.
const MAX_HOLD: Period = Period::from_days(365);

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: None,
            region: "us-east-1".to_owned(),
            partition: "aws".to_owned(),
            operator_domain: None,
            node: 0x0100,
            max_message_bytes: Size::from_bytes(10 << 20),
            max_recipients: 50,
            max_received: 50,
            preserve: Preserve::Auto,
            header_rules: HeaderRules::Rfc,
            blocked_attachments: BlockedAttachments::default(),
            unverified_senders: UnverifiedSenders::Reject,
            return_path: ReturnPath::Sender,
            return_path_domain: None,
            expiry: Period::from_days(4),
            max_hold: Period::from_days(7),
            binary_mime: false,
            filters: Vec::new(),
        }
    }
}

impl Settings {
    /// The host name in effect.
    #[must_use]
    pub fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or("localhost")
    }

    /// The operator's domain in effect.
    #[must_use]
    pub fn operator_domain(&self) -> &str {
        self.operator_domain.as_deref().unwrap_or(self.hostname())
    }

    /// Where its ARNs are.
    #[must_use]
    pub fn realm(&self) -> Realm {
        Realm { partition: self.partition.clone(), region: self.region.clone() }
    }

    /// What stands behind the `@` in a `Message-ID`.
    #[must_use]
    pub fn message_id_domain(&self) -> String {
        format!("{}.{}", self.region, self.operator_domain())
    }

    /// The domain of return paths without a custom MAIL FROM domain.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn return_path_domain(&self) -> Result<Domain, String> {
        let name = self.return_path_domain.clone().unwrap_or_else(|| format!("bounces.{}", self.operator_domain()));
        name.parse().map_err(|error| format!("return_path_domain: {name:?} is no domain name: {error}"))
    }

    /// The longest hold in seconds, as FUTURERELEASE announces it; `None` where it does not.
    #[must_use]
    pub fn future_release(&self) -> Option<u32> {
        u32::try_from(self.max_hold.as_duration().as_secs()).ok().filter(|seconds| *seconds > 0)
    }

    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        for (key, name) in [("hostname", &self.hostname), ("operator_domain", &self.operator_domain)] {
            if let Some(name) = name {
                let domain: Result<Domain, _> = name.parse();
                domain.map_err(|error| format!("{key}: {name:?} is no domain name: {error}"))?;
            }
        }
        if self.return_path == ReturnPath::Verp || self.return_path_domain.is_some() {
            self.return_path_domain()?;
        }
        let label = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if self.region.is_empty() || self.region.len() > 63 || !self.region.bytes().all(label) {
            return Err("region: must be 1 to 63 letters, digits and hyphens".to_owned());
        }
        for (key, number) in [("max_recipients", self.max_recipients), ("max_received", self.max_received)] {
            if number == 0 {
                return Err(format!("{key}: must be at least 1"));
            }
        }
        for filter in &self.filters {
            filter.validate().map_err(|error| format!("filters.{error}"))?;
        }
        if self.max_recipients > u32::from(MAX_RECIPIENTS) {
            return Err(format!("max_recipients: must be at most {MAX_RECIPIENTS}"));
        }
        if self.max_message_bytes.bytes() < 65_536 {
            // RFC 5321 section 4.5.3.1.7
            return Err("max_message_bytes: must be at least 64KiB".to_owned());
        }
        if self.expiry.as_duration().is_zero() {
            return Err("expiry: must be longer than 0s".to_owned());
        }
        if self.max_hold.as_duration() > MAX_HOLD.as_duration() {
            return Err("max_hold: must be at most 365d".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_back() {
        let settings = Settings::default();
        assert_eq!(settings.validate(), Ok(()));
        assert_eq!(settings.message_id_domain(), "us-east-1.localhost");
        let settings = Settings { hostname: Some("mx.example.com".into()), ..settings };
        assert_eq!(settings.message_id_domain(), "us-east-1.mx.example.com");
        assert_eq!(settings.return_path_domain().unwrap().as_str(), "bounces.mx.example.com");
        let settings = Settings { operator_domain: Some("example.com".into()), ..settings };
        assert_eq!(settings.message_id_domain(), "us-east-1.example.com");
        let own = Settings { return_path_domain: Some("back.example.org".into()), ..settings };
        assert_eq!(own.return_path_domain().unwrap().as_str(), "back.example.org");
    }

    #[test]
    fn a_hold_of_nothing_is_not_announced() {
        let with = |max_hold| Settings { max_hold, ..Settings::default() }.future_release();
        assert_eq!(with(Period::from_days(7)), Some(604_800));
        assert_eq!(with(Period::from_secs(0)), None);
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().unwrap_err()
        };
        assert!(with(|s| s.hostname = Some("a b".into())).starts_with("hostname"));
        assert!(with(|s| s.operator_domain = Some("x\r\ny".into())).starts_with("operator_domain"));
        assert!(with(|s| s.return_path_domain = Some("a b".into())).starts_with("return_path_domain"));
        assert!(with(|s| s.region = "a\r\nb".into()).starts_with("region"));
        assert!(with(|s| s.max_recipients = 0).starts_with("max_recipients"));
        assert_eq!(with(|s| s.max_recipients = 3_001), "max_recipients: must be at most 3000");
        assert!(with(|s| s.max_message_bytes = Size::from_bytes(1)).starts_with("max_message_bytes"));
        assert!(with(|s| s.max_hold = Period::from_days(366)).starts_with("max_hold"));
        assert!(with(|s| s.expiry = Period::from_secs(0)).starts_with("expiry"));
    }
}
