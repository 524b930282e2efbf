//! Questions to the journal.

use postrider_events::{Error as EventsError, Events, Line, Start};
use tokio::sync::mpsc;

use crate::{Error, EventOperation, Response};

pub(crate) async fn execute(
    events: &Events,
    operation: EventOperation,
    answer: &mpsc::Sender<Response>,
) -> Result<(), Error> {
    match operation {
        EventOperation::Since { time } => since(events, Start::Time(time), answer).await,
        EventOperation::Tail => tail(events, answer).await,
    }
}

async fn since(events: &Events, start: Start, answer: &mpsc::Sender<Response>) -> Result<(), Error> {
    let mut reader = events.since(start);
    loop {
        let lines = reader.next().await?;
        if lines.is_empty() || !send(lines, answer).await {
            return Ok(());
        }
    }
}

async fn tail(events: &Events, answer: &mpsc::Sender<Response>) -> Result<(), Error> {
    let mut reader = events.tail();
    loop {
        let lines = tokio::select! {
            () = answer.closed() => return Ok(()),
            lines = reader.follow() => lines?,
        };
        if !send(lines, answer).await {
            return Ok(());
        }
    }
}

/// Whether somebody still receives.
async fn send(lines: Vec<Line>, answer: &mpsc::Sender<Response>) -> bool {
    for line in lines {
        let json = String::from_utf8_lossy(&line.json).into_owned();
        if answer.send(Response::Event(json)).await.is_err() {
            return false;
        }
    }
    true
}

impl From<EventsError> for Error {
    fn from(error: EventsError) -> Error {
        Error::Failed(error.to_string())
    }
}
