//! The reference of all keys, made from the commented configuration file, which tests compare
//! with the settings: what it says is what there is.

use std::fmt::Write as _;

/// The commented configuration file, as installed: every key with its built-in default.
pub(crate) const EXAMPLE: &str = include_str!("../../etc/postrider.toml");

/// The reference of all keys as Markdown: a table for each section.
pub(crate) fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\nOne TOML file, `/etc/postrider/postrider.toml` unless `--config` names another. \
         Every key has a default; an unknown key is an error. Times are written `100ms`, `90s`, `2m`, `4h`, `3d`, \
         sizes `10MB` or `64MiB`. `postrider config check` says whether a file is right, `postrider config show` \
         prints what is in effect. This page is printed by `postrider config reference`.\n",
    );
    for section in sections(EXAMPLE) {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## `{}`\n\n{}\n", section.header, section.doc.join(" "));
        if section.keys.is_empty() {
            continue;
        }
        page.push_str("\n| key | default | meaning |\n|---|---|---|\n");
        for key in &section.keys {
            let default = match key.optional {
                true => format!("not set; as in `{}`", cell(&key.value)),
                false => format!("`{}`", cell(&key.value)),
            };
            let _ = writeln!(page, "| `{}` | {default} | {} |", key.name, cell(&key.doc.join(" ")));
        }
    }
    page
}

/// A table's cell ends at a bar.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[derive(Debug)]
struct Section<'a> {
    header: &'a str,
    doc: Vec<&'a str>,
    keys: Vec<Key<'a>>,
}

#[derive(Debug)]
struct Key<'a> {
    name: &'a str,
    value: String,
    doc: Vec<&'a str>,
    /// Shown in a comment: a key without a default.
    optional: bool,
}

/// Comments before a header or a key belong to it; `#key = value` is a key without a default.
fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut doc = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(comment) = line.strip_prefix("# ") {
            doc.push(comment.trim());
            continue;
        }
        let optional = line.starts_with('#');
        let line = line.trim_start_matches('#').trim_end();
        if line.is_empty() {
            doc.clear();
        } else if line.starts_with('[') {
            sections.push(Section { header: line, doc: std::mem::take(&mut doc), keys: Vec::new() });
        } else if let (Some((name, first)), Some(section)) = (line.split_once('='), sections.last_mut()) {
            let mut value = first.trim().to_owned();
            while value.starts_with('[') && !value.ends_with(']') {
                let Some(more) = lines.next() else { break };
                value.push_str(more.trim_start_matches('#').trim());
            }
            section.keys.push(Key { name: name.trim(), value, doc: std::mem::take(&mut doc), optional });
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use toml::{Table, Value};

    use super::super::{Config, parse};
    use super::*;

    fn flatten(prefix: &str, table: &Table, into: &mut BTreeSet<String>) {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(inner) if !inner.is_empty() => flatten(&path, inner, into),
                Value::Array(items) if items.iter().any(Value::is_table) => {
                    items.iter().filter_map(Value::as_table).for_each(|item| flatten(&path, item, into));
                }
                _ => {
                    into.insert(path);
                }
            }
        }
    }

    fn keys(text: &str) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        flatten("", &text.parse::<Table>().unwrap(), &mut keys);
        keys
    }

    /// The file with its optional keys and sections switched on.
    fn everything() -> String {
        let on = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
            _ => line.to_owned(),
        };
        EXAMPLE.lines().map(on).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_is_the_defaults() {
        assert_eq!(parse(EXAMPLE, Path::new("etc/postrider.toml")).unwrap(), Config::default());
    }

    #[test]
    fn the_example_names_every_key_that_has_a_default() {
        let defaults = Config::default().to_toml().unwrap();
        let missing: Vec<_> = keys(&defaults).difference(&keys(EXAMPLE)).cloned().collect();
        assert!(missing.is_empty(), "not in etc/postrider.toml: {missing:?}");
    }

    /// serde says which keys a table may have when it meets one that it may not.
    fn known_keys(section: &str) -> BTreeSet<String> {
        const LISTS: [&str; 5] =
            ["listener", "listener.client_certificates", "listener.relay_from", "submission.filters", "tls.sni"];
        let around = if section.starts_with("listener.") { "[[listener]]\naddress = \"*:25\"\n" } else { "" };
        let header = if LISTS.contains(&section) { format!("[[{section}]]") } else { format!("[{section}]") };
        let opening = format!("{around}{header}");
        let refusal = toml::from_str::<Config>(&format!("{opening}\nno_such_key = 1\n")).unwrap_err();
        let message = refusal.message().to_owned();
        assert!(message.contains("no_such_key"), "[{section}]: {message}");
        message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_example_names_every_key_that_there_is() {
        let shown = keys(&everything());
        // The keys of routes are domains.
        let known = shown.iter().filter(|key| !key.starts_with("delivery.routes."));
        let sections: BTreeSet<String> =
            known.filter_map(|key| key.rsplit_once('.')).map(|(section, _)| section.to_owned()).collect();
        for section in sections {
            for key in known_keys(&section) {
                let path = format!("{section}.{key}");
                let inside = format!("{path}.");
                let found = shown.iter().any(|shown| *shown == path || shown.starts_with(&inside));
                assert!(found, "not in etc/postrider.toml: {path}");
            }
        }
    }

    #[test]
    fn the_example_with_its_optional_keys_is_understood() {
        if let Err(error) = toml::from_str::<Config>(&everything()) {
            panic!("{error}");
        }
    }

    #[test]
    fn every_key_and_section_has_a_meaning() {
        for section in sections(EXAMPLE) {
            assert!(!section.doc.is_empty() || section.header == "[[listener]]", "{} says nothing", section.header);
            for key in &section.keys {
                assert!(
                    !key.doc.is_empty() || section.header == "[[listener]]",
                    "{} {} says nothing",
                    section.header,
                    key.name
                );
            }
        }
    }

    #[test]
    fn markdown_has_a_row_for_each_key() {
        let page = markdown();
        assert!(page.contains("## `[server]`"));
        assert!(page.contains("| `region` | `\"us-east-1\"` |"));
    }
}
