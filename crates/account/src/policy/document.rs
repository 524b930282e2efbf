//! A policy: read from its JSON once, and asked often.

use super::condition::{object, text as text_of};
use super::error::{Place, PolicyError};
use super::node::Node;
use super::request::PolicyRequest;
use super::statement::Statement;
use crate::Arn;

/// Longest policy, in bytes, as in SES.
pub(super) const MAX_TEXT: usize = 4_096;
/// Longest name of a policy, in characters, as in SES.
const MAX_NAME: usize = 64;

/// What a policy is attached to, which decides about its form.
#[derive(Clone, Copy, Debug)]
pub enum Attached<'a> {
    /// A credential: a user policy, which says what the credential may do. It names resources,
    /// and nobody.
    Credential,
    /// An identity: a sending authorization policy, which says who may do something with it.
    /// It names somebody, and as its resource the identity of this ARN alone; any one when it
    /// is not given.
    Identity(Option<&'a Arn>),
}

/// A policy that has been read.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    name: String,
    text: String,
    statements: Vec<Statement>,
}

/// The statement that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deciding {
    /// The name of its policy.
    pub policy: String,
    /// Its number in the policy, from 1.
    pub statement: usize,
    /// Its `Sid`, when it has one.
    pub sid: Option<String>,
}

/// What policies say about a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyVerdict {
    /// A statement allows it, and none denies it.
    Allow(Deciding),
    /// A statement denies it, whatever others say.
    Deny(Deciding),
    /// No statement is about it. Who needs leave has none then.
    NoMatch,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`]: the name, the size, the JSON, or an element that is missing, unknown or
    /// wrong, with its place. Nothing in a policy is passed over.
    pub fn parse(name: &str, text: &str, attached: Attached<'_>) -> Result<Self, PolicyError> {
        let place = Place::whole();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(place.error("the name of a policy must be 1 to 64 letters, digits, - and _"));
        }
        if text.len() > MAX_TEXT {
            return Err(place.error(format!("it has {} bytes, and may have {MAX_TEXT}", text.len())));
        }
        let node: Node = serde_json::from_str(text).map_err(|error| place.error(format!("no JSON: {error}")))?;
        Ok(Self { name: name.to_owned(), text: text.to_owned(), statements: statements(&node, attached)? })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The JSON, as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn statements(node: &Node, attached: Attached<'_>) -> Result<Vec<Statement>, PolicyError> {
    let place = Place::whole();
    let mut found = None;
    for (name, value) in object(node, place)? {
        match name.as_str() {
            "Version" | "Id" => {
                text_of(value).map_err(|reason| place.within(name).error(reason))?;
            }
            "Statement" => found = Some(value.as_list()),
            other => return Err(place.error(unknown(other, &["Version", "Id", "Statement"]))),
        }
    }
    let found = found.filter(|found| !found.is_empty());
    let found = found.ok_or_else(|| place.error("it has no Statement"))?;
    let mut statements: Vec<Statement> = Vec::with_capacity(found.len());
    for (index, node) in found.iter().enumerate() {
        let name = format!("Statement {}", index + 1);
        let place = place.within(&name);
        let statement = Statement::read(node, place, attached)?;
        if statement.sid.is_some() && statements.iter().any(|earlier| earlier.sid == statement.sid) {
            return Err(place.within("Sid").error("an earlier statement has the same"));
        }
        statements.push(statement);
    }
    Ok(statements)
}

/// Why an element is refused that is none.
pub(super) fn unknown(name: &str, known: &[&str]) -> String {
    match known.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        Some(meant) => format!("there is no element {name:?}; did you mean {meant}?"),
        None => format!("there is no element {name:?} here; there are {}", known.join(", ")),
    }
}

/// All policies of one credential or identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySet {
    /// By name.
    policies: Vec<Policy>,
}

impl PolicySet {
    /// These policies, whose names differ.
    #[must_use]
    pub fn new(mut policies: Vec<Policy>) -> Self {
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        Self { policies }
    }

    /// The policies, in the order of their names.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// What the policies say. A statement that denies decides before all that allow; of several,
    /// the first one is named.
    #[must_use]
    pub fn authorize(&self, request: &PolicyRequest<'_>) -> PolicyVerdict {
        let mut allowing = None;
        for policy in &self.policies {
            for (index, statement) in policy.statements.iter().enumerate() {
                let denies = statement.denies();
                if (!denies && allowing.is_some()) || !statement.matches(request) {
                    continue;
                }
                let deciding =
                    || Deciding { policy: policy.name.clone(), statement: index + 1, sid: statement.sid.clone() };
                if denies {
                    return PolicyVerdict::Deny(deciding());
                }
                allowing = Some(deciding());
            }
        }
        allowing.map_or(PolicyVerdict::NoMatch, PolicyVerdict::Allow)
    }
}
