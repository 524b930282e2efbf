//! What a rule is.

use postrider_mail::{SmtpReply, Stage};

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
        let enhanced = reply.enhanced.map(|status| (status.subject, status.detail)).or_else(|| inner_status(&text));
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

/// An enhanced code that stands further back: `#5.1.0 Address rejected`,
/// `no mailbox here by that name (#5.1.1)`, `mx1 5.1.1 user unknown`.
fn inner_status(text: &str) -> Option<Detail> {
    text.split([' ', '(', ')', '[', ']', '#', '<', '>', ';', ',', '-']).find_map(|word| {
        let mut numbers = word.trim_end_matches(['.', ':']).split('.');
        let mut number = || numbers.next().filter(|digits| digits.len() <= 3)?.parse::<u16>().ok();
        let (class, subject, detail) = (number()?, number()?, number()?);
        // Four numbers are an address; the subjects are those of RFC 3463 section 3.
        let is_status = numbers.next().is_none() && matches!(class, 4 | 5) && subject <= 7;
        is_status.then_some((subject, detail))
    })
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
    use super::inner_status;

    #[test]
    fn a_status_is_found_wherever_it_stands() {
        assert_eq!(inner_status("#5.1.0 Address rejected."), Some((1, 0)));
        assert_eq!(inner_status("sorry, no mailbox here by that name (#5.1.1 - chkuser)"), Some((1, 1)));
        assert_eq!(inner_status("cuda_nsu 4.4.3 Temporary server error"), Some((4, 3)));
        assert_eq!(inner_status("AUTH required 5.7.0."), Some((7, 0)));
        assert_eq!(inner_status("blocked [5.6.7.8]"), None);
        assert_eq!(inner_status("deferred - 4.16.55.1; see"), None);
        assert_eq!(inner_status("try later [#4.16.1]"), None);
        assert_eq!(inner_status("version 6.1.2, 5.1.9999"), None);
        assert_eq!(inner_status(""), None);
    }
}
