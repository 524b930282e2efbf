//! What the command line prints: tables for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use postrider_base::Timestamp;
use serde::Serialize;

/// Whoever read our output has gone: nothing is left to say, and nothing is wrong.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl std::error::Error for ReaderGone {}

impl Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output is closed")
    }
}

/// Standard output, buffered; call [`Output::flush`] when the reader should see it.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        Output { json, out: BufWriter::new(io::stdout()) }
    }

    /// Whether a program reads it.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// One line of text.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<()> {
        writeln!(self.out, "{line}").map_err(reader_gone)
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(reader_gone)
    }

    /// One JSON value on one line.
    pub(crate) fn json_line<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let line = serde_json::to_string(value)?;
        self.line(line)
    }

    /// One JSON value, indented.
    pub(crate) fn json_document<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let document = serde_json::to_string_pretty(value)?;
        self.line(document)
    }

    /// A table; `nothing` is said when it has no rows.
    pub(crate) fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>, nothing: &str) -> Result<()> {
        if rows.is_empty() {
            return self.line(nothing);
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(header).add_rows(rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        if io::stdout().is_terminal() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(reader_gone)
    }
}

fn reader_gone(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe { ReaderGone.into() } else { error.into() }
}

/// A time for people: to the second, in UTC.
pub(crate) fn time(at: Timestamp) -> String {
    let text = at.rfc3339();
    let seconds = text.split('.').next().unwrap_or(&text);
    format!("{}Z", seconds.trim_end_matches('Z').replace('T', " "))
}

/// A time for people, or a dash.
pub(crate) fn time_or_dash(at: Option<Timestamp>) -> String {
    at.map_or_else(dash, time)
}

/// A text for people, or a dash.
pub(crate) fn or_dash<T: Display>(value: Option<T>) -> String {
    value.map_or_else(dash, |value| value.to_string())
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut scaled = count;
    let mut rest = 0;
    while scaled >= 1_000 && unit + 1 < UNITS.len() {
        rest = scaled % 1_000 / 100;
        scaled /= 1_000;
        unit += 1;
    }
    if unit == 0 { format!("{scaled} B") } else { format!("{scaled}.{rest} {}", UNITS[unit]) }
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_to_the_second() {
        assert_eq!(time(Timestamp::from_millis(1_501_893_662_669)), "2017-08-05 00:41:02Z");
        assert_eq!(time_or_dash(None), "-");
    }

    #[test]
    fn bytes_have_one_decimal() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(10_240), "10.2 KB");
        assert_eq!(bytes(20_000_000_000), "20.0 GB");
    }
}
