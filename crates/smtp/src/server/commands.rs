//! The server's commands, replies and bounds.

use std::fmt::{Display, Write};

use bytes::{Bytes, BytesMut};
use postrider_mail::{EmailAddress, EnhancedStatus, Severity, SmtpReply};

use super::profile::{RecipientOverflow, TlsMode};
use super::replies::{self, Canned};
use super::session::{Answer, AuthEvent, Client, Event, Phase, Session};
use super::transaction::ReceivedMessage;
use crate::wire::{
    Command, CommandError, ContentFault, DataDecoder, Extensions, Line, MailRequest, RcptRequest, encode_reply,
};

/// Commands. Each handler returns the event that it needs answered, or `None`
/// when it has answered itself.
impl Session {
    pub(super) fn read_command(&mut self, input: &mut BytesMut) -> Option<Event> {
        let line = match self.lines.next(input) {
            Line::Incomplete => return Some(Event::NeedInput),
            Line::TooLong => return self.error(replies::LINE_TOO_LONG),
            Line::Full(line) => line,
        };
        match Command::parse(&line, &self.offered()) {
            Ok(Command::Mail(request)) => self.mail(request),
            Ok(Command::Rcpt(request)) => self.rcpt(request),
            Ok(Command::Data) => self.data(),
            Ok(Command::Auth { mechanism, initial }) => self.auth(mechanism, initial),
            Ok(Command::StartTls) => self.start_tls(input),
            Ok(Command::Ehlo(name)) => self.hello(name, true),
            Ok(Command::Helo(name)) => self.hello(name, false),
            Ok(Command::Rset) => {
                self.transaction = None;
                self.idle(replies::OK)
            }
            Ok(Command::Noop) => self.idle(replies::OK),
            Ok(Command::Help) => self.idle(replies::HELP),
            Ok(Command::Vrfy) => match self.locked() {
                Some(reply) => self.error(reply),
                None => self.idle(replies::CANNOT_VERIFY),
            },
            Ok(Command::Quit) => {
                self.end(replies::BYE);
                None
            }
            Err(error) => self.bad_command(&error),
        }
    }

    /// Parameters are taken where the extension is announced now.
    fn offered(&self) -> Extensions {
        let mut extensions = self.profile.extensions;
        // RFC 8689 section 2: only inside TLS.
        extensions.require_tls &= self.tls;
        extensions
    }

    fn hello(&mut self, name: String, extended: bool) -> Option<Event> {
        // RFC 5321 section 4.1.4: as RSET.
        self.transaction = None;
        self.client = Some(Client { name, extended });
        if self.count_idle() {
            return None;
        }
        let hostname = &self.profile.hostname;
        // Writing to a BytesMut can not fail.
        if extended {
            let _ = write!(self.output, "250-{hostname}\r\n");
            self.write_extensions();
        } else {
            let _ = write!(self.output, "250 {hostname}\r\n");
        }
        None
    }

    fn write_extensions(&mut self) {
        let offered = self.offered();
        let tls_offered = self.profile.tls == TlsMode::StartTls && !self.tls;
        let size = self.profile.limits.max_message_bytes;
        let lines: [(bool, &dyn Display); 9] = [
            (offered.eight_bit_mime, &"8BITMIME"),
            (true, &format_args!("SIZE {size}")),
            (tls_offered, &"STARTTLS"),
            (self.may_authenticate(), &"AUTH PLAIN LOGIN"),
            (offered.pipelining, &"PIPELINING"),
            (self.profile.enhanced_status_codes, &"ENHANCEDSTATUSCODES"),
            (offered.smtp_utf8, &"SMTPUTF8"),
            (offered.dsn, &"DSN"),
            (offered.require_tls, &"REQUIRETLS"),
        ];
        for (_, line) in lines.iter().filter(|(shown, _)| *shown) {
            let _ = write!(self.output, "250-{line}\r\n");
        }
        // RFC 2034 section 4: no enhanced code in the reply to EHLO.
        self.output.extend_from_slice(b"250 Ok\r\n");
    }

    /// RFC 4954 section 4: plain text mechanisms only inside TLS, where there is TLS.
    fn may_authenticate(&self) -> bool {
        self.profile.auth && (self.tls || self.profile.tls == TlsMode::None)
    }

    fn start_tls(&mut self, input: &mut BytesMut) -> Option<Event> {
        if self.tls {
            return self.error(replies::TLS_ACTIVE);
        }
        if self.profile.tls != TlsMode::StartTls {
            return self.error(replies::TLS_NOT_OFFERED);
        }
        // What came with the command was not protected: anyone on the way could
        // have put it there.
        input.clear();
        self.say(replies::READY_FOR_TLS);
        self.phase = Phase::Handshake;
        Some(Event::StartTls)
    }

    /// Why the client may not send mail yet.
    fn locked(&self) -> Option<Canned> {
        let clear = self.profile.tls == TlsMode::StartTls && !self.tls;
        if self.profile.require_tls_first && clear && !self.clear_allowed {
            return Some(replies::NEED_TLS);
        }
        let unknown = !self.authenticated && !self.identified;
        (self.profile.require_auth && unknown).then_some(replies::NEED_AUTH)
    }

    fn auth(&mut self, mechanism: String, initial: Option<Vec<u8>>) -> Option<Event> {
        if self.profile.auth && !self.may_authenticate() {
            return self.error(replies::NEED_TLS);
        }
        let refusal = match () {
            () if !self.profile.auth => replies::AUTH_NOT_OFFERED,
            () if self.client.is_none() => replies::NEED_HELLO,
            () if self.authenticated => replies::AUTH_DONE,
            () if self.transaction.is_some() => replies::AUTH_IN_MAIL,
            () => return self.ask(Event::Auth(AuthEvent::Start { mechanism, initial }), Answer::Auth),
        };
        self.error(refusal)
    }

    pub(super) fn read_response(&mut self, input: &mut BytesMut) -> Option<Event> {
        let line = match self.lines.next(input) {
            Line::Incomplete => return Some(Event::NeedInput),
            Line::TooLong => return self.give_up_auth(replies::LINE_TOO_LONG),
            Line::Full(line) => line,
        };
        if line.trim_ascii() == b"*" {
            return self.give_up_auth(replies::AUTH_CANCELLED);
        }
        match Command::decode_response(&line) {
            Some(response) => self.ask(Event::Auth(AuthEvent::Response(response)), Answer::Auth),
            None => self.give_up_auth(replies::AUTH_MALFORMED),
        }
    }

    fn give_up_auth(&mut self, reply: Canned) -> Option<Event> {
        self.phase = Phase::Commands;
        self.error(reply);
        Some(Event::Auth(AuthEvent::Cancelled))
    }

    fn mail(&mut self, request: MailRequest) -> Option<Event> {
        let refusal = match self.locked() {
            Some(reply) => reply,
            None if self.client.is_none() => replies::NEED_HELLO,
            None if self.transaction.is_some() => replies::NESTED_MAIL,
            None if !request.smtp_utf8 && request.sender.as_ref().is_some_and(is_international) => {
                replies::NON_ASCII_ADDRESS
            }
            // RFC 1870 section 6.1.
            None if request.size.is_some_and(|size| size > self.profile.limits.max_message_bytes) => {
                return self.refuse(replies::MESSAGE_TOO_LONG);
            }
            None => return self.ask(Event::Mail(request.clone()), Answer::Mail(request)),
        };
        self.error(refusal)
    }

    fn rcpt(&mut self, request: RcptRequest) -> Option<Event> {
        if let Some(reply) = self.locked() {
            return self.error(reply);
        }
        let Some(transaction) = &mut self.transaction else { return self.error(replies::NEED_MAIL) };
        if !transaction.envelope.smtp_utf8 && is_international(&request.recipient.address) {
            return self.refuse(replies::NON_ASCII_ADDRESS);
        }
        if transaction.envelope.recipients.len() < self.profile.limits.max_recipients {
            let recipient = request.recipient.clone();
            return self.ask(Event::Rcpt(request), Answer::Rcpt(recipient));
        }
        match self.overflow {
            RecipientOverflow::Defer => self.refuse(replies::TOO_MANY_RECIPIENTS),
            RecipientOverflow::Reject => {
                transaction.excess += 1;
                self.say(replies::OK);
                None
            }
        }
    }

    fn data(&mut self) -> Option<Event> {
        if let Some(reply) = self.locked() {
            return self.error(reply);
        }
        match &self.transaction {
            Some(transaction) if transaction.excess > 0 => {
                self.begin_content(DataDecoder::discarding(ContentFault::TooLong));
                None
            }
            Some(transaction) if !transaction.envelope.recipients.is_empty() => {
                self.ask(Event::MessageBegin, Answer::Begin)
            }
            _ => self.error(replies::NEED_RCPT),
        }
    }

    pub(super) fn begin_content(&mut self, decoder: DataDecoder) {
        self.say(replies::GO_AHEAD);
        self.phase = Phase::Content(Box::new(decoder));
    }

    pub(super) fn end_of_content(&mut self, content: Result<Vec<Bytes>, ContentFault>) -> Option<Event> {
        let transaction = self.transaction.take()?;
        if transaction.excess > 0 {
            let limit = self.profile.limits.max_recipients;
            let text = format_args!("Transaction failed: Recipient count exceeds {limit}.");
            let status = Some(EnhancedStatus::new(5, 5, 3));
            replies::write(554, status, &text, self.profile.enhanced_status_codes, &mut self.output);
            self.refusals.push(554);
            return None;
        }
        match content {
            Ok(content) => {
                let message = ReceivedMessage { envelope: transaction.envelope, content, hold: transaction.hold };
                self.ask(Event::Message(message), Answer::Message)
            }
            Err(fault) => self.refuse(replies::content_fault(fault)),
        }
    }
}

/// Replies and bounds.
impl Session {
    fn ask(&mut self, event: Event, answer: Answer) -> Option<Event> {
        self.phase = Phase::Awaiting(answer);
        Some(event)
    }

    pub(super) fn say(&mut self, reply: Canned) {
        let code = reply.write(self.profile.enhanced_status_codes, &mut self.output);
        self.note(code);
    }

    pub(super) fn say_reply(&mut self, reply: &SmtpReply) {
        let enhanced = self.profile.enhanced_status_codes;
        match (reply.severity(), reply.enhanced) {
            (Severity::Positive, None) if enhanced => self.say_with(reply, 2),
            (Severity::Transient, None) if enhanced => self.say_with(reply, 4),
            (Severity::Permanent, None) if enhanced => self.say_with(reply, 5),
            _ => encode_reply(reply, enhanced, &mut self.output),
        }
        self.note(reply.code);
        // RFC 5321 section 3.8: the server closes after it.
        if reply.code == 421 {
            self.close();
        }
    }

    fn say_with(&mut self, reply: &SmtpReply, class: u8) {
        let reply = reply.clone().with_enhanced(EnhancedStatus::new(class, 0, 0));
        encode_reply(&reply, true, &mut self.output);
    }

    fn note(&mut self, code: u16) {
        if code >= 400 {
            self.refusals.push(code);
        }
    }

    /// A refusal that is nobody's mistake of protocol.
    fn refuse(&mut self, reply: Canned) -> Option<Event> {
        self.say(reply);
        None
    }

    fn error(&mut self, reply: Canned) -> Option<Event> {
        self.say(reply);
        self.count_error();
        None
    }

    fn bad_command(&mut self, error: &CommandError) -> Option<Event> {
        let code = replies::write_command_error(error, self.profile.enhanced_status_codes, &mut self.output);
        self.note(code);
        if code == 421 {
            self.close();
        }
        self.count_error();
        None
    }

    /// Answers a command that does not help to send mail.
    fn idle(&mut self, reply: Canned) -> Option<Event> {
        if !self.count_idle() {
            self.say(reply);
        }
        None
    }

    /// Counts a command that does not help to send mail; true when that ended the session.
    fn count_idle(&mut self) -> bool {
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

/// A local part that only SMTPUTF8 can carry; a domain has its A-label form.
fn is_international(address: &EmailAddress) -> bool {
    !address.is_ascii()
}
