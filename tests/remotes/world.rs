//! A small internet: a network of its own, a name server, providers at public
//! addresses, and the relay.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::client::Security;
use postrider_testkit::relay::{Relay, RelayOptions};
use postrider_testkit::{Client, Conduct, Keep, Network, Nsd, Provider, Signed, Zone};
use serde_json::Value;
use tokio::time::Instant;

/// Whom everything comes from; `sender.test` takes the notifications.
pub(crate) const SENDER: &str = "app@sender.test";
/// Where that is.
pub(crate) const SENDER_HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Timeouts that a test can wait for.
pub(crate) const SHORT: &str = "[delivery.timeouts]\nlookup = \"2s\"\nconnect = \"2s\"\nbanner = \"2s\"\nehlo = \"2s\"\n\
    handshake = \"2s\"\nmail = \"2s\"\nrcpt = \"2s\"\ndata = \"2s\"\ndata_block = \"2s\"\ncontent = \"4s\"\nend_of_data = \"2s\"\n\
    reset = \"1s\"\n";
/// How long anything may take before the test calls it hung.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) relay: Relay,
    pub(crate) provider: Provider,
    pub(crate) dns: Nsd,
    pub(crate) clock: Clock,
    pub(crate) network: Network,
    /// The relay reads the root's key here.
    _signed: Option<Signed>,
}

/// What a world is made of.
pub(crate) struct Plan {
    /// The domain `NAME.test` for each of these, with a host of its own,
    /// `mx.NAME.test`, that behaves so.
    pub(crate) sites: Vec<(String, Conduct)>,
    /// Routes besides the DNS.
    pub(crate) routes: Vec<(String, String)>,
    /// The relay's, without `[dns]` and routes.
    pub(crate) configuration: String,
    /// The zone `test`, with what there is besides the sites.
    pub(crate) zone: Zone,
    /// Whether the zone is signed, up to a root that the relay trusts.
    pub(crate) signed: bool,
}

impl Plan {
    /// Just these sites.
    pub(crate) fn of(sites: Vec<(String, Conduct)>, configuration: impl Into<String>) -> Self {
        Self { sites, routes: Vec::new(), configuration: configuration.into(), zone: Zone::new("test"), signed: false }
    }
}

/// The address of the site with this number.
pub(crate) fn address(site: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(site + 1).unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(198, 18, high + 1, low)
}

impl World {
    /// To be called first by a test on a runtime of one thread: that thread,
    /// and all that it starts, moves into the world. `None` where the machine
    /// has no worlds to give and that is fine.
    pub(crate) fn of(plan: Plan) -> Result<Option<Self>, Box<dyn Error>> {
        let Some(network) = Network::if_allowed()? else { return Ok(None) };
        network.enter()?;
        let clock = Clock::system();
        let provider = Provider::start(TcpListener::bind("0.0.0.0:25")?, Keep::All, clock.clone())?;
        let mut zone = plan.zone;
        zone.domain("sender", SENDER_HOST);
        for (number, (name, conduct)) in plan.sites.iter().enumerate() {
            zone.domain(name, address(number));
            provider.set(address(number), conduct.clone());
        }
        let mut configuration =
            plan.configuration + "\n[dns]\nservers = [\"127.0.0.1:53\"]\ntimeout = \"500ms\"\nfailure_ttl = \"1s\"\n";
        let ttl = Duration::from_secs(300);
        let signed = plan.signed.then(|| Signed::new(&zone, Ipv4Addr::LOCALHOST, ttl)).transpose()?;
        if let Some(signed) = &signed {
            let anchor = signed.anchor.display();
            configuration.push_str(&format!("[dns.dnssec]\ntrust_anchor_file = \"{anchor}\"\n"));
        }
        let zones = signed.as_ref().map_or(std::slice::from_ref(&zone), |signed| &signed.zones);
        let dns = Nsd::start("127.0.0.1:53".parse()?, zones, ttl)?;
        let relay = Relay::start(RelayOptions {
            binary: env!("CARGO_BIN_EXE_postrider").into(),
            routes: plan.routes,
            configuration,
            state: None,
            prefix: Vec::new(),
        })?;
        Ok(Some(Self { relay, provider, dns, clock, network, _signed: signed }))
    }

    /// An authenticated session.
    pub(crate) async fn client(&self) -> Result<Client, Box<dyn Error>> {
        let mut client = self.relay.endpoint(Security::StartTls, false)?.connect().await?;
        let (user, password) = self.relay.credentials();
        client.login(user, password).await?;
        Ok(client)
    }

    /// Submits a message to each of these, one message each; gives the moments
    /// of the replies.
    pub(crate) async fn send(&self, recipients: &[String], padding: usize) -> Result<Vec<Instant>, Box<dyn Error>> {
        let mut client = self.client().await?;
        let mut accepted = Vec::new();
        for recipient in recipients {
            client.send(SENDER, &[recipient.as_str()], &content(recipient, padding)).await?.expect(250)?;
            accepted.push(self.clock.instant());
        }
        Ok(accepted)
    }

    /// Submits a message that nobody may transmit without TLS (RFC 8689).
    pub(crate) async fn require_tls(&self, recipient: &str) -> Result<(), Box<dyn Error>> {
        let mut client = self.client().await?;
        client.command(&format!("MAIL FROM:<{SENDER}> REQUIRETLS")).await?.expect(250)?;
        client.command(&format!("RCPT TO:<{recipient}>")).await?.expect(250)?;
        client.command("DATA").await?.expect(354)?;
        client.finish(&content(recipient, 100)).await?.expect(250)?;
        Ok(())
    }

    /// All events so far, by the first recipient of their message.
    pub(crate) async fn events(&self) -> Result<BTreeMap<String, Vec<Value>>, Box<dyn Error>> {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(["events", "since", "1h", "--config"])
            .arg(self.relay.path("relay.toml"))
            .output()
            .await?;
        let mut events: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            assert!(!line.contains(char::is_control), "control characters in an event: {line:?}");
            let event: Value = serde_json::from_str(line)?;
            let recipient = event["mail"]["destination"][0].as_str().ok_or("an event without recipient")?;
            events.entry(recipient.to_owned()).or_default().push(event.clone());
        }
        Ok(events)
    }

    /// Waits until the events fulfil `condition`, and gives them.
    pub(crate) async fn until(
        &self,
        what: &str,
        condition: impl Fn(&BTreeMap<String, Vec<Value>>) -> bool,
    ) -> Result<BTreeMap<String, Vec<Value>>, Box<dyn Error>> {
        let start = self.clock.instant();
        loop {
            let events = self.events().await?;
            if condition(&events) {
                return Ok(events);
            }
            if self.clock.instant() - start > PATIENCE {
                return Err(format!("never: {what}\n{events:?}\n{}", self.relay.log()?).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until each of these recipients has an event that says what became
    /// of an attempt.
    pub(crate) async fn until_tried(
        &self,
        recipients: &[String],
    ) -> Result<BTreeMap<String, Vec<Value>>, Box<dyn Error>> {
        self.until("every recipient is tried", |events| {
            let tried = |recipient: &String| events.get(recipient).is_some_and(|events| events.iter().any(is_attempt));
            recipients.iter().all(tried)
        })
        .await
    }
}

/// A message that is known by its subject.
pub(crate) fn content(subject: &str, padding: usize) -> Vec<u8> {
    let padding = "padding of some length\r\n".repeat(padding / 24);
    format!("From: {SENDER}\r\nTo: someone@else.test\r\nSubject: {subject}\r\n\r\n{padding}end of {subject}\r\n")
        .into_bytes()
}

fn is_attempt(event: &Value) -> bool {
    event["eventType"] != "Send"
}

/// What the first attempt of a message came to: the type of the event, and the
/// reply.
pub(crate) fn first_attempt(events: &[Value]) -> Option<(&str, &str)> {
    events.iter().find(|event| is_attempt(event)).and_then(outcome)
}

/// The type of an event and the reply in it.
pub(crate) fn outcome(event: &Value) -> Option<(&str, &str)> {
    let kind = event["eventType"].as_str()?;
    let reply = match kind {
        "Delivery" => &event["delivery"]["smtpResponse"],
        "DeliveryDelay" => &event["deliveryDelay"]["delayedRecipients"][0]["diagnosticCode"],
        "Bounce" => &event["bounce"]["bouncedRecipients"][0]["diagnosticCode"],
        _ => return None,
    };
    Some((kind, reply.as_str()?))
}
