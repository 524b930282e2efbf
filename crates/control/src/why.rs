//! Why a message has not left: what the spool and delivery know, in plain English.

use postrider_base::Timestamp;
use postrider_delivery::Delivery;
use postrider_delivery::why::{Wait, Why};
use postrider_events::Events;
use postrider_mail::{Domain, MessageId};
use postrider_spool::{MessageView, QueueKey, RecipientView, Selector, Spool};
use serde::{Deserialize, Serialize};

use crate::{Error, moment};

/// Why a message has not left.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct MessageWhy {
    /// The message.
    pub id: MessageId,
    /// Whether it has come to an end for every recipient: then no recipient is below.
    pub ended: bool,
    /// Old mail is still being read after a start: nothing is handed out before that, and
    /// nobody knows yet which messages wait. No recipient is below.
    #[serde(default)]
    pub recovering: bool,
    /// The recipients who wait.
    pub recipients: Vec<RecipientWhy>,
}

/// Why one recipient has not got a message: one reason, the first thing in its way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RecipientWhy {
    /// The address.
    pub address: String,
    /// Attempts so far.
    pub attempts: u32,
    /// A word of a closed set: `held`, `sender-paused`, `route-holds`, `not-due`, `no-daemon`, `looking-up`,
    /// `ready`, `connection-limit`, `rate-limit`, `in-delivery`, `paused`, `no-source`,
    /// `parked`, `settling`, `turn`.
    pub reason: String,
    /// The reason in plain English, one line.
    pub explanation: String,
    /// What can be done about it, where something can.
    pub advice: Option<String>,
    /// The site that it waits for or is sent to.
    pub site: Option<String>,
    /// Since when that is so, where it is known.
    #[serde(with = "moment::optional")]
    pub since: Option<Timestamp>,
    /// When it changes by itself, where it is known.
    #[serde(with = "moment::optional")]
    pub until: Option<Timestamp>,
    /// What the last attempt said.
    pub last_reply: Option<String>,
    /// The host that said so.
    pub remote: Option<String>,
}

/// A reason, as it is found.
#[derive(Default)]
struct Reason {
    word: &'static str,
    text: String,
    advice: Option<String>,
    site: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// Whom to ask.
pub(crate) struct Rooms<'a> {
    pub(crate) spool: &'a Spool,
    pub(crate) events: Option<&'a Events>,
    pub(crate) delivery: Option<&'a Delivery>,
}

pub(crate) async fn explain(rooms: Rooms<'_>, id: MessageId) -> Result<MessageWhy, Error> {
    let nobody = MessageWhy { id, ended: false, recovering: false, recipients: Vec::new() };
    // Until then the spool lets everybody wait who asks for a message.
    if rooms.spool.report().is_none() {
        return Ok(MessageWhy { recovering: true, ..nobody });
    }
    let Some(view) = rooms.spool.show(id).await? else {
        let known = match rooms.events {
            Some(events) => !events.message(id).await?.is_empty(),
            None => false,
        };
        return match known {
            true => Ok(MessageWhy { ended: true, ..nobody }),
            false => Err(Error::NotFound(format!("message {id} is neither in the queue nor in the journal"))),
        };
    };
    let waiting = view.recipients.iter().filter(|recipient| !recipient.done);
    let recipients: Vec<_> = waiting.map(|recipient| rooms.row(&view, recipient)).collect();
    Ok(MessageWhy { ended: recipients.is_empty(), recipients, ..nobody })
}

impl Rooms<'_> {
    fn row(&self, view: &MessageView, recipient: &RecipientView) -> RecipientWhy {
        let reason = self.reason(view, recipient);
        let last = recipient.last.as_ref();
        RecipientWhy {
            address: recipient.address.to_string(),
            attempts: recipient.attempts,
            reason: reason.word.to_owned(),
            explanation: reason.text,
            advice: reason.advice,
            site: reason.site,
            since: reason.since,
            until: reason.until,
            last_reply: last.map(|last| last.diagnostic.clone()),
            remote: last.and_then(|last| last.remote.as_ref()).map(ToString::to_string),
        }
    }

    fn reason(&self, view: &MessageView, recipient: &RecipientView) -> Reason {
        let domain = recipient.address.domain();
        let queue = QueueKey { account: view.message.account, domain: domain.clone() };
        if !recipient.in_delivery {
            if let Some(reason) = self.held(view, &queue) {
                return reason;
            }
            if let Some(due) = recipient.next_attempt.filter(|due| *due > self.spool.now()) {
                return not_due(view, recipient, due);
            }
        }
        match self.delivery {
            Some(delivery) => in_words(delivery.why(view, domain), domain),
            None => Reason {
                word: "no-daemon",
                text: "no daemon runs, so nothing leaves".to_owned(),
                advice: Some("start it: `systemctl start postrider`".to_owned()),
                ..Reason::default()
            },
        }
    }

    fn held(&self, view: &MessageView, queue: &QueueKey) -> Option<Reason> {
        let by_route = self.delivery.is_some_and(|delivery| delivery.is_held_by_route(&queue.domain));
        let (text, release) = if view.held {
            let text = "the message is held: an operator held it, or its bytes cannot be read".to_owned();
            (text, view.message.id.to_string())
        } else {
            match self.spool.hold_of(queue)? {
                Selector::All => {
                    ("everything is held by an operator, or since a restore".to_owned(), "--all".to_owned())
                }
                Selector::Queue(_) if by_route => return Some(held_by_route(&queue.domain)),
                _ => {
                    let text = format!("all mail for {} is held by an operator, or was by a hold: route", queue.domain);
                    (text, format!("--domain {}", queue.domain))
                }
            }
        };
        let advice = Some(format!("let it go: `postrider queue release {release}`"));
        Some(Reason { word: "held", text, advice, ..Reason::default() })
    }
}

fn not_due(view: &MessageView, recipient: &RecipientView, due: Timestamp) -> Reason {
    let text = match &recipient.last {
        Some(last) => {
            // Not always its own words: it may not have spoken at all.
            let host = last.remote.as_ref().map_or_else(String::new, |remote| format!("{remote}: "));
            format!(
                "it is due again {}, after attempt {} ({host}\"{}\")",
                due.rfc3339(),
                recipient.attempts,
                last.diagnostic
            )
        }
        None if view.message.not_before.is_some_and(|at| at >= due) => {
            format!("its sender asked that it is not sent before {}", due.rfc3339())
        }
        None => format!("it is due {}", due.rfc3339()),
    };
    let advice = Some(format!("try now: `postrider queue retry {}`", view.message.id));
    Reason { word: "not-due", text, advice, until: Some(due), ..Reason::default() }
}

fn held_by_route(domain: &Domain) -> Reason {
    let advice = format!(
        "give {domain} another route in the configuration, `postrider reload`, \
         then `postrider queue release --domain {domain}`"
    );
    let text = format!("the route of {domain} is hold:");
    Reason { word: "route-holds", text, advice: Some(advice), ..Reason::default() }
}

fn sender_paused(who: &str, since: Timestamp, reason: &str) -> Reason {
    let said = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let resume = match who.split_once("configuration set ") {
        Some((_, set)) => format!("configuration-sets resume {set}"),
        None => format!("accounts resume {}", who.trim_start_matches("account ")),
    };
    Reason {
        word: "sender-paused",
        text: format!("{who} is paused, and what is queued waits too{said}"),
        advice: Some(format!("let it go on: `postrider {resume}`")),
        since: Some(since),
        ..Reason::default()
    }
}

fn in_words(why: Why, domain: &Domain) -> Reason {
    let plain = |word, text: &str| Reason { word, text: text.to_owned(), ..Reason::default() };
    let lasting = |what: &str| Some(format!("if that lasts, {what}"));
    match why {
        Why::RouteHolds => held_by_route(domain),
        Why::Scanning { since } => Reason {
            since: Some(since),
            advice: lasting("see whether the virus scanner of [delivery.scan] keeps up: `clamdtop`"),
            ..plain("scanning", "it is being scanned for viruses, or is next to be")
        },
        Why::NotScanned { why, since } => Reason {
            since: Some(since),
            advice: Some(
                "see what the virus scanner says, for example `journalctl -u clamav-daemon`; with \
                 delivery.scan.scan_fail_open mail leaves unscanned"
                    .to_owned(),
            ),
            ..plain("not-scanned", &format!("it has not been scanned for viruses: {why}"))
        },
        Why::SenderPaused { who, since, reason } => sender_paused(&who, since, &reason),
        Why::LookingUp { since } => Reason {
            since: Some(since),
            advice: lasting("see whether the name servers of [dns] answer"),
            ..plain("looking-up", "the hosts of its domain are being looked up in the DNS")
        },
        Why::Ready { site, before, others, wait } => ready(site, before, others, wait),
        Why::NoConnection { site, limit, since } => no_connection(site, limit, since),
        Why::InDelivery { site, host, stage, since } => Reason {
            word: "in-delivery",
            text: match host {
                Some(host) => format!("it is being delivered to {host} (stage: {})", stage.as_str()),
                None => "an attempt has begun; a host is being looked for".to_owned(),
            },
            advice: lasting(&format!("see how the site fares: `postrider queue sites --site '{site}'`")),
            site: Some(site),
            since: Some(since),
            ..Reason::default()
        },
        paused @ Why::Paused { .. } => pause(paused),
        Why::NoSource { site, until, why } => no_source(site, until, &why),
        Why::Parked { site, ready } => Reason {
            word: "parked",
            text: format!("{site} has enough ready: {ready} messages are before it; it goes on when they have left"),
            advice: Some(format!("see why they do not: `postrider queue sites --site '{site}'`")),
            site: Some(site),
            ..Reason::default()
        },
        Why::Settling => Reason {
            advice: lasting("the disk is slow or full: `postrider spool`"),
            ..plain("settling", "its attempt has ended and is being written down")
        },
        _ => Reason {
            advice: lasting("delivery holds as much as it may (delivery.limits.ready): see `postrider queue sites`"),
            ..plain("turn", "it is due; its turn comes as soon as delivery takes more")
        },
    }
}

const MORE_CONNECTIONS: &str = "raise delivery.limits.connections, or see `postrider queue sites` for who has them";

fn no_connection(site: String, limit: usize, since: Timestamp) -> Reason {
    Reason {
        word: "connection-limit",
        text: no_connection_left(limit),
        advice: Some(MORE_CONNECTIONS.to_owned()),
        site: Some(site),
        since: Some(since),
        ..Reason::default()
    }
}

fn no_source(site: String, until: Option<Timestamp>, why: &str) -> Reason {
    Reason {
        word: "no-source",
        text: format!("none of its source addresses may be used: {why}"),
        advice: Some("see `postrider sources list` and `postrider pools list`".to_owned()),
        site: Some(site),
        until,
        ..Reason::default()
    }
}

fn no_connection_left(limit: usize) -> String {
    format!("all {limit} connections that the relay may have are in use")
}

fn ready(site: String, before: usize, others: usize, wait: Wait) -> Reason {
    let how_it_fares = format!("how the site fares: `postrider queue sites --site '{site}'`");
    let which_rule = format!("which rule says so: `postrider shaping show '{site}'`");
    let (word, why, advice, until) = match wait {
        Wait::FirstConnection { host, stage, .. } => {
            let host = host.unwrap_or_else(|| "a host".to_owned());
            let text = format!("the first connection is being opened: {host}, stage {}", stage.as_str());
            ("ready", text, how_it_fares, None)
        }
        Wait::SiteLimit { open, limit } => {
            let text = format!("{open} of the {limit} connections that the site may have are taken by others");
            ("connection-limit", text, which_rule, None)
        }
        Wait::ProviderLimit { provider, open, limit } => {
            let text =
                format!("{open} of the {limit} connections that {provider} may have over all of its sites are taken");
            ("connection-limit", text, which_rule, None)
        }
        Wait::TotalLimit { limit } => {
            ("connection-limit", no_connection_left(limit), MORE_CONNECTIONS.to_owned(), None)
        }
        Wait::Rate { of, rate, next } => {
            let when = next.map_or_else(String::new, |next| format!("; the next message may go {}", next.rfc3339()));
            ("rate-limit", format!("{of} gets {rate}{when}"), which_rule, next)
        }
        Wait::Busy { connections, limit } => {
            let text = format!("{connections} of {limit} connections are open, and all are at work");
            ("ready", text, how_it_fares, None)
        }
        _ => ("ready", "a connection is being opened".to_owned(), how_it_fares, None),
    };
    let line = match (before, others) {
        (0, 0) => "the only one".to_owned(),
        (0, others) => format!("the next one to its domain, with {others} others for the site"),
        (before, others) => format!("behind {before} to the same domain, with {others} others in all for the site"),
    };
    let text = format!("it is ready for {site}, {line}: {why}");
    Reason { word, text, advice: Some(advice), site: Some(site), until, ..Reason::default() }
}

fn pause(why: Why) -> Reason {
    let Why::Paused { site, name, source, signing_domain, by, since, until, why } = why else {
        return Reason::default();
    };
    let what = match (&source, &signing_domain) {
        (_, Some(domain)) => format!("mail of {domain} to {name}"),
        (Some(source), None) => format!("mail from the source {source} to {name}"),
        (None, None) => format!("mail to {name}"),
    };
    let is_blocked = by == "block";
    let by = match by.as_str() {
        "operator" => "an operator",
        "block" => "a reply that says that the address is blocked",
        _ => "a reply",
    };
    let end = until.map_or_else(|| "until it is lifted".to_owned(), |until| format!("until {}", until.rfc3339()));
    let reason = if why.is_empty() { String::new() } else { format!(": {why}") };
    Reason {
        word: "paused",
        text: format!("{what} pauses {end}, since {} because of {by}{reason}", since.rfc3339()),
        advice: Some(match is_blocked {
            true => format!("see to it that the address is unblocked, then lift it: `postrider resume '{name}'`"),
            false => format!("lift it: `postrider resume '{name}'`"),
        }),
        site: Some(site),
        since: Some(since),
        until,
    }
}

#[cfg(test)]
mod tests;
