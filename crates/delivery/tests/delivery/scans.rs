//! The virus scan: what it finds never leaves, and what it has not seen waits.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::metrics::ScanVerdict;
use postrider_base::{BoxStream, Period, SimNet};
use postrider_delivery::settings::Settings;
use postrider_delivery::why::Why;
use postrider_mail::{AttemptOutcome, Disposition, MessageId};
use postrider_spool::{NewMessage, OriginKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{DAY, HOUR, Rig, is_delivered, routes};
use crate::server::{Say, Server};

const SCANNER: &str = "127.0.0.1:3310";

/// A scanner that says of each message what a test wants.
#[derive(Clone, Default)]
struct Scanner(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    says: Says,
    /// Messages that it was shown.
    seen: Vec<String>,
    /// In scans now, and the most at the same time.
    open: (usize, usize),
}

#[derive(Clone, Copy, Default)]
enum Says {
    /// `Bad` is in the message: it has a virus.
    #[default]
    Verdict,
    After(Duration),
    Reply(&'static [u8]),
    /// A verdict, but of `Bad`.
    NothingOfBad,
    /// It answers PING, and hangs up on messages.
    HangUp,
    Nothing,
}

impl Scanner {
    fn start(net: &SimNet) -> Self {
        let scanner = Self::default();
        let (mut listener, served) = (net.listen(SCANNER.parse().unwrap()), scanner.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await;
                tokio::spawn(served.clone().serve(stream));
            }
        });
        scanner
    }

    async fn serve(self, mut stream: BoxStream) {
        let mut question = Vec::new();
        while !question.ends_with(b"\0") {
            if stream.read_buf(&mut question).await.unwrap_or(0) == 0 {
                return;
            }
            if question.starts_with(b"zINSTREAM\0") && question.ends_with(&[0; 4]) {
                break;
            }
        }
        if question == b"zPING\0" {
            drop(stream.write_all(b"PONG\0").await);
            return;
        }
        while !question.ends_with(&[0; 4]) {
            if stream.read_buf(&mut question).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let text = String::from_utf8_lossy(&question).into_owned();
        let is_bad = text.contains("Bad");
        let says = {
            let mut state = self.0.lock();
            state.seen.push(text);
            state.open.0 += 1;
            state.open.1 = state.open.1.max(state.open.0);
            state.says
        };
        let verdict: &[u8] = if is_bad { b"stream: Test.Virus FOUND\0" } else { b"stream: OK\0" };
        match says {
            Says::Verdict => drop(stream.write_all(verdict).await),
            Says::After(time) => {
                tokio::time::sleep(time).await;
                drop(stream.write_all(verdict).await);
            }
            Says::Reply(reply) => drop(stream.write_all(reply).await),
            Says::HangUp => {}
            Says::NothingOfBad if !is_bad => drop(stream.write_all(verdict).await),
            Says::Nothing | Says::NothingOfBad => std::future::pending().await,
        }
        self.0.lock().open.0 -= 1;
    }

    fn says(&self, says: Says) {
        self.0.lock().says = says;
    }

    fn scans(&self) -> usize {
        self.0.lock().seen.len()
    }
}

async fn rig() -> (Rig, Server) {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig.mx("example.org", "mx.example.org", "198.51.100.1");
    let server = Server::start(&rig.net, "198.51.100.1:25");
    (rig, server)
}

fn scanned() -> Settings {
    let mut settings = routes(&[]);
    settings.scan.clamd = Some(format!("tcp:{SCANNER}").parse().unwrap());
    settings
}

fn bad(rig: &Rig, recipients: &[&str]) -> NewMessage {
    NewMessage { content: b"Subject: x\r\n\r\nBad\r\n".to_vec().into(), ..rig.message(recipients) }
}

async fn why(rig: &Rig, delivery: &postrider_delivery::Delivery, id: MessageId) -> Why {
    let view = rig.spool.show(id).await.unwrap().expect("it waits");
    delivery.why(&view, &"example.com".parse().unwrap())
}

/// So long that what can happen has happened, and no retry is due.
async fn soon() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_message_is_scanned_once_for_all_its_domains() {
    let (mut rig, server) = rig().await;
    let scanner = Scanner::start(&rig.net);
    rig.deliver(scanned());
    let id = rig.send(&["ann@example.com", "bob@example.org"]).await;
    assert!(rig.outcomes(id, 2).await.iter().all(is_delivered));
    assert_eq!((scanner.scans(), server.seen().messages.len()), (1, 2));
    assert!(scanner.0.lock().seen[0].contains("First line.\r\n.second line\r\n"), "not the message's bytes");
    assert_eq!(rig.metrics.scans.of(ScanVerdict::Clean).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_virus_ends_the_whole_message_and_nobody_is_dialled() {
    let (mut rig, server) = rig().await;
    let scanner = Scanner::start(&rig.net);
    rig.deliver(scanned());
    let recipients = ["ann@example.com", "bob@example.org", "cat@missing.example"];
    let id = rig.accept(bad(&rig, &recipients)).await;
    let outcomes: Vec<AttemptOutcome> = rig.outcomes(id, 3).await;
    for outcome in &outcomes {
        assert_eq!(outcome.disposition, Disposition::Rejected);
        assert_eq!(outcome.diagnostic, "554 5.7.1 Message rejected: Bad content (Test.Virus)");
        assert_eq!((outcome.attempt, &outcome.remote), (1, &None));
    }
    soon().await;
    assert!(rig.spool.show(id).await.unwrap().is_none(), "it is still in the queue");
    let clean = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(clean).await));
    assert_eq!((scanner.scans(), server.seen().messages.len()), (2, 1));
    assert!(rig.accepted.iter().all(|record| record.origin.kind == OriginKind::Submission), "there was a bounce");
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_is_not_scanned_again() {
    let (mut rig, _) = rig().await;
    Server::scripted(&rig.net, "198.51.100.1:25", |moment| match moment.connection {
        0 => Say::Last("421 not now"),
        _ => Say::Usual,
    });
    let scanner = Scanner::start(&rig.net);
    rig.deliver(scanned());
    let id = rig.send(&["ann@example.com"]).await;
    let outcomes = rig.until_final(id).await;
    assert!(outcomes.len() > 1 && is_delivered(outcomes.last().unwrap()));
    assert_eq!(scanner.scans(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_scanner_mail_waits_and_says_why_and_goes_on_when_there_is_one() {
    let (mut rig, server) = rig().await;
    let delivery = rig.deliver(scanned());
    let ids = [rig.send(&["ann@example.com"]).await, rig.send(&["bob@example.com"]).await];
    tokio::time::sleep(Duration::from_secs(3600)).await;
    for id in ids {
        let found = why(&rig, &delivery, id).await;
        assert!(matches!(&found, Why::NotScanned { why, .. } if why.contains("no connection")), "{found:?}");
        let view = rig.spool.show(id).await.unwrap().unwrap();
        assert_eq!(view.recipients[0].attempts, 0, "waiting is no attempt");
    }
    assert_eq!((server.seen().connections, rig.metrics.scanner_up.get()), (0, 0));
    let scanner = Scanner::start(&rig.net);
    let began = rig.clock.now();
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    assert!(rig.clock.now().saturating_since(began) <= Duration::from_secs(11), "not as soon as it answered");
    assert_eq!((scanner.scans(), rig.metrics.scanner_up.get()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn mail_that_waits_for_a_scanner_ends_when_its_time_is_over() {
    let (mut rig, _) = rig().await;
    rig.deliver(scanned());
    let id = rig.send(&["ann@example.com"]).await;
    let began = rig.clock.now();
    let outcome = rig.outcome(id).await;
    assert!(matches!(outcome.disposition, Disposition::Bounced(_)), "{outcome:?}");
    assert!(outcome.diagnostic.contains("No virus scan: no connection"), "{}", outcome.diagnostic);
    let waited = rig.clock.now().saturating_since(began);
    assert!(waited >= 4 * DAY && waited < 4 * DAY + Duration::from_secs(700), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn so_it_is_behind_any_number_that_wait_longer() {
    let (mut rig, _server) = rig().await;
    rig.deliver(scanned());
    for _ in 0..1_200 {
        rig.send(&["ann@example.com"]).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut behind = Vec::new();
    for _ in 0..300 {
        let mut message = rig.message(&["bob@example.com"]);
        message.expires_at = message.accepted_at.saturating_add(HOUR / 2);
        behind.push(rig.accept(message).await);
    }
    for id in behind {
        let outcome = rig.outcome(id).await;
        assert!(matches!(outcome.disposition, Disposition::Bounced(_)), "{outcome:?}");
        let life = outcome.at.saturating_since(id.timestamp());
        assert!(life < HOUR / 2 + Duration::from_secs(15 * 60), "{life:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn mail_leaves_unscanned_only_where_the_operator_wants_that() {
    let (mut rig, _) = rig().await;
    let mut settings = scanned();
    settings.scan.scan_fail_open = true;
    rig.deliver(settings);
    let id = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert_eq!(rig.metrics.scans_skipped.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn garbage_silence_and_lost_connections_are_no_verdict() {
    for says in [Says::Reply(b"220 mail.example.com ESMTP\0"), Says::Nothing, Says::HangUp] {
        let (mut rig, server) = rig().await;
        let scanner = Scanner::start(&rig.net);
        scanner.says(says);
        rig.deliver(scanned());
        let id = rig.send(&["ann@example.com"]).await;
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(server.seen().connections, 0);
        let scans = scanner.scans();
        assert!((2..=101).contains(&scans), "{scans} scans: not again, or again and again");
        scanner.says(Says::Verdict);
        assert!(is_delivered(&rig.outcome(id).await));
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_while_the_scanner_is_there_is_not_read_again_for_each_further_failure() {
    let (rig, _) = rig().await;
    let scanner = Scanner::start(&rig.net);
    scanner.says(Says::HangUp);
    for _ in 0..200 {
        rig.send(&["ann@example.com"]).await;
    }
    let before = rig.disk.stats().reads;
    rig.deliver(scanned());
    soon().await;
    let reads = rig.disk.stats().reads - before;
    assert_eq!(scanner.scans(), 200);
    // The message, and its text to be scanned.
    assert!(reads <= 4 * 200, "{reads} reads");
    scanner.says(Says::Verdict);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(scanner.scans(), 400, "each has its own time");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_can_not_be_scanned_keeps_no_other_from_leaving() {
    let (mut rig, _) = rig().await;
    let scanner = Scanner::start(&rig.net);
    scanner.says(Says::Reply(b"INSTREAM size limit exceeded. ERROR\0"));
    let delivery = rig.deliver(scanned());
    let long = rig.send(&["ann@example.com"]).await;
    soon().await;
    scanner.says(Says::Verdict);
    let other = rig.send(&["bob@example.com"]).await;
    let began = rig.clock.now();
    assert!(is_delivered(&rig.outcome(other).await));
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(5));
    let found = why(&rig, &delivery, long).await;
    assert!(matches!(&found, Why::NotScanned { why, .. } if why.contains("size limit exceeded")), "{found:?}");
    assert!(is_delivered(&rig.outcome(long).await), "it was not tried again");
}

#[tokio::test(start_paused = true)]
async fn messages_on_which_the_scanner_chokes_hold_up_no_others() {
    let (mut rig, _) = rig().await;
    let scanner = Scanner::start(&rig.net);
    scanner.says(Says::NothingOfBad);
    let mut settings = scanned();
    settings.scan.connections = 2;
    rig.deliver(settings);
    for _ in 0..20 {
        rig.accept(bad(&rig, &["bob@example.com"])).await;
    }
    // Each of them has been tried once, for two minutes, beside the further tries.
    tokio::time::sleep(Duration::from_secs(20 * 120 + 60)).await;
    for _ in 0..60 {
        let id = rig.send(&["ann@example.com"]).await;
        let began = rig.clock.now();
        assert!(is_delivered(&rig.outcome(id).await));
        let waited = rig.clock.now().saturating_since(began);
        assert!(waited < Duration::from_secs(5), "{waited:?}");
        assert_eq!(rig.metrics.scanner_up.get(), 1, "it answers");
        tokio::time::sleep(Duration::from_secs(17)).await;
    }
    let (before, hour) = (scanner.scans(), Duration::from_secs(3_600));
    tokio::time::sleep(12 * hour).await;
    assert!(scanner.scans() - before <= 20 * 14, "they are tried again and again");
}

#[tokio::test(start_paused = true)]
async fn scans_at_the_same_time_have_a_bound_and_those_that_wait_say_so() {
    let (mut rig, _) = rig().await;
    let scanner = Scanner::start(&rig.net);
    scanner.says(Says::After(Duration::from_secs(60)));
    let mut settings = scanned();
    settings.scan.connections = 2;
    let delivery = rig.deliver(settings);
    let mut ids = Vec::new();
    // More than wait outside of the spool.
    for _ in 0..100 {
        ids.push(rig.send(&["ann@example.com"]).await);
    }
    soon().await;
    let found = why(&rig, &delivery, ids[0]).await;
    assert!(matches!(found, Why::Scanning { .. }), "{found:?}");
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    let (_, most) = scanner.0.lock().open;
    assert_eq!((most, scanner.scans()), (2, 100));
}

#[tokio::test(start_paused = true)]
async fn what_waits_leaves_when_the_settings_say_that_nothing_is_scanned() {
    let (mut rig, _) = rig().await;
    let delivery = rig.deliver(scanned());
    let id = rig.send(&["ann@example.com"]).await;
    soon().await;
    let began = rig.clock.now();
    delivery.reload(routes(&[])).unwrap();
    assert!(is_delivered(&rig.outcome(id).await));
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_what_was_not_tried_is_scanned() {
    let (mut rig, _) = rig().await;
    let mut settings = scanned();
    settings.scan.retry = Period::from_mins(5);
    rig.deliver(settings.clone());
    let id = rig.accept(bad(&rig, &["ann@example.com"])).await;
    soon().await;
    rig.power_cut().await;
    Scanner::start(&rig.net);
    rig.deliver(settings);
    assert_eq!(rig.outcome(id).await.disposition, Disposition::Rejected);
}
