//! The operator's mail log: one line for each acceptance and each attempt,
//! in the manner of Postfix's.

use std::fmt::{self, Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use parking_lot::Mutex;
use postrider_base::Timestamp;
use postrider_mail::{AttemptOutcome, Disposition, EmailAddress, MessageId};
use postrider_spool::{AcceptedRecord, OriginKind};

use crate::error::{Error, Result};
use crate::returned::{ReturnedKind, ReturnedSource};

/// Where the lines of the mail log go.
pub trait MailSink: Send + Sync + fmt::Debug {
    /// Takes whole lines, each with its line end. May block briefly.
    ///
    /// # Errors
    /// The lines are lost; the caller counts them.
    fn write(&self, lines: &str) -> io::Result<()>;

    /// Opens anew what has a name, after a rotation.
    ///
    /// # Errors
    /// The old file stays in use.
    fn reopen(&self) -> io::Result<()>;
}

/// Sends each line to the program's log, with the target `mail`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

impl MailSink for TracingSink {
    fn write(&self, lines: &str) -> io::Result<()> {
        for line in lines.lines() {
            tracing::info!(target: "mail", "{line}");
        }
        Ok(())
    }

    fn reopen(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends to a file, which its owner and group can read.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    file: Mutex<File>,
}

impl FileSink {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// When it can not be opened.
    pub fn open(path: PathBuf) -> Result<Self> {
        let file = append(&path)
            .map_err(|source| Error::Io { action: format!("opening the mail log {}", path.display()), source })?;
        Ok(Self { path, file: Mutex::new(file) })
    }
}

impl MailSink for FileSink {
    fn write(&self, lines: &str) -> io::Result<()> {
        self.file.lock().write_all(lines.as_bytes())
    }

    fn reopen(&self) -> io::Result<()> {
        let file = append(&self.path)?;
        *self.file.lock() = file;
        Ok(())
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640).open(path)
}

/// Appends the line of an acceptance.
pub(crate) fn write_accepted(out: &mut String, record: &AcceptedRecord) {
    let origin = &record.origin;
    let sender = record.envelope.sender.as_ref();
    let _ = write!(
        out,
        "{}: from=<{}>, size={}, nrcpt={}",
        record.id,
        Clean(sender.map_or("", EmailAddress::as_str)),
        record.size,
        record.envelope.recipients.len(),
    );
    if let Some(ip) = origin.client_ip {
        let name = origin.client_name.as_deref().unwrap_or("unknown");
        let _ = write!(out, ", client={}[{ip}]", Word(name));
    }
    if !origin.protocol.is_empty() {
        let _ = write!(out, ", proto={}", Word(&origin.protocol));
    }
    if let Some(user) = &origin.credential {
        let _ = write!(out, ", user={}", Word(user));
    }
    if let OriginKind::Dsn { of } = origin.kind {
        let _ = write!(out, ", notification_of={of}");
    }
    out.push('\n');
}

/// Appends the line of an attempt for one recipient.
pub(crate) fn write_attempt(
    out: &mut String,
    id: MessageId,
    recipient: Option<&EmailAddress>,
    accepted_at: Timestamp,
    outcome: &AttemptOutcome,
) {
    let status = match outcome.disposition {
        Disposition::Delivered => "sent",
        other => other.as_str(),
    };
    let to = Clean(recipient.map_or("unknown", EmailAddress::as_str));
    let _ = write!(out, "{id}: to=<{to}>, relay=");
    let _ = match &outcome.remote {
        Some(remote) => {
            let ip = remote.ip.map(|ip| format!("[{ip}]")).unwrap_or_default();
            let port = if remote.port == 0 { String::new() } else { format!(":{}", remote.port) };
            write!(out, "{}{ip}{port}", Word(&remote.host))
        }
        None => write!(out, "none"),
    };
    let age = outcome.at.saturating_since(accepted_at).as_millis();
    let _ = writeln!(
        out,
        ", delay={}.{:03}, delays={}, dsn={}, status={status} ({})",
        age / 1000,
        age % 1000,
        outcome.delays,
        outcome.status,
        Clean(&outcome.diagnostic),
    );
}

/// Appends the line of what came back for one recipient.
pub(crate) fn write_returned(
    out: &mut String,
    id: MessageId,
    recipient: &EmailAddress,
    what: &ReturnedKind,
    source: &ReturnedSource,
) {
    let _ = write!(out, "{id}: to=<{}>, reported_by=", Clean(recipient.as_str()));
    let _ = match source.ip {
        Some(ip) => write!(out, "{}[{ip}]", Word(source.domains.first().map_or("unknown", String::as_str))),
        None => write!(out, "relay"),
    };
    if !source.session.is_empty() {
        let _ = write!(out, ", session={}", Word(&source.session));
    }
    let _ = match what {
        ReturnedKind::Bounce(bounce) => {
            let status = bounce.status.map(|status| format!(", dsn={status}")).unwrap_or_default();
            let said = bounce.diagnostic.as_deref().unwrap_or("no reason given");
            writeln!(out, "{status}, status=returned ({})", Clean(said))
        }
        ReturnedKind::Complaint(complaint) => {
            let said = complaint.feedback_type.as_deref().unwrap_or("no reason given");
            writeln!(out, ", status=complained ({})", Clean(said))
        }
    };
}

/// Prints text on one line, whatever it holds, and without what commands or
/// confuses a terminal.
struct Clean<'a>(&'a str);

impl Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bad =
            |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        print(self.0, bad, f)
    }
}

/// Prints text as one word that can not look like a further field.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let good = |c: char| c.is_ascii_alphanumeric() || "-._:[]@+/".contains(c);
        print(self.0, |c| !good(c), f)
    }
}

fn print(text: &str, bad: impl Fn(char) -> bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut pieces = text.split(bad);
    f.write_str(pieces.next().unwrap_or_default())?;
    pieces.try_for_each(|piece| write!(f, "?{piece}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{ACCEPTED, id, later, message, outcome};
    use postrider_base::Period;
    use postrider_mail::{BounceKind, DelayType};

    #[test]
    fn acceptances_in_one_line() {
        let mut out = String::new();
        write_accepted(&mut out, &message(1, &["a@example.net", "b@example.net"]));
        let expected = "from=<bounces@mail.example.com>, size=1234, nrcpt=2, \
             client=client.example.com[192.0.2.10], proto=ESMTPSA, user=AKIAEXAMPLE000000001";
        assert_eq!(out, format!("{}: {expected}\n", id(1)));

        let mut notification = message(2, &["a@example.net"]);
        notification.envelope.sender = None;
        notification.origin = postrider_spool::Origin::default();
        notification.origin.kind = OriginKind::Dsn { of: id(1) };
        out.clear();
        write_accepted(&mut out, &notification);
        assert_eq!(out, format!("{}: from=<>, size=1234, nrcpt=1, notification_of={}\n", id(2), id(1)));
    }

    #[test]
    fn attempts_in_one_line() {
        let to = "a@example.net".parse().unwrap();
        let at = later(Period::from_millis(1200));
        let line = |outcome: &AttemptOutcome, to| {
            let mut out = String::new();
            write_attempt(&mut out, id(1), to, ACCEPTED, outcome);
            out
        };
        assert_eq!(
            line(&outcome(0, at, Disposition::Delivered, "250 ok"), Some(&to)),
            format!(
                "{}: to=<a@example.net>, relay=mx.example.net[198.51.100.7]:25, delay=1.200, \
                 delays=0.01/0.02/0.3/0.04, dsn=2.0.0, status=sent (250 ok)\n",
                id(1)
            )
        );
        let deferred = Disposition::Deferred(DelayType::General);
        let unrouted = AttemptOutcome { remote: None, ..outcome(0, at, deferred, "no route") };
        let line = line(&unrouted, None);
        assert!(line.contains("to=<unknown>, relay=none,"), "{line}");
        assert!(line.ends_with("dsn=4.4.1, status=deferred (no route)\n"), "{line}");
    }

    #[test]
    fn nobody_adds_lines_or_fields() {
        let mut record = message(1, &["a@example.net"]);
        record.origin.client_name = Some("x, status=sent\r\nfake: \u{202e}".into());
        record.origin.credential = Some("a\nb".into());
        let mut out = String::new();
        write_accepted(&mut out, &record);
        let bounced = Disposition::Bounced(BounceKind::PermanentGeneral);
        let mut evil = outcome(0, ACCEPTED, bounced, "550 no\r\nfake: line\u{1b}[2J");
        evil.remote.as_mut().unwrap().host = "mx\n, status=sent".into();
        write_attempt(&mut out, id(1), None, ACCEPTED, &evil);
        assert_eq!(out.matches('\n').count(), 2, "{out}");
        assert_eq!(out.matches("status=sent").count(), 0, "{out}");
        assert!(!out.contains(['\r', '\u{1b}', '\u{202e}']), "{out}");
    }

    #[test]
    fn a_file_is_appended_to_and_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mail.log");
        let sink = FileSink::open(path.clone()).unwrap();
        sink.write("one\n").unwrap();
        let rotated = dir.path().join("mail.log.1");
        std::fs::rename(&path, &rotated).unwrap();
        sink.write("two\n").unwrap();
        sink.reopen().unwrap();
        sink.write("three\n").unwrap();
        assert_eq!(std::fs::read_to_string(rotated).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
        assert!(FileSink::open(dir.path().join("none/mail.log")).is_err());
    }
}
