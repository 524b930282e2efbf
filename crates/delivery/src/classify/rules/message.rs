//! The message: its size, its attachments, what it says.

use super::super::cause::Cause;
use super::super::rule::{Rule, Stages, both, status, words};

/// Lists of links and domains, not of addresses.
pub(super) const LISTED: &[Rule] = &[words(
    Cause::Content,
    Stages::Content,
    &[
        "dbl.spamhaus",
        "spamhaus dbl",
        "spamhaus.org/dbl",
        "query/dbl",
        "surbl.org",
        "uribl.com",
        "blocked url",
        "spam url",
        " url..blacklist",
        " url..blocklist",
        " url..is listed on",
    ],
    "554 5.7.1 Message contains a URL listed by dbl.spamhaus.org",
)];

/// Attachments and what is in them.
pub(super) const ATTACHMENT: &[Rule] = &[words(
    Cause::Attachment,
    Stages::Content,
    &[
        "attachment",
        " virus",
        "malware",
        "executable",
        "file type",
        "filetype",
        "prohibited file",
        "file extension",
        "infected",
        "blocked because its content presents a potential security",
    ],
    "552 5.7.0 This message was blocked because its content presents a potential security issue. To review our \
     message content and attachment content guidelines, go to https://support.google.com/mail/?p=BlockedMessage",
)];

/// What providers write where nobody else does.
pub(super) const LABELS: &[Rule] = &[
    words(
        Cause::Content,
        Stages::Any,
        &[" dt:spm", "nature of the content", "likely unsolicited mail"],
        "451 DT:SPM 163 smtp1,please try again",
    ),
    words(
        Cause::Content,
        Stages::Content,
        &[
            "[ph01]",
            "message not allowed - ",
            "not accepted for policy reasons",
            "ofr_506",
            "mailpolicy violation",
            "spam or virus",
            "duplicate header",
        ],
        "554 Message not allowed - [PH01] Email not accepted for policy reasons. Please visit \
         https://postmaster.yahooinc.com/error-codes",
    ),
];

/// Its size (RFC 1870).
pub(super) const TOO_LARGE: &[Rule] = &[words(
    Cause::TooLarge,
    Stages::Any,
    &[
        "message size exceeds",
        "message size limit",
        "maximum message size",
        "maximum email size",
        "message too large",
        "message is too large",
        "message too big",
        "message length exceeds",
        "message is larger than",
        "exceeds size limit",
        "exceeds fixed maximum",
        "exceeds..maximum..size",
        "exceeded..message size limit",
        "taille limite du message",
    ],
    "552 Message size exceeds fixed maximum message size",
)];

/// Enhanced codes.
pub(super) const CODES: &[Rule] = &[
    status(Cause::TooLarge, Stages::Any, &[(2, 3), (3, 4)], "552 5.3.4 Your message exceeded Google's size limits."),
    both(Cause::Content, &[(2, 1)], &["content filter"], "550 5.2.1 Content Filter agent quarantined this message"),
    status(
        Cause::Content,
        Stages::Any,
        &[(7, 512)],
        "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant",
    ),
];

/// Words.
pub(super) const WORDS: &[Rule] = &[
    words(
        Cause::TooLarge,
        Stages::Any,
        &["size limit exceeded", "exceeded..size limit", "too big", "larger than"],
        "550 Mail larger than 10485760 bytes is refused",
    ),
    words(
        Cause::Content,
        Stages::Content,
        &[
            "spam",
            "unsolicited",
            "junk",
            "content",
            "phish",
            "suspicious",
            "suspected",
            "spoofed",
            "bulk mail",
            "message rejected",
            "message denied",
            "message filtered",
            "message must",
            "rejected as",
            "policy",
            "policies",
            "blocked",
            "high score",
            "scored too",
            "mail score",
            "missing a valid",
            "header",
            "mime error",
            "mime/reject",
            "mail data refused",
            " mail..is rejected",
            "rfc 5322",
            "rfc5322",
            "rfc 2822",
            "rfc compliant",
            "single address",
            "bare lf",
            "8bit",
            "line too long",
            "malformed",
        ],
        "550 High probability of spam",
    ),
    both(
        Cause::Content,
        &[(7, 0), (7, 1)],
        &["spam", "unsolicited mail", "unsolicited email", "content"],
        "421 4.7.0 This message is suspicious, likely spam; to protect our users it has been deferred",
    ),
];
