//! What filters say.

use postrider_mail::{SmtpReply, sanitize_text};

use super::changes::HeaderChange;
use super::packet::{Fault, Packet};

/// What a filter may do to a message, as bits (`SMFIF_*` in libmilter).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions(pub u32);

impl Actions {
    /// Add and insert fields.
    pub const ADD_HEADERS: Self = Self(0x01);
    /// Replace the body.
    pub const CHANGE_BODY: Self = Self(0x02);
    /// Add recipients, with or without parameters.
    pub const ADD_RECIPIENTS: Self = Self(0x84);
    /// Remove recipients.
    pub const REMOVE_RECIPIENTS: Self = Self(0x08);
    /// Change and remove fields.
    pub const CHANGE_HEADERS: Self = Self(0x10);
    /// Have the message held.
    pub const QUARANTINE: Self = Self(0x20);
    /// Change the sender.
    pub const CHANGE_SENDER: Self = Self(0x40);

    /// What a filter's actions lead to here.
    pub const SUPPORTED: Self = Self(Self::ADD_HEADERS.0 | Self::CHANGE_HEADERS.0 | Self::QUARANTINE.0);
    /// What can be offered and then ignored.
    pub const OTHERS: Self =
        Self(Self::CHANGE_BODY.0 | Self::ADD_RECIPIENTS.0 | Self::REMOVE_RECIPIENTS.0 | Self::CHANGE_SENDER.0);

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is here and not in `other`.
    #[must_use]
    pub const fn beyond(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How a filter wants to be spoken to, as bits (`SMFIP_*` in libmilter): steps that are left
/// out, and steps that it does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocol(pub u32);

impl Protocol {
    /// All that can be chosen in version 6, but the size of its packets.
    pub const ALL: Self = Self(0x1f_ffff);
    /// Values of fields have the blank behind the colon.
    pub const LEADING_SPACE: Self = Self(0x10_0000);

    /// Whether all of these are chosen.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a filter says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// What was agreed on.
    Negotiated {
        /// Of the protocol.
        version: u32,
        /// What it wants to be allowed.
        actions: Actions,
        /// How it wants to be spoken to.
        protocol: Protocol,
    },
    /// Go on.
    Continue,
    /// The message is fine; there is no need to go on.
    Accept,
    /// The message is taken and thrown away.
    Discard,
    /// To be refused for good.
    Reject,
    /// To be refused for now.
    TempFail,
    /// To be refused with this reply, 4yz or 5yz.
    Refuse(SmtpReply),
    /// There is no need for more of the same.
    Skip,
    /// It is still at work.
    Progress,
    /// To be held, for this reason.
    Quarantine(String),
    /// A field is to be other than it is.
    Header(HeaderChange),
    /// Something else than the header is to be; what, as an action.
    Other(Actions),
}

impl Reply {
    /// Reads a packet of a filter's.
    ///
    /// # Errors
    /// [`Fault::Reply`].
    pub fn parse(packet: &Packet) -> Result<Self, Fault> {
        let data = &packet.data[..];
        let bad = || Fault::Reply(char::from(packet.letter));
        Ok(match packet.letter {
            b'O' => {
                let (version, data) = number(data).ok_or_else(bad)?;
                let (actions, data) = number(data).ok_or_else(bad)?;
                // What follows names the macros that it wants; it is told all there are.
                let (protocol, _) = number(data).ok_or_else(bad)?;
                Self::Negotiated { version, actions: Actions(actions), protocol: Protocol(protocol) }
            }
            b'c' => Self::Continue,
            b'a' => Self::Accept,
            b'd' => Self::Discard,
            b'r' => Self::Reject,
            // The last two mean the connection, which is the message here.
            b't' | b'4' | b'f' => Self::TempFail,
            b'y' => Self::Refuse(smtp_reply(text(data)).ok_or_else(bad)?),
            b's' => Self::Skip,
            b'p' => Self::Progress,
            b'q' => Self::Quarantine(sanitize_text(text(data), MAX_TEXT)),
            b'h' => {
                let (name, value) = name_and_value(data).ok_or_else(bad)?;
                Self::Header(HeaderChange::add(name, value).ok_or_else(bad)?)
            }
            b'i' => {
                let (index, data) = number(data).ok_or_else(bad)?;
                let (name, value) = name_and_value(data).ok_or_else(bad)?;
                Self::Header(HeaderChange::insert(index, name, value).ok_or_else(bad)?)
            }
            b'm' => {
                let (index, data) = number(data).ok_or_else(bad)?;
                let (name, value) = name_and_value(data).ok_or_else(bad)?;
                Self::Header(HeaderChange::change(index, name, value).ok_or_else(bad)?)
            }
            b'b' => Self::Other(Actions::CHANGE_BODY),
            b'+' => Self::Other(Actions(0x04)),
            b'2' => Self::Other(Actions(0x80)),
            b'-' => Self::Other(Actions::REMOVE_RECIPIENTS),
            b'e' => Self::Other(Actions::CHANGE_SENDER),
            _ => return Err(bad()),
        })
    }
}

/// Longest text of a reply that is passed on.
const MAX_TEXT: usize = 400;

fn number(data: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = data.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// Up to the NUL that ends it, if one does.
fn text(data: &[u8]) -> &[u8] {
    data.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn name_and_value(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| *byte == 0)?;
    Some((&data[..end], text(&data[end + 1..])))
}

/// The reply that a filter wants clients to have, on one line. 421 would say that the connection
/// ends, which it does not.
fn smtp_reply(said: &[u8]) -> Option<SmtpReply> {
    let lines = said.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let (mut first, mut words) = (None, Vec::new());
    for line in lines {
        let (line_code, rest) = code_and_text(line)?;
        let is_new = SmtpReply::new(line_code, &String::from_utf8_lossy(rest));
        match &first {
            None => first = Some((line_code, is_new.enhanced)),
            Some((code, _)) if *code != line_code => return None,
            Some(_) => {}
        }
        words.push(is_new.text());
    }
    let (code, enhanced) = first.filter(|(code, _)| (400..600).contains(code))?;
    // Blanks and what may not be in a line of a reply.
    let text = sanitize_text(words.join(" "), MAX_TEXT);
    let text = if text.is_empty() { "Message rejected".to_owned() } else { text };
    let reply = SmtpReply::new(if code == 421 { 451 } else { code }, &text);
    Some(match enhanced.filter(|status| u16::from(status.class) == code / 100) {
        Some(status) => reply.with_enhanced(status),
        None => reply,
    })
}

/// A line of a reply: the code, and what stands behind the blank or the hyphen.
fn code_and_text(line: &[u8]) -> Option<(u16, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    let code = std::str::from_utf8(code).ok()?.parse().ok()?;
    (rest.is_empty() || rest[0] == b' ' || rest[0] == b'-').then_some((code, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn parse(letter: u8, data: &[u8]) -> Result<Reply, Fault> {
        Reply::parse(&Packet { letter, data: Bytes::copy_from_slice(data) })
    }

    fn refused(data: &[u8]) -> Option<String> {
        match parse(b'y', data) {
            Ok(Reply::Refuse(reply)) => Some(reply.to_string()),
            _ => None,
        }
    }

    #[test]
    fn replies_of_filters_are_passed_on() {
        for (said, line) in [
            (&b"550 5.7.1 Not this\0"[..], "550 5.7.1 Not this"),
            (b"451 Later\0", "451 Later"),
            (b"554\0", "554 Message rejected"),
            (b"550-5.7.1 One\r\n550 5.7.1 Two\0", "550 5.7.1 One Two"),
            (b"421 4.3.2 Closing\0", "451 4.3.2 Closing"),
        ] {
            assert_eq!(refused(said).as_deref(), Some(line));
        }
    }

    #[test]
    fn what_would_be_taken_for_success_or_another_reply_is_refused() {
        for said in
            [&b"250 Ok\0"[..], b"\0", b"55", b"abc no\0", b"5500 no\0", b"550 no\r\n250 Ok\0", b"550 no\r\nOk\0"]
        {
            assert_eq!(parse(b'y', said), Err(Fault::Reply('y')), "{:?}", String::from_utf8_lossy(said));
        }
    }

    #[test]
    fn a_reply_can_not_break_a_line() {
        let line = refused(b"550 5.7.1 a\rb\x1b[2J\xff\0rest").unwrap();
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }

    #[test]
    fn negotiation_is_read() {
        let data = [0, 0, 0, 6, 0, 0, 0, 0x11, 0, 0x10, 0, 0x21];
        let expected = Reply::Negotiated { version: 6, actions: Actions(0x11), protocol: Protocol(0x10_0021) };
        assert_eq!(parse(b'O', &data), Ok(expected.clone()));
        assert_eq!(parse(b'O', &[&data[..], b"\0\0\0\x01i\0"].concat()), Ok(expected));
        assert_eq!(parse(b'O', &data[..11]), Err(Fault::Reply('O')));
    }

    #[test]
    fn changes_are_read() {
        assert_eq!(parse(b'h', b"X-A\0 b\0"), Ok(Reply::Header(HeaderChange::add(b"X-A", b" b").unwrap())));
        let insert = Reply::Header(HeaderChange::insert(1, b"X-A", b"b").unwrap());
        assert_eq!(parse(b'i', b"\0\0\0\x01X-A\0b\0"), Ok(insert));
        let removal = Reply::Header(HeaderChange::change(2, b"X-A", b"").unwrap());
        assert_eq!(parse(b'm', b"\0\0\0\x02X-A\0\0"), Ok(removal));
        assert_eq!(parse(b'b', b"body"), Ok(Reply::Other(Actions::CHANGE_BODY)));
        for (letter, data) in [(b'h', &b"X A\0b\0"[..]), (b'h', b"X-A"), (b'i', b"\0\0"), (b'm', b"\0\0\0\x01:\0b\0")] {
            assert_eq!(parse(letter, data), Err(Fault::Reply(char::from(letter))));
        }
        assert_eq!(parse(b'?', b""), Err(Fault::Reply('?')));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_break_a_line(letter in any::<u8>(), data in proptest::collection::vec(any::<u8>(), 0..80)) {
            match parse(letter, &data) {
                Ok(Reply::Refuse(reply)) => {
                    prop_assert!((400..600).contains(&reply.code));
                    prop_assert!(!reply.to_string().contains(['\r', '\n']));
                }
                Ok(Reply::Quarantine(why)) => prop_assert!(!why.contains(['\r', '\n'])),
                _ => {}
            }
        }

        #[test]
        fn no_text_of_a_refusal_panics(text in "5[0-9]{2}[ -][ -~\r\n\0]{0,60}") {
            if let Ok(Reply::Refuse(reply)) = parse(b'y', text.as_bytes()) {
                prop_assert_eq!(reply.lines.len(), 1);
            }
        }
    }
}
