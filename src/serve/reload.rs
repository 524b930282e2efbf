//! What a running daemon takes from a changed configuration, and what must wait for a restart.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::config::Config;

/// Sections, or keys, that take effect without a restart.
const LIVE: [&str; 6] = ["bans", "delivery", "feedback", "log", "sessions", "tls"];

/// The key paths whose values differ, in order, apart by what they need.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) live: Vec<String>,
    pub(crate) needs_restart: Vec<String>,
}

impl Changes {
    pub(crate) fn between(running: &Config, wanted: &Config) -> Changes {
        let (running, wanted) = (leaves(running), leaves(wanted));
        let keys = running.keys().chain(wanted.keys().filter(|key| !running.contains_key(*key)));
        let mut changed: Vec<String> = keys.filter(|key| running.get(*key) != wanted.get(*key)).cloned().collect();
        changed.sort();
        let (live, needs_restart) = changed.into_iter().partition(|key| is_live(key));
        Changes { live, needs_restart }
    }

    /// Whether a section has changes that can take effect now.
    pub(crate) fn touch(&self, section: &str) -> bool {
        self.live.iter().any(|key| within(key, section))
    }
}

fn is_live(key: &str) -> bool {
    LIVE.iter().any(|live| within(key, live))
}

fn within(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn leaves(config: &Config) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    // A configuration that was read from TOML can be written as TOML.
    if let Ok(Value::Table(table)) = Value::try_from(config) {
        collect("", table, &mut leaves);
    }
    leaves
}

fn collect(prefix: &str, table: Table, leaves: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => collect(&path, inner, leaves),
            value => drop(leaves.insert(path, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(spoil: fn(&mut Config)) -> Changes {
        let mut wanted = Config::default();
        spoil(&mut wanted);
        Changes::between(&Config::default(), &wanted)
    }

    #[test]
    fn nothing_changed() {
        assert_eq!(changes(|_| {}), Changes::default());
    }

    #[test]
    fn routes_are_live_and_the_region_is_not() {
        let changes = changes(|config| {
            config.delivery.routes.insert("example.com".to_owned(), "smtp://127.0.0.1:25".to_owned());
            config.server.region = "eu-west-1".to_owned();
        });
        assert_eq!(changes.live, ["delivery.routes.example.com"]);
        assert_eq!(changes.needs_restart, ["server.region"]);
        assert!(changes.touch("delivery") && !changes.touch("log"));
    }

    #[test]
    fn keys_that_appear_and_go_are_seen() {
        let appeared = changes(|config| config.server.threads = Some(2));
        assert_eq!(appeared.needs_restart, ["server.threads"]);
        let mut running = Config::default();
        running.server.threads = Some(2);
        assert_eq!(Changes::between(&running, &Config::default()).needs_restart, ["server.threads"]);
    }

    #[test]
    fn a_section_is_not_a_prefix_of_another_name() {
        assert!(within("log.level", "log"));
        assert!(!within("logistics.x", "log"));
    }
}
