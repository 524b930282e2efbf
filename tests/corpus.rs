//! Real messages go through the real daemon and come out byte for byte, but
//! for the header fields that a relay of this kind changes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use postrider_base::Clock;
use postrider_testkit::client::{Client, Security};
use postrider_testkit::lines::{stuffed, with_crlf};
use postrider_testkit::relay::{Relay, RelayOptions};
use postrider_testkit::{Record, Sink};

type Outcome = Result<(), Box<dyn Error>>;

/// Fields that are replaced or removed on the way (lower case; `x-ses-` is a
/// prefix of further ones).
const CHANGED: [&str; 4] = ["date", "message-id", "bcc", "return-path"];

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_is_delivered_byte_for_byte() -> Outcome {
    let samples = samples(&["mail-parser", "cpython", "made-up"])?;
    assert!(samples.len() >= 100, "only {} samples", samples.len());
    let kept = Record::default();
    let mut sink = Sink::start(kept.clone(), Clock::system()).await?;
    let relay = start(&sink)?;
    let mut client = connect(&relay).await?;
    let mut submitted = BTreeMap::new();
    for (index, path) in samples.iter().enumerate() {
        let content = with_crlf(&fs::read(path)?);
        let recipient = format!("sample-{index}@example.net");
        let reply = client.send("corpus@example.com", &[&recipient], &stuffed(&content)).await?;
        assert_eq!(reply.code, 250, "{}: {reply}", path.display());
        submitted.insert(recipient, (path, content));
    }
    client.quit().await?;
    sink.wait_for(samples.len() as u64).await;
    for message in kept.messages() {
        let [recipient] = message.recipients.as_slice() else { panic!("recipients {:?}", message.recipients) };
        let (path, content) = submitted.remove(recipient).ok_or("delivered twice")?;
        compare(path, content.as_slice(), &message.unstuffed());
    }
    assert!(submitted.is_empty(), "never delivered: {:?}", submitted.keys());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_ten_megabytes_passes_and_a_larger_one_does_not() -> Outcome {
    let kept = Record::default();
    let mut sink = Sink::start(kept.clone(), Clock::system()).await?;
    let relay = start(&sink)?;
    let mut client = connect(&relay).await?;
    let largest = attachment(10 * 1024 * 1024);
    let reply = client.send("a@example.com", &["big@example.net"], &largest).await?;
    assert_eq!(reply.code, 250, "{reply}");
    let reply = client.send("a@example.com", &["big@example.net"], &attachment(10 * 1024 * 1024 + 1)).await?;
    assert_eq!(reply.to_string(), "552 Message is too long.");
    // The session is still good for the next message.
    let reply = client.send("a@example.com", &["big@example.net"], &attachment(1000)).await?;
    assert_eq!(reply.code, 250, "{reply}");
    sink.wait_for(2).await;
    let big = kept.messages().into_iter().map(|message| message.unstuffed()).max_by_key(Vec::len);
    compare(Path::new("10 MiB"), &largest, &big.ok_or("nothing was delivered")?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_ambiguous_or_is_malformed_is_refused() -> Outcome {
    let mut sink = Sink::start(Record::default(), Clock::system()).await?;
    let relay = start(&sink)?;
    let mut client = connect(&relay).await?;
    for path in samples(&["refused"])? {
        let content = with_crlf(&fs::read(&path)?);
        let reply = client.send("corpus@example.com", &["refused@example.net"], &stuffed(&content)).await?;
        assert_eq!(reply.code, 554, "{}: {reply}", path.display());
    }
    let reply = client.send("a@example.com", &["good@example.net"], &attachment(1000)).await?;
    assert_eq!(reply.code, 250, "{reply}");
    sink.wait_for(1).await;
    assert_eq!(sink.accepted(), 1);
    Ok(())
}

fn start(sink: &Sink) -> std::io::Result<Relay> {
    let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), ""))?;
    // What the samples name.
    relay.cli(&["configuration-sets", "create", "ConfigSet"])?;
    relay.cli(&["identities", "create", "example.com", "--trust"])?;
    Ok(relay)
}

async fn connect(relay: &Relay) -> std::io::Result<Client> {
    let mut client = relay.endpoint(Security::StartTls, true)?.connect().await?;
    let (user, password) = relay.credentials();
    client.login(user, password).await?;
    Ok(client)
}

fn samples(folders: &[&str]) -> std::io::Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root.join(folder))? {
            found.push(entry?.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Compares all that must not change, and checks what must.
fn compare(sample: &Path, before: &[u8], after: &[u8]) {
    let name = sample.display();
    let (fields_before, body_before) = split(before);
    let (fields_after, body_after) = split(after);
    assert!(body_before == body_after, "{name}: the body changed");
    let [received, rest @ ..] = fields_after.as_slice() else { panic!("{name}: no header") };
    assert_eq!(received.0, "received", "{name}: the first field is not ours");
    for field in ["date", "message-id"] {
        assert_eq!(rest.iter().filter(|(name, _)| name == field).count(), 1, "{name}: {field}");
    }
    let same = |fields: &[(String, Vec<u8>)]| -> Vec<Vec<u8>> {
        fields.iter().filter(|(name, _)| !changed(name)).map(|(_, raw)| raw.clone()).collect()
    };
    assert_eq!(same(&fields_before), same(rest), "{name}: a header field changed");
    assert!(!rest.iter().any(|(name, _)| name == "bcc" || name.starts_with("x-ses-")), "{name}: a field leaked");
}

fn changed(name: &str) -> bool {
    CHANGED.contains(&name) || name.starts_with("x-ses-")
}

/// Header fields (lower-case name, all their bytes) and the body. A first line
/// that is no field ends the header, with or without an empty line.
fn split(message: &[u8]) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    let mut rest = message;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = &rest[..end + 2];
        let folded = line.starts_with(b" ") || line.starts_with(b"\t");
        if line == b"\r\n" {
            return (fields, rest[2..].to_vec());
        } else if let (true, Some((_, raw))) = (folded, fields.last_mut()) {
            raw.extend_from_slice(line);
        } else if let Some(name) = field_name(line) {
            fields.push((name, line.to_vec()));
        } else {
            break;
        }
        rest = &rest[end + 2..];
    }
    (fields, rest.to_vec())
}

fn field_name(line: &[u8]) -> Option<String> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?.trim_end();
    let lawful = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    lawful.then(|| name.to_ascii_lowercase())
}

/// A message with a base64 attachment, of exactly this many bytes.
fn attachment(size: usize) -> Vec<u8> {
    let mut message = b"From: a@example.com\r\nTo: big@example.net\r\nSubject: attachment\r\nMIME-Version: 1.0\r\n\
        Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    let end = size - 2;
    while message.len() < end {
        let line = (end - message.len()).min(76);
        message.extend(std::iter::repeat_n(b'A', line));
        if message.len() + 2 < end {
            message.extend_from_slice(b"\r\n");
        }
    }
    message.extend_from_slice(b"\r\n");
    assert_eq!(message.len(), size);
    message
}
