//! The handle that everybody holds.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use postrider_base::{Clock, Metrics, Random, Timestamp};
use postrider_events::Events;
use postrider_mail::{EmailAddress, SmtpReply};
use postrider_mailauth::verify::Verifier;
use postrider_submission::{ReturnPaths, Submission};

use crate::mailbox::{Mailbox, ROLES};
use crate::settings::Settings;
use crate::take::Visit;
use crate::told::Told;

/// What feedback works with.
#[derive(Clone, Debug)]
pub struct FeedbackOptions {
    /// Whose return paths come back.
    pub return_paths: ReturnPaths,
    /// Where events are written, and messages are found.
    pub events: Events,
    /// Says whose mail it is that arrives.
    pub verifier: Verifier,
    /// Takes the mail to senders and to the operator.
    pub submission: Submission,
    /// What time it is.
    pub clock: Clock,
    /// Boundaries of what is written.
    pub random: Random,
    /// Where it is counted.
    pub metrics: Metrics,
    /// What the operator says.
    pub rules: FeedbackRules,
}

/// What the operator says, and may say otherwise while the relay runs.
#[derive(Clone, Debug)]
pub struct FeedbackRules {
    /// Bounds, and the addresses for complaints.
    pub settings: Settings,
    /// Who gets the mail to `postmaster@` and `abuse@` of return path domains
    /// (`upkeep.operator_address`); without one there are no such mailboxes.
    pub operator: Option<EmailAddress>,
    /// Whether senders are told of bounces and complaints by mail
    /// (`delivery.feedback_forwarding`). Without it those are told of bounces who asked to be
    /// (NOTIFY, RFC 3461).
    pub forwarding: bool,
}

/// Takes what comes back. A cheap handle; clones are the same.
#[derive(Clone, Debug)]
pub struct Feedback(Arc<Shared>);

/// What all messages share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: FeedbackOptions,
    pub(crate) rules: ArcSwap<FeedbackRules>,
    pub(crate) told: Told,
}

/// A message that arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The session, as the log names it.
    pub session: String,
    /// The client's address.
    pub client: IpAddr,
    /// What the client called itself.
    pub helo: Option<String>,
    /// Whether it came encrypted.
    pub tls: bool,
    /// It may not go on without TLS (RFC 8689 section 5): nor does what is passed on of it.
    pub require_tls: bool,
    /// The reverse-path; `None` is the null one.
    pub sender: Option<EmailAddress>,
    /// Whom it is for: what [`Feedback::recipient`] said at each RCPT.
    pub recipients: Vec<Mailbox>,
    /// Header and body.
    pub content: Vec<Bytes>,
    /// When its last byte came.
    pub at: Timestamp,
}

impl Feedback {
    /// Ready to take mail.
    #[must_use]
    pub fn new(options: FeedbackOptions) -> Self {
        let rules = ArcSwap::from_pointee(options.rules.clone());
        Self(Arc::new(Shared { options, rules, told: Told::default() }))
    }

    /// Takes new rules. They hold from the next message on.
    pub fn reload(&self, rules: FeedbackRules) {
        self.0.rules.store(Arc::new(rules));
    }

    /// Whether mail for this address is for us, from memory: a return path of ours that nobody
    /// made up; one of `complaint_addresses`; `postmaster@` and `abuse@` of a domain of return
    /// paths, where somebody reads them.
    ///
    /// # Errors
    /// `550 5.1.1` for every other address: this is no way into anybody's mailbox.
    pub fn recipient(&self, recipient: &EmailAddress) -> Result<Mailbox, SmtpReply> {
        let rules = self.0.rules.load();
        let mailbox = self.0.mailbox(recipient, &rules);
        mailbox.ok_or_else(|| SmtpReply::new(550, "5.1.1 There is no such mailbox"))
    }

    /// Takes a message: when this returns `Ok`, all that it says is on disk, and so is the mail
    /// that it causes.
    ///
    /// # Errors
    /// `451` where that can not be written now, so that the client comes again; `550` and `554`
    /// for what nobody can use.
    pub async fn take(&self, arrived: Arrived) -> Result<(), SmtpReply> {
        Visit::new(&self.0, arrived).await?.run().await
    }
}

impl Shared {
    fn mailbox(&self, recipient: &EmailAddress, rules: &FeedbackRules) -> Option<Mailbox> {
        if let Some(verp) = self.options.return_paths.read(recipient) {
            return Some(Mailbox::ReturnPath(verp));
        }
        let folded = recipient.fold();
        if rules.settings.complaint_addresses.iter().any(|address| address.fold() == folded) {
            return Some(Mailbox::Complaints(recipient.clone()));
        }
        let is_role = ROLES.iter().any(|role| recipient.local().eq_ignore_ascii_case(role));
        let is_read = is_role && rules.operator.is_some();
        (is_read && self.options.return_paths.is_domain(recipient.domain()))
            .then(|| Mailbox::Operator(recipient.clone()))
    }

    /// Whether mail to this address would come back to us.
    pub(crate) fn is_ours(&self, address: &EmailAddress, rules: &FeedbackRules) -> bool {
        self.mailbox(address, rules).is_some()
    }
}
