//! What a sender is told of a report: a delivery status notification of our own, since the
//! remote's came to a return path of ours.

use bytes::Bytes;
use postrider_events::{Acceptance, ReturnedBounce};
use postrider_mail::dsn::{self, DsnRecipient, DsnRequest};
use postrider_mail::{EmailAddress, EnhancedStatus, MessageId, Notify, Remote, Ret, Stage, VerpScope};
use postrider_submission::{Notification, OwnMessage, Submission};

use crate::original::Original;
use crate::status::{Action, StatusReport, without_type};

/// One notification, about at least one recipient.
pub(crate) struct Notice {
    action: dsn::Action,
    told: Vec<Told>,
}

struct Told {
    address: EmailAddress,
    status: EnhancedStatus,
    diagnostic: String,
    /// The host that reported it.
    remote: Option<Remote>,
}

impl Notice {
    /// Of recipients that failed. `None` where there are none.
    pub(crate) fn of_bounces(bounces: Vec<(EmailAddress, ReturnedBounce)>) -> Option<Self> {
        let told = bounces.into_iter().map(|(address, bounce)| {
            let class = if bounce.kind.is_hard() { 5 } else { 4 };
            let diagnostic = bounce.diagnostic.as_deref().map_or("The other mail server returned it.", without_type);
            Told {
                address,
                status: bounce.status.unwrap_or(EnhancedStatus::new(class, 0, 0)),
                diagnostic: diagnostic.to_owned(),
                remote: remote(bounce.reporting_mta.as_deref()),
            }
        });
        let told: Vec<_> = told.collect();
        (!told.is_empty()).then_some(Self { action: dsn::Action::Failed, told })
    }

    /// Of recipients of whom a report tells this, as far as they are the return path's: its only
    /// one, or those of its domain that the report names; and as far as the sender asked for it.
    pub(crate) fn of_progress(
        report: &StatusReport,
        action: Action,
        scope: VerpScope,
        acceptance: &Acceptance,
    ) -> Option<Self> {
        let mut told: Vec<Told> = Vec::new();
        for recipient in report.recipients.iter().filter(|recipient| recipient.action == action) {
            let named: Vec<String> = recipient.addresses().map(EmailAddress::fold).collect();
            let of = |index: u16| acceptance.recipients.get(usize::from(index));
            let address = match scope {
                VerpScope::One(only) => of(only),
                VerpScope::DomainOf(first) => {
                    let domain = of(first).map(EmailAddress::domain);
                    let mut beside = acceptance.recipients.iter().filter(|known| Some(known.domain()) == domain);
                    beside.find(|known| named.contains(&known.fold()))
                }
            };
            let address = address.filter(|address| is_asked_for(action, acceptance.wish(address).notify));
            let Some(address) = address.filter(|address| told.iter().all(|known| known.address != **address)) else {
                continue;
            };
            let class = if action == Action::Delayed { 4 } else { 2 };
            told.push(Told {
                address: address.clone(),
                status: recipient.status.unwrap_or(EnhancedStatus::new(class, 0, 0)),
                diagnostic: recipient.diagnostic.as_deref().map_or("", without_type).to_owned(),
                remote: remote(report.reporting_mta.as_deref()),
            });
        }
        (!told.is_empty()).then_some(Self { action: action.told(), told })
    }

    /// The mail, under this id. Its sender is nobody and what becomes of it is told to nobody, so that it
    /// starts no loop.
    pub(crate) fn compose(
        &self,
        id: MessageId,
        submission: &Submission,
        acceptance: &Acceptance,
        to: &EmailAddress,
        original: Option<&Original>,
        require_tls: bool,
    ) -> Option<OwnMessage> {
        let wishes: Vec<_> = self.told.iter().map(|told| acceptance.wish(&told.address)).collect();
        let told = self.told.iter().zip(&wishes).map(|(told, wish)| DsnRecipient {
            address: &told.address,
            orcpt: wish.orcpt.as_deref(),
            status: told.status,
            diagnostic: &told.diagnostic,
            remote: told.remote.as_ref(),
            at: id.timestamp(),
        });
        // Only fields of it, each in a line of ours: more than that nobody needs of what
        // strangers return.
        let original: Vec<Bytes> = original.map(|original| original.header().into()).into_iter().collect();
        submission.notification(&Notification {
            id,
            account: acceptance.account,
            require_tls,
            report: DsnRequest {
                action: self.action,
                to,
                id: acceptance.id,
                arrival: acceptance.at,
                retry_until: None,
                envid: acceptance.wishes.envid.as_deref(),
                recipients: &told.collect::<Vec<_>>(),
                original: &original,
                ret: Ret::Headers,
            },
        })
    }
}

/// Whether the sender wants to be told of what is no failure (RFC 3461 section 4.1).
fn is_asked_for(action: Action, notify: Notify) -> bool {
    if action == Action::Delayed { notify.wants_delay() } else { notify.wants_success() }
}

/// A host that a report names.
fn remote(named: Option<&str>) -> Option<Remote> {
    let host = without_type(named?).to_owned();
    (!host.is_empty()).then_some(Remote { host, ip: None, port: 25, source_ip: None, stage: Stage::EndOfData })
}
