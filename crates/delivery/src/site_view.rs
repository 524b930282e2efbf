//! What operators see of a site.

use postrider_base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lane::Demand;

/// What goes on in one lane of a site.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SiteView {
    /// `smtp://10.0.0.5:25`, `smarthost smtp.example.net:587`, `inbox:` or the MX
    /// hosts in their order, equal ones joined with commas.
    pub name: String,
    /// The source that its connections come from; without one the system chooses.
    pub source: Option<String>,
    /// What the senders of its messages ask of TLS.
    pub demand: Demand,
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
    /// How often its connections and its rate are halved at the moment, because its
    /// hosts complained.
    pub halved: u32,
    /// Queues that wait for the end of a pause.
    pub paused: usize,
    /// The last pause: when it is thought to end (never by itself without a time), and
    /// why there is one.
    pub pause: Option<(Option<Timestamp>, String)>,
    /// It could not be reached a moment ago.
    pub is_down: bool,
    /// Messages taken since the site was last unused.
    pub delivered: u64,
    /// The last different replies that were no success, oldest first, and reasons of our
    /// own where there was no reply. Known for an hour after the site was last used.
    pub refusals: Vec<LastRefusal>,
    /// Who runs the site, where the shaping rules know.
    pub provider: Option<String>,
    /// Entries of the shaping rules that hold for it.
    pub rules: Vec<String>,
}

/// Why a site did not take mail.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LastRefusal {
    /// When it said so last.
    pub at: Timestamp,
    /// How often.
    pub count: u64,
    /// The reply in one line.
    pub text: String,
}

impl SiteView {
    /// How badly it stands: 3 paused, 2 not reachable or slowed, 1 with more waiting than
    /// it takes or a refusal, 0 well.
    pub fn trouble(&self) -> u8 {
        if self.paused > 0 || self.pause.is_some() {
            3
        } else if self.is_down || self.halved > 0 {
            2
        } else {
            u8::from(self.parked > 0 || !self.refusals.is_empty())
        }
    }
}
