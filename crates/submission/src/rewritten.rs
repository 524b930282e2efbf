//! The content of a message with its header written anew: the header is copied, the body stays
//! in the pieces that it came in.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use postrider_mail::MAX_HEADER_BYTES;

use crate::header::{Stamp, Understood, rewrite};
use crate::{BlockedAttachments, Refusal, mime};

/// A message whose header is as it will leave, but for the signatures.
pub(crate) struct Rewritten {
    /// What its header says.
    pub(crate) understood: Understood,
    header: Vec<u8>,
    /// The piece that has the old header, and how the body begins.
    front: Bytes,
    rest: Vec<Bytes>,
}

impl Rewritten {
    /// The new header begins with what `received` writes.
    ///
    /// # Errors
    /// The refusals that a header can earn.
    pub(crate) fn new(
        content: Vec<Bytes>,
        stamp: &Stamp<'_>,
        received: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Self, Refusal> {
        let (front, rest) = gather_header(content);
        let mut header = Vec::with_capacity(2048);
        received(&mut header);
        let understood = rewrite(&front, stamp, &mut header)?;
        Ok(Self { understood, header, front, rest })
    }

    /// What the header says, and the content in pieces, when its parts may be sent.
    ///
    /// # Errors
    /// [`Refusal::Mime`].
    pub(crate) fn checked(self, blocked: &BlockedAttachments) -> Result<(Understood, Vec<Bytes>), Refusal> {
        let Self { understood, header, front, rest } = self;
        let mut content = Vec::with_capacity(2 + rest.len());
        content.push(Bytes::from(header));
        content.push(front.slice(understood.body_offset..));
        content.extend(rest);
        mime::check(&understood.content, &content[1..], blocked)?;
        Ok((understood, content))
    }
}

/// Brings the header into one piece, with what follows it in its last chunk; the other
/// chunks are left as they are. Copies only when the first chunk does not hold it all.
fn gather_header(content: Vec<Bytes>) -> (Bytes, Vec<Bytes>) {
    let mut chunks = content.into_iter();
    let first = chunks.next().unwrap_or_default();
    if chunks.len() == 0 || header_ends(&first, 0) {
        return (first, chunks.collect());
    }
    let mut front = BytesMut::from(first);
    for chunk in chunks.by_ref() {
        // The blank line may begin in the chunk before.
        let from = front.len().saturating_sub(3);
        front.extend_from_slice(&chunk);
        if header_ends(&front, from) || front.len() > MAX_HEADER_BYTES {
            break;
        }
    }
    (front.freeze(), chunks.collect())
}

/// Whether there is a blank line, looking from `from` on.
fn header_ends(bytes: &[u8], from: usize) -> bool {
    bytes.starts_with(b"\r\n") || memmem::find(&bytes[from..], b"\r\n\r\n").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(parts: &[&'static str]) -> Vec<Bytes> {
        parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect()
    }

    #[test]
    fn a_header_in_one_chunk_is_not_copied() {
        let content = chunks(&["A: b\r\n\r\nbody", "more"]);
        let (front, rest) = gather_header(content.clone());
        assert_eq!(front.as_ptr(), content[0].as_ptr());
        assert_eq!(rest, &content[1..]);
    }

    #[test]
    fn a_header_in_pieces_is_joined_and_no_more() {
        let (front, rest) = gather_header(chunks(&["A: b\r", "\nSub", "ject: c\r\n", "\r\nbody", "more"]));
        assert_eq!(front, "A: b\r\nSubject: c\r\n\r\nbody");
        assert_eq!(rest, chunks(&["more"]));
        let (front, rest) = gather_header(chunks(&["\r\n", "body"]));
        assert_eq!((front.as_ref(), rest), (&b"\r\n"[..], chunks(&["body"])));
        let (front, rest) = gather_header(vec![]);
        assert!(front.is_empty() && rest.is_empty());
    }
}
