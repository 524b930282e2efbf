//! Delivery status notifications of others (RFC 3464), as far as a relay acts on them.

use postrider_delivery::classify::classify_report;
use postrider_mail::{BounceKind, EmailAddress, EnhancedStatus, HeaderBlock, dsn};
use serde::Serialize;

use crate::fields::{address, text};

/// What a host says that it did with a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusReport {
    /// Whether it has the form of RFC 3464; else it is text for people, as of qmail and of
    /// hosts from before 1996.
    pub standard: bool,
    /// Who says it, with the type: `dns; mx.example.net`.
    pub reporting_mta: Option<String>,
    /// Whom it is about; not empty.
    pub recipients: Vec<StatusRecipient>,
    /// How many more it named than are looked at.
    pub more: usize,
}

/// What a host says of one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusRecipient {
    /// Whom it gave up on; may be somebody whom the recipient's mail is forwarded to.
    pub final_recipient: Option<EmailAddress>,
    /// Whom the message was sent to in the first place, where it knows.
    pub original_recipient: Option<EmailAddress>,
    /// What became of it.
    pub action: Action,
    /// The status code.
    pub status: Option<EnhancedStatus>,
    /// What was said, with the type: `smtp; 550 5.1.1 user unknown`.
    pub diagnostic: Option<String>,
    /// The host that said it.
    pub remote_mta: Option<String>,
    /// What that means; `None` where it is no failure.
    pub bounce: Option<BounceKind>,
}

/// What became of a recipient (RFC 3464 section 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It failed for good.
    Failed,
    /// It is late, and still tried.
    Delayed,
    /// It is in the mailbox.
    Delivered,
    /// It went on to a host that sends no notifications.
    Relayed,
    /// It went on to the members of a list.
    Expanded,
}

impl Action {
    /// The first word of the field; where it is none of these, by the class of the status.
    fn read(field: Option<&str>, status: Option<EnhancedStatus>) -> Self {
        let word = field.and_then(|field| field.split(|c: char| !c.is_ascii_alphabetic()).next()).unwrap_or("");
        match (word.to_ascii_lowercase().as_str(), status.map(|status| status.class)) {
            ("failed" | "failure", _) => Self::Failed,
            ("delayed", _) => Self::Delayed,
            ("delivered", _) => Self::Delivered,
            ("relayed", _) => Self::Relayed,
            ("expanded", _) => Self::Expanded,
            (_, Some(2)) => Self::Delivered,
            (_, Some(4)) => Self::Delayed,
            _ => Self::Failed,
        }
    }

    /// As the relay's own notices say it.
    pub(crate) fn told(self) -> dsn::Action {
        match self {
            Self::Failed => dsn::Action::Failed,
            Self::Delayed => dsn::Action::Delayed,
            Self::Delivered => dsn::Action::Delivered,
            Self::Relayed | Self::Expanded => dsn::Action::Relayed,
        }
    }
}

impl StatusReport {
    /// Reads the second part of a report. `None` where it says nothing of anybody.
    pub(crate) fn read(part: &[u8], max_recipients: usize) -> Option<Self> {
        let mut groups = groups(part);
        let message = groups.next()?;
        // Some leave the group of the message out.
        let first = is_recipient(&message).then(|| message.clone());
        let mut recipients: Vec<_> = first.iter().map(StatusRecipient::read).collect();
        let mut more = 0;
        for group in groups.filter(is_recipient) {
            if recipients.len() < max_recipients {
                recipients.push(StatusRecipient::read(&group));
            } else {
                more += 1;
            }
        }
        let reporting_mta = text(&message, "Reporting-MTA");
        (!recipients.is_empty()).then_some(Self { standard: true, reporting_mta, recipients, more })
    }
}

impl StatusRecipient {
    fn read(group: &HeaderBlock<'_>) -> Self {
        let named = |field: &str| group.find(field).and_then(|field| address(&field.value()));
        let status = text(group, "Status").and_then(|status| status.split_whitespace().next()?.parse().ok());
        let action = Action::read(text(group, "Action").as_deref(), status);
        let diagnostic = text(group, "Diagnostic-Code");
        let said = diagnostic.as_deref().map_or("", without_type);
        Self {
            final_recipient: named("Final-Recipient").or_else(|| named("X-Actual-Recipient")),
            original_recipient: named("Original-Recipient"),
            action,
            status,
            bounce: (action == Action::Failed).then(|| classify_report(status, said)),
            diagnostic,
            remote_mta: text(group, "Remote-MTA"),
        }
    }

    /// Whether it failed, and nothing says why.
    pub(crate) fn says_nothing(&self) -> bool {
        let is_plain = self.status.is_none_or(|status| (status.subject, status.detail) == (0, 0));
        self.action == Action::Failed && self.diagnostic.is_none() && is_plain
    }

    /// The addresses that it names.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &EmailAddress> {
        self.original_recipient.iter().chain(&self.final_recipient)
    }
}

/// What stands behind the type of a value: `550 no` of `smtp; 550 no`.
pub(crate) fn without_type(value: &str) -> &str {
    match value.split_once(';') {
        Some((kind, rest)) if !kind.trim().contains(' ') => rest.trim(),
        _ => value.trim(),
    }
}

fn is_recipient(group: &HeaderBlock<'_>) -> bool {
    ["Final-Recipient", "Original-Recipient", "Action", "Status"].iter().any(|name| group.find(name).is_some())
}

/// The groups of fields, with blank lines between (RFC 3464 section 2.1). Lines that are no
/// fields divide groups too.
fn groups(part: &[u8]) -> impl Iterator<Item = HeaderBlock<'_>> {
    let mut rest = part;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            // Over the bounds of a header nothing is a report.
            let group = HeaderBlock::parse(rest).ok()?;
            let end = group.body_offset();
            rest = match end {
                0 => rest.iter().position(|byte| *byte == b'\n').map_or(&[][..], |line| &rest[line + 1..]),
                end => &rest[end..],
            };
            if !group.is_empty() {
                return Some(group);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(part: &str) -> StatusReport {
        StatusReport::read(part.as_bytes(), 3).unwrap()
    }

    #[test]
    fn actions_are_read_and_guessed_from_the_status() {
        let action = |text: &str| read(text).recipients[0].action;
        assert_eq!(action("Reporting-MTA: dns; x\n\nAction: Failed (bad luck)\n"), Action::Failed);
        assert_eq!(action("Action: delayed\nStatus: 5.0.0\n"), Action::Delayed);
        assert_eq!(action("Final-Recipient: rfc822; a@b.example\nStatus: 4.4.1\n"), Action::Delayed);
        assert_eq!(action("Final-Recipient: rfc822; a@b.example\nStatus: 2.0.0\n"), Action::Delivered);
        assert_eq!(action("Final-Recipient: rfc822; a@b.example\n"), Action::Failed);
        assert_eq!(action("Action: expanded\n"), Action::Expanded);
    }

    #[test]
    fn only_failures_are_bounces() {
        for action in ["delayed", "relayed", "expanded", "delivered"] {
            let report = read(&format!("Action: {action}\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 unknown\n"));
            assert_eq!(report.recipients[0].bounce, None, "{action}");
        }
        let failed = read("Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 user unknown\n");
        assert_eq!(failed.recipients[0].bounce, Some(BounceKind::PermanentNoEmail));
        assert_eq!(failed.recipients[0].diagnostic.as_deref(), Some("smtp; 550 5.1.1 user unknown"));
    }

    #[test]
    fn recipients_beyond_the_bound_are_counted() {
        let report = read(&format!("Reporting-MTA: dns; x\n\n{}", "Action: failed\n\n".repeat(5)));
        assert_eq!((report.recipients.len(), report.more), (3, 2));
    }

    #[test]
    fn what_says_nothing_is_no_report() {
        for part in ["", "\r\n\r\n", "hello\r\nworld\r\n", "Reporting-MTA: dns; x\r\n\r\n"] {
            assert_eq!(StatusReport::read(part.as_bytes(), 3), None, "{part:?}");
        }
    }

    #[test]
    fn rubbish_between_groups_is_passed_over() {
        let report =
            read("\n\nReporting-MTA: dns; x\n\n??\n\nAction: failed\nStatus: 5.2.2\n broken\n\nAction: relayed\n");
        assert_eq!(report.recipients.len(), 2);
        assert_eq!(report.recipients[0].status, Some(EnhancedStatus::new(5, 2, 2)));
        assert_eq!(report.reporting_mta.as_deref(), Some("dns; x"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_the_bounds(part: Vec<u8>, max in 1usize..4) {
            if let Some(report) = StatusReport::read(&part, max) {
                prop_assert!(report.recipients.len() <= max);
            }
        }

        #[test]
        fn nothing_that_is_read_has_a_line_end(
            part in "((Action|Status|Diagnostic-Code|Final-Recipient|Remote-MTA|Reporting-MTA): ?[ -~\\t\\r\u{2028}]{0,20}\r?\n|\n){1,12}",
        ) {
            if let Some(report) = StatusReport::read(part.as_bytes(), 10) {
                let texts = report.recipients.iter().flat_map(|r| [&r.diagnostic, &r.remote_mta]);
                for text in texts.chain([&report.reporting_mta]).flatten() {
                    prop_assert!(!text.chars().any(char::is_control), "{text:?}");
                }
            }
        }
    }
}
