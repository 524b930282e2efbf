//! Where the events of a configuration set go. Kept and checked here; nothing publishes them
//! yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::configuration_set::check_name;
use crate::Error;

/// What errors call one.
pub(super) const KIND: &str = "event destination";
/// Most destinations of a set, as in SES.
const MAX_DESTINATIONS: usize = 10;
/// Most dimensions of a destination that counts, as in SES.
const MAX_DIMENSIONS: usize = 10;
/// Longest name or default value of a dimension, as in SES.
const MAX_WORD: usize = 256;
/// Longest URL, path or address of a target, in bytes.
const MAX_TARGET: usize = 1_024;

/// Who is told what becomes of the messages of a set (SES: `EventDestination`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDestination {
    /// 1 to 64 of `A-Z`, `a-z`, `0-9`, `-` and `_`, as in SES.
    pub name: String,
    /// Whether it is told anything.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What it is told; at least one type.
    pub matching: BTreeSet<EventType>,
    /// What it is.
    pub target: DestinationTarget,
}

fn yes() -> bool {
    true
}

/// A type of event, in the words of SES's `MatchingEventTypes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventType {
    /// The message was accepted, and delivery will be tried.
    Send,
    /// The message was accepted, and then found to have a virus.
    Reject,
    /// Delivery has failed for good.
    Bounce,
    /// The recipient calls it spam.
    Complaint,
    /// The recipient's host has it.
    Delivery,
    /// The recipient opened it.
    Open,
    /// The recipient followed one of its links.
    Click,
    /// The message could not be made from its template.
    RenderingFailure,
    /// Delivery is tried again later.
    DeliveryDelay,
    /// The recipient changed their subscription.
    Subscription,
}

/// What a destination is. SES's are services of AWS; here each has a plain counterpart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DestinationTarget {
    /// Events are posted there as JSON, as SES's go to an SNS topic: an `https:` URL, or an
    /// `http:` one.
    Webhook(String),
    /// Events are appended to this file, one line of JSON each, as SES's go to a Firehose
    /// stream: an absolute path.
    File(String),
    /// Events are written to a TCP connection, one line of JSON each: `HOST:PORT`.
    Stream(String),
    /// Events are counted by the values of tags, as SES's are in CloudWatch: the name of each
    /// dimension and its value for messages without.
    Metrics(BTreeMap<String, Dimension>),
}

/// What a counted event is sorted by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimension {
    /// Where its value is looked for.
    pub source: DimensionSource,
    /// Its value where none is found.
    pub default: String,
}

/// Where the value of a dimension comes from (SES: `DimensionValueSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DimensionSource {
    /// A tag of the message.
    MessageTag,
    /// A field of its header.
    EmailHeader,
    /// A tag of the link that was followed.
    LinkTag,
}

impl EventType {
    /// All of them, in SES's order.
    pub const ALL: [Self; 10] = [
        Self::Send,
        Self::Reject,
        Self::Bounce,
        Self::Complaint,
        Self::Delivery,
        Self::Open,
        Self::Click,
        Self::RenderingFailure,
        Self::DeliveryDelay,
        Self::Subscription,
    ];

    /// SES's spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "SEND",
            Self::Reject => "REJECT",
            Self::Bounce => "BOUNCE",
            Self::Complaint => "COMPLAINT",
            Self::Delivery => "DELIVERY",
            Self::Open => "OPEN",
            Self::Click => "CLICK",
            Self::RenderingFailure => "RENDERING_FAILURE",
            Self::DeliveryDelay => "DELIVERY_DELAY",
            Self::Subscription => "SUBSCRIPTION",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = Error;

    /// SES's spelling in any case; with `-` as well as `_`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.replace('-', "_");
        let reason = "its event types are send, reject, bounce, complaint, delivery, open, click, \
                      rendering-failure, delivery-delay and subscription";
        let found = Self::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(&text));
        found.ok_or(Error::Invalid { what: KIND, reason })
    }
}

/// Whether a set can have these.
pub(super) fn check(destinations: &[EventDestination]) -> Result<(), Error> {
    if destinations.len() > MAX_DESTINATIONS {
        return Err(Error::Invalid { what: KIND, reason: "a set has at most 10 of them" });
    }
    destinations.iter().try_for_each(EventDestination::check)?;
    let names: BTreeSet<_> = destinations.iter().map(|destination| &destination.name).collect();
    if names.len() < destinations.len() {
        return Err(Error::Invalid { what: KIND, reason: "another one of the set has its name" });
    }
    Ok(())
}

/// # Errors
/// [`Error::NotFound`].
pub(super) fn index_of(destinations: &[EventDestination], name: &str) -> Result<usize, Error> {
    let absent = || Error::NotFound { what: KIND, name: postrider_mail::sanitize_text(name, MAX_WORD) };
    destinations.iter().position(|known| known.name == name).ok_or_else(absent)
}

impl EventDestination {
    fn check(&self) -> Result<(), Error> {
        check_name(KIND, &self.name)?;
        if self.matching.is_empty() {
            return Err(Error::Invalid { what: KIND, reason: "it needs at least one event type" });
        }
        self.target.check()
    }
}

impl DestinationTarget {
    fn check(&self) -> Result<(), Error> {
        let plain = |text: &str| text.len() <= MAX_TARGET && text.bytes().all(|byte| byte.is_ascii_graphic());
        let (holds, reason) = match self {
            Self::Webhook(url) => (plain(url) && is_url(url), "its webhook must be an https: or http: URL"),
            Self::File(path) => (
                path.starts_with('/') && path.len() <= MAX_TARGET && !path.chars().any(char::is_control),
                "its file must be an absolute path",
            ),
            Self::Stream(address) => (
                plain(address) && is_host_and_port(address),
                "its stream must be HOST:PORT, as events.example.com:9000",
            ),
            Self::Metrics(dimensions) => (
                (1..=MAX_DIMENSIONS).contains(&dimensions.len()) && dimensions.iter().all(is_dimension),
                "its dimensions must be 1 to 10 names with default values, each 1 to 256 letters, digits, - and _",
            ),
        };
        if holds { Ok(()) } else { Err(Error::Invalid { what: KIND, reason }) }
    }
}

fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#']))
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_literal = host.starts_with('[') && host.ends_with(']');
    !host.is_empty() && (is_literal || !host.contains([':', '/'])) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// SES's rule for both; auto-tags such as `ses:source-ip` can be named too.
fn is_dimension((name, dimension): (&String, &Dimension)) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let word = |text: &str| (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(allowed);
    word(name.strip_prefix("ses:").unwrap_or(name)) && word(&dimension.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(target: DestinationTarget) -> EventDestination {
        EventDestination { name: "x".into(), enabled: true, matching: BTreeSet::from([EventType::Bounce]), target }
    }

    fn dimension(default: &str) -> Dimension {
        Dimension { source: DimensionSource::MessageTag, default: default.into() }
    }

    #[test]
    fn types_have_the_names_of_ses() {
        for known in EventType::ALL {
            assert_eq!(serde_json::to_value(known).unwrap(), known.as_str());
            assert_eq!(known.as_str().parse::<EventType>().unwrap(), known);
        }
        assert_eq!("delivery-delay".parse::<EventType>().unwrap(), EventType::DeliveryDelay);
        assert!("deliveries".parse::<EventType>().is_err());
    }

    #[test]
    fn targets_are_checked() {
        let metrics = |name: &str, default| DestinationTarget::Metrics([(name.into(), dimension(default))].into());
        let good = [
            DestinationTarget::Webhook("https://events.example.com/ses?x=1".into()),
            DestinationTarget::File("/var/log/events.ndjson".into()),
            DestinationTarget::Stream("[::1]:9000".into()),
            DestinationTarget::Stream("events.example.com:9000".into()),
            metrics("campaign", "none"),
            metrics("ses:source-ip", "none"),
        ];
        for target in good {
            assert!(check(&[to(target.clone())]).is_ok(), "{target:?}");
        }
        let bad = [
            DestinationTarget::Webhook("ftp://events.example.com".into()),
            DestinationTarget::Webhook("https://".into()),
            DestinationTarget::Webhook("https://a b".into()),
            DestinationTarget::Webhook(format!("https://{}", "x".repeat(1_024))),
            DestinationTarget::File("events".into()),
            DestinationTarget::File("/a\nb".into()),
            DestinationTarget::Stream("events.example.com".into()),
            DestinationTarget::Stream(":9000".into()),
            DestinationTarget::Stream("::1:9000".into()),
            DestinationTarget::Stream("a:0".into()),
            metrics("cämpaign", "none"),
            metrics("campaign", ""),
            DestinationTarget::Metrics(BTreeMap::new()),
            DestinationTarget::Metrics((0..11).map(|n| (n.to_string(), dimension("none"))).collect()),
        ];
        for target in bad {
            assert!(check(&[to(target.clone())]).is_err(), "{target:?}");
        }
    }

    #[test]
    fn destinations_of_a_set_are_bounded_and_apart() {
        let target = DestinationTarget::File("/events".into());
        let named = |name: String| EventDestination { name, ..to(target.clone()) };
        let many = |count: usize| (0..count).map(|number| named(number.to_string())).collect::<Vec<_>>();
        assert!(check(&many(10)).is_ok());
        assert!(check(&many(11)).is_err());
        assert!(check(&[named("a".into()), named("a".into())]).is_err());
        assert!(check(&[named("a b".into())]).is_err());
        assert!(check(&[EventDestination { matching: BTreeSet::new(), ..to(target.clone()) }]).is_err());
    }
}
