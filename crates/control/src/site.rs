//! What operators see of the sites of delivery.

use postrider_base::Timestamp;
use postrider_delivery::{Demand, LastRefusal, SiteView};
use serde::{Deserialize, Serialize};

use crate::moment;

/// What goes on in one lane of a destination of delivery.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SiteRow {
    /// The site's name: a route's host, or the MX hosts of its domains.
    pub name: String,
    /// The source that its connections come from; without one the system chooses.
    pub source: Option<String>,
    /// What senders ask of TLS: `waived`, `opportunistic`, `encrypted`, `authenticated`.
    pub tls: Demand,
    /// Who runs the site, where the shaping rules know.
    pub provider: Option<String>,
    /// Entries of the shaping rules that hold for it.
    pub rules: Vec<String>,
    /// How badly it stands: 3 paused, 2 not reachable or slowed, 1 with refusals or more
    /// waiting than it takes, 0 well.
    pub trouble: u8,
    /// Messages that wait for a connection.
    pub ready: usize,
    /// Queues that wait because the site has enough ready.
    pub parked: usize,
    /// Connections that are open or being opened.
    pub connections: usize,
    /// Of those, the ones without a message.
    pub idle: usize,
    /// Connections that may be open.
    pub limit: usize,
    /// Messages in a time that it gets, where that is limited.
    pub rate: Option<String>,
    /// Messages that may go at once by that rate.
    pub tokens: Option<u64>,
    /// How often its connections and its rate are halved, because its hosts complained.
    pub halved: u32,
    /// Queues that wait for the end of a pause.
    pub paused: usize,
    /// When the pause ends by itself, as it is known now.
    #[serde(with = "moment::optional")]
    pub paused_until: Option<Timestamp>,
    /// Why it pauses.
    pub paused_why: Option<String>,
    /// Whether it could not be reached a moment ago.
    pub is_down: bool,
    /// Messages taken since the site was last unused.
    pub delivered: u64,
    /// The last reply that was not a success.
    pub last_refusal: Option<String>,
    /// When that reply came.
    #[serde(with = "moment::optional")]
    pub last_refusal_at: Option<Timestamp>,
    /// The last different refusals, oldest first.
    pub refusals: Vec<RefusalRow>,
}

/// Why a site did not take mail.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RefusalRow {
    /// When it said so last.
    #[serde(with = "moment")]
    pub at: Timestamp,
    /// How often.
    pub count: u64,
    /// The reply in one line, or our own words.
    pub text: String,
}

impl From<SiteView> for SiteRow {
    fn from(site: SiteView) -> SiteRow {
        let trouble = site.trouble();
        let last = site.refusals.last();
        SiteRow {
            last_refusal: last.map(|last| last.text.clone()),
            last_refusal_at: last.map(|last| last.at),
            trouble,
            name: site.name,
            source: site.source,
            tls: site.demand,
            provider: site.provider,
            rules: site.rules,
            ready: site.ready,
            parked: site.parked,
            connections: site.connections,
            idle: site.idle,
            limit: site.limit,
            rate: site.rate,
            tokens: site.tokens,
            halved: site.halved,
            paused: site.paused,
            paused_until: site.pause.as_ref().and_then(|(until, _)| *until),
            paused_why: site.pause.map(|(_, why)| why),
            is_down: site.is_down,
            delivered: site.delivered,
            refusals: site.refusals.into_iter().map(RefusalRow::from).collect(),
        }
    }
}

impl From<LastRefusal> for RefusalRow {
    fn from(LastRefusal { at, count, text }: LastRefusal) -> RefusalRow {
        RefusalRow { at, count, text }
    }
}
