//! One session's dialogue: the state machine, and what it asks of submission.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postrider_base::Metrics;
use postrider_base::metrics::RefusalCode;
use postrider_mail::{SmtpReply, TlsInfo};
use postrider_smtp::{AuthEvent, Event, MailRequest, Profile, ReceivedMessage, RecipientOverflow, Session};
use postrider_submission::{
    AuthStep, Authenticated, Client, RecipientOverflow as Overflow, Refusal, SaslExchange, Submission,
    SubmissionRequest,
};

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

/// A client's dialogue with submission, without its socket.
pub(crate) struct Dialogue {
    pub(crate) session: Session,
    submission: Submission,
    metrics: Metrics,
    ip: IpAddr,
    tls: Option<TlsInfo>,
    sasl: Option<SaslExchange>,
    who: Option<Authenticated>,
    /// Why authentication has failed, while the client waits to hear it.
    failure: Option<Refusal>,
    /// What the client said in SIZE, or nothing.
    announced: u64,
    /// Size of the buffer that content was read into last.
    pub(crate) room: usize,
}

impl Dialogue {
    /// The dialogue with a client that has just come; the banner is queued.
    pub(crate) fn new(profile: Arc<Profile>, id: String, ip: IpAddr, submission: Submission, metrics: Metrics) -> Self {
        let mut session = Session::new(profile, id);
        session.greet();
        Dialogue {
            session,
            submission,
            metrics,
            ip,
            tls: None,
            sasl: None,
            who: None,
            failure: None,
            announced: 0,
            room: 0,
        }
    }

    /// The connection is inside TLS now.
    pub(crate) fn tls_started(&mut self, tls: TlsInfo) {
        self.tls = Some(tls);
        self.session.tls_started();
    }

    /// Works on the input until the connection has to do something.
    pub(crate) async fn go_on(&mut self, input: &mut BytesMut) -> Need {
        loop {
            let need = match self.session.receive(input) {
                Event::NeedInput => Some(Need::Input),
                Event::StartTls => Some(Need::Tls),
                Event::Close => Some(Need::Close),
                Event::Auth(event) => self.authenticate(event),
                Event::Mail(request) => self.mail(&request),
                Event::Rcpt(_) | Event::MessageBegin => {
                    self.session.accept();
                    None
                }
                Event::Message(message) => {
                    self.submit(message).await;
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
                self.session.set_recipient_overflow(match who.recipient_overflow {
                    Overflow::Reject => RecipientOverflow::Reject,
                    Overflow::Defer => RecipientOverflow::Defer,
                });
                tracing::debug!(session = self.session.id(), user = who.user_name, "authenticated");
                self.who = Some(who);
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

    /// Says that authentication has failed, now that the wait for it is over.
    pub(crate) fn let_fail(&mut self) {
        if let Some(refusal) = self.failure.take() {
            self.session.auth_failure(&refusal.reply());
            self.count_refusals();
        }
    }

    fn mail(&mut self, request: &MailRequest) -> Option<Need> {
        self.announced = request.size.unwrap_or_default();
        match self.submission.check_mail(self.announced) {
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
        let request = SubmissionRequest { envelope, content, authenticated, client, hold: None };
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
