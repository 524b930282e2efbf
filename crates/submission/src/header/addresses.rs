//! The addresses in a field (RFC 5322 section 3.4), read strictly: whom receivers see as the
//! sender must be whom the relay checked.

use std::fmt;

use postrider_mail::{AddressError, EmailAddress, sanitize_text};

use crate::mime::decode_name;

/// Longest text of a field that a refusal repeats, in bytes.
const MAX_SHOWN: usize = 128;

/// Most addresses of a From field: each is looked for, and policies are asked about each.
const MAX_AUTHORS: usize = 50;

/// An address and the name that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mailbox {
    pub(crate) address: EmailAddress,
    /// What stands in front of the address, else in a comment, as names did before there were
    /// brackets, else the name of its group: whatever people may see as the name. Without
    /// quotation marks, its encoded words decoded. U+FFFD stands for what can not be read.
    pub(crate) name: Option<String>,
}

/// What of a field is no address, and why. Does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress {
    fault: AddressFault,
    /// As it stands in the field, printable.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressFault {
    UserName,
    NoUserName,
    LongUserName,
    Domain,
    NoDomain,
    Long,
    /// Where there may be one.
    Several,
    /// More than may be.
    Many,
    /// A quotation mark, comment or bracket that is not closed, or text behind a bracket.
    Syntax,
}

impl fmt::Display for BadAddress {
    /// In the words of SES, where it has some.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            AddressFault::UserName => "Address contains illegal characters in user name",
            AddressFault::NoUserName => "User name is missing",
            AddressFault::LongUserName => "User name is longer than 64 characters",
            AddressFault::Domain => "Address contains an illegal domain name",
            AddressFault::NoDomain => "Missing final '@domain'",
            AddressFault::Long => "Address is longer than 254 characters",
            AddressFault::Several => "Field has more than one address",
            AddressFault::Many => "Field has more than 50 addresses",
            AddressFault::Syntax => "Address has quotes, brackets or comments that do not match",
        };
        write!(f, "{fault}: '{}'.", self.text)
    }
}

/// The mailboxes of a field whose folding is taken out, those of groups too (RFC 6854 lets
/// From have them). Where quotation marks or brackets in a name do not match, as
/// in `27" Monitors <ann@example.com>`, the only address that anybody could read counts.
pub(crate) fn mailboxes(value: &str) -> Result<Vec<Mailbox>, BadAddress> {
    by_the_rules(value).or_else(|bad| match only_possible(value) {
        Some(mailbox) if bad.fault == AddressFault::Syntax => Ok(vec![mailbox]),
        _ => Err(bad),
    })
}

/// A name that breaks the rules, and the only address of the field in brackets at its end.
fn only_possible(value: &str) -> Option<Mailbox> {
    let is_only = |mark| value.matches(mark).count() == 1;
    let (name, address) = value.strip_suffix('>')?.split_once('<').filter(|_| is_only('@') && is_only('<'))?;
    Some(Mailbox { address: read(address.trim()).ok()?, name: Some(decode_name(name.trim().as_bytes())) })
}

fn by_the_rules(value: &str) -> Result<Vec<Mailbox>, BadAddress> {
    let mut found = Vec::new();
    let mut element = Element::default();
    let mut group = None;
    let mut characters = value.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' if element.is_quoted || element.comments > 0 => {
                let escaped = characters.next().map(|(_, escaped)| escaped);
                if element.is_quoted {
                    element.text().push(character);
                    element.text().extend(escaped);
                } else {
                    element.comment.extend(escaped);
                }
            }
            '"' if element.comments == 0 => {
                element.is_quoted = !element.is_quoted;
                element.text().push(character);
            }
            _ if element.is_quoted => element.text().push(character),
            '(' => {
                element.comment.extend((element.comments > 0).then_some(character));
                element.comments += 1;
            }
            ')' if element.comments > 0 => {
                element.comments -= 1;
                element.comment.extend((element.comments > 0).then_some(character));
            }
            _ if element.comments > 0 => element.comment.push(character),
            '<' if element.address.is_none() => element.address = Some(String::new()),
            '>' if element.address.is_some() && !element.is_closed => element.is_closed = true,
            ',' | ';' if element.address.is_none() || element.is_closed => {
                found.extend(element.mailbox(value, at, group.as_ref())?);
                group = group.filter(|_| character == ',');
                element = Element { start: at + 1, ..Element::default() };
            }
            // The name of a group; an address literal has an @ in front.
            ':' if element.address.is_none() && !element.front.contains('@') => {
                group = shown(element.front.trim());
                element = Element { start: at + 1, ..Element::default() };
            }
            _ => element.text().push(character),
        }
    }
    found.extend(element.mailbox(value, value.len(), group.as_ref())?);
    Ok(found)
}

/// The mailboxes of From, of which there are not too many.
pub(super) fn authors(value: &str) -> Result<Vec<Mailbox>, BadAddress> {
    let found = mailboxes(value)?;
    if found.len() > MAX_AUTHORS {
        return Err(BadAddress { fault: AddressFault::Many, text: sanitize_text(value, MAX_SHOWN) });
    }
    Ok(found)
}

/// The address of a field that has one at most; none is `<>` too.
pub(crate) fn one(value: &str) -> Result<Option<EmailAddress>, BadAddress> {
    if value == "<>" {
        return Ok(None);
    }
    let mut found = mailboxes(value)?;
    if found.len() > 1 {
        return Err(BadAddress { fault: AddressFault::Several, text: sanitize_text(value, MAX_SHOWN) });
    }
    Ok(found.pop().map(|mailbox| mailbox.address))
}

/// What stands between two commas.
#[derive(Default)]
struct Element {
    start: usize,
    /// The address, or the name in front of its brackets.
    front: String,
    /// What stands in brackets.
    address: Option<String>,
    /// The brackets are closed.
    is_closed: bool,
    behind: String,
    is_quoted: bool,
    /// How many are open.
    comments: u32,
    /// What stands in them.
    comment: String,
}

impl Element {
    /// Where the next character belongs.
    fn text(&mut self) -> &mut String {
        match &mut self.address {
            Some(_) if self.is_closed => &mut self.behind,
            Some(address) => address,
            None => &mut self.front,
        }
    }

    /// Nothing where nothing stands. `end` is where the element ends in the value.
    fn mailbox(&self, value: &str, end: usize, group: Option<&String>) -> Result<Option<Mailbox>, BadAddress> {
        let bad = |fault| {
            let text = sanitize_text(value[self.start..end].trim(), MAX_SHOWN);
            Err(BadAddress { fault, text })
        };
        let is_open = self.is_quoted || self.comments > 0 || (self.address.is_some() && !self.is_closed);
        if is_open || !self.behind.trim().is_empty() {
            return bad(AddressFault::Syntax);
        }
        let (name, text) = match &self.address {
            Some(address) => (shown(self.front.trim()), address.trim()),
            None if self.front.trim().is_empty() => return Ok(None),
            None => (None, self.front.trim()),
        };
        match read(text) {
            Ok(address) => {
                let name = name.or_else(|| shown_in_comment(self.comment.trim())).or_else(|| group.cloned());
                Ok(Some(Mailbox { address, name }))
            }
            Err(fault) => bad(fault),
        }
    }
}

/// A name as people see it: RFC 5322 section 3.2.4 quotes it, RFC 2047 encodes it.
fn shown(name: &str) -> Option<String> {
    let mut plain = String::with_capacity(name.len());
    let (mut is_quoted, mut characters) = (false, name.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => plain.extend(characters.next()),
            _ => plain.push(character),
        }
    }
    (!plain.is_empty()).then(|| decode_name(plain.as_bytes()))
}

/// The same in a comment, where quotation marks mean nothing.
fn shown_in_comment(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| decode_name(name.as_bytes()))
}

/// An address whose every octet can be read (RFC 6532 section 3.2 has UTF-8 alone): of one with
/// others nobody could say who it is.
fn read(text: &str) -> Result<EmailAddress, AddressFault> {
    match text.parse::<EmailAddress>() {
        Ok(address) if address.local().contains(char::REPLACEMENT_CHARACTER) => Err(AddressFault::UserName),
        Ok(address) => Ok(address),
        Err(error) => Err(fault(text, error)),
    }
}

fn fault(text: &str, error: AddressError) -> AddressFault {
    match text.rsplit_once('@') {
        None => AddressFault::NoDomain,
        Some((_, "")) => AddressFault::NoDomain,
        Some(("", _)) => AddressFault::NoUserName,
        Some(_) => match error {
            AddressError::LocalPart | AddressError::NoLocalPart => AddressFault::UserName,
            AddressError::LocalPartTooLong => AddressFault::LongUserName,
            AddressError::TooLong => AddressFault::Long,
            _ => AddressFault::Domain,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Vec<(String, Option<String>)> {
        let found = mailboxes(value).unwrap_or_else(|bad| panic!("{value}: {bad}"));
        found.into_iter().map(|mailbox| (mailbox.address.to_string(), mailbox.name)).collect()
    }

    #[test]
    fn every_mailbox_is_read_with_its_name() {
        for (value, expected) in [
            ("ann@example.com", &[("ann@example.com", None)][..]),
            ("Ann <ann@Example.COM>", &[("ann@example.com", Some("Ann"))]),
            ("\"Last, Ann <x@y>\" <ann@example.com>", &[("ann@example.com", Some("Last, Ann <x@y>"))]),
            ("a@b.c, \"B \\\" C\" <b@b.c>,, ", &[("a@b.c", None), ("b@b.c", Some("B \" C"))]),
            ("ann@example.com (Ann <x@y> (a\\)))", &[("ann@example.com", Some("Ann <x@y> (a))"))]),
            (
                " (The =?utf-8?q?=43EO?=) ann@example.com , bob@example.com",
                &[("ann@example.com", Some("The CEO")), ("bob@example.com", None)],
            ),
            ("Ann (The CEO) <ann@example.com>", &[("ann@example.com", Some("Ann"))]),
            (
                "The CEO: ann@example.com, Bob <bob@example.com>; <c@b.c>",
                &[("ann@example.com", Some("The CEO")), ("bob@example.com", Some("Bob")), ("c@b.c", None)],
            ),
            ("undisclosed:;", &[]),
            ("", &[]),
            ("\"a b\"@example.com", &[("\"a b\"@example.com", None)]),
            ("ann@[IPv6:2001:db8::1]", &[("ann@[IPv6:2001:db8::1]", None)]),
            (
                "=?utf-8?q?J=C3=BCrgen=2C?= =?utf-8?q?_X?= <j@b\u{fc}cher.example>",
                &[("j@xn--bcher-kva.example", Some("J\u{fc}rgen, X"))],
            ),
            ("<a@b.c>", &[("a@b.c", None)]),
            ("27\" Monitors <a@b.c>", &[("a@b.c", Some("27\" Monitors"))]),
            ("Bob :( <a@b.c>", &[("a@b.c", Some("Bob :("))]),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(address, name)| ((*address).to_owned(), name.map(str::to_owned))).collect();
            assert_eq!(read(value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_place() {
        for (value, text) in [
            ("<a b@c>", "Address contains illegal characters in user name: '<a b@c>'."),
            ("ok@b.c, Ann x..y@b.c", "Address contains illegal characters in user name: 'Ann x..y@b.c'."),
            ("Ann", "Missing final '@domain': 'Ann'."),
            ("MAILER-DAEMON (Mail System)", "Missing final '@domain': 'MAILER-DAEMON (Mail System)'."),
            ("Last, First <a@b.c>", "Missing final '@domain': 'Last'."),
            ("a@", "Missing final '@domain': 'a@'."),
            ("<>", "Missing final '@domain': '<>'."),
            ("Ann <@b.c>", "User name is missing: 'Ann <@b.c>'."),
            ("a@b_c!", "Address contains an illegal domain name: 'a@b_c!'."),
            ("a@[300.1.1.1]", "Address contains an illegal domain name: 'a@[300.1.1.1]'."),
            (
                "27\" Monitors <a@b.c>, x@y.z",
                "Address has quotes, brackets or comments that do not match: '27\" Monitors <a@b.c>, x@y.z'.",
            ),
            (
                "Ann <a@b.c> <x@y.z>",
                "Address has quotes, brackets or comments that do not match: 'Ann <a@b.c> <x@y.z>'.",
            ),
            ("Ann <a@b.c", "Address has quotes, brackets or comments that do not match: 'Ann <a@b.c'."),
            ("a@b.c (open", "Address has quotes, brackets or comments that do not match: 'a@b.c (open'."),
            ("a\u{7}b@c.d", "Address contains illegal characters in user name: 'a?b@c.d'."),
            ("jos\u{fffd}@c.d", "Address contains illegal characters in user name: 'jos\u{fffd}@c.d'."),
            ("a@jos\u{fffd}.d", "Address contains an illegal domain name: 'a@jos\u{fffd}.d'."),
        ] {
            assert_eq!(mailboxes(value).unwrap_err().to_string(), text, "{value}");
        }
        let long = format!("{}@b.c", "x".repeat(65));
        assert!(mailboxes(&long).unwrap_err().to_string().starts_with("User name is longer than 64 characters: 'xx"));
    }

    #[test]
    fn the_null_path_is_nobody() {
        assert_eq!(one("<>"), Ok(None));
        assert_eq!(one("<a@b.c>"), Ok(Some("a@b.c".parse().unwrap())));
        assert!(one("nobody").is_err());
        assert_eq!(one("a@b.c, d@e.f").unwrap_err().to_string(), "Field has more than one address: 'a@b.c, d@e.f'.");
    }

    #[test]
    fn authors_are_not_without_number() {
        let of = |count: usize| vec!["a@b.c"; count].join(",");
        assert_eq!(authors(&of(MAX_AUTHORS)).unwrap().len(), MAX_AUTHORS);
        let bad = authors(&of(MAX_AUTHORS + 1)).unwrap_err().to_string();
        assert!(bad.starts_with("Field has more than 50 addresses: 'a@b.c,a@b.c") && bad.len() < 200, "{bad}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_one_line(value in "\\PC*") {
            if let Err(bad) = mailboxes(&value) {
                prop_assert!(bad.to_string().len() < 512 && !bad.to_string().chars().any(char::is_control));
            }
        }
    }
}
