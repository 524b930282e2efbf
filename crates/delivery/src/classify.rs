//! What a reply of a remote host means for a recipient.
//!
//! The knowledge is data: a table of rules, each beside a reply as a real
//! server sends it. A rule names a *cause*; what a cause means follows from the
//! severity of the reply and from the stage it came at.

mod rule;
mod rules;
#[cfg(test)]
mod samples;

use postrider_mail::{BounceKind, DelayType, Severity, SmtpReply, Stage};

use rule::Rule;
use rules::RULES;

/// What a reply means for the recipients that it is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The remote host has taken the message.
    Delivered,
    /// Try again later.
    Deferred(DelayType),
    /// It will not be delivered.
    Bounced(BounceKind),
}

/// A verdict with what the operator should know of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Classification {
    /// What it means for the recipient.
    pub verdict: Verdict,
    /// True when the remote host speaks of the relay (its address, its name,
    /// its signatures), not of the recipient: somebody should look.
    pub about_us: bool,
}

/// Says what `reply` at `stage` means.
///
/// A 2yz delivers at the end of the data and nowhere else. A 4yz always defers.
/// A 5yz ends a recipient only where it can be about the
/// recipient or the message: at RCPT, DATA and the end of the data, and for the
/// message's size at MAIL. Anywhere else it is about the relay and defers.
pub fn classify(stage: Stage, reply: &SmtpReply) -> Classification {
    let permanent = match reply.severity() {
        Severity::Positive if stage == Stage::EndOfData => return unremarkable(Verdict::Delivered),
        // The host did not hear what was said to it.
        Severity::Positive => return unremarkable(Verdict::Deferred(DelayType::RecipientServerError)),
        Severity::Permanent => true,
        Severity::Intermediate | Severity::Transient => false,
    };
    let cause = cause(stage, reply);
    let ends = match stage {
        // RFC 5321 section 4.5.3.1.10: a 552 for too many recipients is
        // treated as a 452.
        Stage::RcptTo => cause != Cause::TooManyRecipients,
        Stage::Data | Stage::EndOfData => true,
        Stage::MailFrom => cause == Cause::TooLarge,
        _ => false,
    };
    if permanent && ends {
        Classification { verdict: Verdict::Bounced(cause.bounce_kind()), about_us: cause.is_about_us() }
    } else {
        let refused_us = permanent && cause != Cause::TooManyRecipients;
        Classification {
            verdict: Verdict::Deferred(cause.delay_type(stage)),
            about_us: cause.is_about_us() || refused_us,
        }
    }
}

/// Whether a reply to RCPT says that there are enough recipients in this
/// transaction, and nothing about the one that it answers.
pub(crate) fn is_about_their_number(reply: &SmtpReply) -> bool {
    cause(Stage::RcptTo, reply) == Cause::TooManyRecipients
}

fn unremarkable(verdict: Verdict) -> Classification {
    Classification { verdict, about_us: false }
}

/// Why a remote host did not take a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    /// The message has an attachment that the host does not take.
    Attachment,
    /// The message is not signed or authorised as the host wants it.
    Authentication,
    /// The host does not like what the message says.
    Content,
    /// The host wants to see the message again later (RFC 6647).
    Greylisted,
    /// The mailbox exists, or may exist, and takes no mail.
    MailboxClosed,
    /// The mailbox has no room.
    MailboxFull,
    /// The host cannot reach what is behind it.
    Network,
    /// The host names the mailbox as unknown.
    NoMailbox,
    /// Nothing known.
    Other,
    /// The host did not expect what the relay said.
    Protocol,
    /// The host does not take mail for the domain.
    Relaying,
    /// The host does not take mail from this sender.
    Sender,
    /// The host is out of order.
    Server,
    /// The host does not take mail from this address.
    SourceBlocked,
    /// The host does not like the name of this address.
    SourceName,
    /// The host takes no more mail from this address for now.
    Throttled,
    /// The message is too large.
    TooLarge,
    /// More recipients than the host takes in one transaction.
    TooManyRecipients,
}

impl Cause {
    fn delay_type(self, stage: Stage) -> DelayType {
        match self {
            Self::Content => DelayType::SpamDetected,
            Self::MailboxFull => DelayType::MailboxFull,
            Self::Network => DelayType::TransientCommunicationFailure,
            Self::Server => DelayType::RecipientServerError,
            Self::SourceBlocked | Self::Throttled => DelayType::IpFailure,
            Self::SourceName => DelayType::ByoipHostNameLookupUnavailable,
            // A password that is refused is the relay's own trouble.
            _ if stage == Stage::Auth => DelayType::InternalFailure,
            _ => DelayType::General,
        }
    }

    fn bounce_kind(self) -> BounceKind {
        match self {
            Self::Attachment => BounceKind::TransientAttachmentRejected,
            Self::Content => BounceKind::TransientContentRejected,
            Self::MailboxFull => BounceKind::TransientMailboxFull,
            Self::NoMailbox => BounceKind::PermanentNoEmail,
            Self::TooLarge => BounceKind::TransientMessageTooLarge,
            Self::Authentication
            | Self::Greylisted
            | Self::Protocol
            | Self::Sender
            | Self::SourceBlocked
            | Self::SourceName
            | Self::Throttled
            | Self::TooManyRecipients => BounceKind::TransientGeneral,
            Self::MailboxClosed | Self::Network | Self::Other | Self::Relaying | Self::Server => {
                BounceKind::PermanentGeneral
            }
        }
    }

    fn is_about_us(self) -> bool {
        matches!(self, Self::Authentication | Self::Protocol | Self::Sender | Self::SourceBlocked | Self::SourceName)
    }
}

fn cause(stage: Stage, reply: &SmtpReply) -> Cause {
    find_rule(stage, reply).map_or_else(|| fallback(stage, reply), |rule| rule.cause)
}

fn find_rule(stage: Stage, reply: &SmtpReply) -> Option<&'static Rule> {
    // A space in front, so that a pattern can ask for the beginning of a word.
    let text = format!(" {}", reply.text()).to_ascii_lowercase();
    RULES.iter().find(|rule| rule.matches(stage, reply, &text))
}

/// What the subject of the enhanced code (RFC 3463 section 3) says when no rule
/// knows more.
fn fallback(stage: Stage, reply: &SmtpReply) -> Cause {
    let subject = reply.enhanced.map_or(0, |enhanced| enhanced.subject);
    match (subject, stage, reply.code) {
        (3, ..) => Cause::Server,
        (4, ..) => Cause::Network,
        (5, ..) => Cause::Protocol,
        (6, ..) => Cause::Content,
        (7, Stage::EndOfData, _) => Cause::Content,
        (0, _, 421 | 451) => Cause::Server,
        _ => Cause::Other,
    }
}

/// True when the parts of `pattern`, separated by `..`, stand in `text` in this
/// order.
pub(crate) fn text_matches(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    pattern.split("..").all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::samples::{SAMPLES, reply};
    use super::*;

    #[test]
    fn each_rule_is_the_first_to_match_its_own_reply() {
        let mut wrong = Vec::new();
        for rule in RULES {
            let stage = rule.stages.example();
            let reply = reply(rule.reply);
            let found = find_rule(stage, &reply).map(|rule| rule.reply);
            if found != Some(rule.reply) {
                wrong.push(format!("{stage:?} {} is taken by {found:?}", rule.reply));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn replies_of_real_servers() {
        assert!(SAMPLES.len() >= 60);
        let mut wrong = Vec::new();
        for (stage, text, expected) in SAMPLES {
            let found = classify(*stage, &reply(text)).verdict;
            if found != *expected {
                wrong.push(format!("{stage:?} {text}: {found:?}, not {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_5yz_before_rcpt_never_ends_a_recipient() {
        for stage in [Stage::Banner, Stage::Ehlo, Stage::StartTls, Stage::Auth, Stage::MailFrom] {
            for text in ["554 5.7.1 no", "550 5.1.1 user unknown", "500 what"] {
                let found = classify(stage, &reply(text));
                assert!(matches!(found.verdict, Verdict::Deferred(_)), "{stage:?} {text} {found:?}");
                assert!(found.about_us, "{stage:?} {text}");
            }
        }
    }

    #[test]
    fn a_4yz_never_ends_a_recipient() {
        for (stage, text, _) in SAMPLES {
            let soft = format!("4{}", &text[1..]);
            if text.starts_with('5') {
                let found = classify(*stage, &reply(&soft)).verdict;
                assert!(matches!(found, Verdict::Deferred(_)), "{stage:?} {soft}");
            }
        }
    }

    #[test]
    fn a_2yz_before_the_end_of_the_data_delivers_nothing() {
        for stage in [Stage::Banner, Stage::MailFrom, Stage::RcptTo, Stage::Data] {
            let found = classify(stage, &reply("250 2.0.0 Ok"));
            assert_eq!(found, unremarkable(Verdict::Deferred(DelayType::RecipientServerError)), "{stage:?}");
        }
    }

    #[test]
    fn only_a_reply_that_names_the_mailbox_as_unknown_is_no_email() {
        let at_rcpt = |text: &str| classify(Stage::RcptTo, &reply(text)).verdict;
        let no_email = Verdict::Bounced(BounceKind::PermanentNoEmail);
        assert_eq!(at_rcpt("550 5.1.1 user unknown"), no_email);
        assert_eq!(at_rcpt("550 no such user"), no_email);
        for text in ["550 rejected", "550 5.7.1 rejected", "550 mailbox unavailable", "550 5.2.1 disabled"] {
            assert_ne!(at_rcpt(text), no_email, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_host_says_a_4yz_defers_and_only_a_2yz_at_the_end_delivers(code in 200u16..600, text: String) {
            let reply = SmtpReply::new(code, &text);
            for stage in [Stage::Banner, Stage::MailFrom, Stage::RcptTo, Stage::Data, Stage::EndOfData] {
                let verdict = classify(stage, &reply).verdict;
                match code / 100 {
                    2 if stage == Stage::EndOfData => prop_assert_eq!(verdict, Verdict::Delivered),
                    2..=4 => prop_assert!(matches!(verdict, Verdict::Deferred(_))),
                    _ => prop_assert!(verdict != Verdict::Delivered),
                }
            }
        }
    }

    #[test]
    fn patterns_match_their_parts_in_order() {
        assert!(text_matches("a..b", "xaxbx"));
        assert!(!text_matches("b..a", "xaxbx"));
        assert!(!text_matches("a..a", "xax"));
    }
}
