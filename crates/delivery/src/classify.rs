//! What a reply of a remote host means for a recipient.
//!
//! The knowledge is data: a table of rules, each beside a reply as a real
//! server sends it. A rule names a *cause*; what a cause means follows from the
//! severity of the reply and from the stage it came at.

mod cause;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod hostile;
mod report;
mod rule;
mod rules;
mod words;

use postrider_mail::{BounceKind, DelayType, EnhancedStatus, Severity, SmtpReply, Stage};

use cause::Cause;
use rule::{Rule, Said};
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

/// Says why a message failed that a host had taken, by the report of that host: the status code
/// and the diagnostic text, without the type in front. Whoever reports a failure has given up,
/// also for what may pass: that is never `Permanent`. `Undetermined` where neither says anything.
pub fn classify_report(status: Option<EnhancedStatus>, diagnostic: &str) -> BounceKind {
    let (stage, code, text) = report::heard(diagnostic);
    let inner = || rule::inner_status(500, text).or_else(|| rule::inner_status(400, text));
    let class = code.map(|code| code / 100).or_else(|| Some(u16::from(status.or_else(inner)?.class)));
    let told = match status {
        // What the diagnostic itself says is more than "other or undefined".
        Some(status) if status.subject != 0 && inner().is_none() => format!("{status} {text}"),
        _ => text.to_owned(),
    };
    let reply = SmtpReply::new(code.unwrap_or(550), &told);
    let said = Said::new(stage, &reply);
    let cause = match find_rule(&said) {
        Some(rule) => rule.cause,
        None if class.is_none() => return BounceKind::Undetermined,
        None => fallback(stage, reply.code, said.enhanced),
    };
    let is_soft = class == Some(4) || status.is_some_and(|status| status.class == 4);
    match cause.bounce_kind() {
        kind if is_soft && kind.is_hard() => BounceKind::TransientGeneral,
        kind => kind,
    }
}

/// The enhanced code of a reply: in front, where it belongs (RFC 2034 section 4), or
/// further back, where some hosts have it.
pub(crate) fn status_of(reply: &SmtpReply) -> Option<EnhancedStatus> {
    reply.enhanced.or_else(|| rule::inner_status(reply.code, &reply.text()))
}

/// Whether a reply to RCPT says that there are enough recipients in this
/// transaction, and nothing about the one that it answers.
pub(crate) fn is_about_their_number(reply: &SmtpReply) -> bool {
    cause(Stage::RcptTo, reply) == Cause::TooManyRecipients
}

fn unremarkable(verdict: Verdict) -> Classification {
    Classification { verdict, about_us: false }
}

fn cause(stage: Stage, reply: &SmtpReply) -> Cause {
    let said = Said::new(stage, reply);
    find_rule(&said).map_or_else(|| fallback(stage, reply.code, said.enhanced), |rule| rule.cause)
}

fn find_rule(said: &Said) -> Option<&'static Rule> {
    RULES.iter().copied().flatten().find(|rule| rule.matches(said))
}

/// What the reply code and the subject of the enhanced code (RFC 3463 section 3)
/// say when no rule knows more.
fn fallback(stage: Stage, code: u16, enhanced: Option<(u16, u16)>) -> Cause {
    let subject = enhanced.map_or(0, |(subject, _)| subject);
    match (subject, stage, code) {
        (3, ..) => Cause::Server,
        (4, ..) => Cause::Network,
        (5, ..) => Cause::Protocol,
        (6, ..) => Cause::Content,
        (7, Stage::Data | Stage::EndOfData, 500..) => Cause::Content,
        (7, _, 500..) => Cause::Policy,
        // RFC 1870 section 6, RFC 5321 section 4.2.3
        (0, Stage::MailFrom | Stage::EndOfData, 552) => Cause::TooLarge,
        (0, Stage::RcptTo, 552) => Cause::MailboxFull,
        (0, _, 421 | 451 | 452) => Cause::Server,
        _ => Cause::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::corpus::{held, known, reply};
    use super::*;

    fn rules() -> impl Iterator<Item = &'static Rule> {
        RULES.iter().copied().flatten()
    }

    #[test]
    fn each_rule_is_the_first_to_match_its_own_reply() {
        let mut wrong = Vec::new();
        for rule in rules() {
            let stage = rule.stages.example();
            let said = Said::new(stage, &reply(rule.reply));
            let found = find_rule(&said).map(|rule| rule.reply);
            if found != Some(rule.reply) {
                wrong.push(format!("{stage:?} {} is taken by {found:?}", rule.reply));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn patterns_are_in_lower_case_and_say_something() {
        for pattern in rules().flat_map(|rule| rule.text) {
            assert_eq!(*pattern, pattern.to_ascii_lowercase());
            assert!(pattern.len() >= 4 && pattern.split("..").all(|part| !part.is_empty()), "{pattern}");
        }
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
        for sample in known().iter().chain(&held()).filter(|sample| sample.text.starts_with('5')) {
            let soft = format!("4{}", &sample.text[1..]);
            let found = classify(sample.stage, &reply(&soft)).verdict;
            assert!(matches!(found, Verdict::Deferred(_)), "{:?} {soft}", sample.stage);
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
}
