//! BDAT (RFC 3030).

use super::*;

const MAIL: &str = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n";
const MAIL_OK: &str = "250 Ok\r\n250 Ok\r\n";

/// Takes mail from anyone, in every form.
fn greeted(profile: Profile) -> Driver {
    let mut driver = Driver::new(profile);
    driver.say("EHLO c\r\n");
    driver
}

fn binary() -> Driver {
    let mut profile = open();
    profile.extensions.binary_mime = true;
    greeted(profile)
}

fn content(driver: &Driver) -> Vec<Vec<u8>> {
    driver.messages.iter().map(|message| message.content.concat()).collect()
}

#[test]
fn chunks_and_commands_in_one_read() {
    let mut driver = greeted(open());
    let answer =
        driver.say(&format!("{MAIL}BDAT 9\r\nS: x\r\n\r\n.BDAT 4\r\n\r\n.\rBDAT 0\r\nBDAT 1 LAST\r\n\nNOOP\r\n"));
    let chunks = "250 Ok: 9 bytes\r\n250 Ok: 4 bytes\r\n250 Ok: 0 bytes\r\n250 Ok MESSAGE-ID\r\n250 Ok\r\n";
    assert_eq!(answer, format!("{MAIL_OK}{chunks}"));
    assert_eq!(content(&driver), [b"S: x\r\n\r\n.\r\n.\r\n"]);
    assert!(driver.session.is_between_messages());
}

#[test]
fn an_end_of_data_in_a_chunk_ends_nothing() {
    let mut driver = greeted(open());
    let smuggled = "S: x\r\n\r\n.\r\nMAIL FROM:<evil@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n";
    let answer = driver.say(&format!("{MAIL}BDAT {} LAST\r\n{smuggled}NOOP\r\n", smuggled.len()));
    assert_eq!(answer, format!("{MAIL_OK}250 Ok MESSAGE-ID\r\n250 Ok\r\n"));
    assert_eq!(content(&driver), [smuggled.as_bytes()]);
}

#[test]
fn binary_content_is_exact() {
    let mut driver = binary();
    let octets = "\0\r\n.\r\n\n\r\r\n.\n";
    let mail = "MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<c@d.example>\r\n";
    driver.say(&format!("{mail}BDAT 3\r\n{}BDAT {} LAST\r\n{}", &octets[..3], octets.len() - 3, &octets[3..]));
    assert_eq!(content(&driver), [octets.as_bytes()]);
    assert_eq!(driver.messages[0].envelope.body, postrider_mail::BodyType::BinaryMime);
    // RFC 3030 section 3.
    assert_eq!(driver.say(&format!("{mail}DATA\r\n")), format!("{MAIL_OK}503 Error: BODY=BINARYMIME needs BDAT\r\n"));
}

#[test]
fn binary_content_is_taken_only_where_it_is_announced() {
    let mut driver = greeted(open());
    assert_eq!(driver.say("MAIL FROM:<> BODY=BINARYMIME\r\n"), "501 Bad value of option: BODY\r\n");
    let mut profile = open();
    profile.extensions.binary_mime = true;
    assert!(Driver::new(profile.clone()).say("EHLO c\r\n").contains("250-CHUNKING\r\n250-BINARYMIME\r\n"));
    profile.extensions.chunking = false;
    let answer = Driver::new(profile).say("EHLO c\r\n");
    assert!(!answer.contains("CHUNKING") && !answer.contains("BINARYMIME"), "{answer}");
}

#[test]
fn a_misplaced_chunk_is_read_before_it_is_refused() {
    let chunk = "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n";
    let mut driver = greeted(open());
    assert_eq!(driver.say(chunk), "503 Error: need RCPT command\r\n250 Ok\r\n");
    let mut profile_without = open();
    profile_without.extensions.chunking = false;
    assert_eq!(greeted(profile_without).say(chunk), "502 Error: command not implemented\r\n250 Ok\r\n");
    let mut driver = Driver::new(profile(TlsMode::StartTls));
    assert_eq!(driver.say(chunk), "530 Must issue a STARTTLS command first\r\n250 Ok\r\n");
    let mut driver = Driver::new(profile(TlsMode::Wrapper));
    assert_eq!(driver.say(chunk), "530 Authentication required\r\n250 Ok\r\n");
    assert!(driver.messages.is_empty());
    // There is no message that would be lost.
    driver.say("BDAT 100 LAST\r\nx");
    assert!(driver.session.is_receiving_content() && driver.session.is_between_messages());
}

#[test]
fn no_message_lacks_its_beginning() {
    let mut driver = greeted(open());
    driver.refuse = Some(SmtpReply::new(550, "no"));
    let need = "503 Error: need RCPT command\r\n";
    assert_eq!(driver.say(&format!("{MAIL}BDAT 3\r\nabc")), format!("250 Ok\r\n550 no\r\n{need}"));
    driver.refuse = None;
    let answer = driver.say("RCPT TO:<c@d.example>\r\nBDAT 3\r\ndefBDAT 3 LAST\r\nghi");
    assert_eq!(answer, format!("503 Error: RCPT after BDAT\r\n{need}{need}"));
    assert!(driver.messages.is_empty());
    assert_eq!(driver.say(&format!("{MAIL}BDAT 3 LAST\r\nabc")), format!("{MAIL_OK}250 Ok MESSAGE-ID\r\n"));
}

#[test]
fn what_the_driver_refuses_is_refused_in_every_chunk() {
    let mut driver = greeted(open());
    driver.refuse_content = Some(SmtpReply::new(452, "full"));
    let answer = driver.say(&format!("{MAIL}BDAT 3\r\nabcBDAT 3\r\ndefBDAT 0 LAST\r\nMAIL FROM:<>\r\n"));
    assert_eq!(answer, format!("{MAIL_OK}452 full\r\n452 full\r\n452 full\r\n250 Ok\r\n"));
    assert!(driver.messages.is_empty());
    // 421 does not wait for the chunk.
    let mut driver = greeted(open());
    driver.refuse_content = Some(SmtpReply::new(421, "away"));
    assert_eq!(driver.say(&format!("{MAIL}BDAT 1000\r\nabc")), format!("{MAIL_OK}421 away\r\n"));
    assert!(driver.closed);
}

#[test]
fn nothing_but_chunks_between_chunks() {
    let mut driver = greeted(open());
    driver.say(&format!("{MAIL}BDAT 2\r\nab"));
    assert!(!driver.session.is_between_messages() && !driver.session.is_receiving_content());
    assert_eq!(driver.say("DATA\r\n"), "503 Error: DATA after BDAT\r\n");
    assert_eq!(driver.say("MAIL FROM:<>\r\n"), "503 Error: nested MAIL command\r\n");
    assert_eq!(driver.say("RCPT TO:<e@f.example>\r\n"), "503 Error: RCPT after BDAT\r\n");
    assert_eq!(driver.say("NOOP\r\nBDAT 2 LAST\r\ncd"), "250 Ok\r\n250 Ok MESSAGE-ID\r\n");
    assert_eq!(content(&driver), [b"abcd\r\n"]);
    // After DATA there is no transaction left.
    let answer = driver.say(&format!("{MAIL}DATA\r\nx\r\n.\r\nBDAT 1 LAST\r\ny"));
    assert!(answer.ends_with("250 Ok MESSAGE-ID\r\n503 Error: need RCPT command\r\n"), "{answer}");
}

#[test]
fn rset_and_ehlo_forget_the_chunks() {
    for forget in ["RSET\r\n", "EHLO c\r\n"] {
        let mut driver = greeted(open());
        driver.say(&format!("{MAIL}BDAT 2\r\nab{forget}"));
        assert_eq!(driver.session.content_octets(), 0);
        assert_eq!(driver.say("BDAT 1 LAST\r\nc"), "503 Error: need RCPT command\r\n");
        driver.say(&format!("{MAIL}BDAT 2 LAST\r\nde"));
        assert_eq!(content(&driver), [b"de\r\n"]);
    }
}

#[test]
fn a_message_that_grows_too_long() {
    let mut profile = open();
    profile.limits.max_message_bytes = 10;
    let mut driver = greeted(profile);
    let long = "552 Message is too long.\r\n";
    let answer = driver.say(&format!("{MAIL}BDAT 8\r\n12345678BDAT 8\r\n12345678BDAT 0\r\nBDAT 1 LAST\r\nxNOOP\r\n"));
    assert_eq!(answer, format!("{MAIL_OK}250 Ok: 8 bytes\r\n{long}{long}{long}250 Ok\r\n"));
    // A chunk over the limit is not kept, and waited for.
    assert_eq!(driver.say(&format!("{MAIL}BDAT 18446744073709551615 LAST\r\n{}", "x".repeat(100))), MAIL_OK);
    assert!(driver.session.is_receiving_content() && driver.session.content_octets() == 0);
    assert!(driver.messages.is_empty());
}

#[test]
fn text_that_can_not_be_kept() {
    for (chunks, text) in [
        ("BDAT 4\r\nS: \rBDAT 4 LAST\r\nx\r\n\r", "Carriage return without line feed in the header."),
        ("BDAT 5 LAST\r\n\r\nx\0y", "NUL character in the message."),
    ] {
        let mut driver = greeted(open());
        let answer = driver.say(&format!("{MAIL}{chunks}NOOP\r\n"));
        assert!(answer.ends_with(&format!("554 Transaction failed: {text}\r\n250 Ok\r\n")), "{answer}");
        assert!(driver.messages.is_empty());
    }
}

#[test]
fn too_many_recipients_are_refused_at_the_last_chunk() {
    let mut profile = open();
    profile.limits.max_recipients = 1;
    let mut driver = greeted(profile);
    let answer = driver.say(&format!("{MAIL}RCPT TO:<e@f.example>\r\nBDAT 3\r\nabcBDAT 3 LAST\r\ndefNOOP\r\n"));
    let refused = "554 Transaction failed: Recipient count exceeds 1.\r\n";
    assert_eq!(answer, format!("{MAIL_OK}250 Ok\r\n250 Ok: 3 bytes\r\n{refused}250 Ok\r\n"));
    assert!(driver.messages.is_empty());
}

#[test]
fn a_chunk_without_an_end_ends_the_session() {
    let blanks = " ".repeat(3000);
    let too_long = [format!("BDAT 21{blanks}LAST"), format!("bdat\t{blanks}21 LAST")];
    let bad = ["BDAT", "BDAT -1 LAST", "BDAT 99999999999999999999 LAST", "BDAT 5 FIRST"];
    for bad in bad.into_iter().chain(too_long.iter().map(String::as_str)) {
        let mut driver = greeted(open());
        let answer = driver.say(&format!("{MAIL}{bad}\r\nMAIL FROM:<evil@b.example>\r\n"));
        let refused = "501 Syntax: BDAT size [LAST]\r\n421 Error: the end of the chunk is not known\r\n";
        assert_eq!(answer, format!("{MAIL_OK}{refused}"), "{bad}");
        assert!(driver.closed);
    }
}

#[test]
fn crumbs_are_counted() {
    for crumb in ["BDAT 0\r\n", "BDAT 1\r\nx"] {
        let mut driver = greeted(open());
        let answer = driver.say(&format!("{MAIL}{}", crumb.repeat(500)));
        assert!(answer.ends_with("421 Error: too many errors\r\n") && driver.closed, "{answer}");
    }
    let chunk = format!("BDAT 1024\r\n{}", "x".repeat(1024));
    let answer = greeted(open()).say(&format!("{MAIL}{}BDAT 0 LAST\r\n", chunk.repeat(500)));
    assert!(answer.ends_with("250 Ok MESSAGE-ID\r\n"), "{answer}");
}

#[test]
fn content_is_counted_and_dropped_on_demand() {
    let mut driver = greeted(open());
    driver.say(&format!("{MAIL}BDAT 8\r\n12345678"));
    assert_eq!(driver.session.content_octets(), 8);
    driver.say("BDAT 8\r\n1234");
    assert!(driver.session.is_receiving_content());
    assert_eq!(driver.session.content_octets(), 12);
    driver.session.discard_content(SmtpReply::new(452, "Insufficient system storage"));
    assert_eq!(driver.session.content_octets(), 0);
    let full = "452 Insufficient system storage\r\n";
    assert_eq!(driver.say("5678BDAT 1\r\nxBDAT 1 LAST\r\nyNOOP\r\n"), format!("{full}{full}{full}250 Ok\r\n"));
    // Between chunks.
    driver.say(&format!("{MAIL}BDAT 2\r\nab"));
    driver.session.discard_content(SmtpReply::new(452, "Insufficient system storage"));
    assert_eq!(driver.say("BDAT 2 LAST\r\ncd"), full);
    // After DATA: at its end.
    driver.say(&format!("{MAIL}DATA\r\nS: x\r\n"));
    assert_eq!(driver.session.content_octets(), 6);
    driver.session.discard_content(SmtpReply::new(452, "Insufficient system storage"));
    assert_eq!(driver.say("\r\nbody\r\n"), "");
    assert_eq!((driver.say(".\r\n"), driver.session.content_octets()), (full.to_owned(), 0));
    assert!(driver.messages.is_empty());
    // Where there is no content, nothing happens.
    driver.say(MAIL);
    driver.session.discard_content(SmtpReply::new(452, "Insufficient system storage"));
    driver.say("DATA\r\nx\r\n.\r\n");
    assert_eq!(content(&driver), [b"x\r\n"]);
}
