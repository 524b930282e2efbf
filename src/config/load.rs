//! From a file to a checked configuration, with errors that point at the place.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Config;

/// Why a configuration is refused; shown as `FILE:LINE:COLUMN: what was expected`.
#[derive(Debug)]
pub(crate) struct ConfigError {
    file: PathBuf,
    place: Option<Place>,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    line: usize,
    column: usize,
}

impl ConfigError {
    /// What is wrong with the file as a whole, or with something that it names.
    pub(crate) fn about(file: &Path, message: String) -> ConfigError {
        ConfigError { file: file.to_owned(), place: None, message }
    }

    /// What is wrong with a key of a file, which the path leads to, or as far as it leads.
    pub(crate) fn at_key(file: &Path, text: &str, path: &str, message: String) -> ConfigError {
        ConfigError { file: file.to_owned(), place: locate(text, path).map(|span| place(text, &span)), message }
    }

    /// What a text has that can not be read as what it should be.
    pub(crate) fn of_toml(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
        let place = error.span().map(|span| place(text, &span));
        ConfigError { file: file.to_owned(), place, message: one_line(error.message()) }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Reads and checks a configuration file.
pub(crate) fn load(file: &Path) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(file)
        .map_err(|error| ConfigError::about(file, format!("cannot read the configuration: {error}")))?;
    parse(&text, file)
}

/// Reads and checks a configuration that was read from `file`.
pub(crate) fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let config: Config = toml::from_str(text).map_err(|error| ConfigError::of_toml(file, text, &error))?;
    config.validate().map_err(|message| {
        let path = key_of(&message).to_owned();
        ConfigError::at_key(file, text, &path, message)
    })?;
    Ok(config)
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}

fn place(text: &str, span: &Range<usize>) -> Place {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// The key path that a validation message starts with, as in `tls.certificate: no such file`.
fn key_of(message: &str) -> &str {
    let end = message.find(": ").or_else(|| message.find(' ')).unwrap_or(message.len());
    &message[..end]
}

/// Where the text says something about a key path: the longest part of the path that it names.
fn locate(text: &str, path: &str) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut value = &DeValue::Table(document.into_inner());
    let mut found = None;
    for part in split_path(path) {
        let (span, inner) = match value {
            DeValue::Table(table) => match table.iter().find(|(key, _)| *key.get_ref() == *part) {
                Some((key, inner)) => (key.span(), inner),
                None => return found,
            },
            DeValue::Array(array) => match part.parse().ok().and_then(|index: usize| array.get(index)) {
                Some(inner) => (inner.span(), inner),
                None => return found,
            },
            _ => return found,
        };
        found = Some(span);
        value = inner.get_ref();
    }
    found
}

/// Splits `routes."a.example".x` and `listener[1].address` into their parts.
fn split_path(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut quoted = false;
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' | '[' | ']' if !quoted => {
                if !part.is_empty() {
                    parts.push(std::mem::take(&mut part));
                }
            }
            c => part.push(c),
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text, Path::new("p.toml")).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse("", Path::new("p.toml")).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_shown_with_its_place_and_what_there_is() {
        let refusal = refusal("# one\n[server]\nhostnam = \"x\"\n");
        assert!(refusal.starts_with("p.toml:3:1: unknown field `hostnam`, expected one of "), "{refusal}");
        assert!(refusal.contains("`hostname`"), "{refusal}");
        assert!(!refusal.contains('\n'), "{refusal}");
    }

    #[test]
    fn a_wrong_type_is_shown_with_its_place() {
        let refusal = refusal("[server]\n  region = 7\n");
        assert!(refusal.starts_with("p.toml:2:12: "), "{refusal}");
        assert!(refusal.contains("string"), "{refusal}");
    }

    #[test]
    fn broken_syntax_is_shown_with_its_place() {
        assert!(refusal("[server\n").starts_with("p.toml:1:"));
    }

    #[test]
    fn a_bad_value_is_shown_at_its_key() {
        let refusal = refusal("[control]\nsocket = \"x\"\nmax_connections = 0\n");
        assert!(refusal.starts_with("p.toml:3:1: control.max_connections"), "{refusal}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nowhere/p.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/p.toml: cannot read the configuration"), "{error}");
    }

    #[test]
    fn paths_split_at_dots_outside_quotes() {
        assert_eq!(split_path("routes.\"a.example\""), ["routes", "a.example"]);
        assert_eq!(split_path("listener[1].address"), ["listener", "1", "address"]);
    }

    #[test]
    fn places_count_lines_and_characters() {
        assert_eq!(place("a\n\u{e4}b", &(4..5)), Place { line: 2, column: 2 });
    }
}
