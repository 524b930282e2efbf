//! What clients get wrong or try out: spellings, injections, secrets that go
//! astray; and what drivers tell the session of a client.

use postrider_base::Timestamp;

use super::*;
use crate::wire::HoldUntil;

#[test]
fn spellings_of_real_clients() {
    let mut driver = ready();
    for spelling in [
        "MAIL FROM: sender@example.com",
        "mail from:sender@example.com",
        "Mail From:<sender@example.com>   ",
        "MAIL  FROM:<sender@example.com> SIZE=10 \t",
        "MAIL FROM:< sender@example.com >",
    ] {
        assert_eq!(driver.say(&format!("{spelling}\r\nRSET\r\n")), "250 Ok\r\n250 Ok\r\n", "{spelling}");
    }
    driver.say("mail from: a@b.example\r\nrcpt to: c@d.example\r\ndata \r\nx\r\n.\r\n");
    assert_eq!(driver.messages[0].envelope.recipients[0].address.as_str(), "c@d.example");
}

#[test]
fn commands_answered_as_postfix_does() {
    let mut driver = ready();
    assert_eq!(driver.say("VRFY someone@example.com\r\n"), "252 someone@example.com\r\n");
    assert_eq!(driver.say("VRFY a\tb\r\n"), "252 a b\r\n");
    assert_eq!(driver.say("VRFY\r\n"), "501 Syntax: VRFY address [SMTPUTF8]\r\n");
    assert_eq!(driver.say("EXPN list\r\n"), "502 Error: command not implemented\r\n");
    assert_eq!(driver.say("HELP\r\n"), "500 Error: command not recognized\r\n");
    assert_eq!(driver.say("NOOP what ever\r\n"), "250 Ok\r\n");
    assert_eq!(driver.say("RSET all\r\n"), "501 Syntax: RSET\r\n");
    assert_eq!(driver.say("QUIT now\r\n"), "221 Bye\r\n");
    let mut driver = Driver::new(profile(TlsMode::Wrapper));
    assert_eq!(driver.say("VRFY someone@example.com\r\n"), "530 Authentication required\r\n");
}

/// RFC 3207 section 4.2: commands that someone put behind STARTTLS in clear
/// must not be obeyed inside TLS.
#[test]
fn what_was_injected_before_tls_is_not_obeyed_inside() {
    for cut in [false, true] {
        let mut driver = Driver::new(profile(TlsMode::StartTls));
        driver.say("EHLO c\r\n");
        let injected = "MAIL FROM:<evil@b.example>\r\nRCPT TO:<c@d.example>\r\nEHLO evil\r\nBDAT 100\r\n";
        // A part of a command too, that the first one inside TLS would complete.
        let injected = if cut { format!("{injected}RC") } else { injected.to_owned() };
        assert_eq!(driver.say(&format!("STARTTLS\r\n{injected}")), "220 Ready to start TLS\r\n");
        assert_eq!(driver.session.client_name(), None);
        assert_eq!(driver.say("DATA\r\n"), "530 Authentication required\r\n");
        assert!(
            driver.say("EHLO c\r\nAUTH PLAIN AHVzZXIAc2VjcmV0\r\n").ends_with("235 Authentication successful.\r\n")
        );
        assert_eq!(driver.say("DATA\r\n"), "503 Error: need RCPT command\r\n");
    }
}

#[test]
fn a_transaction_in_clear_does_not_reach_into_tls() {
    let mut both = profile(TlsMode::StartTls);
    both.require_tls_first = false;
    both.require_auth = false;
    let mut driver = Driver::new(both);
    driver.say("EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 1\r\nxSTARTTLS\r\n");
    assert_eq!(driver.say("BDAT 1 LAST\r\ny"), "503 Error: need RCPT command\r\n");
    assert_eq!(driver.say("MAIL FROM:<a@b.example>\r\n"), "503 Error: send HELO/EHLO first\r\n");
    assert!(driver.messages.is_empty());
}

#[test]
fn before_tls_only_what_leads_to_it() {
    let mut driver = Driver::new(profile(TlsMode::StartTls));
    let answer = driver.say("NOOP\r\nHELO c\r\nRSET\r\nVRFY a\r\nMAIL FROM:<> REQUIRETLS\r\nSTARTTLS now\r\nQUIT\r\n");
    let tls = "530 Must issue a STARTTLS command first\r\n";
    assert_eq!(answer, format!("250 Ok\r\n250 mail.example.com\r\n{tls}{tls}{tls}501 Syntax: STARTTLS\r\n221 Bye\r\n"));
}

#[test]
fn a_client_that_is_known_without_auth() {
    let mut driver = Driver::new(profile(TlsMode::StartTls));
    driver.session.identify();
    assert_eq!(
        driver.say("EHLO c\r\nMAIL FROM:<>\r\n").lines().last(),
        Some("530 Must issue a STARTTLS command first")
    );
    driver.session.allow_clear();
    assert_eq!(driver.say("MAIL FROM:<>\r\nRSET\r\n"), "250 Ok\r\n250 Ok\r\n");
    assert_eq!(driver.session.protocol(false), "ESMTP");
    driver.say("STARTTLS\r\n");
    driver.say("EHLO c\r\n");
    assert_eq!(driver.say("MAIL FROM:<>\r\nRSET\r\n"), "250 Ok\r\n250 Ok\r\n");
    assert_eq!((driver.session.protocol(false), driver.session.is_authenticated()), ("ESMTPS", false));
    assert_eq!(driver.say("AUTH PLAIN AHVzZXIAc2VjcmV0\r\n"), "235 Authentication successful.\r\n");
    assert_eq!(driver.session.protocol(false), "ESMTPSA");
    // Clear text alone does not make a client known.
    let mut driver = Driver::new(profile(TlsMode::StartTls));
    driver.session.allow_clear();
    assert!(driver.say("EHLO c\r\nMAIL FROM:<>\r\n").ends_with("530 Authentication required\r\n"));
}

#[test]
fn a_session_has_so_many_messages() {
    let mut few = open();
    few.limits.max_messages = 2;
    let mut driver = Driver::new(few);
    assert!(driver.say("EHLO c\r\n").contains("250-LIMITS RCPTMAX=50 MAILMAX=2\r\n"));
    let mail = "MAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\n";
    driver.say(mail);
    // A refused one does not count.
    assert_eq!(driver.say("MAIL FROM:<@>\r\n"), "501 Invalid MAIL FROM address provided\r\n");
    driver.say(mail);
    assert_eq!(driver.messages.len(), 2);
    assert_eq!(driver.say(mail), "421 Error: too many messages in this session\r\n");
    assert!(driver.closed);
}

#[test]
fn limits_are_announced_in_their_grammar() {
    let mut odd = open();
    odd.limits.max_recipients = 5_000_000;
    odd.limits.max_messages = 0;
    assert!(Driver::new(odd.clone()).say("EHLO c\r\n").contains("250-LIMITS RCPTMAX=999999 MAILMAX=1\r\n"));
    odd.extensions.limits = false;
    assert!(!Driver::new(odd).say("EHLO c\r\n").contains("LIMITS"));
}

#[test]
fn messages_may_wait() {
    let mut patient = open();
    patient.extensions.future_release = Some(3600);
    let mut driver = Driver::new(patient);
    assert!(!driver.say("EHLO c\r\n").contains("FUTURERELEASE"));
    assert_eq!(driver.say("MAIL FROM:<> HOLDFOR=60\r\n"), "555 Unsupported option: HOLDFOR\r\n");
    driver.session.tell_time(Timestamp::from_millis(1_795_237_200_000));
    let answer = driver.say("EHLO c\r\n");
    assert!(answer.contains("250-FUTURERELEASE 3600 2026-11-21T06:00:00"), "{answer}");
    assert_eq!(driver.say("MAIL FROM:<> HOLDFOR=3601\r\n"), "501 Bad value of option: HOLDFOR\r\n");
    driver.say("MAIL FROM:<> HOLDFOR=3600\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\n");
    assert_eq!(driver.messages[0].hold, Some(HoldUntil::For(3600)));
}

fn lines(driver: &mut Driver) -> Vec<String> {
    let show = |spoken| match spoken {
        Spoken::Client(line) => format!("> {line}"),
        Spoken::Server(line) => format!("< {line}"),
    };
    driver.session.take_transcript().into_iter().map(show).collect()
}

#[test]
fn a_transcript_has_everything_but_secrets_and_content() {
    let mut driver = Driver::new(profile(TlsMode::Wrapper));
    driver.say("");
    assert!(lines(&mut driver).is_empty());
    driver.session.transcribe(true);
    driver.say("HELO c\r\nAUTH PLAIN AHVzZXIAd3Jvbmc=\r\nAHVzZXIAc2VjcmV0\r\nAUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\n");
    assert_eq!(
        lines(&mut driver),
        [
            "> HELO c",
            "< 250 mail.example.com",
            "> AUTH PLAIN ***",
            "< 535 Authentication Credentials Invalid",
            "> [16 octets that are no command]",
            "< 500 Error: command not recognized",
            "> AUTH LOGIN",
            "< 334 VXNlcm5hbWU6",
            "> ***",
            "< 334 UGFzc3dvcmQ6",
            "> ***",
            "< 235 Authentication successful.",
        ]
    );
    driver.say("MAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nsecret\r\n..\r\n");
    driver.say(".\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nBDAT 6\r\nsecretBDAT 6 LAST\r\nsecret");
    let transcript = lines(&mut driver);
    assert!(transcript.iter().all(|line| !line.contains("secret")), "{transcript:?}");
    assert_eq!(transcript[6..8], ["> [15 octets]", "< 250 Ok MESSAGE-ID"]);
    assert_eq!(
        transcript[12..],
        ["> BDAT 6", "> [6 octets]", "< 250 Ok: 6 bytes", "> BDAT 6 LAST", "> [6 octets]", "< 250 Ok MESSAGE-ID"]
    );
    driver.session.transcribe(false);
    driver.say("NOOP\r\n");
    assert!(lines(&mut driver).is_empty());
}
