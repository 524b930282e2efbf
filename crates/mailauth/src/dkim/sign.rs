//! Signatures.

use aws_lc_rs::digest::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_base::Timestamp;
use postrider_mail::{Domain, Field, HeaderBlock};

use super::canonical::{BodyHasher, relaxed};
use super::{Algorithm, KeyError, PrivateKey, Selector};

const NAME: &str = "DKIM-Signature";

const FOLD: &str = "\r\n\t";

/// Longest line of the field, its tab not counted.
const LINE: usize = 72;

/// How a field is covered. Every instance of a covered field is signed, whoever reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cover {
    /// Those that are there, and that there is no other: a field that readers see or go by,
    /// which nobody may add to a copy of the message that they send on. RFC 6376 section
    /// 8.15
    Always,
    /// The same where there is one at least. Where there is none, an honest hop may add it:
    /// MIME fields to a message without, an answer's references.
    Present,
    /// Those that are there. More may come: a mailing list's, or those of another resending.
    Found,
}

/// What is signed, in the order of `h=`. What changes on the way (`Received`,
/// `Return-Path`, `Bcc`), signatures of others and fields for the relay alone are not here.
/// RFC 6376 section 5.4.1
const COVERED: [(&str, Cover); 34] = [
    ("From", Cover::Always),
    ("Reply-To", Cover::Always),
    ("Subject", Cover::Always),
    ("Date", Cover::Always),
    ("Message-ID", Cover::Always),
    ("To", Cover::Always),
    ("Cc", Cover::Always),
    ("Sender", Cover::Present),
    ("In-Reply-To", Cover::Present),
    ("References", Cover::Present),
    ("MIME-Version", Cover::Present),
    ("Content-Type", Cover::Present),
    ("Content-Transfer-Encoding", Cover::Present),
    ("Content-ID", Cover::Present),
    ("Content-Description", Cover::Present),
    ("Content-Disposition", Cover::Present),
    // RFC 8058 section 4: both must be covered, and another pair must not lead elsewhere.
    ("List-Unsubscribe", Cover::Present),
    ("List-Unsubscribe-Post", Cover::Present),
    ("List-Id", Cover::Found),
    ("List-Help", Cover::Found),
    ("List-Subscribe", Cover::Found),
    ("List-Post", Cover::Found),
    ("List-Owner", Cover::Found),
    ("List-Archive", Cover::Found),
    ("Resent-Date", Cover::Found),
    ("Resent-From", Cover::Found),
    ("Resent-Sender", Cover::Found),
    ("Resent-To", Cover::Found),
    ("Resent-Cc", Cover::Found),
    ("Resent-Message-ID", Cover::Found),
    // Gmail's feedback loop goes by it only where it is signed.
    ("Feedback-ID", Cover::Present),
    ("Auto-Submitted", Cover::Found),
    // RFC 8460 section 5.3: of reports.
    ("TLS-Report-Domain", Cover::Found),
    ("TLS-Report-Submitter", Cover::Found),
];

/// Why a message could not be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The sender's: nobody could tell whose signature it is. RFC 6376 section 5.4
    #[error("a message without a From field can not be signed")]
    NoFrom,
    /// The machine's: the key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A message as signers look at it: its body has been hashed once, whoever signs it. It must
/// be in its final form: what is changed afterwards breaks the signatures.
pub struct Digested<'a> {
    fields: Vec<&'a Field<'a>>,
    /// What `h=` says.
    names: Vec<&'static str>,
    body: Digest,
}

impl<'a> Digested<'a> {
    /// Looks at the fields of `header` and the pieces of the body, which begins after the
    /// blank line. Nothing of the body is copied.
    ///
    /// # Errors
    /// [`SignError::NoFrom`].
    pub fn new<'b>(header: &'a HeaderBlock<'a>, body: impl IntoIterator<Item = &'b [u8]>) -> Result<Self, SignError> {
        if header.find("From").is_none() {
            return Err(SignError::NoFrom);
        }
        let (mut fields, mut names) = (Vec::with_capacity(24), Vec::with_capacity(32));
        for (name, cover) in COVERED {
            let before = fields.len();
            // RFC 6376 section 5.4.2: of repeated fields the last is the first to be signed.
            fields.extend(header.fields().rev().filter(|field| field.is(name)));
            let found = fields.len() - before;
            let beyond = match cover {
                Cover::Always => 1,
                Cover::Present => usize::from(found > 0),
                Cover::Found => 0,
            };
            names.extend(std::iter::repeat_n(name, found + beyond));
        }
        let mut hasher = BodyHasher::new();
        body.into_iter().for_each(|piece| hasher.update(piece));
        Ok(Self { fields, names, body: hasher.finish() })
    }
}

/// A key that signs for a domain: read once, used for every message.
#[derive(Debug)]
pub struct Signer {
    domain: Domain,
    selector: Selector,
    key: PrivateKey,
}

impl Signer {
    /// Signs for `domain` with the key that is published under this selector.
    #[must_use]
    pub fn new(domain: Domain, selector: Selector, key: PrivateKey) -> Self {
        Self { domain, selector, key }
    }

    /// Whom it signs for.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The name of its key.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// Appends a `DKIM-Signature` field with its line end to `out`; it belongs in front of
    /// the header. `at` is when the message was accepted. The signature has no end (`x=`): a
    /// message can lie in a queue for days, here and elsewhere, and whoever replays one does
    /// so within the hour.
    ///
    /// # Errors
    /// [`SignError::Key`].
    pub fn sign(&self, message: &Digested<'_>, at: Timestamp, out: &mut Vec<u8>) -> Result<(), SignError> {
        let mut data = Vec::with_capacity(4096);
        for field in &message.fields {
            relaxed(field.name(), field.raw_value(), &mut data);
            data.extend_from_slice(b"\r\n");
        }
        // RFC 6376 section 3.7: last the field itself, with an empty b= and no line end.
        let tags = self.tags(message, at);
        relaxed(NAME.as_bytes(), tags.as_bytes(), &mut data);
        let signature = STANDARD.encode(self.key.sign(&data)?);
        out.extend_from_slice(NAME.as_bytes());
        out.push(b':');
        out.extend_from_slice(tags.as_bytes());
        // The last tag, and nothing behind it: there are verifiers that, when they take the value
        // away, leave a fold that stands between it and a semicolon.
        for line in signature.as_bytes().chunks(LINE) {
            out.extend_from_slice(FOLD.as_bytes());
            out.extend_from_slice(line);
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The tags up to `b=`, folded.
    fn tags(&self, message: &Digested<'_>, at: Timestamp) -> String {
        let Self { domain, selector, key } = self;
        let (algorithm, seconds) = (key.algorithm(), at.as_millis() / 1000);
        let mut text =
            format!(" v=1; a={algorithm}; c=relaxed/simple; d={domain};{FOLD}s={selector}; t={seconds};{FOLD}h=");
        let mut width = "h=".len();
        for (index, name) in message.names.iter().enumerate() {
            if index > 0 {
                text.push(':');
                width += 1;
            }
            if width + name.len() >= LINE {
                text.push_str(FOLD);
                width = 0;
            }
            text.push_str(name);
            width += name.len();
        }
        text + ";" + FOLD + "bh=" + &STANDARD.encode(message.body) + ";" + FOLD + "b="
    }
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
