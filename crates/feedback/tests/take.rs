//! From what arrives to the journal and the mail that it causes, with a real spool, journal and
//! submission.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod rig;

use postrider_base::metrics::FeedbackOutcome;
use postrider_dns::zones::Failure;
use postrider_feedback::{FeedbackRules, Mailbox};
use postrider_mail::{EmailAddress, MessageId, VerpScope};

use rig::{Machine, NOW, Rig, bounce, complaint, rig, rules};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_answer_for_all_is_yes_where_one_was_served_and_makes_nothing_twice() {
    let rig = rig().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net"]).await;
    let path = rig.path(&message, VerpScope::One(0));
    let postmaster: EmailAddress = "postmaster@bounces.relay.example".parse().unwrap();
    let both = [postmaster, path];
    let letter = "From: ann@example.net\nSubject: hi\n\nhelp\n";
    rig.arrives_for(Some("ann@example.net"), &both, letter).await.unwrap();
    assert_eq!((rig.counted(FeedbackOutcome::Operator), rig.counted(FeedbackOutcome::Refused)), (1, 1));
    // Nothing remembers what went to the operator: that waits for the others.
    rig.events.close().await.unwrap();
    let report = bounce("ann@example.net", "failed", "550 5.1.1 user unknown");
    assert_eq!(rig.arrives_for(None, &both, &report).await.unwrap_err().code, 451);
    assert_eq!((rig.counted(FeedbackOutcome::Operator), rig.metrics.feedback_mails.get()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_complains_without_a_name_is_asked_again_while_it_may_be_known_and_not_for_ever() {
    let rig = rig().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net", "bob@example.net"]).await;
    let path = rig.path(&message, VerpScope::DomainOf(0));
    let fbl = Some("fbl@provider.example");
    let sent = |date: &str| format!("Date: {date}\n{}", complaint("", ""));
    rig.zones.fail("provider.example", Failure::ServFail);
    // It is 22:13:20.
    let young = sent("Tue, 14 Nov 2023 20:00:00 +0000");
    assert_eq!(rig.arrives(fbl, &path, &young).await.unwrap_err().code, 451);
    let fast = sent("Tue, 14 Nov 2023 22:15:00 +0000");
    assert_eq!(rig.arrives(fbl, &path, &fast).await.unwrap_err().code, 451);
    for old in ["Tue, 14 Nov 2023 18:00:00 +0000", "Tue, 14 Nov 2033 18:00:00 +0000", "yesterday"] {
        rig.arrives(fbl, &path, &sent(old)).await.unwrap();
    }
    assert_eq!((rig.counted(FeedbackOutcome::Later), rig.counted(FeedbackOutcome::Operator)), (2, 3));
    // More fields than are looked at: that does not pass.
    let never = format!("{}{young}", "X: x\n".repeat(2_001));
    rig.feedback.reload(FeedbackRules { operator: None, ..rules() });
    rig.arrives(fbl, &path, &never).await.unwrap();
    assert_eq!(rig.counted(FeedbackOutcome::Unknown), 1);
    // Once the DNS answers, it is about those of that domain.
    rig.zones.remove("provider.example").add_txt("example.net", "v=spf1 ip4:192.0.2.9 -all");
    rig.arrives(Some("fbl@example.net"), &path, &young).await.unwrap();
    assert_eq!(rig.late().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_report_for_several_messages_is_a_mail_to_each_sender() {
    let rig = rig().await;
    let (mut paths, senders) = (Vec::new(), ["jim@example.org", "jane@example.org"]);
    for sender in senders {
        let message = rig.delivered(Some(sender), &["ann@example.net"]).await;
        paths.push(rig.path(&message, VerpScope::One(0)));
    }
    rig.arrives_for(None, &paths, &bounce("ann@example.net", "failed", "550 5.1.1 user unknown")).await.unwrap();
    let mut to: Vec<_> = rig.mails_of(2).await.into_iter().map(|(to, _)| to).collect();
    to.sort();
    assert_eq!((to, rig.metrics.feedback_mails.get()), (vec![senders[1].to_owned(), senders[0].to_owned()], 2));
}

/// Who failed, in one report for the path of the first of them.
fn bounce_of(recipients: &[String]) -> String {
    let fields = |to: &String| {
        format!("Final-Recipient: rfc822; {to}\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 no\n\n")
    };
    let one = bounce("", "failed", "550 no");
    let (start, rest) = one.split_once("Final-Recipient").unwrap();
    let (_, end) = rest.split_once("--x\n").unwrap();
    format!("{start}{}--x\n{end}", recipients.iter().map(fields).collect::<String>())
}

/// In how many of the mails that were queued each of these is said to have failed.
async fn told(rig: &Rig, recipients: &[String]) -> Vec<usize> {
    let queued = usize::try_from(rig.metrics.feedback_mails.get()).unwrap();
    let mails = rig.mails_of(queued).await;
    let names = |to: &String| format!("Final-Recipient: rfc822; {to}\r\n");
    recipients.iter().map(|to| mails.iter().filter(|(_, text)| text.contains(&names(to))).count()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_visits_at_once_neither_tells_what_the_other_still_journals() {
    let rig = rig().await;
    let all: Vec<String> = (0..30).map(|number| format!("user-{number}@example.net")).collect();
    let message = rig.delivered(Some("jim@example.org"), &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let path = rig.path(&message, VerpScope::DomainOf(0));
    let (collective, single) = (bounce_of(&all), bounce_of(&all[..1]));
    let until_taken = async |report: &str| while rig.arrives(None, &path, report).await.is_err() {};
    let follows = async {
        while rig.late().await.is_empty() {
            tokio::task::yield_now().await;
        }
        until_taken(&single).await;
    };
    tokio::join!(until_taken(&collective), until_taken(&collective), follows);
    assert_eq!(rig.late().await.len(), 30);
    assert_eq!(told(&rig, &all).await, [1; 30]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_breaks_off_half_way_is_told_as_a_whole_once_it_comes_again() {
    let machine = Machine::new();
    let rig = machine.start().await;
    let all: Vec<String> = (0..30).map(|number| format!("user-{number}@example.net")).collect();
    let message = rig.delivered(Some("jim@example.org"), &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let path = rig.path(&message, VerpScope::DomainOf(0));
    let report = bounce_of(&all);
    let full = async {
        while rig.late().await.is_empty() {
            tokio::task::yield_now().await;
        }
        rig.events.close().await.unwrap();
    };
    let (broken, ()) = tokio::join!(rig.arrives(None, &path, &report), full);
    assert_eq!(broken.unwrap_err().code, 451);
    assert_eq!(rig.metrics.feedback_mails.get(), 0, "there is more to tell");
    let rig = machine.restart(rig).await;
    let journaled = rig.late().await.len();
    assert!((1..30).contains(&journaled), "{journaled}");
    rig.arrives(None, &path, &report).await.unwrap();
    assert_eq!(rig.late().await.len(), 30);
    assert_eq!(told(&rig, &all).await, [1; 30]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_gets_a_message_once_whichever_of_its_recipients_lead_there() {
    let rig = rig().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net"]).await;
    let fbl = "fbl@relay.example".parse().unwrap();
    // A message that is not in the journal any more, and an address for complaints.
    let mut retired = message.clone();
    retired.id = MessageId::new(0x0100, NOW, 77);
    let both = [rig.path(&retired, VerpScope::One(0)), fbl];
    rig.arrives_for(Some("fbl@provider.example"), &both, &complaint("", "")).await.unwrap();
    assert_eq!((rig.counted(FeedbackOutcome::Operator), rig.metrics.feedback_mails.get()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_could_not_be_queued_takes_nothing_from_what_its_sender_may_get() {
    let machine = Machine::new();
    let rig = machine.start().await;
    let message = rig.delivered(Some("jim@example.org"), &["ann@example.net"]).await;
    let path = rig.path(&message, VerpScope::One(0));
    let fbl = Some("fbl@provider.example");
    rig.spool.close().await.unwrap();
    // More than the sender may get in an hour.
    for _ in 0..5 {
        assert_eq!(rig.arrives(fbl, &path, &complaint("", "")).await.unwrap_err().code, 451);
    }
}
