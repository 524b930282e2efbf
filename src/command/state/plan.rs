//! What is to be changed so that a node has what a file declares.

use std::collections::{HashMap, HashSet};

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
    /// Credentials of the file that the node does not have, as their secrets are not in it, and
    /// their policies.
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
        let mut absent = HashSet::new();
        for thing in &file.things {
            let key = thing.key();
            match known.remove(&key) {
                None if key.kind == DeclaredKind::Credential => {
                    absent.insert(key.clone());
                    plan.missing.push(key);
                }
                _ if owner(thing).is_some_and(|owner| absent.contains(&owner)) => plan.missing.push(key),
                Some(was) if is_same(&was, thing) => {}
                was => plan.changes.push(Planned { key, change: StateChange { was, now: Some(thing.clone()) } }),
            }
        }
        if prune {
            plan.prune(file, known);
        }
        plan
    }

    /// Takes away what is known and not declared.
    fn prune(&mut self, file: &StateFile, mut known: HashMap<DeclaredKey, Declared>) {
        let is_needed = |key: &DeclaredKey| key.account.is_some_and(|account| file.accounts.contains(&account));
        known.retain(|key, _| key.kind != DeclaredKind::Account || !is_needed(key));
        // Policies go with what they are attached to. Never before it: a credential without
        // policies may do everything.
        let owners: HashSet<_> = known.keys().cloned().collect();
        known.retain(|_, thing| owner(thing).is_none_or(|owner| !owners.contains(&owner)));
        let mut gone: Vec<_> = known.into_iter().collect();
        // What names others goes before them.
        gone.sort_by(|(a, _), (b, _)| (b.kind, &a.account, &a.name).cmp(&(a.kind, &b.account, &b.name)));
        self.release_sources(file, &mut gone);
        let going =
            gone.into_iter().map(|(key, was)| Planned { key, change: StateChange { was: Some(was), now: None } });
        self.changes.extend(going);
    }

    /// An address is in one pool at most: what a declared pool takes from one that goes, leaves
    /// that first. The rest of it goes when no set names it any more; until then it holds the
    /// mail that it can not send.
    fn release_sources(&mut self, file: &StateFile, gone: &mut [(DeclaredKey, Declared)]) {
        let pools = file.things.iter().filter_map(|thing| match thing {
            Declared::Pool(pool) => Some(pool.sources.keys()),
            _ => None,
        });
        let taken: HashSet<_> = pools.flatten().collect();
        let mut released = Vec::new();
        for (key, thing) in gone {
            let was = thing.clone();
            let Declared::Pool(pool) = thing else { continue };
            pool.sources.retain(|source, _| !taken.contains(source));
            if was != *thing {
                let change = StateChange { was: Some(was), now: Some(thing.clone()) };
                released.push(Planned { key: key.clone(), change });
            }
        }
        let place = self.changes.partition_point(|planned| planned.key.kind < DeclaredKind::Pool);
        self.changes.splice(place..place, released);
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
            let line = match key.kind {
                DeclaredKind::Policy => format!("! {key}: left out until that credential is here"),
                _ => format!(
                    "! {key}: not here, and its secret is in no file: `postrider credentials import --user {}` takes it \
                     over, `postrider credentials create` makes a new one",
                    key.name
                ),
            };
            out.line(sanitize_text(line, WIDTH))?;
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

/// What a policy is attached to.
fn owner(thing: &Declared) -> Option<DeclaredKey> {
    let Declared::Policy(policy) = thing else { return None };
    let of_user = policy.user.clone().map(|name| DeclaredKey { kind: DeclaredKind::Credential, account: None, name });
    of_user.or_else(|| {
        let name = policy.identity.as_ref()?.to_string();
        Some(DeclaredKey { kind: DeclaredKind::Identity, account: policy.account, name })
    })
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
