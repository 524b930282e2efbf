//! What comes back for messages that a remote host had taken: bounces and complaints, said in
//! reports after the dialogue.

use std::net::IpAddr;

use postrider_base::Timestamp;
use postrider_mail::dsn::Action;
use postrider_mail::{BounceKind, Domain, EmailAddress, EnhancedStatus, MessageId, sanitize_text};
use serde::{Deserialize, Serialize};

/// A report about recipients of one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Returned {
    /// The message that it is about.
    pub id: MessageId,
    /// When the remote says that it sent it. What can not be, before the message was accepted or
    /// after now, is moved there.
    pub at: Timestamp,
    /// Whom it concerns.
    pub affected: Affected,
    /// What it says of them.
    pub what: ReturnedKind,
    /// Who said it.
    pub source: ReturnedSource,
    /// The id of the message in which who sent it is told of this, if he is: kept with what is
    /// journaled, so that a report that comes again finds out whether he was.
    pub notice: Option<MessageId>,
}

/// Which of the message's recipients. Those that were never written to are left out: they are
/// suppressed, deleted, or the message was rejected.
#[derive(Clone, Debug, PartialEq)]
pub enum Affected {
    /// The one with this index in the envelope.
    Index(u16),
    /// The one with this address, compared without regard to case.
    Address(EmailAddress),
    /// All whose domain is that of the recipient with this index: a transaction has recipients
    /// of one domain, and its return path names the first.
    DomainOf(u16),
    /// All of this domain: of a complaint whose recipient is blacked out, by the domain that
    /// reported it.
    At(Domain),
    /// Those of these whose domain is that of the recipient with this index: a return path says
    /// nothing of other transactions of its message.
    Among(u16, Box<Affected>),
    /// All.
    All,
}

impl Affected {
    /// Whether it names recipients, rather than whoever is there.
    pub(crate) fn is_named(&self) -> bool {
        match self {
            Self::Index(_) | Self::Address(_) => true,
            Self::Among(_, named) => named.is_named(),
            Self::DomainOf(_) | Self::At(_) | Self::All => false,
        }
    }

    /// Whether it means the one of a message's recipients that has this index.
    pub fn means(&self, index: u16, recipients: &[EmailAddress]) -> bool {
        let domain_of = |index: u16| recipients.get(usize::from(index)).map(EmailAddress::domain);
        match self {
            Self::Index(meant) => index == *meant,
            Self::Address(meant) => recipients.get(usize::from(index)).is_some_and(|own| own.fold() == meant.fold()),
            Self::DomainOf(meant) => domain_of(index) == domain_of(*meant),
            Self::At(domain) => domain_of(index) == Some(domain),
            Self::Among(with, meant) => domain_of(index) == domain_of(*with) && meant.means(index, recipients),
            Self::All => true,
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReturnedKind {
    /// It was not delivered after all.
    Bounce(ReturnedBounce),
    /// The recipient complains about it.
    Complaint(ReturnedComplaint),
}

/// Why a message came back. Texts are cut to 1,000 bytes and made printable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReturnedBounce {
    /// What kind of bounce it is.
    pub kind: BounceKind,
    /// The report's `Action` (RFC 3464 section 2.3.3); none where it is no such report.
    pub action: Option<Action>,
    /// Its `Status` (RFC 3464 section 2.3.4).
    pub status: Option<EnhancedStatus>,
    /// Its `Diagnostic-Code` with the type, such as `smtp; 550 5.1.1 user unknown`
    /// (RFC 3464 section 2.3.6).
    pub diagnostic: Option<String>,
    /// Its `Reporting-MTA` with the type, such as `dns; mx.example.net` (RFC 3464 section 2.2.2).
    pub reporting_mta: Option<String>,
}

/// What a complaint says of itself (RFC 5965 section 3). Texts are cut to 1,000 bytes and made
/// printable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReturnedComplaint {
    /// `Feedback-Type`, such as `abuse`; none where it is no such report.
    pub feedback_type: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `Arrival-Date`, or its older name `Received-Date`.
    pub arrival_date: Option<Timestamp>,
}

impl ReturnedComplaint {
    /// Whether a recipient objects. A report that a message is no spam, or that a check of its
    /// authenticity failed (RFC 6591), is told as a complaint, but counts against nobody.
    pub fn is_objection(&self) -> bool {
        is_objection(self.feedback_type.as_deref())
    }
}

/// Whether a report of this `Feedback-Type` says that a recipient objects.
pub(crate) fn is_objection(feedback_type: Option<&str>) -> bool {
    !feedback_type.is_some_and(|said| ["not-spam", "auth-failure"].iter().any(|no| said.eq_ignore_ascii_case(no)))
}

/// Who sent a report, for the record. Texts are cut and made printable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReturnedSource {
    /// The client's address; none for what the relay itself plays.
    pub ip: Option<IpAddr>,
    /// The domains that answer for it, by SPF, DKIM or DMARC.
    pub domains: Vec<String>,
    /// The session that it came in, as the log names it.
    pub session: String,
}

/// What became of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It is in the journal, synced, for these recipients.
    Journaled(Vec<EmailAddress>),
    /// The journal had all that it says. In these messages who sent it is told of it, if he is;
    /// the journal has every one of them that an earlier process accepted.
    Known(Vec<MessageId>),
    /// The journal has no such message (any more), or it was never sent to such a recipient.
    Unknown,
}

/// What came back, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReturnedRecord {
    /// Indexes of the recipients that are told of.
    pub(crate) recipients: Vec<u16>,
    /// When it was journaled.
    pub(crate) at: Timestamp,
    pub(crate) what: ReturnedKind,
    pub(crate) source: ReturnedSource,
    /// Stored behind the rest, which earlier versions wrote without it.
    #[serde(skip)]
    pub(crate) notice: Option<MessageId>,
}

impl ReturnedRecord {
    /// The recipients, where it is a permanent bounce of them.
    pub(crate) fn gone(&self) -> &[u16] {
        match &self.what {
            ReturnedKind::Bounce(bounce) if bounce.kind.is_hard() => &self.recipients,
            ReturnedKind::Bounce(_) | ReturnedKind::Complaint(_) => &[],
        }
    }
}

/// Bytes kept of a text.
const MAX_TEXT: usize = 1_000;
/// Domains kept of those that answer for a report.
const MAX_DOMAINS: usize = 8;

impl Returned {
    /// With texts that fit into a line and a record.
    pub(crate) fn bounded(mut self) -> Self {
        match &mut self.what {
            ReturnedKind::Bounce(bounce) => {
                bound(&mut bounce.diagnostic);
                bound(&mut bounce.reporting_mta);
            }
            ReturnedKind::Complaint(complaint) => {
                bound(&mut complaint.feedback_type);
                bound(&mut complaint.user_agent);
            }
        }
        self.source.domains.truncate(MAX_DOMAINS);
        for text in self.source.domains.iter_mut().chain([&mut self.source.session]) {
            *text = sanitize_text(text.as_bytes(), MAX_TEXT);
        }
        self
    }
}

fn bound(text: &mut Option<String>) {
    if let Some(text) = text {
        *text = sanitize_text(text.as_bytes(), MAX_TEXT);
    }
}
