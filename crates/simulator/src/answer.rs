//! What the simulator's mailboxes write back: whole messages, for somebody else to send.

use postrider_mail::{EmailAddress, HeaderBlock, MessageId, header_of};

use crate::Arrived;

/// Bytes looked at for what an answer needs.
const MAX_HEADER: usize = 64 * 1024;
/// Longest Message-ID that is answered to, so that its line needs no folding (RFC 5322 section 2.1.1).
const MAX_ID: usize = 900;

/// A message of one of the mailboxes, about one that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its own id.
    pub id: MessageId,
    /// The mailbox, as it was written to.
    pub mailbox: &'a EmailAddress,
    /// Whom it goes to.
    pub to: &'a EmailAddress,
    /// What it is about.
    pub about: &'a Arrived,
}

impl Answer<'_> {
    /// The reply of who is out of the office (RFC 3834).
    #[must_use]
    pub fn out_of_office(&self) -> Vec<u8> {
        let Self { id, mailbox, to, about } = self;
        let in_reply_to = about.message_id().map(|id| format!("In-Reply-To: <{id}>\r\nReferences: <{id}>\r\n"));
        // RFC 3834 section 3.1
        let message = format!(
            "From: <{mailbox}>\r\n\
             To: <{to}>\r\n\
             Date: {}\r\n\
             Message-ID: <{id}@{}>\r\n\
             {}\
             Subject: Auto: {}\r\n\
             Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: 8bit\r\n\
             \r\n\
             I am out of the office. The mailbox simulator of this relay wrote this.\r\n",
            id.timestamp().rfc5322(),
            mailbox.domain(),
            in_reply_to.unwrap_or_default(),
            about.subject,
        );
        message.into_bytes()
    }

    /// The feedback report of a provider whose user complains (RFC 5965), from `reporter`.
    /// `boundary` divides its parts.
    #[must_use]
    pub fn complaint(&self, reporter: &EmailAddress, boundary: u128) -> Vec<u8> {
        let Self { id, mailbox, to, about } = self;
        let boundary = format!("postrider-{boundary:032x}");
        let header = header_of(&about.content, MAX_HEADER);
        let encoding = if header.is_ascii() { "7bit" } else { "8bit" };
        // RFC 5965 section 2: the subject of what it is about, behind "FW:" at most.
        let front = format!(
            "From: Mail Delivery System <{reporter}>\r\n\
             To: <{to}>\r\n\
             Date: {}\r\n\
             Message-ID: <{id}@{}>\r\n\
             Subject: FW: {}\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=feedback-report;\r\n boundary=\"{boundary}\"\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\
             \r\n\
             This is a complaint about your message, whose header is attached. The mailbox\r\n\
             simulator of this relay wrote this.\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: message/feedback-report\r\n\
             \r\n\
             Feedback-Type: abuse\r\n\
             User-Agent: postrider mailbox simulator\r\n\
             Version: 1\r\n\
             Original-Mail-From: <{}>\r\n\
             Original-Rcpt-To: <{mailbox}>\r\n\
             Arrival-Date: {}\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/rfc822-headers\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\
             \r\n",
            id.timestamp().rfc5322(),
            reporter.domain(),
            about.subject,
            about.envelope.sender.as_ref().map_or("", EmailAddress::as_str),
            about.at.rfc5322(),
        );
        [front.as_bytes(), &header, format!("\r\n--{boundary}--\r\n").as_bytes()].concat()
    }
}

impl Arrived {
    /// Whom an automatic reply to it goes to; nobody where the sender wants none or a program
    /// wrote (RFC 3834 section 2).
    #[must_use]
    pub fn reply_to(&self) -> Option<EmailAddress> {
        let by_program = field(self, "Auto-Submitted").is_some_and(|how| !how.eq_ignore_ascii_case("no"));
        let sender = self.envelope.sender.clone().filter(|_| !by_program)?;
        let return_path = field(self, "Return-Path").and_then(|path| path.trim_matches(['<', '>']).parse().ok());
        Some(return_path.unwrap_or(sender))
    }

    /// Its Message-ID without the brackets, where it is one that a line can repeat.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        let is_id = |id: &&str| id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_graphic());
        let value = field(self, "Message-ID")?;
        let id = value.strip_prefix('<')?.strip_suffix('>')?;
        Some(id).filter(is_id).map(str::to_owned)
    }
}

fn field(of: &Arrived, name: &str) -> Option<String> {
    let header = header_of(&of.content, MAX_HEADER);
    let header = HeaderBlock::parse(&header).ok()?;
    header.find(name).map(|field| field.value().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_base::Timestamp;
    use postrider_mail::Envelope;

    fn arrived(sender: Option<&str>, header: &str) -> Arrived {
        Arrived {
            number: 1,
            at: Timestamp::default(),
            envelope: Envelope { sender: sender.map(|sender| sender.parse().unwrap()), ..Envelope::default() },
            size: 0,
            subject: "x".to_owned(),
            from: String::new(),
            content: vec![format!("{header}Subject: x\r\n\r\nbody\r\n").into()],
        }
    }

    fn answer(about: &Arrived, what: impl Fn(&Answer<'_>) -> Vec<u8>) -> String {
        let (mailbox, to) = ("who@simulator.example".parse().unwrap(), "a@example.com".parse().unwrap());
        let id = MessageId::new(1, Timestamp::default(), 7);
        String::from_utf8(what(&Answer { id, mailbox: &mailbox, to: &to, about })).unwrap()
    }

    #[test]
    fn replies_go_to_the_return_path_or_the_sender_and_never_to_programs() {
        let sender = Some("a@example.com");
        let to = |sender, header: &str| arrived(sender, header).reply_to().map(|to| to.to_string());
        assert_eq!(to(sender, "").as_deref(), Some("a@example.com"));
        assert_eq!(to(sender, "Return-Path: <b@example.com>\r\n").as_deref(), Some("b@example.com"));
        assert_eq!(to(None, ""), None);
        assert_eq!(to(sender, "Auto-Submitted: auto-generated\r\n"), None);
        assert!(to(sender, "Auto-Submitted: no\r\n").is_some());
    }

    #[test]
    fn a_reply_says_to_what_unless_that_is_no_id() {
        let reply = |header: &str| answer(&arrived(Some("a@example.com"), header), |answer| answer.out_of_office());
        let said = reply("Message-ID: <x@y>\r\n");
        assert!(said.contains("\r\nIn-Reply-To: <x@y>\r\nReferences: <x@y>\r\nSubject: Auto: x\r\n"), "{said}");
        assert!(!reply("Message-ID: <x y>\r\n").contains("In-Reply-To"));
        assert!(!reply("").contains("In-Reply-To"));
    }

    #[test]
    fn a_complaint_is_a_feedback_report_with_the_header_and_without_the_body() {
        let reporter = "MAILER-DAEMON@example.org".parse().unwrap();
        let about = arrived(Some("bounces@example.com"), "To: Gr\u{fc}n <who@simulator.example>\r\n");
        let report = answer(&about, |answer| answer.complaint(&reporter, 1));
        for part in [
            "\r\nSubject: FW: x\r\n",
            "report-type=feedback-report",
            "\r\nFeedback-Type: abuse\r\nUser-Agent: postrider mailbox simulator\r\nVersion: 1\r\n",
            "\r\nOriginal-Mail-From: <bounces@example.com>\r\nOriginal-Rcpt-To: <who@simulator.example>\r\n",
            "Content-Transfer-Encoding: 8bit\r\n\r\nTo: Gr\u{fc}n <who@simulator.example>\r\nSubject: x\r\n",
        ] {
            assert!(report.contains(part), "{part} in {report}");
        }
        assert!(!report.contains("body") && report.ends_with("--postrider-00000000000000000000000000000001--\r\n"));
    }
}
