//! Why something was not accepted, and the one place where that becomes a reply.

use postrider_account::AuthError;
use postrider_mail::{EnhancedStatus, MAX_HEADER_BYTES, MAX_HEADER_FIELDS, SmtpReply};

use crate::KeyRingError;

/// Why a client or a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// Some mail server's configuration: the message runs in a loop. Does not pass.
    #[error("the message has been through too many hosts")]
    TooManyHops,
    /// The owner's of the author's identity: its mail is to be refused while its MAIL FROM
    /// domain is not as it should be, and it is not. Passes when its records are published
    /// and seen (SES: `MailFromDomainNotVerified`).
    #[error("the MAIL FROM domain of the author's identity is not verified")]
    MailFromDomainNotVerified,
    /// Ours: there is a key for the message, and it could not be signed. Sent without its
    /// signature it might be refused elsewhere for good. Passes when the key is mended.
    #[error("the message could not be signed")]
    NotSigned,
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
        let (code, status, text) = match *self {
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
            Self::TooManyHops => (554, (5, 4, 6), "Transaction failed: Too many hops.".into()),
            Self::MailFromDomainNotVerified => {
                (554, (5, 7, 1), "MAIL FROM domain not verified: DNS setup for MAIL FROM domain is invalid.".into())
            }
            // RFC 5321 section 4.2.3
            Self::NoRoom => (452, (4, 3, 1), "Insufficient system storage".into()),
            Self::NotSigned | Self::Unavailable => (451, (4, 3, 0), "Temporary service failure".into()),
        };
        let (class, subject, detail) = status;
        SmtpReply::new(code, &text).with_enhanced(EnhancedStatus::new(class, subject, detail))
    }
}

impl From<Refusal> for SmtpReply {
    fn from(refusal: Refusal) -> Self {
        refusal.reply()
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
            (Refusal::TooManyHops, "554 5.4.6 Transaction failed: Too many hops."),
            (
                Refusal::MailFromDomainNotVerified,
                "554 5.7.1 MAIL FROM domain not verified: DNS setup for MAIL FROM domain is invalid.",
            ),
            (Refusal::NoRoom, "452 4.3.1 Insufficient system storage"),
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
            Refusal::TooManyHops,
            Refusal::MailFromDomainNotVerified,
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
