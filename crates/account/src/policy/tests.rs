//! What is refused and where it is, and what the examples of SES's guide decide.

use postrider_base::Timestamp;
use postrider_mail::{AccountId, EmailAddress};

use super::*;
use crate::{Arn, Realm};

const USER: &str = "AKIAIOSFODNN7EXAMPLE";

pub(super) fn realm() -> Realm {
    Realm { partition: "aws".to_owned(), region: "us-east-1".to_owned() }
}

pub(super) fn account(number: u64) -> AccountId {
    AccountId::new(number).unwrap()
}

fn identity(name: &str) -> Arn {
    realm().identity(account(1), &name.parse().unwrap())
}

fn refusal(text: &str, attached: Attached<'_>) -> String {
    Policy::parse("test", text, attached).unwrap_err().to_string()
}

/// A statement with this in the place of what it has.
pub(super) fn statement(element: &str) -> String {
    let mut parts = vec![r#""Effect":"Allow""#, r#""Action":"ses:*""#, r#""Resource":"*""#];
    let name = element.split(':').next().unwrap();
    parts.retain(|part| !part.starts_with(name));
    parts.push(element);
    format!(r#"{{"Statement":[{{{}}}]}}"#, parts.join(","))
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, start) in [
        ("", "no JSON: EOF while parsing a value at line 1 column 0"),
        ("{\n \"Statement\": [}", "no JSON: expected value at line 2 column 16"),
        (r#"{"Statement":[],"Statement":[]}"#, r#"no JSON: the key "Statement" is there twice at line 1"#),
        ("[]", "it must be an object, not a list"),
        ("{}", "it has no Statement"),
        (r#"{"Statement":[]}"#, "it has no Statement"),
        (r#"{"statement":[]}"#, r#"there is no element "statement"; did you mean Statement?"#),
        (r#"{"Version":1,"Statement":[]}"#, "Version: it must be a string, not a number"),
        (r#"{"Statement":["x"]}"#, "Statement 1: it must be an object, not a string"),
        (r#"{"Statement":{"Action":"ses:*","Resource":"*"}}"#, "Statement 1: it has no Effect"),
        (r#"{"Statement":{"Effect":"Allow","Resource":"*"}}"#, "Statement 1: it has no Action"),
        (r#"{"Statement":{"Effect":"Allow","Action":"ses:*"}}"#, "Statement 1: it has no Resource"),
    ] {
        let refused = refusal(text, Attached::Credential);
        assert!(refused.starts_with(start), "{text}: {refused}");
    }
}

/// Each element, in a statement that is right otherwise, is refused with a text that begins so.
fn assert_refused(cases: &[(&str, &str)]) {
    for (element, start) in cases {
        let refused = refusal(&statement(element), Attached::Credential);
        assert!(refused.starts_with(start), "{element}: {refused}");
    }
}

#[test]
fn what_is_wrong_in_a_statement_is_named() {
    assert_refused(&[
        (r#""Effect":"allow""#, r#"Statement 1, Effect: it must be "Allow" or "Deny""#),
        (r#""Actions":"ses:*""#, r#"Statement 1: there is no element "Actions" here; there are Sid, Effect,"#),
        (r#""Action":[]"#, "Statement 1, Action: it has no value"),
        (r#""Action":"s3:GetObject""#, r#"Statement 1, Action: "s3:GetObject" is no action of SES"#),
        (
            r#""Action":["ses:SendRawEmial"]"#,
            r#"Statement 1, Action: there is no action "ses:SendRawEmial"; those that"#,
        ),
        (r#""Action":"ses:Send Email""#, r#"Statement 1, Action: "ses:Send Email" is no action"#),
        (r#""Resource":"example.com""#, r#"Statement 1, Resource: "example.com" is neither * nor an ARN"#),
        (
            r#""Resource":"arn:aws:s3:::bucket""#,
            r#"Statement 1, Resource: "arn:aws:s3:::bucket" is no resource of SES"#,
        ),
        (r#""NotResource":"*""#, "Statement 1: it has Resource and NotResource"),
        (r#""Principal":"*""#, "Statement 1, Principal: a policy of a credential is about that credential alone"),
        (r#""NotPrincipal":"*""#, "Statement 1: NotPrincipal is not supported"),
    ]);
    assert!(Policy::parse("test", &statement(r#""Sid":"a""#), Attached::Credential).is_ok());
}

#[test]
fn operators_that_are_not_there_are_named() {
    assert_refused(&[
        (r#""Condition":[]"#, "Statement 1, Condition: it must be an object, not a list"),
        (r#""Condition":{"StringEquals":{}}"#, "Statement 1, Condition, StringEquals: it names no condition key"),
        (
            r#""Condition":{"StringIs":{"ses:FromAddress":"a"}}"#,
            "Statement 1, Condition, StringIs: there is no such operator; the operators are StringEquals,",
        ),
        (
            r#""Condition":{"stringequals":{"ses:FromAddress":"a"}}"#,
            "Statement 1, Condition, stringequals: there is no such operator; did you mean StringEquals?",
        ),
        (
            r#""Condition":{"ForAll:StringEquals":{"ses:FromAddress":"a"}}"#,
            "Statement 1, Condition, ForAll:StringEquals: ForAll: is neither ForAllValues: nor ForAnyValue:",
        ),
        (
            r#""Condition":{"NullIfExists":{"ses:FromAddress":"true"}}"#,
            "Statement 1, Condition, NullIfExists: Null takes neither",
        ),
    ]);
}

#[test]
fn keys_and_values_that_do_not_go_together_are_named() {
    assert_refused(&[
        (
            r#""Condition":{"StringEquals":{"ses:ToEmail":"a"}}"#,
            "Statement 1, Condition, StringEquals, ses:ToEmail: there is no such condition key; the keys are ses:Recip",
        ),
        (
            r#""Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1"}}"#,
            "Statement 1, Condition, StringEquals, aws:PrincipalOrgID: there are no organisations here",
        ),
        (
            r#""Condition":{"StringLike":{"ses:Recipients":"a"}}"#,
            "Statement 1, Condition, StringLike, ses:Recipients: a message can have several: say ForAllValues:StringLike",
        ),
        (
            r#""Condition":{"StringEquals":{"aws:SourceIp":"192.0.2.1"}}"#,
            "Statement 1, Condition, StringEquals, aws:SourceIp: StringEquals does not go with this key, IpAddress, Not",
        ),
        (
            r#""Condition":{"IpAddress":{"aws:SourceIp":["192.0.2.1/24"]}}"#,
            r#"Statement 1, Condition, IpAddress, aws:SourceIp: "192.0.2.1/24" has bits set behind its prefix"#,
        ),
        (
            r#""Condition":{"DateLessThan":{"aws:CurrentTime":"soon"}}"#,
            r#"Statement 1, Condition, DateLessThan, aws:CurrentTime: "soon" is no date: write 2030-01-31"#,
        ),
        (
            r#""Condition":{"NumericLessThan":{"aws:EpochTime":"NaN"}}"#,
            r#"Statement 1, Condition, NumericLessThan, aws:EpochTime: "NaN" is no number"#,
        ),
        (
            r#""Condition":{"Bool":{"aws:SecureTransport":"yes"}}"#,
            "Statement 1, Condition, Bool, aws:SecureTransport: it must be true or false",
        ),
        (
            r#""Condition":{"ArnLike":{"aws:PrincipalArn":"me"}}"#,
            r#"Statement 1, Condition, ArnLike, aws:PrincipalArn: "me" is no ARN"#,
        ),
        (
            r#""Condition":{"StringLike":{"ses:FromAddress":"${aws:username}@example.com"}}"#,
            "Statement 1, Condition, StringLike, ses:FromAddress: policy variables as ${aws:username} are not supported",
        ),
    ]);
}

#[test]
fn a_policy_of_an_identity_names_somebody_and_the_identity() {
    let arn = identity("example.com");
    let policy = |rest: &str| format!(r#"{{"Statement":[{{"Effect":"Allow","Action":"ses:SendRawEmail",{rest}}}]}}"#);
    let mine = r#""Resource":"arn:aws:ses:us-east-1:000000000001:identity/example.com""#;
    for (rest, start) in [
        (mine.to_owned(), "Statement 1: it has no Principal"),
        (r#""Principal":"*""#.to_owned(), "Statement 1: it has no Resource"),
        (
            r#""Principal":"*","Resource":"*""#.to_owned(),
            "Statement 1, Resource: it must be the identity that the policy",
        ),
        (r#""Principal":"*","Resource":[]"#.to_owned(), "Statement 1, Resource: it has no value"),
        (r#""Principal":"*","Resource":["a","b"]"#.to_owned(), "Statement 1, Resource: it must name one identity"),
        (r#""Principal":"*","NotResource":"*""#.to_owned(), "Statement 1, NotResource: a policy of an identity names"),
        (format!(r#""Principal":"000000000002",{mine}"#), "Statement 1, Principal: it must be an object as"),
        (format!(r#""Principal":{{}},{mine}"#), "Statement 1, Principal: it names nobody"),
        (format!(r#""Principal":{{"AWS":"2"}},{mine}"#), r#"Statement 1, Principal, AWS: "2" is nobody"#),
        (
            format!(r#""Principal":{{"AWS":["arn:aws:iam::000000000002:group/a"]}},{mine}"#),
            r#"Statement 1, Principal, AWS: "arn:aws:iam::000000000002:group/a" is nobody"#,
        ),
        (
            format!(r#""Principal":{{"Service":["cognito-idp.amazonaws.com"]}},{mine}"#),
            "Statement 1, Principal, Service: there are no services here that send",
        ),
    ] {
        let refused = refusal(&policy(&rest), Attached::Identity(Some(&arn)));
        assert!(refused.starts_with(start), "{rest}: {refused}");
    }
    let good = policy(&format!(r#""Principal":{{"AWS":["000000000002"]}},{mine}"#));
    assert!(Policy::parse("test", &good, Attached::Identity(Some(&arn))).is_ok());
    let moved = identity("example.org");
    assert!(Policy::parse("test", &good, Attached::Identity(Some(&moved))).is_err());
    assert!(Policy::parse("test", &good, Attached::Identity(None)).is_ok(), "what was stored is taken as it is");
}

#[test]
fn names_and_sizes_are_bounded() {
    let good = statement(r#""Sid":"a""#);
    for name in ["", "a b", "ä", "a.b", &"x".repeat(65)] {
        assert!(Policy::parse(name, &good, Attached::Credential).is_err(), "{name}");
    }
    assert!(Policy::parse(&"x".repeat(64), &good, Attached::Credential).is_ok());
    let padded = |len: usize| format!("{good}{}", " ".repeat(len - good.len()));
    assert!(Policy::parse("a", &padded(4_096), Attached::Credential).is_ok());
    assert_eq!(refusal(&padded(4_097), Attached::Credential), "it has 4097 bytes, and may have 4096");
    let twice = r#"{"Statement":[{"Sid":"a","Effect":"Deny","Action":"*","Resource":"*"},
        {"Sid":"a","Effect":"Deny","Action":"*","Resource":"*"}]}"#;
    assert_eq!(refusal(twice, Attached::Credential), "Statement 2, Sid: an earlier statement has the same");
    let hostile = statement(&format!(r#""Condition":{{"x\r\n{}":1}}"#, "y".repeat(3_000)));
    let refused = refusal(&hostile, Attached::Credential);
    assert!(refused.len() < 1_100 && !refused.contains(['\r', '\n']));
}

/// A wish that a test changes.
struct Wish {
    user: (u64, &'static str),
    resource: Arn,
    from: &'static str,
    name: Option<&'static str>,
    feedback: &'static str,
    recipients: &'static [&'static str],
    ip: &'static str,
    at: &'static str,
}

fn wish() -> Wish {
    Wish {
        user: (2, USER),
        resource: identity("example.com"),
        from: "marketing@example.com",
        name: Some("Marketing"),
        feedback: "feedback@example.com",
        recipients: &["bob@example.net"],
        ip: "192.0.2.7",
        at: "2018-09-15T00:00:00Z",
    }
}

fn ask(set: &PolicySet, wish: &Wish) -> PolicyVerdict {
    let address = |text: &str| text.parse::<EmailAddress>().unwrap();
    let (from, feedback) = (address(wish.from), address(wish.feedback));
    let recipients: Vec<_> = wish.recipients.iter().map(|text| address(text)).collect();
    let (number, user_name) = wish.user;
    set.authorize(&PolicyRequest {
        action: SEND_RAW_EMAIL,
        resource: &wish.resource,
        account: account(number),
        user_name,
        principal: &realm().user(account(number), user_name),
        from: Some(&from),
        from_display_name: wish.name,
        feedback: Some(&feedback),
        recipients: &recipients.iter().collect::<Vec<_>>(),
        source_ip: Some(wish.ip.parse().unwrap()),
        is_secure: true,
        user_agent: None,
        now: Timestamp::parse_rfc3339(wish.at).unwrap(),
    })
}

fn set(text: &str, attached: Attached<'_>) -> PolicySet {
    PolicySet::new(vec![Policy::parse("test", text, attached).unwrap()])
}

fn allows(set: &PolicySet, wish: &Wish) -> bool {
    matches!(ask(set, wish), PolicyVerdict::Allow(_))
}

/// The rest of a statement, of a credential that may send.
fn user_policy(rest: &str) -> PolicySet {
    let text = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow",
            "Action":["ses:SendEmail","ses:SendRawEmail"],"Resource":"*"{rest}}}]}}"#
    );
    set(&text, Attached::Credential)
}

#[test]
fn the_user_policies_of_the_guide() {
    assert!(allows(&user_policy(""), &wish()));
    let only = user_policy(r#","Condition":{"ForAllValues:StringLike":{"ses:Recipients":["*@example.com"]}}"#);
    assert!(!allows(&only, &wish()));
    assert!(allows(&only, &Wish { recipients: &["a@example.com", "b@EXAMPLE.com"], ..wish() }));
    assert!(!allows(&only, &Wish { recipients: &["a@example.com", "b@example.net"], ..wish() }));

    let from = user_policy(r#","Condition":{"StringEquals":{"ses:FromAddress":"marketing@Example.COM"}}"#);
    assert!(allows(&from, &wish()), "domains have no case");
    assert!(!allows(&from, &Wish { from: "Marketing@example.com", ..wish() }), "local parts have");

    let name =
        |pattern: &str| user_policy(&format!(r#","Condition":{{"StringLike":{{"ses:FromDisplayName":"{pattern}"}}}}"#));
    assert!(allows(&name("Marketing"), &wish()) && !allows(&name("marketing"), &wish()));
    assert!(!allows(&name("Marketing"), &Wish { name: Some("Our Marketing Team"), ..wish() }));
    assert!(allows(&name("*Marketing*"), &Wish { name: Some("Our Marketing Team"), ..wish() }));
    assert!(!allows(&name("*"), &Wish { name: None, ..wish() }), "there is no name");

    let feedback = user_policy(r#","Condition":{"StringEquals":{"ses:FeedbackAddress":"feedback@example.com"}}"#);
    assert!(allows(&feedback, &wish()) && !allows(&feedback, &Wish { feedback: "x@example.com", ..wish() }));

    let month = user_policy(
        r#","Condition":{"DateGreaterThan":{"aws:CurrentTime":"2018-08-31T12:00Z"},
            "DateLessThan":{"aws:CurrentTime":"2018-10-01T00:00:00Z"}}"#,
    );
    for (at, expected) in [
        ("2018-08-31T12:00:00.9Z", false),
        ("2018-08-31T12:00:01Z", true),
        ("2018-09-30T23:59:59.9Z", true),
        ("2018-10-01T00:00:00Z", false),
    ] {
        assert_eq!(allows(&month, &Wish { at, ..wish() }), expected, "{at}");
    }

    let network = user_policy(r#","Condition":{"NotIpAddress":{"aws:SourceIp":["192.0.2.0/24","2001:db8::/32"]}}"#);
    for (ip, expected) in
        [("192.0.2.7", false), ("::ffff:192.0.2.7", false), ("2001:db8::1", false), ("192.0.3.7", true)]
    {
        assert_eq!(allows(&network, &Wish { ip, ..wish() }), expected, "{ip}");
    }

    let bounce = r#"{"Statement":{"Effect":"Allow","Action":"ses:SendBounce","Resource":"*"}}"#;
    assert_eq!(ask(&set(bounce, Attached::Credential), &wish()), PolicyVerdict::NoMatch);
}

#[test]
fn resources_are_patterns_part_by_part() {
    for (pattern, expected) in [
        ("*", true),
        ("arn:aws:ses:us-east-1:000000000001:identity/example.com", true),
        ("arn:*:ses:*:*:identity/*", true),
        ("arn:aws:ses:us-east-1:000000000001:identity/example.?om", true),
        ("arn:aws:ses:us-east-1:000000000002:identity/example.com", false),
        ("arn:aws:ses:us-east-1:000000000001:identity/Example.com", false),
        ("arn:aws:ses:*:identity/example.com", false),
    ] {
        let text = format!(r#"{{"Statement":{{"Effect":"Allow","Action":"*","Resource":"{pattern}"}}}}"#);
        let Ok(policy) = Policy::parse("test", &text, Attached::Credential) else {
            assert!(!expected, "{pattern}");
            continue;
        };
        assert_eq!(allows(&PolicySet::new(vec![policy]), &wish()), expected, "{pattern}");
    }
}

/// A statement of a policy on the identity example.com of account 1.
pub(super) fn sending(principal: &str, rest: &str) -> String {
    format!(
        r#"{{"Effect":"Allow","Principal":{principal},"Action":["SES:SendEmail","SES:SendRawEmail"],
            "Resource":"arn:aws:ses:us-east-1:000000000001:identity/example.com"{rest}}}"#
    )
}

fn authorization(statements: &[String]) -> PolicySet {
    let text = format!(r#"{{"Id":"Example","Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","));
    set(&text, Attached::Identity(Some(&identity("example.com"))))
}

#[test]
fn the_sending_authorizations_of_the_guide() {
    let john = |number| Wish { user: (number, "John"), ..wish() };
    let accounts = authorization(&[sending(r#"{"AWS":["000000000002"]}"#, "")]);
    assert!(allows(&accounts, &john(2)) && !allows(&accounts, &john(3)));
    let users = r#"{"AWS":["arn:aws:iam::000000000002:user/John","arn:aws:iam::000000000003:user/Jane"]}"#;
    let users = authorization(&[sending(users, "")]);
    assert!(allows(&users, &john(2)) && !allows(&users, &john(3)));
    assert!(allows(&users, &Wish { user: (3, "Jane"), ..wish() }));
    assert!(allows(&authorization(&[sending("\"*\"", "")]), &john(9)));

    let invoicing = r#","Condition":{"StringLike":{"ses:FromAddress":"invoicing*@example.com"}}"#;
    let invoicing = authorization(&[sending("\"*\"", invoicing)]);
    assert!(allows(&invoicing, &Wish { from: "invoicing+eu@example.com", ..wish() }) && !allows(&invoicing, &wish()));

    let ban = r#","Condition":{"StringNotLike":{"ses:FromAddress":"*admin*example.com"}}"#;
    let ban = authorization(&[sending("\"*\"", ban)]);
    assert!(allows(&ban, &wish()));
    for from in ["admin@example.com", "\"admin\"@example.com", "admin+1@example.com", "sender@admin.example.com"] {
        assert!(!allows(&ban, &Wish { from, ..wish() }), "{from}");
    }

    let two = authorization(&[
        sending(
            r#"{"AWS":["000000000002","000000000003"]}"#,
            r#","Sid":"AuthorizeMarketer","Condition":{"StringLike":{"ses:FromAddress":"*@example.com",
                "ses:FeedbackAddress":"*@example.com"}}"#,
        ),
        sending(
            r#"{"AWS":"arn:aws:iam::000000000004:user/Jane"}"#,
            r#","Sid":"AuthorizeInternal","Condition":{"ForAllValues:StringLike":{"ses:Recipients":["*@example.org"]}}"#,
        ),
    ]);
    assert!(allows(&two, &john(2)) && !allows(&two, &Wish { feedback: "x@example.net", ..john(3) }));
    let jane = Wish { user: (4, "Jane"), recipients: &["a@example.org"], from: "x@example.net", ..wish() };
    let deciding = Deciding { policy: "test".into(), statement: 2, sid: Some("AuthorizeInternal".into()) };
    assert_eq!(ask(&two, &jane), PolicyVerdict::Allow(deciding));
    assert!(!allows(&two, &Wish { recipients: &["a@example.org", "b@example.com"], ..jane }));
}

#[test]
fn one_that_denies_beats_all_that_allow() {
    let policy = |name: &str, effect: &str| {
        let text = format!(r#"{{"Statement":{{"Effect":"{effect}","Action":"ses:Send*","Resource":"*"}}}}"#);
        Policy::parse(name, &text, Attached::Credential).unwrap()
    };
    let deciding = |name: &str| Deciding { policy: name.to_owned(), statement: 1, sid: None };
    let both = PolicySet::new(vec![policy("c", "Deny"), policy("a", "Allow"), policy("b", "Deny")]);
    assert_eq!(ask(&both, &wish()), PolicyVerdict::Deny(deciding("b")));
    let allowing = PolicySet::new(vec![policy("c", "Allow"), policy("a", "Allow")]);
    assert_eq!(ask(&allowing, &wish()), PolicyVerdict::Allow(deciding("a")));
    assert_eq!(ask(&PolicySet::default(), &wish()), PolicyVerdict::NoMatch);
}

#[test]
fn a_name_that_can_not_be_read_is_allowed_by_nothing_and_denied_by_all_that_ask() {
    let asking = |effect: &str, condition: &str| {
        let others = r#"{"Effect":"Allow","Action":"ses:*","Resource":"*"}"#;
        let asking = format!(r#"{{"Effect":"{effect}","Action":"ses:*","Resource":"*","Condition":{{{condition}}}}}"#);
        let statements = if effect == "Deny" { format!("{others},{asking}") } else { asking };
        set(&format!(r#"{{"Statement":[{statements}]}}"#), Attached::Credential)
    };
    let named = |name| Wish { name: Some(name), ..wish() };
    for operator in
        ["StringLike", "StringNotLike", "StringLikeIfExists", "ForAnyValue:StringLike", "ForAllValues:StringNotLike"]
    {
        let condition = format!(r#""{operator}":{{"ses:FromDisplayName":"Jos*"}}"#);
        for effect in ["Allow", "Deny"] {
            assert!(!allows(&asking(effect, &condition), &named("Jos\u{fffd}")), "{effect} {condition}");
            let holds = operator.contains("Not") == (effect == "Deny");
            assert_eq!(allows(&asking(effect, &condition), &named("Jos\u{e9}")), holds, "{effect} {condition}");
        }
    }
    let is_there = asking("Allow", r#""Null":{"ses:FromDisplayName":"false"}"#);
    assert!(allows(&is_there, &named("Jos\u{fffd}")));
}

/// The page for operators keeps its word.
#[test]
fn the_examples_of_the_documentation_are_policies() {
    let page = include_str!("../../../../docs/policies.md");
    let blocks: Vec<&str> = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 4);
    for block in blocks {
        let attached = if block.contains("Principal\"") { Attached::Identity(None) } else { Attached::Credential };
        assert_eq!(Policy::parse("example", block, attached).map(drop), Ok(()), "{block}");
    }
}
