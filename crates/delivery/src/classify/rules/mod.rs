//! The rules, first match wins, each beside a reply as it came over the wire.
//!
//! The order is: labels of providers and words that are beyond doubt whatever
//! code stands before them, then enhanced codes, then words that say less. Add a
//! rule, or words to a rule, with the reply that it was made for, and the reply
//! to the file `replies/known.tsv`.

mod host;
mod mailbox;
mod message;
mod sender;
mod source;

use super::rule::Rule;

pub(super) const RULES: &[&[Rule]] = &[
    // Beyond doubt.
    mailbox::BUSY,
    message::LISTED,
    sender::LABELS,
    source::NAME,
    source::GREYLISTED,
    source::LABELS,
    source::LISTED,
    host::LABELS,
    mailbox::SELECTIVE,
    message::LABELS,
    message::ATTACHMENT,
    message::TOO_LARGE,
    // Codes, and words beside them.
    sender::CODES,
    source::CODES,
    message::CODES,
    mailbox::CODES,
    host::CODES,
    // Words, the more telling ones first.
    sender::WORDS,
    mailbox::WORDS,
    source::WORDS,
    host::RELAYING,
    message::WORDS,
    host::WORDS,
];
