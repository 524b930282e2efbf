//! What a rule is.

use postrider_mail::{SmtpReply, Stage};

use super::{Cause, text_matches};

/// One thing known about replies.
pub(super) struct Rule {
    pub(super) cause: Cause,
    pub(super) stages: Stages,
    /// Reply codes; empty means any.
    pub(super) codes: &'static [u16],
    /// Subject and detail of enhanced codes, whose class only repeats the reply
    /// code; empty means any or none.
    pub(super) enhanced: &'static [(u16, u16)],
    /// Words in lower case, `..` between parts that stand in this order; any of
    /// them; empty means whatever it says.
    pub(super) text: &'static [&'static str],
    /// The reply that the rule was made for.
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the rule, and a test holds it to it"))]
    pub(super) reply: &'static str,
}

impl Rule {
    pub(super) fn matches(&self, stage: Stage, reply: &SmtpReply, text: &str) -> bool {
        let enhanced = reply.enhanced.map(|enhanced| (enhanced.subject, enhanced.detail));
        self.stages.contain(stage)
            && (self.codes.is_empty() || self.codes.contains(&reply.code))
            && (self.enhanced.is_empty() || enhanced.is_some_and(|code| self.enhanced.contains(&code)))
            && (self.text.is_empty() || self.text.iter().any(|pattern| text_matches(pattern, text)))
    }
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
pub(super) const fn status(cause: Cause, stages: Stages, enhanced: &'static [(u16, u16)], reply: &'static str) -> Rule {
    Rule { cause, stages, codes: &[], enhanced, text: &[], reply }
}

/// A rule about words beside one of the enhanced codes.
pub(super) const fn both(
    cause: Cause,
    enhanced: &'static [(u16, u16)],
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
    Rule { cause, stages: Stages::Recipient, codes, enhanced: &[], text, reply }
}
