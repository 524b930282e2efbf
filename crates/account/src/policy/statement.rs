//! One statement of a policy: who may do, or must not do, what with which, and when.

use postrider_mail::AccountId;

use super::condition::{Condition, arn_matches, each, object, text};
use super::document::{Attached, unknown};
use super::error::{Place, PolicyError};
use super::glob;
use super::node::Node;
use super::request::PolicyRequest;
use crate::Arn;
use crate::arn::{account_of, six};

/// The actions that send, by which slips of the pen are found. Others are not listed: policies
/// of SES's users name many that are nothing here.
const SENDING: [&str; 7] = [
    "ses:SendEmail",
    "ses:SendRawEmail",
    "ses:SendTemplatedEmail",
    "ses:SendBulkTemplatedEmail",
    "ses:SendBulkEmail",
    "ses:SendBounce",
    "ses:SendCustomVerificationEmail",
];

/// What a statement does to a wish that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    pub(super) sid: Option<String>,
    effect: Effect,
    /// Of a policy on an identity; one on a credential is about that alone.
    principals: Option<Vec<Principal>>,
    actions: Choice,
    /// Of a policy on a credential; one on an identity is about that alone.
    resources: Option<Choice>,
    conditions: Vec<Condition>,
}

/// Patterns, of which one must match, or (`Not...`) none.
#[derive(Clone, Debug, PartialEq)]
struct Choice {
    negated: bool,
    patterns: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Principal {
    Everybody,
    Account(AccountId),
    User(AccountId, String),
}

impl Statement {
    pub(super) fn read(node: &Node, place: Place<'_>, attached: Attached<'_>) -> Result<Self, PolicyError> {
        let elements = Elements { entries: object(node, place)?, place };
        elements.check()?;
        let sid = elements.get("Sid").map(|(node, place)| text(node).map_err(|why| place.error(why)));
        let (principals, resources) = match attached {
            Attached::Credential => {
                elements.refuse("Principal", "a policy of a credential is about that credential alone")?;
                (None, Some(elements.choice("Resource", "NotResource", resource_pattern)?))
            }
            Attached::Identity(arn) => {
                let reason = "a policy of an identity names that identity, as its one Resource";
                elements.refuse("NotResource", reason)?;
                elements.resource(arn)?;
                (Some(elements.principals()?), None)
            }
        };
        Ok(Self {
            sid: sid.transpose()?,
            effect: elements.effect()?,
            principals,
            actions: elements.choice("Action", "NotAction", action_pattern)?,
            resources,
            conditions: match elements.get("Condition") {
                Some((node, place)) => Condition::read_all(node, place)?,
                None => Vec::new(),
            },
        })
    }

    /// Whether the statement is about this wish.
    pub(super) fn matches(&self, request: &PolicyRequest<'_>) -> bool {
        let (actions, resources, principals) = (&self.actions, &self.resources, &self.principals);
        actions.has(|pattern| glob::matches(pattern, request.action, glob::ignoring_case))
            && resources.as_ref().is_none_or(|all| all.has(|one| arn_matches(one, request.resource.as_str())))
            && principals.as_ref().is_none_or(|all| all.iter().any(|one| one.is(request)))
            // What can not be read is nothing that may be sent.
            && self.conditions.iter().all(|condition| condition.holds(request, self.denies()))
    }

    pub(super) fn denies(&self) -> bool {
        self.effect == Effect::Deny
    }
}

impl Choice {
    fn has(&self, matches: impl FnMut(&String) -> bool) -> bool {
        self.patterns.iter().any(matches) != self.negated
    }
}

impl Principal {
    fn is(&self, request: &PolicyRequest<'_>) -> bool {
        match self {
            Self::Everybody => true,
            Self::Account(account) => *account == request.account,
            Self::User(account, name) => *account == request.account && name == request.user_name,
        }
    }

    fn read(node: &Node) -> Result<Self, String> {
        let text = text(node)?;
        if text == "*" {
            return Ok(Self::Everybody);
        }
        if let Some(account) = account_of(&text) {
            return Ok(Self::Account(account));
        }
        let arn: Arn = text.parse().map_err(|_| wrong_principal(&text))?;
        if let Some((account, name)) = arn.user() {
            return Ok(Self::User(account, name.to_owned()));
        }
        match arn.parts() {
            [_, _, "iam", "", account, "root"] => account_of(account).map(Self::Account),
            _ => None,
        }
        .ok_or_else(|| wrong_principal(&text))
    }
}

fn wrong_principal(text: &str) -> String {
    format!("{text:?} is nobody: it must be an account of 12 digits, arn:aws:iam::ACCOUNT:user/NAME, or *")
}

/// The elements of a statement, and where it is.
struct Elements<'a> {
    entries: &'a [(String, Node)],
    place: Place<'a>,
}

impl Elements<'_> {
    const KNOWN: [&'static str; 8] =
        ["Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "NotResource", "Condition"];

    fn check(&self) -> Result<(), PolicyError> {
        for (name, _) in self.entries {
            if name == "NotPrincipal" {
                let reason = "NotPrincipal is not supported: name whom it is about in Principal, and exceptions in a Condition with aws:PrincipalArn";
                return Err(self.place.error(reason));
            }
            if !Self::KNOWN.contains(&name.as_str()) {
                return Err(self.place.error(unknown(name, &Self::KNOWN)));
            }
        }
        Ok(())
    }

    fn get(&self, name: &'static str) -> Option<(&Node, Place<'_>)> {
        let (_, node) = self.entries.iter().find(|(known, _)| known == name)?;
        Some((node, self.place.within(name)))
    }

    fn refuse(&self, name: &'static str, reason: &str) -> Result<(), PolicyError> {
        self.get(name).map_or(Ok(()), |(_, place)| Err(place.error(reason)))
    }

    fn required(&self, name: &'static str) -> Result<(&Node, Place<'_>), PolicyError> {
        self.get(name).ok_or_else(|| self.place.error(format!("it has no {name}")))
    }

    fn effect(&self) -> Result<Effect, PolicyError> {
        let (node, place) = self.required("Effect")?;
        match node {
            Node::Text(text) if text == "Allow" => Ok(Effect::Allow),
            Node::Text(text) if text == "Deny" => Ok(Effect::Deny),
            _ => Err(place.error("it must be \"Allow\" or \"Deny\"")),
        }
    }

    fn choice(
        &self,
        name: &'static str,
        negation: &'static str,
        read: fn(&Node) -> Result<String, String>,
    ) -> Result<Choice, PolicyError> {
        let (negated, (node, place)) = match (self.get(name), self.get(negation)) {
            (Some(_), Some(_)) => return Err(self.place.error(format!("it has {name} and {negation}"))),
            (None, None) => return Err(self.place.error(format!("it has no {name}"))),
            (Some(found), None) => (false, found),
            (None, Some(found)) => (true, found),
        };
        Ok(Choice { negated, patterns: each(node, place, read)? })
    }

    /// The one resource of a policy on an identity.
    fn resource(&self, arn: Option<&Arn>) -> Result<(), PolicyError> {
        let (node, place) = self.required("Resource")?;
        let [given] = each(node, place, text)?.try_into().map_err(|_| place.error("it must name one identity"))?;
        match arn {
            Some(arn) if given != arn.as_str() => {
                Err(place.error(format!("it must be the identity that the policy is attached to, {arn}")))
            }
            _ => Ok(()),
        }
    }

    fn principals(&self) -> Result<Vec<Principal>, PolicyError> {
        let (node, place) = self.required("Principal")?;
        let by_kind = match node {
            Node::Object(by_kind) => by_kind,
            Node::Text(text) if text == "*" => return Ok(vec![Principal::Everybody]),
            _ => return Err(place.error("it must be an object as {\"AWS\": [...]}, or \"*\"")),
        };
        let mut principals = Vec::new();
        for (kind, values) in by_kind {
            let place = place.within(kind);
            match kind.as_str() {
                "AWS" => principals.extend(each(values, place, Principal::read)?),
                "Service" => return Err(place.error("there are no services here that send: name accounts under AWS")),
                _ => return Err(place.error("a principal is named under AWS")),
            }
        }
        match principals.is_empty() {
            true => Err(place.error("it names nobody")),
            false => Ok(principals),
        }
    }
}

/// `ses:` and the name of an action, with wildcards; or `*`.
fn action_pattern(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    if text == "*" {
        return Ok(text);
    }
    let is_ses = text.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("ses:"));
    let Some(name) = text.get(4..).filter(|_| is_ses) else {
        return Err(format!("{text:?} is no action of SES, which all begin with ses:"));
    };
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'?');
    if name.is_empty() || !name.bytes().all(is_letter) {
        return Err(format!("{text:?} is no action"));
    }
    let sends = name.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("send"));
    if sends && !SENDING.iter().any(|known| glob::matches(&text, known, glob::ignoring_case)) {
        return Err(format!("there is no action {text:?}; those that send are {}", SENDING.join(", ")));
    }
    Ok(text)
}

/// A pattern for the ARN of an identity; or `*`.
fn resource_pattern(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    match six(&text) {
        _ if text == "*" => Ok(text),
        Some([_, _, service, ..]) if glob::matches(service, "ses", glob::exact) => Ok(text),
        Some(_) => Err(format!("{text:?} is no resource of SES")),
        None => Err(format!("{text:?} is neither * nor an ARN: arn:aws:ses:REGION:ACCOUNT:identity/NAME")),
    }
}
