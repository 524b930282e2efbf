//! What was said in a session, for the operator's eyes.

use postrider_mail::sanitize_text;

/// One line of a transcript: printable, at most 512 octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// By the client. Responses in an AUTH exchange are `***`, content is
    /// `[1234 octets]`, and of what is no command only the length is shown: it
    /// may be a password that went astray.
    Client(String),
    /// By us.
    Server(String),
}

/// Longest line that is shown, in octets.
const MAX_SHOWN: usize = 512;
/// Lines kept until they are taken; beyond them nothing is written down.
const MAX_LINES: usize = 2000;

/// The verbs whose lines are shown whole.
const OPEN_VERBS: [&str; 13] =
    ["EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP"];
/// The mechanisms that are named; another word in their place may be a secret.
const MECHANISMS: [&str; 7] = ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER", "SCRAM-SHA-256", "NTLM"];

/// What has been said since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    lines: Vec<Spoken>,
    /// Octets of content since the last line.
    content: u64,
}

impl Transcript {
    pub(super) fn take(&mut self) -> Vec<Spoken> {
        std::mem::take(&mut self.lines)
    }

    /// A line where a command was expected.
    pub(super) fn command(&mut self, line: &[u8]) {
        let text = sanitize_text(line, MAX_SHOWN);
        let mut words = text.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default();
        let shown = if OPEN_VERBS.iter().any(|open| verb.eq_ignore_ascii_case(open)) {
            text
        } else if verb.eq_ignore_ascii_case("AUTH") {
            let mechanism = words.next().unwrap_or_default();
            let known = MECHANISMS.iter().any(|known| mechanism.eq_ignore_ascii_case(known));
            match (known, words.next()) {
                (true, None) => format!("{verb} {mechanism}"),
                (true, Some(_)) => format!("{verb} {mechanism} ***"),
                (false, _) => format!("{verb} ***"),
            }
        } else {
            format!("[{} octets that are no command]", line.len())
        };
        self.push(Spoken::Client(shown));
    }

    /// A line where the answer to a challenge was expected.
    pub(super) fn response(&mut self, line: &[u8]) {
        let shown = if line.trim_ascii() == b"*" { "*" } else { "***" };
        self.push(Spoken::Client(shown.to_owned()));
    }

    /// A line that was not kept.
    pub(super) fn too_long(&mut self) {
        self.push(Spoken::Client("[a line that is too long]".to_owned()));
    }

    /// So many octets of content went by.
    pub(super) fn content(&mut self, octets: u64) {
        self.content += octets;
    }

    /// Our replies, as written.
    pub(super) fn server(&mut self, replies: &[u8]) {
        if self.content > 0 {
            let content = std::mem::take(&mut self.content);
            self.push(Spoken::Client(format!("[{content} octets]")));
        }
        for line in replies.split_inclusive(|octet| *octet == b'\n') {
            self.push(Spoken::Server(sanitize_text(line.trim_ascii_end(), MAX_SHOWN)));
        }
    }

    fn push(&mut self, line: Spoken) {
        if self.lines.len() < MAX_LINES {
            self.lines.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let mut transcript = Transcript::default();
        transcript.command(line.as_bytes());
        match &transcript.take()[..] {
            [Spoken::Client(text)] => text.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_secret_is_shown_wherever_it_was_typed() {
        assert_eq!(shown("MAIL FROM:<a@b.example>"), "MAIL FROM:<a@b.example>");
        assert_eq!(shown("AUTH LOGIN"), "AUTH LOGIN");
        assert_eq!(shown("auth plain AHVzZXIAc2VjcmV0"), "auth plain ***");
        assert_eq!(shown("AUTH AHVzZXIAc2VjcmV0"), "AUTH ***");
        assert_eq!(shown("AUTH  LOGIN  dXNlcg== x"), "AUTH LOGIN ***");
        assert_eq!(shown("AUTH=PLAIN c2VjcmV0"), "[19 octets that are no command]");
        assert_eq!(shown("c2VjcmV0"), "[8 octets that are no command]");
        let mut transcript = Transcript::default();
        transcript.response(b"c2VjcmV0");
        transcript.response(b" *");
        assert_eq!(transcript.take(), [Spoken::Client("***".into()), Spoken::Client("*".into())]);
    }

    #[test]
    fn lines_are_printable_and_bounded() {
        assert_eq!(shown("NOOP a\r\x1b[2Jb"), "NOOP a??[2Jb");
        assert_eq!(shown(&format!("NOOP {}", "x".repeat(5000))).len(), MAX_SHOWN);
        let mut transcript = Transcript::default();
        for _ in 0..2 * MAX_LINES {
            transcript.command(b"NOOP");
        }
        assert_eq!(transcript.take().len(), MAX_LINES);
        assert!(transcript.take().is_empty());
    }
}
