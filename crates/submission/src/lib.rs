//! Acceptance of mail: authenticate the client, decide, rewrite the header, commit to the spool.
//! Not the SMTP dialogue and not delivery: it is handed a whole message and answers when the
//! message is on disk, whoever brings it (SMTP, HTTP, or this relay with a bounce).
//!
//! What happens to a message's bytes, and nothing else does:
//! - a `Received` field goes in front;
//! - `Date` and `Message-ID` are replaced by ours, or added (see [`Preserve`]);
//! - `Bcc`, `Return-Path` and every `X-SES-*` field are taken off;
//! - `DKIM-Signature` fields go in front of everything, where there is a key;
//! - a missing blank line between header and body is put there.

mod author;
mod header;
mod milter;
mod mime;
mod own;
mod refusal;
mod return_path;
mod rewritten;
mod rules;
mod sasl;
mod settings;
mod sign;
mod submit;
mod trace;

pub use author::author;
pub use header::{BadAddress, HeaderRules};
pub use mime::{BlockedAttachments, MimeFault};
pub use own::{Letter, Notification, OwnMessage};
pub use postrider_account::{Authenticated, Guard, RecipientOverflow, Verdict};
pub use postrider_mailauth::MacKey;
pub use postrider_spool::OriginKind;
pub use refusal::Refusal;
pub use return_path::ReturnPaths;
pub use rules::{Answer, Question, Rules};
pub use sasl::{AuthStep, SaslExchange};
pub use settings::{Preserve, ReturnPath, Settings, UnverifiedSenders};
pub use sign::{DkimSettings, KeyRing, KeyRingDeps, KeyRingError, Sealer, Signing};
pub use submit::{Client, Submission, SubmissionDeps, SubmissionRequest};

/// For fuzzers, which call what nobody else may: not part of the interface.
#[doc(hidden)]
pub mod internal {
    use crate::header::{Stamp, rewrite};
    use crate::{BlockedAttachments, HeaderRules, MimeFault, Preserve};

    /// The message with the header that acceptance gives it; nothing when it is refused.
    /// What it copies of a body, acceptance does not.
    #[must_use]
    pub fn rewrite_header(message: &[u8]) -> Option<Vec<u8>> {
        let stamp = Stamp {
            date: "Thu, 1 Jan 1970 00:00:00 +0000",
            message_id: "id@example.com",
            preserve: Preserve::Never,
            max_received: 50,
            rules: HeaderRules::Rfc,
        };
        let mut written = Vec::new();
        let understood = rewrite(message, &stamp, &mut written).ok()?;
        written.extend_from_slice(&message[understood.body_offset..]);
        Some(written)
    }

    /// What is wrong with the parts of a message, and how many bytes were looked at to see
    /// that, those counted again that were looked at again.
    pub fn look_at_parts(message: &[u8]) -> (Result<(), MimeFault>, u64) {
        crate::mime::work(message, &BlockedAttachments::default())
    }
}

#[cfg(test)]
mod tests;
