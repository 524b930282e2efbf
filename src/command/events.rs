//! `postrider events`.

use anyhow::{Result, bail};
use postrider_base::{Clock, Period, Timestamp};
use postrider_control::{EventOperation, Operation, Response};

use super::unexpected;
use crate::access::Access;
use crate::cli::EventsCommand;
use crate::output::Output;

/// Events are JSON lines in either form of output.
pub(crate) async fn run(command: EventsCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let operation = match command {
        EventsCommand::Tail => EventOperation::Tail,
        EventsCommand::Since { time } => EventOperation::Since { time: moment(&time, Clock::system().now())? },
    };
    let live = operation == EventOperation::Tail;
    access
        .each(Operation::Events(operation), &mut |response| match response {
            Response::Event(line) => {
                out.line(line)?;
                // A reader of a tail wants each event when it happens.
                if live { out.flush() } else { Ok(()) }
            }
            other => unexpected(&other),
        })
        .await
}

/// A time, or an age.
pub(super) fn moment(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Some(time) = Timestamp::parse_rfc3339(text) {
        return Ok(time);
    }
    match text.parse::<Period>() {
        Ok(age) => Ok(now.saturating_sub(age.as_duration())),
        Err(_) => bail!("expected a time as 2026-01-31T12:00:00Z or an age as 90s, 15m, 2h, 3d, found {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages_are_understood() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        assert_eq!(moment("1970-01-01T00:00:01Z", now).unwrap(), Timestamp::from_millis(1000));
        assert_eq!(moment("90s", now).unwrap(), Timestamp::from_millis(999_999_910_000));
        assert!(moment("yesterday", now).unwrap_err().to_string().contains("yesterday"));
    }
}
