//! The live view: one line for each thing that happens to a message.

use anyhow::Result;
use postrider_base::{Scope, Timestamp};
use postrider_events::{Events, Kind, Line};
use postrider_simulator::{Arrived, Inbox};
use serde_json::Value;
use tokio::sync::broadcast::error::TryRecvError;

use super::INBOX_DOMAIN;
use crate::output::{Output, bytes};
use crate::serve::Daemon;

/// Shows what happens until the scope ends or nobody reads any more.
pub(crate) fn start(daemon: &Daemon, inbox: &Inbox, scope: &Scope, out: Output) {
    let (events, inbox, ended) = (daemon.events().clone(), inbox.clone(), scope.clone());
    scope.spawn("view", async move {
        tokio::select! {
            () = ended.cancelled() => {}
            // Its only failures are a closed journal and a closed terminal: the relay goes on.
            _ = show(&events, &inbox, out) => {}
        }
    });
}

async fn show(events: &Events, inbox: &Inbox, mut out: Output) -> Result<()> {
    let mut happening = events.tail();
    let mut arrivals = inbox.subscribe();
    loop {
        for line in happening.follow().await? {
            for text in told(&line) {
                out.line(text)?;
            }
            if line.kind == Kind::Delivery {
                // The inbox has its mail before the journal has the delivery.
                match arrivals.try_recv() {
                    Ok(mail) => out.line(arrival(&mail))?,
                    Err(TryRecvError::Lagged(missed)) => out.line(format_args!("... {missed} mails not shown"))?,
                    Err(_) => {}
                }
            }
        }
        out.flush()?;
    }
}

/// The inbox shows what has come through the whole relay.
fn arrival(mail: &Arrived) -> String {
    let to: Vec<_> = mail.envelope.recipients.iter().map(|recipient| recipient.address.to_string()).collect();
    format!(
        "{}  inbox      \"{}\" from {} for {} ({})",
        clock(mail.at),
        mail.subject,
        mail.from,
        to.join(", "),
        bytes(mail.size)
    )
}

/// What an event says in words; an event of several recipients takes several lines.
fn told(line: &Line) -> Vec<String> {
    let Ok(event) = serde_json::from_slice::<Value>(&line.json) else { return Vec::new() };
    let (at, id) = (clock(line.at), line.id);
    let tell = |what: &str, text: String| format!("{at}  {what:9}  {id} {text}");
    match line.kind {
        Kind::Send => {
            let mail = &event["mail"];
            let to = texts(&mail["destination"]);
            let source = mail["source"].as_str().filter(|source| !source.is_empty()).unwrap_or("<>");
            let mut told = vec![tell("accepted", format!("from {source} for {}", to.join(", ")))];
            let held = to.iter().filter(|address| !is_ours(address));
            told.extend(held.map(|address| tell("held", format!("for {address}: nothing leaves this machine"))));
            told
        }
        Kind::Delivery => {
            let reply = event["delivery"]["smtpResponse"].as_str().unwrap_or_default();
            let to = texts(&event["delivery"]["recipients"]);
            vec![tell("delivered", format!("to {}: {reply}", to.join(", ")))]
        }
        Kind::DeliveryDelay => recipients(&event["deliveryDelay"]["delayedRecipients"])
            .map(|(address, reply)| tell("deferred", format!("for {address}: {reply}")))
            .collect(),
        Kind::Bounce => recipients(&event["bounce"]["bouncedRecipients"])
            .map(|(address, reply)| tell("bounced", format!("for {address}: {reply}")))
            .collect(),
        _ => Vec::new(),
    }
}

fn is_ours(address: &str) -> bool {
    address.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(INBOX_DOMAIN))
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn recipients(list: &Value) -> impl Iterator<Item = (&str, &str)> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(move |recipient| (text_of(recipient, "emailAddress"), text_of(recipient, "diagnosticCode")))
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Hours, minutes and seconds, in UTC.
fn clock(at: Timestamp) -> String {
    at.rfc3339().get(11..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_inbox_are_ours() {
        assert!(is_ours("you@inbox.test"));
        assert!(is_ours("you@INBOX.TEST"));
        assert!(!is_ours("you@example.com"));
        assert!(!is_ours("you@notinbox.test"));
    }

    #[test]
    fn the_clock_is_to_the_second() {
        assert_eq!(clock(Timestamp::from_millis(1_501_893_662_669)), "00:41:02");
    }

    #[test]
    fn recipients_and_their_replies_are_found() {
        let list = serde_json::json!([{ "emailAddress": "a@b.c", "diagnosticCode": "smtp; 550 no" }, {}]);
        let found: Vec<_> = recipients(&list).collect();
        assert_eq!(found, [("a@b.c", "smtp; 550 no"), ("", "")]);
        assert_eq!(recipients(&Value::Null).count(), 0);
    }
}
