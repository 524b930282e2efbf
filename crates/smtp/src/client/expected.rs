//! Replies that are waited for.

use postrider_mail::{Severity, SmtpReply, Stage};

/// What a reply that is outstanding will answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    Banner,
    Ehlo,
    Helo,
    StartTls,
    /// So many lines of an AUTH exchange have been answered.
    AuthPlain,
    AuthLogin(u8),
    Mail,
    Rcpt(usize),
    Data,
    /// The end of the content, for all recipients.
    End,
    /// The end of the content, for one recipient (RFC 2033 section 4.2).
    EndOf(usize),
    /// The end of an empty message that no recipient was accepted for.
    LoneDot,
    Reset,
    Quit,
}

impl Expected {
    /// Where the conversation is while this is waited for.
    pub(super) fn stage(self) -> Stage {
        match self {
            Expected::Banner => Stage::Banner,
            Expected::Ehlo | Expected::Helo => Stage::Ehlo,
            Expected::StartTls => Stage::StartTls,
            Expected::AuthPlain | Expected::AuthLogin(_) => Stage::Auth,
            Expected::Mail | Expected::Reset | Expected::Quit => Stage::MailFrom,
            Expected::Rcpt(_) => Stage::RcptTo,
            // What a lone dot ends is nobody's message.
            Expected::Data | Expected::LoneDot => Stage::Data,
            Expected::End | Expected::EndOf(_) => Stage::EndOfData,
        }
    }

    /// Whether a reply of this kind can answer it (RFC 5321 section 4.2.1). In
    /// particular nothing is delivered by a positive reply to DATA.
    pub(super) fn is_possible(self, reply: &SmtpReply) -> bool {
        match (reply.severity(), self) {
            (Severity::Positive, expected) => !matches!(expected, Expected::Data),
            (Severity::Intermediate, Expected::Data | Expected::AuthPlain | Expected::AuthLogin(_)) => true,
            (Severity::Intermediate, _) => false,
            (Severity::Transient | Severity::Permanent, _) => true,
        }
    }
}
