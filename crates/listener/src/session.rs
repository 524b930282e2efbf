//! One session's dialogue: the state machine, and what it asks of who answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postrider_base::metrics::RefusalCode;
use postrider_base::{Clock, Metrics, Traces};
use postrider_feedback::Feedback;
use postrider_mail::{SmtpReply, TlsInfo};
use postrider_smtp::{AuthEvent, Event, MailRequest, Profile, ReceivedMessage, RecipientOverflow, Session};
use postrider_submission::{AuthStep, Authenticated, RecipientOverflow as Overflow, Refusal, Submission};
use tokio::time::Instant;

use crate::memory::Share;
use crate::role::{Role, Way};
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
    /// Write the output, then end the session, which has had its time.
    Late,
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
    pub(crate) feedback: Option<Feedback>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) traces: Traces,
}

/// A client's dialogue, without its socket.
pub(crate) struct Dialogue {
    pub(crate) session: Session,
    role: Role,
    metrics: Metrics,
    clock: Clock,
    ip: IpAddr,
    tls: Option<TlsInfo>,
    /// Why authentication has failed, while the client waits to hear it.
    failure: Option<Refusal>,
    /// What the client said in SIZE, or nothing.
    announced: u64,
    /// Memory that the content of the message under way takes, and the bound of all together.
    memory: Share,
    content_bound: u64,
    transcript: Transcript,
    /// Size of the buffer that content was read into last.
    pub(crate) room: usize,
    /// From when on no message is begun, also where its commands came with the last one.
    pub(crate) ends: Option<Instant>,
}

impl Dialogue {
    /// The dialogue with a client that has just come; the banner is queued. The content of all
    /// dialogues that share `memory` may take `content_bound` octets of it.
    pub(crate) fn new(
        role: Role,
        profile: Arc<Profile>,
        id: String,
        ip: IpAddr,
        (memory, content_bound): (Share, u64),
        service: &Service,
    ) -> Self {
        let mut session = Session::new(profile, id);
        let mut transcript = Transcript::new(service.traces.clone(), service.clock.clone(), ip);
        transcript.look(&mut session);
        session.greet();
        Dialogue {
            session,
            role,
            metrics: service.metrics.clone(),
            clock: service.clock.clone(),
            ip,
            tls: None,
            failure: None,
            announced: 0,
            memory,
            content_bound,
            transcript,
            room: 0,
            ends: None,
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
        match self.role.credential(credential) {
            Some(who) => self.identify(who),
            None => tracing::warn!(
                client = %self.ip, credential,
                "client_certificates names a credential that is disabled or does not exist"
            ),
        }
    }

    /// Whether the client has shown that it is here for what the service is for.
    pub(crate) fn is_known(&self) -> bool {
        self.role.is_known()
    }

    /// Something happened that a transcript should show.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        self.transcript.note(&self.session, text, self.role.user());
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
        self.transcript.pass_on(&mut self.session, self.role.user());
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
                Event::Mail(_) if self.ends.is_some_and(|ends| ends <= self.clock.instant()) => Some(Need::Late),
                Event::Mail(request) => self.mail(&request),
                Event::Rcpt(request) => {
                    let answer = self.role.recipient(&request.recipient.address);
                    self.answer(answer)
                }
                Event::MessageBegin => self.begin(),
                Event::Message(message) => {
                    self.take(message).await;
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
        match self.role.authenticate(event, self.ip)? {
            AuthStep::Challenge(challenge) => self.session.auth_challenge(&challenge),
            AuthStep::Success(who) => {
                tracing::debug!(session = self.session.id(), user = who.user_name, "authenticated");
                self.grant(who);
                self.session.auth_success();
            }
            AuthStep::Failure { refusal, delay } => {
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
        self.role.grant(who);
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
        let answer = self.role.mail(request, self.clock.now());
        self.answer(answer)
    }

    fn answer(&mut self, answer: Result<(), SmtpReply>) -> Option<Need> {
        match answer {
            Ok(()) => self.session.accept(),
            Err(reply) => self.session.reply(&reply),
        }
        None
    }

    async fn take(&mut self, message: ReceivedMessage) {
        let message = ReceivedMessage { content: compact(message.content, self.room), ..message };
        let way = Way { session: &self.session, ip: self.ip, tls: self.tls.as_ref(), clock: &self.clock };
        // Boxed: a connection that waits for commands must not carry room for it.
        match Box::pin(self.role.message(message, way)).await {
            Ok(Some(id)) => self.session.accept_message(&id),
            Ok(None) => self.session.accept(),
            Err(reply) => self.session.reply(&reply),
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
