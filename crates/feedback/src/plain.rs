//! Bounces that are text for people alone: qmail's (QSBMF), old Exim's, whatever hosts wrote
//! before RFC 1894 and some still write.

use std::cell::{Cell, OnceCell};
use std::collections::HashSet;

use postrider_delivery::classify::classify_report;
use postrider_mail::{BounceKind, EmailAddress, EnhancedStatus, HeaderBlock, sanitize_text};

use crate::fields::{MAX_TEXT, address, addresses, decoded};
use crate::status::{Action, StatusRecipient, StatusReport};

/// Bytes of the text that are read.
const MAX_READ: usize = 64 * 1024;
/// Lines of it that are searched for a reason.
const MAX_LINES: usize = 200;
/// Lines that are classified for all recipients of a report together.
pub(crate) const MAX_CLASSIFIED: usize = 500;
/// Addresses in it that are compared with the message's recipients, or looked for in it.
const MAX_NAMED: usize = 100;

/// How the text of a qmail-send bounce begins (QSBMF).
const QMAIL: [&str; 2] = ["Hi. This is the", "This is the qmail-send program"];
/// Where the returned message begins in texts that have it.
const RETURNED: [&str; 6] = [
    "--- Below this line is a copy of the message.",
    "------ This is a copy of the message",
    "----- Original message -----",
    "   ----- Unsent message follows -----",
    "   ----- Original message follows -----",
    "--- The message header ---",
];

/// Whom bounces are from, in lower case.
const MAILERS: [&str; 3] = ["mailer-daemon", "mailerdaemon", "postmaster@"];

/// What subjects of answers begin with, in lower case; several languages.
const ANSWERS: [&str; 9] = ["re:", "re ", "re[", "aw:", "sv:", "antw:", "odp:", "fwd:", "fw:"];

/// The text of a message for people, and how much is still done to understand it: who writes it
/// may be anybody, and one message may not keep a core busy.
pub(crate) struct Words<'a> {
    header: &'a HeaderBlock<'a>,
    /// What stands in front of the message that it returns, with lines that end in a line feed.
    body: String,
    /// Whether its reverse-path is the null one.
    from_nobody: bool,
    /// Lines that may still be classified.
    lines: Cell<usize>,
    /// Addresses that may still be looked for.
    lookups: Cell<usize>,
    /// What all of it says.
    whole: OnceCell<Why>,
}

/// Why something failed, by a text.
#[derive(Clone, Debug, Default)]
struct Why {
    status: Option<EnhancedStatus>,
    diagnostic: Option<String>,
    kind: Option<BounceKind>,
    /// Whether a mail server says it: there is a reply code or a status.
    is_reply: bool,
}

impl<'a> Words<'a> {
    /// The words of a message, of which at most so many lines are classified.
    pub(crate) fn new(header: &'a HeaderBlock<'a>, body: &str, from_nobody: bool, lines: usize) -> Self {
        Self {
            header,
            body: told(body),
            from_nobody,
            lines: Cell::new(lines),
            lookups: Cell::new(MAX_NAMED),
            whole: OnceCell::new(),
        }
    }

    /// Whether a message that is no report by its form is a bounce by its look: who programs that
    /// deliver mail say they are.
    pub(crate) fn is_bounce(&self) -> bool {
        let from = self.header.find("From").map(|field| field.value().to_lowercase()).unwrap_or_default();
        MAILERS.iter().any(|known| from.contains(known)) || self.is_sure()
    }

    /// Whether it is one for sure, whatever else it says of itself.
    pub(crate) fn is_sure(&self) -> bool {
        self.header.find("X-Failed-Recipients").is_some() || is_qmail(&self.body)
    }

    /// What such a message says, of this one where that is known; of nobody by name where it
    /// names nobody.
    ///
    /// People write such texts too, and so do programs that answer for them. That an address is
    /// no more, which suppresses it, is believed only of a bounce that is one for sure or has a
    /// reply of SMTP beside the address, and then only from nobody (RFC 5321 section 4.5.5) and
    /// not as an answer.
    pub(crate) fn read(&self, known: Option<EmailAddress>, max_recipients: usize) -> StatusReport {
        let mut recipients = match known {
            Some(address) => vec![self.failed(address, true)],
            None if is_qmail(&self.body) => self.qmail(),
            None => Vec::new(),
        };
        if recipients.is_empty() {
            recipients = self.named();
        }
        let more = recipients.len().saturating_sub(max_recipients);
        recipients.truncate(max_recipients);
        if recipients.is_empty() {
            recipients.push(self.failure(None, self.whole().clone(), false));
        }
        StatusReport { standard: false, reporting_mta: None, recipients, more }
    }

    /// Says why a recipient failed of whom a report does not: by what it says to people. A reason
    /// that lists an address must be beside it, unless the report is about this recipient only.
    pub(crate) fn explain(&self, failure: &mut StatusRecipient, is_only: bool) {
        let address = failure.final_recipient.as_ref().or(failure.original_recipient.as_ref());
        let (why, is_beside) = address.map_or_else(|| (self.whole().clone(), false), |address| self.about(address));
        let Some(line) = why.diagnostic else { return };
        let kind = classify_report(failure.status, &line);
        if is_only || is_beside || !kind.is_hard() {
            failure.bounce = Some(kind);
            failure.diagnostic = Some(line);
        }
    }

    /// The paragraphs of QSBMF: each begins with `<ADDRESS>:`, and says why in the lines behind.
    fn qmail(&self) -> Vec<StatusRecipient> {
        let named = self.body.split("\n\n").filter_map(|paragraph| {
            let (first, said) = paragraph.trim_start().split_once(":\n")?;
            let address = address(first.strip_prefix('<')?)?;
            Some(self.failure(Some(address), self.why(said), true))
        });
        named.take(MAX_NAMED).collect()
    }

    /// Whom `X-Failed-Recipients` names, or else the text, with what the text says of them.
    fn named(&self) -> Vec<StatusRecipient> {
        let fields = self.header.find_all("X-Failed-Recipients").map(|field| field.value());
        let mut named: Vec<EmailAddress> = fields.flat_map(|value| addresses(&value)).collect();
        if named.is_empty() {
            named = addresses(&self.body);
        }
        named.truncate(MAX_NAMED);
        let mut seen = HashSet::new();
        named.retain(|address| seen.insert(address.fold()));
        let is_only = named.len() == 1;
        named.into_iter().map(|address| self.failed(address, is_only)).collect()
    }

    /// What the text says of this one. What it says elsewhere is beside no other address where
    /// this is the only one.
    fn failed(&self, address: EmailAddress, is_only: bool) -> StatusRecipient {
        let (why, is_beside) = self.about(&address);
        self.failure(Some(address), why, is_only || is_beside)
    }

    /// What the text says beside an address; all of it where that tells nothing. And whether it
    /// is the former.
    fn about(&self, address: &EmailAddress) -> (Why, bool) {
        let beside = take(&self.lookups).then(|| beside(&self.body, address)).flatten();
        let why = beside.map(|said| self.why(said)).filter(|why| why.kind.is_some());
        why.map_or_else(|| (self.whole().clone(), false), |why| (why, true))
    }

    /// A failure for a reason that is this recipient's own, or maybe another's.
    fn failure(&self, named: Option<EmailAddress>, why: Why, is_own: bool) -> StatusRecipient {
        let may_be_hard = is_own && (self.is_sure() || why.is_reply) && self.from_nobody && !self.is_answer();
        let kind = why.kind.filter(|kind| !kind.is_hard() || may_be_hard);
        StatusRecipient {
            final_recipient: named,
            original_recipient: None,
            action: Action::Failed,
            status: why.status,
            diagnostic: why.diagnostic,
            remote_mta: None,
            bounce: Some(kind.unwrap_or(BounceKind::Undetermined)),
        }
    }

    /// Whether somebody answers: bounces answer nothing.
    fn is_answer(&self) -> bool {
        let subject = decoded(self.header, "Subject").unwrap_or_default();
        self.header.find("In-Reply-To").is_some() || ANSWERS.iter().any(|known| subject.starts_with(known))
    }

    fn whole(&self) -> &Why {
        self.whole.get_or_init(|| self.why(&self.body))
    }

    /// Looks for the line that tells why: one with a reply of SMTP, else one that the knowledge of
    /// replies knows.
    fn why(&self, text: &str) -> Why {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty()).take(MAX_LINES);
        let with_reply = lines().filter_map(reply_in).map(|line| (line, true));
        for (line, has_code) in with_reply.chain(lines().map(|line| (line, false))) {
            if !take(&self.lines) {
                break;
            }
            let line = sanitize_text(line, MAX_TEXT);
            let kind = classify_report(None, &line);
            if kind != BounceKind::Undetermined {
                let status = status_in(&line);
                let is_reply = has_code || status.is_some();
                return Why { status, diagnostic: Some(line), kind: Some(kind), is_reply };
            }
        }
        Why::default()
    }
}

/// What stands behind an address: its line, and those that follow up to a blank one or one that
/// names somebody else.
fn beside<'t>(text: &'t str, address: &EmailAddress) -> Option<&'t str> {
    let named = address.as_str();
    let mut found = text.match_indices(named).map(|(at, _)| text.split_at(at));
    let (_, found) = found.find(|(before, from)| is_whole(before, &from[named.len()..]))?;
    let behind = &found[named.len()..];
    let names_another = |line: &str| addresses(line).iter().any(|other| other.fold() != address.fold());
    let mut end = 0;
    for (index, line) in behind.split_inclusive('\n').take(MAX_LINES).enumerate() {
        if index > 0 && (line.trim().is_empty() || names_another(line)) {
            break;
        }
        end += line.len();
    }
    Some(&behind[..end])
}

/// Whether an address between these two is not a part of a longer one.
fn is_whole(before: &str, behind: &str) -> bool {
    let begins = !before.ends_with(|c: char| c.is_alphanumeric() || ".-_+".contains(c));
    let behind = behind.strip_prefix('.').unwrap_or(behind);
    begins && !behind.starts_with(|c: char| c.is_alphanumeric() || "-_".contains(c))
}

/// Takes one of what is left; `false` where nothing is.
fn take(left: &Cell<usize>) -> bool {
    let before = left.get();
    left.set(before.saturating_sub(1));
    before > 0
}

/// The front of a text, up to the message that it returns, with lines that end in a line feed.
fn told(body: &str) -> String {
    let end = body.floor_char_boundary(MAX_READ);
    let mut body = body[..end].replace("\r\n", "\n");
    if let Some(start) = RETURNED.iter().filter_map(|mark| body.find(mark)).min() {
        body.truncate(start);
    }
    body
}

fn is_qmail(body: &str) -> bool {
    QMAIL.iter().any(|start| body.trim_start().starts_with(start))
}

/// The part of a line from a failure's reply code on, which stands in front or behind a colon,
/// a bracket or a quotation mark: `550 5.1.1 no` of `<<< 550 5.1.1 no`, nothing of `in 500 seconds`.
fn reply_in(line: &str) -> Option<&str> {
    let codes = line.match_indices([' ', '-']).filter_map(|(end, _)| end.checked_sub(3));
    let is_reply = |start: &usize| {
        let Some(code) = line.get(*start..start + 3) else { return false };
        if !code.starts_with(['4', '5']) || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        let before = line[..*start].trim_end();
        before.is_empty() || before.ends_with([':', '>', '<', '(', '"', '\''])
    };
    codes.take(MAX_WORDS).find(is_reply).map(|start| &line[start..])
}

/// Words of a line that are looked at.
const MAX_WORDS: usize = 200;

fn status_in(line: &str) -> Option<EnhancedStatus> {
    let words = line.split([' ', '(', ')', '[', ']', '#', ':', '-']);
    words.filter_map(|word| word.trim_end_matches('.').parse::<EnhancedStatus>().ok()).find(|status| status.class != 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &str) -> StatusReport {
        read_from(true, message)
    }

    fn read_from(from_nobody: bool, message: &str) -> StatusReport {
        let header = HeaderBlock::parse(message.as_bytes()).unwrap();
        Words::new(&header, &message[header.body_offset()..], from_nobody, MAX_CLASSIFIED).read(None, 3)
    }

    #[test]
    fn a_reply_is_found_behind_what_introduces_it() {
        for (line, reply) in [
            ("550 5.1.1 no", Some("550 5.1.1 no")),
            ("    <<< 550-no", Some("550-no")),
            ("host mx[192.0.2.1] said: 552 full", Some("552 full")),
            ("SMTP error: \"554 no\"", Some("554 no\"")),
            ("given up after 500 seconds", None),
            ("5501 no", None),
            ("250 ok", None),
            ("\u{e4}\u{e4} x", None),
        ] {
            assert_eq!(reply_in(line), reply, "{line}");
        }
    }

    #[test]
    fn who_is_named_in_the_header_is_meant() {
        let report = read(
            "X-Failed-Recipients: bob@example.net,\r\n ann@example.net\r\n\r\nYour mail to\r\n\r\n\
             bob@example.net\r\n  mailbox is full:\r\n  retry timeout exceeded\r\n\r\n\
             ann@example.net\r\n  550 5.1.1 user unknown\r\n\r\nis back at jim@example.org.\r\n",
        );
        let kinds: Vec<_> = report.recipients.iter().map(|recipient| recipient.bounce.unwrap()).collect();
        assert_eq!(kinds, [BounceKind::TransientMailboxFull, BounceKind::PermanentNoEmail]);
        assert!(!report.standard);
    }

    #[test]
    fn the_reason_of_one_is_no_other_ones() {
        let kinds = |message: &str| -> Vec<_> { read(message).recipients.iter().map(|r| r.bounce.unwrap()).collect() };
        let named = "X-Failed-Recipients: ann@example.net, bob@example.net\r\n\r\n";
        let unknown = "550 5.1.1 user unknown\r\n";
        for said in [
            // The next one's, behind a blank line and without one.
            format!("{named}bob@example.net\r\n  out of luck\r\n\r\nann@example.net\r\n  {unknown}"),
            format!("{named}bob@example.net: out of luck\r\nann@example.net: {unknown}"),
            format!("\r\nbob@example.net: out of luck\r\nann@example.net: {unknown}"),
            // That of somebody whose address has this one in it.
            format!("\r\njimbob@example.net: {unknown}\r\nbob@example.net: out of luck\r\n"),
            format!("\r\nbob@example.net.example: {unknown}\r\nbob@example.net: out of luck\r\n"),
        ] {
            let bobs = read(&said)
                .recipients
                .into_iter()
                .find(|it| it.final_recipient.as_ref().is_some_and(|address| address.as_str() == "bob@example.net"));
            assert_eq!(bobs.unwrap().bounce, Some(BounceKind::Undetermined), "{said}");
            assert!(kinds(&said).contains(&BounceKind::PermanentNoEmail), "{said}");
        }
        assert_eq!(kinds(&format!("\r\nbob@example.net.\r\n  {unknown}")), [BounceKind::PermanentNoEmail]);
    }

    #[test]
    fn a_report_of_several_is_explained_by_what_is_beside_each() {
        let text = "Subject: x\r\n\r\nann@example.net: 550 5.1.1 user unknown\r\n\r\nbob@example.net: out of luck\r\n";
        let header = HeaderBlock::parse(text.as_bytes()).unwrap();
        let words = Words::new(&header, &text[header.body_offset()..], true, MAX_CLASSIFIED);
        let failure = |name: &str| StatusRecipient {
            final_recipient: Some(name.parse().unwrap()),
            original_recipient: None,
            action: Action::Failed,
            status: None,
            diagnostic: None,
            remote_mta: None,
            bounce: None,
        };
        let explained = |name, is_only| {
            let mut failure = failure(name);
            words.explain(&mut failure, is_only);
            failure.bounce
        };
        assert_eq!(explained("ann@example.net", false), Some(BounceKind::PermanentNoEmail));
        assert_eq!(explained("bob@example.net", false), None);
        assert_eq!(explained("bob@example.net", true), Some(BounceKind::PermanentNoEmail));
    }

    #[test]
    fn without_a_reason_it_is_undetermined_and_without_a_name_about_nobody() {
        let report = read("Subject: Undeliverable\r\n\r\nSorry.\r\n");
        assert_eq!(report.recipients.len(), 1);
        assert_eq!(report.recipients[0].bounce, Some(BounceKind::Undetermined));
        assert_eq!(report.recipients[0].final_recipient, None);
    }

    #[test]
    fn what_the_returned_message_says_is_no_reason() {
        let report =
            read("\r\nNo.\r\n\r\n--- Below this line is a copy of the message.\r\n\r\n550 5.1.1 user unknown\r\n");
        assert_eq!(report.recipients[0].bounce, Some(BounceKind::Undetermined));
    }

    #[test]
    fn what_people_write_is_never_permanent() {
        let kinds = |report: StatusReport| -> Vec<_> { report.recipients.iter().map(|r| r.bounce.unwrap()).collect() };
        for said in [
            "\r\nI am travelling. Bob no longer exists in our team, please write to\r\njim@example.net\r\n",
            "\r\nThis address is no longer valid from June on\r\n",
            "\r\nann@example.net: user unknown\r\n",
            "Subject: Re: hello\r\n\r\nYou wrote to ann@example.net: 550 5.1.1 user unknown\r\n",
            "In-Reply-To: <x@example.net>\r\n\r\nann@example.net: 550 5.1.1 user unknown\r\n",
            "\r\na@example.net left, b@example.net too.\r\n\r\nThe server says: 550 5.1.1 user unknown\r\n",
        ] {
            assert!(kinds(read(said)).iter().all(|kind| *kind == BounceKind::Undetermined), "{said}");
        }
        for said in [
            "\r\nann@example.net: 550 5.1.1 user unknown\r\n",
            "\r\nNot delivered to ann@example.net\r\n\r\n550 5.1.1 user unknown\r\n",
            "\r\nHi. This is the qmail-send program at x.\r\n\r\n<ann@example.net>:\r\nSorry, no mailbox here by that name.\r\n",
            "X-Failed-Recipients: ann@example.net\r\n\r\nann@example.net\r\n  user unknown\r\n",
        ] {
            assert_eq!(kinds(read(said)), [BounceKind::PermanentNoEmail], "{said}");
            assert_eq!(kinds(read_from(false, said)), [BounceKind::Undetermined], "{said}");
        }
    }

    #[test]
    fn a_message_is_so_much_work_and_no_more() {
        let header = HeaderBlock::parse(b"\r\n").unwrap();
        let lines = "nothing that anybody knows\n".repeat(1_000);
        let words = Words::new(&header, &lines, true, MAX_CLASSIFIED);
        for number in 0..1_000 {
            let address = format!("user{number}@example.net").parse().unwrap();
            words.explain(&mut words.failure(Some(address), Why::default(), false), false);
        }
        assert_eq!((words.lines.get(), words.lookups.get()), (MAX_CLASSIFIED - MAX_LINES, 0), "all of it is read once");
        let lines: String = (0..100).map(|number| format!("u{number}@b.example\n{}\n", "x\n".repeat(99))).collect();
        let words = Words::new(&header, &lines, true, MAX_CLASSIFIED);
        words.read(None, 1_000);
        assert_eq!(words.lines.get(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(\\PC|\n|\r\n|550 |: |a@b.example|<)*") {
            let report = read(&format!("\r\n{text}"));
            prop_assert!(!report.recipients.is_empty() && report.recipients.len() <= 3);
            for said in report.recipients.iter().filter_map(|recipient| recipient.diagnostic.as_ref()) {
                prop_assert!(!said.chars().any(char::is_control));
            }
        }
    }
}
