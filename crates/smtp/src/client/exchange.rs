//! The client's transactions: from MAIL to the last reply.

use bytes::BytesMut;
use postrider_mail::{Severity, SmtpReply, Stage};

use super::Protocol;
use super::conversation::Conversation;
use super::expected::Expected;
use super::transaction::{Gate, RecipientResult, Transaction, TransactionResult};
use crate::wire::stuff;

/// Octets of content that may follow the recipients before the replies to them
/// are there: no more than buffers on the way hold.
const ONE_FLIGHT: u64 = 32 * 1024;

/// The transaction under way.
#[derive(Debug)]
pub(super) struct Running {
    transaction: Transaction,
    /// Octets of its content, also when that is on its way.
    size: u64,
    results: Vec<Option<RecipientResult>>,
    /// Without pipelining: the next recipient to be named.
    next: usize,
    /// Who is to get the content.
    accepted: Vec<usize>,
    /// All commands up to DATA went out as one group.
    pipelined: bool,
    /// The content goes by BDAT (RFC 3030), and not by DATA.
    chunked: bool,
    /// A chunk was refused, for somebody at least.
    chunk_refused: bool,
}

impl Running {
    pub(super) fn subject(&self) -> (&Transaction, u64) {
        (&self.transaction, self.size)
    }

    /// What the host said about recipients does not count any more, unless it
    /// had the content when it said it.
    pub(super) fn forget_replies(&mut self) {
        for slot in self.results.iter_mut() {
            slot.take_if(
                |result| matches!(result, RecipientResult::Replied { stage, .. } if *stage != Stage::EndOfData),
            );
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
            size: transaction.size(),
            results: vec![None; recipients],
            next: 0,
            accepted: Vec::new(),
            pipelined: self.features.pipelining,
            chunked: self.features.chunking && self.config.chunking || transaction.is_binary(),
            chunk_refused: false,
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
            running.transaction.write_mail(running.size, &self.features, &mut self.commands);
            self.expected.push_back(Expected::Mail);
            self.running = Some(running);
        }
    }

    /// MAIL, all RCPT and DATA in one group (RFC 2920 section 3.1), or nothing
    /// at all when no recipient is admitted. A chunk waits for the replies, for it
    /// would go in vain if no recipient was accepted; but a small one goes along to
    /// a host that has taken a message already: that saves a round trip, which is
    /// half of what a message costs on a distant host's connection.
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
        running.transaction.write_mail(running.size, &self.features, &mut self.commands);
        self.expected.push_back(Expected::Mail);
        self.commands.unsplit(named);
        self.expected.extend(positions);
        let (chunked, size) = (running.chunked, running.size);
        self.running = Some(running);
        if !chunked {
            self.send("DATA", Expected::Data);
        } else if self.has_taken && size <= ONE_FLIGHT && self.config.protocol == Protocol::Smtp {
            self.send_chunk();
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
        if running.accepted.is_empty() {
            self.conclude();
            self.send("RSET", Expected::Reset);
        } else if running.chunked {
            self.send_chunk();
        } else {
            self.send("DATA", Expected::Data);
        }
    }

    /// All of the content as the only chunk (RFC 3030 section 2), octet for octet.
    fn send_chunk(&mut self) {
        let Some(running) = &mut self.running else { return };
        self.commands.extend_from_slice(format!("BDAT {} LAST\r\n", running.size).as_bytes());
        let content = std::mem::take(&mut running.transaction.content);
        self.flush_commands();
        self.output.extend(content);
        self.expect_outcome();
    }

    /// The content is out: one reply for all, or one for each.
    fn expect_outcome(&mut self) {
        let Some(running) = &self.running else { return };
        match self.config.protocol {
            Protocol::Smtp => self.expected.push_back(Expected::End),
            // RFC 2033 section 4.2: in the order of the recipients.
            Protocol::Lmtp => self.expected.extend(running.accepted.iter().copied().map(Expected::EndOf)),
        }
    }

    pub(super) fn rcpt_replied(&mut self, position: usize, reply: SmtpReply, gate: &mut dyn Gate) {
        let Some(running) = &mut self.running else { return };
        // Where MAIL was refused there is a result already; this reply only follows from it.
        if running.results[position].is_none() {
            if reply.severity() == Severity::Positive {
                running.accepted.push(position);
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
        match (reply.severity(), running.accepted.is_empty(), self.config.protocol) {
            // RFC 2920 section 3.1: DATA went through although no recipient did.
            (Severity::Intermediate, true, Protocol::Smtp) => self.send(".", Expected::LoneDot),
            // RFC 2033 section 4.2 forbids it: nobody knows what follows.
            (Severity::Intermediate, true, Protocol::Lmtp) => {
                self.conclude();
                self.out_of_step(Stage::Data);
            }
            (Severity::Intermediate, false, _) => {
                let content = stuff(&std::mem::take(&mut running.transaction.content));
                self.flush_commands();
                self.output.extend(content);
                self.expect_outcome();
            }
            _ => self.finish(&RecipientResult::Replied { stage: Stage::Data, reply }, true),
        }
    }

    /// What became of the content, for one recipient or for all that are left.
    pub(super) fn content_replied(&mut self, position: Option<usize>, reply: SmtpReply) {
        let Some(running) = &mut self.running else { return };
        let positive = reply.severity() == Severity::Positive;
        self.has_taken |= positive && !running.accepted.is_empty();
        running.chunk_refused |= running.chunked && !positive;
        let result = RecipientResult::Replied { stage: Stage::EndOfData, reply };
        match position {
            Some(position) => running.results[position] = Some(result),
            None => running.settle(&result),
        }
        if self.expected.is_empty() {
            // RFC 3030 section 2: what state it is in after a refusal, only the host knows.
            let reset = running.chunk_refused;
            self.finish(&RecipientResult::Lost { stage: Stage::EndOfData }, reset);
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
