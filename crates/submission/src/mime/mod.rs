//! Attachments, as far as acceptance looks at them: the names of files. One pass over the body
//! finds the headers of all parts, those of attached messages too; nothing is decoded but
//! names, nothing is copied but the fields that have them, and nothing is changed.
//!
//! What is read as a part is what receivers may read as one: a name that any of them would
//! show is looked at.

mod blocked;
mod lines;
mod names;
mod parameters;
mod part;
#[cfg(test)]
mod tests;
mod walk;

use bytes::Bytes;

use crate::Refusal;

pub use blocked::BlockedAttachments;
pub(crate) use names::decode_name;
pub(crate) use part::PartHeader;

/// Deepest nesting of multiparts.
const MAX_DEPTH: usize = 32;
/// Longest boundary; RFC 2046 section 5.1.1 has 70 characters.
const MAX_BOUNDARY: usize = 250;
/// Longest field of a part that is read.
const MAX_FIELD: usize = 64 * 1024;

/// What is wrong with the parts of a message. Does not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MimeFault {
    /// A file of a kind that is not taken.
    #[error("Illegal filename '{0}'.")]
    IllegalFilename(String),
    /// A multipart that does not say what its parts are divided by.
    #[error("Multipart without boundary.")]
    NoBoundary,
    /// The body of a multipart has no part.
    #[error("Missing start boundary.")]
    NoPart,
    /// A boundary that no line would hold.
    #[error("Boundary exceeds {MAX_BOUNDARY} characters.")]
    LongBoundary,
    /// Parts in parts in parts.
    #[error("Parts are nested more than {MAX_DEPTH} deep.")]
    TooDeep,
    /// A field of a part that is longer than one can be.
    #[error("Header field of a part exceeds {MAX_FIELD} bytes.")]
    LongField,
}

/// Whether a message's files may be sent. `top` is what its header says of its body, which is
/// in pieces.
///
/// # Errors
/// [`Refusal::Mime`].
pub(crate) fn check(top: &PartHeader, body: &[Bytes], blocked: &BlockedAttachments) -> Result<(), Refusal> {
    if blocked.is_empty() {
        return Ok(());
    }
    walk::walk(top, body, blocked).map(drop).map_err(Refusal::Mime)
}

/// What the walk through a whole message, header included, finds, and how many bytes it looked
/// at on its way, some more than once.
pub(crate) fn work(message: &[u8], blocked: &BlockedAttachments) -> (Result<(), MimeFault>, u64) {
    let mut top = PartHeader::default();
    let Ok(header) = postrider_mail::HeaderBlock::parse(message) else { return (Ok(()), 0) };
    let mut work = header.body_offset() as u64;
    for field in header.fields() {
        top.read(field.name(), field.raw_value());
    }
    work += top.work;
    let body = [Bytes::copy_from_slice(&message[header.body_offset()..])];
    match walk::walk(&top, &body, blocked) {
        Ok(walked) => (Ok(()), work + walked),
        Err(fault) => (Err(fault), work),
    }
}
