//! System calls of a process while something is done, counted by strace.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

/// strace, attached.
pub(crate) struct Strace {
    child: Child,
    /// Held open: strace ends when nobody can hear it.
    _said: BufReader<ChildStderr>,
    summary: tempfile::NamedTempFile,
}

impl Strace {
    /// Attaches to all threads of a process; it is attached when this returns.
    pub(crate) fn attach(pid: u32) -> io::Result<Strace> {
        let summary = tempfile::NamedTempFile::new()?;
        let mut child = Command::new("strace")
            .args(["-c", "-f", "-U", "name,calls", "-o"])
            .arg(summary.path())
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::piped())
            .spawn()?;
        let output = child.stderr.take().ok_or_else(|| io::Error::other("no output"))?;
        let mut said = String::new();
        let mut output = BufReader::new(output);
        output.read_line(&mut said)?;
        if !said.contains("attached") {
            return Err(io::Error::other(format!("strace: {}", said.trim())));
        }
        Ok(Strace { child, _said: output, summary })
    }

    /// Calls by name since the start.
    pub(crate) fn finish(mut self) -> io::Result<BTreeMap<String, u64>> {
        Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status()?;
        self.child.wait()?;
        let text = std::fs::read_to_string(self.summary.path())?;
        let rows = text.lines().filter_map(|line| {
            let (name, calls) = line.trim().split_once(char::is_whitespace)?;
            Some((name.to_owned(), calls.trim().parse().ok()?))
        });
        Ok(rows.filter(|(name, _)| name != "total").collect())
    }
}
