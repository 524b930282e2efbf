//! The server's session machine.

use std::fmt::Display;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use postrider_base::Timestamp;
use postrider_mail::{EnhancedStatus, Recipient, Severity, SmtpReply};

use super::content::Chunk;
use super::profile::{Profile, RecipientOverflow, TlsMode};
use super::replies;
use super::transaction::{ReceivedMessage, Transaction};
use super::transcript::{Spoken, Transcript};
use crate::wire::{DataDecoder, LineReader, MailRequest, RcptRequest};

/// What [`Session::receive`] asks its driver for. After [`Event::Mail`],
/// [`Event::Rcpt`], [`Event::MessageBegin`] and [`Event::Message`] the driver
/// answers with [`Session::accept`] or [`Session::reply`]; after
/// [`AuthEvent::Start`] and [`AuthEvent::Response`] with one of the `auth_`
/// methods. Until it has answered, no input is consumed.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// Everything was consumed: write the output, then read more.
    NeedInput,
    /// Write the output, do the handshake, then call [`Session::tls_started`].
    /// Input that came in clear has been dropped (RFC 3207 section 4.2).
    StartTls,
    /// Something about authentication.
    Auth(AuthEvent),
    /// MAIL, where it is allowed.
    Mail(MailRequest),
    /// RCPT, where it is allowed, within the limit on recipients.
    Rcpt(RcptRequest),
    /// DATA with at least one recipient, before `354`; or the first BDAT,
    /// before its chunk is read. If it is refused, all chunks of that message
    /// are read and dropped, each with the same reply.
    MessageBegin,
    /// A message has arrived; [`Session::accept_message`] says that it is safe.
    Message(ReceivedMessage),
    /// The session is over: write the output, then close.
    Close,
}

/// A step of an AUTH exchange (RFC 4954).
#[derive(Debug, PartialEq, Eq)]
pub enum AuthEvent {
    /// The client begins one.
    Start {
        /// The mechanism's name in upper case.
        mechanism: String,
        /// The initial response, decoded.
        initial: Option<Vec<u8>>,
    },
    /// The answer to a challenge, decoded.
    Response(Vec<u8>),
    /// The client gave the exchange up, or sent nonsense. Has been answered.
    Cancelled,
}

/// One client's session, from the banner to the close.
#[derive(Debug)]
pub struct Session {
    pub(super) profile: Arc<Profile>,
    pub(super) id: String,
    pub(super) lines: LineReader,
    pub(super) output: BytesMut,
    pub(super) phase: Phase,
    pub(super) client: Option<Client>,
    pub(super) tls: bool,
    pub(super) authenticated: bool,
    pub(super) identified: bool,
    pub(super) clear_allowed: bool,
    /// What time it was when the driver last said so.
    pub(super) now: Option<Timestamp>,
    pub(super) transcript: Option<Box<Transcript>>,
    pub(super) overflow: RecipientOverflow,
    pub(super) transaction: Option<Transaction>,
    /// MAIL commands accepted.
    pub(super) messages: u32,
    pub(super) errors: u32,
    pub(super) idle_commands: u32,
    pub(super) auth_failures: u32,
    pub(super) refusals: Vec<u16>,
}

/// What the client said of itself in EHLO or HELO.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) extended: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    Commands,
    /// The next line belongs to an AUTH exchange.
    AuthResponse,
    Content(Box<DataDecoder>),
    Chunk(Chunk),
    /// The driver owes an answer.
    Awaiting(Answer),
    /// The driver does the handshake.
    Handshake,
    Closed,
}

#[derive(Debug)]
pub(super) enum Answer {
    Auth,
    Mail(MailRequest),
    Rcpt(Recipient),
    /// Whether content is taken, after DATA.
    Data,
    /// Whether content is taken, in this chunk first.
    Bdat {
        size: u64,
        last: bool,
    },
    Message,
}

/// What the driver sees of the session.
impl Session {
    /// A session that has said nothing yet. `id` is shown in the banner and is
    /// the key to the session in the log.
    pub fn new(profile: Arc<Profile>, id: impl Into<String>) -> Session {
        Session {
            lines: LineReader::new(profile.limits.max_line_bytes),
            output: BytesMut::new(),
            phase: Phase::Commands,
            client: None,
            tls: profile.tls == TlsMode::Wrapper,
            authenticated: false,
            identified: false,
            clear_allowed: false,
            now: None,
            transcript: None,
            overflow: profile.overflow,
            transaction: None,
            messages: 0,
            errors: 0,
            idle_commands: 0,
            auth_failures: 0,
            refusals: Vec::new(),
            id: id.into(),
            profile,
        }
    }

    /// Queues the banner.
    pub fn greet(&mut self) {
        let banner = format!("220 {} ESMTP postrider {}", self.profile.hostname, self.id);
        self.put_line(format_args!("{banner}"));
    }

    /// Consumes input up to the next event. Call it again after each event
    /// with the same buffer, until it returns [`Event::NeedInput`] or [`Event::Close`].
    pub fn receive(&mut self, input: &mut BytesMut) -> Event {
        loop {
            let event = match &self.phase {
                Phase::Commands => self.read_command(input),
                Phase::AuthResponse => self.read_response(input),
                Phase::Content(_) => self.read_content(input),
                Phase::Chunk(_) => self.read_chunk(input),
                Phase::Awaiting(_) | Phase::Handshake => Some(Event::NeedInput),
                Phase::Closed => {
                    input.clear();
                    Some(Event::Close)
                }
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// What is to be written. Replies gather here while input is pipelined, so
    /// that one write answers a whole group (RFC 2920 section 3.2).
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// The codes of the negative replies given since the last call, to be counted.
    pub fn take_refusals(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.refusals)
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name from EHLO or HELO: printable, without blanks, at most 255 octets.
    pub fn client_name(&self) -> Option<&str> {
        self.client.as_ref().map(|client| client.name.as_str())
    }

    /// Whether the client has authenticated.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether no message is under way, so that nothing is lost by closing now.
    pub fn is_between_messages(&self) -> bool {
        // A chunk without transaction only waits to be refused.
        let idle = matches!(self.phase, Phase::Commands | Phase::AuthResponse | Phase::Chunk(_) | Phase::Closed);
        idle && self.transaction.is_none()
    }

    /// Whether content is being received, which comes in larger pieces than commands.
    pub fn is_receiving_content(&self) -> bool {
        matches!(self.phase, Phase::Content(_) | Phase::Chunk(_))
    }

    /// How the message came, as the `with` of a Received field says it (RFC
    /// 3848; RFC 6531 section 4.3 for SMTPUTF8).
    pub fn protocol(&self, smtp_utf8: bool) -> &'static str {
        let extended = self.client.as_ref().is_some_and(|client| client.extended);
        match (smtp_utf8, extended, self.tls, self.authenticated) {
            (true, _, true, true) => "UTF8SMTPSA",
            (true, _, true, false) => "UTF8SMTPS",
            (true, _, false, true) => "UTF8SMTPA",
            (true, _, false, false) => "UTF8SMTP",
            (false, false, _, _) => "SMTP",
            (false, true, true, true) => "ESMTPSA",
            (false, true, true, false) => "ESMTPS",
            (false, true, false, true) => "ESMTPA",
            (false, true, false, false) => "ESMTP",
        }
    }

    /// The client is known without AUTH, by its address or its certificate:
    /// it may send mail. It may authenticate all the same.
    pub fn identify(&mut self) {
        self.identified = true;
    }

    /// This client may send mail without TLS.
    pub fn allow_clear(&mut self) {
        self.clear_allowed = true;
    }

    /// What time it is: FUTURERELEASE is announced with the latest time to
    /// which a message may be held back, and only when this has been called.
    pub fn tell_time(&mut self, now: Timestamp) {
        self.now = Some(now);
    }

    /// Writes down, or no longer, what is said by both sides. Costs nothing while off.
    pub fn transcribe(&mut self, on: bool) {
        self.transcript = on.then(|| self.transcript.take().unwrap_or_default());
    }

    /// What has been said since the last call, secrets and content left out.
    pub fn take_transcript(&mut self) -> Vec<Spoken> {
        self.transcript.as_mut().map(|transcript| transcript.take()).unwrap_or_default()
    }

    /// Overrides the profile's answer to too many recipients.
    pub fn set_recipient_overflow(&mut self, overflow: RecipientOverflow) {
        self.overflow = overflow;
    }
}

/// The driver's answers.
impl Session {
    /// Accepts what the last event asked for, with the standard text.
    pub fn accept(&mut self) {
        match self.answered() {
            Some(Answer::Data) => self.go_ahead(),
            Some(Answer::Bdat { size, last }) => self.take_chunks(size, last),
            Some(answer) => {
                let reply = match answer {
                    Answer::Mail(_) => replies::MAIL_OK,
                    Answer::Rcpt(_) => replies::RCPT_OK,
                    _ => replies::OK,
                };
                self.apply(answer);
                self.say(reply);
            }
            None => {}
        }
    }

    /// Accepts the message: `250 Ok ID`. It must be safe by now.
    pub fn accept_message(&mut self, id: &dyn Display) {
        if let Some(Answer::Message) = self.answered() {
            self.apply(Answer::Message);
            self.say_as(250, EnhancedStatus::new(2, 0, 0), &format_args!("Ok {id}"));
        }
    }

    /// Answers the last event with a reply of the driver's; a positive one
    /// accepts. 421 ends the session (RFC 5321 section 3.8).
    pub fn reply(&mut self, reply: &SmtpReply) {
        let accepts = matches!(reply.severity(), Severity::Positive | Severity::Intermediate);
        match self.answered() {
            Some(Answer::Data) if accepts => return self.go_ahead(),
            Some(Answer::Bdat { size, last }) if accepts => return self.take_chunks(size, last),
            // It is said when the chunk is gone.
            Some(Answer::Bdat { size, last }) if reply.code != 421 => return self.refuse_chunks(size, last, reply),
            Some(answer) if accepts => self.apply(answer),
            _ => {}
        }
        self.say_reply(reply);
    }

    /// Sends a challenge; the client's answer comes as [`AuthEvent::Response`].
    pub fn auth_challenge(&mut self, challenge: &[u8]) {
        if let Some(Answer::Auth) = self.answered() {
            let challenge = STANDARD.encode(challenge);
            self.put_line(format_args!("334 {challenge}"));
            self.phase = Phase::AuthResponse;
        }
    }

    /// The client has proved who it is.
    pub fn auth_success(&mut self) {
        if let Some(Answer::Auth) = self.answered() {
            self.authenticated = true;
            self.say(replies::AUTHENTICATED);
        }
    }

    /// The exchange failed. After [`SessionLimits::max_auth_failures`](super::SessionLimits::max_auth_failures)
    /// of code 535 the session ends.
    pub fn auth_failure(&mut self, reply: &SmtpReply) {
        if let Some(Answer::Auth) = self.answered() {
            self.say_reply(reply);
            self.auth_failures += u32::from(reply.code == 535);
            if self.auth_failures >= self.profile.limits.max_auth_failures {
                self.end(replies::TOO_MANY_ERRORS);
            }
        }
    }

    /// The handshake is done. Everything that the client said in clear is
    /// forgotten (RFC 3207 section 4.2).
    pub fn tls_started(&mut self) {
        if matches!(self.phase, Phase::Handshake) {
            self.phase = Phase::Commands;
            self.tls = true;
            self.client = None;
            self.transaction = None;
        }
    }

    /// Says `reply` and ends the session, whatever was going on: a timeout, a
    /// shutdown, a limit.
    pub fn shutdown(&mut self, reply: &SmtpReply) {
        if !matches!(self.phase, Phase::Closed) {
            self.say_reply(reply);
            self.close();
        }
    }

    /// The answer that the driver owed, once.
    fn answered(&mut self) -> Option<Answer> {
        match std::mem::replace(&mut self.phase, Phase::Commands) {
            Phase::Awaiting(answer) => Some(answer),
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    fn apply(&mut self, answer: Answer) {
        match answer {
            Answer::Mail(request) => {
                self.messages = self.messages.saturating_add(1);
                self.transaction = Some(Transaction::new(request));
            }
            Answer::Rcpt(recipient) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.add(recipient);
                }
            }
            Answer::Message => {
                self.errors = 0;
                self.idle_commands = 0;
            }
            Answer::Auth | Answer::Data | Answer::Bdat { .. } => {}
        }
    }
}
