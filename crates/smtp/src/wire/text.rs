//! Message text on its way in: line ends, NUL, and how much of it is kept.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr3;

use super::ContentBuilder;

/// What to do with a line feed that no carriage return precedes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BareLineFeed {
    /// It becomes CRLF.
    #[default]
    Convert,
    /// The message is refused.
    Reject,
}

/// Why a message's content can not be accepted, whatever the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentFault {
    /// More octets than the limit.
    TooLong,
    /// It has a NUL octet (RFC 5321 section 4.5.2 and RFC 5322 section 2.1 allow none).
    Nul,
    /// A carriage return without line feed in the header, where a reader
    /// could take it for the end of a field.
    BareCarriageReturn,
    /// A line feed without carriage return, and the policy refuses it.
    BareLineFeed,
}

/// Keeps text with all its lines ended by CRLF, in spans that are split off
/// the input without a copy where nothing has to change. After the first fault
/// nothing is kept.
#[derive(Debug)]
pub(super) struct TextBuilder {
    content: ContentBuilder,
    limit: u64,
    bare_line_feed: BareLineFeed,
    /// The last octets consumed were CRLF (or nothing has been consumed yet).
    after_crlf: bool,
    /// The current line has no octet so far.
    line_empty: bool,
    in_header: bool,
    fault: Option<ContentFault>,
}

/// Why [`TextBuilder::take`] went no further.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The input has nothing more, or a carriage return that can not be judged yet.
    End,
    /// The input begins with a dot that CRLF precedes.
    Dot,
}

/// What the scan found at the first place where the input is not kept as it is.
enum Step {
    /// Keep so many octets and stop.
    Stop(usize, Stop),
    /// Keep so many octets; the next one is a carriage return without line feed.
    CarriageReturn(usize),
    /// Keep so many octets; the next one is a line feed without carriage return.
    LineFeed(usize),
    /// Keep so many octets; the next one is NUL.
    Nul(usize),
}

impl TextBuilder {
    /// Keeps at most `limit` octets, line ends counted as they are kept.
    pub(super) fn new(limit: u64, bare_line_feed: BareLineFeed) -> TextBuilder {
        TextBuilder {
            content: ContentBuilder::new(),
            limit,
            bare_line_feed,
            // RFC 5321 section 4.1.1.4: the CRLF that ends the DATA command
            // also begins the end-of-data sequence of an empty message.
            after_crlf: true,
            line_empty: true,
            in_header: true,
            fault: None,
        }
    }

    /// Consumes what can be judged. With `dots`, stops at each dot that begins a line.
    pub(super) fn take(&mut self, input: &mut BytesMut, dots: bool) -> Stop {
        loop {
            match self.scan(input, dots) {
                Step::Stop(octets, stop) => {
                    self.keep(input, octets);
                    return stop;
                }
                Step::CarriageReturn(octets) => {
                    self.keep(input, octets);
                    input.advance(1);
                    self.bare_carriage_return();
                }
                Step::LineFeed(octets) => {
                    self.keep(input, octets);
                    input.advance(1);
                    self.end_line(false);
                    match self.bare_line_feed {
                        BareLineFeed::Convert => self.insert(b"\r\n"),
                        BareLineFeed::Reject => self.fail(ContentFault::BareLineFeed),
                    }
                }
                Step::Nul(octets) => {
                    self.keep(input, octets);
                    input.advance(1);
                    self.passed(1);
                    self.fail(ContentFault::Nul);
                }
            }
        }
    }

    /// Goes past a dot that begins a line, which is not kept.
    pub(super) fn skip_dot(&mut self, input: &mut BytesMut) {
        input.advance(1);
        self.after_crlf = false;
    }

    /// Takes the end of a line whose two octets did not come together.
    pub(super) fn line_end(&mut self) {
        self.end_line(true);
        self.insert(b"\r\n");
    }

    /// Takes a carriage return that no line feed follows.
    pub(super) fn bare_carriage_return(&mut self) {
        self.passed(1);
        if self.in_header {
            self.fail(ContentFault::BareCarriageReturn);
        } else {
            self.insert(b" ");
        }
    }

    /// Keeps octets as they are, whatever they may be.
    pub(super) fn raw(&mut self, octets: BytesMut) {
        if self.room_for(octets.len()) {
            self.content.push(octets.freeze());
        }
    }

    /// Ends the last line, if it has no end.
    pub(super) fn complete(&mut self) {
        if !self.line_empty {
            self.line_end();
        }
    }

    /// The first fault is the one that is told.
    pub(super) fn fail(&mut self, fault: ContentFault) {
        self.content.clear();
        self.fault.get_or_insert(fault);
    }

    pub(super) fn fault(&self) -> Option<ContentFault> {
        self.fault
    }

    /// Octets kept so far.
    pub(super) fn kept(&self) -> u64 {
        self.content.len()
    }

    pub(super) fn finish(&mut self) -> Result<Vec<Bytes>, ContentFault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self.content.finish()),
        }
    }

    fn scan(&mut self, input: &[u8], dots: bool) -> Step {
        let mut at = 0;
        loop {
            if dots && self.after_crlf && input.get(at) == Some(&b'.') {
                return Step::Stop(at, Stop::Dot);
            }
            let Some(offset) = memchr3(b'\r', b'\n', 0, &input[at..]) else {
                self.passed(input.len() - at);
                return Step::Stop(input.len(), Stop::End);
            };
            self.passed(offset);
            at += offset;
            match (input[at], input.get(at + 1)) {
                (b'\r', Some(b'\n')) => {
                    self.end_line(true);
                    at += 2;
                }
                (b'\r', None) => return Step::Stop(at, Stop::End),
                (b'\r', Some(_)) => return Step::CarriageReturn(at),
                (b'\n', _) => return Step::LineFeed(at),
                _ => return Step::Nul(at),
            }
        }
    }

    /// So many octets of the current line went by.
    fn passed(&mut self, octets: usize) {
        if octets > 0 {
            self.after_crlf = false;
            self.line_empty = false;
        }
    }

    fn end_line(&mut self, crlf: bool) {
        if self.line_empty {
            self.in_header = false;
        }
        self.line_empty = true;
        self.after_crlf = crlf;
    }

    fn keep(&mut self, input: &mut BytesMut, octets: usize) {
        if octets == 0 {
            return;
        }
        if self.room_for(octets) {
            self.content.push(input.split_to(octets).freeze());
        } else {
            input.advance(octets);
        }
    }

    fn insert(&mut self, octets: &'static [u8]) {
        if self.room_for(octets.len()) {
            self.content.push_slice(octets);
        }
    }

    fn room_for(&mut self, octets: usize) -> bool {
        if self.fault.is_none() && self.content.len() + octets as u64 > self.limit {
            self.fail(ContentFault::TooLong);
        }
        self.fault.is_none()
    }
}
