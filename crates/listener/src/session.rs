//! One session's dialogue: the state machine, and what it asks of submission.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postrider_base::metrics::RefusalCode;
use postrider_base::{Clock, Metrics, Timestamp, Traces};
use postrider_mail::{SmtpReply, TlsInfo};
use postrider_smtp::{AuthEvent, Event, HoldUntil, MailRequest, Profile, ReceivedMessage, RecipientOverflow, Session};
use postrider_submission::{
    AuthStep, Authenticated, Client, RecipientOverflow as Overflow, Refusal, SaslExchange, Submission,
    SubmissionRequest,
};

use crate::memory::{ContentMemory, Share};
use crate::transcript::Transcript;

/// What a dialogue needs the connection to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Write the output, then read.
    Input,
    /// Write the output, then do the TLS handshake.
    Tls,
    /// Write the output, then close.
    Close,
    /// Write the output: there is much of it.
    Flush,
    /// Wait, then say what is due with [`Dialogue::let_fail`].
    Pause(Duration),
}

/// Output beyond this is written before more input is looked at.
const MUCH_OUTPUT: usize = 16 * 1024;

/// Room for content of unknown size: one full TLS record.
const UNKNOWN_CONTENT: usize = 16 * 1024;

/// What dialogues work with.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) submission: Submission,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) traces: Traces,
    pub(crate) memory: ContentMemory,
}

/// A client's dialogue with submission, without its socket.
pub(crate) struct Dialogue {
    pub(crate) session: Session,
    submission: Submission,
    metrics: Metrics,
    clock: Clock,
    ip: IpAddr,
    tls: Option<TlsInfo>,
    sasl: Option<SaslExchange>,
    who: Option<Authenticated>,
    /// Why authentication has failed, while the client waits to hear it.
    failure: Option<Refusal>,
    /// What the client said in SIZE, or nothing.
    announced: u64,
    /// When delivery of the message under way may begin.
    hold: Option<Timestamp>,
    /// Memory that its content takes, and the bound of all together.
    memory: Share,
    content_bound: u64,
    transcript: Transcript,
    /// Size of the buffer that content was read into last.
    pub(crate) room: usize,
}

impl Dialogue {
    /// The dialogue with a client that has just come; the banner is queued.
    pub(crate) fn new(profile: Arc<Profile>, id: String, ip: IpAddr, content_bound: u64, service: &Service) -> Self {
        let mut session = Session::new(profile, id);
        let mut transcript = Transcript::new(service.traces.clone(), service.clock.clone(), ip);
        transcript.look(&mut session);
        session.greet();
        Dialogue {
            session,
            submission: service.submission.clone(),
            metrics: service.metrics.clone(),
            clock: service.clock.clone(),
            ip,
            tls: None,
            sasl: None,
            who: None,
            failure: None,
            announced: 0,
            hold: None,
            memory: service.memory.share(),
            content_bound,
            transcript,
            room: 0,
        }
    }

    /// The client is known without a password.
    pub(crate) fn identify(&mut self, who: Authenticated) {
        self.session.identify();
        self.grant(who);
    }

    /// The client has a certificate that we trust, which may stand for a credential.
    pub(crate) fn certified(&mut self, credential: Option<&str>) {
        if let Some(tls) = &mut self.tls {
            tls.authenticated = true;
        }
        let Some(credential) = credential else { return };
        match self.submission.credential(credential) {
            Ok(who) => self.identify(who),
            Err(_) => tracing::warn!(
                client = %self.ip, credential,
                "client_certificates names a credential that is disabled or does not exist"
            ),
        }
    }

    /// Whether we know who the client is.
    pub(crate) fn is_known(&self) -> bool {
        self.who.is_some()
    }

    /// Something happened that a transcript should show.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let user = self.who.as_ref().map(|who| who.user_name.as_str());
        self.transcript.note(&self.session, text, user);
    }

    /// The connection is inside TLS now.
    pub(crate) fn tls_started(&mut self, tls: TlsInfo) {
        self.note(|| format!("{} {}", tls.version, tls.cipher));
        self.tls = Some(tls);
        self.session.tls_started();
    }

    /// Works on the input until the connection has to do something.
    pub(crate) async fn go_on(&mut self, input: &mut BytesMut) -> Need {
        self.session.tell_time(self.clock.now());
        self.transcript.look(&mut self.session);
        let need = self.work(input).await;
        let user = self.who.as_ref().map(|who| who.user_name.as_str());
        self.transcript.pass_on(&mut self.session, user);
        need
    }

    async fn work(&mut self, input: &mut BytesMut) -> Need {
        loop {
            let need = match self.session.receive(input) {
                Event::NeedInput => {
                    self.measure(input.len());
                    Some(Need::Input)
                }
                Event::StartTls => Some(Need::Tls),
                Event::Close => Some(Need::Close),
                Event::Auth(event) => self.authenticate(event),
                Event::Mail(request) => self.mail(&request),
                Event::Rcpt(_) => {
                    self.session.accept();
                    None
                }
                Event::MessageBegin => self.begin(),
                Event::Message(message) => {
                    self.submit(message).await;
                    self.memory.release();
                    None
                }
            };
            self.count_refusals();
            match need {
                Some(need) => return need,
                None if self.session.output().len() > MUCH_OUTPUT => return Need::Flush,
                None => {}
            }
        }
    }

    /// Whether there is memory for a message at all.
    fn begin(&mut self) -> Option<Need> {
        if self.memory.cover(1, self.content_bound) {
            self.session.accept();
        } else {
            self.metrics.content_refused.inc();
            self.session.reply(&Refusal::NoRoom.reply());
        }
        None
    }

    /// Holds memory for the content so far and for what was read with it.
    fn measure(&mut self, unread: usize) {
        let kept = self.session.content_octets();
        if kept == 0 && !self.session.is_receiving_content() {
            return self.memory.release();
        }
        if !self.memory.cover(kept + unread as u64, self.content_bound) {
            self.metrics.content_refused.inc();
            self.session.discard_content(Refusal::NoRoom.reply());
            self.memory.release();
        }
    }

    /// Room that the content, the end-of-data line and a QUIT behind it will take.
    pub(crate) fn expected_content(&self) -> usize {
        match self.announced {
            0 => UNKNOWN_CONTENT,
            size => usize::try_from(size).unwrap_or(usize::MAX).saturating_add(64),
        }
    }

    /// Says `text` and ends the session.
    pub(crate) fn end(&mut self, code: u16, text: &str) {
        self.session.shutdown(&SmtpReply::new(code, text));
        self.count_refusals();
    }

    fn authenticate(&mut self, event: AuthEvent) -> Option<Need> {
        let step = match (event, &mut self.sasl) {
            (AuthEvent::Start { mechanism, initial }, _) => {
                let sasl = self.sasl.insert(self.submission.sasl(self.ip));
                sasl.start(&mechanism, initial)
            }
            (AuthEvent::Response(response), Some(sasl)) => sasl.respond(response),
            (AuthEvent::Response(_), None) => AuthStep::Failure { refusal: Refusal::AuthFault, delay: Duration::ZERO },
            (AuthEvent::Cancelled, _) => {
                if let Some(mut sasl) = self.sasl.take() {
                    sasl.cancel();
                }
                return None;
            }
        };
        match step {
            AuthStep::Challenge(challenge) => self.session.auth_challenge(&challenge),
            AuthStep::Success(who) => {
                self.sasl = None;
                tracing::debug!(session = self.session.id(), user = who.user_name, "authenticated");
                self.grant(who);
                self.session.auth_success();
            }
            AuthStep::Failure { refusal, delay } => {
                self.sasl = None;
                self.failure = Some(refusal);
                if !delay.is_zero() {
                    return Some(Need::Pause(delay));
                }
                self.let_fail();
            }
        }
        None
    }

    fn grant(&mut self, who: Authenticated) {
        self.session.set_recipient_overflow(match who.recipient_overflow {
            Overflow::Reject => RecipientOverflow::Reject,
            Overflow::Defer => RecipientOverflow::Defer,
        });
        self.transcript.pass_on(&mut self.session, None);
        self.transcript.known(&who.user_name);
        self.who = Some(who);
    }

    /// Says that authentication has failed, now that the wait for it is over.
    pub(crate) fn let_fail(&mut self) {
        if let Some(refusal) = self.failure.take() {
            self.session.auth_failure(&refusal.reply());
            self.count_refusals();
        }
    }

    fn mail(&mut self, request: &MailRequest) -> Option<Need> {
        self.announced = request.size.unwrap_or_default();
        let now = self.clock.now();
        // RFC 4865 section 4: a time that has passed is no hold.
        self.hold = match request.hold {
            None => None,
            Some(HoldUntil::For(seconds)) => Some(now.saturating_add(Duration::from_secs(seconds.into()))),
            Some(HoldUntil::Until(time)) => Some(time).filter(|time| *time > now),
        };
        let held = self.hold.map_or(Ok(()), |until| self.submission.check_hold(until));
        match held.and_then(|()| self.submission.check_mail(self.announced)) {
            Ok(()) => self.session.accept(),
            Err(refusal) => self.session.reply(&refusal.reply()),
        }
        None
    }

    async fn submit(&mut self, message: ReceivedMessage) {
        let Some(authenticated) = self.who.clone() else {
            // The profile does not let anyone come this far without AUTH.
            return self.session.reply(&Refusal::AuthFault.reply());
        };
        let client = Client {
            ip: self.ip,
            name: self.session.client_name().unwrap_or_default().to_owned(),
            protocol: self.session.protocol(message.envelope.smtp_utf8).to_owned(),
            tls: self.tls.clone(),
        };
        let ReceivedMessage { envelope, content, .. } = message;
        let content = compact(content, self.room);
        let request = SubmissionRequest { envelope, content, authenticated, client, hold: self.hold.take() };
        // Boxed: a connection that waits for commands must not carry room for it.
        match Box::pin(self.submission.submit(request)).await {
            Ok(id) => self.session.accept_message(&id),
            Err(refusal) => {
                tracing::debug!(session = self.session.id(), %refusal, "message refused");
                self.session.reply(&refusal.reply());
            }
        }
    }

    fn count_refusals(&mut self) {
        for code in self.session.take_refusals() {
            self.metrics.refused.of(RefusalCode::of(code)).inc();
        }
    }
}

/// A message is kept for as long as its delivery takes; it must not hold a
/// buffer that is mostly empty.
fn compact(content: Vec<Bytes>, room: usize) -> Vec<Bytes> {
    let size: usize = content.iter().map(Bytes::len).sum();
    if size >= room / 2 { content } else { vec![Bytes::from(content.concat())] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_leave_large_buffers() {
        let content = vec![Bytes::from_static(b"head"), Bytes::from_static(b"body")];
        assert_eq!(compact(content.clone(), 16), content);
        assert_eq!(compact(content, 1000), [Bytes::from_static(b"headbody")]);
    }
}
