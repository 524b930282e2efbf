//! Replies as mail hosts send them, with what they mean and where they were
//! seen. The data is in `replies/`.

use postrider_mail::{BounceKind, DelayType, SmtpReply, Stage};

use super::{Classification, Verdict, classify};

/// One line of a file in `replies/`.
pub(super) struct Sample {
    pub(super) stage: Stage,
    pub(super) expected: Classification,
    /// A key or an address; `made up` for a reply that nobody has seen.
    pub(super) source: &'static str,
    /// The reply as it is written in the file.
    pub(super) text: &'static str,
}

impl Sample {
    pub(super) fn reply(&self) -> SmtpReply {
        reply(self.text)
    }

    pub(super) fn is_real(&self) -> bool {
        self.source != "made up"
    }
}

/// The replies that the rules were made for.
pub(super) fn known() -> Vec<Sample> {
    samples(include_str!("replies/known.tsv"))
}

/// Replies that were labelled before any rule was tried on them.
pub(super) fn held() -> Vec<Sample> {
    samples(include_str!("replies/held.tsv"))
}

/// Reads `550 5.1.1 text`; `\n` begins another line.
pub(super) fn reply(text: &str) -> SmtpReply {
    let (code, rest) = text.split_at(3);
    SmtpReply::new(code.parse().unwrap(), &rest.get(1..).unwrap_or_default().replace("\\n", "\n"))
}

fn samples(file: &'static str) -> Vec<Sample> {
    let is_data = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let keys: Vec<&str> = file.lines().filter_map(|line| line.strip_prefix("# @")?.split(' ').next()).collect();
    let read = |line: &'static str| {
        let mut fields = line.splitn(4, '\t');
        let mut field = || fields.next().unwrap_or_else(|| panic!("fields are missing: {line}"));
        let (stage, expected, source, text) = (stage(field()), meaning(field()), field(), field());
        let is_known = source == "made up" || source.starts_with("http") || keys.contains(&source);
        assert!(is_known, "the file does not say what {source} is");
        Sample { stage, expected, source, text }
    };
    file.lines().filter(is_data).map(read).collect()
}

fn stage(word: &str) -> Stage {
    match word {
        "banner" => Stage::Banner,
        "ehlo" => Stage::Ehlo,
        "auth" => Stage::Auth,
        "mail" => Stage::MailFrom,
        "rcpt" => Stage::RcptTo,
        "data" => Stage::Data,
        "end" => Stage::EndOfData,
        _ => panic!("no stage: {word}"),
    }
}

fn meaning(words: &str) -> Classification {
    let (words, about_us) = words.strip_suffix('!').map_or((words, false), |words| (words, true));
    let verdict = match words.split_once('/') {
        None if words == "delivered" => Verdict::Delivered,
        Some(("delay", name)) => Verdict::Deferred(*DELAYS.iter().find(|delay| delay.as_str() == name).unwrap()),
        Some((kind, sub)) => {
            let is_it = |it: &&BounceKind| it.bounce_type() == kind && it.bounce_sub_type() == sub;
            Verdict::Bounced(*BOUNCES.iter().find(is_it).unwrap_or_else(|| panic!("no bounce: {words}")))
        }
        None => panic!("no meaning: {words}"),
    };
    Classification { verdict, about_us }
}

const DELAYS: &[DelayType] = &[
    DelayType::InternalFailure,
    DelayType::General,
    DelayType::MailboxFull,
    DelayType::SpamDetected,
    DelayType::RecipientServerError,
    DelayType::IpFailure,
    DelayType::TransientCommunicationFailure,
    DelayType::ByoipHostNameLookupUnavailable,
    DelayType::Undetermined,
];

const BOUNCES: &[BounceKind] = &[
    BounceKind::Undetermined,
    BounceKind::PermanentGeneral,
    BounceKind::PermanentNoEmail,
    BounceKind::TransientGeneral,
    BounceKind::TransientMailboxFull,
    BounceKind::TransientMessageTooLarge,
    BounceKind::TransientContentRejected,
    BounceKind::TransientAttachmentRejected,
];

/// How many of `samples` are read as they should be, in tenths of a per cent,
/// and one line for each that is not.
fn accuracy(name: &str, samples: &[&Sample]) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    for sample in samples {
        let found = classify(sample.stage, &sample.reply());
        if found != sample.expected {
            let Sample { stage, expected, text, .. } = sample;
            wrong.push(format!("{name}: {stage:?} {text}\n    is {found:?}\n    not {expected:?}"));
        }
    }
    let right = samples.len() - wrong.len();
    let permille = right * 1000 / samples.len().max(1);
    println!("{name}: {right} of {} right, {}.{} %", samples.len(), permille / 10, permille % 10);
    (permille, wrong)
}

#[test]
fn replies_are_read_as_people_read_them() {
    let (known, held) = (known(), held());
    let real = |samples: &'_ [Sample]| samples.iter().filter(|sample| sample.is_real()).count();
    assert!(real(&known) + real(&held) >= 550 && held.len() * 2 >= real(&known));
    let (seen, made_up): (Vec<&Sample>, Vec<&Sample>) = known.iter().partition(|sample| sample.is_real());
    let held: Vec<&Sample> = held.iter().collect();
    let mut failures = Vec::new();
    for (name, samples, bound) in [("seen", seen, 980), ("made up", made_up, 980), ("held out", held, 970)] {
        let (permille, wrong) = accuracy(name, &samples);
        if permille < bound {
            failures.push(format!("{name}: {permille} of 1000, not {bound}"));
        }
        println!("{}", wrong.join("\n"));
    }
    assert!(failures.is_empty(), "{failures:?}");
}
