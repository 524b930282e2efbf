//! The way through the parts of a message, from its first line to its last.

use bytes::Bytes;

use super::lines::Lines;
use super::part::{Content, FieldName, PartHeader};
use super::{BlockedAttachments, MAX_BOUNDARY, MAX_DEPTH, MAX_FIELD, MimeFault};

/// Longest piece of a delimiter line that is looked at: hyphens, boundary, hyphens.
const MAX_DELIMITER: usize = MAX_BOUNDARY + 4;

/// Looks at the names of all files; says how many bytes that took.
pub(super) fn walk(top: &PartHeader, body: &[Bytes], blocked: &BlockedAttachments) -> Result<u64, MimeFault> {
    if top.is_plain() {
        return Ok(0);
    }
    let mut walk = Walk { lines: Lines::new(body), open: Vec::new(), blocked, compared: 0 };
    let mut state = walk.enter(top, true)?;
    while let Some(now) = state {
        state = match now {
            State::Header { is_message } => walk.header(is_message)?,
            State::Body => walk.body(),
        };
        if walk.open.is_empty() && state == Some(State::Body) {
            break;
        }
    }
    if walk.open.first().is_some_and(|outermost| !outermost.has_part) {
        return Err(MimeFault::NoPart);
    }
    Ok(walk.lines.work + walk.compared)
}

struct Walk<'b> {
    lines: Lines<'b>,
    /// The multiparts that have not ended, the outermost first.
    open: Vec<Multipart>,
    blocked: &'b BlockedAttachments,
    /// Bytes of headers and boundaries that were looked at once more.
    compared: u64,
}

struct Multipart {
    boundary: Vec<u8>,
    is_digest: bool,
    has_part: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The header of a part, or of a message where its type does not say otherwise.
    Header { is_message: bool },
    /// What is passed over up to a delimiter.
    Body,
}

impl Walk<'_> {
    /// What is below this header.
    fn enter(&mut self, header: &PartHeader, is_top: bool) -> Result<Option<State>, MimeFault> {
        self.compared += header.work;
        if let Some(name) = header.names.iter().find(|name| self.blocked.contains(name)) {
            return Err(MimeFault::IllegalFilename(postrider_mail::sanitize_text(name, 128)));
        }
        match &header.content {
            Content::Multipart { boundary: None, .. } if is_top => Err(MimeFault::NoBoundary),
            Content::Multipart { boundary: Some(boundary), is_digest } => {
                if boundary.len() > MAX_BOUNDARY {
                    return Err(MimeFault::LongBoundary);
                }
                if self.open.len() == MAX_DEPTH {
                    return Err(MimeFault::TooDeep);
                }
                let (boundary, is_digest) = (boundary.clone(), *is_digest);
                self.open.push(Multipart { boundary, is_digest, has_part: false });
                Ok(Some(State::Body))
            }
            Content::Message if !header.is_encoded => Ok(Some(State::Header { is_message: false })),
            _ => Ok(Some(State::Body)),
        }
    }

    /// Reads a header up to its blank line, or to a delimiter that cuts it off.
    fn header(&mut self, is_message: bool) -> Result<Option<State>, MimeFault> {
        let mut header = PartHeader::default();
        let mut field = Field::default();
        loop {
            let Some(line) = self.lines.next(MAX_FIELD + 1) else {
                field.read_into(&mut header);
                return self.enter(&header, false).map(|_| None);
            };
            if let Some(state) = self.delimiter(&line) {
                field.read_into(&mut header);
                // What was announced does not come.
                self.enter(&PartHeader { content: Content::Leaf, ..header }, false)?;
                return Ok(Some(state));
            }
            if line.is_empty() {
                field.read_into(&mut header);
                if is_message && !header.has_type {
                    header.content = Content::Message;
                }
                return self.enter(&header, false);
            }
            field.add(&line, &mut header)?;
        }
    }

    /// Passes over a body up to a delimiter.
    fn body(&mut self) -> Option<State> {
        loop {
            let line = self.lines.next_with_dashes(MAX_DELIMITER)?;
            if let Some(state) = self.delimiter(&line) {
                return Some(state);
            }
        }
    }

    /// What comes after this line if it ends a part: RFC 2046 section 5.1.1 wants the boundary
    /// at its front and no more. Where several are, it is the longest one's; whatever is open
    /// inside of that has ended too.
    fn delimiter(&mut self, line: &[u8]) -> Option<State> {
        let text = line.strip_prefix(b"--")?;
        let mut found: Option<usize> = None;
        for (index, multipart) in self.open.iter().enumerate() {
            let boundary = &multipart.boundary;
            self.compared += 1 + boundary.iter().zip(text).take_while(|(a, b)| a == b).count() as u64;
            let is_longer = found.is_none_or(|found| boundary.len() >= self.open[found].boundary.len());
            if is_longer && text.starts_with(boundary) {
                found = Some(index);
            }
        }
        let found = found?;
        let is_last = text[self.open[found].boundary.len()..].starts_with(b"--");
        if is_last && self.open[found].has_part {
            self.open.truncate(found);
            return Some(State::Body);
        }
        self.open.truncate(found + 1);
        let multipart = &mut self.open[found];
        multipart.has_part = true;
        Some(State::Header { is_message: multipart.is_digest })
    }
}

/// The field of a part's header that is being read, if it is one that counts.
#[derive(Default)]
struct Field {
    name: Option<FieldName>,
    value: Vec<u8>,
}

impl Field {
    fn add(&mut self, line: &[u8], header: &mut PartHeader) -> Result<(), MimeFault> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            if self.name.is_some() {
                self.value.extend_from_slice(line);
            }
        } else {
            self.read_into(header);
            let (name, value) = split(line);
            self.name = FieldName::of(name);
            if self.name.is_some() {
                self.value.extend_from_slice(value);
            }
        }
        if self.value.len() > MAX_FIELD { Err(MimeFault::LongField) } else { Ok(()) }
    }

    fn read_into(&mut self, header: &mut PartHeader) {
        if let Some(name) = self.name.take() {
            header.read_field(name, &self.value);
        }
        self.value.clear();
    }
}

/// The name, without blanks before the colon (RFC 5322 section 4.5), and the value.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = memchr::memchr(b':', line) else { return (b"", b"") };
    (line[..colon].trim_ascii_end(), &line[colon + 1..])
}
