//! Why something was not accepted, and the one place where that becomes a reply.

use postrider_account::AuthError;
use postrider_mail::{EnhancedStatus, MAX_HEADER_BYTES, MAX_HEADER_FIELDS, SmtpReply};

use crate::{BadAddress, KeyRingError, MimeFault};

/// Room for the text of a reply in a line of 512 octets, beside its codes and its end (RFC 5321
/// section 4.5.3.1.5).
const MAX_TEXT: usize = 512 - "554 5.7.1 \r\n".len();

/// Why a client or a message was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The client's: unknown user, wrong password, or an exchange that makes no sense.
    /// Does not pass.
    #[error("authentication failed")]
    InvalidCredentials,
    /// The operator's choice: the credential is switched off. Passes when it is enabled.
    #[error("the credential is disabled")]
    Disabled,
    /// Ours: the credential could not be checked. Passes.
    #[error("authentication is not possible at the moment")]
    AuthFault,
    /// The client's: a mechanism that was not announced. Does not pass.
    #[error("unknown authentication mechanism")]
    UnknownMechanism,
    /// The client's: the message is over the bound of the settings. Does not pass.
    #[error("the message is too long")]
    TooLong,
    /// The client's: the message has more recipients than this. Does not pass.
    #[error("the message has more than {0} recipients")]
    TooManyRecipients(u32),
    /// The client's: an address has other characters than ASCII, without SMTPUTF8.
    /// Does not pass.
    #[error("an address is not ASCII and SMTPUTF8 was not given")]
    NonAsciiAddress,
    /// The client's: the message is to wait for longer than this, in seconds. Does not pass.
    #[error("the message is to be held for more than {0} seconds")]
    HoldTooLong(u64),
    /// The author's: the header is over its bound. Does not pass.
    #[error("the header is longer than {MAX_HEADER_BYTES} bytes")]
    HeaderTooLong,
    /// The author's: the header has too many fields. Does not pass.
    #[error("the header has more than {MAX_HEADER_FIELDS} fields")]
    TooManyFields,
    /// The author's: a field that may be there once is there twice. Does not pass.
    #[error("the header has {0} twice")]
    DuplicateHeader(&'static str),
    /// The author's: a field that must be there is not. Does not pass.
    #[error("the header has no {0}")]
    MissingHeader(&'static str),
    /// The author's: an address in From, Sender, Reply-To or Return-Path is none. Does not
    /// pass.
    #[error("an address in the header is none: {0}")]
    BadAddress(BadAddress),
    /// The author's: a file that may not be attached, or parts that can not be told apart.
    /// Does not pass.
    #[error("the content is not as it should be: {0}")]
    Mime(MimeFault),
    /// Some mail server's configuration: the message runs in a loop. Does not pass.
    #[error("the message has been through too many hosts")]
    TooManyHops,
    /// The sender's: addresses that belong to no verified identity of the account: senders, and
    /// in the sandbox recipients. Passes when they are verified.
    #[error("not verified: {}", identities.join(", "))]
    NotVerified {
        /// The addresses, each once.
        identities: Vec<String>,
        /// The relay's region.
        region: String,
    },
    /// The author's: an X-SES-*-ARN field that names no identity. Does not pass.
    #[error("{0}")]
    InvalidArn(String),
    /// The account's, or the owner's of the identity: a policy does not let the message be sent,
    /// or none lets it that would have to. Passes when the policy is changed.
    #[error("access denied: {0}")]
    AccessDenied(String),
    /// The account's: it has no configuration set of the name that the message gives, or that
    /// its identity has as its default. Passes when there is one.
    #[error("there is no configuration set {0}")]
    UnknownConfigurationSet(String),
    /// The operator's choice: the account sends nothing for now. Passes when it is resumed.
    #[error("the account is paused")]
    AccountPaused,
    /// The owner's choice: nothing is sent with this configuration set for now. Passes when it
    /// is resumed.
    #[error("the configuration set is paused")]
    ConfigurationSetPaused,
    /// A rule's: the account or the configuration set has been paused because of its
    /// reputation. Passes when somebody resumes it.
    #[error("a rule has paused sending")]
    PausedByRule,
    /// The owner's of the author's identity: its mail is to be refused while its MAIL FROM
    /// domain is not as it should be, and it is not. Passes when its records are published
    /// and seen (SES: `MailFromDomainNotVerified`).
    #[error("the MAIL FROM domain of the author's identity is not verified")]
    MailFromDomainNotVerified,
    /// Ours: there is a key for the message, and it could not be signed. Sent without its
    /// signature it might be refused elsewhere for good. Passes when the key is mended.
    #[error("the message could not be signed")]
    NotSigned,
    /// The sender's: more recipients a second than the account or the credential may have. Passes
    /// in seconds.
    #[error("the account or the credential sends faster than it may")]
    RateExceeded,
    /// The sender's: more recipients in 24 hours than the account or the credential may have.
    /// Passes when what was sent a day ago does not count any more.
    #[error("the account or the credential has no recipients left in its 24 hours")]
    DailyQuotaExceeded,
    /// The message's, as one of the operator's filters sees it; with the reply that the filter
    /// gives. Passes where its code is 4yz.
    #[error("a filter refuses the message: {0}")]
    Filtered(Box<SmtpReply>),
    /// The operator's: one of its filters gives no verdict. Passes when the filter runs.
    #[error("a filter gives no verdict")]
    FilterDown,
    /// Nobody's: the spool or its disk is full. Passes when mail leaves.
    #[error("there is no room for the message")]
    NoRoom,
    /// Ours: the spool failed, can make no file, or is closing. The message may have been
    /// queued all the same. Passes with a restart, or when files can be made again.
    #[error("the spool is not available")]
    Unavailable,
}

impl Refusal {
    /// What the client is told, in SES's words. The enhanced status code is always
    /// there, for those who announce ENHANCEDSTATUSCODES (RFC 2034) and for bounces.
    #[must_use]
    pub fn reply(&self) -> SmtpReply {
        let (code, status, text) = match self {
            Self::Filtered(reply) => return SmtpReply::clone(reply),
            // RFC 4954 section 6; RFC 5248 has 5.7.13 for disabled accounts.
            Self::InvalidCredentials => (535, (5, 7, 8), "Authentication Credentials Invalid".into()),
            Self::Disabled => (535, (5, 7, 13), "Account not subscribed to SES".into()),
            Self::AuthFault => (454, (4, 7, 0), "Temporary authentication failure".into()),
            Self::UnknownMechanism => (504, (5, 5, 4), "Unrecognized authentication type".into()),
            Self::TooLong => (552, (5, 3, 4), "Message is too long.".into()),
            Self::TooManyRecipients(max) => {
                (554, (5, 5, 3), format!("Transaction failed: Recipient count exceeds {max}."))
            }
            Self::NonAsciiAddress => {
                (554, (5, 6, 7), "Message rejected: There are non-ASCII characters in the email address".into())
            }
            // RFC 4865 section 4 has no words of its own; SES has no such parameter.
            Self::HoldTooLong(max) => (501, (5, 5, 4), format!("Hold exceeds {max} seconds")),
            Self::HeaderTooLong => {
                (554, (5, 3, 4), format!("Transaction failed: Header exceeds {MAX_HEADER_BYTES} bytes."))
            }
            Self::TooManyFields => {
                (554, (5, 6, 0), format!("Transaction failed: Header exceeds {MAX_HEADER_FIELDS} fields."))
            }
            Self::DuplicateHeader(name) => (554, (5, 6, 0), format!("Transaction failed: Duplicate header '{name}'.")),
            Self::MissingHeader(name) => {
                (554, (5, 6, 0), format!("Transaction failed: Missing required header '{name}'."))
            }
            Self::BadAddress(bad) => (554, (5, 1, 7), format!("Transaction failed: {bad}")),
            Self::Mime(fault @ MimeFault::IllegalFilename(_)) => {
                (554, (5, 6, 1), format!("Transaction failed: {fault}"))
            }
            Self::Mime(fault) => (554, (5, 6, 0), format!("Transaction failed: {fault}")),
            Self::TooManyHops => (554, (5, 4, 6), "Transaction failed: Too many hops.".into()),
            Self::MailFromDomainNotVerified => {
                (554, (5, 7, 1), "MAIL FROM domain not verified: DNS setup for MAIL FROM domain is invalid.".into())
            }
            Self::NotVerified { identities, region } => (554, (5, 7, 1), not_verified(identities, region)),
            Self::InvalidArn(what) => (554, (5, 6, 0), format!("Transaction failed: {what}")),
            Self::AccessDenied(what) => (554, (5, 7, 1), format!("Access denied: {what}")),
            Self::UnknownConfigurationSet(name) => {
                (554, (5, 7, 1), format!("Message rejected: Configuration set does not exist: {name}"))
            }
            Self::AccountPaused => (554, (5, 7, 1), "Message rejected: Sending paused for this account.".into()),
            Self::ConfigurationSetPaused => {
                (554, (5, 7, 1), "Message rejected: Sending paused for this configuration set.".into())
            }
            Self::PausedByRule => (454, (4, 7, 1), "Throttling failure: Sending paused".into()),
            // Clients compare these two with what SES says.
            Self::RateExceeded => (454, (4, 7, 0), "Throttling failure: Maximum sending rate exceeded.".into()),
            Self::DailyQuotaExceeded => (454, (4, 7, 0), "Throttling failure: Daily message quota exceeded.".into()),
            // RFC 5321 section 4.2.3
            Self::NoRoom => (452, (4, 3, 1), "Insufficient system storage".into()),
            Self::FilterDown => (451, (4, 7, 1), "Temporary service failure".into()),
            Self::NotSigned | Self::Unavailable => (451, (4, 3, 0), "Temporary service failure".into()),
        };
        let (class, subject, detail) = status;
        SmtpReply::new(code, &text).with_enhanced(EnhancedStatus::new(class, subject, detail))
    }
}

/// SES's words. Whatever does not fit a line of a reply is cut at a whole address, and three
/// periods say so.
fn not_verified(identities: &[String], region: &str) -> String {
    let region = region.to_ascii_uppercase();
    let mut text = format!(
        "Message rejected: Email address is not verified. \
         The following identities failed the check in region {region}: "
    );
    for (index, identity) in identities.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let is_last = index + 1 == identities.len();
        let more = if is_last { 0 } else { ", ...".len() };
        if text.len() + separator.len() + identity.len() + more > MAX_TEXT {
            text.push_str(separator);
            text.push_str("...");
            break;
        }
        text.push_str(separator);
        text.push_str(identity);
    }
    text
}

impl From<Refusal> for SmtpReply {
    fn from(refusal: Refusal) -> Self {
        refusal.reply()
    }
}

impl From<BadAddress> for Refusal {
    fn from(bad: BadAddress) -> Self {
        Self::BadAddress(bad)
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid => Self::InvalidCredentials,
            AuthError::Disabled => Self::Disabled,
            _ => Self::AuthFault,
        }
    }
}

impl From<postrider_mail::Error> for Refusal {
    fn from(error: postrider_mail::Error) -> Self {
        match error {
            postrider_mail::Error::TooManyFields => Self::TooManyFields,
            _ => Self::HeaderTooLong,
        }
    }
}

impl From<KeyRingError> for Refusal {
    fn from(error: KeyRingError) -> Self {
        match error {
            KeyRingError::Header(error) => error.into(),
            _ => Self::NotSigned,
        }
    }
}

impl From<postrider_spool::Error> for Refusal {
    fn from(error: postrider_spool::Error) -> Self {
        match error {
            postrider_spool::Error::Full(_) => Self::NoRoom,
            postrider_spool::Error::TooLarge(_) => Self::TooLong,
            _ => Self::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_the_words_that_clients_know() {
        for (refusal, line) in [
            (Refusal::InvalidCredentials, "535 5.7.8 Authentication Credentials Invalid"),
            (Refusal::Disabled, "535 5.7.13 Account not subscribed to SES"),
            (Refusal::AuthFault, "454 4.7.0 Temporary authentication failure"),
            (Refusal::TooLong, "552 5.3.4 Message is too long."),
            (Refusal::TooManyRecipients(50), "554 5.5.3 Transaction failed: Recipient count exceeds 50."),
            (Refusal::HoldTooLong(60), "501 5.5.4 Hold exceeds 60 seconds"),
            (Refusal::DuplicateHeader("Subject"), "554 5.6.0 Transaction failed: Duplicate header 'Subject'."),
            (
                Refusal::Mime(MimeFault::IllegalFilename("a.exe".into())),
                "554 5.6.1 Transaction failed: Illegal filename 'a.exe'.",
            ),
            (Refusal::MissingHeader("From"), "554 5.6.0 Transaction failed: Missing required header 'From'."),
            (Refusal::TooManyHops, "554 5.4.6 Transaction failed: Too many hops."),
            (
                Refusal::MailFromDomainNotVerified,
                "554 5.7.1 MAIL FROM domain not verified: DNS setup for MAIL FROM domain is invalid.",
            ),
            (Refusal::RateExceeded, "454 4.7.0 Throttling failure: Maximum sending rate exceeded."),
            (Refusal::DailyQuotaExceeded, "454 4.7.0 Throttling failure: Daily message quota exceeded."),
            (Refusal::NoRoom, "452 4.3.1 Insufficient system storage"),
            (Refusal::FilterDown, "451 4.7.1 Temporary service failure"),
            (Refusal::Filtered(Box::new(SmtpReply::new(550, "5.7.1 No"))), "550 5.7.1 No"),
            (Refusal::Unavailable, "451 4.3.0 Temporary service failure"),
        ] {
            assert_eq!(refusal.reply().to_string(), line);
        }
    }

    /// Clients' authors and operators look replies up there.
    #[test]
    fn every_refusal_is_in_the_reference() {
        let reference = include_str!("../../../docs/smtp.md");
        for refusal in [
            Refusal::InvalidCredentials,
            Refusal::Disabled,
            Refusal::AuthFault,
            Refusal::UnknownMechanism,
            Refusal::TooLong,
            Refusal::TooManyRecipients(1),
            Refusal::NonAsciiAddress,
            Refusal::HoldTooLong(1),
            Refusal::HeaderTooLong,
            Refusal::TooManyFields,
            Refusal::DuplicateHeader("NAME"),
            Refusal::MissingHeader("NAME"),
            Refusal::NotVerified { identities: vec!["IDENTITY".into()], region: "region".into() },
            Refusal::UnknownConfigurationSet("NAME".into()),
            Refusal::AccountPaused,
            Refusal::ConfigurationSetPaused,
            Refusal::PausedByRule,
            Refusal::InvalidArn("FIELD: WHAT".into()),
            Refusal::AccessDenied("WHAT".into()),
            crate::header::mailboxes("TEXT").unwrap_err().into(),
            Refusal::Mime(MimeFault::IllegalFilename("NAME".into())),
            Refusal::Mime(MimeFault::NoBoundary),
            Refusal::Mime(MimeFault::NoPart),
            Refusal::Mime(MimeFault::LongBoundary),
            Refusal::Mime(MimeFault::TooDeep),
            Refusal::Mime(MimeFault::LongField),
            Refusal::TooManyHops,
            Refusal::MailFromDomainNotVerified,
            Refusal::RateExceeded,
            Refusal::DailyQuotaExceeded,
            Refusal::FilterDown,
            Refusal::NoRoom,
            Refusal::Unavailable,
        ] {
            let reply = refusal.reply();
            let status = reply.enhanced.map(|status| status.to_string()).unwrap_or_default();
            // Numbers stand there as N.
            let (before, after) = reply.lines[0].split_at(reply.lines[0].find(char::is_numeric).unwrap_or(0));
            let number = if before.is_empty() { "" } else { "N" };
            let after = after.trim_start_matches(char::is_numeric);
            let row = format!("| `{}` | `{status}` | `{before}{number}{after}` |", reply.code);
            assert!(reference.contains(&row), "docs/smtp.md lacks {row}");
        }
    }

    #[test]
    fn failures_of_the_spool_are_transient() {
        assert_eq!(Refusal::from(postrider_spool::Error::Full("disk")), Refusal::NoRoom);
        assert_eq!(Refusal::from(postrider_spool::Error::Poisoned), Refusal::Unavailable);
        assert_eq!(Refusal::from(postrider_spool::Error::NoFile), Refusal::Unavailable);
        assert_eq!(Refusal::from(postrider_spool::Error::TooLarge("envelope")), Refusal::TooLong);
        assert_eq!(Refusal::from(KeyRingError::Interrupted), Refusal::NotSigned);
    }
}
