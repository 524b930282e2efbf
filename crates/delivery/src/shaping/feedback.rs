//! Feedback rules: what follows from what a host says.

use std::sync::Arc;
use std::time::Duration;

use postrider_base::Period;
use postrider_mail::{BounceKind, EnhancedStatus, SmtpReply, Stage};

use super::file::{About, ActionName, Feedback, StageName};

/// A rule, ready for use.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    /// The file that it is in.
    pub(crate) origin: Arc<str>,
    /// Only from hosts of this provider.
    pub(crate) provider: Option<Arc<str>>,
    stages: Vec<Stage>,
    codes: Vec<u16>,
    enhanced: Vec<Enhanced>,
    /// In lower case.
    text: Vec<String>,
    pub(crate) effect: Effect,
    /// Whether the effect is on all sites of the provider.
    pub(crate) is_about_provider: bool,
    /// The reply that it was made for.
    pub(crate) example: String,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// Nothing.
    Ignore,
    /// Half the connections and half the rate, until it goes well again.
    Slow,
    /// Nothing more from this address to this site for so long.
    PauseSource(Duration),
    /// Nothing more that is signed by this domain to this site for so long.
    PauseSigningDomain(Duration),
    /// As [`Effect::PauseSource`], and somebody has to look.
    BlockSource(Duration),
    /// The recipient has bounced.
    Bounce(BounceKind),
}

/// An enhanced code with or without its class.
type Enhanced = (Option<u8>, u16, u16);

/// Pauses that rules may make.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(7 * 24));

impl Rule {
    /// Checks an entry of a file. The error names the key and what was expected.
    pub(super) fn new(entry: &Feedback, origin: &Arc<str>) -> Result<Self, String> {
        let rule = Self {
            name: entry.name.as_str().into(),
            origin: origin.clone(),
            provider: entry.provider.as_deref().map(Into::into),
            stages: entry.stages.iter().map(|name| stage(*name)).collect(),
            codes: entry.codes.clone(),
            enhanced: entry.enhanced.iter().map(|text| enhanced(text)).collect::<Result<_, _>>()?,
            text: entry.text.iter().map(|text| text.to_ascii_lowercase()).collect(),
            effect: effect(entry)?,
            is_about_provider: entry.about == About::Provider,
            example: entry.example.clone(),
        };
        if entry.name.is_empty() {
            return Err("name: expected a name for the rule".to_owned());
        }
        if let Some(code) = rule.codes.iter().find(|code| !(400..600).contains(*code)) {
            return Err(format!("codes: expected reply codes from 400 to 599, found {code}"));
        }
        if rule.is_about_provider && rule.provider.is_none() {
            return Err("about: expected \"provider\" only beside provider".to_owned());
        }
        if rule.codes.is_empty() && rule.enhanced.is_empty() && rule.text.is_empty() {
            return Err("text: expected words of the reply, or codes, or enhanced codes".to_owned());
        }
        let Some(example) = read_reply(&entry.example) else {
            return Err("example: expected a reply such as \"421 4.7.0 Try again later\"".to_owned());
        };
        if !rule.matches(rule.example_stage(), &example, &comparable(&example)) {
            return Err("example: expected a reply that the rule matches".to_owned());
        }
        Ok(rule)
    }

    /// Whether it is about this reply, whose text [`comparable`] made.
    pub(crate) fn matches(&self, stage: Stage, reply: &SmtpReply, text: &str) -> bool {
        let has = |wanted: &Enhanced, found: EnhancedStatus| {
            wanted.0.is_none_or(|class| class == found.class) && (wanted.1, wanted.2) == (found.subject, found.detail)
        };
        let is_then = match self.stages.is_empty() {
            // A host that has seen the content may speak of it: of a link's address, say.
            true => stage <= Stage::RcptTo || !self.blocks(),
            false => self.stages.contains(&stage),
        };
        is_then
            && (self.codes.is_empty() || self.codes.contains(&reply.code))
            && (self.enhanced.is_empty()
                || reply.enhanced.is_some_and(|found| self.enhanced.iter().any(|wanted| has(wanted, found))))
            && (self.text.is_empty() || self.text.iter().any(|pattern| has_parts(text, pattern)))
    }

    /// Whether it says that our address is on a list.
    pub(crate) fn blocks(&self) -> bool {
        matches!(self.effect, Effect::BlockSource(_))
    }

    /// A stage at which it applies.
    pub(crate) fn example_stage(&self) -> Stage {
        self.stages.first().copied().unwrap_or(Stage::RcptTo)
    }
}

/// The text of a reply as rules compare it: in lower case, with a space in
/// front, so that a pattern can ask for the beginning of a word.
pub(crate) fn comparable(reply: &SmtpReply) -> String {
    format!(" {}", reply.text()).to_ascii_lowercase()
}

/// True when the parts of `pattern`, separated by `..`, stand in `text` in this order.
fn has_parts(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    pattern.split("..").all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// Reads `421 4.7.0 Try again later`.
fn read_reply(text: &str) -> Option<SmtpReply> {
    let (code, rest) = text.split_at_checked(3)?;
    let code: u16 = code.parse().ok().filter(|code| (400..600).contains(code))?;
    Some(SmtpReply::new(code, rest.strip_prefix([' ', '-']).unwrap_or(rest)))
}

fn enhanced(text: &str) -> Result<Enhanced, String> {
    let parts: Option<Vec<u16>> = text.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([class @ 4..=5, subject, detail]) => Ok((u8::try_from(*class).ok(), *subject, *detail)),
        Some([subject, detail]) => Ok((None, *subject, *detail)),
        _ => Err(format!("enhanced: expected codes such as \"4.7.28\", or \"7.28\" for both classes, found {text:?}")),
    }
}

fn effect(entry: &Feedback) -> Result<Effect, String> {
    const ACTIONS: &str =
        "\"ignore\", \"slow\", \"pause-source\", \"pause-signing-domain\", \"block-source\" or \"bounce\"";
    let action = entry.action.ok_or_else(|| format!("action: expected {ACTIONS}"))?;
    let is_timed = matches!(action, ActionName::PauseSource | ActionName::PauseSigningDomain | ActionName::BlockSource);
    let time = match entry.r#for.map(Period::as_duration) {
        Some(time) if is_timed && (PAUSES.0..=PAUSES.1).contains(&time) => time,
        None if !is_timed => Duration::ZERO,
        Some(_) if !is_timed => return Err("for: expected only beside an action that pauses".to_owned()),
        _ => return Err("for: expected how long, from \"1s\" to \"7d\"".to_owned()),
    };
    if entry.bounce.is_some() && action != ActionName::Bounce {
        return Err("bounce: expected only beside action = \"bounce\"".to_owned());
    }
    Ok(match action {
        ActionName::Ignore => Effect::Ignore,
        ActionName::Slow => Effect::Slow,
        ActionName::PauseSource => Effect::PauseSource(time),
        ActionName::PauseSigningDomain => Effect::PauseSigningDomain(time),
        ActionName::BlockSource => Effect::BlockSource(time),
        ActionName::Bounce => Effect::Bounce(bounce(entry.bounce.as_deref().unwrap_or_default())?),
    })
}

/// The kinds that a reply can make.
const BOUNCES: [BounceKind; 8] = [
    BounceKind::Undetermined,
    BounceKind::PermanentGeneral,
    BounceKind::PermanentNoEmail,
    BounceKind::TransientGeneral,
    BounceKind::TransientMailboxFull,
    BounceKind::TransientMessageTooLarge,
    BounceKind::TransientContentRejected,
    BounceKind::TransientAttachmentRejected,
];

fn bounce(text: &str) -> Result<BounceKind, String> {
    let name = |kind: &BounceKind| format!("{}/{}", kind.bounce_type(), kind.bounce_sub_type());
    BOUNCES.iter().find(|kind| name(kind) == text).copied().ok_or_else(|| {
        let names: Vec<String> = BOUNCES.iter().map(name).collect();
        format!("bounce: expected one of {}, found {text:?}", names.join(", "))
    })
}

fn stage(name: StageName) -> Stage {
    match name {
        StageName::Banner => Stage::Banner,
        StageName::Ehlo => Stage::Ehlo,
        StageName::Starttls => Stage::StartTls,
        StageName::Auth => Stage::Auth,
        StageName::Mail => Stage::MailFrom,
        StageName::Rcpt => Stage::RcptTo,
        StageName::Data => Stage::Data,
        StageName::EndOfData => Stage::EndOfData,
    }
}

impl Effect {
    /// What it does, for people.
    pub(crate) fn describe(&self) -> String {
        let period = |time: &Duration| Period::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        match self {
            Self::Ignore => "ignore".to_owned(),
            Self::Slow => "slow".to_owned(),
            Self::PauseSource(time) => format!("pause source for {}", period(time)),
            Self::PauseSigningDomain(time) => format!("pause signing domain for {}", period(time)),
            Self::BlockSource(time) => format!("block source for {}", period(time)),
            Self::Bounce(kind) => format!("bounce as {}/{}", kind.bounce_type(), kind.bounce_sub_type()),
        }
    }
}
