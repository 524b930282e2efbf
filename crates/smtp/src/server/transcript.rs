//! What was said in a session, for the operator's eyes.

/// One line of a transcript: printable, at most 512 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// By the client. Responses in an AUTH exchange are `***`, content is
    /// `[1234 octets]`, and what is no command is not shown: it may be a
    /// password that went astray.
    Client(String),
    /// By us.
    Server(String),
}

/// What has been said since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    lines: Vec<Spoken>,
}

impl Transcript {
    pub(super) fn take(&mut self) -> Vec<Spoken> {
        std::mem::take(&mut self.lines)
    }
}
