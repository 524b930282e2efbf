//! From what arrives to the journal and the mail that it causes, with a real spool, journal and
//! submission.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_account::Accounts;
use postrider_base::metrics::FeedbackOutcome;
use postrider_base::{Clock, Metrics, Random, Scope, SimDisk, Size, Timestamp};
use postrider_dns::Zones;
use postrider_events::{Driver, Events, EventsOptions, Issuer, Kind, Line, Start, TracingSink};
use postrider_feedback::{Arrived, Feedback, FeedbackOptions, FeedbackRules, Mailbox, Settings};
use postrider_mail::{
    AccountId, AttemptOutcome, Delays, Disposition, EmailAddress, EnhancedStatus, Envelope, MessageId, Notify,
    Recipient, SmtpReply, VerpScope,
};
use postrider_mailauth::MacKey;
use postrider_mailauth::verify::{VerificationSettings, Verifier};
use postrider_spool::{Content, Durability, Message, NewMessage, Origin, Record, Spool, SpoolOptions};
use postrider_store::Store;
use postrider_submission::{ReturnPaths, Submission, SubmissionDeps};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// What a relay has that outlives its processes.
struct Machine {
    spool: SimDisk,
    journal: SimDisk,
    random: Random,
}

struct Rig {
    spool: Spool,
    events: Events,
    paths: ReturnPaths,
    submission: Submission,
    metrics: Metrics,
    random: Random,
    feedback: Feedback,
    scope: Scope,
}

fn rules() -> FeedbackRules {
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
    fn new() -> Self {
        Self { spool: SimDisk::new(), journal: SimDisk::new(), random: Random::seeded(7) }
    }

    async fn start(&self) -> Rig {
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
        let (zones, receiver) = (Arc::new(Zones::new()), "mx.relay.example".to_owned());
        let verifier = Verifier::new(zones, clock.clone(), metrics.clone(), receiver, VerificationSettings::default());
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
        Rig { spool, events, paths, submission, metrics, random, feedback, scope }
    }

    async fn spool(&self, metrics: &Metrics) -> Spool {
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

    async fn journal(&self, metrics: &Metrics) -> Events {
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
    async fn restart(&self, rig: Rig) -> Rig {
        self.spool.halt();
        self.journal.halt();
        rig.scope.close(Duration::from_secs(30)).await.unwrap();
        let _ = (rig.events.close().await, rig.spool.close().await);
        self.spool.crash(1);
        self.journal.crash(2);
        self.start().await
    }
}

async fn rig() -> Rig {
    Machine::new().start().await
}

impl Rig {
    /// A message of this sender that all its recipients' hosts have taken.
    async fn delivered(&self, sender: Option<&str>, recipients: &[&str]) -> Message {
        self.delivered_as(sender, recipients, "").await
    }

    /// The same of one that asks for this (NOTIFY, none where it is empty).
    async fn delivered_as(&self, sender: Option<&str>, recipients: &[&str], notify: &str) -> Message {
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

    fn path(&self, message: &Message, scope: VerpScope) -> EmailAddress {
        self.paths.of(message, scope).unwrap()
    }

    async fn arrives(&self, from: Option<&str>, to: &EmailAddress, content: &str) -> Result<(), SmtpReply> {
        let mailbox = self.feedback.recipient(to)?;
        let arrived = Arrived {
            session: "SESSION".into(),
            client: "192.0.2.9".parse().unwrap(),
            helo: Some("mx.example.net".into()),
            tls: false,
            require_tls: false,
            sender: from.map(|from| from.parse().unwrap()),
            recipients: vec![mailbox],
            content: vec![Bytes::from(content.replace('\n', "\r\n"))],
            at: NOW,
        };
        let taken = tokio::time::timeout(Duration::from_secs(30), self.feedback.take(arrived));
        taken.await.expect("nobody answers")
    }

    /// Late events, as `KIND JSON`.
    async fn late(&self) -> Vec<String> {
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
    async fn mails(&self) -> Vec<(String, String)> {
        self.mails_of(1).await
    }

    /// The same, at least so many.
    async fn mails_of(&self, count: usize) -> Vec<(String, String)> {
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

    fn counted(&self, outcome: FeedbackOutcome) -> u64 {
        self.metrics.feedback_outcomes.of(outcome).get()
    }
}

fn delivery(recipient: u16) -> AttemptOutcome {
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

fn bounce(recipient: &str, action: &str, said: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example.net\nSubject: Undelivered Mail\nAuto-Submitted: auto-replied\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=x\n\n--x\n\nNo.\n\n--x\n\
         Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n\n\
         Final-Recipient: rfc822; {recipient}\nAction: {action}\nStatus: 5.1.1\n\
         Diagnostic-Code: smtp; {said}\n\n--x\nContent-Type: text/rfc822-headers\n\n\
         Subject: hello\nX-Secret: no\n\n--x--\n"
    )
}

fn complaint(rcpt: &str, inside: &str) -> String {
    format!(
        "From: fbl@provider.example\nSubject: complaint\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=x\n\n--x\n\nNo.\n\n--x\n\
         Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: Loop/1.0\n{rcpt}\n--x\n\
         Content-Type: message/rfc822\n\n{inside}Subject: hello\n\nhello\n\n--x--\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_bounce_is_an_event_and_its_sender_is_told_once() {
    let rig = rig().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net"]).await;
    let path = rig.path(&message, VerpScope::One(0));
    let report = bounce("ann@example.net", "failed", "550 5.1.1 user unknown");
    rig.arrives(None, &path, &report).await.unwrap();
    rig.arrives(None, &path, &report).await.unwrap();
    let late = rig.late().await;
    assert_eq!(late.len(), 1, "{late:#?}");
    assert!(late[0].contains("\"bounceSubType\":\"NoEmail\""), "{late:?}");
    let mails = rig.mails().await;
    assert_eq!(mails.len(), 1);
    let (to, text) = &mails[0];
    assert_eq!(to, "jim@example.org");
    assert!(text.contains("Final-Recipient: rfc822; ann@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n"), "{text}");
    assert!(text.contains("Subject: hello") && !text.contains("X-Secret"), "{text}");
    assert_eq!((rig.counted(FeedbackOutcome::Journaled), rig.counted(FeedbackOutcome::Known)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_an_event_and_the_mail_about_it_loses_neither() {
    let machine = Machine::new();
    let rig = machine.start().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net"]).await;
    let path = rig.path(&message, VerpScope::One(0));
    let report = bounce("ann@example.net", "failed", "550 5.1.1 user unknown");
    machine.spool.halt();
    assert_eq!(rig.arrives(None, &path, &report).await.unwrap_err().code, 451);
    let mut rig = machine.restart(rig).await;
    assert_eq!(rig.late().await.len(), 1, "the journal had it");
    // The remote comes again; and once more, as one does that misses a reply.
    for queued in [1, 0] {
        rig.arrives(None, &path, &report).await.unwrap();
        rig.arrives(None, &path, &report).await.unwrap();
        assert_eq!((rig.late().await.len(), rig.metrics.feedback_mails.get()), (1, queued));
        let mails = rig.mails().await;
        assert!(mails[0].1.contains("Final-Recipient: rfc822; ann@example.net\r\nAction: failed\r\n"), "{mails:?}");
        rig = machine.restart(rig).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_earlier_visits_journaled_is_told_as_they_would_have_told_it() {
    let machine = Machine::new();
    let rig = machine.start().await;
    let both = ["ann@example.net", "bob@example.net"];
    let message = rig.delivered(Some("jim@example.org"), &both).await;
    let path = rig.path(&message, VerpScope::DomainOf(0));
    let of = |to: &str| bounce(to, "failed", "550 5.1.1 user unknown");
    rig.arrives(None, &path, &of(both[0])).await.unwrap();
    machine.spool.halt();
    assert_eq!(rig.arrives(None, &path, &of(both[1])).await.unwrap_err().code, 451);
    let rig = machine.restart(rig).await;
    // A report of what was told makes nothing good that is of another.
    rig.arrives(None, &path, &of(both[0])).await.unwrap();
    assert_eq!(rig.metrics.feedback_mails.get(), 0);
    rig.arrives(None, &path, &of(both[1])).await.unwrap();
    assert_eq!(rig.metrics.feedback_mails.get(), 1);
    let mails = rig.mails_of(2).await;
    for to in both {
        let told = mails.iter().filter(|(_, text)| text.contains(&format!("Final-Recipient: rfc822; {to}\r\n")));
        assert_eq!(told.count(), 1, "{to} in {mails:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_complaint_is_mailed_once_whatever_happens_between() {
    let machine = Machine::new();
    let rig = machine.start().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net", "bob@example.net"]).await;
    let path = |rig: &Rig, index| rig.path(&message, VerpScope::One(index));
    machine.spool.halt();
    let refused = rig.arrives(Some("fbl@provider.example"), &path(&rig, 0), &complaint("", "")).await;
    assert_eq!(refused.unwrap_err().code, 451);
    let mut rig = machine.restart(rig).await;
    for (index, queued) in [(0, 1), (0, 0), (1, 0)] {
        rig.arrives(Some("fbl@provider.example"), &path(&rig, index), &complaint("", "")).await.unwrap();
        assert_eq!(rig.metrics.feedback_mails.get(), queued, "the first complaint about a message says enough");
        rig = machine.restart(rig).await;
    }
    assert_eq!(rig.late().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_where_the_operator_does_not_want_it() {
    let rig = rig().await;
    let report = bounce("ann@example.net", "failed", "550 5.1.1 user unknown");
    rig.feedback.reload(FeedbackRules { forwarding: false, ..rules() });
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net"]).await;
    rig.arrives(None, &rig.path(&message, VerpScope::One(0)), &report).await.unwrap();
    assert_eq!(rig.late().await.len(), 1);
    assert_eq!(rig.metrics.feedback_mails.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_recipients_those_that_the_report_names_bounce_and_nobody_else() {
    let rig = rig().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net", "bob@example.net"]).await;
    let path = rig.path(&message, VerpScope::DomainOf(0));
    rig.arrives(None, &path, &bounce("mallory@example.net", "failed", "550 no")).await.unwrap();
    assert_eq!(rig.late().await, [] as [String; 0]);
    assert_eq!(rig.counted(FeedbackOutcome::Unknown), 1);
    rig.arrives(None, &path, &bounce("BOB@example.net", "failed", "552 5.2.2 mailbox full")).await.unwrap();
    let late = rig.late().await;
    assert_eq!(late.len(), 1);
    assert!(late[0].contains("[{\"emailAddress\":\"bob@example.net\""), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_nothing_hears_nothing_and_who_asks_hears_it_whatever_the_operator_wants() {
    let rig = rig().await;
    rig.feedback.reload(FeedbackRules { forwarding: false, ..rules() });
    let failed = bounce("ann@example.net", "failed", "550 5.1.1 user unknown");
    let delayed = bounce("ann@example.net", "delayed", "450 4.2.0 later");
    for (notify, report) in [("FAILURE,DELAY", &failed), ("NEVER", &failed), ("SUCCESS", &delayed), ("", &delayed)] {
        let message = rig.delivered_as(Some("jim@example.org"), &["ann@example.net"], notify).await;
        rig.arrives(None, &rig.path(&message, VerpScope::One(0)), report).await.unwrap();
    }
    rig.feedback.reload(rules());
    let never = rig.delivered_as(Some("jim@example.org"), &["ann@example.net"], "NEVER").await;
    rig.arrives(None, &rig.path(&never, VerpScope::One(0)), &failed).await.unwrap();
    assert_eq!(rig.late().await.len(), 3);
    let mails = rig.mails().await;
    assert_eq!(mails.len(), 1, "{mails:#?}");
    for field in ["Original-Envelope-Id: QQ314", "Original-Recipient: rfc822;Original@example.net", "Action: failed"] {
        assert!(mails[0].1.contains(&format!("{field}\r\n")), "{field} in {}", mails[0].1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_return_path_says_nothing_of_other_domains() {
    let rig = rig().await;
    let all = ["a@evil.example", "b@evil.example", "c@victim.example"];
    let message = rig.delivered(Some("jim@example.org"), &all).await;
    let path = rig.path(&message, VerpScope::DomainOf(0));
    rig.arrives(None, &path, &bounce("c@victim.example", "failed", "550 5.1.1 user unknown")).await.unwrap();
    let named = complaint("Original-Rcpt-To: c@victim.example\n", "");
    rig.arrives(Some("fbl@evil.example"), &path, &named).await.unwrap();
    assert_eq!(rig.late().await, [] as [String; 0]);
    assert_eq!((rig.counted(FeedbackOutcome::Unknown), rig.counted(FeedbackOutcome::Operator)), (1, 1));
    rig.arrives(None, &path, &bounce("b@evil.example", "failed", "550 5.1.1 user unknown")).await.unwrap();
    let late = rig.late().await;
    assert!(late.len() == 1 && late[0].contains("b@evil.example"), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_one_of_several_that_names_nobody_is_permanent_for_none() {
    let rig = rig().await;
    let all = ["a@one.example", "b@one.example", "c@two.example"];
    let message = rig.delivered(Some("jim@example.org"), &all).await;
    let path = rig.path(&message, VerpScope::DomainOf(0));
    rig.arrives(None, &path, &bounce("redacted", "failed", "550 5.1.1 user unknown")).await.unwrap();
    let late = rig.late().await;
    assert!(!late.is_empty() && late.iter().all(|event| event.contains("\"Undetermined\"")), "{late:?}");
    assert!(!late.iter().any(|event| event.contains("[{\"emailAddress\":\"c@two.example\"")), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_failure_is_no_event_and_told_once_where_that_is_asked_for() {
    let rig = rig().await;
    let message = rig.delivered_as(Some("jim@example.org"), &["ann@example.net"], "DELAY").await;
    let path = rig.path(&message, VerpScope::One(0));
    for _ in 0..2 {
        rig.arrives(None, &path, &bounce("ann@example.net", "delayed", "450 4.2.0 later")).await.unwrap();
    }
    assert_eq!(rig.late().await, [] as [String; 0]);
    let mails = rig.mails().await;
    assert_eq!(mails.len(), 1);
    assert!(mails[0].1.contains("Action: delayed"), "{}", mails[0].1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_automatic_reply_goes_on_to_the_sender_and_is_no_event() {
    let rig = rig().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net"]).await;
    let path = rig.path(&message, VerpScope::One(0));
    let reply = "From: ann@example.net\nSubject: Out of Office\nAuto-Submitted: auto-replied\n\
                 Authentication-Results: mx.relay.example; spf=pass\n\nI am away.\n";
    rig.arrives(None, &path, reply).await.unwrap();
    rig.arrives(Some("ann@example.net"), &path, reply).await.unwrap();
    assert_eq!(rig.late().await, [] as [String; 0]);
    let mails = rig.mails().await;
    assert_eq!(mails.len(), 1, "{mails:#?}");
    let (to, text) = &mails[0];
    assert_eq!(to, "jim@example.org");
    assert!(text.contains("Subject: Out of Office\r\n") && text.contains("I am away."), "{text}");
    assert!(text.contains("Auto-Submitted: auto-generated"), "{text}");
    assert_eq!(text.matches("Authentication-Results: mx.relay.example").count(), 1, "{text}");
    assert!(!text.contains("spf=pass\r\n\r\n"), "a forged field stayed: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_who_write_to_a_return_path_are_refused_and_unreadable_bounces_are_not() {
    let rig = rig().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net"]).await;
    let path = rig.path(&message, VerpScope::One(0));
    let refused = rig.arrives(Some("ann@example.net"), &path, "Subject: hi\n\nthanks\n").await.unwrap_err();
    assert_eq!(refused.code, 550);
    assert_eq!(rig.late().await, [] as [String; 0]);
    rig.arrives(None, &path, "Subject: hi\n\nsomething went wrong\n").await.unwrap();
    let late = rig.late().await;
    assert!(late[0].contains("\"bounceType\":\"Undetermined\""), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_complaint_is_believed_for_a_return_path_in_it_or_for_our_id_with_a_recipient() {
    let rig = rig().await;
    let fbl = "fbl@relay.example".parse().unwrap();
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net", "bob@example.net"]).await;
    let id = format!("Message-ID: <{}@{}>\n", message.id, rig.submission.message_id_domain());
    let ann = "Original-Rcpt-To: <ann@example.net>\n";
    rig.arrives(Some("fbl@provider.example"), &fbl, &complaint(ann, "")).await.unwrap();
    rig.arrives(Some("fbl@provider.example"), &fbl, &complaint("", &id)).await.unwrap();
    let mallory = "Original-Rcpt-To: <mallory@example.net>\n";
    rig.arrives(Some("fbl@provider.example"), &fbl, &complaint(mallory, &id)).await.unwrap();
    assert_eq!(rig.late().await, [] as [String; 0], "nothing proves them");
    let operators = rig.mails().await;
    assert_eq!(operators.iter().map(|(to, _)| to.as_str()).collect::<Vec<_>>(), ["ops@operator.example"; 3]);

    rig.arrives(Some("fbl@provider.example"), &fbl, &complaint(ann, &id)).await.unwrap();
    let path = format!("Return-Path: <{}>\n", rig.path(&message, VerpScope::One(1)));
    rig.arrives(Some("fbl@provider.example"), &fbl, &complaint("", &path)).await.unwrap();
    let late = rig.late().await;
    assert_eq!(late.len(), 2, "{late:#?}");
    assert!(
        late[0].starts_with("Complaint") && late[0].contains("[{\"emailAddress\":\"ann@example.net\"}]"),
        "{late:?}"
    );
    assert!(late[1].contains("[{\"emailAddress\":\"bob@example.net\"}]"), "{late:?}");
    let forged = format!("Return-Path: <a{}>\n", rig.path(&message, VerpScope::One(0)));
    assert!(rig.feedback.recipient(&forged[14..forged.len() - 2].parse().unwrap()).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_else_is_taken_and_what_is_for_the_operator_is_bounded_and_never_loops() {
    let rig = rig().await;
    let to = |text: &str| text.parse::<EmailAddress>().unwrap();
    for nobody in ["ann@example.net", "ann@bounces.relay.example", "postmaster@example.net", "x@relay.example"] {
        assert_eq!(rig.feedback.recipient(&to(nobody)).unwrap_err().code, 550, "{nobody}");
    }
    let postmaster = to("Postmaster@bounces.relay.example");
    assert!(matches!(rig.feedback.recipient(&postmaster), Ok(Mailbox::Operator(_))));
    let letter = "From: ann@example.net\nSubject: =?utf-8?q?hi?=\n\nhelp\n";
    for _ in 0..3 {
        rig.arrives(Some("ann@example.net"), &postmaster, letter).await.unwrap();
    }
    let later = rig.arrives(Some("ann@example.net"), &postmaster, letter).await.unwrap_err();
    assert_eq!(later.code, 451);
    let mails = rig.mails().await;
    assert_eq!(mails.len(), 3);
    let (to, text) = &mails[0];
    assert_eq!(to, "ops@operator.example");
    let back = text.replace("\r\n", "\n");
    assert_eq!(rig.arrives(None, &postmaster, &back).await.unwrap_err().code, 554, "it came back");
    rig.feedback.reload(FeedbackRules { operator: Some(postmaster.clone()), ..rules() });
    assert_eq!(rig.arrives(Some("ann@example.net"), &postmaster, letter).await.unwrap_err().code, 554);
    rig.feedback.reload(FeedbackRules { operator: None, ..rules() });
    assert_eq!(rig.feedback.recipient(&postmaster).unwrap_err().code, 550);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_journal_takes_nothing_the_client_is_told_to_come_again() {
    let rig = rig().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net"]).await;
    let path = rig.path(&message, VerpScope::One(0));
    rig.events.close().await.unwrap();
    let report = bounce("ann@example.net", "failed", "550 5.1.1 user unknown");
    assert_eq!(rig.arrives(None, &path, &report).await.unwrap_err().code, 451);
    assert_eq!(rig.counted(FeedbackOutcome::Later), 1);
    assert_eq!(rig.metrics.feedback_mails.get(), 0);
}
