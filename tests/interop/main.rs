//! Real programs that send mail, as their users set them up for SES: single
//! clients, libraries of many languages, and mail servers with the relay as
//! their smarthost. What `etc/smarthost` tells users is what runs here.

mod clients;
mod libraries;
mod smarthosts;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::relay::{Relay, RelayOptions};
use postrider_testkit::{Received, Record, Sink};

/// How long mail may take before the test calls it lost.
const PATIENCE: Duration = Duration::from_secs(60);

type Outcome = Result<(), Box<dyn Error>>;

/// A relay whose mail all goes to a sink that keeps it.
struct Scene {
    relay: Relay,
    sink: Sink,
    kept: Record,
}

impl Scene {
    async fn new() -> Result<Self, Box<dyn Error>> {
        let kept = Record::default();
        let sink = Sink::start(kept.clone(), Clock::system()).await?;
        let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), ""))?;
        std::fs::write(relay.path("ca.pem"), relay.authority_pem())?;
        // What clients name.
        relay.cli(&["configuration-sets", "create", "ConfigSet"])?;
        Ok(Self { relay, sink, kept })
    }

    fn port(&self, wrapper: bool) -> u16 {
        if wrapper { self.relay.wrapper().port() } else { self.relay.starttls().port() }
    }

    /// What has arrived, when it is so much; or after a minute, whatever it is.
    async fn delivered(&mut self, count: u64) -> Result<Vec<Received>, Box<dyn Error>> {
        let arrival = tokio::time::timeout(PATIENCE, self.sink.wait_for(count)).await;
        let messages = self.kept.messages();
        arrival.map_err(|_| {
            format!("{} of {count} messages arrived: {}", messages.len(), self.relay.log().unwrap_or_default())
        })?;
        Ok(messages)
    }
}

/// A message of some kind.
struct Mail {
    /// What its subject ends with.
    name: &'static str,
    recipients: Vec<String>,
    content: Vec<u8>,
}

/// One of each kind: plain, multipart, 8-bit, 5 MB, and with more recipients
/// in two domains. Lines end with LF, as programs read them.
fn mails() -> [Mail; 5] {
    let one = || vec!["one@example.net".to_owned()];
    let mail = |name, recipients: Vec<String>, rest: &str| {
        let content = format!("From: App <app@example.com>\nSubject: kind {name}\n{rest}").into_bytes();
        Mail { name, recipients, content }
    };
    let multipart = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=xyz\n\n--xyz\nContent-Type: text/plain\n\n\
        text\n--xyz\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\nAAECAwQ=\n--xyz--\n";
    let eight =
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nSchöne Grüße\n";
    let large =
        format!("\n{}", "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnop\n".repeat(5_000_000 / 63));
    let many = (0..40).map(|n| format!("r{n}@example.{}", if n % 2 == 0 { "net" } else { "org" })).collect();
    [
        mail("plain", one(), "\n.\n..dots\nlast line\n"),
        mail("multipart", one(), multipart),
        mail("8bit", one(), eight),
        mail("large", one(), &large),
        mail("many", many, "\nbody\n"),
    ]
}

/// Waits for all of [`mails`], each so often, and compares: sender, every
/// recipient once, the body to the byte.
async fn assert_arrived(scene: &mut Scene, sender: &str, times: usize) -> Outcome {
    let wanted = mails();
    // The relay makes a transaction of each recipient domain.
    let transactions = times * (wanted.len() + 1);
    let mut arrived = scene.delivered(transactions as u64).await?;
    // A smarthost may have cut the recipients into more.
    let recipients: usize = times * wanted.iter().map(|mail| mail.recipients.len()).sum::<usize>();
    while arrived.iter().map(|message| message.recipients.len()).sum::<usize>() < recipients {
        arrived = scene.delivered(arrived.len() as u64 + 1).await?;
    }
    for mail in &wanted {
        let line = format!("Subject: kind {}\r\n", mail.name);
        let (_, body) = split(&mail.content, b"\n\n").ok_or("a mail without body")?;
        let body = String::from_utf8_lossy(body).replace('\n', "\r\n");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for message in arrived.iter().filter(|message| contains(&message.content, line.as_bytes())) {
            assert_eq!(message.sender, sender, "{}", mail.name);
            let content = message.unstuffed();
            let (header, arrived) = split(&content, b"\r\n\r\n").ok_or("a message without body")?;
            assert!(arrived == body.as_bytes(), "the body of {} changed", mail.name);
            assert!(contains(header, b"SMTPSA id "), "{} did not come by TLS and AUTH", mail.name);
            message.recipients.iter().for_each(|recipient| *counts.entry(recipient).or_default() += 1);
        }
        assert_eq!(counts.len(), mail.recipients.len(), "{}", mail.name);
        assert!(counts.values().all(|count| *count == times), "{}: {counts:?}", mail.name);
    }
    Ok(())
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

fn split<'t>(text: &'t [u8], at: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let place = text.windows(at.len()).position(|window| window == at)?;
    Some((&text[..place], &text[place + at.len()..]))
}

/// A file of `etc/smarthost`, filled in for this relay.
fn smarthost(scene: &Scene, name: &str, port: u16) -> Result<String, Box<dyn Error>> {
    let (user, password) = scene.relay.credentials();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/smarthost").join(name))?;
    let ca = scene.relay.path("ca.pem").display().to_string();
    Ok(text
        .replace("HOST", "localhost")
        .replace("SMART_localhost", "SMART_HOST")
        .replace("PORT", &port.to_string())
        .replace("CAFILE", &ca)
        .replace("USERNAME", user)
        .replace("PASSWORD", password))
}

fn run(program: &str, arguments: &[String]) -> Result<Output, Box<dyn Error>> {
    pipe(Command::new(program).args(arguments), b"")
}

/// Runs a program to its end, with this on its standard input.
fn pipe(command: &mut Command, input: &[u8]) -> Result<Output, Box<dyn Error>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}; `cargo xtask test` installs it"))?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    let input = input.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    let printed = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    if !output.status.success() {
        return Err(format!("{program} failed: {}", String::from_utf8_lossy(&printed)).into());
    }
    writing.join().map_err(|_| "the writer panicked")?.map_err(|error| format!("{program} did not read: {error}"))?;
    Ok(output)
}
