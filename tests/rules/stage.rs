//! A daemon, a sink, and what is played between them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::Clock;
use postrider_testkit::client::{Client, Reply};
use postrider_testkit::{Accept, Policy, Received, Relay, RelayOptions, Security, Sink};
use serde_json::Value;
use tokio::sync::watch;

use crate::rows::{Row, Wanted, read};

/// The account of the first row; each further one has the next.
const FIRST_ACCOUNT: u64 = 100_000_000_001;
/// The recipient of rows that name none.
const SOMEBODY: &str = "somebody@sink.test";
/// How long something may take that happens behind the 250.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the sink took, and a sign for each.
#[derive(Clone)]
struct Kept {
    messages: Arc<Mutex<Vec<Received>>>,
    news: watch::Sender<()>,
}

/// Mailboxes of this name are unknown at the sink.
const UNKNOWN: &str = "unknown@";

impl Policy for Kept {
    fn recipient(&self, address: &str) -> String {
        match address.starts_with(UNKNOWN) {
            true => "550 5.1.1 no such user".to_owned(),
            false => Accept.recipient(address),
        }
    }

    fn message(&self, message: Received) -> String {
        self.messages.lock().push(message.clone());
        self.news.send_replace(());
        Accept.message(message)
    }
}

struct Stage {
    relay: Relay,
    kept: Kept,
    /// Events as they happen, so that nobody has to ask again and again.
    tail: Child,
    happened: watch::Receiver<()>,
    _sink: Sink,
}

/// Plays all rows of a table, each in an account of its own, and fails with all that differ.
pub(crate) async fn play(name: &str, table: &str) {
    let stage = Stage::start().await;
    let rows = read(table);
    let mut failures = Vec::new();
    for (account, row) in (FIRST_ACCOUNT..).zip(&rows) {
        if let Err(reason) = stage.row(&format!("{account:012}"), row).await {
            failures.push(format!("tests/rules/{name}:{}: {}\n    {reason}", row.line, row.cites));
        }
    }
    assert!(!rows.is_empty(), "{name} has no rows");
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

impl Stage {
    async fn start() -> Self {
        let kept = Kept { messages: Arc::default(), news: watch::Sender::new(()) };
        let sink = Sink::start(kept.clone(), Clock::system()).await.unwrap();
        let configuration = "[submission]\nunverified_senders = \"reject\"\n";
        let binary = env!("CARGO_BIN_EXE_postrider");
        let relay = Relay::start(RelayOptions::to(binary, sink.address(), configuration)).unwrap();
        let mut tail = Command::new(binary)
            .args(["events", "tail", "--config"])
            .arg(relay.path("relay.toml"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(tail.stdout.take().unwrap()).lines();
        let (sign, happened) = watch::channel(());
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|_| {
                sign.send_replace(());
            });
        });
        Self { relay, kept, tail, happened, _sink: sink }
    }

    async fn row(&self, account: &str, row: &Row) -> Result<(), String> {
        let (user, password) = self.credential(account, row)?;
        let file = self.relay.path("file");
        std::fs::write(&file, filled(&row.file, account, &user, "")).map_err(|error| error.to_string())?;
        for command in &row.given {
            let file = file.display().to_string();
            let words: Vec<String> = command.iter().map(|word| filled(word, account, &user, &file)).collect();
            self.run(account, &words)?;
        }
        let mut client = self.client(&user, &password).await?;
        for _ in 0..row.before {
            accepted(&submit(&mut client, row).await?).ok_or("a message before it was refused")?;
        }
        let reply = submit(&mut client, row).await?;
        let id = accepted(&reply);
        let said = format!("{} {}", reply.code, reply.text());
        let said = id.as_ref().map_or(said.clone(), |id| said.replace(id.as_str(), "ID"));
        let expected = filled(&row.reply, account, &user, "");
        if said != expected {
            return Err(format!("expected {expected}\n    got      {said}"));
        }
        client.quit().await.map_err(|error| error.to_string())?;
        match id {
            Some(id) => self.aftermath(&id, row, |text| filled(text, account, &user, "")).await,
            None => Ok(()),
        }
    }

    /// Makes the row's credential.
    fn credential(&self, account: &str, row: &Row) -> Result<(String, String), String> {
        let words = ["credentials", "create", "--json"].map(str::to_owned);
        let made = self.run(account, &[&words[..], &row.credential[..]].concat())?;
        let made: Value = serde_json::from_str(&made).map_err(|error| error.to_string())?;
        let field = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        Ok((field("user_name"), field("smtp_password")))
    }

    /// Runs a command, for the row's account unless it names one.
    fn run(&self, account: &str, words: &[String]) -> Result<String, String> {
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        let is_of_account = !matches!(words.first(), Some(&("accounts" | "queue")));
        if is_of_account && !words.contains(&"--account") && !words.contains(&"--credential") {
            words.extend(["--account", account]);
        }
        let output = self.relay.cli(&words).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn client(&self, user: &str, password: &str) -> Result<Client, String> {
        let said = |error: std::io::Error| error.to_string();
        let mut client = self.relay.endpoint(Security::StartTls, false).map_err(said)?.connect().await.map_err(said)?;
        client.login(user, password).await.map_err(said)?;
        Ok(client)
    }

    /// What becomes of the message behind its 250.
    async fn aftermath(&self, id: &str, row: &Row, filled: impl Fn(&str) -> String) -> Result<(), String> {
        if !row.delivered.is_empty() || !row.removed.is_empty() {
            let copy = self.delivered(id).await?;
            for line in &row.delivered {
                if !copy.split("\r\n").any(|other| other == line) {
                    return Err(format!("the delivered copy lacks {line}:\n{copy}"));
                }
            }
            for field in &row.removed {
                let start = format!("{}:", field.to_ascii_lowercase());
                if copy.to_ascii_lowercase().split("\r\n").any(|line| line.starts_with(&start)) {
                    return Err(format!("the delivered copy has {field}:\n{copy}"));
                }
            }
        }
        let mut events = Vec::new();
        for Wanted { kind, holds } in &row.events {
            let holds = holds.as_ref().map(|(place, value)| (place.clone(), filled(value)));
            events = self.event(id, &Wanted { kind: kind.clone(), holds }).await?;
        }
        let unwanted = |event: &&Value| row.no_events.iter().any(|kind| event["eventType"] == kind.as_str());
        events.iter().find(unwanted).map_or(Ok(()), |event| Err(format!("there is an event {event}")))
    }

    async fn delivered(&self, id: &str) -> Result<String, String> {
        let mut news = self.kept.news.subscribe();
        let found = async {
            loop {
                news.borrow_and_update();
                let messages = self.kept.messages.lock().clone();
                let copies = messages.iter().map(|message| String::from_utf8_lossy(&message.content).into_owned());
                if let Some(copy) = copies.into_iter().find(|copy| copy.contains(id)) {
                    return copy;
                }
                let _ = news.changed().await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.map_err(|_| "it was not delivered".to_owned())
    }

    /// Waits for an event; gives all events of the message.
    async fn event(&self, id: &str, wanted: &Wanted) -> Result<Vec<Value>, String> {
        let mut happened = self.happened.clone();
        let mut seen = Vec::new();
        let found = async {
            loop {
                happened.borrow_and_update();
                seen = self.events(id)?;
                if seen.iter().any(|event| is(event, wanted)) {
                    return Ok(());
                }
                happened.changed().await.map_err(|_| "the tail has ended".to_owned())?;
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(result) => result.map(|()| seen),
            Err(_) => Err(format!("no {wanted} among {seen:?}")),
        }
    }

    fn events(&self, id: &str) -> Result<Vec<Value>, String> {
        let output = self.relay.cli(&["events", "since", "1h"]).map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let events = text.lines().map(serde_json::from_str::<Value>);
        let events: Vec<_> = events.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        Ok(events.into_iter().filter(|event| event["mail"]["messageId"] == id).collect())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.tail.kill();
        let _ = self.tail.wait();
    }
}

fn is(event: &Value, wanted: &Wanted) -> bool {
    let holds = |(place, value): &(String, String)| match event.pointer(place) {
        Some(Value::String(text)) => text == value,
        Some(other) => serde_json::from_str::<Value>(value).is_ok_and(|value| value == *other),
        None => value == "-",
    };
    event["eventType"] == wanted.kind.as_str() && wanted.holds.as_ref().is_none_or(holds)
}

async fn submit(client: &mut Client, row: &Row) -> Result<Reply, String> {
    let recipients: Vec<&str> = match row.recipients.is_empty() {
        true => vec![SOMEBODY],
        false => row.recipients.iter().map(String::as_str).collect(),
    };
    let sent = client.send(&row.sender, &recipients, row.content().as_bytes()).await;
    sent.map_err(|error| error.to_string())
}

/// The id of a message that was accepted.
fn accepted(reply: &Reply) -> Option<String> {
    let id = reply.text().strip_prefix("Ok ")?;
    (reply.code == 250).then(|| id.to_owned())
}

fn filled(text: &str, account: &str, user: &str, file: &str) -> String {
    text.replace("{account}", account).replace("{user}", user).replace("{file}", file)
}
