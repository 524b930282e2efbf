//! A plan in the forms that DNS servers and consoles read.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use super::{Data, Place, Plan, Record, State};

/// Longest string of a TXT record (RFC 1035 section 3.3).
const MAX_STRING: usize = 255;

/// A form of a plan.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// Lines of a zone file (RFC 1035 section 5), with the reasons as comments.
    #[default]
    Zone,
    /// One record a line, with a header: what DNS consoles import and people read in a
    /// spreadsheet (RFC 4180).
    Csv,
    /// What BIND's `nsupdate` reads.
    Nsupdate,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "zone" => Ok(Self::Zone),
            "csv" => Ok(Self::Csv),
            "nsupdate" => Ok(Self::Nsupdate),
            _ => Err(format!("expected zone, csv or nsupdate, found {text:?}")),
        }
    }
}

impl Format {
    /// The whole plan in this form, ending with a line's end.
    #[must_use]
    pub fn write(self, plan: &Plan) -> String {
        match self {
            Self::Zone => zone(plan),
            Self::Csv => csv(plan),
            Self::Nsupdate => nsupdate(plan),
        }
    }
}

impl Data {
    /// The value as it stands in a zone file.
    #[must_use]
    pub fn presentation(&self) -> String {
        match self {
            Self::Txt(text) => {
                let strings: Vec<String> = strings(text).map(quoted).collect();
                strings.join(" ")
            }
            data => data.to_string(),
        }
    }
}

/// The strings that a text is cut into (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2): whoever
/// reads them joins them without anything in between.
pub(crate) fn strings(text: &str) -> impl Iterator<Item = &[u8]> {
    // An empty text is one empty string, not none.
    let empty = text.is_empty().then_some(&b""[..]);
    empty.into_iter().chain(text.as_bytes().chunks(MAX_STRING))
}

/// RFC 1035 section 5.1: inside quotes, quotes and backslashes are escaped, and octets that are
/// not printable ASCII are `\DDD`.
fn quoted(string: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in string {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:03}")),
        }
    }
    text.push('"');
    text
}

fn zone(plan: &Plan) -> String {
    let mut text = String::new();
    for place in [Place::Domain, Place::Operator, Place::Network] {
        let mut records = plan.records.iter().filter(|record| record.place == place).peekable();
        if records.peek().is_none() {
            continue;
        }
        let _ = writeln!(text, "; ---- {}", place.as_str());
        for record in records {
            let _ = write!(text, "{}", Commented(record));
        }
        text.push('\n');
    }
    for note in &plan.notes {
        let _ = writeln!(text, "; note: {note}");
    }
    text
}

/// A record's line, after its reasons.
struct Commented<'a>(&'a Record);

impl fmt::Display for Commented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        writeln!(f, "; {}: {}", record.need.as_str(), record.why)?;
        let line = format!("{}. {} IN {} {}", record.name, record.ttl, record.data.kind(), record.data.presentation());
        match &record.state {
            None => writeln!(f, "{line}"),
            Some(State::Missing) => writeln!(f, "; missing:\n{line}"),
            Some(State::Right) => writeln!(f, "; right already:\n; {line}"),
            Some(State::Differs { found, advice }) => writeln!(f, "; differs, found: {found}\n; {advice}\n{line}"),
            Some(State::Unknown { reason }) => writeln!(f, "; not known: {reason}\n{line}"),
        }
    }
}

fn csv(plan: &Plan) -> String {
    let mut text = String::from("name,type,ttl,value,need,place,state,why\r\n");
    for record in &plan.records {
        let state = record.state.as_ref().map_or("", State::as_str);
        let cells = [
            record.name.as_str(),
            record.data.kind(),
            &record.ttl.to_string(),
            &record.data.to_string(),
            record.need.as_str(),
            record.place.as_str(),
            state,
            &record.why,
        ];
        let cells: Vec<String> = cells.into_iter().map(cell).collect();
        let _ = write!(text, "{}\r\n", cells.join(","));
    }
    text
}

/// RFC 4180 section 2.
fn cell(text: &str) -> String {
    match text.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// Names that may be in different zones are in different requests, as a request is about one.
/// What is right already is left out.
fn nsupdate(plan: &Plan) -> String {
    let mut text = String::new();
    let mut open = None;
    for record in plan.records.iter().filter(|record| record.state != Some(State::Right)) {
        let zone = match record.place {
            Place::Domain => plan.domain.as_str(),
            _ => &record.name,
        };
        if open.is_some_and(|open| open != zone) {
            text.push_str("send\n");
        }
        open = Some(zone);
        let _ = writeln!(text, "; {}: {}", record.need.as_str(), record.why);
        if let Some(State::Differs { found, advice }) = &record.state {
            let _ = writeln!(text, "; not added, as there is {found}: {advice}");
            continue;
        }
        let value = record.data.presentation();
        let _ = writeln!(text, "update add {}. {} IN {} {value}", record.name, record.ttl, record.data.kind());
    }
    if open.is_some() {
        text.push_str("send\n");
    }
    text
}

impl State {
    /// A word of a closed set.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Missing => "missing",
            Self::Differs { .. } => "differs",
            Self::Unknown { .. } => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::records::plan::tests::input;
    use crate::records::{Need, plan};

    fn lines(format: Format) -> Vec<String> {
        format.write(&plan(&input())).lines().map(str::to_owned).collect()
    }

    #[test]
    fn long_texts_are_cut_where_zone_files_want_it() {
        let zone = lines(Format::Zone);
        let key = zone.iter().find(|line| line.starts_with("k1._domainkey.example.com.")).unwrap();
        let strings: Vec<&str> = key.split('"').skip(1).step_by(2).collect();
        assert_eq!(strings.iter().map(|string| string.len()).collect::<Vec<_>>(), [255, 155]);
        assert!(key.starts_with("k1._domainkey.example.com. 3600 IN TXT \"v=DKIM1; k=rsa; p=AAA"));
        assert!(zone.contains(&"bounce.example.com. 3600 IN MX 10 mx.relay.example.".to_owned()));
        assert!(zone.iter().all(|line| line.is_empty() || line.starts_with(';') || line.contains(" 3600 IN ")));
    }

    #[test]
    fn quotes_and_foreign_octets_are_escaped() {
        assert_eq!(Data::Txt("a\"b\\c;\u{e4}\n".into()).presentation(), r#""a\"b\\c;\195\164\010""#);
        assert_eq!(Data::Txt(String::new()).presentation(), "\"\"");
    }

    #[test]
    fn states_are_shown() {
        let mut plan = plan(&input());
        plan.records.truncate(2);
        plan.records[0].state = Some(State::Right);
        plan.records[1].state = Some(State::Differs { found: "20 x.".into(), advice: "change it".into() });
        let zone = Format::Zone.write(&plan);
        assert!(zone.contains("; right already:\n; k1._domainkey."), "{zone}");
        assert!(zone.contains("; differs, found: 20 x.\n; change it\nbounce."), "{zone}");
        let update = Format::Nsupdate.write(&plan);
        assert!(!update.contains("update add") && update.contains("not added, as there is 20 x."), "{update}");
        let csv = Format::Csv.write(&plan);
        assert!(csv.contains(",right,") && csv.contains(",differs,"), "{csv}");
    }

    #[test]
    fn requests_are_about_one_zone_each() {
        let script = Format::Nsupdate.write(&plan(&input()));
        for request in script.split("send\n") {
            let names: Vec<&str> = request.lines().filter_map(|line| line.strip_prefix("update add ")).collect();
            let domain = names.iter().filter(|line| line.split(' ').next().unwrap().ends_with("example.com.")).count();
            assert!(domain == 0 || domain == names.len(), "{request}");
        }
        assert!(script.ends_with("send\n"));
    }

    #[test]
    fn cells_with_commas_and_quotes_are_quoted() {
        assert_eq!(cell("a,b\"c"), "\"a,b\"\"c\"");
        let mut plan = plan(&input());
        plan.records.truncate(1);
        plan.records[0].need = Need::May;
        let csv = Format::Csv.write(&plan);
        let rows: Vec<&str> = csv.split("\r\n").collect();
        assert_eq!(rows[0], "name,type,ttl,value,need,place,state,why");
        assert!(rows[1].starts_with("k1._domainkey.example.com,TXT,3600,v=DKIM1; k=rsa; p=AAAA"));
        assert!("html".parse::<Format>().is_err() && "csv".parse::<Format>().is_ok());
    }

    proptest! {
        #[test]
        fn strings_join_to_the_text(text in ".{0,600}") {
            let strings: Vec<&[u8]> = strings(&text).collect();
            prop_assert!(!strings.is_empty() && strings.iter().all(|string| string.len() <= MAX_STRING));
            prop_assert_eq!(strings.concat(), text.as_bytes());
        }

        #[test]
        fn no_value_breaks_out_of_its_line(text in "\\PC{0,300}|[\\x00-\\x7f]{0,300}") {
            let shown = Data::Txt(text).presentation();
            prop_assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
}
