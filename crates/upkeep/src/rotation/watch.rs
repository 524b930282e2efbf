//! What was last found of each key, since the start.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use postrider_account::DkimKey;
use postrider_base::Timestamp;

use crate::machine::Finding;

/// By the names of records, of which there is one for each key.
#[derive(Debug, Default)]
pub(super) struct Watch(HashMap<String, Last>);

/// The last look at a key.
#[derive(Debug)]
pub(super) struct Last {
    /// Which key it was: another may follow under the same name.
    public: String,
    pub(super) at: Timestamp,
    pub(super) finding: Finding,
    /// How often nobody has answered since somebody did.
    unanswered: u32,
    /// Whether it was not published, when somebody last answered.
    is_gone: bool,
}

impl Last {
    /// How long to wait before a name server that does not answer is asked again: longer each
    /// time.
    pub(super) fn back_off(&self, least: Duration, most: Duration) -> Duration {
        least.saturating_mul(1 << self.unanswered.min(16)).min(most.max(least))
    }
}

impl Watch {
    /// The last look at this key.
    pub(super) fn last(&self, key: &DkimKey) -> Option<&Last> {
        self.0.get(&key.record_name()).filter(|last| last.public == key.public)
    }

    /// Whether the key was not published, when it was last known.
    pub(super) fn is_gone(&self, key: &DkimKey) -> bool {
        self.last(key).is_some_and(|last| last.is_gone)
    }

    /// Keeps what was found.
    pub(super) fn note(&mut self, key: &DkimKey, finding: Finding, at: Timestamp) {
        let (unanswered, is_gone) = match (&finding, self.last(key)) {
            (Finding::Unknown(_), Some(last)) => (last.unanswered.saturating_add(1), last.is_gone),
            (Finding::Unknown(_), None) => (1, false),
            (Finding::Wrong(_), _) => (0, true),
            (Finding::Right, _) => (0, false),
        };
        self.0.insert(key.record_name(), Last { public: key.public.clone(), at, finding, unanswered, is_gone });
    }

    /// Forgets all others.
    pub(super) fn keep(&mut self, keys: &[Arc<DkimKey>]) {
        let names: HashSet<String> = keys.iter().map(|key| key.record_name()).collect();
        self.0.retain(|name, _| names.contains(name));
    }
}
