//! Shaping as a whole, in simulated time.

mod feedback;
mod governor;
mod pauses;
mod rules;

use std::path::Path;
use std::sync::Arc;

use postrider_base::{Clock, Metrics, SimDisk, Timestamp};
use postrider_mail::SmtpReply;
use postrider_store::Store;

use super::gate::Gate;
use super::governor::Governor;
use super::rules::{Place, Shaping};
use crate::settings::Settings;

/// The built-in rules with those of an operator over them.
fn shaping(own: &str) -> Result<Shaping, String> {
    shaping_with(&Settings::default(), own)
}

fn shaping_with(settings: &Settings, own: &str) -> Result<Shaping, String> {
    Shaping::layered(settings, Some((Path::new("own.toml"), own))).map_err(|error| error.to_string())
}

/// Reads `550 5.1.1 text`.
fn reply(text: &str) -> SmtpReply {
    SmtpReply::new(text[..3].parse().unwrap(), &text[4..])
}

/// A governor and what it stands on.
struct World {
    governor: Governor,
    clock: Clock,
    metrics: Metrics,
    store: Store,
    _index: tempfile::TempDir,
}

impl World {
    async fn new(own: &str) -> Self {
        let index = tempfile::tempdir().unwrap();
        let store = Store::open(Arc::new(SimDisk::new()), index.path()).unwrap();
        let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
        let metrics = Metrics::new();
        let governor = Governor::new(shaping(own).unwrap(), &store, &clock, &metrics).unwrap();
        Self { governor, clock, metrics, store, _index: index }
    }

    fn gate(&self, hosts: &str) -> Gate {
        self.governor.gate_at(Place::mx(hosts), None)
    }

    fn gate_from(&self, hosts: &str, source: &str) -> Gate {
        self.governor.gate_at(Place::mx(hosts), Some(source.into()))
    }
}
