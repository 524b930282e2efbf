//! What the program says, a line each.

use std::fmt;
use std::str::FromStr;

use postrider_mail::MessageId;

/// One attempt at one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// Of this message.
    pub id: MessageId,
    /// Index in the envelope.
    pub recipient: u16,
    /// Which attempt it is, from 1.
    pub number: u32,
}

/// What the program is about to ask of the spool, or what it was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A message is being accepted.
    Accepting(MessageId),
    /// It was: it must survive.
    Acked(MessageId),
    /// A recipient's end is being recorded, together with a notice about it.
    Ending(Attempt, Option<MessageId>),
    /// It was recorded.
    Ended(Attempt),
    /// A deferral is being recorded.
    Deferring(Attempt),
    /// It was recorded.
    Deferred(Attempt),
    /// The feed says that a message was accepted.
    HeardMessage(MessageId),
    /// The feed says that a recipient came to an end.
    HeardEnd(Attempt),
    /// The feed says that an attempt was deferred.
    HeardDeferral(Attempt),
    /// The feed was read up to here.
    Cursor(u64),
    /// A claim had other bytes than were accepted.
    Damaged(MessageId),
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.id, self.recipient, self.number)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepting(id) => write!(f, "accepting {id}"),
            Self::Acked(id) => write!(f, "acked {id}"),
            Self::Ending(attempt, None) => write!(f, "ending {attempt}"),
            Self::Ending(attempt, Some(notice)) => write!(f, "ending {attempt} {notice}"),
            Self::Ended(attempt) => write!(f, "ended {attempt}"),
            Self::Deferring(attempt) => write!(f, "deferring {attempt}"),
            Self::Deferred(attempt) => write!(f, "deferred {attempt}"),
            Self::HeardMessage(id) => write!(f, "heard-message {id}"),
            Self::HeardEnd(attempt) => write!(f, "heard-end {attempt}"),
            Self::HeardDeferral(attempt) => write!(f, "heard-deferral {attempt}"),
            Self::Cursor(lsn) => write!(f, "cursor {lsn}"),
            Self::Damaged(id) => write!(f, "damaged {id}"),
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| format!("not a line of the load program: {text:?}"))
    }
}

fn parse(text: &str) -> Option<Line> {
    let mut words = text.split(' ');
    let word = words.next()?;
    if word == "cursor" {
        return Some(Line::Cursor(words.next()?.parse().ok()?));
    }
    let id: MessageId = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse().ok();
    Some(match word {
        "accepting" => Line::Accepting(id),
        "acked" => Line::Acked(id),
        "heard-message" => Line::HeardMessage(id),
        "damaged" => Line::Damaged(id),
        _ => {
            let attempt = Attempt { id, recipient: u16::try_from(number()?).ok()?, number: number()? };
            match word {
                "ending" => Line::Ending(attempt, words.next().map(str::parse).transpose().ok()?),
                "ended" => Line::Ended(attempt),
                "deferring" => Line::Deferring(attempt),
                "deferred" => Line::Deferred(attempt),
                "heard-end" => Line::HeardEnd(attempt),
                "heard-deferral" => Line::HeardDeferral(attempt),
                _ => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_they_were_written() {
        let id = MessageId::from_bytes([1; 24]);
        let attempt = Attempt { id, recipient: 2, number: 3 };
        let lines = [
            Line::Accepting(id),
            Line::Acked(id),
            Line::Ending(attempt, None),
            Line::Ending(attempt, Some(id)),
            Line::Ended(attempt),
            Line::Deferring(attempt),
            Line::Deferred(attempt),
            Line::HeardMessage(id),
            Line::HeardEnd(attempt),
            Line::HeardDeferral(attempt),
            Line::Cursor(7),
            Line::Damaged(id),
        ];
        for line in lines {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
    }

    #[test]
    fn half_a_line_is_none() {
        let id = MessageId::from_bytes([1; 24]);
        for bad in [String::new(), "acked 01".into(), format!("ended {id} 1"), format!("hidden {id} 1 2")] {
            assert!(bad.parse::<Line>().is_err(), "{bad}");
        }
    }
}
