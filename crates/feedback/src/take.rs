//! What is done with a message that arrived.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_base::metrics::{FeedbackKind, FeedbackOutcome};
use postrider_events::{Acceptance, Affected, LifeEntry, Reported, Returned, ReturnedKind, ReturnedSource};
use postrider_mail::{AccountId, Domain, EmailAddress, MessageId, Notify, SmtpReply, Verp};
use postrider_mailauth::authentication_results::without_forged;
use postrider_mailauth::verify::Looked;
use postrider_submission::{OriginKind, Refusal};

use crate::feedback::{Arrived, FeedbackRules, Shared};
use crate::finding::{Finding, Ours, sent_at};
use crate::mailbox::Mailbox;
use crate::notice::Notice;
use crate::pass_on::PassedOn;
use crate::report::{Reading, Report, read, read_kind};
use crate::status::Action;
use crate::told::{News, What};

/// A message that arrived, with what is known of it.
pub(crate) struct Visit<'a> {
    shared: &'a Shared,
    rules: Arc<FeedbackRules>,
    arrived: Arrived,
    content: Bytes,
    reading: Reading,
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

    /// Does for each recipient what is to be done. A recipient for whom that fails makes the
    /// client come again for all: what was done is known then.
    pub(crate) async fn run(&self) -> Result<(), SmtpReply> {
        let mut result = Ok(());
        // Whoever reads mail for several addresses gets it once.
        let mut seen = HashSet::new();
        for mailbox in self.arrived.recipients.iter().filter(|mailbox| seen.insert(place(mailbox))) {
            let done = self.serve(mailbox).await;
            let outcome = match &done {
                Ok(outcome) => *outcome,
                Err(reply) if reply.code >= 500 => FeedbackOutcome::Refused,
                Err(_) => FeedbackOutcome::Later,
            };
            self.shared.options.metrics.feedback_outcomes.of(outcome).inc();
            self.log(mailbox, outcome);
            // One that may come again goes before one that may not.
            if let Err(reply) = done
                && !matches!(&result, Err(SmtpReply { code: ..500, .. }))
            {
                result = Err(reply);
            }
        }
        result
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

    async fn serve(&self, mailbox: &Mailbox) -> Result<FeedbackOutcome, SmtpReply> {
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
                    (None, Some(_)) => Ok(FeedbackOutcome::Unknown),
                    (None, None) => self.to_operator().await,
                }
            }
            (Some(verp), Report::Automatic) => self.automatic(verp).await,
            (Some(_), Report::Other) => Err(SmtpReply::new(550, "5.7.1 This mailbox takes delivery reports alone")),
            (None, _) => self.to_operator().await,
        }
    }

    /// Has everything that was found journaled, then tells the sender what is new of it.
    async fn journal(&self, finding: Finding, verp: Option<Verp>) -> Result<FeedbackOutcome, SmtpReply> {
        let Finding { id, returned } = finding;
        // Blacked out, and from nobody for certain.
        let is_open = returned.iter().any(|(whom, _)| whom.is_empty());
        let (mut new, mut is_known, mut failed) = (Vec::new(), false, Ok(()));
        for (whom, what) in returned {
            match self.report(id, whom, &what).await {
                Ok(Reported::Journaled(addresses)) => new.push((addresses, what)),
                Ok(Reported::Known) => is_known = true,
                Ok(Reported::Unknown) => {}
                Err(reply) => {
                    failed = Err(reply);
                    break;
                }
            }
        }
        let is_new = !new.is_empty();
        if is_new {
            // Before anything has the client come again: then they are known.
            self.tell(id, new).await;
        }
        failed?;
        if let Some(verp) = verp {
            self.progress(verp).await?;
        }
        if !is_new {
            return match (is_known, &self.reading.report, verp) {
                (true, ..) => Ok(FeedbackOutcome::Known),
                // Whom it is about is not in the journal any more, or never was: nothing to
                // come again for. A complaint somebody should see.
                (false, Report::Complaint(_), _) if is_open && self.is_verified_later() => Err(busy()),
                (false, Report::Complaint(_), _) => self.to_operator().await,
                (false, Report::Status(report), _) if report.recipients.iter().all(|r| r.action != Action::Failed) => {
                    Ok(FeedbackOutcome::Progress)
                }
                (false, ..) => Ok(FeedbackOutcome::Unknown),
            };
        }
        Ok(FeedbackOutcome::Journaled)
    }

    /// Reports it of the first of those that the message was for.
    async fn report(&self, id: MessageId, whom: Vec<Affected>, what: &ReturnedKind) -> Result<Reported, SmtpReply> {
        for affected in whom {
            let source = ReturnedSource {
                ip: Some(self.arrived.client),
                domains: self.looked.domains(),
                session: self.arrived.session.clone(),
            };
            let at = sent_at(&self.reading, self.arrived.at);
            let returned = Returned { id, at, affected, what: what.clone(), source, notice: None };
            let reported = self.shared.options.events.report(returned).await;
            match reported.map_err(|error| self.later(&error))? {
                Reported::Unknown => {}
                reported => return Ok(reported),
            }
        }
        Ok(Reported::Unknown)
    }

    /// Tells the sender of bounces and complaints that the journal did not know: once, and as
    /// the one mail about it. It is on disk that they are; so that this fails, is no reason to
    /// come again.
    async fn tell(&self, id: MessageId, new: Vec<(Vec<EmailAddress>, ReturnedKind)>) {
        let Ok(Some((acceptance, sender))) = self.sender(id).await else { return };
        let (mut bounces, mut is_complaint) = (Vec::new(), false);
        for (addresses, what) in new {
            match what {
                ReturnedKind::Bounce(bounce) => {
                    let mut addresses = addresses;
                    addresses.retain(|address| self.is_told_of_failure(acceptance.wish(address).notify));
                    bounces.push((addresses, bounce));
                }
                ReturnedKind::Complaint(_) => is_complaint = self.rules.forwarding,
            }
        }
        if let Some(notice) = Notice::of_bounces(bounces) {
            self.send_notice(&notice, &acceptance, &sender).await;
        }
        let news = News { id, scope: None, what: What::Complaint };
        if is_complaint && self.is_new(news) && self.may_get(&sender) {
            let why = format!("A recipient of your message {id}\r\nreported it as unwanted. The report is attached.");
            self.to_sender(&acceptance, &sender, &why).await;
        }
    }

    /// As of failures in the dialogue (RFC 3461 section 4.1).
    fn is_told_of_failure(&self, notify: Notify) -> bool {
        notify.wants_failure() && (self.rules.forwarding || notify.is_given())
    }

    /// Tells the sender of deliveries, delays and the like, where NOTIFY asks for it: some hosts
    /// report delays unasked. The journal knows them from the dialogue.
    async fn progress(&self, verp: Verp) -> Result<(), SmtpReply> {
        let Report::Status(report) = &self.reading.report else { return Ok(()) };
        for action in [Action::Delayed, Action::Delivered, Action::Relayed, Action::Expanded] {
            if report.recipients.iter().all(|recipient| recipient.action != action) {
                continue;
            }
            let Some((acceptance, sender)) = self.sender(verp.id).await? else { return Ok(()) };
            let Some(notice) = Notice::of_progress(report, action, verp.scope, &acceptance) else { continue };
            let news = News { id: verp.id, scope: Some(verp.scope), what: What::Progress(action) };
            if self.is_new(news) && self.may_get(&sender) && !self.send_notice(&notice, &acceptance, &sender).await {
                self.shared.told.forget(news);
            }
        }
        Ok(())
    }

    async fn send_notice(&self, notice: &Notice, acceptance: &Acceptance, sender: &EmailAddress) -> bool {
        let options = &self.shared.options;
        let original = self.reading.original.as_ref();
        let own = notice.compose(&options.submission, acceptance, sender, original, self.arrived.require_tls);
        let Some(own) = own else { return false };
        self.note_told(&options.submission.send(own).await.map(drop))
    }

    /// An automatic reply goes on to the sender, as SES has it: once for each recipient. It is no
    /// event.
    async fn automatic(&self, verp: Verp) -> Result<FeedbackOutcome, SmtpReply> {
        if !self.rules.forwarding {
            return Ok(FeedbackOutcome::Dropped);
        }
        let Some((acceptance, sender)) = self.sender(verp.id).await? else { return Ok(FeedbackOutcome::Dropped) };
        let news = News { id: verp.id, scope: Some(verp.scope), what: What::Automatic };
        if !self.is_new(news) || !self.may_get(&sender) {
            return Ok(FeedbackOutcome::Dropped);
        }
        let why = format!("An automatic reply to your message {}\r\nis attached.", verp.id);
        if self.to_sender(&acceptance, &sender, &why).await {
            return Ok(FeedbackOutcome::Sender);
        }
        self.shared.told.forget(news);
        Err(busy())
    }

    async fn to_sender(&self, acceptance: &Acceptance, sender: &EmailAddress, why: &str) -> bool {
        let kind = OriginKind::Dsn { of: acceptance.id };
        self.note_told(&self.pass_on(acceptance.account, sender, kind, why).await)
    }

    /// To whoever looks after the relay: mail for `postmaster@` and `abuse@`, and what comes to
    /// the addresses for complaints and is about no message of ours.
    async fn to_operator(&self) -> Result<FeedbackOutcome, SmtpReply> {
        let Some(operator) = &self.rules.operator else { return Ok(FeedbackOutcome::Unknown) };
        if self.shared.is_ours(operator, &self.rules) {
            // RFC 5321 section 6.3
            return Err(SmtpReply::new(554, "5.4.6 Mail for the operator would come back here"));
        }
        if !self.may_get(operator) {
            return Err(SmtpReply::new(451, "4.7.1 Too much mail for this mailbox, try again later"));
        }
        let why = "This came to an address of the relay's mail exchanger for bounces and complaints.";
        let passed = self.pass_on(AccountId::default(), operator, OriginKind::Operator, why).await;
        if self.note_told(&passed) { Ok(FeedbackOutcome::Operator) } else { Err(busy()) }
    }

    async fn pass_on(&self, account: AccountId, to: &EmailAddress, kind: OriginKind, why: &str) -> Result<(), Refusal> {
        let options = &self.shared.options;
        let message = without_forged(&self.content, options.verifier.receiver());
        let passed = PassedOn {
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
        passed.send(&options.submission).await.map(drop)
    }

    /// The message and its sender, where he may be told: never who is nobody (RFC 5321 section
    /// 4.5.5), nor somebody whom nobody authenticated as, nor the relay itself.
    async fn sender(&self, id: MessageId) -> Result<Option<(Acceptance, EmailAddress)>, SmtpReply> {
        let life = self.shared.options.events.message(id).await.map_err(|error| self.later(&error))?;
        let accepted = life.into_iter().find_map(|entry| match entry {
            LifeEntry::Accepted(acceptance) => Some(acceptance),
            _ => None,
        });
        let age = self.shared.options.clock.now().saturating_since(id.timestamp());
        if accepted.is_none() && age < JOURNALED_BY {
            // A fast answer: the journal does not have the message yet.
            return Err(busy());
        }
        let told = accepted.filter(|it| it.origin == OriginKind::Submission && it.credential.is_some());
        Ok(told.and_then(|acceptance| acceptance.sender.clone().map(|sender| (acceptance, sender))))
    }

    /// Whether who it is from may be known when it comes again.
    fn is_verified_later(&self) -> bool {
        let Some(verdict) = &self.looked.verdict else { return true };
        let results = verdict.dkim.iter().map(|one| one.result.as_str().to_owned());
        results.chain(verdict.spf.iter().map(|spf| spf.result.to_string())).any(|result| result == "temperror")
    }

    fn is_new(&self, news: News) -> bool {
        self.shared.told.is_new(news, self.rules.settings.max_remembered)
    }

    fn may_get(&self, address: &EmailAddress) -> bool {
        let max = self.rules.settings.passed_on_per_hour;
        self.shared.told.may_get(address, max, self.shared.options.clock.now())
    }

    /// Whether mail of ours was queued.
    fn note_told(&self, sent: &Result<(), Refusal>) -> bool {
        let metrics = &self.shared.options.metrics;
        let counter = if sent.is_ok() { &metrics.feedback_mails } else { &metrics.feedback_mails_failed };
        counter.inc();
        if let Err(error) = sent {
            tracing::warn!(session = self.arrived.session, %error, "feedback: a mail could not be queued");
        }
        sent.is_ok()
    }

    fn later(&self, error: &postrider_events::Error) -> SmtpReply {
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

/// By when the journal has a message in ordinary times.
const JOURNALED_BY: Duration = Duration::from_secs(60);

fn busy() -> SmtpReply {
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
