//! The client's transactions: from MAIL to the last reply.

use bytes::BytesMut;
use postrider_mail::{Severity, SmtpReply, Stage};

use super::conversation::{Conversation, Expected};
use super::transaction::{Gate, RecipientResult, Transaction, TransactionResult};
use crate::wire::stuff;

/// The transaction under way.
#[derive(Debug)]
pub(super) struct Running {
    transaction: Transaction,
    results: Vec<Option<RecipientResult>>,
    /// Without pipelining: the next recipient to be named.
    next: usize,
    accepted: usize,
    /// All commands up to DATA went out as one group.
    pipelined: bool,
}

impl Running {
    /// What the host said about recipients does not count any more.
    pub(super) fn forget_replies(&mut self) {
        for slot in self.results.iter_mut() {
            slot.take_if(|result| matches!(result, RecipientResult::Replied { .. }));
        }
    }

    /// Gives all recipients without a result this one.
    pub(super) fn settle(&mut self, result: &RecipientResult) {
        for slot in self.results.iter_mut().filter(|slot| slot.is_none()) {
            *slot = Some(result.clone());
        }
    }
}

impl Conversation {
    pub(super) fn start(&mut self, transaction: Transaction, gate: &mut dyn Gate) {
        let recipients = transaction.envelope.recipients.len();
        let mut running = Running {
            results: vec![None; recipients],
            next: 0,
            accepted: 0,
            pipelined: self.features.pipelining,
            transaction,
        };
        if let Some(refusal) = running.transaction.refusal(&self.features, self.tls) {
            running.settle(&RecipientResult::Refused(refusal));
        }
        if running.results.iter().all(Option::is_some) {
            self.running = Some(running);
            return self.conclude();
        }
        if running.pipelined {
            self.start_group(running, gate);
        } else {
            self.begun += 1;
            running.transaction.write_mail(&self.features, &mut self.commands);
            self.expected.push_back(Expected::Mail);
            self.running = Some(running);
        }
    }

    /// MAIL, all RCPT and DATA in one group (RFC 2920 section 3.1), or nothing
    /// at all when no recipient is admitted. A chunk waits for the replies: it
    /// would go in vain if no recipient was accepted.
    fn start_group(&mut self, mut running: Running, gate: &mut dyn Gate) {
        let mut named = BytesMut::new();
        let mut positions = Vec::new();
        for (position, recipient) in running.transaction.envelope.recipients.iter().enumerate() {
            if gate.admit(position, recipient) {
                Transaction::write_rcpt(recipient, &self.features, &mut named);
                positions.push(Expected::Rcpt(position));
            } else {
                running.results[position] = Some(RecipientResult::Vetoed);
            }
        }
        if positions.is_empty() {
            self.running = Some(running);
            return self.conclude();
        }
        self.begun += 1;
        running.transaction.write_mail(&self.features, &mut self.commands);
        self.expected.push_back(Expected::Mail);
        self.commands.unsplit(named);
        self.expected.extend(positions);
        let binary = running.transaction.is_binary();
        self.running = Some(running);
        if !binary {
            self.send("DATA", Expected::Data);
        }
    }

    pub(super) fn mail_replied(&mut self, reply: SmtpReply, gate: &mut dyn Gate) {
        let Some(running) = &mut self.running else { return };
        let positive = reply.severity() == Severity::Positive;
        if !positive {
            running.settle(&RecipientResult::Replied { stage: Stage::MailFrom, reply });
        }
        match (running.pipelined, positive) {
            // The replies to the rest of the group are still to come.
            (true, _) => {}
            (false, true) => self.name_next(gate),
            (false, false) => self.conclude(),
        }
    }

    /// Without pipelining: the next RCPT that is admitted, or the content after the last.
    fn name_next(&mut self, gate: &mut dyn Gate) {
        let Some(running) = &mut self.running else { return };
        while let Some(recipient) = running.transaction.envelope.recipients.get(running.next) {
            let position = running.next;
            running.next += 1;
            if gate.admit(position, recipient) {
                Transaction::write_rcpt(recipient, &self.features, &mut self.commands);
                self.expected.push_back(Expected::Rcpt(position));
                return;
            }
            running.results[position] = Some(RecipientResult::Vetoed);
        }
        self.all_named();
    }

    /// All recipients have been answered.
    fn all_named(&mut self) {
        let Some(running) = &mut self.running else { return };
        if running.accepted == 0 {
            self.conclude();
            self.send("RSET", Expected::Reset);
        } else if running.transaction.is_binary() {
            let command = format!("BDAT {} LAST", running.transaction.size());
            let content = std::mem::take(&mut running.transaction.content);
            self.send(&command, Expected::Chunk);
            self.flush_commands();
            self.output.extend(content);
        } else {
            self.send("DATA", Expected::Data);
        }
    }

    pub(super) fn rcpt_replied(&mut self, position: usize, reply: SmtpReply, gate: &mut dyn Gate) {
        let Some(running) = &mut self.running else { return };
        // Where MAIL was refused there is a result already; this reply only follows from it.
        if running.results[position].is_none() {
            if reply.severity() == Severity::Positive {
                running.accepted += 1;
            } else {
                running.results[position] = Some(RecipientResult::Replied { stage: Stage::RcptTo, reply });
            }
        }
        if !running.pipelined {
            self.name_next(gate);
        } else if self.expected.is_empty() {
            // No DATA went out with the group.
            self.all_named();
        }
    }

    pub(super) fn data_replied(&mut self, reply: SmtpReply) {
        let Some(running) = &mut self.running else { return };
        match (reply.severity(), running.accepted) {
            (Severity::Intermediate, 0) => {
                // RFC 2920 section 3.1: DATA went through although no recipient did.
                self.send(".", Expected::LoneDot);
            }
            (Severity::Intermediate, _) => {
                let content = stuff(&std::mem::take(&mut running.transaction.content));
                self.flush_commands();
                self.output.extend(content);
                self.expected.push_back(Expected::End);
            }
            _ => self.finish(&RecipientResult::Replied { stage: Stage::Data, reply }, true),
        }
    }

    /// The transaction has ended, with this result for all that have none yet.
    pub(super) fn finish(&mut self, result: &RecipientResult, reset: bool) {
        if let Some(running) = &mut self.running {
            running.settle(result);
        }
        self.conclude();
        if reset {
            self.send("RSET", Expected::Reset);
        }
    }

    /// Hands the results out; all recipients have one.
    fn conclude(&mut self) {
        if let Some(running) = self.running.take() {
            let recipients = running.results.into_iter().flatten().collect();
            self.done = Some(TransactionResult { recipients });
        }
    }
}
