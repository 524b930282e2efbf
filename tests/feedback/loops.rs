//! Two relays whose mail all goes to the other's feedback listener.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use postrider_testkit::{Client, Endpoint, Relay, RelayOptions, Security, authority};
use serde_json::Value;

use crate::Outcome;

/// How long the queues must have been empty before the two count as silent.
const SILENCE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);

struct Pair {
    relays: [Relay; 2],
    feedback: [SocketAddr; 2],
}

/// The domain of return paths of either.
fn back(number: usize) -> String {
    format!("bounces{number}.test")
}

impl Pair {
    fn start() -> Result<Self, Box<dyn Error>> {
        let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
        let feedback = [free()?, free()?];
        let relay = |own: usize| {
            let other = 1 - own;
            // What nobody here wants is for the operator, who is at the other relay.
            let configuration = format!(
                "[[listener]]\naddress = \"{}\"\nrole = \"feedback\"\n\n\
                 [submission]\nreturn_path = \"verp\"\nreturn_path_domain = \"{}\"\n\n\
                 [feedback]\ncomplaint_addresses = [\"fbl@{}\"]\n\n[upkeep]\noperator_address = \"postmaster@{}\"\n",
                feedback[own],
                back(own),
                back(own),
                back(other)
            );
            Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), feedback[other], &configuration))
        };
        Ok(Self { relays: [relay(0)?, relay(1)?], feedback })
    }

    fn ask(&self, number: usize, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
        Ok(String::from_utf8(self.relays[number].cli(arguments)?.stdout)?)
    }

    /// Messages that either has taken so far to send them on.
    fn taken(&self) -> Result<[usize; 2], Box<dyn Error>> {
        let count = |number| {
            let events = self.ask(number, &["events", "since", "1h"])?;
            let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok::<_, Box<dyn Error>>(events.filter(|event| event["eventType"] == "Send").count())
        };
        Ok([count(0)?, count(1)?])
    }

    fn is_idle(&self) -> Result<bool, Box<dyn Error>> {
        for number in 0..2 {
            let waiting: Value = serde_json::from_str(&self.ask(number, &["queue", "list", "--json"])?)?;
            if waiting.as_array().is_none_or(|waiting| !waiting.is_empty()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until nobody writes to the other any more; how much it was.
    async fn silent(&self) -> Result<[usize; 2], Box<dyn Error>> {
        let wait = async {
            loop {
                let before = self.taken()?;
                tokio::time::sleep(SILENCE).await;
                if self.is_idle()? && self.taken()? == before {
                    return Ok(before);
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(taken) => taken,
            Err(_) => {
                Err(format!("they still write to each other: {:?}\n{}", self.taken()?, self.relays[0].log()?).into())
            }
        }
    }

    async fn stranger(&self, number: usize) -> Result<Client, Box<dyn Error>> {
        let trust = authority::roots(&self.relays[number].authority_pem())?;
        Ok(Endpoint::new(self.feedback[number], Security::None, "localhost", trust, false)?.connect().await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_of_a_bounce_is_the_last() -> Outcome {
    let pair = Pair::start()?;
    let relay = &pair.relays[0];
    let mut client = relay.endpoint(Security::StartTls, false)?.connect().await?;
    let (user, password) = relay.credentials();
    client.login(user, password).await?;
    // Nobody is there; the notice of that goes to where nobody is either.
    let content = b"From: app@sender.test\r\nSubject: x\r\n\r\nx\r\n";
    client.send("app@sender.test", &["nobody@bounces1.test"], content).await?.expect(250)?;
    let [first, second] = pair.silent().await?;
    assert!((1..=2).contains(&first), "the message, and the notice: {first}");
    assert_eq!(second, 0, "the other had nothing to say");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_who_are_each_others_do_not_get_a_mail_for_ever() -> Outcome {
    let pair = Pair::start()?;
    let report = "From: fbl@provider.example\r\nSubject: complaint\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/report; report-type=feedback-report; boundary=f\r\n\r\n\
        --f\r\nContent-Type: text/plain\r\n\r\nabuse\r\n--f\r\nContent-Type: message/feedback-report\r\n\r\n\
        Feedback-Type: abuse\r\nUser-Agent: x\r\nVersion: 1\r\n\r\n--f--\r\n";
    let person = "From: ann@example.net\r\nTo: postmaster@bounces0.test\r\nSubject: hello\r\n\r\nWho are you?\r\n";
    let mut client = pair.stranger(0).await?;
    client.send("", &["fbl@bounces0.test"], report.as_bytes()).await?.expect(250)?;
    client.send("ann@example.net", &["postmaster@bounces0.test"], person.as_bytes()).await?.expect(250)?;
    let taken = pair.silent().await?;
    assert!(taken.iter().all(|taken| *taken <= 60), "it went round and round: {taken:?}");
    Ok(())
}
