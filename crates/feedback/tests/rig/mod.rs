//! A relay as far as feedback goes, with a real spool, journal and submission; and reports.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_account::Accounts;
use postrider_base::metrics::FeedbackOutcome;
use postrider_base::{Clock, Metrics, Random, Scope, SimDisk, Size, Timestamp};
use postrider_dns::Zones;
use postrider_events::{Driver, Events, EventsOptions, Issuer, Kind, Line, Start, TracingSink};
use postrider_feedback::{Arrived, Feedback, FeedbackOptions, FeedbackRules, Settings};
use postrider_mail::{
    AccountId, AttemptOutcome, Delays, Disposition, EmailAddress, EnhancedStatus, Envelope, MessageId, Notify,
    Recipient, SmtpReply, VerpScope,
};
use postrider_mailauth::MacKey;
use postrider_mailauth::verify::{VerificationSettings, Verifier};
use postrider_spool::{Content, Durability, Message, NewMessage, Origin, Record, Spool, SpoolOptions};
use postrider_store::Store;
use postrider_submission::{ReturnPaths, Submission, SubmissionDeps};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// What a relay has that outlives its processes.
pub(crate) struct Machine {
    pub(crate) spool: SimDisk,
    pub(crate) journal: SimDisk,
    pub(crate) random: Random,
}

pub(crate) struct Rig {
    pub(crate) spool: Spool,
    pub(crate) events: Events,
    pub(crate) paths: ReturnPaths,
    pub(crate) zones: Zones,
    pub(crate) submission: Submission,
    pub(crate) metrics: Metrics,
    pub(crate) random: Random,
    pub(crate) feedback: Feedback,
    pub(crate) scope: Scope,
}

pub(crate) fn rules() -> FeedbackRules {
    FeedbackRules {
        settings: Settings {
            complaint_addresses: vec!["fbl@relay.example".parse().unwrap()],
            passed_on_per_hour: 3,
            ..Settings::default()
        },
        operator: Some("ops@operator.example".parse().unwrap()),
        forwarding: true,
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { spool: SimDisk::new(), journal: SimDisk::new(), random: Random::seeded(7) }
    }

    pub(crate) async fn start(&self) -> Rig {
        let (clock, random, metrics) = (Clock::simulated(NOW), self.random.clone(), Metrics::new());
        let (spool, events) = (self.spool(&metrics).await, self.journal(&metrics).await);
        let scope = Scope::new("test");
        events.recovered().await.unwrap();
        events.run(&spool, Arc::new(TracingSink), &scope).unwrap();
        let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), Default::default()).unwrap();
        let accounts = Accounts::open(&store, &clock, &random, &Default::default()).unwrap();
        let deps = SubmissionDeps {
            spool: spool.clone(),
            accounts: accounts.clone(),
            clock: clock.clone(),
            random: random.clone(),
            metrics: metrics.clone(),
        };
        let settings = postrider_submission::Settings {
            hostname: Some("mx.relay.example".into()),
            operator_domain: Some("relay.example".into()),
            ..Default::default()
        };
        let submission = Submission::new(deps, settings);
        let paths = ReturnPaths::new(accounts, MacKey::new(&[1; 32]), "bounces.relay.example".parse().unwrap());
        let (zones, receiver) = (Zones::new(), "mx.relay.example".to_owned());
        let (resolver, settings) = (Arc::new(zones.clone()), VerificationSettings::default());
        let verifier = Verifier::new(resolver, clock.clone(), metrics.clone(), receiver, settings);
        let feedback = Feedback::new(FeedbackOptions {
            return_paths: paths.clone(),
            events: events.clone(),
            verifier,
            submission: submission.clone(),
            clock,
            random: random.clone(),
            metrics: metrics.clone(),
            rules: rules(),
        });
        Rig { spool, events, paths, zones, submission, metrics, random, feedback, scope }
    }

    pub(crate) async fn spool(&self, metrics: &Metrics) -> Spool {
        let options = SpoolOptions {
            disk: Arc::new(self.spool.clone()),
            dir: PathBuf::from("/spool"),
            index_dir: None,
            clock: Clock::simulated(NOW),
            settings: postrider_spool::Settings { min_free_bytes: Size::from_bytes(0), ..Default::default() },
            metrics: metrics.clone(),
            feeds: &[Events::FEED],
            start_held: false,
            accept_loss: false,
            driver: Driver::Thread,
        };
        Spool::open(options).await.unwrap()
    }

    pub(crate) async fn journal(&self, metrics: &Metrics) -> Events {
        let options = EventsOptions {
            disk: Arc::new(self.journal.clone()),
            dir: PathBuf::from("/journal"),
            view_dir: None,
            driver: Driver::Thread,
            clock: Clock::simulated(NOW),
            settings: Default::default(),
            metrics: metrics.clone(),
            issuer: Issuer {
                partition: "aws".into(),
                region: "us-east-1".into(),
                hostname: "mx.relay.example".into(),
                operator_domain: "relay.example".into(),
            },
            accept_loss: false,
        };
        Events::open(options).await.unwrap()
    }

    /// Ends the process, and cuts the power.
    pub(crate) async fn restart(&self, rig: Rig) -> Rig {
        self.spool.halt();
        self.journal.halt();
        rig.scope.close(Duration::from_secs(30)).await.unwrap();
        let _ = (rig.events.close().await, rig.spool.close().await);
        self.spool.crash(1);
        self.journal.crash(2);
        self.start().await
    }
}

pub(crate) async fn rig() -> Rig {
    Machine::new().start().await
}

impl Rig {
    /// A message of this sender that all its recipients' hosts have taken.
    pub(crate) async fn delivered(&self, sender: Option<&str>, recipients: &[&str]) -> Message {
        self.delivered_as(sender, recipients, "").await
    }

    /// The same of one that asks for this (NOTIFY, none where it is empty).
    pub(crate) async fn delivered_as(&self, sender: Option<&str>, recipients: &[&str], notify: &str) -> Message {
        let id = MessageId::new(0x0100, NOW, self.random.uuid_v4());
        let asks = !notify.is_empty();
        let recipients = recipients.iter().map(|to| Recipient {
            notify: if asks { notify.parse().unwrap() } else { Notify::default() },
            orcpt: asks.then(|| "rfc822;Original@example.net".into()),
            ..Recipient::new(to.parse().unwrap())
        });
        let recipients: Vec<_> = recipients.collect();
        let count = u16::try_from(recipients.len()).unwrap();
        let (sender, envid) = (sender.map(|s| s.parse().unwrap()), asks.then(|| "QQ314".into()));
        let envelope = Envelope { sender, recipients, envid, ..Envelope::default() };
        let origin = Origin { credential: Some("USER".into()), ..Origin::default() };
        let accepted = NewMessage {
            id,
            account: AccountId::default(),
            accepted_at: NOW,
            expires_at: NOW.saturating_add(Duration::from_hours(96)),
            not_before: None,
            tls_optional: false,
            envelope,
            origin,
            content: Content::from(b"Subject: hello\r\n\r\nhello\r\n".to_vec()),
        };
        self.spool.accept(accepted).await.unwrap();
        let claims = self.spool.take_due(10).await;
        let message = (*claims.iter().find(|claim| claim.message.id == id).unwrap().message).clone();
        drop(claims);
        let outcomes = (0..count).map(delivery).collect();
        self.spool.commit(vec![Record::Outcomes { id, outcomes }], Durability::Synced).await.unwrap();
        let mut reader = self.events.since(Start::Oldest);
        while !reader.follow().await.unwrap().iter().any(|line| line.id == id && line.kind == Kind::Delivery) {}
        message
    }

    pub(crate) fn path(&self, message: &Message, scope: VerpScope) -> EmailAddress {
        self.paths.of(message, scope).unwrap()
    }

    pub(crate) async fn arrives(&self, from: Option<&str>, to: &EmailAddress, content: &str) -> Result<(), SmtpReply> {
        self.arrives_for(from, std::slice::from_ref(to), content).await
    }

    /// A message for these.
    pub(crate) async fn arrives_for(
        &self,
        from: Option<&str>,
        to: &[EmailAddress],
        content: &str,
    ) -> Result<(), SmtpReply> {
        let recipients = to.iter().map(|to| self.feedback.recipient(to)).collect::<Result<_, _>>()?;
        let arrived = Arrived {
            session: "SESSION".into(),
            client: "192.0.2.9".parse().unwrap(),
            helo: Some("mx.example.net".into()),
            tls: false,
            require_tls: false,
            sender: from.map(|from| from.parse().unwrap()),
            recipients,
            content: vec![Bytes::from(content.replace('\n', "\r\n"))],
            at: NOW,
        };
        let taken = tokio::time::timeout(Duration::from_secs(30), self.feedback.take(arrived));
        taken.await.expect("nobody answers")
    }

    /// Late events, as `KIND JSON`.
    pub(crate) async fn late(&self) -> Vec<String> {
        let mut reader = self.events.since(Start::Oldest);
        let mut lines: Vec<Line> = Vec::new();
        loop {
            let next = reader.next().await.unwrap();
            if next.is_empty() {
                break;
            }
            lines.extend(next);
        }
        let late = lines.iter().filter(|line| matches!(line.kind, Kind::Bounce | Kind::Complaint));
        late.map(|line| format!("{} {}", line.kind.as_str(), String::from_utf8_lossy(&line.json))).collect()
    }

    /// The mail that was queued, at least one: recipient and text.
    pub(crate) async fn mails(&self) -> Vec<(String, String)> {
        self.mails_of(1).await
    }

    /// The same, at least so many.
    pub(crate) async fn mails_of(&self, count: usize) -> Vec<(String, String)> {
        let (mut mails, mut taken) = (Vec::new(), Vec::new());
        while mails.len() < count {
            for claim in self.spool.take_due(100).await {
                assert_eq!(claim.message.envelope.sender, None, "it may not bounce");
                let content = claim.content().await.unwrap().to_bytes();
                let to = claim.message.envelope.recipients[0].address.to_string();
                mails.push((to, String::from_utf8(content.to_vec()).unwrap()));
                taken.push(claim);
            }
        }
        mails
    }

    pub(crate) fn counted(&self, outcome: FeedbackOutcome) -> u64 {
        self.metrics.feedback_outcomes.of(outcome).get()
    }
}

pub(crate) fn delivery(recipient: u16) -> AttemptOutcome {
    AttemptOutcome {
        recipient,
        at: NOW,
        attempt: 1,
        disposition: Disposition::Delivered,
        status: EnhancedStatus::new(2, 0, 0),
        diagnostic: "250 ok".into(),
        remote: None,
        tls: None,
        delays: Delays::default(),
        next_attempt: None,
        record: None,
    }
}

pub(crate) fn bounce(recipient: &str, action: &str, said: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example.net\nSubject: Undelivered Mail\nAuto-Submitted: auto-replied\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=x\n\n--x\n\nNo.\n\n--x\n\
         Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n\n\
         Final-Recipient: rfc822; {recipient}\nAction: {action}\nStatus: 5.1.1\n\
         Diagnostic-Code: smtp; {said}\n\n--x\nContent-Type: text/rfc822-headers\n\n\
         Subject: hello\nX-Secret: no\n\n--x--\n"
    )
}

pub(crate) fn complaint(rcpt: &str, inside: &str) -> String {
    format!(
        "From: fbl@provider.example\nSubject: complaint\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=x\n\n--x\n\nNo.\n\n--x\n\
         Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: Loop/1.0\n{rcpt}\n--x\n\
         Content-Type: message/rfc822\n\n{inside}Subject: hello\n\nhello\n\n--x--\n"
    )
}
