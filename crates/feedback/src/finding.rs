//! Which message a report is about, and what is to be journaled of it: the rules of whom to
//! believe, without any network or disk.

use std::collections::HashSet;

use postrider_base::Timestamp;
use postrider_events::{Affected, ReturnedBounce, ReturnedComplaint, ReturnedKind};
use postrider_mail::{BounceKind, Domain, MessageId, Verp, VerpScope};
use postrider_submission::ReturnPaths;

use crate::complaint::ComplaintReport;
use crate::report::{Reading, Report};
use crate::status::{Action, StatusRecipient, StatusReport};

/// What a report says of one of our messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The message.
    pub id: MessageId,
    /// What is to be journaled, each of the first of these whom the message was for. Nothing of
    /// a report that tells of no failure.
    pub returned: Vec<(Vec<Affected>, ReturnedKind)>,
}

/// Whose return paths are ours, and which Message-IDs.
#[derive(Clone, Copy, Debug)]
pub struct Ours<'a> {
    /// The return paths.
    pub return_paths: &'a ReturnPaths,
    /// What stands behind the `@` of our Message-IDs.
    pub message_id_domain: &'a str,
}

impl Finding {
    /// What is found in a message that came to the return path `to`, or to no such one, and that
    /// is from these domains for certain.
    ///
    /// A bounce is believed for nothing but the return path that it came to: nobody else can
    /// know it. A complaint also for one inside of it, and for our Message-ID together with one
    /// of the message's recipients, since complaints come to an address that everybody knows.
    /// Addresses that only the reporter names count as far as they are the message's, and of
    /// the domain that the return path was written for.
    #[must_use]
    pub fn of(reading: &Reading, to: Option<Verp>, domains: &[Domain], ours: Ours<'_>) -> Option<Finding> {
        match &reading.report {
            Report::Status(report) => Some(Self::bounced(report, to?)),
            Report::Complaint(report) => Self::complained(reading, report, to, domains, ours),
            Report::Automatic | Report::Other => None,
        }
    }

    fn bounced(report: &StatusReport, verp: Verp) -> Finding {
        let failures = report.recipients.iter().filter(|recipient| recipient.action == Action::Failed);
        let returned = match verp.scope {
            // Whoever failed, it is for mail to this one: lists and aliases have others behind them.
            VerpScope::One(index) => {
                let worst = failures.min_by_key(|failure| severity(failure));
                worst.map(|failure| (vec![Affected::Index(index)], bounce(report, failure))).into_iter().collect()
            }
            VerpScope::DomainOf(first) => {
                let mut seen = HashSet::new();
                let all = failures.map(|failure| of_several(first, report, failure));
                all.filter(|(whom, _)| seen.insert(format!("{whom:?}"))).collect()
            }
        };
        Finding { id: verp.id, returned }
    }

    fn complained(
        reading: &Reading,
        report: &ComplaintReport,
        to: Option<Verp>,
        domains: &[Domain],
        ours: Ours<'_>,
    ) -> Option<Finding> {
        let original = reading.original.as_ref();
        let noted = original.into_iter().flat_map(|original| &original.return_paths);
        let inside = || report.mail_from.iter().chain(noted).find_map(|path| ours.return_paths.read(path));
        let also = original.and_then(|original| original.recipient.as_ref());
        let mut seen = HashSet::new();
        let named = report.recipients.iter().chain(also).filter(|address| seen.insert(address.fold()));
        let named: Vec<_> = named.cloned().map(Affected::Address).collect();
        let (id, whom) = match to.or_else(inside) {
            Some(Verp { id, scope: VerpScope::One(index) }) => (id, vec![vec![Affected::Index(index)]]),
            Some(Verp { id, scope: VerpScope::DomainOf(first) }) if named.is_empty() => {
                // Blacked out: whoever of them is there may be meant, as SES has it.
                (id, vec![domains.iter().map(|domain| among(first, Affected::At(domain.clone()))).collect()])
            }
            Some(Verp { id, scope: VerpScope::DomainOf(first) }) => {
                (id, named.into_iter().map(|address| vec![among(first, address)]).collect())
            }
            None => {
                let named = named.into_iter().map(|address| vec![address]).collect();
                (ours.message(original?.message_id.as_deref()?)?, named)
            }
        };
        let returned = whom.into_iter().map(|whom| (whom, complaint(report))).collect::<Vec<_>>();
        (!returned.is_empty()).then_some(Finding { id, returned })
    }
}

/// Whom a failure is about, of several whose first this is. Where it names nobody, it is
/// about one of them and nothing says which: that suppresses none.
fn of_several(first: u16, report: &StatusReport, failure: &StatusRecipient) -> (Vec<Affected>, ReturnedKind) {
    let named = failure.addresses().cloned().map(Affected::Address);
    let named: Vec<_> = named.map(|address| among(first, address)).collect();
    if !named.is_empty() {
        return (named, bounce(report, failure));
    }
    let of_nobody = StatusRecipient { bounce: None, ..failure.clone() };
    (vec![Affected::DomainOf(first)], bounce(report, &of_nobody))
}

/// The recipient, if it is of the domain that the transaction was for.
fn among(first: u16, meant: Affected) -> Affected {
    Affected::Among(first, Box::new(meant))
}

impl Ours<'_> {
    /// The message of a `Message-ID` that we gave.
    fn message(&self, message_id: &str) -> Option<MessageId> {
        let (id, domain) = message_id.rsplit_once('@')?;
        domain.eq_ignore_ascii_case(self.message_id_domain).then(|| id.to_ascii_lowercase().parse().ok())?
    }
}

/// The lower, the worse: what is certain goes before what is not.
fn severity(failure: &StatusRecipient) -> u8 {
    match failure.bounce {
        Some(kind) if kind.is_hard() => 0,
        None | Some(BounceKind::Undetermined) => 2,
        Some(_) => 1,
    }
}

fn bounce(report: &StatusReport, failure: &StatusRecipient) -> ReturnedKind {
    ReturnedKind::Bounce(ReturnedBounce {
        kind: failure.bounce.unwrap_or(BounceKind::Undetermined),
        action: report.standard.then(|| failure.action.told()),
        status: failure.status,
        diagnostic: failure.diagnostic.clone(),
        reporting_mta: report.reporting_mta.clone(),
    })
}

fn complaint(report: &ComplaintReport) -> ReturnedKind {
    ReturnedKind::Complaint(ReturnedComplaint {
        feedback_type: report.feedback_type.clone(),
        user_agent: report.user_agent.clone(),
        arrival_date: report.arrival_date,
    })
}

/// When a report was sent, by its own account; when it arrived, where that says nothing.
pub(crate) fn sent_at(reading: &Reading, arrived: Timestamp) -> Timestamp {
    reading.date.filter(|date| *date <= arrived).unwrap_or(arrived)
}
