//! What a record says, and how it is kept short and on one line.

use postrider_base::{Random, Timestamp};
use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Most characters of a text.
const MAX_TEXT: usize = 256;
/// Most elements of a list; of a longer one the number alone is kept.
const MAX_LIST: usize = 16;
/// Most fields of an object.
const MAX_FIELDS: usize = 64;
/// How deep values may lie in each other.
const MAX_DEPTH: usize = 8;
/// Longest parameters, or state before, of one record, in bytes of JSON.
const MAX_VALUE: usize = 8 << 10;

/// The field that has the URL of an event destination: who knows one may post to it.
const WEBHOOK: &str = "webhook";

/// Who makes a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Who is at the other end of the control socket, as the kernel says.
    Peer(UserIdentity),
    /// Who runs a command that works on the files of a node whose daemon does not run.
    Command(UserIdentity),
    /// The relay itself: this part of it.
    Relay(&'static str),
}

/// A change that is about to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// Who.
    pub actor: Actor,
    /// What, by SES's name of the action where it has one.
    pub name: String,
    /// In whose state, if in one account's.
    pub account: Option<AccountId>,
    /// With what; the new values of what is changed. Nothing secret.
    pub parameters: Value,
    /// What it is about as it was before, if it was.
    pub previously: Option<Value>,
}

/// A record, by the names of CloudTrail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Of the form of the record: `1`.
    pub event_version: String,
    /// When, to the millisecond, in UTC.
    pub event_time: String,
    /// Of this record alone: a UUID.
    #[serde(rename = "eventID")]
    pub event_id: String,
    /// Of all records of one request: a UUID.
    #[serde(rename = "requestID")]
    pub request_id: String,
    /// `postrider`.
    pub event_source: String,
    /// `OperatorCall`, or `ServiceEvent` of what the relay does by itself.
    pub event_type: String,
    /// What was asked for.
    pub event_name: String,
    /// In whose state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_account_id: Option<AccountId>,
    /// Who.
    pub user_identity: UserIdentity,
    /// From where: `control-socket`, `command-line` or `internal`.
    #[serde(rename = "sourceIPAddress")]
    pub source: String,
    /// With what.
    pub request_parameters: Value,
    /// What it was about as it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_state: Option<Value>,
    /// Of a change that was not made: what sort of failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Why it was not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

/// A person, or a part of the relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserIdentity {
    /// `User` or `Service`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The system's name of the user, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// The system's number of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The part of the relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoked_by: Option<String>,
}

impl UserIdentity {
    /// A user of the system.
    #[must_use]
    pub fn user(uid: u32, user_name: Option<String>, pid: Option<i32>) -> Self {
        let user_name = user_name.map(|name| text(&name));
        Self { kind: "User".to_owned(), user_name, uid: Some(uid), pid, invoked_by: None }
    }
}

impl AuditEntry {
    /// A change that is in no one account's state, and of something that was not there.
    #[must_use]
    pub fn new(actor: Actor, name: impl Into<String>, parameters: Value) -> Self {
        Self { actor, name: name.into(), account: None, parameters, previously: None }
    }
}

impl AuditRecord {
    pub(super) fn new(
        entry: &AuditEntry,
        now: Timestamp,
        event_id: String,
        request: &str,
        failure: Option<(&str, &str)>,
    ) -> Self {
        let (event_type, source, user_identity) = match &entry.actor {
            Actor::Peer(user) => ("OperatorCall", "control-socket", user.clone()),
            Actor::Command(user) => ("OperatorCall", "command-line", user.clone()),
            Actor::Relay(part) => {
                let invoked_by = Some((*part).to_owned());
                let service = UserIdentity { kind: "Service".to_owned(), invoked_by, ..UserIdentity::default() };
                ("ServiceEvent", "internal", service)
            }
        };
        Self {
            event_version: "1".to_owned(),
            event_time: now.rfc3339(),
            event_id,
            request_id: request.to_owned(),
            event_source: "postrider".to_owned(),
            event_type: event_type.to_owned(),
            event_name: text(&entry.name),
            recipient_account_id: entry.account,
            user_identity,
            source: source.to_owned(),
            request_parameters: bounded(&entry.parameters),
            previous_state: entry.previously.as_ref().map(bounded),
            error_code: failure.map(|(code, _)| text(code)),
            error_message: failure.map(|(_, message)| text(message)),
        }
    }

    /// When, if the record says so in a known form.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        Timestamp::parse_rfc3339(&self.event_time)
    }

    /// Appends the record as one line: JSON has an escape for every line end.
    pub(super) fn write_line(&self, lines: &mut Vec<u8>) {
        // Of strings, numbers and JSON values there is always a text.
        if serde_json::to_writer(&mut *lines, self).is_ok() {
            lines.push(b'\n');
        }
    }
}

/// The value without long texts and lists, as records keep it.
#[must_use]
pub fn shortened(value: &Value) -> Value {
    short(value, MAX_DEPTH)
}

/// A value that was shortened and may still be too large, cut to what a record may have.
fn bounded(value: &Value) -> Value {
    let short = shortened(value);
    let length = short.to_string().len();
    if length <= MAX_VALUE { short } else { json!({ "omittedBytes": length }) }
}

fn short(value: &Value, depth: usize) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) if depth == 0 => Value::String("...".to_owned()),
        Value::Array(items) if items.len() > MAX_LIST => json!({ "count": items.len() }),
        Value::Array(items) => items.iter().map(|item| short(item, depth - 1)).collect(),
        Value::Object(fields) => {
            let kept = fields.iter().take(MAX_FIELDS).map(|(name, value)| match value {
                Value::String(url) if name == WEBHOOK => (text(name), Value::String(text(&origin(url)))),
                _ => (text(name), short(value, depth - 1)),
            });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::String(long) => Value::String(text(long)),
        other => other.clone(),
    }
}

/// A URL without what may be a secret in it: user, path and query.
fn origin(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "...".to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let rest = if rest.len() > host.len() { "/..." } else { "" };
    format!("{scheme}://{host}{rest}")
}

/// A text as one printable line.
fn text(text: &str) -> String {
    postrider_mail::sanitize_text(text, MAX_TEXT)
}

/// A random UUID as text (RFC 9562 section 4).
pub(super) fn uuid(random: &Random) -> String {
    let hex = format!("{:032x}", random.uuid_v4());
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
