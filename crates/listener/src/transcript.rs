//! Transcripts of sessions for operators who asked to see them.

use std::net::IpAddr;
use std::sync::Arc;

use postrider_base::{Clock, Speaker, TraceLine, Traces};
use postrider_smtp::{Session, Spoken};

/// Lines kept of what was said before the client authenticated.
const MAX_BEFORE: usize = 64;

/// Hands what is said in a session to the traces that want it. While there is
/// no trace it costs a load of an atomic number for each read.
#[derive(Debug)]
pub(crate) struct Transcript {
    traces: Traces,
    clock: Clock,
    peer: IpAddr,
    on: bool,
    /// For traces by user name: nobody knows yet whose session it is.
    before: Vec<TraceLine>,
}

impl Transcript {
    pub(crate) fn new(traces: Traces, clock: Clock, peer: IpAddr) -> Transcript {
        Transcript { traces, clock, peer, on: false, before: Vec::new() }
    }

    /// Begins or ends, as traces come and go. To be asked before input is looked at.
    pub(crate) fn look(&mut self, session: &mut Session) {
        if self.on != self.traces.is_active() {
            self.on = self.traces.may_want(self.peer);
            session.transcribe(self.on);
            if !self.on {
                self.before = Vec::new();
            }
        }
    }

    /// Passes on what has been said.
    pub(crate) fn pass_on(&mut self, session: &mut Session, user: Option<&str>) {
        if !self.on {
            return;
        }
        for spoken in session.take_transcript() {
            let (speaker, text) = match spoken {
                Spoken::Client(text) => (Speaker::Client, text),
                Spoken::Server(text) => (Speaker::Server, text),
            };
            self.send(session.id(), speaker, text, user);
        }
    }

    /// Something happened.
    pub(crate) fn note(&mut self, session: &Session, text: impl FnOnce() -> String, user: Option<&str>) {
        if self.on {
            self.send(session.id(), Speaker::Note, text(), user);
        }
    }

    /// Whose session it is: traces of this user see what was said before.
    pub(crate) fn known(&mut self, user: &str) {
        for line in std::mem::take(&mut self.before) {
            self.traces.catch_up(&line, user);
        }
    }

    fn send(&mut self, session: &str, speaker: Speaker, text: String, user: Option<&str>) {
        let line = TraceLine { at: self.clock.now(), session: Arc::from(session), peer: self.peer, speaker, text };
        self.traces.send(&line, user);
        if user.is_none() && self.before.len() < MAX_BEFORE {
            self.before.push(line);
        }
    }
}
