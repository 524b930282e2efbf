//! What a message that came back says, and what the relay makes of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use postrider_events::{Acceptance, Affected, LifeEntry, ReturnedKind};
use postrider_feedback::{Action, Finding, Ours, Reading, Report, read};
use postrider_mail::{BounceKind, EmailAddress, MessageId, SuppressionReason, Verp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control::Deps;
use crate::{Error, Response};

/// Bytes of a message that can be asked about: a report is at its front.
pub const FEEDBACK_READ_BYTES: usize = 512 * 1024;

/// A message that came back.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FeedbackReadRequest {
    /// Its first bytes, at most [`FEEDBACK_READ_BYTES`], in base64.
    pub content: String,
    /// Whether its reverse-path is the null one, as that of a bounce is.
    pub from_nobody: bool,
    /// The addresses that it may have come to, those that are sure first.
    pub to: Vec<EmailAddress>,
}

/// What it says and what would follow.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FeedbackView {
    /// `bounce`, `notice` (of what is no failure), `complaint`, `automatic-answer` or `no-report`.
    pub kind: String,
    /// Who wrote it, where it says so.
    pub reporter: Option<String>,
    /// The return path of ours that it came to.
    pub return_path: Option<EmailAddress>,
    /// The message that it is about.
    pub message: Option<MessageId>,
    /// Whether the journal has that message.
    pub known: bool,
    /// What would follow, for each recipient of the message that is meant.
    pub effects: Vec<FeedbackEffect>,
    /// All that was read.
    pub reading: Value,
}

/// What would follow for a recipient.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct FeedbackEffect {
    /// Whose address it is; none where nothing says it.
    pub recipient: Option<EmailAddress>,
    /// The event: `Bounce Permanent/NoEmail`, `Complaint abuse`. None where there is none.
    pub event: Option<String>,
    /// The status code.
    pub status: Option<String>,
    /// The reason with which the address would be on its account's suppression list.
    pub suppressed: Option<SuppressionReason>,
    /// Why it is so, or what was said.
    pub why: String,
}

pub(crate) async fn execute(deps: &Deps, request: FeedbackReadRequest) -> Result<Response, Error> {
    let content = BASE64.decode(&request.content).map_err(|error| Error::Invalid(format!("content: {error}")))?;
    let reading = read(&[content.into()], request.from_nobody, &deps.world.feedback);
    let paths = deps.world.return_paths.as_ref();
    let came_to = request.to.iter().find_map(|to| Some((to.clone(), paths?.read(to)?)));
    let verp = came_to.as_ref().map(|(_, verp)| *verp);
    let domain = deps.world.submission.message_id_domain();
    let ours = paths.map(|return_paths| Ours { return_paths, message_id_domain: &domain });
    // Whom it comes from is not known of a file.
    let finding = ours.and_then(|ours| Finding::of(&reading, verp, &[], ours));
    let message = finding.as_ref().map(|finding| finding.id).or(verp.map(|verp| verp.id));
    let acceptance = match message {
        Some(id) => accepted(deps, id).await?,
        None => None,
    };
    let (kind, reporter) = kind(&reading.report);
    let effects = match finding {
        Some(finding) => effects(deps, &finding, acceptance.as_ref()),
        None => vec![without_event(&reading, verp)],
    };
    Ok(Response::FeedbackRead(Box::new(FeedbackView {
        kind: kind.to_owned(),
        reporter,
        return_path: came_to.map(|(address, _)| address),
        message,
        known: acceptance.is_some(),
        effects,
        reading: serde_json::to_value(&reading).map_err(|error| Error::Failed(error.to_string()))?,
    })))
}

/// What it is, and who wrote it.
fn kind(report: &Report) -> (&'static str, Option<String>) {
    match report {
        Report::Status(status) if status.recipients.iter().any(|recipient| recipient.action == Action::Failed) => {
            ("bounce", status.reporting_mta.clone())
        }
        Report::Status(status) => ("notice", status.reporting_mta.clone()),
        Report::Complaint(complaint) => ("complaint", complaint.reporting_mta.clone()),
        Report::Automatic => ("automatic-answer", None),
        Report::Other => ("no-report", None),
    }
}

async fn accepted(deps: &Deps, id: MessageId) -> Result<Option<Acceptance>, Error> {
    let events = deps.events.as_ref().ok_or_else(|| Error::Failed("the journal is not open here".to_owned()))?;
    let life = events.message(id).await?;
    Ok(life.into_iter().find_map(|entry| match entry {
        LifeEntry::Accepted(acceptance) => Some(acceptance),
        _ => None,
    }))
}

/// What follows where there is no event.
fn without_event(reading: &Reading, verp: Option<Verp>) -> FeedbackEffect {
    nothing(match (&reading.report, verp.is_some()) {
        (Report::Automatic, true) => "a program answered for a person: it goes on to who sent the message",
        (Report::Other, true) => "it is no report: it is refused, 550 5.7.1",
        (Report::Complaint(_), _) => "it is about no message of this relay: it goes on to the operator",
        (_, false) => {
            "it came to no return path of this relay: to an address for complaints, it goes on to the operator"
        }
        (Report::Status(_), true) => "it tells of nothing",
    })
}

fn nothing(why: &str) -> FeedbackEffect {
    FeedbackEffect { why: why.to_owned(), ..FeedbackEffect::default() }
}

fn effects(deps: &Deps, finding: &Finding, acceptance: Option<&Acceptance>) -> Vec<FeedbackEffect> {
    let Some(acceptance) = acceptance else { return vec![nothing("the journal does not have the message (any more)")] };
    if finding.returned.is_empty() {
        return vec![nothing("it is no failure")];
    }
    let of = |(whom, what): &(Vec<Affected>, ReturnedKind)| {
        let recipients = whom.iter().map(|affected| meant(affected, acceptance)).find(|meant| !meant.is_empty());
        match recipients {
            Some(recipients) => recipients.into_iter().map(|address| effect(deps, acceptance, address, what)).collect(),
            None => vec![nothing("the message was for nobody whom it names")],
        }
    };
    finding.returned.iter().flat_map(of).collect()
}

/// The recipients of the message that are meant.
fn meant(affected: &Affected, acceptance: &Acceptance) -> Vec<EmailAddress> {
    let all = &acceptance.recipients;
    let meant = (0..).zip(all).filter(|(index, _)| affected.means(*index, all));
    meant.map(|(_, address)| address.clone()).collect()
}

fn effect(deps: &Deps, acceptance: &Acceptance, address: EmailAddress, what: &ReturnedKind) -> FeedbackEffect {
    let (event, status, reason, why) = match what {
        ReturnedKind::Bounce(bounce) => {
            let event = format!("Bounce {}/{}", bounce.kind.bounce_type(), bounce.kind.bounce_sub_type());
            let reason = (bounce.kind == BounceKind::PermanentNoEmail).then_some(SuppressionReason::Bounce);
            let why = bounce.diagnostic.clone().unwrap_or_else(|| "it says no more".to_owned());
            (event, bounce.status.map(|status| status.to_string()), reason, why)
        }
        ReturnedKind::Complaint(complaint) => {
            let objects = complaint.is_objection();
            let why = if objects { "a reader objects" } else { "no reader objects" };
            let event =
                complaint.feedback_type.as_ref().map_or("Complaint".to_owned(), |kind| format!("Complaint {kind}"));
            (event, None, objects.then_some(SuppressionReason::Complaint), why.to_owned())
        }
    };
    let suppressed = reason.filter(|reason| counts(deps, acceptance, *reason));
    FeedbackEffect { recipient: Some(address), event: Some(event), status, suppressed, why }
}

/// Whether the configuration set or the account suppresses for this reason.
fn counts(deps: &Deps, acceptance: &Acceptance, reason: SuppressionReason) -> bool {
    let (accounts, account) = (&deps.accounts, acceptance.account);
    let set = acceptance.configuration_set.as_ref();
    let set = set.and_then(|name| accounts.configuration_sets().find(account, name));
    match set.as_ref().and_then(|set| set.suppressed_reasons.as_ref()) {
        Some(reasons) => reasons.contains(&reason),
        None => accounts.tenants().find(account).suppressed_reasons.contains(&reason),
    }
}
