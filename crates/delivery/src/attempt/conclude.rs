//! From what hosts said to the outcomes of an attempt.

use postrider_mail::dsn::Action;
use postrider_mail::{AttemptOutcome, DelayType, Delays, Disposition, Recipient, Stage, SuppressionSource};
use postrider_smtp::{RecipientResult, TransactionResult};
use postrider_spool::DueRecipient;

use super::Attempt;
use crate::classify::Verdict;
use crate::connection::Connection;
use crate::finding::{Circumstances, Finding, Judge, millis};
use crate::lane::responsible_domain;
use crate::needs;
use crate::shaping;
use crate::source::Event;
use crate::target::Kind;
use crate::walk::Refused;

/// So often a message is tried before it is held by no further block.
const BLOCKS: u32 = 3;

impl Attempt<'_> {
    /// Turns a transaction's results into outcomes, but for those who are named `again`.
    pub(super) fn conclude(
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
                RecipientResult::Replied { stage, reply } => self.heard(Finding::reply(stage, &reply)),
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
    pub(super) fn conclude_all(&mut self, refused: &Refused) {
        self.note(&refused.finding);
        let around = Circumstances { remote: refused.remote.clone(), tls: None, delays: self.delays() };
        for due in std::mem::take(&mut self.pending) {
            let outcome = self.judge().outcome(&due, &refused.finding, &around);
            self.results.push(outcome);
        }
    }

    /// Suppressed recipients need no connection.
    pub(super) fn set_suppressed_aside(&mut self) {
        let message = self.job.claim.message.clone();
        for due in std::mem::take(&mut self.pending) {
            let recipient = message.envelope.recipients.get(usize::from(due.index));
            let set = self.set.as_ref().and_then(|set| set.suppressed_reasons.as_ref());
            let check = |r: &Recipient| self.shared.accounts.suppression().check(message.account, set, &r.address);
            match recipient.and_then(check) {
                Some(source) => {
                    let outcome = self.judge().suppressed(&due, source);
                    self.results.push(outcome);
                }
                None => self.pending.push(due),
            }
        }
    }

    /// What follows from a host's words for the site, and for what they mean. A
    /// reply that is the same for all recipients of a transaction counts once.
    pub(super) fn heard(&mut self, mut finding: Finding) -> Finding {
        let Some(reply) = &finding.reply else { return finding };
        let said = (finding.stage, reply);
        let heard = match &self.last_heard {
            Some((stage, last, heard)) if *stage > Stage::RcptTo && (*stage, last) == said => heard.clone(),
            _ => {
                let domain = responsible_domain(&self.job.claim.message);
                let heard = self.site.gate.heard(domain, finding.stage, reply, self.may_be_blocked());
                if let (Some(shaping::Action::Blocked { .. }), Some(source)) = (&heard.action, &self.site.lane.source) {
                    self.shared.sources.count(source, Event::Blocked);
                }
                self.last_heard = Some((finding.stage, reply.clone(), heard.clone()));
                heard
            }
        };
        finding.retry_after = heard.retry_after;
        match heard.action {
            Some(shaping::Action::Bounce(kind)) => finding.verdict = Verdict::Bounced(kind),
            // It is about our address, whatever the code says: the message waits for the end
            // of the block in the spool, or leaves from another address before.
            Some(shaping::Action::Blocked(_)) => {
                finding.verdict = Verdict::Deferred(DelayType::IpFailure);
                // RFC 3463 section 2: class 5 would say that it is over.
                finding.status.class = 4;
                finding.retry_after = None;
            }
            _ => {}
        }
        finding
    }

    /// Whether words of a block are taken for one of our address. The operator's own hosts pass
    /// on what others say; and a message that was blocked again and again is what is meant.
    fn may_be_blocked(&self) -> bool {
        let is_blocked = |last: &AttemptOutcome| last.disposition == Disposition::Deferred(DelayType::IpFailure);
        let is_known = |due: &DueRecipient| due.attempts >= BLOCKS && due.last.as_ref().is_some_and(is_blocked);
        self.site.target.is_found_by_dns() && !self.job.claim.recipients.iter().any(is_known)
    }

    /// Counts what became of the recipients for the source that the attempt came from.
    pub(super) fn count(&self) {
        let Some(source) = &self.site.lane.source else { return };
        for outcome in &self.results.outcomes {
            let event = match outcome.disposition {
                Disposition::Delivered => Event::Delivered,
                Disposition::Deferred(_) => Event::Deferred,
                Disposition::Bounced(_) => Event::Bounced,
                Disposition::Suppressed(_) | Disposition::Deleted | Disposition::Rejected => continue,
            };
            self.shared.sources.count(source, event);
        }
    }

    /// Keeps what a site says against us for the operator, once as long as it
    /// says the same.
    fn note(&self, finding: &Finding) {
        if finding.verdict == Verdict::Delivered {
            return;
        }
        let is_new = self.site.refused(self.shared.clock.now(), &finding.diagnostic);
        if is_new && finding.about_us {
            let (site, reply) = (&self.site.target.name, &finding.diagnostic);
            tracing::warn!(%site, stage = finding.stage.as_str(), %reply, "a host refuses this relay");
        }
    }

    fn judge(&self) -> Judge<'_> {
        Judge {
            schedule: &self.config.schedule,
            waits: self.set.as_ref().and_then(|set| set.retry.as_deref()).or(self.rules.retry.as_deref()),
            random: &self.shared.random,
            now: self.shared.clock.now(),
            message: &self.job.claim.message,
            copies: self.set.as_ref().is_some_and(|set| set.per_recipient),
        }
    }

    fn delays(&self) -> Delays {
        let queued = self.started_at.saturating_since(self.job.claim.message.released_at());
        Delays { before_queue_ms: 0, queue_ms: millis(queued), connect_ms: self.connect_ms, transmit_ms: 0 }
    }
}
