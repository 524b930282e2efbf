//! What a reply looks like in a report of somebody who got it.

use postrider_mail::Stage;

/// How Postfix, and others after it, say what a reply answered.
const STAGES: [(&str, Stage); 5] = [
    ("in reply to mail from", Stage::MailFrom),
    ("in reply to rcpt to", Stage::RcptTo),
    ("in reply to data", Stage::Data),
    ("rcpt to:<", Stage::RcptTo),
    ("mail from:<", Stage::MailFrom),
];

/// What a reply is introduced by: Postfix's `host mx.example.net[192.0.2.1] said: 550 no`,
/// Exim's `host mx.example.net [192.0.2.1]: 550 no`, Sendmail's `<<< 550 no`.
const BEFORE: [&str; 4] = [" said: ", "]: ", "<<< ", "responded: "];

/// The stage that a diagnostic text is about, the reply code in it, and what was said behind
/// that. A text without a code is all that was said; without a stage it may be about the
/// content too.
pub(super) fn heard(diagnostic: &str) -> (Stage, Option<u16>, &str) {
    let diagnostic = diagnostic.trim();
    let lower = diagnostic.to_ascii_lowercase();
    let found = STAGES.iter().find(|(words, _)| lower.contains(words));
    let stage = found.map_or(Stage::EndOfData, |(_, stage)| *stage);
    let behind = BEFORE.iter().filter_map(|words| diagnostic.split_once(words).map(|(_, reply)| reply));
    let reply = std::iter::once(diagnostic).chain(behind).find_map(reply);
    let (code, text) = reply.map_or((None, diagnostic), |(code, text)| (Some(code), text));
    (stage, code, text)
}

/// A failure's code and what is behind it.
fn reply(text: &str) -> Option<(u16, &str)> {
    let (code, rest) = text.split_at_checked(3)?;
    let is_code = code.starts_with(['4', '5']) && code.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = rest.is_empty() || rest.starts_with([' ', '-']);
    (is_code && is_word).then(|| (code.parse().unwrap_or(550), rest.get(1..).unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use postrider_mail::BounceKind::{self, *};
    use proptest::prelude::*;

    use super::super::classify_report;
    use super::*;

    fn kind(status: &str, diagnostic: &str) -> BounceKind {
        classify_report(status.parse().ok(), diagnostic)
    }

    #[test]
    fn replies_are_found_where_hosts_put_them() {
        let said =
            "host mx.example.net[192.0.2.1] said: 550 5.1.1 <a@b.example> no such user (in reply to RCPT TO command)";
        let (stage, code, text) = heard(said);
        assert_eq!((stage, code), (Stage::RcptTo, Some(550)));
        assert!(text.starts_with("5.1.1 <a@b"), "{text}");
        assert_eq!(heard("550-no").1, Some(550));
        assert_eq!(heard("550 no").2, "no");
        assert_eq!(heard("host mx.example.net [192.0.2.1]: 452 full").1, Some(452));
        assert_eq!(heard("5501 no"), (Stage::EndOfData, None, "5501 no"));
        assert_eq!(heard(""), (Stage::EndOfData, None, ""));
    }

    #[test]
    fn a_report_means_what_the_reply_would_have() {
        for (status, diagnostic, expected) in [
            ("5.1.1", "550 5.1.1 user unknown", PermanentNoEmail),
            ("5.1.1", "", PermanentNoEmail),
            ("5.1.1", "unknown user: \"ann\"", PermanentNoEmail),
            ("5.0.0", "550 5.1.1 user unknown", PermanentNoEmail),
            ("", "user unknown", PermanentNoEmail),
            ("5.0.0", "", PermanentGeneral),
            ("5.2.2", "552 5.2.2 mailbox is full", TransientMailboxFull),
            ("5.2.3", "552 5.2.3 message exceeds the size limit", TransientMessageTooLarge),
            ("5.7.1", "550 5.7.1 message rejected as spam", TransientContentRejected),
            ("4.4.1", "connect to mx.example.net[192.0.2.1]:25: Connection timed out", TransientGeneral),
            ("5.0.0", "450 4.1.1 user unknown for now", TransientGeneral),
            ("4.0.0", "", TransientGeneral),
            ("", "", Undetermined),
            ("", "the cat sat on the mat", Undetermined),
        ] {
            assert_eq!(kind(status, diagnostic), expected, "{status} {diagnostic}");
        }
    }

    proptest! {
        #[test]
        fn what_may_pass_is_never_permanent(subject in 0u16..9, detail in 0u16..99, text: String) {
            let kind = kind(&format!("4.{subject}.{detail}"), &text);
            prop_assert!(!kind.is_hard());
            let _ = classify_report(None, &text);
        }
    }
}
