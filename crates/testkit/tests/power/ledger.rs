//! What the load program told, and what must hold of it after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
use std::time::Duration;

use postrider_mail::MessageId;
use postrider_testkit::spool_load::{Attempt, Line, OUTCOME_SYNC, recipients};

/// How long after an outcome was recorded it must be on disk: what is
/// promised, and what a machine that does other things too may add.
fn outcome_window() -> Duration {
    OUTCOME_SYNC.as_duration() + Duration::from_millis(900)
}

/// All that was told so far, over any number of runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    mails: BTreeMap<MessageId, Mail>,
    /// Lines so far.
    lines: u64,
    /// What was told before this line is synced, since a message is that the
    /// spool was asked for later.
    proven: u64,
    /// The feed was read up to here.
    cursor: u64,
    /// What the feed said since, to be forgotten with a cut: it says it again.
    unconfirmed: Vec<Line>,
    /// Cuts so far.
    cuts: u32,
    wrong: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Mail {
    /// The line that said that it is being accepted.
    began: u64,
    acked: bool,
    /// It exists if and only if this attempt ended its recipient.
    because: Option<Attempt>,
    heard: u32,
    recipients: Vec<Fate>,
}

/// What is known of one recipient.
#[derive(Clone, Debug, Default)]
struct Fate {
    ending: Option<Ending>,
    ended: Option<Said>,
    heard_end: u32,
    deferrals: BTreeMap<u32, Deferral>,
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    /// Cuts before.
    cuts: u32,
    notice: Option<MessageId>,
}

#[derive(Clone, Debug, Default)]
struct Deferral {
    said: Option<Said>,
    heard: u32,
}

/// That something was recorded.
#[derive(Clone, Copy, Debug)]
enum Said {
    /// By the program that runs: in this line, at this time.
    Now(u64, Duration),
    /// Before a cut, and early enough to be synced.
    Synced,
}

/// What a spool that was opened after a cut has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Recipients that wait, and how many attempts were made at each.
    pub(crate) waiting: BTreeMap<MessageId, BTreeMap<u16, u32>>,
    /// The feed from the ledger's cursor on.
    pub(crate) feed: Vec<Line>,
    /// The last batch of it.
    pub(crate) cursor: u64,
    /// Complaints that need no ledger, such as a body that differs.
    pub(crate) wrong: Vec<String>,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Acknowledged messages.
    pub(crate) acked: u64,
    /// Messages that wait.
    pub(crate) waiting: u64,
    /// Recipients that have come to an end.
    pub(crate) ended: u64,
    /// Recipients whose end was on its way to the disk, and is lost.
    pub(crate) repeated: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.acked += other.acked;
        self.waiting += other.waiting;
        self.ended += other.ended;
        self.repeated += other.repeated;
    }
}

impl Ledger {
    /// Takes a line in, told `at` this time.
    pub(crate) fn take(&mut self, line: Line, at: Duration) {
        self.lines += 1;
        let said = Said::Now(self.lines, at);
        match line {
            Line::Accepting(id) => {
                let mail = Mail::new(id);
                self.mails.insert(id, Mail { began: self.lines, ..mail });
            }
            Line::Acked(id) => {
                let mail = self.mail(id);
                mail.acked = true;
                let began = mail.began;
                self.proven = self.proven.max(began);
            }
            Line::Ending(attempt, notice) => {
                self.begin(attempt);
                let cuts = self.cuts;
                self.fate(attempt).ending = Some(Ending { cuts, notice });
                if let Some(id) = notice {
                    self.mails.insert(id, Mail { because: Some(attempt), ..Mail::new(id) });
                }
            }
            Line::Ended(attempt) => self.fate(attempt).ended = Some(said),
            Line::Deferring(attempt) => {
                self.begin(attempt);
                self.deferral(attempt);
            }
            Line::Deferred(attempt) => self.deferral(attempt).said = Some(said),
            Line::HeardMessage(_) | Line::HeardEnd(_) | Line::HeardDeferral(_) => self.unconfirmed.push(line),
            Line::Cursor(lsn) => {
                self.cursor = lsn;
                let heard = std::mem::take(&mut self.unconfirmed);
                heard.into_iter().for_each(|line| self.hear(line));
            }
            Line::Damaged(id) => self.wrong.push(format!("{id} was delivered with other bytes")),
        }
    }

    /// The program was killed: everything told so far is in its files.
    pub(crate) fn killed(&mut self) {
        self.proven = self.lines + 1;
        self.cut(Duration::ZERO);
    }

    /// The power failed at this time. What was not synced for sure may have
    /// happened or not, and stays so until it is [settled](Self::settle).
    pub(crate) fn cut(&mut self, at: Duration) {
        self.cuts += 1;
        self.unconfirmed.clear();
        let proven = self.proven;
        let after_cut = |said: &mut Option<Said>| {
            *said = said.filter(|said| said.is_durable(proven, at)).map(|_| Said::Synced);
        };
        for fate in self.mails.values_mut().flat_map(|mail| &mut mail.recipients) {
            after_cut(&mut fate.ended);
            fate.deferrals.values_mut().for_each(|deferral| after_cut(&mut deferral.said));
        }
    }

    /// How far the feed was read.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Messages that were acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.mails.values().filter(|mail| mail.acked).count() as u64
    }

    /// Compares with what a spool has after a [cut](Self::cut); takes over
    /// how things went that were under way.
    pub(crate) fn settle(&mut self, found: &Found) -> Result<Counts, String> {
        found.feed.iter().for_each(|line| self.hear(*line));
        self.cursor = self.cursor.max(found.cursor);
        self.wrong.extend(found.wrong.iter().cloned());
        let strangers = found.waiting.keys().filter(|id| !self.mails.contains_key(id));
        let strangers: Vec<String> = strangers.map(|id| format!("{id} was never accepted, and waits")).collect();
        self.wrong.extend(strangers);
        let existed: BTreeSet<MessageId> = self.mails.keys().filter(|id| self.existed(**id, found)).copied().collect();
        let mut counts = Counts::default();
        let mut mails = std::mem::take(&mut self.mails);
        for (id, mail) in &mut mails {
            let compared = Comparison { id: *id, found, existed: existed.contains(id) };
            let wrong = compared.run(mail, &mut counts);
            self.wrong.extend(wrong);
        }
        mails.retain(|id, _| existed.contains(id));
        self.mails = mails;
        match self.wrong.is_empty() {
            true => Ok(counts),
            false => Err(self.wrong.join("\n")),
        }
    }

    /// Whether a message was accepted, as far as what was found tells.
    fn existed(&self, id: MessageId, found: &Found) -> bool {
        let Some(mail) = self.mails.get(&id) else { return false };
        match mail.because {
            Some(cause) => self.existed(cause.id, found) && !found.waits(cause.id, cause.recipient),
            // What was claimed or heard of had been accepted.
            None => {
                let touched = |fate: &Fate| fate.ending.is_some() || !fate.deferrals.is_empty();
                let heard = mail.heard > 0;
                mail.acked || heard || found.waiting.contains_key(&id) || mail.recipients.iter().any(touched)
            }
        }
    }

    /// A recipient is attempted: it has not come to an end, or its end was
    /// lost in a cut, and the notice about it too.
    fn begin(&mut self, attempt: Attempt) {
        let cuts = self.cuts;
        let fate = self.fate(attempt);
        let ended = fate.ended.take();
        let Some(ending) = fate.ending.take() else { return };
        if ending.cuts == cuts || ended.is_some() {
            self.wrong.push(format!("{attempt} is attempted after its end"));
        }
        if let Some(notice) = ending.notice.and_then(|notice| self.mails.remove(&notice))
            && notice.heard > 0
        {
            self.wrong.push(format!("{attempt} is attempted although a notice says that it failed"));
        }
    }

    fn hear(&mut self, line: Line) {
        match line {
            Line::HeardMessage(id) => self.mail(id).heard += 1,
            Line::HeardEnd(attempt) => self.fate(attempt).heard_end += 1,
            Line::HeardDeferral(attempt) => self.deferral(attempt).heard += 1,
            _ => {}
        }
    }

    fn mail(&mut self, id: MessageId) -> &mut Mail {
        let Self { mails, wrong, .. } = self;
        mails.entry(id).or_insert_with(|| {
            wrong.push(format!("{id} is spoken of and was never accepted"));
            Mail::new(id)
        })
    }

    fn fate(&mut self, attempt: Attempt) -> &mut Fate {
        let fates = &mut self.mail(attempt.id).recipients;
        let index = usize::from(attempt.recipient).min(fates.len() - 1);
        &mut fates[index]
    }

    fn deferral(&mut self, attempt: Attempt) -> &mut Deferral {
        self.fate(attempt).deferrals.entry(attempt.number).or_default()
    }
}

impl Said {
    fn is_durable(self, proven: u64, cut: Duration) -> bool {
        match self {
            Self::Now(line, at) => line < proven || at + outcome_window() < cut,
            Self::Synced => true,
        }
    }
}

impl Mail {
    fn new(id: MessageId) -> Self {
        Self { recipients: vec![Fate::default(); recipients(id).len()], ..Self::default() }
    }
}

impl Found {
    fn waits(&self, id: MessageId, recipient: u16) -> bool {
        self.waiting.get(&id).is_some_and(|recipients| recipients.contains_key(&recipient))
    }
}

/// One message as it was told and as it was found.
struct Comparison<'a> {
    id: MessageId,
    found: &'a Found,
    existed: bool,
}

impl Comparison<'_> {
    /// What is wrong. What was under way is from now on as it was found.
    fn run(&self, mail: &mut Mail, counts: &mut Counts) -> Vec<String> {
        let mut wrong = Vec::new();
        let waits = self.found.waiting.contains_key(&self.id);
        if !self.existed {
            if waits || mail.heard > 0 {
                wrong.push(format!("{} is there without the outcome that caused it", self.id));
            }
            return wrong;
        }
        if mail.heard != 1 {
            wrong.push(format!("the feed says {} times that {} was accepted", mail.heard, self.id));
        }
        (mail.acked, mail.because) = (true, None);
        counts.acked += 1;
        counts.waiting += u64::from(waits);
        for (index, fate) in (0..).zip(&mut mail.recipients) {
            self.recipient(index, fate, counts, &mut wrong);
        }
        wrong
    }

    fn recipient(&self, index: u16, fate: &mut Fate, counts: &mut Counts, wrong: &mut Vec<String>) {
        let mut complain = |what: &str| wrong.push(format!("{} recipient {index}: {what}", self.id));
        let attempts = self.found.waiting.get(&self.id).and_then(|waiting| waiting.get(&index)).copied();
        match attempts {
            None if fate.ending.is_none() => complain("LOST: acknowledged, never ended, and not there"),
            None => counts.ended += 1,
            Some(_) if fate.ended.is_some() => complain("is back after its end was synced"),
            Some(_) => counts.repeated += u64::from(fate.ending.is_some()),
        }
        let heard = u32::from(attempts.is_none());
        if fate.heard_end != heard {
            complain(&format!("the feed says {} times that it ended, not {heard} times", fate.heard_end));
        }
        for (number, deferral) in &fate.deferrals {
            let known = attempts.is_none_or(|attempts| attempts >= *number);
            match deferral.heard {
                1 if known => {}
                0 if deferral.said.is_none() => {}
                times => complain(&format!("attempt {number} heard of {times} times, {attempts:?} are counted")),
            }
        }
        fate.deferrals.retain(|_, deferral| deferral.heard > 0);
        if attempts.is_some() {
            (fate.ending, fate.ended) = (None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(60);

    /// One recipient.
    fn id() -> MessageId {
        let mut bytes = [0; 24];
        bytes[23] = 1;
        MessageId::from_bytes(bytes)
    }

    fn attempt() -> Attempt {
        Attempt { id: id(), recipient: 0, number: 1 }
    }

    fn told(lines: &[Line]) -> Ledger {
        let mut ledger = Ledger::default();
        lines.iter().for_each(|line| ledger.take(*line, NOW));
        ledger
    }

    fn found(waits: bool, feed: &[Line]) -> Found {
        let waiting = waits.then(|| (id(), BTreeMap::from([(0, 0)])));
        Found { waiting: waiting.into_iter().collect(), feed: feed.to_vec(), ..Found::default() }
    }

    fn complaint(lines: &[Line], found: &Found, cut: Duration) -> String {
        let mut ledger = told(lines);
        ledger.cut(cut);
        ledger.settle(found).err().unwrap_or_default()
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        assert_eq!(recipients(id()).len(), 1);
        let lines = [Line::Accepting(id()), Line::Acked(id())];
        let heard = [Line::HeardMessage(id())];
        assert_eq!(complaint(&lines, &found(true, &heard), NOW), "");
        assert!(complaint(&lines, &found(false, &heard), NOW).contains("LOST"));
        assert!(complaint(&lines, &found(true, &[]), NOW).contains("0 times"));
        assert!(complaint(&lines, &found(true, &[heard[0], heard[0]]), NOW).contains("2 times"));
        assert_eq!(complaint(&lines[..1], &found(false, &[]), NOW), "");
    }

    #[test]
    fn what_ended_may_come_back_for_a_moment_only() {
        let lines = [
            Line::Accepting(id()),
            Line::Acked(id()),
            Line::HeardMessage(id()),
            Line::Cursor(1),
            Line::Ending(attempt(), None),
            Line::Ended(attempt()),
        ];
        let (back, gone) = (found(true, &[]), found(false, &[Line::HeardEnd(attempt())]));
        assert_eq!(complaint(&lines, &back, NOW), "");
        assert_eq!(complaint(&lines, &gone, NOW), "");
        assert!(complaint(&lines, &back, NOW + Duration::from_secs(2)).contains("is back"));
        assert!(complaint(&lines, &found(false, &[]), NOW).contains("0 times that it ended"));
    }

    #[test]
    fn what_came_before_a_later_message_is_synced_with_it() {
        let mut later = id().to_bytes();
        later[0] = 1;
        let later = MessageId::from_bytes(later);
        let lines = [
            Line::Accepting(id()),
            Line::Acked(id()),
            Line::Ending(attempt(), None),
            Line::Ended(attempt()),
            Line::Accepting(later),
            Line::Acked(later),
        ];
        let mut back = found(true, &[Line::HeardMessage(id()), Line::HeardMessage(later)]);
        back.waiting.insert(later, BTreeMap::from([(0, 0)]));
        assert!(complaint(&lines, &back, NOW).contains("is back"));
    }

    #[test]
    fn only_a_cut_excuses_a_second_attempt() {
        let lines = [Line::Accepting(id()), Line::Acked(id()), Line::Ending(attempt(), None)];
        let mut ledger = told(&lines);
        ledger.take(lines[2], NOW);
        assert_eq!(ledger.wrong.len(), 1);
        let mut ledger = told(&lines);
        ledger.cut(NOW);
        ledger.take(lines[2], NOW);
        assert!(ledger.wrong.is_empty());
    }

    #[test]
    fn an_end_and_its_notice_survive_together() {
        let notice = MessageId::from_bytes([1; 24]);
        let lines = [Line::Accepting(id()), Line::Acked(id()), Line::Ending(attempt(), Some(notice))];
        let feed = [Line::HeardMessage(id()), Line::HeardEnd(attempt()), Line::HeardMessage(notice)];
        assert!(complaint(&lines, &found(false, &feed), NOW).contains("LOST"));
        let mut both = found(true, &feed);
        both.waiting.insert(notice, (0..2).map(|index| (index, 0)).collect());
        assert!(complaint(&lines, &both, NOW).contains("without the outcome"));
    }
}
