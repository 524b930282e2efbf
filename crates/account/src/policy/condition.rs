//! Conditions of a statement: operators, read once and asked often.

use postrider_base::{Network, Timestamp};
use postrider_mail::EmailAddress;

use super::error::{Place, PolicyError};
use super::glob;
use super::node::Node;
use super::request::{KEYS, Key, PolicyRequest, Value};
use crate::arn::six;

/// One operator with one key: whether its values are as the policy says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    key: Key,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// `Null`: whether the key may be absent (`true`), present (`false`).
    Absent(Vec<bool>),
    Compare {
        quantifier: Quantifier,
        /// `...IfExists`: holds for a request without the key.
        if_exists: bool,
        /// `...Not...`: a value must be like none of these.
        negated: bool,
        wanted: Wanted,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    One,
    /// `ForAllValues:`
    All,
    /// `ForAnyValue:`
    Any,
}

/// What a value must be like: one of these.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Equal(Vec<String>),
    EqualIgnoringCase(Vec<String>),
    Like(Vec<String>),
    Arn(Vec<String>),
    Number(Relation, Vec<f64>),
    Flag(Vec<bool>),
    Network(Vec<Network>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Equal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// A family of operators, which go with the same keys and read their values the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Equals,
    EqualsIgnoreCase,
    Like,
    Arn,
    Numeric(Relation),
    Date(Relation),
    Bool,
    Ip,
}

/// IAM's operators, and whether they are negated. `Null` and `Binary...` are not among them:
/// the one has no variants, the other no key here.
const OPERATORS: [(&str, bool, Family); 25] = [
    ("StringEquals", false, Family::Equals),
    ("StringNotEquals", true, Family::Equals),
    ("StringEqualsIgnoreCase", false, Family::EqualsIgnoreCase),
    ("StringNotEqualsIgnoreCase", true, Family::EqualsIgnoreCase),
    ("StringLike", false, Family::Like),
    ("StringNotLike", true, Family::Like),
    ("ArnEquals", false, Family::Arn),
    ("ArnNotEquals", true, Family::Arn),
    ("ArnLike", false, Family::Arn),
    ("ArnNotLike", true, Family::Arn),
    ("NumericEquals", false, Family::Numeric(Relation::Equal)),
    ("NumericNotEquals", true, Family::Numeric(Relation::Equal)),
    ("NumericLessThan", false, Family::Numeric(Relation::Less)),
    ("NumericLessThanEquals", false, Family::Numeric(Relation::LessEqual)),
    ("NumericGreaterThan", false, Family::Numeric(Relation::Greater)),
    ("NumericGreaterThanEquals", false, Family::Numeric(Relation::GreaterEqual)),
    ("DateEquals", false, Family::Date(Relation::Equal)),
    ("DateNotEquals", true, Family::Date(Relation::Equal)),
    ("DateLessThan", false, Family::Date(Relation::Less)),
    ("DateLessThanEquals", false, Family::Date(Relation::LessEqual)),
    ("DateGreaterThan", false, Family::Date(Relation::Greater)),
    ("DateGreaterThanEquals", false, Family::Date(Relation::GreaterEqual)),
    ("Bool", false, Family::Bool),
    ("IpAddress", false, Family::Ip),
    ("NotIpAddress", true, Family::Ip),
];

impl Condition {
    /// The conditions of a statement: an object of operators, each an object of keys.
    pub(super) fn read_all(node: &Node, place: Place<'_>) -> Result<Vec<Self>, PolicyError> {
        let mut conditions = Vec::new();
        for (operator, keys) in object(node, place)? {
            let place = place.within(operator);
            let keys = object(keys, place)?;
            if keys.is_empty() {
                return Err(place.error("it names no condition key"));
            }
            for (name, values) in keys {
                conditions.push(Self::read(operator, name, values, place, place.within(name))?);
            }
        }
        Ok(conditions)
    }

    fn read(
        operator: &str,
        name: &str,
        values: &Node,
        at_operator: Place<'_>,
        place: Place<'_>,
    ) -> Result<Self, PolicyError> {
        let (quantifier, plain) = match operator.split_once(':') {
            Some(("ForAllValues", plain)) => (Quantifier::All, plain),
            Some(("ForAnyValue", plain)) => (Quantifier::Any, plain),
            Some((other, _)) => {
                return Err(at_operator.error(format!("{other}: is neither ForAllValues: nor ForAnyValue:")));
            }
            None => (Quantifier::One, operator),
        };
        if operator == "Null" {
            let test = Test::Absent(each(values, place, flag)?);
            return Ok(Self { key: key(name, place)?, test });
        }
        let (base, if_exists) = match plain.strip_suffix("IfExists") {
            Some(base) => (base, true),
            None => (plain, false),
        };
        let found = OPERATORS.iter().find(|(known, ..)| *known == base);
        let Some((_, negated, family)) = found else { return Err(at_operator.error(no_operator(base))) };
        let key = key(name, place)?;
        if key.is_many() && quantifier == Quantifier::One {
            return Err(place
                .error(format!("a message can have several: say ForAllValues:{operator} or ForAnyValue:{operator}")));
        }
        if !family.suits(key) {
            return Err(place.error(format!("{base} does not go with this key, {} does", suitable(key))));
        }
        let test = Test::Compare { quantifier, if_exists, negated: *negated, wanted: family.read(key, values, place)? };
        Ok(Self { key, test })
    }

    /// Whether the request is as the condition says; of a value that can not be read, what
    /// `unreadable` says.
    pub(super) fn holds(&self, request: &PolicyRequest<'_>, unreadable: bool) -> bool {
        let mut values = self.key.values(request).peekable();
        let is_absent = values.peek().is_none();
        match &self.test {
            Test::Absent(wanted) => wanted.contains(&is_absent),
            Test::Compare { quantifier, if_exists, negated, wanted } => {
                let mut holds = |value| match value {
                    Value::Unreadable => unreadable,
                    value => wanted.has(&value) != *negated,
                };
                match quantifier {
                    _ if is_absent && *if_exists => true,
                    Quantifier::One if is_absent => *negated,
                    Quantifier::Any => values.any(holds),
                    Quantifier::One | Quantifier::All => values.all(&mut holds),
                }
            }
        }
    }
}

impl Family {
    fn suits(self, key: Key) -> bool {
        match self {
            Self::Equals | Self::EqualsIgnoreCase | Self::Like => {
                !matches!(key, Key::CurrentTime | Key::EpochTime | Key::SecureTransport | Key::SourceIp)
            }
            Self::Arn => key == Key::PrincipalArn,
            Self::Numeric(_) => key == Key::EpochTime,
            Self::Date(_) => matches!(key, Key::CurrentTime | Key::EpochTime),
            Self::Bool => key == Key::SecureTransport,
            Self::Ip => key == Key::SourceIp,
        }
    }

    fn read(self, key: Key, values: &Node, place: Place<'_>) -> Result<Wanted, PolicyError> {
        let text = |node: &Node| text_for(key, node);
        Ok(match self {
            Self::Equals => Wanted::Equal(each(values, place, text)?),
            Self::EqualsIgnoreCase => Wanted::EqualIgnoringCase(each(values, place, text)?),
            Self::Like => Wanted::Like(each(values, place, text)?),
            Self::Arn => Wanted::Arn(each(values, place, arn)?),
            Self::Numeric(relation) => Wanted::Number(relation, each(values, place, number)?),
            Self::Date(relation) => Wanted::Number(relation, each(values, place, date)?),
            Self::Bool => Wanted::Flag(each(values, place, flag)?),
            Self::Ip => Wanted::Network(each(values, place, network)?),
        })
    }
}

impl Wanted {
    fn has(&self, value: &Value<'_>) -> bool {
        let text = |matches: fn(&str, &str) -> bool, wanted: &[String]| match value {
            Value::Text(text) => wanted.iter().any(|wanted| matches(wanted, text)),
            Value::Account(account) => wanted.iter().any(|wanted| matches(wanted, &account.to_string())),
            _ => false,
        };
        match self {
            Self::Equal(wanted) => text(|wanted, text| wanted == text, wanted),
            Self::EqualIgnoringCase(wanted) => text(equal_ignoring_case, wanted),
            Self::Like(wanted) => text(|wanted, text| glob::matches(wanted, text, glob::exact), wanted),
            Self::Arn(wanted) => text(arn_matches, wanted),
            Self::Number(relation, wanted) => {
                #[expect(clippy::cast_precision_loss, reason = "seconds fit 53 bits for 285 million years")]
                let is_so = |seconds: u64| wanted.iter().any(|wanted| relation.holds(seconds as f64, *wanted));
                matches!(value, Value::Seconds(seconds) if is_so(*seconds))
            }
            Self::Flag(wanted) => matches!(value, Value::Flag(flag) if wanted.contains(flag)),
            Self::Network(wanted) => {
                matches!(value, Value::Ip(ip) if wanted.iter().any(|network| network.contains(*ip)))
            }
        }
    }
}

impl Relation {
    fn holds(self, value: f64, wanted: f64) -> bool {
        match self {
            #[expect(clippy::float_cmp, reason = "whole seconds against what the policy says")]
            Self::Equal => value == wanted,
            Self::Less => value < wanted,
            Self::LessEqual => value <= wanted,
            Self::Greater => value > wanted,
            Self::GreaterEqual => value >= wanted,
        }
    }
}

/// Each of the six parts by itself: a `*` does not reach over a colon, but in the resource.
pub(super) fn arn_matches(pattern: &str, arn: &str) -> bool {
    let (Some(pattern), Some(arn)) = (six(pattern), six(arn)) else { return pattern == "*" };
    pattern.iter().zip(arn).all(|(pattern, part)| glob::matches(pattern, part, glob::exact))
}

fn equal_ignoring_case(a: &str, b: &str) -> bool {
    a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}

pub(super) fn object<'a>(node: &'a Node, place: Place<'_>) -> Result<&'a [(String, Node)], PolicyError> {
    match node {
        Node::Object(entries) => Ok(entries),
        other => Err(place.error(format!("it must be an object, not {}", other.kind()))),
    }
}

/// A value or a list of at least one.
pub(super) fn each<T>(
    values: &Node,
    place: Place<'_>,
    read: impl Fn(&Node) -> Result<T, String>,
) -> Result<Vec<T>, PolicyError> {
    if values.as_list().is_empty() {
        return Err(place.error("it has no value"));
    }
    values.as_list().iter().map(|value| read(value).map_err(|reason| place.error(reason))).collect()
}

fn key(name: &str, place: Place<'_>) -> Result<Key, PolicyError> {
    if name.eq_ignore_ascii_case("aws:PrincipalOrgID") {
        return Err(place.error("there are no organisations here: name the accounts in Principal"));
    }
    let found = KEYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, key)| *key).ok_or_else(|| {
        let known = KEYS.map(|(known, _)| known).join(", ");
        place.error(format!("there is no such condition key; the keys are {known}"))
    })
}

fn no_operator(name: &str) -> String {
    match OPERATORS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)) {
        Some((known, ..)) => format!("there is no such operator; did you mean {known}?"),
        None if name == "Null" => "Null takes neither ForAllValues: nor ForAnyValue: nor IfExists".to_owned(),
        None => {
            let known = OPERATORS.map(|(known, ..)| known).join(", ");
            format!("there is no such operator; the operators are {known}, Null")
        }
    }
}

/// The operators that go with a key, without their variants.
fn suitable(key: Key) -> String {
    let suits = OPERATORS.iter().filter(|(_, _, family)| family.suits(key)).map(|(name, ..)| *name);
    suits.chain(["Null"]).collect::<Vec<_>>().join(", ")
}

/// A string without variables: those would be taken for themselves.
pub(super) fn text(node: &Node) -> Result<String, String> {
    match node {
        Node::Text(text) if text.contains("${") => {
            Err("policy variables as ${aws:username} are not supported: write what they stand for".to_owned())
        }
        Node::Text(text) => Ok(text.clone()),
        other => Err(format!("it must be a string, not {}", other.kind())),
    }
}

/// Addresses are compared as the relay has them: what follows the last `@` is in lower case, and
/// no quotes are there that change nothing.
fn text_for(key: Key, node: &Node) -> Result<String, String> {
    let text = text(node)?;
    let Some((local, domain)) = text.rsplit_once('@').filter(|_| key.is_address()) else { return Ok(text) };
    let quoted = text.parse().ok().filter(|_| local.starts_with('"'));
    Ok(match quoted {
        Some(address) => EmailAddress::unquoted(&address).to_string(),
        None => format!("{local}@{}", domain.to_lowercase()),
    })
}

fn arn(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    match six(&text) {
        Some(_) => Ok(text),
        None => Err(format!("{text:?} is no ARN, and no pattern for one: it has six parts with colons between")),
    }
}

fn flag(node: &Node) -> Result<bool, String> {
    match node {
        Node::Bool(flag) => Ok(*flag),
        Node::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Node::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err("it must be true or false".to_owned()),
    }
}

fn number(node: &Node) -> Result<f64, String> {
    let (Node::Number(text) | Node::Text(text)) = node else { return Err("it must be a number".to_owned()) };
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| format!("{text:?} is no number"))
}

/// ISO 8601 as the W3C profile has it, with or without a time and its seconds; or seconds since
/// the Unix epoch.
fn date(node: &Node) -> Result<f64, String> {
    let (Node::Number(text) | Node::Text(text)) = node else { return Err("it must be a date".to_owned()) };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(node);
    }
    let whole_day = || Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z"));
    let moment = Timestamp::parse_rfc3339(text).or_else(whole_day);
    #[expect(clippy::cast_precision_loss, reason = "seconds fit 53 bits for 285 million years")]
    let seconds = moment.map(|moment| (moment.as_millis() / 1_000) as f64);
    seconds.ok_or_else(|| {
        format!("{text:?} is no date: write 2030-01-31, 2030-01-31T12:00Z, 2030-01-31T12:00:00Z or seconds since 1970")
    })
}

fn network(node: &Node) -> Result<Network, String> {
    text(node)?.parse().map_err(|error: postrider_base::NetworkError| error.to_string())
}
