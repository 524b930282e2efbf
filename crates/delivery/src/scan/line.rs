//! Who is scanned next: messages that have had no verdict before have half of the scans at most,
//! so that those on which a scanner chokes hold up no others.

use std::collections::VecDeque;

use postrider_mail::MessageId;

/// Whether a message has been shown to a scanner before, for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    First,
    Again,
}

/// Messages that wait for a scan, and how many are in one.
#[derive(Debug, Default)]
pub(super) struct Line {
    first: VecDeque<MessageId>,
    again: VecDeque<MessageId>,
    running: usize,
    running_again: usize,
    /// The last one that began had been shown before.
    was_again: bool,
}

impl Line {
    /// How many wait for such a turn.
    pub(super) fn len(&self, turn: Turn) -> usize {
        match turn {
            Turn::First => self.first.len(),
            Turn::Again => self.again.len(),
        }
    }

    pub(super) fn push(&mut self, id: MessageId, turn: Turn) {
        match turn {
            Turn::First => self.first.push_back(id),
            Turn::Again => self.again.push_back(id),
        }
    }

    /// The next one, of which the scan begins, if there may be so many; until [`Line::ended`].
    pub(super) fn next(&mut self, connections: usize) -> Option<(MessageId, Turn)> {
        if self.running >= connections {
            return None;
        }
        let is_full = self.running_again >= (connections / 2).max(1);
        let is_others = self.was_again && !self.first.is_empty();
        let again = if is_full || is_others { None } else { self.again.pop_front() };
        let next = again.map(|id| (id, Turn::Again)).or_else(|| Some((self.first.pop_front()?, Turn::First)))?;
        self.was_again = next.1 == Turn::Again;
        self.running += 1;
        self.running_again += usize::from(self.was_again);
        Some(next)
    }

    pub(super) fn ended(&mut self, turn: Turn) {
        self.running -= 1;
        self.running_again -= usize::from(turn == Turn::Again);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Nobody waits any more.
    pub(super) fn clear(&mut self) {
        self.first.clear();
        self.again.clear();
    }
}

#[cfg(test)]
mod tests {
    use postrider_base::Timestamp;

    use super::*;

    fn id(number: u128) -> MessageId {
        MessageId::new(1, Timestamp::from_millis(0), number)
    }

    fn line(first: u128, again: u128) -> Line {
        let mut line = Line::default();
        (0..first).for_each(|number| line.push(id(number), Turn::First));
        (0..again).for_each(|number| line.push(id(100 + number), Turn::Again));
        line
    }

    #[test]
    fn what_was_shown_before_has_half_of_the_scans() {
        let mut line = line(0, 9);
        assert_eq!((line.next(4), line.next(4)), (Some((id(100), Turn::Again)), Some((id(101), Turn::Again))));
        assert_eq!(line.next(4), None);
        line.push(id(1), Turn::First);
        assert_eq!(line.next(4), Some((id(1), Turn::First)));
        line.ended(Turn::Again);
        assert_eq!(line.next(4), Some((id(102), Turn::Again)));
        assert_eq!((line.next(4), line.len(Turn::Again)), (None, 6));
    }

    #[test]
    fn with_one_scan_they_take_turns() {
        let mut line = line(2, 2);
        let mut seen = Vec::new();
        while let Some((id, turn)) = line.next(1) {
            assert_eq!(line.next(1), None, "one too many");
            seen.push(id);
            line.ended(turn);
        }
        assert_eq!(seen, [id(100), id(0), id(101), id(1)]);
        assert!(line.is_idle());
    }
}
