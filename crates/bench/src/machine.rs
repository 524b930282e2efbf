//! The session machine and the header work alone, in one thread and without a
//! socket: what callgrind counts.

use std::io;
use std::process::Command;
use std::sync::Arc;

use bytes::BytesMut;
use postrider_smtp::{Event, Profile, Session, TlsMode};
use postrider_submission::internal::rewrite_header;
use postrider_testkit::load;

/// Octets that come with one read: a TLS record.
const READ: usize = 16 * 1024;

/// Takes so many messages over one session.
pub(crate) fn work(messages: u64, size: usize) {
    let mut session = Session::new(Arc::new(Profile::open("mx.example", TlsMode::None)), "ID");
    let mut input = BytesMut::from("EHLO client.example\r\n");
    drive(&mut session, &mut input);
    let content = load::message("a@example.com", "b@example.org", size);
    for _ in 0..messages {
        input.extend_from_slice(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
        drive(&mut session, &mut input);
        for piece in content.chunks(READ) {
            input.reserve(READ);
            input.extend_from_slice(piece);
            drive(&mut session, &mut input);
        }
        input.extend_from_slice(b".\r\n");
        drive(&mut session, &mut input);
    }
}

fn drive(session: &mut Session, input: &mut BytesMut) {
    loop {
        match session.receive(input) {
            Event::NeedInput | Event::Close => break,
            Event::Message(message) => {
                // The header is all in the first read.
                let header = rewrite_header(&message.content[0]);
                std::hint::black_box(header.expect("the header is a good one"));
                session.accept_message(&"0100019000000000-00000000-0000-0000-0000-000000000000-000000");
            }
            _ => session.accept(),
        }
    }
    session.output().clear();
}

/// Instructions of one message, as callgrind counts them: the difference of two runs.
pub(crate) fn instructions(size: usize) -> io::Result<u64> {
    const FEW: u64 = 50;
    let (few, twice) = (count(FEW, size)?, count(2 * FEW, size)?);
    Ok((twice - few) / FEW)
}

fn count(messages: u64, size: usize) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["machine", &messages.to_string(), &size.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let number = text.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, number)| number.trim());
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no count of instructions in: {text}")))
}
