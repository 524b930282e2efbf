//! What a rule is.

use postrider_mail::{EnhancedStatus, SmtpReply, Stage};

use super::cause::Cause;
use super::words::Words;

/// One thing known about replies.
pub(super) struct Rule {
    pub(super) cause: Cause,
    pub(super) stages: Stages,
    /// Reply codes; empty means any.
    pub(super) codes: &'static [u16],
    /// Subject and detail of enhanced codes, whose class only repeats the reply
    /// code; empty means any or none.
    pub(super) enhanced: &'static [Detail],
    /// Words in lower case, `..` between parts that stand in this order; any of
    /// them; empty means whatever it says.
    pub(super) text: &'static [&'static str],
    /// The reply that the rule was made for.
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the rule, and a test holds it to it"))]
    pub(super) reply: &'static str,
}

/// The subject and the detail of an enhanced code (RFC 3463 section 2).
pub(super) type Detail = (u16, u16);

/// What the rules look at.
pub(super) struct Said {
    stage: Stage,
    code: u16,
    pub(super) enhanced: Option<Detail>,
    words: Words,
}

impl Said {
    pub(super) fn new(stage: Stage, reply: &SmtpReply) -> Self {
        let text = reply.text();
        // One whose class contradicts the reply code still says what it is about.
        let inner = || statuses(&text).min_by_key(|status| !is_of_class(*status, reply.code));
        let enhanced = reply.enhanced.or_else(inner).map(|status| (status.subject, status.detail));
        Self { stage, code: reply.code, enhanced, words: Words::new(&text) }
    }
}

impl Rule {
    pub(super) fn matches(&self, said: &Said) -> bool {
        self.stages.contain(said.stage)
            && (self.codes.is_empty() || self.codes.contains(&said.code))
            && (self.enhanced.is_empty() || said.enhanced.is_some_and(|code| self.enhanced.contains(&code)))
            && (self.text.is_empty() || self.text.iter().any(|pattern| said.words.contain(pattern)))
    }
}

/// The enhanced code of a reply that has none in front: one that stands further back,
/// and says the same of success and failure as the reply code.
pub(super) fn inner_status(code: u16, text: &str) -> Option<EnhancedStatus> {
    statuses(text).find(|status| is_of_class(*status, code))
}

fn is_of_class(status: EnhancedStatus, code: u16) -> bool {
    u16::from(status.class) == code / 100
}

/// Whatever is plainly an enhanced code of a failure: `#5.1.0 Address rejected`,
/// `no mailbox here by that name (#5.1.1)`, `mx1 5.1.1 user unknown`.
fn statuses(text: &str) -> impl Iterator<Item = EnhancedStatus> {
    let words = text.split([' ', '(', ')', '[', ']', '#', '<', '>', ';', ',', '-']);
    // Four numbers are an address, and no status when they are read as one.
    let found = words.filter_map(|word| word.trim_end_matches(['.', ':']).parse::<EnhancedStatus>().ok());
    // The subjects are those of RFC 3463 section 3.
    found.filter(|status| status.class != 2 && status.subject <= 7)
}

/// Where in a session a rule applies.
#[derive(Clone, Copy)]
pub(super) enum Stages {
    Any,
    /// RCPT and what follows: where a reply can be about the recipient.
    Recipient,
    /// DATA and its end: where a reply can be about what the message says.
    Content,
}

impl Stages {
    fn contain(self, stage: Stage) -> bool {
        match self {
            Self::Any => true,
            Self::Recipient => matches!(stage, Stage::RcptTo | Stage::Data | Stage::EndOfData),
            Self::Content => matches!(stage, Stage::Data | Stage::EndOfData),
        }
    }

    #[cfg(test)]
    pub(super) fn example(self) -> Stage {
        match self {
            Self::Any | Self::Recipient => Stage::RcptTo,
            Self::Content => Stage::EndOfData,
        }
    }
}

/// A rule about words.
pub(super) const fn words(cause: Cause, stages: Stages, text: &'static [&'static str], reply: &'static str) -> Rule {
    Rule { cause, stages, codes: &[], enhanced: &[], text, reply }
}

/// A rule about enhanced codes.
pub(super) const fn status(cause: Cause, stages: Stages, enhanced: &'static [Detail], reply: &'static str) -> Rule {
    Rule { cause, stages, codes: &[], enhanced, text: &[], reply }
}

/// A rule about words beside one of the enhanced codes.
pub(super) const fn both(
    cause: Cause,
    enhanced: &'static [Detail],
    text: &'static [&'static str],
    reply: &'static str,
) -> Rule {
    Rule { cause, stages: Stages::Any, codes: &[], enhanced, text, reply }
}

/// A rule about words beside one of the reply codes.
pub(super) const fn coded(
    cause: Cause,
    codes: &'static [u16],
    text: &'static [&'static str],
    reply: &'static str,
) -> Rule {
    Rule { cause, stages: Stages::Any, codes, enhanced: &[], text, reply }
}

#[cfg(test)]
mod tests {
    use postrider_mail::SmtpReply;
    use proptest::prelude::*;

    use super::*;

    fn found(code: u16, text: &str) -> Option<String> {
        inner_status(code, text).map(|status| status.to_string())
    }

    #[test]
    fn a_status_is_found_wherever_it_stands() {
        for (code, text, status) in [
            (550, "#5.1.0 Address rejected.", "5.1.0"),
            (550, "Requested action not taken (5.1.1)", "5.1.1"),
            (550, "sorry, no mailbox here by that name (#5.1.1 - chkuser)", "5.1.1"),
            (451, "cuda_nsu 4.4.3 Temporary server error", "4.4.3"),
            (530, "AUTH required 5.7.0.", "5.7.0"),
            (550, "first 4.7.0, in truth 5.7.1", "5.7.1"),
        ] {
            assert_eq!(found(code, text).as_deref(), Some(status), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for (code, text) in [
            (550, "blocked [5.6.7.8]"),
            (421, "deferred - 4.16.55.1; see"),
            (451, "try later [#4.16.1]"),
            (550, "version 6.1.2, 5.1.9999"),
            (450, "was 5.1.1 elsewhere"),
            (550, "was 4.4.7 elsewhere"),
            (250, "2.0.0 and 5.1.1"),
            (550, ""),
        ] {
            assert_eq!(found(code, text), None, "{text}");
        }
    }

    #[test]
    fn of_two_the_one_of_the_replys_class_counts() {
        let said = |code, text| Said::new(Stage::RcptTo, &SmtpReply::new(code, text)).enhanced;
        assert_eq!(said(550, "first 4.2.2, in truth 5.1.1"), Some((1, 1)));
        assert_eq!(said(550, "4.7.1 rejected"), Some((7, 1)));
        assert_eq!(said(550, "5.1.1 no (5.7.1)"), Some((1, 1)));
    }

    proptest! {
        #[test]
        fn a_status_further_back_is_of_the_replys_class(code in 200u16..600, text: String) {
            if let Some(status) = inner_status(code, &text) {
                prop_assert!(matches!(status.class, 4 | 5) && u16::from(status.class) == code / 100);
            }
        }
    }
}
