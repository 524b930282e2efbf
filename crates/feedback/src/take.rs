//! What is done with a message that arrived.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_base::metrics::{FeedbackKind, FeedbackOutcome};
use postrider_events::{Affected, Reported, Returned, ReturnedKind, ReturnedSource};
use postrider_mail::{AccountId, Domain, EmailAddress, MessageId, SmtpReply, Verp};
use postrider_mailauth::authentication_results::without_forged;
use postrider_mailauth::verify::dkim::DkimResult;
use postrider_mailauth::verify::spf::SpfResult;
use postrider_mailauth::verify::{Looked, Verdict};
use postrider_submission::OriginKind;

use crate::feedback::{Arrived, FeedbackRules, Shared};
use crate::finding::{Finding, Ours, sent_at};
use crate::mailbox::Mailbox;
use crate::pass_on::PassedOn;
use crate::report::{Reading, Report, read, read_kind};
use crate::status::Action;
use crate::told::{News, What};

/// A message that arrived, with what is known of it.
pub(crate) struct Visit<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) rules: Arc<FeedbackRules>,
    pub(crate) arrived: Arrived,
    content: Bytes,
    pub(crate) reading: Reading,
    looked: Looked,
}

impl<'a> Visit<'a> {
    /// Reads and verifies a message. Neither can refuse it: who it is from says nothing of
    /// whether a return path came back.
    ///
    /// # Errors
    /// `451` where the relay stops meanwhile.
    pub(crate) async fn new(shared: &'a Shared, mut arrived: Arrived) -> Result<Visit<'a>, SmtpReply> {
        let rules = shared.rules.load_full();
        let content = joined(std::mem::take(&mut arrived.content));
        let reading = reading(&arrived, &content, &rules).await?;
        let (helo, sender) = (arrived.helo.as_deref(), arrived.sender.as_ref());
        let looked = shared.options.verifier.look(&content, arrived.client, helo, sender).await;
        shared.options.metrics.feedback_arrived.of(kind(&reading)).inc();
        Ok(Visit { shared, rules, arrived, content, reading, looked })
    }

    /// Does for each recipient what is to be done, and gives the one answer for all. Where one
    /// may be served later, the client comes again for all: what was done is known then. Else one
    /// that was served is enough: after a refusal nobody may be served (RFC 5321 section
    /// 4.2.5), and no recipient here has another whom the refusal of one concerns.
    pub(crate) async fn run(&self) -> Result<(), SmtpReply> {
        let (mut answer, mut for_operator) = (Answer::default(), Vec::new());
        for mailbox in self.mailboxes() {
            match self.serve(mailbox).await {
                Ok(Served::For(outcome)) => answer.take(self.noted(mailbox, Ok(outcome))),
                Ok(Served::ByOperator) => for_operator.push(mailbox),
                Err(reply) => answer.take(self.noted(mailbox, Err(reply))),
            }
        }
        // Nobody remembers what went to the operator, who gets it once.
        if answer.later.is_none() && !for_operator.is_empty() {
            let sent = self.to_operator().await;
            for mailbox in for_operator {
                answer.take(self.noted(mailbox, sent.clone()));
            }
        }
        answer.reply()
    }

    /// Those that it is for, each once: whoever reads the mail for several addresses gets it
    /// once.
    fn mailboxes(&self) -> impl Iterator<Item = &Mailbox> {
        let mut seen = HashSet::new();
        self.arrived.recipients.iter().filter(move |mailbox| seen.insert(place(mailbox)))
    }

    /// Takes note of what became of a recipient.
    fn noted(&self, mailbox: &Mailbox, served: Result<FeedbackOutcome, SmtpReply>) -> Result<(), SmtpReply> {
        let outcome = match &served {
            Ok(outcome) => *outcome,
            Err(reply) if reply.code >= 500 => FeedbackOutcome::Refused,
            Err(_) => FeedbackOutcome::Later,
        };
        self.shared.options.metrics.feedback_outcomes.of(outcome).inc();
        self.log(mailbox, outcome);
        served.map(drop)
    }

    fn log(&self, mailbox: &Mailbox, outcome: FeedbackOutcome) {
        use postrider_base::metrics::Label as _;
        let about = match mailbox {
            Mailbox::ReturnPath(verp) => verp.id.to_string(),
            Mailbox::Complaints(address) | Mailbox::Operator(address) => address.to_string(),
        };
        let Arrived { session, client, sender, .. } = &self.arrived;
        let from = sender.as_ref().map_or("", EmailAddress::as_str);
        let (kind, outcome) = (kind(&self.reading).as_str(), outcome.as_str());
        tracing::info!(session, %client, from, about, kind, outcome, verified = %self.looked, "feedback");
    }

    async fn serve(&self, mailbox: &Mailbox) -> Result<Served, SmtpReply> {
        if self.reading.passed_on {
            // RFC 5321 section 6.3
            return Err(SmtpReply::new(554, "5.4.6 This was passed on before"));
        }
        let verp = match mailbox {
            Mailbox::ReturnPath(verp) => Some(*verp),
            Mailbox::Complaints(_) | Mailbox::Operator(_) => None,
        };
        match (verp, &self.reading.report) {
            (Some(_), Report::Status(_)) | (_, Report::Complaint(_)) => {
                let found = Finding::of(&self.reading, verp, &self.domains(), self.ours());
                match (found, verp) {
                    (Some(finding), _) => self.journal(finding, verp).await,
                    (None, Some(_)) => Ok(Served::For(FeedbackOutcome::Unknown)),
                    (None, None) => Ok(Served::ByOperator),
                }
            }
            (Some(verp), Report::Automatic) => self.automatic(verp).await.map(Served::For),
            (Some(_), Report::Other) => Err(SmtpReply::new(550, "5.7.1 This mailbox takes delivery reports alone")),
            (None, _) => Ok(Served::ByOperator),
        }
    }

    /// Has everything that was found journaled, then tells the sender what is new of it, and what
    /// an earlier visit did not come to tell. Nobody else tells of it before all is journaled.
    async fn journal(&self, finding: Finding, verp: Option<Verp>) -> Result<Served, SmtpReply> {
        let Finding { id, returned } = finding;
        // Blacked out, and from nobody for certain.
        let is_open = returned.iter().any(|(whom, _)| whom.is_empty());
        let (mut is_new, mut is_known, mut failed) = (false, false, Ok(()));
        let (notice, mut notices) = (self.shared.options.submission.new_id(), BTreeSet::new());
        let own = self.turn(News { id, what: What::Event(notice) })?;
        for (whom, what) in returned {
            match self.report(id, notice, whom, &what).await {
                Ok(Reported::Journaled(_)) => {
                    is_new = true;
                    notices.insert(notice);
                }
                Ok(Reported::Known(told)) => {
                    is_known = true;
                    notices.extend(told);
                }
                Ok(Reported::Unknown) => {}
                Err(reply) => {
                    failed = Err(reply);
                    break;
                }
            }
        }
        // Who comes again for the rest is told of all of it.
        failed?;
        if !notices.is_empty() {
            self.tell(id, &notices, own).await?;
        }
        if let Some(verp) = verp {
            self.progress(verp).await?;
        }
        Ok(Served::For(match (is_known, &self.reading.report) {
            _ if is_new => FeedbackOutcome::Journaled,
            (true, _) => FeedbackOutcome::Known,
            // Whom it is about is not in the journal any more, or never was: nothing to
            // come again for. A complaint somebody should see.
            (false, Report::Complaint(_)) if is_open && self.is_verified_later() => return Err(busy()),
            (false, Report::Complaint(_)) => return Ok(Served::ByOperator),
            (false, Report::Status(report)) if report.recipients.iter().all(|r| r.action != Action::Failed) => {
                FeedbackOutcome::Progress
            }
            (false, _) => FeedbackOutcome::Unknown,
        }))
    }

    /// Reports it of the first of those that the message was for. It is told in the message `notice`.
    async fn report(
        &self,
        id: MessageId,
        notice: MessageId,
        whom: Vec<Affected>,
        what: &ReturnedKind,
    ) -> Result<Reported, SmtpReply> {
        for affected in whom {
            let source = ReturnedSource {
                ip: Some(self.arrived.client),
                domains: self.looked.domains(),
                session: self.arrived.session.clone(),
            };
            let at = sent_at(&self.reading, self.arrived.at);
            let returned = Returned { id, at, affected, what: what.clone(), source, notice: Some(notice) };
            let reported = self.shared.options.events.report(returned).await;
            match reported.map_err(|error| self.later(&error))? {
                Reported::Unknown => {}
                reported => return Ok(reported),
            }
        }
        Ok(Reported::Unknown)
    }

    /// An automatic reply goes on to the sender, as SES has it: once for each recipient. It is no
    /// event.
    async fn automatic(&self, verp: Verp) -> Result<FeedbackOutcome, SmtpReply> {
        if !self.rules.forwarding {
            return Ok(FeedbackOutcome::Dropped);
        }
        let Some(concerned) = self.concerned(verp.id).await? else { return Ok(FeedbackOutcome::Dropped) };
        let Some(telling) = self.turn(News { id: verp.id, what: What::Automatic(verp.scope) })? else {
            return Ok(FeedbackOutcome::Dropped);
        };
        let why = format!("An automatic reply to your message {}\r\nis attached.", verp.id);
        let id = self.shared.options.submission.new_id();
        if !self.if_within_bounds(&concerned.sender, self.to_sender(id, &concerned, &why)).await? {
            return Ok(FeedbackOutcome::Dropped);
        }
        self.told(telling);
        Ok(FeedbackOutcome::Sender)
    }

    /// To whoever looks after the relay: mail for `postmaster@` and `abuse@`, and what comes to
    /// the addresses for complaints and is about no message of ours.
    async fn to_operator(&self) -> Result<FeedbackOutcome, SmtpReply> {
        let Some(operator) = &self.rules.operator else { return Ok(FeedbackOutcome::Unknown) };
        if self.shared.is_ours(operator, &self.rules) {
            // RFC 5321 section 6.3
            return Err(SmtpReply::new(554, "5.4.6 Mail for the operator would come back here"));
        }
        let why = "This came to an address of the relay's mail exchanger for bounces and complaints.";
        let id = self.shared.options.submission.new_id();
        let sent = self.pass_on(id, AccountId::default(), operator, OriginKind::Operator, why);
        match self.if_within_bounds(operator, sent).await? {
            true => Ok(FeedbackOutcome::Operator),
            false => Err(SmtpReply::new(451, "4.7.1 Too much mail for this mailbox, try again later")),
        }
    }

    /// Queues what arrived inside of a message of this id.
    pub(crate) async fn pass_on(
        &self,
        id: MessageId,
        account: AccountId,
        to: &EmailAddress,
        kind: OriginKind,
        why: &str,
    ) -> Result<(), SmtpReply> {
        let options = &self.shared.options;
        let message = without_forged(&self.content, options.verifier.receiver());
        let passed = PassedOn {
            id,
            account,
            to,
            kind,
            why,
            message: &message,
            verified: &self.looked.field(),
            max_bytes: self.rules.settings.max_read_bytes.bytes(),
            require_tls: self.arrived.require_tls,
            boundary: options.random.u128(),
        };
        self.queued(passed.send(&options.submission).await.map(drop))
    }

    /// Whether who it is from may be known when it comes again soon: there was no turn to verify
    /// it, or the DNS did not answer. One that is old has come again often enough; so has, for
    /// all we know, one that does not say how old it is. A clock may be fast.
    fn is_verified_later(&self) -> bool {
        let Looked { verdict, refused, .. } = &self.looked;
        let may_change = match verdict {
            None => refused.is_none(),
            Some(Verdict { spf, dkim, .. }) => {
                spf.iter().any(|spf| spf.result == SpfResult::TempError)
                    || dkim.iter().any(|one| one.result == DkimResult::TempError)
            }
        };
        let latest = self.arrived.at.saturating_add(FAST);
        let sent = self.reading.date.filter(|date| *date <= latest);
        may_change && sent.is_some_and(|sent| self.arrived.at.saturating_since(sent) < ASKED_AGAIN_FOR)
    }

    pub(crate) fn later(&self, error: &postrider_events::Error) -> SmtpReply {
        tracing::warn!(session = self.arrived.session, %error, "feedback: what came back could not be journaled");
        busy()
    }

    fn ours(&self) -> Ours<'_> {
        let options = &self.shared.options;
        Ours { return_paths: &options.return_paths, message_id_domain: options.submission.message_id_domain() }
    }

    fn domains(&self) -> Vec<Domain> {
        self.looked.domains().iter().filter_map(|domain| domain.parse().ok()).collect()
    }
}

/// What was done for a recipient.
enum Served {
    For(FeedbackOutcome),
    /// The operator is to see it.
    ByOperator,
}

/// The one answer for all recipients.
#[derive(Default)]
struct Answer {
    is_served: bool,
    refused: Option<SmtpReply>,
    later: Option<SmtpReply>,
}

impl Answer {
    fn take(&mut self, served: Result<(), SmtpReply>) {
        match served {
            Ok(()) => self.is_served = true,
            Err(reply) if reply.code >= 500 => self.refused = Some(reply),
            Err(reply) => self.later = Some(reply),
        }
    }

    fn reply(self) -> Result<(), SmtpReply> {
        let refused = self.refused.filter(|_| !self.is_served);
        self.later.or(refused).map_or(Ok(()), Err)
    }
}

/// How long who sent a complaint is asked to come again because nothing says who that is.
const ASKED_AGAIN_FOR: Duration = Duration::from_hours(4);

/// How far ahead of ours the clock of another host may be.
const FAST: Duration = Duration::from_mins(10);

pub(crate) fn busy() -> SmtpReply {
    SmtpReply::new(451, "4.3.0 Temporary service failure")
}

/// Where mail for a recipient leads to.
fn place(mailbox: &Mailbox) -> Option<Verp> {
    match mailbox {
        Mailbox::ReturnPath(verp) => Some(*verp),
        // To the journal or the operator, by what it says.
        Mailbox::Complaints(_) | Mailbox::Operator(_) => None,
    }
}

/// Reads a message: why somebody failed only where that counts, and on another thread where it
/// is long.
async fn reading(arrived: &Arrived, content: &Bytes, rules: &Arc<FeedbackRules>) -> Result<Reading, SmtpReply> {
    let came_back = arrived.recipients.iter().any(|mailbox| place(mailbox).is_some());
    let from_nobody = arrived.sender.is_none();
    let look = if came_back { read } else { read_kind };
    if content.len() <= MAX_AT_ONCE {
        return Ok(look(std::slice::from_ref(content), from_nobody, &rules.settings));
    }
    let (content, rules) = (content.clone(), rules.clone());
    let done = tokio::task::spawn_blocking(move || look(&[content], from_nobody, &rules.settings));
    done.await.map_err(|_| busy())
}

/// Bytes of a message that are read between two others.
const MAX_AT_ONCE: usize = 16 * 1024;

/// A message in one piece; no copy where it is.
fn joined(mut content: Vec<Bytes>) -> Bytes {
    match content.len() {
        1 => content.remove(0),
        _ => content.concat().into(),
    }
}

fn kind(reading: &Reading) -> FeedbackKind {
    match &reading.report {
        Report::Status(report) if report.recipients.iter().any(|recipient| recipient.action == Action::Failed) => {
            FeedbackKind::Bounce
        }
        Report::Status(_) => FeedbackKind::Progress,
        Report::Complaint(_) => FeedbackKind::Complaint,
        Report::Automatic => FeedbackKind::Automatic,
        Report::Other => FeedbackKind::Other,
    }
}
