//! What a dialogue is for: who answers what its client asks. The rest of a dialogue, and of its
//! connection, is the same for all.

mod feedback;
mod submission;

use std::net::IpAddr;

use postrider_base::{Clock, Timestamp};
use postrider_feedback::Feedback;
use postrider_mail::{EmailAddress, MessageId, SmtpReply, TlsInfo};
use postrider_smtp::{AuthEvent, MailRequest, ReceivedMessage, Session};
use postrider_submission::{AuthStep, Authenticated, Submission};

use feedback::Exchanger;
use submission::Submitter;

/// Who answers a client.
pub(crate) enum Role {
    /// Submission: the client authenticates, and sends mail as somebody.
    Submission(Box<Submitter>),
    /// Feedback: a mail server brings bounces and complaints.
    Feedback(Exchanger),
}

/// How a message came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) session: &'a Session,
    pub(crate) ip: IpAddr,
    pub(crate) tls: Option<&'a TlsInfo>,
    pub(crate) clock: &'a Clock,
}

impl Role {
    /// The role of a submission dialogue.
    pub(crate) fn submission(submission: Submission) -> Role {
        Role::Submission(Box::new(Submitter::new(submission)))
    }

    /// The role of a feedback dialogue, in which so many recipients may be unknown.
    pub(crate) fn feedback(feedback: Feedback, max_unknown: u32) -> Role {
        Role::Feedback(Exchanger::new(feedback, max_unknown))
    }

    /// Whether the client has shown that it is here for what the service is for.
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Role::Submission(submitter) => submitter.user().is_some(),
            Role::Feedback(exchanger) => exchanger.is_known(),
        }
    }

    /// The client's user name, where it has one.
    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Role::Submission(submitter) => submitter.user(),
            Role::Feedback(_) => None,
        }
    }

    /// A credential that a certificate of the client stands for.
    pub(crate) fn credential(&self, user_name: &str) -> Option<Authenticated> {
        match self {
            Role::Submission(submitter) => submitter.credential(user_name),
            Role::Feedback(_) => None,
        }
    }

    /// The client is known by its password, its address or its certificate.
    pub(crate) fn grant(&mut self, who: Authenticated) {
        match self {
            Role::Submission(submitter) => submitter.grant(who),
            Role::Feedback(_) => {}
        }
    }

    /// A step of AUTH; nothing when the client gave up.
    pub(crate) fn authenticate(&mut self, event: AuthEvent, ip: IpAddr) -> Option<AuthStep> {
        match self {
            Role::Submission(submitter) => submitter.authenticate(event, ip),
            // The profile offers none.
            Role::Feedback(_) => Some(submission::no_exchange()),
        }
    }

    /// MAIL.
    pub(crate) fn mail(&mut self, request: &MailRequest, now: Timestamp) -> Result<(), SmtpReply> {
        match self {
            Role::Submission(submitter) => submitter.mail(request, now),
            // RFC 5321 section 4.5.5: bounces come from `<>`, complaints and automatic replies from anybody.
            Role::Feedback(_) => Ok(()),
        }
    }

    /// RCPT.
    pub(crate) fn recipient(&mut self, recipient: &EmailAddress) -> Result<(), SmtpReply> {
        match self {
            Role::Submission(_) => Ok(()),
            Role::Feedback(exchanger) => exchanger.recipient(recipient),
        }
    }

    /// A whole message. When this returns `Ok`, it is on disk; the id goes into the reply.
    pub(crate) async fn message(
        &mut self,
        message: ReceivedMessage,
        way: Way<'_>,
    ) -> Result<Option<MessageId>, SmtpReply> {
        match self {
            Role::Submission(submitter) => submitter.message(message, way).await.map(Some),
            Role::Feedback(exchanger) => exchanger.message(message, way).await.map(|()| None),
        }
    }
}
