//! Transcripts of sessions, as they happen.

use postrider_base::{Speaker, TraceFilter, TraceLine};
use tokio::sync::mpsc;

use crate::control::Deps;
use crate::response::TracedLine;
use crate::{Error, Response};

/// Sends lines until nobody receives.
pub(crate) async fn follow(deps: &Deps, filter: TraceFilter, answer: &mpsc::Sender<Response>) -> Result<(), Error> {
    let traces = deps.traces.as_ref().ok_or(Error::NoDaemon)?;
    let mut reader = traces.add(filter).map_err(|error| Error::Failed(error.to_string()))?;
    loop {
        let line = tokio::select! {
            () = answer.closed() => return Ok(()),
            line = reader.next() => line,
        };
        let Some(line) = line else { return Ok(()) };
        let traced = TracedLine { lost: reader.take_lost(), ..TracedLine::from(line) };
        if answer.send(Response::Traced(traced)).await.is_err() {
            return Ok(());
        }
    }
}

impl From<TraceLine> for TracedLine {
    fn from(line: TraceLine) -> TracedLine {
        let speaker = match line.speaker {
            Speaker::Client => "client",
            Speaker::Server => "server",
            Speaker::Note => "note",
        };
        TracedLine {
            at: line.at,
            session: line.session.to_string(),
            peer: line.peer,
            speaker: speaker.to_owned(),
            text: line.text,
            lost: 0,
        }
    }
}
