//! The fields of a header that are not like others.

use serde::{Deserialize, Serialize};

use super::Kind;

/// Which fields a header may have once.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum HeaderRules {
    /// The originator's and the informational fields of RFC 5322 section 3.6, and those of
    /// MIME. `To` and `Cc` can be repeated, as SES lets them.
    #[default]
    Rfc,
    /// The 59 that SES names; and From must be there. Forwarded mail often repeats some of
    /// them (Delivered-To, Comments, Keywords), and so does mail with two signatures.
    Ses,
}

impl HeaderRules {
    /// The fields that mean something by these rules.
    pub(super) fn fields(self) -> &'static [(&'static str, Kind)] {
        match self {
            Self::Rfc => &FIELDS[..OF_RFC],
            Self::Ses => &FIELDS,
        }
    }

    /// Whether a field may be there once.
    pub(super) fn has_once(self, kind: Kind) -> bool {
        use Kind::{Content, Date, DkimSignature, From, MessageId, Once, ReplyTo, ReturnPath, Sender};
        match kind {
            Once | From | Sender | ReplyTo | Date | MessageId | Content => true,
            DkimSignature | ReturnPath => self == Self::Ses,
            _ => false,
        }
    }
}

/// How many of [`FIELDS`] have a meaning by either rules.
const OF_RFC: usize = 24;

/// Those that SES wants once and nobody else come last.
const FIELDS: [(&str, Kind); 67] = [
    ("Received", Kind::Received),
    ("DKIM-Signature", Kind::DkimSignature),
    ("Date", Kind::Date),
    ("Message-ID", Kind::MessageId),
    ("From", Kind::From),
    ("Sender", Kind::Sender),
    ("Reply-To", Kind::ReplyTo),
    ("In-Reply-To", Kind::Once),
    ("References", Kind::Once),
    ("Subject", Kind::Once),
    ("MIME-Version", Kind::Once),
    ("Content-Type", Kind::Content),
    ("Content-Transfer-Encoding", Kind::Content),
    ("Content-ID", Kind::Once),
    ("Content-Description", Kind::Once),
    ("Content-Disposition", Kind::Content),
    ("Bcc", Kind::Removed),
    ("Return-Path", Kind::ReturnPath),
    ("X-SES-CONFIGURATION-SET", Kind::ConfigurationSet),
    ("X-SES-MESSAGE-TAGS", Kind::MessageTags),
    ("X-SES-SOURCE-ARN", Kind::SourceArn),
    ("X-SES-FROM-ARN", Kind::FromArn),
    ("X-SES-RETURN-PATH-ARN", Kind::ReturnPathArn),
    ("TLS-Required", Kind::TlsRequired),
    ("Accept-Language", Kind::Once),
    ("acceptLanguage", Kind::Once),
    ("Archived-At", Kind::Once),
    ("Auto-Submitted", Kind::Once),
    ("Bounces-to", Kind::Once),
    ("Comments", Kind::Once),
    ("Content-Alternative", Kind::Once),
    ("Content-Base", Kind::Once),
    ("Content-Class", Kind::Once),
    ("Content-Duration", Kind::Once),
    ("Content-Language", Kind::Once),
    ("Content-Length", Kind::Once),
    ("Content-Location", Kind::Once),
    ("Content-MD5", Kind::Once),
    ("Delivered-To", Kind::Once),
    ("Disposition-Notification-Options", Kind::Once),
    ("Disposition-Notification-To", Kind::Once),
    ("DomainKey-Signature", Kind::Once),
    ("Errors-To", Kind::Once),
    ("Importance", Kind::Once),
    ("Keywords", Kind::Once),
    ("List-Archive", Kind::Once),
    ("List-Help", Kind::Once),
    ("List-Id", Kind::Once),
    ("List-Owner", Kind::Once),
    ("List-Post", Kind::Once),
    ("List-Subscribe", Kind::Once),
    ("List-Unsubscribe", Kind::Once),
    ("Message-Context", Kind::Once),
    ("Organization", Kind::Once),
    ("Original-From", Kind::Once),
    ("Original-Message-ID", Kind::Once),
    ("Original-Recipient", Kind::Once),
    ("Original-Subject", Kind::Once),
    ("Precedence", Kind::Once),
    ("Priority", Kind::Once),
    ("Return-Receipt-To", Kind::Once),
    ("Sensitivity", Kind::Once),
    ("Solicitation", Kind::Once),
    ("Thread-Index", Kind::Once),
    ("Thread-Topic", Kind::Once),
    ("User-Agent", Kind::Once),
    ("VBR-Info", Kind::Once),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ses_names_59_fields() {
        let once = |rules: HeaderRules| rules.fields().iter().filter(|(_, kind)| rules.has_once(*kind)).count();
        assert_eq!(once(HeaderRules::Ses), 59);
        assert_eq!(once(HeaderRules::Rfc), 14);
        assert!(FIELDS.len() <= u128::BITS as usize, "each has a bit");
        assert!(FIELDS[OF_RFC..].iter().all(|(_, kind)| *kind == Kind::Once));
    }
}
