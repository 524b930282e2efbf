//! Mail from authenticated clients.

use std::net::IpAddr;
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_mail::{MessageId, SmtpReply};
use postrider_smtp::{AuthEvent, HoldUntil, MailRequest, ReceivedMessage};
use postrider_submission::{AuthStep, Authenticated, Client, Refusal, SaslExchange, Submission, SubmissionRequest};

use super::Way;

/// A client that submits mail.
pub(crate) struct Submitter {
    submission: Submission,
    sasl: Option<SaslExchange>,
    who: Option<Authenticated>,
    /// When delivery of the message under way may begin.
    hold: Option<Timestamp>,
}

impl Submitter {
    pub(super) fn new(submission: Submission) -> Submitter {
        Submitter { submission, sasl: None, who: None, hold: None }
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.who.as_ref().map(|who| who.user_name.as_str())
    }

    pub(super) fn credential(&self, user_name: &str) -> Option<Authenticated> {
        self.submission.credential(user_name).ok()
    }

    pub(super) fn grant(&mut self, who: Authenticated) {
        self.who = Some(who);
    }

    pub(super) fn authenticate(&mut self, event: AuthEvent, ip: IpAddr) -> Option<AuthStep> {
        let step = match (event, &mut self.sasl) {
            (AuthEvent::Start { mechanism, initial }, _) => {
                let sasl = self.sasl.insert(self.submission.sasl(ip));
                sasl.start(&mechanism, initial)
            }
            (AuthEvent::Response(response), Some(sasl)) => sasl.respond(response),
            (AuthEvent::Response(_), None) => no_exchange(),
            (AuthEvent::Cancelled, _) => {
                if let Some(mut sasl) = self.sasl.take() {
                    sasl.cancel();
                }
                return None;
            }
        };
        if !matches!(step, AuthStep::Challenge(_)) {
            self.sasl = None;
        }
        Some(step)
    }

    pub(super) fn mail(&mut self, request: &MailRequest, now: Timestamp) -> Result<(), SmtpReply> {
        // RFC 4865 section 4: a time that has passed is no hold.
        self.hold = match request.hold {
            None => None,
            Some(HoldUntil::For(seconds)) => Some(now.saturating_add(Duration::from_secs(seconds.into()))),
            Some(HoldUntil::Until(time)) => Some(time).filter(|time| *time > now),
        };
        let held = self.hold.map_or(Ok(()), |until| self.submission.check_hold(until));
        let checked = held.and_then(|()| self.submission.check_mail(request.size.unwrap_or_default()));
        checked.map_err(|refusal| refusal.reply())
    }

    pub(super) async fn message(&mut self, message: ReceivedMessage, way: Way<'_>) -> Result<MessageId, SmtpReply> {
        let Some(authenticated) = self.who.clone() else {
            // The profile does not let anyone come this far without AUTH.
            return Err(Refusal::AuthFault.reply());
        };
        let client = Client {
            ip: way.ip,
            name: way.session.client_name().unwrap_or_default().to_owned(),
            protocol: way.session.protocol(message.envelope.smtp_utf8).to_owned(),
            tls: way.tls.cloned(),
        };
        let ReceivedMessage { envelope, content, .. } = message;
        let request = SubmissionRequest { envelope, content, authenticated, client, hold: self.hold.take() };
        self.submission.submit(request).await.map_err(|refusal| {
            tracing::debug!(session = way.session.id(), %refusal, "message refused");
            refusal.reply()
        })
    }
}

/// A response to a challenge that nobody made: ours.
pub(super) fn no_exchange() -> AuthStep {
    AuthStep::Failure { refusal: Refusal::AuthFault, delay: Duration::ZERO }
}
