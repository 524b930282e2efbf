//! Mail from other servers, about mail that we have sent.

use postrider_feedback::{Arrived, Feedback, Mailbox};
use postrider_mail::{EmailAddress, SmtpReply};
use postrider_smtp::ReceivedMessage;

use super::Way;

/// A server that brings feedback.
pub(crate) struct Exchanger {
    feedback: Feedback,
    is_known: bool,
    /// Recipients that mail is not taken for, and how many of them there may be.
    unknown: u32,
    max_unknown: u32,
}

impl Exchanger {
    pub(super) fn new(feedback: Feedback, max_unknown: u32) -> Exchanger {
        Exchanger { feedback, is_known: false, unknown: 0, max_unknown }
    }

    /// Whether the client has named a return path of ours. Nobody can guess one, it carries a
    /// code; `postmaster@` and the addresses for complaints everybody knows.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    pub(super) fn recipient(&mut self, recipient: &EmailAddress) -> Result<(), SmtpReply> {
        match self.feedback.recipient(recipient) {
            Ok(mailbox) => {
                self.is_known |= matches!(mailbox, Mailbox::ReturnPath(_));
                Ok(())
            }
            Err(_) if self.unknown >= self.max_unknown => Err(SmtpReply::new(421, "4.7.0 Too many unknown recipients")),
            Err(reply) => {
                self.unknown += 1;
                Err(reply)
            }
        }
    }

    pub(super) async fn message(&mut self, message: ReceivedMessage, way: Way<'_>) -> Result<(), SmtpReply> {
        let ReceivedMessage { envelope, content, .. } = message;
        // What each RCPT said once more, rather than a list beside the session's own: that one
        // knows about RSET and a second EHLO.
        let mailbox = |address: &EmailAddress| self.feedback.recipient(address);
        let recipients = envelope.recipients.iter().map(|recipient| mailbox(&recipient.address));
        let recipients = recipients.collect::<Result<Vec<Mailbox>, SmtpReply>>()?;
        let arrived = Arrived {
            session: way.session.id().to_owned(),
            client: way.ip,
            helo: way.session.client_name().map(str::to_owned),
            tls: way.tls.is_some(),
            require_tls: envelope.require_tls,
            sender: envelope.sender,
            recipients,
            content,
            at: way.clock.now(),
        };
        self.feedback.take(arrived).await
    }
}
