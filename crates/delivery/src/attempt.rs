//! One attempt: a claim's recipients, named to one host after the other until
//! one of them decides.

use std::sync::Arc;

use postrider_base::Timestamp;
use postrider_mail::dsn::Action;
use postrider_mail::{Delays, Recipient, Severity, Stage, SuppressionSource};
use postrider_smtp::{LocalRefusal, RecipientResult, Transaction, TransactionResult};
use postrider_spool::{Content, DueRecipient};
use tokio::time::Instant;

use crate::Shared;
use crate::classify::{Verdict, is_about_their_number};
use crate::config::Config;
use crate::connection::{Connection, Stop, Stopped};
use crate::finding::{Circumstances, Finding, Judge, millis};
use crate::needs::{self, Host};
use crate::report::Results;
use crate::site::{Job, Site};
use crate::target::Kind;
use crate::walk::{Halt, Refused, Walk};
use crate::worker::Connected;

/// How an attempt ended. Its results are in [`Attempt::into_parts`].
pub(crate) enum Reach {
    /// Every recipient has an outcome.
    Done,
    /// No host of the site took a connection.
    Unreachable(Refused),
    /// The relay stops; who has no outcome goes back.
    Stopped,
}

/// One attempt for the recipients of one claim.
pub(crate) struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    site: &'a Arc<Site>,
    config: Arc<Config>,
    job: Job,
    started_at: Timestamp,
    started: Instant,
    connect_ms: u32,
    /// Who has no outcome yet.
    pending: Vec<DueRecipient>,
    /// Recipients that one transaction may have.
    most: usize,
    results: Results,
}

/// What a transaction left to do.
enum Turn {
    /// Its recipients have outcomes.
    Decided,
    /// The host does not take the message from us; another may.
    NextHost(Finding),
    /// The kept connection had been closed in the meantime.
    Reconnect,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, site: &'a Arc<Site>, job: Job) -> Self {
        let config = shared.config.load_full();
        Self {
            shared,
            site,
            most: patient_recipients(&job.claim.recipients, config.settings.limits.recipients_per_transaction),
            config,
            started_at: shared.clock.now(),
            started: shared.clock.instant(),
            connect_ms: 0,
            pending: job.claim.recipients.clone(),
            results: Results::with_capacity(job.claim.recipients.len()),
            job,
        }
    }

    /// Runs the attempt over `connected`, or over a connection that is left
    /// there for the next one.
    pub(crate) async fn run(&mut self, connected: &mut Option<Connected>, stop: &mut Stop) -> Reach {
        self.set_suppressed_aside();
        if self.pending.is_empty() {
            return Reach::Done;
        }
        if let Err(error) = self.job.claim.register().await {
            tracing::warn!(id = %self.job.claim.id, %error, "no attempt can be recorded, so none is made");
            tokio::select! {
                () = tokio::time::sleep(NO_RECORD_PAUSE) => {}
                () = stop.wait() => {}
            }
            return Reach::Stopped;
        }
        // What cannot be read is held for the operator by the spool.
        let content = match self.job.claim.content().await {
            Ok(content) => content,
            Err(error) => {
                tracing::error!(id = %self.job.claim.id, %error, "message cannot be read");
                return Reach::Done;
            }
        };
        self.shared.metrics.attempts.inc();
        let (shared, started) = (self.shared, self.started);
        let reach = self.walk(&content, connected, stop).await;
        shared.metrics.attempt_duration.observe(shared.clock.instant().duration_since(started));
        reach
    }

    /// The claim, and the outcomes there are.
    pub(crate) fn into_parts(self) -> (Job, Results) {
        (self.job, self.results)
    }

    /// Gives everybody the outcome of not having reached anybody.
    pub(crate) fn refuse(mut self, refused: &Refused) -> (Job, Results) {
        self.set_suppressed_aside();
        self.conclude_all(refused);
        self.into_parts()
    }

    /// Gives everybody without an outcome that of a fault of this program,
    /// wherever it struck.
    pub(crate) fn fail(mut self) -> (Job, Results) {
        let has_outcome = |due: &DueRecipient| self.results.outcomes.iter().any(|known| known.recipient == due.index);
        self.pending = self.job.claim.recipients.iter().filter(|due| !has_outcome(due)).cloned().collect();
        let finding = Finding::internal("The attempt failed for a fault of this relay");
        self.conclude_all(&Refused { finding, remote: None });
        self.into_parts()
    }

    /// From host to host, transaction after transaction, until nobody is left.
    async fn walk(&mut self, content: &Content, connected: &mut Option<Connected>, stop: &mut Stop) -> Reach {
        let (shared, site) = (self.shared, self.site);
        let config = self.config.clone();
        let thorough = needs::requires_tls(&self.job.claim.message.envelope);
        let domain = self.job.claim.queue.domain.clone();
        let begin = || Walk::new(shared, config.clone(), &site.target, &site.lane, &domain, thorough);
        let mut walk = None;
        let mut has_spoken = false;
        if connected.is_some() {
            shared.metrics.outbound_reused.inc();
        }
        while !self.pending.is_empty() {
            if connected.is_none() {
                match self.connect(walk.get_or_insert_with(begin), stop).await {
                    Ok(connection) => *connected = Some(connection),
                    Err(Halt::Stopped) => return Reach::Stopped,
                    Err(Halt::Refused(refused)) if has_spoken => {
                        self.conclude_all(&refused);
                        break;
                    }
                    Err(Halt::Refused(refused)) => return Reach::Unreachable(refused),
                }
            }
            let Some(current) = connected.as_mut() else { continue };
            match self.transact(content, current, stop).await {
                Err(Stopped) => return Reach::Stopped,
                Ok(Turn::Decided) => {
                    has_spoken = true;
                    if self.pending.is_empty() {
                        break;
                    }
                    let is_ready = current.connection.settle_down(stop).await;
                    if is_ready && !current.is_used_up() {
                        continue;
                    }
                    if let Some(used_up) = connected.take().filter(|_| is_ready) {
                        used_up.connection.quit(stop).await;
                    }
                    // The host has taken mail: it is asked first again.
                    walk = None;
                }
                Ok(Turn::Reconnect) => (*connected, walk) = (None, None),
                Ok(Turn::NextHost(finding)) => {
                    has_spoken = true;
                    walk.get_or_insert_with(begin).turned_away(&current.connection.remote, finding);
                    if let Some(refusing) = connected.take() {
                        refusing.connection.quit(stop).await;
                    }
                }
            }
        }
        Reach::Done
    }

    async fn connect(&mut self, walk: &mut Walk<'_>, stop: &mut Stop) -> Result<Connected, Halt> {
        let began = self.shared.clock.instant();
        let connection = walk.next(stop).await;
        let took = self.shared.clock.instant().duration_since(began);
        self.connect_ms = self.connect_ms.saturating_add(millis(took));
        let connection = connection?;
        for _ in 0..self.site.greeted() {
            self.shared.start_worker(self.site.clone());
        }
        Ok(Connected { connection, messages: 0 })
    }

    /// One transaction for as many recipients as go into one.
    async fn transact(
        &mut self,
        content: &Content,
        connected: &mut Connected,
        stop: &mut Stop,
    ) -> Result<Turn, Stopped> {
        // A host may end a connection at any time: only on a fresh one does
        // that say something about the message.
        let is_kept = connected.messages > 0;
        let connection = &mut connected.connection;
        let message = &self.job.claim.message;
        let host = Host::new(&self.site.target, connection);
        let together = host.gather(&message.envelope, &mut self.pending);
        let count = together.min(host.recipients(&self.config.settings.limits)).min(self.most);
        if let Some(finding) = host.obstacle(&message.envelope, &self.config.settings) {
            return Ok(Turn::NextHost(finding));
        }
        let envelope = host.envelope(&message.envelope, self.pending.iter().take(count), content);
        let transaction = Transaction { envelope, content: content.chunks().to_vec() };
        let mut vetoes: Vec<SuppressionSource> = Vec::new();
        let (suppression, account) = (self.shared.accounts.suppression(), message.account);
        // The last look, with nothing between it and the RCPT.
        let mut gate = |_: usize, recipient: &Recipient| match suppression.check(account, &recipient.address) {
            Some(source) => {
                vetoes.push(source);
                false
            }
            None => true,
        };
        let began = self.shared.clock.instant();
        connected.messages += 1;
        self.shared.metrics.attempt_levels.of(connection.level.label()).inc();
        let deadline = began + self.config.settings.timeouts.transaction.as_duration();
        let result = connection.transact(message.id, transaction, deadline, &mut gate, stop).await?;
        let Some(result) = result else {
            let loss = connection.loss(Stage::MailFrom);
            return Ok(if is_kept { Turn::Reconnect } else { Turn::NextHost(loss) });
        };
        if let Some(turn) = refusal_of_us(&result, connection, is_kept) {
            return Ok(turn);
        }
        let took = self.shared.clock.instant().duration_since(began);
        let again = self.again(&result, is_kept);
        self.conclude(count, result, &again, vetoes, connection, millis(took));
        Ok(Turn::Decided)
    }

    /// Who of a transaction goes into the next one at once. That is never all of
    /// them on a fresh connection: each transaction gets on.
    fn again(&mut self, result: &TransactionResult, is_kept: bool) -> Vec<bool> {
        // RFC 5321 section 4.5.3.1.10: those who were taken are sent, and the rest then.
        let taken = result.recipients.iter().filter(|result| is_past_rcpt(result)).count();
        if taken > 0 && result.recipients.iter().any(is_one_too_many) {
            self.most = taken;
        }
        let is_again = |result: &RecipientResult| match result {
            // RFC 5321 section 3.8: the host ends the session; an older one says nothing of the message.
            RecipientResult::Replied { stage, reply } if reply.code == 421 => is_kept && *stage < Stage::EndOfData,
            result => taken > 0 && is_one_too_many(result),
        };
        result.recipients.iter().map(is_again).collect()
    }

    /// Turns a transaction's results into outcomes, but for those who are named `again`.
    fn conclude(
        &mut self,
        count: usize,
        result: TransactionResult,
        again: &[bool],
        vetoes: Vec<SuppressionSource>,
        connection: &Connection,
        transmit_ms: u32,
    ) {
        let around = Circumstances {
            remote: Some(connection.remote.clone()),
            tls: connection.tls.clone(),
            delays: Delays { transmit_ms, ..self.delays() },
        };
        let mut vetoes = vetoes.into_iter();
        let mut delivered = false;
        let concerned: Vec<_> = self.pending.drain(..count).collect();
        for ((due, result), again) in concerned.iter().zip(result.recipients).zip(again) {
            if *again {
                self.pending.push(due.clone());
                continue;
            }
            let finding = match result {
                RecipientResult::Vetoed => {
                    let outcome = vetoes.next().map(|source| self.judge().suppressed(due, source));
                    self.results.outcomes.extend(outcome);
                    continue;
                }
                RecipientResult::Refused(refusal) => needs::refusal(refusal),
                RecipientResult::Replied { stage, reply } => Finding::reply(stage, &reply),
                RecipientResult::Lost { stage } => connection.loss(stage),
            };
            if finding.verdict == Verdict::Delivered {
                delivered = true;
                self.note_success(due.index, connection);
            }
            self.note(&finding);
            let outcome = self.judge().outcome(due, &finding, &around);
            self.results.push(outcome);
        }
        if delivered {
            self.site.delivered();
        }
    }

    /// Remembers a delivery that its sender wants to hear of and that the host
    /// will not report.
    fn note_success(&mut self, recipient: u16, connection: &Connection) {
        let recipients = &self.job.claim.message.envelope.recipients;
        if !recipients.get(usize::from(recipient)).is_some_and(|recipient| recipient.notify.wants_success()) {
            return;
        }
        let action = match self.site.target.kind {
            // What is inside this process passes nothing on.
            Kind::BuiltIn(_) => Action::Delivered,
            // RFC 3461 section 5.2.2: a host with DSN has taken this over.
            _ if connection.conversation.features().dsn => return,
            _ => Action::Relayed,
        };
        self.results.successes.push((recipient, action));
    }

    /// The same for everybody who is left.
    fn conclude_all(&mut self, refused: &Refused) {
        self.note(&refused.finding);
        let around = Circumstances { remote: refused.remote.clone(), tls: None, delays: self.delays() };
        for due in std::mem::take(&mut self.pending) {
            let outcome = self.judge().outcome(&due, &refused.finding, &around);
            self.results.push(outcome);
        }
    }

    /// Suppressed recipients need no connection.
    fn set_suppressed_aside(&mut self) {
        let message = self.job.claim.message.clone();
        for due in std::mem::take(&mut self.pending) {
            let recipient = message.envelope.recipients.get(usize::from(due.index));
            let check = |r: &Recipient| self.shared.accounts.suppression().check(message.account, &r.address);
            match recipient.and_then(check) {
                Some(source) => {
                    let outcome = self.judge().suppressed(&due, source);
                    self.results.push(outcome);
                }
                None => self.pending.push(due),
            }
        }
    }

    /// Keeps what a site says against us for the operator, once as long as it
    /// says the same.
    fn note(&self, finding: &Finding) {
        if finding.verdict == Verdict::Delivered {
            return;
        }
        let is_new = self.site.refused(self.shared.clock.now(), &finding.diagnostic);
        // SHAPING: what the host says is heard here.
        if is_new && finding.about_us {
            let (site, reply) = (&self.site.target.name, &finding.diagnostic);
            tracing::warn!(%site, stage = finding.stage.as_str(), %reply, "a host refuses this relay");
        }
    }

    fn judge(&self) -> Judge<'_> {
        Judge {
            schedule: &self.config.schedule,
            random: &self.shared.random,
            now: self.shared.clock.now(),
            message: &self.job.claim.message,
        }
    }

    fn delays(&self) -> Delays {
        let queued = self.started_at.saturating_since(self.job.claim.message.released_at());
        Delays { before_queue_ms: 0, queue_ms: millis(queued), connect_ms: self.connect_ms, transmit_ms: 0 }
    }
}

/// Recipients that go into one transaction with a host that was too slow for
/// so many of them the last time: fewer with each attempt.
fn patient_recipients(recipients: &[DueRecipient], most: usize) -> usize {
    let was_too_slow = |due: &DueRecipient| {
        let last = due.last.as_ref().and_then(|last| Some((last.remote.as_ref()?.stage, last.status)));
        last == Some((Stage::RcptTo, Finding::timed_out(Stage::RcptTo).status))
    };
    let slow = recipients.iter().filter(|due| was_too_slow(due)).map(|due| due.attempts).max();
    slow.map_or(most, |attempts| most.min(recipients.len()).checked_shr(attempts).unwrap_or(0).max(1))
}

/// Whether the host was told the content for this recipient, or would have been.
fn is_past_rcpt(result: &RecipientResult) -> bool {
    match result {
        RecipientResult::Replied { stage, .. } | RecipientResult::Lost { stage } => *stage > Stage::RcptTo,
        RecipientResult::Vetoed | RecipientResult::Refused(_) => false,
    }
}

/// Whether the host takes no further recipient in this transaction.
fn is_one_too_many(result: &RecipientResult) -> bool {
    matches!(result, RecipientResult::Replied { stage: Stage::RcptTo, reply } if is_about_their_number(reply))
}

/// Whether the host refused, or could not be asked, before it heard of any
/// recipient. That is about us or what the host offers, and another host may be
/// otherwise; not so a plain 4yz, which asks us
/// to come back.
fn refusal_of_us(result: &TransactionResult, connection: &Connection, is_kept: bool) -> Option<Turn> {
    let decided = result.recipients.iter().find(|result| !matches!(result, RecipientResult::Vetoed))?;
    match decided {
        RecipientResult::Refused(LocalRefusal::TooLarge { .. }) => None,
        RecipientResult::Refused(refusal) => Some(Turn::NextHost(needs::refusal(*refusal))),
        RecipientResult::Lost { stage: Stage::MailFrom } if is_kept => Some(Turn::Reconnect),
        RecipientResult::Lost { stage: Stage::MailFrom } => Some(Turn::NextHost(connection.loss(Stage::MailFrom))),
        RecipientResult::Replied { stage: Stage::MailFrom, reply } => {
            if reply.code == 421 && is_kept {
                return Some(Turn::Reconnect);
            }
            let finding = Finding::reply(Stage::MailFrom, reply);
            let is_ours = reply.severity() == Severity::Permanent && matches!(finding.verdict, Verdict::Deferred(_));
            (is_ours || reply.code == 421).then_some(Turn::NextHost(finding))
        }
        _ => None,
    }
}

/// The wait before asking again for room to record an attempt.
const NO_RECORD_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
