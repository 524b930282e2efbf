//! One message and one filter: what to send next, and what the replies lead to.

use std::net::IpAddr;

use bytes::Bytes;
use postrider_mail::{Field, HeaderBlock, SmtpReply};

use super::changes::Changes;
use super::packet::{Fault, write, write_head};
use super::reply::{Actions, Protocol, Reply};
use crate::OtherChanges;

/// A message as a filter is shown it. No text has NUL in it.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The address of the client that submits it.
    pub client_ip: IpAddr,
    /// What the client called itself.
    pub helo: &'a str,
    /// The sender; empty for the null sender.
    pub sender: &'a str,
    /// The recipients.
    pub recipients: &'a [&'a str],
    /// Whole header fields, without the blank line behind them.
    pub header: &'a [u8],
    /// The body in pieces.
    pub body: &'a [Bytes],
    /// What filters can ask of a mail server, by names such as `i` and `{auth_authen}`; in the order
    /// of their steps.
    pub macros: &'a [Macro<'a>],
}

/// A macro: the step that it is told at, its name, and its value.
pub type Macro<'a> = (Step, &'a str, &'a str);

/// Steps that macros are told at, or at the next one where a filter leaves them out. They hold in
/// all that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The client has connected.
    Connect,
    /// It has said its name.
    Helo,
    /// The sender is known.
    Mail,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub enum Next<'a> {
    /// These bytes are to be sent: the first, and the second behind them.
    Send(Vec<u8>, &'a [u8]),
    /// The filter has the word: what it says goes to [`Session::heard`].
    Listen,
    /// It is over. What is [`FAREWELL`] may be sent.
    Done(Verdict),
}

/// What ends a connection in order.
pub const FAREWELL: [u8; 5] = [0, 0, 0, 1, b'Q'];

/// What is to become of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is taken, with these changes.
    Accept(Changes),
    /// It is taken and thrown away.
    Discard,
    /// The client gets this reply, 4yz or 5yz.
    Refuse(SmtpReply),
}

/// The conversation about one message.
#[derive(Debug)]
pub struct Session<'a> {
    letter: Letter<'a>,
    fields: Vec<Field<'a>>,
    offered: Actions,
    /// What the filter has chosen of what was offered.
    actions: Actions,
    protocol: Protocol,
    stage: Stage,
    /// Macros that it has been told.
    told: usize,
    /// It has yet to answer the last command.
    listens: bool,
    changes: Changes,
    changed: usize,
    verdict: Option<Verdict>,
}

/// What is to be said next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Negotiate,
    Connect,
    Helo,
    Mail,
    Rcpt(usize),
    Data,
    Field(usize),
    EndOfHeader,
    /// The piece of the body and the place in it.
    Body(usize, usize),
    EndOfBody,
    /// Everything has been said.
    Over,
}

const VERSION: u32 = 6;
/// Its replies are a part of those of version 6; nothing speaks older ones any more.
const OLDEST: u32 = 2;
/// Most of the body in one packet, and most of a field: libmilter takes no longer ones.
const CHUNK: usize = 65_535;
/// Most changes of one message, and most bytes in them.
const MAX_CHANGES: usize = 1_000;
const MAX_CHANGED: usize = 1024 * 1024;

impl<'a> Session<'a> {
    /// The conversation about `letter`, in which the filter may ask for changes that are not
    /// supported as `others` says.
    ///
    /// # Errors
    /// [`postrider_mail::Error`] when the header is over its bounds.
    pub fn new(letter: Letter<'a>, others: OtherChanges) -> Result<Self, postrider_mail::Error> {
        let block = HeaderBlock::parse(letter.header)?;
        Ok(Self {
            fields: block.fields().copied().collect(),
            letter,
            offered: match others {
                OtherChanges::Refuse => Actions::SUPPORTED,
                OtherChanges::Ignore => Actions::SUPPORTED.and(Actions::OTHERS),
            },
            actions: Actions::default(),
            protocol: Protocol::default(),
            stage: Stage::Negotiate,
            told: 0,
            listens: false,
            changes: Changes::default(),
            changed: 0,
            verdict: None,
        })
    }

    /// What to do next.
    pub fn turn(&mut self) -> Next<'a> {
        loop {
            if let Some(verdict) = &self.verdict {
                return Next::Done(verdict.clone());
            }
            if self.listens {
                return Next::Listen;
            }
            let stage = self.stage;
            let (left_out, unanswered) = stage.bits();
            if self.protocol.0 & left_out != 0 {
                self.stage = self.after_all(stage);
                continue;
            }
            let Some((command, rest)) = self.say(stage) else {
                self.stage = self.after_all(stage);
                continue;
            };
            self.listens = self.protocol.0 & unanswered == 0;
            self.stage = self.after(stage);
            let mut head = self.macros(stage);
            head.extend(command);
            return Next::Send(head, rest);
        }
    }

    /// Whether values of fields have the blank behind the colon, in both directions.
    fn has_space(&self) -> bool {
        self.protocol.has(Protocol::LEADING_SPACE)
    }

    /// The filter has said something.
    ///
    /// # Errors
    /// A [`Fault`]: it is of no use to go on.
    pub fn heard(&mut self, reply: Reply, letter: u8) -> Result<(), Fault> {
        let unexpected = Fault::Unexpected(char::from(letter));
        if !self.listens || self.verdict.is_some() {
            return Err(unexpected);
        }
        // The stage is the one behind what was said.
        let is_first = self.stage == Stage::Connect;
        let is_end = self.stage == Stage::Over;
        match reply {
            Reply::Negotiated { version, actions, protocol } if is_first => {
                self.agree(version, actions, protocol)?;
                self.listens = false;
            }
            _ if is_first => return Err(unexpected),
            Reply::Progress => {}
            Reply::Continue if is_end => self.accept(),
            Reply::Continue => self.listens = false,
            Reply::Accept => self.accept(),
            Reply::Discard => self.verdict = Some(Verdict::Discard),
            Reply::Reject => self.refuse(SmtpReply::new(550, "5.7.1 Command rejected")),
            Reply::TempFail => self.refuse(SmtpReply::new(451, "4.7.1 Service unavailable - try again later")),
            Reply::Refuse(reply) => self.refuse(reply),
            Reply::Skip if matches!(self.stage, Stage::Body(..) | Stage::EndOfBody) => {
                self.stage = Stage::EndOfBody;
                self.listens = false;
            }
            Reply::Header(change) if is_end && self.may(Actions::ADD_HEADERS.and(Actions::CHANGE_HEADERS)) => {
                self.changed += change.len();
                if self.changes.header.len() == MAX_CHANGES || self.changed > MAX_CHANGED {
                    return Err(Fault::TooMuch);
                }
                self.changes.header.push(change);
            }
            Reply::Quarantine(why) if is_end && self.may(Actions::QUARANTINE) => self.changes.quarantine = Some(why),
            Reply::Other(action) if is_end && self.may(action) => {
                self.changes.ignored = self.changes.ignored.saturating_add(1);
            }
            _ => return Err(unexpected),
        }
        Ok(())
    }

    fn may(&self, actions: Actions) -> bool {
        self.actions.0 & actions.0 != 0
    }

    fn accept(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        self.verdict = Some(Verdict::Accept(Changes { has_space: self.has_space(), ..changes }));
    }

    fn refuse(&mut self, reply: SmtpReply) {
        self.verdict = Some(Verdict::Refuse(reply));
    }

    fn agree(&mut self, version: u32, actions: Actions, protocol: Protocol) -> Result<(), Fault> {
        let unknown = protocol.0 & !Protocol::ALL.0;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(Fault::NotOffered(format!("version {version}")));
        }
        if !actions.beyond(self.offered).is_empty() {
            return Err(Fault::NotOffered(format!("actions {:#x}", actions.beyond(self.offered).0)));
        }
        if unknown != 0 {
            return Err(Fault::NotOffered(format!("steps {unknown:#x}")));
        }
        (self.actions, self.protocol) = (actions, protocol);
        Ok(())
    }
}

/// What is said, and in which order.
impl<'a> Session<'a> {
    /// The command of a stage, and its data as far as that is not copied. `None` when there is
    /// nothing of the kind left.
    fn say(&self, stage: Stage) -> Option<(Vec<u8>, &'a [u8])> {
        let letter = &self.letter;
        let mut out = Vec::with_capacity(256);
        let mut rest: &'a [u8] = &[];
        match stage {
            Stage::Negotiate => {
                let numbers = [VERSION, self.offered.0, Protocol::ALL.0].map(u32::to_be_bytes);
                write(&mut out, b'O', &numbers.each_ref().map(<[u8; 4]>::as_slice));
            }
            Stage::Connect => {
                let (family, ip) = match letter.client_ip.to_canonical() {
                    IpAddr::V4(ip) => (b'4', ip.to_string()),
                    IpAddr::V6(ip) => (b'6', ip.to_string()),
                };
                let name = format!("[{ip}]");
                // Nobody asks for the client's port, and a balancer may have hidden it.
                write(&mut out, b'C', &[name.as_bytes(), &[0, family, 0, 0], ip.as_bytes(), &[0]]);
            }
            Stage::Helo => write(&mut out, b'H', &[letter.helo.as_bytes(), &[0]]),
            Stage::Mail => write(&mut out, b'M', &[b"<", letter.sender.as_bytes(), b">\0"]),
            Stage::Rcpt(number) => {
                let recipient = letter.recipients.get(number)?.as_bytes();
                write(&mut out, b'D', &[b"R{rcpt_addr}\0", recipient, &[0]]);
                write(&mut out, b'R', &[b"<", recipient, b">\0"]);
            }
            Stage::Data => write(&mut out, b'T', &[]),
            Stage::Field(number) => {
                let field = self.fields.get(number)?;
                let (name, value) = (field.name(), self.value(field));
                let name = &name[..name.len().min(CHUNK - 2)];
                // What does not fit is not shown; else there would be no verdict at all.
                let value = &value[..value.len().min(CHUNK - 2 - name.len())];
                write(&mut out, b'L', &[name, &[0], value, &[0]]);
            }
            Stage::EndOfHeader => write(&mut out, b'N', &[]),
            Stage::Body(piece, at) => {
                let left = letter.body.get(piece)?.get(at..)?;
                rest = &left[..left.len().min(CHUNK)];
                write_head(&mut out, b'B', rest.len());
            }
            Stage::EndOfBody => write(&mut out, b'E', &[]),
            Stage::Over => return None,
        }
        Some((out, rest))
    }

    /// The macros that are to be told before a command of this stage, and have not been.
    fn macros(&mut self, stage: Stage) -> Vec<u8> {
        let (step, command) = match stage {
            Stage::Negotiate => return Vec::new(),
            Stage::Connect => (Step::Connect, b'C'),
            Stage::Helo => (Step::Helo, b'H'),
            _ => (Step::Mail, b'M'),
        };
        let due = self.letter.macros[self.told..].iter().take_while(|(at, ..)| *at <= step);
        let (mut data, mut out) = (vec![command], Vec::new());
        for (_, name, value) in due {
            self.told += 1;
            for text in [name, value] {
                data.extend_from_slice(text.as_bytes());
                data.push(0);
            }
        }
        if data.len() > 1 {
            write(&mut out, b'D', &[&data]);
        }
        out
    }

    /// A value as filters get it: lines end in LF, the last one in nothing, NUL is no text.
    fn value(&self, field: &Field<'_>) -> Vec<u8> {
        let value = field.raw_value();
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        let value = if self.has_space() { value } else { value.strip_prefix(b" ").unwrap_or(value) };
        let mut shown = Vec::with_capacity(value.len());
        for (at, byte) in value.iter().enumerate() {
            let is_line_end = *byte == b'\r' && value.get(at + 1) == Some(&b'\n');
            if !is_line_end && *byte != 0 {
                shown.push(*byte);
            }
        }
        shown
    }

    /// What comes behind one command of a stage.
    fn after(&self, stage: Stage) -> Stage {
        match stage {
            Stage::Rcpt(number) => Stage::Rcpt(number + 1),
            Stage::Field(number) => Stage::Field(number + 1),
            Stage::Body(piece, at) => self.body(piece, at + CHUNK),
            stage => self.after_all(stage),
        }
    }

    /// What comes behind all that there is of a stage.
    fn after_all(&self, stage: Stage) -> Stage {
        match stage {
            Stage::Negotiate => Stage::Connect,
            Stage::Connect => Stage::Helo,
            Stage::Helo => Stage::Mail,
            Stage::Mail => Stage::Rcpt(0),
            Stage::Rcpt(_) => Stage::Data,
            Stage::Data => Stage::Field(0),
            Stage::Field(_) => Stage::EndOfHeader,
            Stage::EndOfHeader => self.body(0, 0),
            Stage::Body(..) => Stage::EndOfBody,
            Stage::EndOfBody | Stage::Over => Stage::Over,
        }
    }

    /// The next part of the body that has bytes, or what comes behind it.
    fn body(&self, piece: usize, at: usize) -> Stage {
        let mut piece = piece;
        let mut at = at;
        while let Some(bytes) = self.letter.body.get(piece) {
            if at < bytes.len() {
                return Stage::Body(piece, at);
            }
            (piece, at) = (piece + 1, 0);
        }
        Stage::EndOfBody
    }
}

impl Stage {
    /// The bits of [`Protocol`] that leave its commands out, and that leave them unanswered.
    fn bits(self) -> (u32, u32) {
        match self {
            Self::Negotiate | Self::EndOfBody | Self::Over => (0, 0),
            Self::Connect => (0x01, 0x1000),
            Self::Helo => (0x02, 0x2000),
            Self::Mail => (0x04, 0x4000),
            Self::Rcpt(_) => (0x08, 0x8000),
            Self::Data => (0x200, 0x1_0000),
            Self::Field(_) => (0x20, 0x80),
            Self::EndOfHeader => (0x40, 0x4_0000),
            Self::Body(..) => (0x10, 0x8_0000),
        }
    }
}

#[cfg(test)]
mod tests;
