//! Complaints of mailbox providers (ARF, RFC 5965).

use postrider_base::Timestamp;
use postrider_mail::{EmailAddress, HeaderBlock};
use serde::Serialize;

use crate::fields::{address, addresses, date, text};

/// What a provider says of a message that one of its users complained about. Providers black
/// out what they like of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ComplaintReport {
    /// `Feedback-Type`, such as `abuse` or `not-spam`; `None` where it is not in this format.
    pub feedback_type: Option<String>,
    /// The program that wrote it.
    pub user_agent: Option<String>,
    /// Who sent it, with the type.
    pub reporting_mta: Option<String>,
    /// The message's envelope sender as the provider saw it: a return path of ours, if
    /// it was not blacked out.
    pub mail_from: Option<EmailAddress>,
    /// Whom the message was for.
    pub recipients: Vec<EmailAddress>,
    /// When the message arrived there.
    pub arrival_date: Option<Timestamp>,
}

impl ComplaintReport {
    /// Reads the second part of a report. `None` where it is none.
    pub(crate) fn read(part: &[u8], max_recipients: usize) -> Option<Self> {
        // Some begin it with a blank line.
        let header = HeaderBlock::parse(part.trim_ascii_start()).ok()?;
        let feedback_type = text(&header, "Feedback-Type")?;
        let named = header.find_all("Original-Rcpt-To").chain(header.find_all("Removal-Recipient"));
        let recipients = named.flat_map(|field| addresses(&field.value()));
        Some(Self {
            feedback_type: Some(feedback_type),
            user_agent: text(&header, "User-Agent"),
            reporting_mta: text(&header, "Reporting-MTA"),
            mail_from: text(&header, "Original-Mail-From").and_then(|from| address(&from)),
            recipients: recipients.take(max_recipients).collect(),
            arrival_date: date(&header, "Arrival-Date").or_else(|| date(&header, "Received-Date")),
        })
    }

    /// A complaint without this part: Microsoft's, of which the recipient is known.
    pub(crate) fn about(recipient: EmailAddress) -> Self {
        Self { recipients: vec![recipient], ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_that_it_says_is_read() {
        let part = "Feedback-Type: abuse\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\n\
             Original-Mail-From: <somespammer@example.net>\r\nOriginal-Rcpt-To: <user@example.com>\r\n\
             Original-Rcpt-To: other@example.com, third@example.com\r\n\
             Received-Date: Thu, 8 Mar 2005 14:00:00 EDT\r\nReporting-MTA: dns; mail.example.com\r\n";
        let report = ComplaintReport::read(part.as_bytes(), 2).unwrap();
        assert_eq!(report.feedback_type.as_deref(), Some("abuse"));
        assert_eq!(report.user_agent.as_deref(), Some("SomeGenerator/1.0"));
        assert_eq!(report.reporting_mta.as_deref(), Some("dns; mail.example.com"));
        assert_eq!(report.mail_from, Some("somespammer@example.net".parse().unwrap()));
        assert_eq!(report.recipients.len(), 2);
        assert_eq!(report.arrival_date, Some(Timestamp::from_millis(1_110_304_800_000)));
    }

    #[test]
    fn what_is_blacked_out_is_left_out() {
        let part =
            "\r\nFeedback-Type: fraud\r\nOriginal-Rcpt-To: redacted\r\nOriginal-Mail-From: <>\r\nArrival-Date: ?\r\n";
        let report = ComplaintReport::read(part.as_bytes(), 9).unwrap();
        let fraud = ComplaintReport { feedback_type: Some("fraud".into()), ..ComplaintReport::default() };
        assert_eq!(report, fraud);
        assert_eq!(ComplaintReport::read(b"User-Agent: x\r\n", 9), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_the_bounds(part: Vec<u8>, list in "(a@b.example,? ?){0,30}", max in 1usize..9) {
            let _ = ComplaintReport::read(&part, max);
            let part = format!("Feedback-Type: abuse\r\nOriginal-Rcpt-To: {list}\r\n");
            let report = ComplaintReport::read(part.as_bytes(), max).unwrap();
            prop_assert!(report.recipients.len() <= max);
        }
    }
}
