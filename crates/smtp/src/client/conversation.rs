//! The client's conversation machine.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use postrider_mail::{Severity, SmtpReply, Stage};

use super::exchange::Running;
use super::expected::Expected;
use super::transaction::{Gate, RecipientResult, Transaction, TransactionResult};
use super::transcript::Transcript;
use super::{ClientConfig, Features, Protocol, TlsUse};
use crate::wire::ReplyParser;

/// What [`Conversation::advance`] asks its driver for.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Write [`Conversation::take_output`], then read more. A reply has to be
    /// there whole within [`Conversation::timeout`]; that time begins anew when
    /// something was written or [`Conversation::heard`] has grown. If the connection is lost meanwhile, say so
    /// with [`Conversation::lost`].
    NeedInput,
    /// Do the handshake, then call [`Conversation::tls_started`]. Input that
    /// came in clear has been dropped.
    StartTls,
    /// The host waits for a transaction: [`Conversation::begin`] or
    /// [`Conversation::quit`], or keep the connection for later.
    Ready,
    /// The transaction has ended; go on advancing.
    Done(TransactionResult),
    /// The conversation has ended: close the connection.
    Closed(Ended),
}

/// Why a conversation has ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// After QUIT.
    Quit,
    /// The host refused to go on: a negative reply while the session was set
    /// up, or 421 at any time.
    Refused {
        /// What was waited for.
        stage: Stage,
        /// What came.
        reply: SmtpReply,
    },
    /// TLS is required and not offered.
    TlsNotOffered,
    /// Authentication is required, and no mechanism that we know is offered.
    AuthNotOffered,
    /// The host does not speak SMTP, or its replies are not those to our
    /// commands: none of them counts.
    BadReply {
        /// What was waited for.
        stage: Stage,
    },
    /// The driver lost the connection.
    Lost {
        /// What was waited for.
        stage: Stage,
    },
}

/// A transaction was begun while another one was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transaction is under way or the conversation has ended")]
pub struct NotReady;

/// One conversation with a remote host: setting up, then any number of
/// transactions, one after the other.
#[derive(Debug)]
pub struct Conversation {
    pub(super) config: ClientConfig,
    pub(super) parser: ReplyParser,
    pub(super) features: Features,
    pub(super) tls: bool,
    /// Replies that are outstanding, in order.
    pub(super) expected: VecDeque<Expected>,
    pub(super) output: Vec<Bytes>,
    pub(super) commands: BytesMut,
    pub(super) waiting: Option<Transaction>,
    pub(super) running: Option<Running>,
    pub(super) begun: u32,
    /// The host has taken a message over this connection.
    pub(super) has_taken: bool,
    /// What the host calls itself.
    host_name: Option<String>,
    heard: u64,
    /// Not all of what was to be written went out.
    is_cut: bool,
    pub(super) handshake: bool,
    pub(super) transcript: Transcript,
    pub(super) done: Option<TransactionResult>,
    pub(super) ended: Option<Ended>,
}

/// What the driver sees.
impl Conversation {
    /// A conversation on a fresh connection; the banner is waited for.
    pub fn new(config: ClientConfig) -> Conversation {
        Conversation {
            parser: ReplyParser::new(),
            features: Features::default(),
            tls: config.tls == TlsUse::Active,
            expected: VecDeque::from([Expected::Banner]),
            output: Vec::new(),
            commands: BytesMut::new(),
            waiting: None,
            running: None,
            begun: 0,
            has_taken: false,
            host_name: None,
            heard: 0,
            is_cut: false,
            handshake: false,
            transcript: Transcript::default(),
            done: None,
            ended: None,
            config,
        }
    }

    /// Consumes input and goes on as far as possible. `gate` is asked about
    /// recipients; it is not kept.
    pub fn advance(&mut self, input: &mut BytesMut, gate: &mut dyn Gate) -> Action {
        loop {
            if let Some(result) = self.done.take() {
                return Action::Done(result);
            }
            if let Some(ended) = &self.ended {
                return Action::Closed(ended.clone());
            }
            if self.handshake {
                return Action::StartTls;
            }
            if self.expected.is_empty() {
                match self.waiting.take_if(|_| input.is_empty()) {
                    Some(transaction) => self.start(transaction, gate),
                    None if input.is_empty() => return Action::Ready,
                    None => self.unasked(input),
                }
                continue;
            }
            match self.parser.next(input) {
                Ok(None) => return Action::NeedInput,
                Ok(Some(reply)) => {
                    self.heard += 1;
                    let is_last = self.expected.len() == 1;
                    self.handle(reply, input, gate);
                    if is_last && !input.is_empty() {
                        self.unasked(input);
                    }
                }
                Err(_) => {
                    self.take_down(self.expected.front().copied(), None);
                    self.out_of_step(self.stage());
                }
            }
        }
    }

    /// Begins a transaction; call it when [`Action::Ready`] was returned.
    pub fn begin(&mut self, transaction: Transaction) -> Result<(), NotReady> {
        if !self.is_ready() {
            return Err(NotReady);
        }
        self.waiting = Some(transaction);
        Ok(())
    }

    /// Queues QUIT, if the host is not waiting for something else.
    pub fn quit(&mut self) {
        if self.is_ready() {
            self.send("QUIT", Expected::Quit);
        }
    }

    /// What is to be written, in order; a vectored write fits it.
    pub fn take_output(&mut self) -> Vec<Bytes> {
        self.flush_commands();
        if !self.output.is_empty() {
            self.transcript.sent();
        }
        std::mem::take(&mut self.output)
    }

    /// The handshake is done. What the host said in clear is forgotten (RFC
    /// 3207 section 4.2), and it is greeted again.
    pub fn tls_started(&mut self) {
        if std::mem::take(&mut self.handshake) {
            self.tls = true;
            self.greet();
        }
    }

    /// The connection was lost, by whichever side or a timeout. Go on
    /// advancing, to learn what that means for the transaction.
    pub fn lost(&mut self) {
        self.lose(self.lost_at(self.stage()));
    }

    /// The output could not be written whole. The host may have said why it
    /// does not listen any more, so go on reading for a moment; with the next
    /// reply the conversation ends, and only a refusal counts.
    pub fn write_failed(&mut self) {
        self.is_cut = true;
    }

    /// Whether [`Conversation::begin`] may be called.
    pub fn is_ready(&self) -> bool {
        self.expected.is_empty() && self.waiting.is_none() && self.ended.is_none() && !self.handshake
    }

    /// Why the conversation has ended, once it has.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// How long to wait for the reply that is outstanding.
    pub fn timeout(&self) -> Duration {
        let timeouts = &self.config.timeouts;
        match self.expected.front() {
            // RFC 5321 section 4.5.3.2.6, also for a host that answers a group as a whole
            // (RFC 2920 section 3.2).
            Some(_) if self.is_past_content() => timeouts.end,
            Some(Expected::Banner) => timeouts.banner,
            Some(Expected::Mail) | None => timeouts.mail,
            Some(Expected::Rcpt(_)) => timeouts.rcpt,
            Some(Expected::Data) => timeouts.data,
            Some(Expected::End | Expected::EndOf(_) | Expected::LoneDot) => timeouts.end,
            Some(Expected::Reset | Expected::Quit) => timeouts.reset,
            Some(_) => timeouts.hello,
        }
    }

    /// Whole replies so far.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// How long a write may go without progress.
    pub fn write_timeout(&self) -> Duration {
        self.config.timeouts.block
    }

    /// How long writing all of the output may take.
    pub fn content_timeout(&self) -> Duration {
        self.config.timeouts.content
    }

    /// Where the conversation is, for the classification of what happens now.
    pub fn stage(&self) -> Stage {
        if self.handshake {
            return Stage::StartTls;
        }
        self.expected.front().map_or(Stage::MailFrom, |expected| expected.stage())
    }

    /// Whether the end of a message is on its way, so that only the replies tell
    /// what becomes of it.
    pub fn is_past_content(&self) -> bool {
        self.expected.iter().any(|expected| matches!(expected, Expected::End | Expected::EndOf(_)))
    }

    /// What the host calls itself in its last reply to EHLO, HELO or LHLO.
    pub fn host_name(&self) -> Option<&str> {
        self.host_name.as_deref()
    }

    /// What the host offers, since its last EHLO.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Whether the conversation is inside TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Transactions begun so far. An error at the first command of a second
    /// one may only mean that the host closed an idle connection.
    pub fn transactions(&self) -> u32 {
        self.begun
    }
}

/// Setting up.
impl Conversation {
    fn handle(&mut self, reply: SmtpReply, input: &mut BytesMut, gate: &mut dyn Gate) {
        let Some(expected) = self.expected.pop_front() else { return };
        let stage = expected.stage();
        self.take_down(Some(expected), Some(&reply));
        // RFC 5321 section 3.8: the host closes after it, whatever it answers.
        if reply.code == 421 && !matches!(expected, Expected::Quit) {
            return self.refused(stage, reply);
        }
        if !expected.is_possible(&reply) {
            return self.out_of_step(stage);
        }
        if self.is_cut {
            return self.last_words(expected, reply);
        }
        let positive = reply.severity() == Severity::Positive;
        match expected {
            Expected::Banner | Expected::Helo if !positive => self.refused(stage, reply),
            Expected::Banner => self.greet(),
            Expected::Ehlo if positive => {
                self.features = Features::parse(&reply);
                self.greeted(&reply);
            }
            // RFC 5321 section 3.2: a host that knows no EHLO.
            Expected::Ehlo if reply.severity() == Severity::Permanent && self.config.protocol == Protocol::Smtp => {
                self.send_with(Expected::Helo, |config| format!("HELO {}", config.hello));
            }
            Expected::Ehlo => self.refused(stage, reply),
            Expected::Helo => self.greeted(&reply),
            Expected::StartTls if positive => {
                // What follows in clear may be anyone's.
                input.clear();
                self.parser = ReplyParser::new();
                self.handshake = true;
            }
            Expected::StartTls if self.config.tls == TlsUse::Required => self.refused(stage, reply),
            Expected::StartTls => self.authenticate(),
            Expected::AuthPlain | Expected::AuthLogin(_) => self.auth_replied(expected, reply),
            Expected::Mail => self.mail_replied(reply, gate),
            Expected::Rcpt(position) => self.rcpt_replied(position, reply, gate),
            Expected::Data => self.data_replied(reply),
            Expected::End => self.content_replied(None, reply),
            Expected::EndOf(position) => self.content_replied(Some(position), reply),
            Expected::LoneDot => self.finish(&RecipientResult::Lost { stage }, false),
            Expected::Reset if positive => {}
            Expected::Reset => self.refused(stage, reply),
            Expected::Quit => self.end(Ended::Quit),
        }
    }

    /// The reply to what was written in part. A positive one can not be about
    /// the whole; one to RCPT is about one recipient of a group.
    fn last_words(&mut self, expected: Expected, reply: SmtpReply) {
        let stage = expected.stage();
        let is_refusal = matches!(reply.severity(), Severity::Transient | Severity::Permanent);
        match expected {
            Expected::Rcpt(_) => self.lose(stage),
            _ if is_refusal => self.refused(stage, reply),
            _ => self.lose(stage),
        }
    }

    /// More has come than was asked for: most likely 421 before the host
    /// closes. Anything else, taken for the reply to what is still to be
    /// written, would put all further ones out of step.
    fn unasked(&mut self, input: &mut BytesMut) {
        let stage = self.stage();
        let unasked = self.parser.next(input);
        if let Ok(Some(reply)) = &unasked {
            self.take_down(None, Some(reply));
        }
        match unasked {
            Ok(Some(reply)) if reply.code == 421 => self.refused(stage, reply),
            _ => self.out_of_step(stage),
        }
    }

    fn greet(&mut self) {
        self.features = Features::default();
        self.send_with(Expected::Ehlo, |config| match config.protocol {
            Protocol::Smtp => format!("EHLO {}", config.hello),
            // RFC 2033 section 4.1
            Protocol::Lmtp => format!("LHLO {}", config.hello),
        });
    }

    fn greeted(&mut self, reply: &SmtpReply) {
        // RFC 5321 section 4.1.1.1: the name comes first.
        let name = reply.lines.first().and_then(|line| line.split_whitespace().next());
        self.host_name = name.map(str::to_owned);
        self.secure();
    }

    fn secure(&mut self) {
        match self.config.tls {
            TlsUse::Opportunistic | TlsUse::Required if !self.tls && self.features.start_tls => {
                self.send("STARTTLS", Expected::StartTls);
            }
            TlsUse::Required if !self.tls => self.end(Ended::TlsNotOffered),
            _ => self.authenticate(),
        }
    }

    fn authenticate(&mut self) {
        let Some(credentials) = &self.config.credentials else { return };
        if self.features.auth_plain {
            let response = STANDARD.encode(format!("\0{}\0{}", credentials.user, credentials.password));
            self.send(&format!("AUTH PLAIN {response}"), Expected::AuthPlain);
        } else if self.features.auth_login {
            self.send("AUTH LOGIN", Expected::AuthLogin(0));
        } else {
            self.end(Ended::AuthNotOffered);
        }
    }

    fn auth_replied(&mut self, expected: Expected, reply: SmtpReply) {
        let Some(credentials) = &self.config.credentials else { return };
        match (expected, reply.severity()) {
            (_, Severity::Positive) => {}
            (Expected::AuthLogin(0), Severity::Intermediate) => {
                let user = STANDARD.encode(&credentials.user);
                self.send(&user, Expected::AuthLogin(1));
            }
            (Expected::AuthLogin(1), Severity::Intermediate) => {
                let password = STANDARD.encode(&credentials.password);
                self.send(&password, Expected::AuthLogin(2));
            }
            _ => self.refused(Stage::Auth, reply),
        }
    }
}

/// Output and endings.
impl Conversation {
    pub(super) fn send(&mut self, command: &str, expected: Expected) {
        self.commands.extend_from_slice(command.as_bytes());
        self.commands.extend_from_slice(b"\r\n");
        self.expected.push_back(expected);
    }

    fn send_with(&mut self, expected: Expected, command: impl Fn(&ClientConfig) -> String) {
        let command = command(&self.config);
        self.send(&command, expected);
    }

    pub(super) fn flush_commands(&mut self) {
        if !self.commands.is_empty() {
            self.output.push(self.commands.split().freeze());
        }
    }

    pub(super) fn refused(&mut self, stage: Stage, reply: SmtpReply) {
        if let Some(running) = &mut self.running {
            running.settle(&RecipientResult::Replied { stage, reply: reply.clone() });
        }
        self.end(Ended::Refused { stage, reply });
    }

    /// Which replies answered which commands nobody knows any more.
    pub(super) fn out_of_step(&mut self, stage: Stage) {
        let lost_at = self.lost_at(stage);
        if let Some(running) = &mut self.running {
            running.forget_replies();
            running.settle(&RecipientResult::Lost { stage: lost_at });
        }
        self.end(Ended::BadReply { stage });
    }

    /// How far a message has come of which no reply to `stage` tells: where all of it was
    /// written, the host has what it needs to deliver it, whatever reply was to come first.
    fn lost_at(&self, stage: Stage) -> Stage {
        let is_sent = self.is_past_content() && self.output.is_empty() && !self.is_cut;
        if is_sent { Stage::EndOfData } else { stage }
    }

    fn lose(&mut self, stage: Stage) {
        if let Some(expected) = self.expected.front().copied() {
            self.take_down(Some(expected), None);
        }
        if let Some(running) = &mut self.running {
            running.settle(&RecipientResult::Lost { stage });
        }
        self.end(Ended::Lost { stage });
    }

    fn end(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        let stage = self.stage();
        if let Some(transaction) = self.waiting.take() {
            let recipients = transaction.envelope.recipients.iter().map(|_| RecipientResult::Lost { stage });
            self.done = Some(TransactionResult { recipients: recipients.collect() });
        }
        self.finish(&RecipientResult::Lost { stage }, false);
        self.expected.clear();
        self.ended = Some(ended);
    }
}
