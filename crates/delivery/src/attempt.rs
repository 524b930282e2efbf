//! One attempt: a claim's recipients, named to one host after the other until
//! one of them decides.

mod conclude;
mod record;

use std::sync::Arc;

use postrider_account::ConfigurationSet;
use postrider_base::Timestamp;
use postrider_mail::{
    AttemptRecord, Recipient, SessionLevel, Severity, SmtpReply, Stage, SuppressionSource, VerpScope,
};
use postrider_smtp::{LocalRefusal, RecipientResult, Transaction, TransactionResult};
use postrider_spool::{Content, DueRecipient};
use tokio::time::Instant;

use crate::Shared;
use crate::classify::{Verdict, is_about_their_number};
use crate::config::Config;
use crate::connection::{Connection, Stop, Stopped};
use crate::finding::{Finding, millis};
use crate::lane::{self, Demand};
use crate::needs::{self, Host};
use crate::paused::SenderPause;
use crate::progress::Progress;
use crate::report::Results;
use crate::shaping::{Heard, SiteRules};
use crate::site::{Job, Site};
use crate::source::Event;
use crate::trace::{self, Course};
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
    /// More is asked of TLS by now than the lane gives, or its sender is paused by now;
    /// nothing was done.
    Misplaced,
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
    /// What the sender says about its messages, and the operator about the site.
    set: Option<Arc<ConfigurationSet>>,
    rules: Arc<SiteRules>,
    /// Recipients that one transaction may have.
    most: usize,
    /// A transaction was begun.
    has_begun: bool,
    /// The last reply that was no success, and what it led to.
    last_heard: Option<(Stage, Box<SmtpReply>, Heard)>,
    results: Results,
    /// How sure the last session was.
    level: Option<SessionLevel>,
    /// What was done, once that is over.
    record: Option<Arc<AttemptRecord>>,
}

/// What a transaction left to do.
enum Turn {
    /// Its recipients have outcomes.
    Decided(Course),
    /// The host does not take the message from us; another may.
    NextHost(Finding),
    /// The kept connection had been closed in the meantime.
    Reconnect,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, site: &'a Arc<Site>, job: Job) -> Self {
        let rules = site.gate.rules();
        Self {
            shared,
            site,
            set: lane::configuration_set(&shared.accounts, &job.claim.message),
            most: patient_recipients(&job.claim.recipients, rules.recipients_per_transaction),
            rules,
            has_begun: false,
            last_heard: None,
            config: shared.config.load_full(),
            started_at: shared.clock.now(),
            started: shared.clock.instant(),
            connect_ms: 0,
            pending: job.claim.recipients.clone(),
            results: Results::with_capacity(job.claim.recipients.len()),
            level: None,
            record: None,
            job,
        }
    }

    /// Runs the attempt over `connected`, or over a connection that is left
    /// there for the next one.
    pub(crate) async fn run(
        &mut self,
        connected: &mut Option<Connected>,
        stop: &mut Stop,
        progress: &Arc<Progress>,
    ) -> Reach {
        let first = self.job.claim.recipients.first().map_or(0, |due| due.index);
        progress.attempts(self.job.claim.id, first);
        // The configuration set may have changed since the message came into the lane.
        let (message, set) = (&self.job.claim.message, self.set.as_deref());
        let pause = SenderPause::of(&self.shared.accounts, message.account, message.origin.kind, set);
        if pause.is_some() || Demand::of(message, set) > self.site.lane.demand {
            return Reach::Misplaced;
        }
        self.set_suppressed_aside();
        if self.pending.is_empty() {
            return Reach::Done;
        }
        if self.set.as_ref().is_some_and(|set| set.per_recipient) {
            self.take_one();
        }
        if let Err(error) = self.job.claim.register().await {
            tracing::warn!(id = %self.job.claim.id, %error, "no attempt can be recorded, so none is made");
            tokio::select! {
                () = tokio::time::sleep(NO_RECORD_PAUSE) => {}
                () = stop.wait() => {}
            }
            return Reach::Stopped;
        }
        self.job.place.taken();
        // What cannot be read is held for the operator by the spool.
        let content = match self.job.claim.content().await {
            Ok(content) => content,
            Err(error) => {
                tracing::error!(id = %self.job.claim.id, %error, "message cannot be read");
                return Reach::Done;
            }
        };
        self.shared.metrics.attempts.inc();
        if let Some(source) = &self.site.lane.source {
            self.shared.sources.count(source, Event::Attempt);
        }
        let (shared, started) = (self.shared, self.started);
        let mut reach = self.walk(&content, connected, stop, progress).await;
        self.record = Some(self.record(progress));
        if let Reach::Unreachable(refused) = &mut reach {
            refused.record.clone_from(&self.record);
        }
        shared.metrics.attempt_duration.observe(shared.clock.instant().duration_since(started));
        self.count();
        reach
    }

    /// Each recipient gets a copy of its own. There was no room for as many jobs: the others
    /// go back as they are and come again, through pauses, limits and turns as other messages do.
    fn take_one(&mut self) {
        self.pending.truncate(1);
        let pending = &self.pending;
        self.job.claim.recipients.retain(|due| pending.iter().any(|one| one.index == due.index));
    }

    /// Whether it has named the message to a host.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The claim, and the outcomes there are.
    pub(crate) fn into_parts(mut self) -> (Job, Results) {
        trace::attach(&mut self.results.outcomes, self.record.as_ref());
        (self.job, self.results)
    }

    /// Gives everybody the outcome of not having reached anybody.
    pub(crate) fn refuse(mut self, refused: &Refused) -> (Job, Results) {
        self.set_suppressed_aside();
        self.conclude_all(refused);
        self.record.clone_from(&refused.record);
        self.into_parts()
    }

    /// Gives everybody without an outcome that of a fault of this program,
    /// wherever it struck.
    pub(crate) fn fail(mut self) -> (Job, Results) {
        let has_outcome = |due: &DueRecipient| self.results.outcomes.iter().any(|known| known.recipient == due.index);
        self.pending = self.job.claim.recipients.iter().filter(|due| !has_outcome(due)).cloned().collect();
        let finding = Finding::internal("The attempt failed for a fault of this relay");
        self.conclude_all(&Refused { finding, remote: None, record: None });
        self.into_parts()
    }

    /// From host to host, transaction after transaction, until nobody is left.
    async fn walk(
        &mut self,
        content: &Content,
        connected: &mut Option<Connected>,
        stop: &mut Stop,
        progress: &Arc<Progress>,
    ) -> Reach {
        let (shared, site) = (self.shared, self.site);
        let config = self.config.clone();
        let thorough = needs::requires_tls(&self.job.claim.message.envelope);
        let domain = self.job.claim.queue.domain.clone();
        let begin = || Walk::new(shared, config.clone(), &site.target, &site.lane, &domain, progress, thorough);
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
            match self.converse(content, current, stop, progress).await {
                Err(Stopped) => return Reach::Stopped,
                Ok(Turn::Decided(_)) => {
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
                    let finding = self.heard(finding);
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
        let refusals = walk.refusals().into_iter().map(|refusal| self.heard(refusal).retry_after);
        let asked = refusals.flatten().max();
        let connection = connection.map_err(|halt| halt.asking(asked))?;
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
        let mut envelope = host.envelope(&message.envelope, self.pending.iter().take(count), content);
        if let Some(paths) = &self.shared.return_paths {
            envelope.sender = paths.of(message, scope_of(&self.pending[..count]));
        }
        let transaction = Transaction { envelope, content: content.chunks().to_vec() };
        let mut vetoes: Vec<SuppressionSource> = Vec::new();
        let (suppression, account) = (self.shared.accounts.suppression(), message.account);
        let set = self.set.as_ref().and_then(|set| set.suppressed_reasons.as_ref());
        // The last look, with nothing between it and the RCPT.
        let mut gate = |_: usize, recipient: &Recipient| match suppression.check(account, set, &recipient.address) {
            Some(source) => {
                vetoes.push(source);
                false
            }
            None => true,
        };
        let began = self.shared.clock.instant();
        connected.messages += 1;
        self.has_begun = true;
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
        let course = trace::course(&result, connection);
        self.conclude(count, result, &again, vetoes, connection, millis(took));
        Ok(Turn::Decided(course))
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

/// Whom a transaction is for. Those of a claim are of one domain.
fn scope_of(recipients: &[DueRecipient]) -> VerpScope {
    match recipients {
        [first, _, ..] => VerpScope::DomainOf(first.index),
        // There is one; nobody has the index of an empty transaction.
        few => VerpScope::One(few.first().map_or(u16::MAX, |only| only.index)),
    }
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
