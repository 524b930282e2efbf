//! What comes back for mail that was sent: who reads it, by which rules.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use postrider_dns::Resolver;
use postrider_feedback::{Feedback, FeedbackOptions, FeedbackRules};
use postrider_mailauth::verify::Verifier;
use postrider_submission::{ReturnPath, ReturnPaths, Submission};

use crate::config::Config;
use crate::rooms::{Queue, Rooms};

/// Return paths as they are written and read.
pub(super) fn return_paths(config: &Config, rooms: &Rooms) -> Result<ReturnPaths> {
    let domain = config.submission().return_path_domain().map_err(|error| anyhow!("submission.{error}"))?;
    Ok(ReturnPaths::new(rooms.accounts.clone(), rooms.mac_key.clone(), domain))
}

/// What next hosts hear in MAIL FROM, where that is not what the client said.
pub(super) fn written_return_paths(config: &Config, rooms: &Rooms) -> Result<Option<ReturnPaths>> {
    match config.submission.return_path {
        ReturnPath::Sender => Ok(None),
        ReturnPath::Verp => return_paths(config, rooms).map(Some),
    }
}

/// Who takes what comes back, where there is a listener for it. Return paths of the past are read
/// whatever is written now.
pub(super) fn feedback(
    config: &Config,
    rooms: &Rooms,
    queue: &Queue,
    submission: &Submission,
    resolver: Arc<dyn Resolver>,
) -> Result<Option<Feedback>> {
    if !config.has_feedback() {
        return Ok(None);
    }
    let (clock, metrics) = (rooms.clock.clone(), rooms.metrics.clone());
    let receiver = config.server.hostname();
    let verifier = Verifier::new(resolver, clock.clone(), metrics.clone(), receiver, config.verification.clone());
    Ok(Some(Feedback::new(FeedbackOptions {
        return_paths: return_paths(config, rooms)?,
        events: queue.events.clone(),
        verifier,
        submission: submission.clone(),
        clock,
        random: rooms.random.clone(),
        metrics,
        rules: rules(config),
    })))
}

/// What a reload can change of it.
pub(super) fn rules(config: &Config) -> FeedbackRules {
    FeedbackRules {
        settings: config.feedback.clone(),
        operator: config.upkeep.operator_address.clone(),
        forwarding: config.delivery.feedback_forwarding,
    }
}
