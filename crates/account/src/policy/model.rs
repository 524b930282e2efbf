//! The engine against a model that is plainly right: it reads the JSON anew for each question,
//! knows all values as texts, and follows IAM's rules word by word.

use std::collections::BTreeMap;
use std::net::IpAddr;

use postrider_base::{Network, Timestamp};
use postrider_mail::{AccountId, EmailAddress};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Attached, Policy, PolicyRequest, PolicySet, PolicyVerdict, SEND_RAW_EMAIL};
use crate::{Arn, Realm};

/// Who asks, and for what, in words.
#[derive(Clone, Debug)]
struct Wish {
    account: AccountId,
    user: &'static str,
    resource: &'static str,
    from: Option<&'static str>,
    display_name: Option<&'static str>,
    feedback: Option<&'static str>,
    recipients: Vec<&'static str>,
    ip: Option<IpAddr>,
    is_secure: bool,
    seconds: u64,
}

impl Wish {
    fn context(&self) -> BTreeMap<&'static str, Vec<String>> {
        let texts = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let optional = |value: Option<&str>| value.map(str::to_owned).into_iter().collect();
        BTreeMap::from([
            ("ses:Recipients", texts(&self.recipients)),
            ("ses:FromAddress", optional(self.from)),
            ("ses:FromDisplayName", optional(self.display_name)),
            ("ses:FeedbackAddress", optional(self.feedback)),
            ("aws:CurrentTime", texts(&[&self.seconds.to_string()])),
            ("aws:EpochTime", texts(&[&self.seconds.to_string()])),
            ("aws:SecureTransport", texts(&[&self.is_secure.to_string()])),
            ("aws:SourceIp", self.ip.map(|ip| ip.to_string()).into_iter().collect()),
            ("aws:UserAgent", vec![]),
            ("aws:PrincipalAccount", texts(&[&self.account.to_string()])),
            ("aws:PrincipalArn", texts(&[realm().user(self.account, self.user).as_str()])),
            ("aws:username", texts(&[self.user])),
        ])
    }
}

/// `Some(true)` allowed, `Some(false)` denied, `None` nothing said.
fn model(policies: &[Value], wish: &Wish) -> Option<bool> {
    let all: Vec<&Value> = policies.iter().flat_map(|policy| policy["Statement"].as_array().unwrap()).collect();
    let about: Vec<&Value> = all.into_iter().filter(|statement| is_about(statement, wish)).collect();
    if about.iter().any(|statement| statement["Effect"] == "Deny") {
        return Some(false);
    }
    (!about.is_empty()).then_some(true)
}

fn is_about(statement: &Value, wish: &Wish) -> bool {
    let one_of = |element: &str, like: &dyn Fn(&str) -> bool| list(&statement[element]).iter().any(|value| like(value));
    let action = |pattern: &str| like(&pattern.to_lowercase(), "ses:sendrawemail");
    let action = match statement.get("NotAction") {
        Some(_) => !one_of("NotAction", &action),
        None => one_of("Action", &action),
    };
    let by_part = |pattern: &str| {
        pattern == "*" || pattern.split(':').zip(wish.resource.split(':')).all(|(pattern, part)| like(pattern, part))
    };
    let resource = match statement.get("NotResource") {
        Some(_) => !one_of("NotResource", &by_part),
        None => statement.get("Principal").is_some() || one_of("Resource", &by_part),
    };
    let is_me = |who: &str| {
        who == "*"
            || who == wish.account.to_string()
            || who == format!("arn:aws:iam::{}:root", wish.account)
            || who == realm().user(wish.account, wish.user).as_str()
    };
    let principal = match statement.get("Principal") {
        None => true,
        Some(Value::String(all)) => all == "*",
        Some(named) => list(&named["AWS"]).iter().any(|who| is_me(who)),
    };
    let context = wish.context();
    let conditions = statement.get("Condition").and_then(Value::as_object).into_iter().flatten();
    let mut conditions = conditions.flat_map(|(operator, keys)| {
        let keys = keys.as_object().unwrap();
        keys.iter().map(move |(key, wanted)| (operator.as_str(), key.as_str(), list(wanted)))
    });
    action && resource && principal && conditions.all(|(operator, key, wanted)| holds(operator, &context[key], &wanted))
}

fn holds(operator: &str, values: &[String], wanted: &[String]) -> bool {
    if operator == "Null" {
        return wanted.iter().any(|wanted| (wanted == "true") == values.is_empty());
    }
    if let Some(operator) = operator.strip_suffix("IfExists") {
        return values.is_empty() || holds(operator, values, wanted);
    }
    if let Some(operator) = operator.strip_prefix("ForAllValues:") {
        return values.iter().all(|value| compare(operator, value, wanted));
    }
    if let Some(operator) = operator.strip_prefix("ForAnyValue:") {
        return values.iter().any(|value| compare(operator, value, wanted));
    }
    match values {
        [] => operator.contains("Not"),
        [value] => compare(operator, value, wanted),
        _ => panic!("one value at most"),
    }
}

fn compare(operator: &str, value: &str, wanted: &[String]) -> bool {
    if operator.contains("Not") {
        return !compare(&operator.replace("Not", ""), value, wanted);
    }
    wanted.iter().any(|wanted| {
        let numbers = || (value.parse::<f64>().unwrap(), seconds(wanted));
        match operator {
            "StringEquals" => value == wanted,
            "StringEqualsIgnoreCase" => value.to_lowercase() == wanted.to_lowercase(),
            "StringLike" => like(wanted, value),
            "ArnEquals" | "ArnLike" => {
                wanted.split(':').zip(value.split(':')).all(|(pattern, part)| like(pattern, part))
            }
            "NumericEquals" | "DateEquals" => numbers().0 == numbers().1,
            "NumericLessThan" | "DateLessThan" => numbers().0 < numbers().1,
            "NumericLessThanEquals" | "DateLessThanEquals" => numbers().0 <= numbers().1,
            "NumericGreaterThan" | "DateGreaterThan" => numbers().0 > numbers().1,
            "NumericGreaterThanEquals" | "DateGreaterThanEquals" => numbers().0 >= numbers().1,
            "Bool" => value == wanted,
            "IpAddress" => wanted.parse::<Network>().unwrap().contains(value.parse().unwrap()),
            other => panic!("{other}"),
        }
    })
}

fn seconds(text: &str) -> f64 {
    match text {
        "2018-08-31T12:00Z" => 1_535_716_800.0,
        "2019-07-30" => 1_564_444_800.0,
        number => number.parse().unwrap(),
    }
}

fn like(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), None) => like(&pattern[1..], text),
        (Some('*'), Some(first)) => like(&pattern[1..], text) || like(pattern, &text[first.len_utf8()..]),
        (Some('?'), Some(first)) => like(&pattern[1..], &text[first.len_utf8()..]),
        (Some(a), Some(b)) if a == b => like(&pattern[a.len_utf8()..], &text[b.len_utf8()..]),
        _ => false,
    }
}

/// A value or a list of them, as texts.
fn list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(list).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

fn realm() -> Realm {
    Realm { partition: "aws".to_owned(), region: "us-east-1".to_owned() }
}

const ANN: &str = "arn:aws:ses:us-east-1:000000000001:identity/ann@example.com";
const DOMAIN: &str = "arn:aws:ses:us-east-1:000000000001:identity/example.com";
const ADDRESSES: [&str; 4] = ["ann@example.com", "Ann@example.com", "bob@example.org", "ann+x@mail.example.com"];
const IPS: [&str; 3] = ["192.0.2.7", "198.51.100.1", "2001:db8::7"];
const MOMENTS: [u64; 4] = [1_535_716_799, 1_535_716_800, 1_535_716_801, 1_564_444_800];

fn wish() -> impl Strategy<Value = Wish> {
    let address = || prop::option::of(prop::sample::select(&ADDRESSES[..]));
    (
        (1..=2_u64, prop::sample::select(&["AKIAA", "AKIAB"][..]), prop::sample::select(&[ANN, DOMAIN][..])),
        (address(), prop::option::of(prop::sample::select(&["Ann", "Marketing Team"][..])), address()),
        prop::collection::vec(prop::sample::select(&ADDRESSES[..]), 0..4),
        (prop::option::of(prop::sample::select(&IPS[..])), any::<bool>(), prop::sample::select(&MOMENTS[..])),
    )
        .prop_map(
            |((account, user, resource), (from, display_name, feedback), recipients, (ip, is_secure, seconds))| {
                let account = AccountId::new(account).unwrap();
                let ip = ip.map(|ip| ip.parse().unwrap());
                Wish { account, user, resource, from, display_name, feedback, recipients, ip, is_secure, seconds }
            },
        )
}

/// A value, or a list of them.
fn some_of(values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let one = prop::sample::select(values).prop_map(Value::from);
    prop_oneof![one, prop::sample::subsequence(values, 1..=values.len()).prop_map(|some| json!(some))]
}

/// An operator, its key and values that go with it.
fn condition() -> impl Strategy<Value = (String, &'static str, Value)> {
    let texts = &["ann@example.com", "ANN@example.com", "*@example.com", "*an?*", "Ann", "*Market*", "bob@example.org"];
    let text = (
        prop::sample::select(
            &["Equals", "NotEquals", "EqualsIgnoreCase", "NotEqualsIgnoreCase", "Like", "NotLike"][..],
        ),
        prop::sample::select(
            &["ses:Recipients", "ses:FromAddress", "ses:FromDisplayName", "ses:FeedbackAddress", "aws:UserAgent"][..],
        ),
        some_of(texts),
    )
        .prop_map(|(operator, key, values)| (format!("String{operator}"), key, values));
    let who = (prop::sample::select(&["Equals", "NotLike"][..]), some_of(&["AKIAA", "AKIA?", "x*"]))
        .prop_map(|(operator, values)| (format!("String{operator}"), "aws:username", values));
    let account = some_of(&["000000000001", "000000000002"])
        .prop_map(|values| ("StringEquals".to_owned(), "aws:PrincipalAccount", values));
    let arn = (
        prop::sample::select(&["ArnEquals", "ArnNotEquals", "ArnLike", "ArnNotLike"][..]),
        some_of(&["arn:aws:iam::*:user/AKIAA", "arn:*:iam::000000000002:user/*", "arn:aws:*:000000000001:x:user/*"]),
    )
        .prop_map(|(operator, values)| (operator.to_owned(), "aws:PrincipalArn", values));
    let relations = &["Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals"][..];
    let number = (prop::sample::select(relations), some_of(&["1535716800", "1564444799.5"]))
        .prop_map(|(relation, values)| (format!("Numeric{relation}"), "aws:EpochTime", values));
    let date = (
        prop::sample::select(relations),
        prop::sample::select(&["aws:CurrentTime", "aws:EpochTime"][..]),
        some_of(&["2018-08-31T12:00Z", "2019-07-30", "1535716801"]),
    )
        .prop_map(|(relation, key, values)| (format!("Date{relation}"), key, values));
    let flag = some_of(&["true", "false"]).prop_map(|values| ("Bool".to_owned(), "aws:SecureTransport", values));
    let ip = (
        prop::sample::select(&["IpAddress", "NotIpAddress"][..]),
        some_of(&["192.0.2.0/24", "198.51.100.1", "2001:db8::/32"]),
    )
        .prop_map(|(operator, values)| (operator.to_owned(), "aws:SourceIp", values));
    let compared = prop_oneof![4 => text, 1 => who, 1 => account, 1 => arn, 1 => number, 2 => date, 1 => flag, 2 => ip];
    let varied = (compared, 0..3, any::<bool>()).prop_map(|((operator, key, values), quantifier, if_exists)| {
        let quantifier = match (quantifier, key) {
            (1, _) | (0, "ses:Recipients") => "ForAllValues:",
            (2, _) => "ForAnyValue:",
            _ => "",
        };
        (format!("{quantifier}{operator}{}", if if_exists { "IfExists" } else { "" }), key, values)
    });
    let absent = (
        prop::sample::select(&["ses:Recipients", "ses:FromAddress", "ses:FromDisplayName", "aws:SourceIp"][..]),
        some_of(&["true", "false"]),
    )
        .prop_map(|(key, values)| ("Null".to_owned(), key, values));
    prop_oneof![8 => varied, 1 => absent]
}

fn statement(on_identity: bool) -> impl Strategy<Value = Value> {
    let actions = some_of(&["ses:SendRawEmail", "SES:send*", "ses:SendEmail", "*", "ses:Send?awEmail", "ses:Get*"]);
    let resources = some_of(&["*", ANN, DOMAIN, "arn:aws:ses:*:*:identity/*example.com", "arn:aws:ses:us-west-2:*:*"]);
    let nobody = "000000000009";
    let principals = some_of(&[
        "000000000001",
        "arn:aws:iam::000000000002:root",
        "arn:aws:iam::000000000002:user/AKIAA",
        "arn:aws:iam::000000000001:user/AKIAB",
    ])
    .prop_map(|who| json!({ "AWS": who }));
    let principals = prop_oneof![4 => principals, 1 => Just(json!("*")), 1 => Just(json!({ "AWS": [nobody] }))];
    let conditions = prop::collection::vec(condition(), 0..4);
    let effect = prop::sample::select(&["Allow", "Allow", "Deny"][..]);
    (effect, actions, resources, principals, conditions, 0..5, 0..5).prop_map(
        move |(effect, actions, resources, principals, conditions, not_action, not_resource)| {
            let mut statement = json!({ "Effect": effect });
            statement[if not_action == 0 { "NotAction" } else { "Action" }] = actions;
            if on_identity {
                statement["Principal"] = principals;
                statement["Resource"] = DOMAIN.into();
            } else {
                statement[if not_resource == 0 { "NotResource" } else { "Resource" }] = resources;
            }
            for (operator, key, values) in conditions {
                statement["Condition"][operator][key] = values;
            }
            statement
        },
    )
}

fn policies() -> impl Strategy<Value = (bool, Vec<Value>)> {
    any::<bool>().prop_flat_map(|on_identity| {
        let policy = prop::collection::vec(statement(on_identity), 1..4)
            .prop_map(|statements| json!({ "Version": "2012-10-17", "Statement": statements }));
        (Just(on_identity), prop::collection::vec(policy, 0..3))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6_000))]
    #[test]
    fn the_engine_decides_as_the_model((on_identity, policies) in policies(), wishes in prop::collection::vec(wish(), 1..8)) {
        let read = |(index, policy): (usize, &Value)| {
            let attached = if on_identity { Attached::Identity(None) } else { Attached::Credential };
            // More than fits a policy is not generated: what is, is compact.
            Policy::parse(&format!("policy-{index}"), &policy.to_string(), attached)
        };
        let set = PolicySet::new(policies.iter().enumerate().map(read).collect::<Result<_, _>>().unwrap());
        for wish in wishes {
            let (resource, principal): (Arn, _) = (wish.resource.parse().unwrap(), realm().user(wish.account, wish.user));
            let address = |text: &str| text.parse::<EmailAddress>().unwrap();
            let (from, feedback) = (wish.from.map(address), wish.feedback.map(address));
            let recipients: Vec<_> = wish.recipients.iter().map(|text| address(text)).collect();
            let recipients: Vec<_> = recipients.iter().collect();
            let request = PolicyRequest {
                action: SEND_RAW_EMAIL,
                resource: &resource,
                account: wish.account,
                user_name: wish.user,
                principal: &principal,
                from: from.as_ref(),
                from_display_name: wish.display_name,
                feedback: feedback.as_ref(),
                recipients: &recipients,
                source_ip: wish.ip,
                is_secure: wish.is_secure,
                user_agent: None,
                now: Timestamp::from_millis(wish.seconds * 1_000 + 999),
            };
            let decided = match set.authorize(&request) {
                PolicyVerdict::Allow(_) => Some(true),
                PolicyVerdict::Deny(_) => Some(false),
                PolicyVerdict::NoMatch => None,
            };
            prop_assert_eq!(decided, model(&policies, &wish), "{:?}\n{:#?}", wish, policies);
        }
    }
}
