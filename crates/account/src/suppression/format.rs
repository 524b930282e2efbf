//! The three text forms of a suppression list: CSV, a JSON object per line, and the
//! JSON that SES's `ListSuppressedDestinations` prints. What is to be taken off a list comes
//! in the same forms; there the reason may be missing.

use std::io::{self, Write};

use postrider_base::Timestamp;
use postrider_mail::{AddressError, EmailAddress, SuppressionReason};
use serde::{Deserialize, Serialize};
use serde_json::{Deserializer, Value, json};

use super::{GloballySuppressed, Suppressed};

/// The member of SES's document that holds the entries.
const SUMMARIES: &str = "SuppressedDestinationSummaries";

/// A text form of a suppression list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `recipient@example.com, BOUNCE`, a line each, no header line. Blanks around
    /// the two are ignored. This is what SES's import jobs read.
    Csv,
    /// `{"emailAddress":"recipient@example.com","reason":"BOUNCE"}`, a line each. The
    /// other form that SES's import jobs read.
    JsonLines,
    /// `{"SuppressedDestinationSummaries":[{"EmailAddress":...,"Reason":...,"LastUpdateTime":...}]}`,
    /// as SES's `ListSuppressedDestinations` prints it, one document per page.
    Ses,
}

impl Format {
    /// The form of `text`, by how it begins.
    #[must_use]
    pub fn detect(text: &str) -> Self {
        let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
        if !text.starts_with('{') {
            return Self::Csv;
        }
        let first_line = text.lines().next().unwrap_or_default();
        match serde_json::from_str::<Value>(first_line) {
            Ok(object) if object.get(SUMMARIES).is_none() => Self::JsonLines,
            _ if text.contains(SUMMARIES) => Self::Ses,
            _ => Self::JsonLines,
        }
    }
}

/// One entry of a text, ready to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportEntry {
    /// The address to suppress.
    pub address: EmailAddress,
    /// Why.
    pub reason: SuppressionReason,
    /// When the list it comes from last changed it; `None` where the text does not say.
    pub updated_at: Option<Timestamp>,
}

/// A line that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedLine {
    /// Its number in the text, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads `text` in the form that [`Format::detect`] finds. One bad line refuses only
/// itself; empty lines are no entries.
#[must_use]
pub fn parse(text: &str) -> Parsed<'_> {
    let format = Format::detect(text);
    let text = text.trim_start_matches('\u{feff}');
    Parsed { format, text, at: 0, line: 1, in_list: false }
}

/// The entries of a text, in their order. Made by [`parse`].
#[derive(Debug)]
pub struct Parsed<'a> {
    format: Format,
    text: &'a str,
    /// Where the unread part begins.
    at: usize,
    /// Number of the line that `at` is on.
    line: u64,
    /// Whether `at` is between the elements of SES's array.
    in_list: bool,
}

impl Parsed<'_> {
    /// The form that was detected.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }
}

impl<'a> Parsed<'a> {
    /// Goes on to `at`, counting lines.
    fn advance(&mut self, to: usize) {
        let passed = &self.text.as_bytes()[self.at..to];
        let lines = passed.iter().filter(|&&byte| byte == b'\n').count();
        self.line += lines as u64;
        self.at = to;
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next line that is not blank, with its number.
    fn next_line(&mut self) -> Option<(u64, &'a str)> {
        while self.at < self.text.len() {
            let rest = self.rest();
            let line = rest.split_inclusive('\n').next().unwrap_or(rest);
            let number = self.line;
            self.advance(self.at + line.len());
            if !line.trim().is_empty() {
                return Some((number, line.trim()));
            }
        }
        None
    }

    /// Moves to the next element of SES's arrays, of which each page of a listing has one.
    fn find_summary(&mut self) -> Option<&'a str> {
        loop {
            if !self.in_list {
                let key = self.at + self.rest().find(SUMMARIES)?;
                let open = key + self.text[key..].find('[')?;
                self.advance(open + 1);
                self.in_list = true;
            }
            let rest = self.rest();
            let element = rest.trim_start_matches([',', ' ', '\t', '\r', '\n']);
            self.advance(self.at + rest.len() - element.len());
            if !element.is_empty() && !element.starts_with(']') {
                return Some(element);
            }
            self.in_list = false;
        }
    }

    /// The next element of SES's arrays, with its line; `Err` where the text is no JSON.
    fn next_summary(&mut self) -> Option<(u64, serde_json::Result<Value>)> {
        let element = self.find_summary()?;
        let number = self.line;
        let mut values = Deserializer::from_str(element).into_iter::<Value>();
        let value = values.next()?;
        if value.is_ok() {
            self.advance(self.at + values.byte_offset());
        } else {
            // Where the JSON ends, nothing behind it can be trusted.
            self.in_list = false;
            self.advance(self.text.len());
        }
        Some((number, value))
    }
}

impl Parsed<'_> {
    /// The next entry as it is written, with its line.
    fn next_written(&mut self) -> Option<(u64, Result<Written, String>)> {
        let from_json = |parsed: serde_json::Result<Written>| parsed.map_err(|error| format!("not an entry: {error}"));
        Some(match self.format {
            Format::Csv => {
                let (line, text) = self.next_line()?;
                (line, Ok(Written::from_csv(text)))
            }
            Format::JsonLines => {
                let (line, text) = self.next_line()?;
                (line, from_json(serde_json::from_str(text)))
            }
            Format::Ses => {
                let (line, value) = self.next_summary()?;
                (line, from_json(value.and_then(serde_json::from_value)))
            }
        })
    }
}

impl Iterator for Parsed<'_> {
    type Item = Result<ImportEntry, RefusedLine>;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, written) = self.next_written()?;
        Some(written.and_then(|written| written.entry()).map_err(|reason| RefusedLine { line, reason }))
    }
}

/// Reads the addresses of `text`, of which SES's jobs for removing entries give nothing else:
/// `recipient@example.com` or `{"emailAddress":"recipient@example.com"}`, a line each. Entries
/// with a reason are read too.
#[must_use]
pub fn parse_addresses(text: &str) -> Addresses<'_> {
    Addresses(parse(text))
}

/// The addresses of a text, in their order. Made by [`parse_addresses`].
#[derive(Debug)]
pub struct Addresses<'a>(Parsed<'a>);

impl Addresses<'_> {
    /// The form that was detected.
    #[must_use]
    pub fn format(&self) -> Format {
        self.0.format()
    }
}

impl Iterator for Addresses<'_> {
    type Item = Result<EmailAddress, RefusedLine>;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, written) = self.0.next_written()?;
        Some(written.and_then(|written| written.address()).map_err(|reason| RefusedLine { line, reason }))
    }
}

/// An entry as it is written. Both JSON spellings: SES's import jobs write the first letter
/// small, its lists large.
#[derive(Deserialize)]
struct Written {
    #[serde(rename = "emailAddress", alias = "EmailAddress")]
    address: String,
    #[serde(default, alias = "Reason")]
    reason: Option<String>,
    #[serde(default, rename = "lastUpdateTime", alias = "LastUpdateTime")]
    updated_at: Option<Value>,
}

impl Written {
    fn from_csv(line: &str) -> Self {
        let unquoted = |text: &'_ str| -> String {
            let text = text.trim();
            let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
            inner.unwrap_or(text).to_owned()
        };
        // The last comma: a quoted local part may hold others.
        let (address, reason) = match line.rsplit_once(',') {
            Some((address, reason)) if !reason.contains('@') => (address, Some(unquoted(reason))),
            _ => (line, None),
        };
        Self { address: unquoted(address), reason, updated_at: None }
    }

    fn address(&self) -> Result<EmailAddress, String> {
        self.address.trim().parse().map_err(|error: AddressError| format!("not an address: {error}"))
    }

    fn entry(&self) -> Result<ImportEntry, String> {
        let updated_at = match &self.updated_at {
            None | Some(Value::Null) => None,
            Some(value) => Some(time(value).ok_or("the time is neither seconds nor RFC 3339")?),
        };
        let address = self.address()?;
        let Some(reason) = &self.reason else {
            return Err("no reason: expected ADDRESS, BOUNCE or ADDRESS, COMPLAINT".to_owned());
        };
        let reason = reason.trim().parse().map_err(|_| "the reason is neither BOUNCE nor COMPLAINT")?;
        Ok(ImportEntry { address, reason, updated_at })
    }
}

/// SES's API gives seconds with a fraction, aws-cli v2 prints RFC 3339.
fn time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => Timestamp::parse_rfc3339(text),
        Value::Number(seconds) => {
            let seconds = std::time::Duration::try_from_secs_f64(seconds.as_f64()?).ok()?;
            // Rounded: a fraction such as .077 has no exact binary form.
            let millis = (seconds.as_micros() + 500) / 1000;
            Some(Timestamp::from_millis(u64::try_from(millis).ok()?))
        }
        _ => None,
    }
}

impl Suppressed {
    /// As SES's API describes it.
    #[must_use]
    pub fn summary(&self) -> Value {
        json!({
            "EmailAddress": self.address,
            "Reason": self.reason,
            "LastUpdateTime": seconds(self.updated_at),
        })
    }
}

impl GloballySuppressed {
    /// As SES's API would describe it, which does not tell of this list, and when it ends.
    #[must_use]
    pub fn summary(&self) -> Value {
        json!({
            "EmailAddress": self.address,
            "Reason": SuppressionReason::Bounce,
            "LastUpdateTime": seconds(self.updated_at),
            "ExpirationTime": seconds(self.until),
            "BounceCount": self.bounces,
        })
    }
}

/// Writes entries of the global list as [`Format::Ses`] has them.
///
/// # Errors
/// What `out` reports.
pub fn export_globally(entries: impl IntoIterator<Item = GloballySuppressed>, out: &mut dyn Write) -> io::Result<()> {
    write_summaries(entries.into_iter().map(|entry| entry.summary()), out)
}

fn write_summaries(summaries: impl Iterator<Item = Value>, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{{\"{SUMMARIES}\":[")?;
    for (index, summary) in summaries.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n{summary}")?;
    }
    writeln!(out, "\n]}}")
}

/// Writes entries in `format`. Only [`Format::Ses`] carries the times.
///
/// # Errors
/// What `out` reports.
pub fn export(format: Format, entries: impl IntoIterator<Item = Suppressed>, out: &mut dyn Write) -> io::Result<()> {
    if format == Format::Ses {
        return write_summaries(entries.into_iter().map(|entry| entry.summary()), out);
    }
    for entry in entries {
        if format == Format::Csv {
            writeln!(out, "{},{}", entry.address, entry.reason)?;
        } else {
            let line = json!({"emailAddress": entry.address, "reason": entry.reason});
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Unix seconds with milliseconds, as SES's API prints times.
fn seconds(time: Timestamp) -> f64 {
    std::time::Duration::from_millis(time.as_millis()).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Timestamp = Timestamp::from_millis(1_586_552_585_077);

    fn all(text: &str) -> (Format, Vec<ImportEntry>, Vec<(u64, String)>) {
        let parsed = parse(text);
        let format = parsed.format();
        let (mut good, mut bad) = (vec![], vec![]);
        for item in parsed {
            match item {
                Ok(entry) => good.push(entry),
                Err(refused) => bad.push((refused.line, refused.reason)),
            }
        }
        (format, good, bad)
    }

    fn is(entry: &ImportEntry, address: &str, reason: SuppressionReason) -> bool {
        entry.address.as_str() == address && entry.reason == reason
    }

    #[test]
    fn csv_lines_are_trimmed_and_bad_ones_numbered() {
        let text = "\u{feff}a@example.com, BOUNCE\r\n\r\n  b@example.com ,complaint\n\
                    \"c@example.com\",\"BOUNCE\"\nd@example.com\nnot an address,BOUNCE\n\
                    e@example.com,SPAM\n\"f,g\"@example.com, BOUNCE";
        let (format, good, bad) = all(text);
        assert_eq!(format, Format::Csv);
        assert!(is(&good[0], "a@example.com", SuppressionReason::Bounce));
        assert!(is(&good[1], "b@example.com", SuppressionReason::Complaint));
        assert!(is(&good[2], "c@example.com", SuppressionReason::Bounce));
        assert!(is(&good[3], "\"f,g\"@example.com", SuppressionReason::Bounce));
        assert_eq!(good.len(), 4);
        let lines: Vec<_> = bad.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [5, 6, 7]);
        assert!(bad[0].1.contains("no reason"));
        assert!(bad[1].1.contains("not an address"));
        assert!(bad[2].1.contains("neither BOUNCE nor COMPLAINT"));
    }

    #[test]
    fn what_is_taken_off_needs_no_reason() {
        let csv = "a@example.com\n\"b,c\"@example.com\nd@example.com, BOUNCE\nrubbish\n";
        let json = "{\"emailAddress\":\"a@example.com\"}\n{\"emailAddress\":\"\\\"b,c\\\"@example.com\"}\n\
                    {\"EmailAddress\":\"d@example.com\",\"Reason\":\"BOUNCE\"}\n{\"address\":\"e@example.com\"}\n";
        for text in [csv, json] {
            let (good, bad): (Vec<_>, Vec<_>) = parse_addresses(text).partition(Result::is_ok);
            let good: Vec<_> = good.into_iter().map(|address| address.unwrap().to_string()).collect();
            assert_eq!(good, ["a@example.com", "\"b,c\"@example.com", "d@example.com"], "{text}");
            assert_eq!(bad[0].as_ref().unwrap_err().line, 4);
        }
    }

    #[test]
    fn json_lines_are_read_one_by_one() {
        let text = "{\"emailAddress\":\"a@example.com\",\"reason\":\"BOUNCE\"}\n\
                    {\"emailAddress\":\"b@example.com\"}\n{broken\n\
                    {\"emailAddress\":\"c@example.com\",\"reason\":\"COMPLAINT\"}\n";
        let (format, good, bad) = all(text);
        assert_eq!(format, Format::JsonLines);
        assert_eq!(good.len(), 2);
        assert_eq!(good[0].updated_at, None);
        assert_eq!(bad.iter().map(|b| b.0).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_listing_of_ses_is_read_with_both_kinds_of_time() {
        let text = "{\n  \"SuppressedDestinationSummaries\": [\n    {\n      \"EmailAddress\": \
                    \"a@example.com\",\n      \"Reason\": \"COMPLAINT\",\n      \
                    \"LastUpdateTime\": 1586552585.077\n    },\n    {\"EmailAddress\": \
                    \"b@example.com\", \"Reason\": \"BOUNCE\", \"LastUpdateTime\": \
                    \"2020-04-10T23:03:05.077000+02:00\"},\n    {\"EmailAddress\": \"c\", \
                    \"Reason\": \"BOUNCE\", \"LastUpdateTime\": 1}\n  ],\n  \"NextToken\": \"x\"\n}\n\
                    {\"SuppressedDestinationSummaries\":[{\"EmailAddress\":\"d@example.com\",\
                    \"Reason\":\"BOUNCE\",\"LastUpdateTime\":1586552585}]}";
        let (format, good, bad) = all(text);
        assert_eq!(format, Format::Ses);
        assert_eq!(good.len(), 3);
        assert!(is(&good[0], "a@example.com", SuppressionReason::Complaint));
        assert_eq!(good[0].updated_at, Some(SECOND));
        assert_eq!(good[1].updated_at, Some(SECOND));
        assert!(is(&good[2], "d@example.com", SuppressionReason::Bounce));
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].0, 9);
    }

    #[test]
    fn a_cut_listing_is_read_up_to_the_cut() {
        let text = "{\"SuppressedDestinationSummaries\":[\n{\"EmailAddress\":\"a@example.com\",\
                    \"Reason\":\"BOUNCE\"},\n{\"EmailAddress\":\"b@exam";
        let (_, good, bad) = all(text);
        assert_eq!((good.len(), bad.len()), (1, 1));
        assert_eq!(bad[0].0, 3);
    }

    #[test]
    fn hostile_texts_end() {
        for text in ["", "{", "{\"SuppressedDestinationSummaries\"", "{}\n{}", "[]", ",,,\n\n"] {
            assert!(parse(text).count() <= 2, "{text}");
        }
    }

    #[test]
    fn every_format_reads_what_it_wrote() {
        let entries = vec![
            Suppressed { address: "a@example.com".to_owned(), reason: SuppressionReason::Bounce, updated_at: SECOND },
            Suppressed {
                address: "\"b,c\"@example.com".to_owned(),
                reason: SuppressionReason::Complaint,
                updated_at: Timestamp::from_millis(1_586_552_585_999),
            },
        ];
        for format in [Format::Csv, Format::JsonLines, Format::Ses] {
            let mut out = Vec::new();
            export(format, entries.clone(), &mut out).unwrap();
            let (detected, good, bad) = all(std::str::from_utf8(&out).unwrap());
            assert_eq!((detected, bad.len(), good.len()), (format, 0, 2));
            for (read, written) in good.iter().zip(&entries) {
                assert!(is(read, &written.address, written.reason));
                if format == Format::Ses {
                    assert_eq!(read.updated_at, Some(written.updated_at));
                }
            }
        }
    }
}
