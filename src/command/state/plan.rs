//! What is to be changed so that a node has what a file declares.

use std::collections::HashMap;

use anyhow::Result;
use postrider_control::{Declared, DeclaredKey, DeclaredKind, StateChange};
use postrider_mail::sanitize_text;
use serde_json::{Map, Value, json};

use super::file::StateFile;
use crate::output::Output;

/// Longest line of a difference.
const WIDTH: usize = 400;

pub(super) struct Plan {
    /// In the order in which they can be made.
    pub(super) changes: Vec<Planned>,
    /// Credentials of the file that the node does not have: their secrets are not in it.
    pub(super) missing: Vec<DeclaredKey>,
}

pub(super) struct Planned {
    pub(super) key: DeclaredKey,
    pub(super) change: StateChange,
}

impl Plan {
    pub(super) fn of(file: &StateFile, present: Vec<Declared>, prune: bool) -> Plan {
        let mut known: HashMap<_, _> = present.into_iter().map(|thing| (thing.key(), thing)).collect();
        let mut plan = Plan { changes: Vec::new(), missing: Vec::new() };
        for thing in &file.things {
            let key = thing.key();
            match known.remove(&key) {
                None if key.kind == DeclaredKind::Credential => plan.missing.push(key),
                Some(was) if is_same(&was, thing) => {}
                was => plan.changes.push(Planned { key, change: StateChange { was, now: Some(thing.clone()) } }),
            }
        }
        if prune {
            let mut gone: Vec<_> = known.into_iter().collect();
            // What names others goes before them.
            gone.sort_by(|(a, _), (b, _)| (b.kind, &a.account, &a.name).cmp(&(a.kind, &b.account, &b.name)));
            let going =
                gone.into_iter().map(|(key, was)| Planned { key, change: StateChange { was: Some(was), now: None } });
            plan.changes.extend(going);
        }
        plan
    }

    pub(super) fn show(&self, out: &mut Output) -> Result<()> {
        let mut counts = [0; 3];
        for planned in &self.changes {
            let (sign, place) = match (&planned.change.was, &planned.change.now) {
                (None, _) => ("+", 0),
                (Some(_), Some(_)) => ("~", 1),
                (Some(_), None) => ("-", 2),
            };
            counts[place] += 1;
            if out.json() {
                planned.show_json(sign, out)?;
            } else {
                planned.show_lines(sign, out)?;
            }
        }
        if out.json() {
            return Ok(());
        }
        for key in &self.missing {
            out.line(format_args!(
                "! {key}: not here, and its secret is in no file: `postrider credentials import --user {}` takes it \
                 over, `postrider credentials create` makes a new one",
                key.name
            ))?;
        }
        let [add, change, remove] = counts;
        match self.changes.is_empty() {
            true => out.line("nothing to change"),
            false => out.line(format_args!("{add} to add, {change} to change, {remove} to remove")),
        }
    }
}

impl Planned {
    fn show_json(&self, sign: &str, out: &mut Output) -> Result<()> {
        out.json_line(&json!({
            "change": sign,
            "kind": self.key.kind.as_str(),
            "account": self.key.account,
            "name": self.key.name,
            "was": self.change.was.as_ref().map(Declared::fields),
            "now": self.change.now.as_ref().map(Declared::fields),
        }))
    }

    fn show_lines(&self, sign: &str, out: &mut Output) -> Result<()> {
        out.line(sanitize_text(format!("{sign} {}", self.key), WIDTH))?;
        let fields = |side: &Option<Declared>| side.as_ref().map_or_else(Map::new, Declared::fields);
        let (was, now) = (fields(&self.change.was), fields(&self.change.now));
        // What goes needs no more words.
        if self.change.now.is_none() {
            return Ok(());
        }
        let gone = was.keys().filter(|name| !now.contains_key(*name));
        for name in now.keys().chain(gone) {
            let line = match (was.get(name), now.get(name)) {
                (was, now) if was == now => continue,
                (None, Some(now)) => format!("    + {name} = {}", shown(now)),
                (Some(was), None) => format!("    - {name} = {}", shown(was)),
                (Some(was), Some(now)) => format!("    ~ {name} = {} -> {}", shown(was), shown(now)),
                (None, None) => continue,
            };
            out.line(sanitize_text(line, WIDTH))?;
        }
        Ok(())
    }
}

fn shown(value: &Value) -> String {
    value.to_string()
}

/// How a policy's JSON is laid out does not matter.
fn is_same(was: &Declared, now: &Declared) -> bool {
    match (was, now) {
        (Declared::Policy(was), Declared::Policy(now)) => {
            let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
            was.document == now.document || parsed(&was.document).is_some_and(|was| Some(was) == parsed(&now.document))
        }
        _ => was == now,
    }
}
