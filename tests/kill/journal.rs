//! What the journal says, against what the world saw.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use postrider_testkit::relay::Relay;
use serde_json::Value;

use crate::world::{Fate, Letter, World};

/// All events of a run.
#[derive(Default)]
pub(crate) struct Journal {
    /// Recipients of each message that was sent.
    sends: BTreeMap<String, BTreeSet<String>>,
    delivered: BTreeSet<Recipient>,
    bounced: BTreeSet<Recipient>,
    delayed: BTreeSet<Recipient>,
    /// Names that bounces have.
    feedback: BTreeSet<String>,
    /// What came twice.
    twice: Vec<String>,
}

/// Message id and address.
type Recipient = (String, String);

impl Journal {
    /// Reads the journal when it says of every recipient what became of it: it
    /// is behind the queue by a moment.
    pub(crate) async fn complete(relay: &Relay) -> Result<Self, Box<dyn Error>> {
        let mut open = Vec::new();
        for _ in 0..20 {
            let events = relay.cli(&["events", "since", "1d"])?.stdout;
            let journal = Self::read(&events)?;
            open = journal.open();
            if open.is_empty() {
                return Ok(journal);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err(format!("no event says what became of {open:?}").into())
    }

    /// No outcome without its event, no event twice.
    pub(crate) fn check(&self, world: &World) -> Result<(), Box<dyn Error>> {
        assert!(self.twice.is_empty(), "twice: {:?}", self.twice);
        let sent: BTreeSet<String> = self.sends.keys().cloned().collect();
        let silent: Vec<String> = world.promised_ids().difference(&sent).cloned().collect();
        assert!(silent.is_empty(), "accepted without an event: {silent:?}");
        let both: Vec<_> = self.delivered.intersection(&self.bounced).collect();
        assert!(both.is_empty(), "delivered and bounced: {both:?}");

        let takers = world.takers();
        let delivered: BTreeSet<String> = self.delivered.iter().map(|(_, address)| address.clone()).collect();
        assert_eq!(delivered.len(), self.delivered.len(), "an address belongs to one message");
        let differ: Vec<_> = takers.symmetric_difference(&delivered).collect();
        assert!(differ.is_empty(), "delivered and not said, or said and not delivered: {differ:?}");
        let refused = |address: &str| matches!(Letter::of(address), Some((_, Fate::Never)));
        let unjust: Vec<_> = self.bounced.iter().filter(|(_, address)| !refused(address)).collect();
        assert!(unjust.is_empty(), "bounced: {unjust:?}");

        let delayed: BTreeSet<&str> = self.delayed.iter().map(|(_, address)| address.as_str()).collect();
        let deferred = world.surely_deferred();
        let unsaid: Vec<_> = deferred.iter().filter(|address| !delayed.contains(address.as_str())).collect();
        assert!(unsaid.is_empty(), "deferred without an event: {unsaid:?}");
        Ok(())
    }

    /// Every recipient counts once in the quota, whichever process accepted the message.
    pub(crate) async fn check_quota(&self, relay: &Relay) -> Result<(), Box<dyn Error>> {
        let accepted: usize = self.sends.values().map(BTreeSet::len).sum();
        let mut quotas = Value::Null;
        for _ in 0..20 {
            quotas = serde_json::from_slice(&relay.cli(&["--json", "quota"])?.stdout)?;
            if quotas[0]["SentLast24Hours"] == accepted {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err(format!("{accepted} recipients accepted, and counted {quotas}").into())
    }

    fn read(lines: &[u8]) -> io::Result<Self> {
        let mut journal = Self::default();
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line)?;
            journal.take(&event);
        }
        Ok(journal)
    }

    fn take(&mut self, event: &Value) {
        let id = text(&event["mail"]["messageId"]);
        let members = |list: &Value| -> Vec<Recipient> {
            let entries = list.as_array().into_iter().flatten();
            let address = |entry: &Value| text(if entry.is_string() { entry } else { &entry["emailAddress"] });
            entries.map(|entry| (id.clone(), address(entry))).collect()
        };
        let (recipients, seen) = match event["eventType"].as_str() {
            Some("Send") => {
                let recipients = members(&event["mail"]["destination"]).into_iter().map(|(_, address)| address);
                if self.sends.insert(id.clone(), recipients.collect()).is_some() {
                    self.twice.push(event.to_string());
                }
                return;
            }
            Some("Delivery") => (members(&event["delivery"]["recipients"]), &mut self.delivered),
            Some("DeliveryDelay") => (members(&event["deliveryDelay"]["delayedRecipients"]), &mut self.delayed),
            Some("Bounce") => {
                let bounce = &event["bounce"];
                if !self.feedback.insert(text(&bounce["feedbackId"])) {
                    self.twice.push(event.to_string());
                }
                (members(&bounce["bouncedRecipients"]), &mut self.bounced)
            }
            _ => return self.twice.push(format!("not expected: {event}")),
        };
        for recipient in recipients {
            if !seen.insert(recipient) {
                self.twice.push(event.to_string());
            }
        }
    }

    /// Recipients of messages that were sent, of which no end is told.
    fn open(&self) -> Vec<Recipient> {
        let all = self
            .sends
            .iter()
            .flat_map(|(id, recipients)| recipients.iter().map(|recipient| (id.clone(), recipient.clone())));
        all.filter(|recipient| !self.delivered.contains(recipient) && !self.bounced.contains(recipient)).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sends, delivered, bounced, delayed, .. } = self;
        let (sends, delivered) = (sends.len(), delivered.len());
        write!(f, "{sends} sent, {delivered} delivered, {} bounced, {} delayed", bounced.len(), delayed.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: &str =
        r#"{"eventType":"Send","mail":{"messageId":"m","destination":["good-1@a.test","never-1@a.test"]}}"#;
    const DELIVERY: &str =
        r#"{"eventType":"Delivery","mail":{"messageId":"m"},"delivery":{"recipients":["good-1@a.test"]}}"#;
    const BOUNCE: &str = r#"{"eventType":"Bounce","mail":{"messageId":"m"},"bounce":{"feedbackId":"f","bouncedRecipients":[{"emailAddress":"never-1@a.test"}]}}"#;

    fn journal(events: &[&str]) -> Journal {
        Journal::read(events.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn each_end_is_told_once() {
        let whole = journal(&[SEND, DELIVERY, BOUNCE]);
        assert!(whole.open().is_empty() && whole.twice.is_empty(), "{whole}");
        assert_eq!(journal(&[SEND, BOUNCE]).open(), [("m".to_owned(), "good-1@a.test".to_owned())]);
        for again in [SEND, DELIVERY, BOUNCE] {
            assert!(!journal(&[SEND, DELIVERY, BOUNCE, again]).twice.is_empty(), "{again}");
        }
        let both = BOUNCE.replace("never", "good");
        let both = journal(&[SEND, DELIVERY, &both]);
        assert_eq!(both.delivered.intersection(&both.bounced).count(), 1);
    }
}
