//! Messages, outcomes and a small journal for tests.

use std::sync::Arc;

use postrider_account::Accounts;
use postrider_base::{Clock, Metrics, Period, Scope, SimDisk, Size, Timestamp};
use postrider_mail::dsn::Action;
use postrider_mail::{
    AccountId, AttemptOutcome, BounceKind, Delays, Disposition, EnhancedStatus, Envelope, MessageId, Recipient, Remote,
    Stage,
};
use postrider_spool::{AcceptedRecord, FeedItem, FeedRecord, Origin, OriginalHeaders};
use postrider_store::Store;
use postrider_wal::{Driver, Lsn};
use tokio::sync::oneshot;

use crate::handle::{Events, EventsOptions, Issuer};
use crate::journal::Journal;
use crate::reports::{Answer, HasRead, Report};
use crate::returned::{Affected, Reported, Returned, ReturnedBounce, ReturnedComplaint, ReturnedKind, ReturnedSource};
use crate::settings::Settings;

/// 2017-08-05T00:40:02.012Z
pub(crate) const ACCEPTED: Timestamp = Timestamp::from_millis(1_501_893_602_012);

pub(crate) fn issuer() -> Issuer {
    Issuer {
        partition: "aws".into(),
        region: "us-east-1".into(),
        hostname: "mta.example.com".into(),
        operator_domain: "example.org".into(),
    }
}

pub(crate) fn id(number: u128) -> MessageId {
    MessageId::new(0x0100, ACCEPTED, number)
}

pub(crate) fn later(period: Period) -> Timestamp {
    ACCEPTED.saturating_add(period.as_duration())
}

/// A message from Jane to these recipients.
pub(crate) fn message(number: u128, recipients: &[&str]) -> AcceptedRecord {
    let recipients = recipients.iter().map(|r| Recipient::new(r.parse().unwrap()));
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    AcceptedRecord {
        id: id(number),
        account: AccountId::default(),
        accepted_at: ACCEPTED,
        expires_at: later(Period::from_days(4)),
        envelope: Envelope {
            sender: Some("bounces@mail.example.com".parse().unwrap()),
            recipients: recipients.collect(),
            ..Envelope::default()
        },
        origin: Origin {
            credential: Some("AKIAEXAMPLE000000001".into()),
            client_ip: Some("192.0.2.10".parse().unwrap()),
            client_name: Some("client.example.com".into()),
            protocol: "ESMTPSA".into(),
            configuration_set: Some("ConfigSet".into()),
            tags: vec![field("campaign", "book"), field("campaign", "two"), field("ses:x", "no")],
            headers: OriginalHeaders {
                fields: vec![
                    field("From", "\"Doe, Jane\" <jane@example.com>"),
                    field("to", "a@example.net, B <b@example.net>"),
                    field("Subject", "Say \"hi\"\u{2028}"),
                    field("Message-ID", "<own@example.com>"),
                ],
                truncated: false,
            },
            ..Origin::default()
        },
        size: 1234,
        not_before: None,
        tls_optional: false,
    }
}

pub(crate) fn accepted(lsn: u64, record: AcceptedRecord) -> FeedItem {
    FeedItem { lsn: Lsn::new(lsn), index: 0, record: FeedRecord::Accepted(Arc::new(record)) }
}

pub(crate) fn outcomes(lsn: u64, number: u128, outcomes: Vec<AttemptOutcome>) -> FeedItem {
    FeedItem {
        lsn: Lsn::new(lsn),
        index: 0,
        record: FeedRecord::Outcomes { id: id(number), outcomes: outcomes.into() },
    }
}

pub(crate) fn outcome(recipient: u16, at: Timestamp, disposition: Disposition, diagnostic: &str) -> AttemptOutcome {
    let status = match disposition {
        Disposition::Delivered => EnhancedStatus::new(2, 0, 0),
        Disposition::Deferred(_) => EnhancedStatus::new(4, 4, 1),
        _ => EnhancedStatus::new(5, 1, 1),
    };
    AttemptOutcome {
        recipient,
        at,
        attempt: 1,
        disposition,
        status,
        diagnostic: diagnostic.into(),
        remote: Some(Remote {
            host: "mx.example.net".into(),
            ip: Some("198.51.100.7".parse().unwrap()),
            port: 25,
            source_ip: Some("192.0.2.1".parse().unwrap()),
            stage: Stage::EndOfData,
        }),
        tls: None,
        delays: Delays { before_queue_ms: 10, queue_ms: 20, connect_ms: 300, transmit_ms: 40 },
        next_attempt: None,
        record: None,
    }
}

/// A journal of small segments that keeps no message in memory.
pub(crate) fn options(disk: &SimDisk, clock: Clock) -> EventsOptions {
    EventsOptions {
        disk: Arc::new(disk.clone()),
        dir: "/journal".into(),
        view_dir: None,
        driver: Driver::Thread,
        clock,
        settings: Settings {
            message_memory: Size::from_bytes(1),
            segment_bytes: Size::from_kib(64),
            ..Settings::default()
        },
        metrics: Metrics::new(),
        issuer: issuer(),
        accept_loss: false,
    }
}

/// A journal that has been looked through.
pub(crate) async fn open(options: EventsOptions) -> Events {
    let events = Events::open(options).await.unwrap();
    events.recovered().await.unwrap();
    events
}

/// Journals items of the feed.
pub(crate) async fn take(journal: &Arc<Journal>, items: Vec<FeedItem>) {
    let digest = journal.digest(&items).unwrap();
    let committed = journal.append(&digest, &Scope::new("test")).await.unwrap().unwrap();
    journal.settle(&digest, &committed).unwrap();
}

/// Journals what comes back for a recipient of the message of this number.
pub(crate) async fn give_back(journal: &Arc<Journal>, number: u128, recipient: u16, what: ReturnedKind) {
    let (affected, source) = (Affected::Index(recipient), ReturnedSource::default());
    let returned = Returned { id: id(number), at: ACCEPTED, affected, what, source, notice: None };
    let report = Report { returned, answer: oneshot::channel().0 };
    let (digest, answers) = journal.digest_reports(&[report], Lsn::new(u64::MAX >> 1), HasRead::All);
    assert!(matches!(answers[..], [Ok(Answer::Reported(Reported::Journaled(_)))]), "{answers:?}");
    let committed = journal.try_append(&digest).await.unwrap().unwrap();
    journal.settle(&digest, &committed).unwrap();
}

/// A bounce of this kind that is reported later.
pub(crate) fn late_bounce(kind: BounceKind) -> ReturnedKind {
    let (action, status) = (Some(Action::Failed), Some(EnhancedStatus::new(5, 1, 1)));
    ReturnedKind::Bounce(ReturnedBounce { kind, action, status, diagnostic: None, reporting_mta: None })
}

/// A complaint of this type.
pub(crate) fn complaint(feedback_type: &str) -> ReturnedKind {
    ReturnedKind::Complaint(ReturnedComplaint { feedback_type: Some(feedback_type.into()), ..Default::default() })
}

/// Acts on what is journaled, until the scope ends.
pub(crate) fn follow(events: &Events, accounts: &Accounts, store: &Store, operator_domain: &str, scope: &Scope) {
    let follower = events.follower(accounts, store, Lsn::ZERO, operator_domain, scope).unwrap();
    scope.spawn("followers of the journal", follower.run(std::future::ready(())));
}
