//! What the sender of a message is told of what came back for it.
//!
//! A message that tells of an event has its id before the event is journaled, and the journal
//! keeps it with the event. So a report that comes again, because a crash or a full disk came
//! between the two, finds out whether it was queued, and has that made good: the remote comes
//! again until both are on disk.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_events::{Acceptance, LifeEntry, ReturnedKind};
use postrider_mail::{EmailAddress, MessageId, Notify, SmtpReply, Verp};
use postrider_submission::{OriginKind, Refusal};

use crate::notice::Notice;
use crate::report::Report;
use crate::status::Action;
use crate::take::{Visit, busy};
use crate::told::{News, Telling, Turn, What};

/// A message of which something came back, and who is told of it.
pub(crate) struct Concerned {
    pub(crate) acceptance: Acceptance,
    pub(crate) sender: EmailAddress,
    back: Vec<Back>,
}

/// A thing that was journaled of a recipient, and in which message it is told.
struct Back {
    recipient: EmailAddress,
    what: ReturnedKind,
    notice: Option<MessageId>,
}

/// By when the journal has a message in ordinary times.
const JOURNALED_BY: Duration = Duration::from_secs(60);

impl Visit<'_> {
    /// Tells the sender of what is to be told in these messages, unless they were queued: each
    /// once, and as the one mail about it. This visit has the turn of its `own` already.
    ///
    /// # Errors
    /// `451` where that is not possible now; what is possible is told all the same.
    pub(crate) async fn tell(
        &self,
        id: MessageId,
        notices: &BTreeSet<MessageId>,
        mut own: Option<Telling<'_>>,
    ) -> Result<(), SmtpReply> {
        if matches!(self.reading.report, Report::Complaint(_)) {
            return self.tell_of_complaint(id, &mut own).await;
        }
        let mut told = Ok(());
        for notice in notices {
            told = self.tell_of_bounces(id, *notice, &mut own).await.and(told);
        }
        told
    }

    /// All that was journaled with this notice, by the time that it is this visit's turn.
    async fn tell_of_bounces<'t>(
        &'t self,
        id: MessageId,
        notice: MessageId,
        own: &mut Option<Telling<'t>>,
    ) -> Result<(), SmtpReply> {
        let Some(telling) = self.turn_of_event(id, notice, own).await? else { return Ok(()) };
        let Some(concerned) = self.concerned(id).await? else { return Ok(()) };
        let told = concerned.back.iter().filter(|back| back.notice == Some(notice)).filter_map(|back| {
            let ReturnedKind::Bounce(bounce) = &back.what else { return None };
            let notify = concerned.acceptance.wish(&back.recipient).notify;
            self.is_told_of_failure(notify).then(|| (back.recipient.clone(), bounce.clone()))
        });
        let Some(text) = Notice::of_bounces(told.collect()) else { return Ok(()) };
        self.send_notice(notice, &text, &concerned).await?;
        self.told(telling);
        Ok(())
    }

    /// The first complaint about a message says enough.
    async fn tell_of_complaint<'t>(&'t self, id: MessageId, own: &mut Option<Telling<'t>>) -> Result<(), SmtpReply> {
        let Some(concerned) = self.concerned(id).await? else { return Ok(()) };
        let first = concerned.back.iter().find(|back| matches!(back.what, ReturnedKind::Complaint(_)));
        let Some(notice) = first.and_then(|first| first.notice).filter(|_| self.rules.forwarding) else {
            return Ok(());
        };
        let Some(telling) = self.turn_of_event(id, notice, own).await? else { return Ok(()) };
        let why = format!("A recipient of your message {id}\r\nreported it as unwanted. The report is attached.");
        let sent = self.if_within_bounds(&concerned.sender, self.to_sender(notice, &concerned, &why)).await?;
        if sent {
            self.told(telling);
        } else {
            tracing::info!(session = self.arrived.session, %id, "feedback: its sender got enough mail in this hour");
        }
        Ok(())
    }

    /// As of failures in the dialogue (RFC 3461 section 4.1).
    fn is_told_of_failure(&self, notify: Notify) -> bool {
        notify.wants_failure() && (self.rules.forwarding || notify.is_given())
    }

    /// Tells the sender of deliveries, delays and the like, where NOTIFY asks for it: some hosts
    /// report delays unasked. The journal knows them from the dialogue.
    pub(crate) async fn progress(&self, verp: Verp) -> Result<(), SmtpReply> {
        let Report::Status(report) = &self.reading.report else { return Ok(()) };
        for action in [Action::Delayed, Action::Delivered, Action::Relayed, Action::Expanded] {
            if report.recipients.iter().all(|recipient| recipient.action != action) {
                continue;
            }
            let Some(concerned) = self.concerned(verp.id).await? else { return Ok(()) };
            let Some(text) = Notice::of_progress(report, action, verp.scope, &concerned.acceptance) else { continue };
            let news = News { id: verp.id, what: What::Progress(verp.scope, action) };
            let Some(telling) = self.turn(news)? else { continue };
            let id = self.shared.options.submission.new_id();
            if self.if_within_bounds(&concerned.sender, self.send_notice(id, &text, &concerned)).await? {
                self.told(telling);
            }
        }
        Ok(())
    }

    async fn send_notice(&self, id: MessageId, text: &Notice, concerned: &Concerned) -> Result<(), SmtpReply> {
        let Concerned { acceptance, sender, .. } = concerned;
        let submission = &self.shared.options.submission;
        let original = self.reading.original.as_ref();
        let own = text.compose(id, submission, acceptance, sender, original, self.arrived.require_tls);
        match own {
            Some(own) => self.queued(submission.send(own).await.map(drop)),
            // Mail can not come from the operator's domain: that does not pass.
            None => Ok(()),
        }
    }

    /// What arrived goes on to the sender.
    pub(crate) async fn to_sender(&self, id: MessageId, concerned: &Concerned, why: &str) -> Result<(), SmtpReply> {
        let Concerned { acceptance, sender, .. } = concerned;
        let kind = OriginKind::Dsn { of: acceptance.id };
        self.pass_on(id, acceptance.account, sender, kind, why).await
    }

    /// The message and its sender, where he may be told: never who is nobody (RFC 5321 section
    /// 4.5.5), nor somebody whom nobody authenticated as, nor the relay itself.
    pub(crate) async fn concerned(&self, id: MessageId) -> Result<Option<Concerned>, SmtpReply> {
        let life = self.shared.options.events.message(id).await.map_err(|error| self.later(&error))?;
        let (mut accepted, mut back) = (None, Vec::new());
        for entry in life {
            match entry {
                LifeEntry::Accepted(acceptance) => accepted = Some(acceptance),
                LifeEntry::Returned { recipient: Some(recipient), what, notice, .. } => {
                    back.push(Back { recipient, what, notice });
                }
                LifeEntry::Attempt { .. } | LifeEntry::Returned { .. } => {}
            }
        }
        let age = self.shared.options.clock.now().saturating_since(id.timestamp());
        if accepted.is_none() && age < JOURNALED_BY {
            // A fast answer: the journal does not have the message yet.
            return Err(busy());
        }
        let told = accepted.filter(|it| it.origin == OriginKind::Submission && it.credential.is_some());
        Ok(told.and_then(|acceptance| {
            let sender = acceptance.sender.clone()?;
            Some(Concerned { acceptance, sender, back })
        }))
    }

    /// The turn to tell of events in the message of this id, unless it was queued: by this
    /// process, as memory has it, or by an earlier one, as the journal has it.
    async fn turn_of_event<'t>(
        &'t self,
        id: MessageId,
        notice: MessageId,
        own: &mut Option<Telling<'t>>,
    ) -> Result<Option<Telling<'t>>, SmtpReply> {
        let news = News { id, what: What::Event(notice) };
        if let Some(telling) = own.take_if(|own| own.is_of(news)) {
            return Ok(Some(telling));
        }
        let Some(telling) = self.turn(news)? else { return Ok(None) };
        let life = self.shared.options.events.message(notice).await.map_err(|error| self.later(&error))?;
        if life.is_empty() {
            return Ok(Some(telling));
        }
        self.told(telling);
        Ok(None)
    }

    /// The turn to tell of this; none where it was told.
    pub(crate) fn turn(&self, news: News) -> Result<Option<Telling<'_>>, SmtpReply> {
        match self.shared.told.turn(news) {
            Turn::Open(telling) => Ok(Some(telling)),
            Turn::Told => Ok(None),
            // It may fail.
            Turn::Taken => Err(busy()),
        }
    }

    pub(crate) fn told(&self, telling: Telling<'_>) {
        telling.done(self.rules.settings.max_remembered);
    }

    /// Sends one more message to this address, if that is within bounds; whether it is. One that
    /// can not be queued does not count.
    pub(crate) async fn if_within_bounds(
        &self,
        address: &EmailAddress,
        send: impl Future<Output = Result<(), SmtpReply>>,
    ) -> Result<bool, SmtpReply> {
        let (told, max) = (&self.shared.told, self.rules.settings.passed_on_per_hour);
        if !told.may_get(address, max, self.shared.options.clock.now()) {
            return Ok(false);
        }
        let sent = send.await;
        if sent.is_err() {
            told.got_none(address);
        }
        sent.map(|()| true)
    }

    /// Takes note of whether mail of ours was queued.
    pub(crate) fn queued(&self, sent: Result<(), Refusal>) -> Result<(), SmtpReply> {
        let metrics = &self.shared.options.metrics;
        if let Err(error) = sent {
            metrics.feedback_mails_failed.inc();
            tracing::warn!(session = self.arrived.session, %error, "feedback: a mail could not be queued");
            return Err(busy());
        }
        metrics.feedback_mails.inc();
        Ok(())
    }
}
