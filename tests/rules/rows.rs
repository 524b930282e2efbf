//! How a row is written.
//!
//! ```text
//! # Where the rule stands: what it says
//! $ identities create example.com --trust
//! < a file that the commands name by {file}
//! ? --sandbox
//! * 2
//! MAIL me@example.com
//! RCPT you@example.net
//! From: me@example.com
//!
//! | a line of the body
//! = 250 Ok ID
//! + Subject: a line that the delivered copy has
//! - X-SES-MESSAGE-TAGS
//! ! Bounce /bounce/bounceSubType OnAccountSuppressionList
//! ```
//!
//! Rows are separated by empty lines and begin with `#`. Each has an account and a credential of
//! its own; `{account}`, `{user}` and `{file}` stand for them, and `?` gives options of the command
//! that makes the credential. `$` runs a command of postrider. `*` sends the message so many times
//! before, which must be accepted. Without a From field there is one with the address of MAIL, and
//! without RCPT there is one recipient. `=` is the whole reply; ID stands for the message's id.
//! `+` and `-` are about the delivered copy, `!` about an event: its type, a place in its JSON, and
//! what is there (or, without a place, only that there is one); `!!` says that there is none
//! of this type when the others have come.

use std::fmt;

/// One row of a table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// Where it begins in its file.
    pub(crate) line: usize,
    /// What it stands for.
    pub(crate) cites: String,
    /// Commands, word by word.
    pub(crate) given: Vec<Vec<String>>,
    /// A file for the commands.
    pub(crate) file: String,
    /// Options of the command that makes the credential.
    pub(crate) credential: Vec<String>,
    /// How many messages go before.
    pub(crate) before: usize,
    /// The envelope's sender; empty for the null sender.
    pub(crate) sender: String,
    /// The envelope's recipients.
    pub(crate) recipients: Vec<String>,
    /// Header lines.
    pub(crate) header: Vec<String>,
    /// Lines of the body.
    pub(crate) body: Vec<String>,
    /// The reply to the message.
    pub(crate) reply: String,
    /// Lines of the delivered copy.
    pub(crate) delivered: Vec<String>,
    /// Fields that the delivered copy has not.
    pub(crate) removed: Vec<String>,
    /// Events of the message.
    pub(crate) events: Vec<Wanted>,
    /// Types of events that the message has not.
    pub(crate) no_events: Vec<String>,
}

/// An event that is to come.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its type.
    pub(crate) kind: String,
    /// A place in it and what is there.
    pub(crate) holds: Option<(String, String)>,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holds {
            Some((place, value)) => write!(f, "{} with {place} {value}", self.kind),
            None => f.write_str(&self.kind),
        }
    }
}

/// The rows of a table.
pub(crate) fn read(table: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut open = false;
    for (number, line) in table.lines().enumerate() {
        if line.is_empty() {
            open = false;
            continue;
        }
        if let (Some(cites), false) = (line.strip_prefix("# "), open) {
            rows.push(Row { line: number + 1, cites: cites.to_owned(), ..Row::default() });
            open = true;
        } else {
            let row = rows.last_mut().filter(|_| open);
            row.unwrap_or_else(|| panic!("line {}: outside of a row: {line}", number + 1)).take(line);
        }
    }
    for row in &rows {
        assert!(!row.reply.is_empty(), "line {}: the row expects nothing", row.line);
    }
    rows
}

impl Row {
    fn take(&mut self, line: &str) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = || rest.split(' ').map(str::to_owned).collect::<Vec<_>>();
        match mark {
            "#" => self.cites = format!("{} {rest}", self.cites),
            "$" => self.given.push(words()),
            "<" => self.file.push_str(&format!("{rest}\n")),
            "?" => self.credential = words(),
            "*" => self.before = rest.parse().expect("a number of messages"),
            "MAIL" => rest.clone_into(&mut self.sender),
            "RCPT" => self.recipients.push(rest.to_owned()),
            "|" => self.body.push(rest.to_owned()),
            "=" => rest.clone_into(&mut self.reply),
            "+" => self.delivered.push(rest.to_owned()),
            "-" => self.removed.push(rest.to_owned()),
            "!" => self.events.push(wanted(rest)),
            "!!" => self.no_events.push(rest.to_owned()),
            _ => self.header.push(line.to_owned()),
        }
    }

    /// The message as it is sent.
    pub(crate) fn content(&self) -> String {
        let mut lines = self.header.clone();
        if !self.header.iter().any(|line| line.to_ascii_lowercase().starts_with("from:")) {
            lines.insert(0, format!("From: {}", self.sender));
        }
        lines.push(String::new());
        lines.extend(self.body.iter().cloned());
        lines.join("\r\n") + "\r\n"
    }
}

fn wanted(text: &str) -> Wanted {
    let mut words = text.splitn(3, ' ').map(str::to_owned);
    let kind = words.next().unwrap_or_default();
    Wanted { kind, holds: words.next().zip(words.next()) }
}
