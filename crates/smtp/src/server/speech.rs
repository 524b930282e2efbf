//! What the server says, and how much nonsense it listens to.

use std::fmt::{Arguments, Display, Write};

use bytes::BytesMut;
use postrider_mail::{EnhancedStatus, Severity, SmtpReply};

use super::replies::{self, Canned};
use super::session::{Answer, Event, Phase, Session};
use crate::wire::{CommandError, encode_reply};

/// Replies.
impl Session {
    /// All output goes through here. `write` is told whether enhanced codes are announced.
    pub(super) fn put<T>(&mut self, write: impl FnOnce(&mut BytesMut, bool) -> T) -> T {
        let start = self.output.len();
        let result = write(&mut self.output, self.profile.enhanced_status_codes);
        if let Some(transcript) = &mut self.transcript {
            transcript.server(&self.output[start..]);
        }
        result
    }

    pub(super) fn put_line(&mut self, line: Arguments<'_>) {
        // Writing to a BytesMut can not fail.
        self.put(|output, _| {
            let _ = write!(output, "{line}\r\n");
        });
    }

    pub(super) fn say(&mut self, reply: Canned) {
        self.put(|output, enhanced| reply.write(enhanced, output));
        self.note(reply.code);
    }

    pub(super) fn say_as(&mut self, code: u16, status: EnhancedStatus, text: &dyn Display) {
        self.put(|output, enhanced| replies::write(code, Some(status), text, enhanced, output));
        self.note(code);
    }

    /// Says a reply of the driver's. One without an enhanced code gets its
    /// class's general one, where those are announced.
    pub(super) fn say_reply(&mut self, reply: &SmtpReply) {
        let class = match reply.severity() {
            Severity::Positive => Some(2),
            Severity::Intermediate => None,
            Severity::Transient => Some(4),
            Severity::Permanent => Some(5),
        };
        self.put(|output, enhanced| match class.filter(|_| enhanced && reply.enhanced.is_none()) {
            Some(class) => {
                let reply = reply.clone().with_enhanced(EnhancedStatus::new(class, 0, 0));
                encode_reply(&reply, true, output);
            }
            None => encode_reply(reply, enhanced, output),
        });
        self.note(reply.code);
        // RFC 5321 section 3.8: the server closes after it.
        if reply.code == 421 {
            self.close();
        }
    }

    pub(super) fn note_too_long(&mut self) {
        if let Some(transcript) = &mut self.transcript {
            transcript.too_long();
        }
    }

    fn note(&mut self, code: u16) {
        if code >= 400 {
            self.refusals.push(code);
        }
    }
}

/// What a handler of a command comes to.
impl Session {
    pub(super) fn ask(&mut self, event: Event, answer: Answer) -> Option<Event> {
        self.phase = Phase::Awaiting(answer);
        Some(event)
    }

    /// A refusal that is nobody's mistake of protocol.
    pub(super) fn refuse(&mut self, reply: Canned) -> Option<Event> {
        self.say(reply);
        None
    }

    pub(super) fn error(&mut self, reply: Canned) -> Option<Event> {
        self.say(reply);
        self.count_error();
        None
    }

    pub(super) fn bad_command(&mut self, error: &CommandError) -> Option<Event> {
        let code = self.put(|output, enhanced| replies::write_command_error(error, enhanced, output));
        self.note(code);
        match error {
            CommandError::Foreign => self.close(),
            // Its octets would be taken for commands.
            CommandError::BadChunk => self.end(replies::LOST_CHUNK),
            _ => {
                self.count_error();
            }
        }
        None
    }

    /// Answers a command that does not help to send mail.
    pub(super) fn idle(&mut self, reply: Canned) -> Option<Event> {
        if !self.count_idle() {
            self.say(reply);
        }
        None
    }

    /// Counts a command that does not help to send mail; true when that ended the session.
    pub(super) fn count_idle(&mut self) -> bool {
        self.idle_commands += 1;
        self.idle_commands > self.profile.limits.max_idle_commands && self.count_error()
    }

    /// Counts an error; true when that ended the session.
    fn count_error(&mut self) -> bool {
        self.errors += 1;
        let over = self.errors >= self.profile.limits.max_errors;
        if over {
            self.end(replies::TOO_MANY_ERRORS);
        }
        over
    }

    pub(super) fn end(&mut self, reply: Canned) {
        if !matches!(self.phase, Phase::Closed) {
            self.say(reply);
            self.close();
        }
    }

    pub(super) fn close(&mut self) {
        self.phase = Phase::Closed;
        self.transaction = None;
    }
}
