//! Reports of what came back, on their way into the journal.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use postrider_mail::MessageId;
use postrider_wal::Lsn;
use tokio::sync::oneshot;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::history::History;
use crate::journal::Journal;
use crate::record::Head;
use crate::returned::{Reported, Returned, ReturnedRecord};

/// Reports that wait to be looked at, at most; who has one more waits longer.
pub(crate) const WAITING: usize = 256;
/// Reports that are journaled together, at most.
pub(crate) const TOGETHER: usize = 64;

/// A report, and who wants to know what became of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) returned: Returned,
    pub(crate) answer: oneshot::Sender<Result<Answer>>,
}

/// What of the feed is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HasRead {
    Part,
    /// What earlier processes wrote.
    Earlier,
    All,
}

/// What became of a report.
#[derive(Debug)]
pub(crate) enum Answer {
    Reported(Reported),
    /// The journal has not read all of the feed: the message may be in the rest, or what an
    /// earlier process has made of the report.
    NotYet,
}

impl Journal {
    /// Turns the first of `reports` into records, as many as fit into a batch, and says what
    /// became of each once they are synced. They carry the place `source` of the feed, so that
    /// it is read on where it was left; `read` is of it what there is by now. Blocks.
    pub(crate) fn digest_reports(
        &self,
        reports: &[Report],
        source: Lsn,
        read: HasRead,
    ) -> (Digest, Vec<Result<Answer>>) {
        let mut digest = Digest::behind(source);
        let mut histories = HashMap::new();
        let mut answers = Vec::with_capacity(reports.len());
        for Report { returned, .. } in reports {
            if digest.bytes() >= self.max_digest() {
                break;
            }
            let answer = match self.digest_report(returned, &mut digest, &mut histories) {
                Ok(Reported::Unknown) if read < HasRead::All => Ok(Answer::NotYet),
                Ok(Reported::Known(_)) if read < HasRead::Earlier => Ok(Answer::NotYet),
                Ok(reported) => Ok(Answer::Reported(reported)),
                Err(error) => {
                    tracing::error!(id = %returned.id, "what came back for this message is not journaled: {error}");
                    Err(Error::Later("the journal can not be read"))
                }
            };
            answers.push(answer);
        }
        (digest, answers)
    }

    /// `histories` are those of messages that earlier reports of the same batch are about.
    fn digest_report(
        &self,
        returned: &Returned,
        digest: &mut Digest,
        histories: &mut HashMap<MessageId, Option<History>>,
    ) -> Result<Reported> {
        let history = match histories.entry(returned.id) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(slot) => slot.insert(self.history(returned.id)?),
        };
        let Some(history) = history else { return Ok(Reported::Unknown) };
        let affected = history.affected(returned);
        if affected.is_empty() {
            return Ok(Reported::Unknown);
        }
        let (mut recipients, mut notices) = (Vec::new(), BTreeSet::new());
        for recipient in affected {
            match history.known(recipient, &returned.what) {
                Some(notice) => notices.extend(notice),
                None => recipients.push(recipient),
            }
        }
        if recipients.is_empty() {
            return Ok(Reported::Known(notices.into_iter().collect()));
        }
        let now = self.clock.now();
        let (what, source) = (returned.what.clone(), returned.source.clone());
        let record = ReturnedRecord { recipients, at: now, what, source, notice: returned.notice };
        let sent = returned.at.min(now).max(history.known.accepted_at);
        let head = Head { source: digest.last, id: returned.id, at: now };
        digest.returned(head, &history.known, &record, sent, self.issuer())?;
        history.take(&record);
        let all = &history.known.recipients;
        let told = record.recipients.iter().filter_map(|recipient| all.get(usize::from(*recipient)).cloned());
        Ok(Reported::Journaled(told.collect()))
    }
}
