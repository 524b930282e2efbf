//! The edges between crates, checked against `cargo metadata`: a lower room
//! never names a higher one. Changing this table is a design change and goes
//! with `docs/architecture.md`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{cargo, say};

/// Each room and the rooms it may name, besides `base` (all) and `mail` (from
/// floor 2 up).
const ROOMS: &[(&str, u8, &[&str])] = &[
    ("base", 0, &[]),
    ("mail", 1, &[]),
    ("wal", 1, &[]),
    ("smtp", 2, &[]),
    ("store", 2, &["wal"]),
    ("dns", 2, &[]),
    ("spool", 2, &["wal"]),
    ("filter", 2, &[]),
    ("account", 3, &["store"]),
    ("events", 3, &["wal", "store", "spool", "account"]),
    ("mailauth", 3, &["dns"]),
    ("submission", 4, &["account", "mailauth", "spool", "filter"]),
    ("delivery", 5, &["smtp", "dns", "store", "account", "spool", "filter", "submission"]),
    ("feedback", 5, &["account", "mailauth", "events", "submission", "delivery"]),
    ("simulator", 5, &["smtp"]),
    ("upkeep", 5, &["dns", "mailauth", "account", "events", "submission"]),
    ("listener", 6, &["smtp", "store", "submission", "feedback"]),
    (
        "control",
        6,
        &[
            "smtp",
            "store",
            "dns",
            "spool",
            "account",
            "events",
            "mailauth",
            "submission",
            "delivery",
            "feedback",
            "simulator",
            "upkeep",
        ],
    ),
    ("api", 7, &["submission", "account", "events", "control"]),
];

/// May name any room.
const FREE: &[&str] =
    &["postrider", "postrider-bench", "postrider-cases", "postrider-fuzz", "postrider-testkit", "xtask"];

pub(crate) fn check() -> Result<()> {
    let output = cargo()
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let wrong = violations(&metadata)?;
    if !wrong.is_empty() {
        bail!("edges that the architecture does not allow:\n  {}", wrong.join("\n  "));
    }
    say("layers: every edge between crates is one that the architecture allows");
    Ok(())
}

fn violations(metadata: &Value) -> Result<Vec<String>> {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().context("no packages in the metadata")? {
        let name = package["name"].as_str().context("a package without a name")?;
        if FREE.contains(&name) {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the table of rooms"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            // Tests may look around freely; the product may not.
            let for_tests = dependency["kind"].as_str() == Some("dev");
            if on.starts_with("postrider-") && !for_tests && !may.contains(on) {
                wrong.push(format!("{name} names {on}"));
            }
        }
    }
    Ok(wrong)
}

fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    ROOMS
        .iter()
        .map(|(room, floor, names)| {
            let mut may: BTreeSet<String> = names.iter().map(|name| format!("postrider-{name}")).collect();
            if *floor > 0 {
                may.insert("postrider-base".to_owned());
            }
            if *floor > 1 {
                may.insert("postrider-mail".to_owned());
            }
            (format!("postrider-{room}"), may)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, on: &str, kind: Option<&str>) -> Value {
        json!({"packages": [{"name": name, "dependencies": [{"name": on, "kind": kind}]}]})
    }

    #[test]
    fn a_lower_room_may_not_name_a_higher_one() {
        let wrong = violations(&package("postrider-spool", "postrider-delivery", None)).unwrap();
        assert_eq!(wrong, ["postrider-spool names postrider-delivery"]);
        assert!(violations(&package("postrider-mail", "postrider-wal", None)).unwrap().len() == 1);
    }

    #[test]
    fn allowed_edges_and_test_dependencies_pass() {
        assert!(violations(&package("postrider-spool", "postrider-wal", None)).unwrap().is_empty());
        assert!(violations(&package("postrider-mail", "postrider-base", None)).unwrap().is_empty());
        assert!(violations(&package("postrider-wal", "postrider-testkit", Some("dev"))).unwrap().is_empty());
    }

    #[test]
    fn a_room_that_is_not_in_the_table_is_named() {
        let wrong = violations(&package("postrider-attic", "serde", None)).unwrap();
        assert_eq!(wrong, ["postrider-attic is not in the table of rooms"]);
    }
}
