//! A relay with a listener for feedback, and the mailboxes at the end of the way.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::{
    Accept, Client, Endpoint, Policy, Received, Record, Relay, RelayOptions, Reply, Security, Sink, authority,
};
use serde_json::Value;

/// Whom everything comes from.
pub(crate) const SENDER: &str = "app@sender.test";
/// The domain of return paths.
pub(crate) const BACK: &str = "bounces.relay.test";
/// Where providers send their complaints.
pub(crate) const COMPLAINTS: &str = "fbl@bounces.relay.test";
/// How long anything may take before the test calls it lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes mail for everybody but some, and keeps it.
#[derive(Clone, Default)]
struct Mailboxes(Record);

impl Policy for Mailboxes {
    fn recipient(&self, address: &str) -> String {
        match address.split(['-', '@']).next().unwrap_or_default() {
            "gone" => "550 5.1.1 user unknown".to_owned(),
            "full" => "552 5.2.2 mailbox full".to_owned(),
            _ => Accept.recipient(address),
        }
    }

    fn message(&self, message: Received) -> String {
        self.0.message(message)
    }
}

/// Where mail ends, and a place where the relay will take what comes back.
pub(crate) struct Ground {
    sink: Sink,
    kept: Record,
    /// Where feedback is taken.
    pub(crate) feedback: SocketAddr,
}

impl Ground {
    pub(crate) async fn new() -> Result<Self, Box<dyn Error>> {
        let mailboxes = Mailboxes::default();
        let kept = mailboxes.0.clone();
        let sink = Sink::start(mailboxes, Clock::system()).await?;
        let feedback = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(Self { sink, kept, feedback })
    }

    /// The port of the mailboxes.
    pub(crate) fn mailboxes(&self) -> SocketAddr {
        self.sink.address()
    }

    /// A relay whose mail all goes to this host.
    pub(crate) fn world(self, next: SocketAddr, more: &str) -> Result<World, Box<dyn Error>> {
        let configuration = configuration(self.feedback, more);
        let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), next, &configuration))?;
        Ok(World { relay, sink: self.sink, kept: self.kept, feedback: self.feedback })
    }
}

/// What makes a relay take its own bounces there.
pub(crate) fn configuration(feedback: SocketAddr, more: &str) -> String {
    format!(
        "[[listener]]\naddress = \"{feedback}\"\nrole = \"feedback\"\n\n\
         [submission]\nreturn_path = \"verp\"\nreturn_path_domain = \"{BACK}\"\n\n\
         [feedback]\ncomplaint_addresses = [\"{COMPLAINTS}\"]\n\n{more}"
    )
}

pub(crate) struct World {
    pub(crate) relay: Relay,
    pub(crate) feedback: SocketAddr,
    sink: Sink,
    kept: Record,
}

impl World {
    /// A relay that brings its mail to the mailboxes itself.
    pub(crate) async fn direct(more: &str) -> Result<Self, Box<dyn Error>> {
        let ground = Ground::new().await?;
        let next = ground.mailboxes();
        ground.world(next, more)
    }

    /// Submits a message; its id.
    pub(crate) async fn send(&self, recipients: &[&str], subject: &str) -> Result<String, Box<dyn Error>> {
        let mut client: Client = self.relay.endpoint(Security::StartTls, true)?.connect().await?;
        let (user, password) = self.relay.credentials();
        client.login(user, password).await?;
        let content = format!("From: App <{SENDER}>\r\nSubject: {subject}\r\n\r\nbody\r\n");
        let reply = client.send(SENDER, recipients, content.as_bytes()).await?.expect(250)?;
        Ok(reply.text().split_whitespace().last().ok_or("no id")?.to_owned())
    }

    /// A connection to the feedback listener, as any host may have one.
    pub(crate) async fn stranger(&self) -> Result<Client, Box<dyn Error>> {
        let trust = authority::roots(&self.relay.authority_pem())?;
        Ok(Endpoint::new(self.feedback, Security::None, "localhost", trust, false)?.connect().await?)
    }

    /// Brings a message to the feedback listener, from the null sender.
    pub(crate) async fn bring(&self, to: &str, content: &str) -> Result<Reply, Box<dyn Error>> {
        let mut client = self.stranger().await?;
        Ok(client.send("", &[to], content.as_bytes()).await?)
    }

    /// The first message at the mailboxes with this text in it.
    pub(crate) async fn arrived(&mut self, text: &str) -> Result<Received, Box<dyn Error>> {
        let has = |message: &Received| String::from_utf8_lossy(&message.unstuffed()).contains(text);
        let find = async {
            loop {
                let count = self.sink.accepted();
                if let Some(message) = self.kept.messages().into_iter().find(has) {
                    return message;
                }
                self.sink.wait_for(count + 1).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, find).await;
        Ok(found.map_err(|_| format!("never came: {text}\n{}", self.relay.log().unwrap_or_default()))?)
    }

    /// What came to the mailboxes.
    pub(crate) fn mailboxes(&self) -> Vec<Received> {
        self.kept.messages()
    }

    /// A message that the mailboxes took, with the return path that it had.
    pub(crate) async fn delivered(&mut self, recipients: &[&str], subject: &str) -> Result<Sent, Box<dyn Error>> {
        let id = self.send(recipients, subject).await?;
        let message = self.arrived(&format!("Subject: {subject}\r\n")).await?;
        let content = String::from_utf8(message.unstuffed())?;
        self.until(&format!("a Delivery of {id}"), || self.events(&id, "Delivery").map(|all| !all.is_empty())).await?;
        Ok(Sent { id, return_path: message.sender, content })
    }

    /// The events of this type for this message, so far.
    pub(crate) fn events(&self, id: &str, kind: &str) -> Result<Vec<Value>, Box<dyn Error>> {
        let told = String::from_utf8(self.relay.cli(&["events", "since", "1h"])?.stdout)?;
        let events = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.filter(|event| event["eventType"] == kind && event["mail"]["messageId"] == id).collect())
    }

    /// The only event of this type for this message, when it is there.
    pub(crate) async fn event(&self, id: &str, kind: &str) -> Result<Value, Box<dyn Error>> {
        let there = || Ok(!self.events(id, kind)?.is_empty());
        self.until(&format!("a {kind} of {id}"), there).await?;
        let [event] = &self.events(id, kind)?[..] else { return Err(format!("more than one {kind} of {id}").into()) };
        Ok(event.clone())
    }

    /// What a command answers.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_slice(&self.relay.cli(&[arguments, &["--json"]].concat())?.stdout)?)
    }

    /// The reason that an address is suppressed for, when it is.
    pub(crate) async fn suppressed(&self, address: &str) -> Result<Value, Box<dyn Error>> {
        let get = ["suppression", "get", address, "--json"];
        self.until(&format!("{address} on the list"), || Ok(self.relay.cli(&get).is_ok())).await?;
        Ok(self.ask(&get[..3])?["SuppressedDestination"]["Reason"].clone())
    }

    pub(crate) fn is_suppressed(&self, address: &str) -> bool {
        self.relay.cli(&["suppression", "get", address, "--json"]).is_ok()
    }

    /// Waits until it is so.
    pub(crate) async fn until(
        &self,
        what: &str,
        is_so: impl Fn() -> Result<bool, Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let wait = async {
            while !is_so()? {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(waited) => waited,
            Err(_) => Err(format!("not in time: {what}\n{}", self.relay.log()?).into()),
        }
    }
}

/// A message that somebody has.
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) return_path: String,
    pub(crate) content: String,
}

impl Sent {
    /// A bounce of it as RFC 3464 has it.
    pub(crate) fn bounce(&self, recipient: &str, status: &str, diagnostic: &str) -> String {
        let header = self.content.split("\r\n\r\n").next().unwrap_or_default();
        format!(
            "From: MAILER-DAEMON@mx.example.net\r\nTo: {}\r\nSubject: Undelivered Mail\r\nMessage-ID: <bounce@mx.example.net>\r\n\
             Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=\"=b\"\r\n\r\n\
             --=b\r\nContent-Type: text/plain\r\n\r\nYour message could not be delivered.\r\n\
             --=b\r\nContent-Type: message/delivery-status\r\n\r\n\
             Reporting-MTA: dns; mx.example.net\r\n\r\n\
             Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: {status}\r\n\
             Diagnostic-Code: smtp; {diagnostic}\r\n\r\n\
             --=b\r\nContent-Type: text/rfc822-headers\r\n\r\n{header}\r\n\r\n--=b--\r\n",
            self.return_path
        )
    }

    /// A complaint about it as RFC 5965 has it.
    pub(crate) fn complaint(&self, kind: &str, recipient: &str) -> String {
        format!(
            "From: fbl@provider.example\r\nTo: {COMPLAINTS}\r\nSubject: FW: complaint\r\nMessage-ID: <arf@provider.example>\r\n\
             MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=\"=f\"\r\n\r\n\
             --=f\r\nContent-Type: text/plain\r\n\r\nThis is an email abuse report.\r\n\
             --=f\r\nContent-Type: message/feedback-report\r\n\r\n\
             Feedback-Type: {kind}\r\nUser-Agent: Provider/1.0\r\nVersion: 1\r\n\
             Original-Mail-From: <{}>\r\nOriginal-Rcpt-To: <{recipient}>\r\n\
             Arrival-Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n\r\n\
             --=f\r\nContent-Type: message/rfc822\r\n\r\n{}\r\n--=f--\r\n",
            self.return_path, self.content
        )
    }
}
