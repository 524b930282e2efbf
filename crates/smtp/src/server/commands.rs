//! The server's commands.

use std::fmt::{Display, Write};
use std::time::Duration;

use bytes::BytesMut;
use postrider_mail::{EmailAddress, EnhancedStatus, sanitize_text};

use super::profile::{RecipientOverflow, TlsMode};
use super::replies;
use super::session::{Answer, Client, Event, Session};
use crate::wire::{Command, CommandError, Extensions, Line, MailRequest, RcptRequest};

/// RFC 9422 section 4: the largest number that can be announced.
const MAX_LIMIT: usize = 999_999;
/// RCPT commands beyond the limit on recipients that are answered without
/// counting them as errors, as with Postfix.
const MAX_OVERSHOOT: u32 = 1000;
/// Octets of a name that VRFY is answered with; RFC 5321 section 4.5.3.1.5
/// allows 512 for the whole line.
const MAX_ECHO: usize = 400;

/// Commands. Each handler returns the event that it needs answered, or `None`
/// when it has answered itself.
impl Session {
    pub(super) fn read_command(&mut self, input: &mut BytesMut) -> Option<Event> {
        let line = match self.lines.next(input) {
            Line::Incomplete => return Some(Event::NeedInput),
            Line::TooLong(start) => {
                self.note_too_long();
                return match Command::is_bdat(&start) {
                    // A chunk follows all the same.
                    true => self.bad_command(&CommandError::BadChunk),
                    false => self.error(replies::LINE_TOO_LONG),
                };
            }
            Line::Full(line) => line,
        };
        if let Some(transcript) = &mut self.transcript {
            transcript.command(&line);
        }
        match Command::parse(&line, &self.offered()) {
            Ok(command) => self.obey(command, input),
            // It may be offered inside TLS.
            Err(CommandError::UnsupportedParameter(_)) if self.needs_tls() => self.error(replies::NEED_TLS),
            Err(error) => self.bad_command(&error),
        }
    }

    fn obey(&mut self, command: Command, input: &mut BytesMut) -> Option<Event> {
        match command {
            Command::Mail(request) => self.mail(request),
            Command::Rcpt(request) => self.rcpt(request),
            Command::Data => self.data(),
            Command::Bdat { size, last } => self.bdat(size, last),
            Command::Auth { mechanism, initial } => self.auth(mechanism, initial),
            Command::StartTls => self.start_tls(input),
            Command::Ehlo(name) => self.hello(name, true),
            Command::Helo(name) => self.hello(name, false),
            Command::Rset if self.needs_tls() => self.error(replies::NEED_TLS),
            Command::Rset => {
                self.transaction = None;
                self.idle(replies::OK)
            }
            Command::Noop => self.idle(replies::OK),
            Command::Vrfy(name) => self.verify(&name),
            Command::Quit => {
                self.end(replies::BYE);
                None
            }
        }
    }

    /// Parameters are taken where the extension is announced now.
    fn offered(&self) -> Extensions {
        let mut extensions = self.profile.extensions;
        // RFC 8689 section 2: only inside TLS.
        extensions.require_tls &= self.tls;
        // RFC 6531 section 3.1: those who offer SMTPUTF8 offer 8BITMIME.
        extensions.smtp_utf8 &= extensions.eight_bit_mime;
        // RFC 3030 section 3.
        extensions.binary_mime &= extensions.chunking && extensions.eight_bit_mime;
        extensions.future_release = extensions.future_release.filter(|_| self.now.is_some());
        extensions
    }

    fn hello(&mut self, name: String, extended: bool) -> Option<Event> {
        // RFC 5321 section 4.1.4: as RSET.
        self.transaction = None;
        self.client = Some(Client { name, extended });
        if self.count_idle() {
            return None;
        }
        let profile = self.profile.clone();
        if !extended {
            self.put_line(format_args!("250 {}", profile.hostname));
            return None;
        }
        let offered = self.offered();
        let tls_offered = profile.tls == TlsMode::StartTls && !self.tls;
        let auth_offered = self.may_authenticate();
        let limits = &profile.limits;
        let hold = offered.future_release.zip(self.now);
        self.put(|output, _| {
            let lines: [(bool, &dyn Display); 13] = [
                (true, &profile.hostname),
                (offered.eight_bit_mime, &"8BITMIME"),
                (true, &format_args!("SIZE {}", limits.max_message_bytes)),
                (tls_offered, &"STARTTLS"),
                (auth_offered, &"AUTH PLAIN LOGIN"),
                (offered.pipelining, &"PIPELINING"),
                (profile.enhanced_status_codes, &"ENHANCEDSTATUSCODES"),
                (offered.chunking, &"CHUNKING"),
                (offered.binary_mime, &"BINARYMIME"),
                (offered.smtp_utf8, &"SMTPUTF8"),
                (offered.dsn, &"DSN"),
                (offered.require_tls, &"REQUIRETLS"),
                (offered.limits, &Limits(limits.max_recipients, limits.max_messages)),
            ];
            // Writing to a BytesMut can not fail.
            for (_, line) in lines.iter().filter(|(shown, _)| *shown) {
                let _ = write!(output, "250-{line}\r\n");
            }
            if let Some((longest, now)) = hold {
                let latest = now.saturating_add(Duration::from_secs(u64::from(longest)));
                let _ = write!(output, "250-FUTURERELEASE {longest} {}\r\n", latest.rfc3339());
            }
            // RFC 2034 section 4: no enhanced code in the reply to EHLO.
            output.extend_from_slice(b"250 Ok\r\n");
        });
        None
    }

    /// RFC 5321 section 3.5.3: we do not know, and would not say.
    fn verify(&mut self, name: &str) -> Option<Event> {
        if let Some(reply) = self.locked() {
            return self.error(reply);
        }
        if !self.count_idle() {
            let name = sanitize_text(name, MAX_ECHO);
            self.say_as(252, EnhancedStatus::new(2, 0, 0), &name);
        }
        None
    }

    fn mail(&mut self, request: MailRequest) -> Option<Event> {
        let limits = &self.profile.limits;
        let refusal = match self.locked() {
            Some(reply) => reply,
            None if self.client.is_none() => replies::NEED_HELLO,
            None if self.transaction.is_some() => replies::NESTED_MAIL,
            None if self.messages >= limits.max_messages => {
                self.end(replies::TOO_MANY_MESSAGES);
                return None;
            }
            None if !request.smtp_utf8 && request.sender.as_ref().is_some_and(is_international) => {
                replies::NON_ASCII_ADDRESS
            }
            // RFC 1870 section 6.1.
            None if request.size.is_some_and(|size| size > limits.max_message_bytes) => {
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
        if transaction.chunks.is_some() {
            return self.error(replies::RCPT_AFTER_BDAT);
        }
        if !transaction.envelope.smtp_utf8 && is_international(&request.recipient.address) {
            return self.refuse(replies::NON_ASCII_ADDRESS);
        }
        if transaction.envelope.recipients.len() < self.profile.limits.max_recipients {
            let recipient = request.recipient.clone();
            return self.ask(Event::Rcpt(request), Answer::Rcpt(recipient));
        }
        transaction.overshoot += 1;
        match self.overflow {
            _ if transaction.overshoot > MAX_OVERSHOOT => self.error(replies::TOO_MANY_RECIPIENTS),
            RecipientOverflow::Defer => self.refuse(replies::TOO_MANY_RECIPIENTS),
            RecipientOverflow::Reject => {
                transaction.excess += 1;
                self.say(replies::RCPT_OK);
                None
            }
        }
    }
}

/// The bounds on recipients and messages (RFC 9422 section 4).
struct Limits(usize, u32);

impl Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Limits(recipients, messages) = *self;
        let messages = usize::try_from(messages).unwrap_or(MAX_LIMIT);
        write!(f, "LIMITS RCPTMAX={} MAILMAX={}", recipients.clamp(1, MAX_LIMIT), messages.clamp(1, MAX_LIMIT))
    }
}

/// A local part that only SMTPUTF8 can carry; a domain has its A-label form.
fn is_international(address: &EmailAddress) -> bool {
    !address.is_ascii()
}
