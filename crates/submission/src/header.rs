//! The header work: one pass over a message's fields, which understands, checks, takes
//! off and replaces. The body is never touched.

mod addresses;
mod fields;

use std::borrow::Cow;

use postrider_mail::{EmailAddress, Field, HeaderBlock, sanitize_text};
use postrider_spool::OriginalHeaders;

use crate::mime::PartHeader;
use crate::{Preserve, Refusal};

pub use addresses::BadAddress;
pub(crate) use addresses::{Mailbox, mailboxes};
pub use fields::HeaderRules;

/// Most bytes of the client's header that events can show.
const MAX_CAPTURED: usize = 10_240;

/// Most message tags of a message, as in SES.
const MAX_TAGS: usize = 50;

/// Longest name or value of a message tag, as in SES.
const MAX_TAG: usize = 256;

/// Longest name of a configuration set, as in SES.
const MAX_SET_NAME: usize = 64;

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Stays, any number of times.
    Other,
    /// Stays, and may be there once.
    Once,
    /// The client's date, there once.
    Date,
    /// The client's name for the message, there once.
    MessageId,
    /// A signature that our changes must not break.
    DkimSignature,
    /// One for each host that the message has been through.
    Received,
    /// Stays, may be there once, and is understood.
    From,
    /// Stays, may be there once, and is understood.
    Sender,
    /// Stays, may be there once, and its addresses are checked.
    ReplyTo,
    /// Says what the body is: stays, may be there once, and is understood.
    Content,
    /// Taken off and understood.
    ReturnPath,
    /// Taken off and understood.
    SourceArn,
    /// Taken off and understood.
    FromArn,
    /// Taken off and understood.
    ReturnPathArn,
    /// Taken off.
    Removed,
    /// Taken off and understood.
    ConfigurationSet,
    /// Taken off and understood.
    MessageTags,
    /// Stays and is understood.
    TlsRequired,
}

/// Prefix of the fields that speak to the relay and to nobody else.
const COMMAND_PREFIX: &[u8] = b"X-SES-";

/// The values that go into the new header, and the rules.
pub(crate) struct Stamp<'a> {
    /// For `Date`.
    pub(crate) date: &'a str,
    /// For `Message-ID`, without angle brackets.
    pub(crate) message_id: &'a str,
    pub(crate) preserve: Preserve,
    pub(crate) max_received: u32,
    pub(crate) rules: HeaderRules,
}

/// Whom a header names as those who send the message, and the identities of other accounts
/// that it is to be sent from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Senders {
    /// Every address of the From field, with its name, in its order; the first is the author.
    pub(crate) from: Vec<Mailbox>,
    pub(crate) sender: Option<EmailAddress>,
    /// Of the field, which SES lets a client write; not of the envelope.
    pub(crate) return_path: Option<EmailAddress>,
    /// `X-SES-SOURCE-ARN` as it was given: the first of them counts, as in SES.
    pub(crate) source_arn: Option<String>,
    /// `X-SES-FROM-ARN`, as it was given.
    pub(crate) from_arn: Option<String>,
    /// `X-SES-RETURN-PATH-ARN`, as it was given.
    pub(crate) return_path_arn: Option<String>,
}

/// What the header work found out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Understood {
    /// Where the body begins in the input.
    pub(crate) body_offset: usize,
    pub(crate) senders: Senders,
    pub(crate) configuration_set: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) original: OriginalHeaders,
    /// `TLS-Required: No`.
    pub(crate) tls_optional: bool,
    /// What the body is.
    pub(crate) content: PartHeader,
}

/// Appends the new header of `message`, with the blank line, to `out`.
///
/// # Errors
/// The refusals that a header can earn; `out` may have been appended to then.
pub(crate) fn rewrite(message: &[u8], stamp: &Stamp<'_>, out: &mut Vec<u8>) -> Result<Understood, Refusal> {
    let block = HeaderBlock::parse(message)?;
    let mut survey = Survey::default();
    let kinds: Vec<Kind> = block.fields().map(|field| survey.look_at(field, stamp)).collect::<Result<_, _>>()?;

    if stamp.rules == HeaderRules::Ses && survey.understood.senders.from.is_empty() {
        return Err(Refusal::MissingHeader("From"));
    }
    let replace_date = stamp.replaces(survey.date_signed);
    let replace_id = stamp.replaces(survey.message_id_signed);
    out.reserve(block.len() + 256);
    for (field, kind) in block.fields().zip(kinds) {
        match kind {
            kind if kind.is_taken_off() => {}
            Kind::Date if replace_date => push_field(out, "Date: ", stamp.date, ""),
            Kind::MessageId if replace_id => push_field(out, "Message-ID: <", stamp.message_id, ">"),
            _ => out.extend_from_slice(field.raw()),
        }
    }
    // A message of a header alone may end without a line end.
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    if !survey.has_date && !survey.date_signed {
        push_field(out, "Date: ", stamp.date, "");
    }
    if !survey.has_message_id && !survey.message_id_signed {
        push_field(out, "Message-ID: <", stamp.message_id, ">");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Understood { body_offset: block.body_offset(), ..survey.understood })
}

impl Kind {
    fn is_taken_off(self) -> bool {
        use Kind::{ConfigurationSet, FromArn, MessageTags, Removed, ReturnPath, ReturnPathArn, SourceArn};
        matches!(self, Removed | ReturnPath | ConfigurationSet | MessageTags | SourceArn | FromArn | ReturnPathArn)
    }
}

impl Stamp<'_> {
    fn replaces(&self, signed: bool) -> bool {
        match self.preserve {
            Preserve::Auto => !signed,
            Preserve::Always => false,
            Preserve::Never => true,
        }
    }
}

/// What has been seen of a header so far.
#[derive(Default)]
struct Survey {
    /// A bit for each field that has a meaning.
    seen: u128,
    received: u32,
    captured: usize,
    has_date: bool,
    has_message_id: bool,
    /// Covered by a signature of the client that must not break.
    date_signed: bool,
    message_id_signed: bool,
    understood: Understood,
}

impl Survey {
    fn look_at(&mut self, field: &Field<'_>, stamp: &Stamp<'_>) -> Result<Kind, Refusal> {
        let value = field.value();
        let (kind, repeated) = self.classify(field.name(), stamp.rules)?;
        let senders = &mut self.understood.senders;
        match kind {
            Kind::Received => {
                self.received += 1;
                // RFC 5321 section 6.3
                if self.received > stamp.max_received {
                    return Err(Refusal::TooManyHops);
                }
            }
            Kind::DkimSignature if stamp.preserve == Preserve::Auto => {
                self.date_signed |= signs(&value, "date");
                self.message_id_signed |= signs(&value, "message-id");
            }
            Kind::From => senders.from = addresses::authors(&value)?,
            Kind::Sender => senders.sender = addresses::one(&value)?,
            Kind::ReturnPath if !repeated => senders.return_path = addresses::one(&value)?,
            Kind::ReplyTo => drop(mailboxes(&value)?),
            Kind::Content => self.understood.content.read(field.name(), field.raw_value()),
            Kind::SourceArn if !repeated => senders.source_arn = Some(value.to_string()),
            Kind::FromArn if !repeated => senders.from_arn = Some(value.to_string()),
            Kind::ReturnPathArn if !repeated => senders.return_path_arn = Some(value.to_string()),
            Kind::Date => self.has_date = true,
            Kind::MessageId => self.has_message_id = true,
            // The first instance counts, as in SES.
            Kind::ConfigurationSet if !repeated => {
                self.understood.configuration_set = set_name(&value);
            }
            // RFC 8689 section 3: one field with one value; anything else asks for nothing.
            Kind::TlsRequired => {
                self.understood.tls_optional = !repeated && value.eq_ignore_ascii_case("no");
            }
            Kind::MessageTags if !repeated => self.understood.tags = tags(&value),
            _ => {}
        }
        self.capture(kind, field, value);
        Ok(kind)
    }

    /// The kind of a field, and whether one of its name was there before.
    fn classify(&mut self, name: &[u8], rules: HeaderRules) -> Result<(Kind, bool), Refusal> {
        let fields = rules.fields();
        let Some(index) = fields.iter().position(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)) else {
            let prefix = name.get(..COMMAND_PREFIX.len());
            let command = prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(COMMAND_PREFIX));
            return Ok((if command { Kind::Removed } else { Kind::Other }, false));
        };
        let (known, kind) = fields[index];
        let repeated = self.seen & (1 << index) != 0;
        self.seen |= 1 << index;
        if repeated && rules.has_once(kind) {
            return Err(Refusal::DuplicateHeader(known));
        }
        Ok((kind, repeated))
    }

    /// Remembers the field as the client sent it, as long as whole fields fit. From, by
    /// which the return path is chosen later, takes the room of those before it.
    fn capture(&mut self, kind: Kind, field: &Field<'_>, value: Cow<'_, str>) {
        let original = &mut self.understood.original;
        let len = captured_len(field.name_str(), &value);
        if original.truncated || self.captured + len > MAX_CAPTURED {
            original.truncated = true;
            if kind != Kind::From || len > MAX_CAPTURED {
                return;
            }
            while self.captured + len > MAX_CAPTURED
                && let Some((name, value)) = original.fields.pop()
            {
                self.captured -= captured_len(&name, &value);
            }
        }
        self.captured += len;
        original.fields.push((field.name_str().to_owned(), value.into_owned()));
    }
}

fn captured_len(name: &str, value: &str) -> usize {
    name.len() + value.len() + ": \r\n".len()
}

fn push_field(out: &mut Vec<u8>, front: &str, value: &str, back: &str) {
    for part in [front, value, back, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Whether a signature covers the header field `name`, by its `h=` tag (RFC 6376
/// section 3.5). Naming an absent field covers its absence.
fn signs(signature: &str, name: &str) -> bool {
    let tag = |part: &&str| part.trim_start().strip_prefix('h').is_some_and(|rest| rest.trim_start().starts_with('='));
    let Some((_, list)) = signature.split(';').find(tag).and_then(|part| part.split_once('=')) else {
        return false;
    };
    list.split(':').any(|signed| signed.trim().eq_ignore_ascii_case(name))
}

/// A name that no set can have is a set that does not exist; no name is no set.
fn set_name(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| sanitize_text(value, MAX_SET_NAME + 1))
}

/// `name=value, name=value`; a pair with other characters than SES allows is no tag,
/// but does not harm the message.
fn tags(value: &str) -> Vec<(String, String)> {
    let word = |text: &str| (1..=MAX_TAG).contains(&text.len()) && text.bytes().all(is_word);
    value
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
        .filter(|(name, value)| word(name) && word(value))
        .take(MAX_TAGS)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
