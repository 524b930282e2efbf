//! `Authentication-Results` (RFC 8601): what a receiver found, for those behind it.

mod parse;

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::verify::message::Message;
use crate::verify::tags::printable;
use crate::verify::{Connection, Verdict};

/// The name of the header field.
pub const FIELD: &str = "Authentication-Results";

/// The content of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthenticationResults {
    /// Who found this out: a name that the domain of the reader gives out.
    pub authserv_id: String,
    /// What it found; nothing means that nothing was checked (`none`).
    pub results: Vec<MethodResult>,
}

/// What one method found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodResult {
    /// `spf`, `dkim`, `dmarc`, `arc`, ...
    pub method: String,
    /// `pass`, `fail`, ...
    pub result: String,
    /// Why, in a sentence for people.
    pub reason: Option<String>,
    /// What the method looked at.
    pub properties: Vec<Property>,
}

/// What a method looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// Where it is from: `smtp`, `header`, `body`, `policy`.
    pub kind: String,
    /// Which: `mailfrom`, `d`, `from`, ...
    pub name: String,
    /// What it said.
    pub value: String,
}

impl AuthenticationResults {
    /// What [`crate::verify::verify`] found, in the name of `connection.receiver`.
    #[must_use]
    pub fn of(verdict: &Verdict, connection: &Connection<'_>) -> AuthenticationResults {
        let mut results = Vec::new();
        if let Some(spf) = &verdict.spf {
            let property = if verdict.spf_of_helo {
                property("smtp", "helo", connection.helo)
            } else {
                property("smtp", "mailfrom", connection.mail_from)
            };
            results.push(method("spf", spf.result.as_str(), Some(&spf.reason), vec![property]));
        }
        for one in &verdict.dkim {
            // RFC 8601 section 2.7.1, RFC 6008
            let known = [("d", &one.domain), ("s", &one.selector), ("a", &one.algorithm), ("b", &one.signature)];
            let known = known.into_iter().filter(|(_, value)| !value.is_empty());
            let mut properties: Vec<_> = known.map(|(name, value)| property("header", name, value)).collect();
            properties.extend(one.identity.as_deref().map(|identity| property("header", "i", identity)));
            results.push(method("dkim", one.result.as_str(), Some(&one.reason), properties));
        }
        if verdict.dkim.is_empty() {
            results.push(method("dkim", "none", None, Vec::new()));
        }
        // RFC 8617 section 10.2
        let client = connection.ip.map(|ip| property("smtp", "remote-ip", &ip.to_string()));
        results.push(method("arc", verdict.arc.result.as_str(), None, client.into_iter().collect()));
        let mut properties = Vec::new();
        if !verdict.dmarc.domain.is_empty() {
            properties.push(property("header", "from", &verdict.dmarc.domain));
        }
        if let Some(policy) = &verdict.dmarc.policy {
            properties.push(property("policy", "dmarc", policy.disposition.as_str()));
        }
        let reason = Some(verdict.dmarc.reason.as_str());
        results.push(method("dmarc", verdict.dmarc.result.as_str(), reason, properties));
        AuthenticationResults { authserv_id: connection.receiver.to_owned(), results }
    }

    /// Reads the value of a field, folded or not: none when it breaks the grammar.
    pub fn parse(value: &str) -> Option<AuthenticationResults> {
        parse::field(value)
    }

    /// The whole field, folded, with its name and the final CRLF. Whatever the texts are, it is
    /// one field.
    #[must_use]
    pub fn to_field(&self) -> String {
        let mut field = format!("{FIELD}: {}", value(&self.authserv_id));
        if self.results.is_empty() {
            field.push_str("; none");
        }
        for one in &self.results {
            let _ = write!(field, ";\r\n\t{}={}", keyword(&one.method), keyword(&one.result));
            if let Some(reason) = &one.reason {
                let _ = write!(field, "\r\n\t reason={}", quoted(reason));
            }
            for property in &one.properties {
                let (kind, name) = (keyword(&property.kind), keyword(&property.name));
                let _ = write!(field, "\r\n\t {kind}.{name}={}", property_value(&property.value));
            }
        }
        field.push_str("\r\n");
        field
    }
}

/// A message without the fields that claim to be ours: whoever sent it did not get them from us
/// (RFC 8601 section 5). Fields whose author can not be read go too.
pub fn without_forged<'a>(message: &'a [u8], authserv_id: &str) -> Cow<'a, [u8]> {
    let Some(split) = Message::split(message, usize::MAX) else { return Cow::Borrowed(message) };
    let mut kept = Vec::new();
    let (mut from, mut at) = (0, 0);
    for field in &split.fields {
        let end = at + field.name.len() + 1 + field.value.len();
        let forged = field.is(FIELD)
            && parse::authserv_id(&String::from_utf8_lossy(field.value))
                .is_none_or(|claimed| claimed.eq_ignore_ascii_case(authserv_id));
        if forged {
            kept.extend_from_slice(&message[from..at]);
            from = end;
        }
        at = end;
    }
    if from == 0 {
        return Cow::Borrowed(message);
    }
    kept.extend_from_slice(&message[from..]);
    Cow::Owned(kept)
}

fn method(method: &str, result: &str, reason: Option<&str>, properties: Vec<Property>) -> MethodResult {
    let reason = reason.filter(|reason| !reason.is_empty());
    MethodResult { method: method.to_owned(), result: result.to_owned(), reason: reason.map(printable), properties }
}

fn property(kind: &str, name: &str, value: &str) -> Property {
    Property { kind: kind.to_owned(), name: name.to_owned(), value: printable(value) }
}

/// RFC 8601 section 2.2: letters, digits and hyphens, here nothing else whatever comes.
fn keyword(text: &str) -> String {
    let kept: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    if kept.is_empty() { "x".to_owned() } else { kept }
}

/// RFC 2045 section 5.1: `value := token / quoted-string`.
fn value(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(is_token) { text.to_owned() } else { quoted(text) }
}

/// RFC 8601 section 2.2: an address may stand there as it is.
fn property_value(text: &str) -> String {
    let bare = text.rsplit_once('@').is_some_and(|(local, domain)| {
        local.bytes().all(is_token) && !domain.is_empty() && domain.bytes().all(is_token)
    });
    if bare { text.to_owned() } else { value(text) }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text).replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let results = AuthenticationResults {
            authserv_id: "mx.example.net".to_owned(),
            results: vec![
                method(
                    "spf",
                    "pass",
                    Some("it says \"so\" \\ (really); yes"),
                    vec![property("smtp", "mailfrom", "a b@c.d")],
                ),
                method(
                    "dkim",
                    "none",
                    None,
                    vec![property("header", "i", "@example.com"), property("header", "b", "a/b+c=")],
                ),
            ],
        };
        let field = results.to_field();
        assert!(field.starts_with("Authentication-Results: mx.example.net;\r\n\tspf=pass\r\n\t reason=\"it says"));
        assert!(field.contains("\r\n\t header.i=@example.com\r\n\t header.b=\"a/b+c=\"\r\n"), "{field}");
        let value = field.strip_prefix("Authentication-Results:").unwrap();
        assert_eq!(AuthenticationResults::parse(value), Some(results));
    }

    #[tokio::test]
    async fn what_was_found_is_said() {
        let zones = postrider_dns::Zones::new();
        zones.add_txt("example.com", "v=spf1 -all").add_txt("_dmarc.example.com", "v=DMARC1; p=reject");
        let clock = postrider_base::Clock::simulated(postrider_base::Timestamp::default());
        let ip = Some(std::net::IpAddr::from([192, 0, 2, 1]));
        let connection =
            Connection { ip, helo: "h.example.com", mail_from: "a@example.com", receiver: "mx.example.net" };
        let message = b"DKIM-Signature: nonsense\r\nFrom: a@example.com\r\n\r\n";
        let verdict =
            crate::verify::verify(&zones, &clock, message, &connection, &crate::verify::Limits::default()).await;
        let results = AuthenticationResults::of(&verdict.unwrap(), &connection);
        let said: Vec<_> = results.results.iter().map(|one| (one.method.as_str(), one.result.as_str())).collect();
        assert_eq!(said, [("spf", "fail"), ("dkim", "neutral"), ("arc", "none"), ("dmarc", "fail")]);
        let field = results.to_field();
        assert!(field.contains("\r\n\t smtp.mailfrom=a@example.com;"), "{field}");
        assert!(field.ends_with("\r\n\t header.from=example.com\r\n\t policy.dmarc=reject\r\n"), "{field}");
    }

    #[test]
    fn nobody_speaks_for_us() {
        let message = b"Authentication-Results: MX.example.net; spf=pass\r\nFrom: a@b\r\nAuthentication-Results: (c) other.example;\r\n spf=pass\r\nAuthentication-results : \"mx.example.net\" 1;\r\n dkim=pass\r\nAuthentication-Results: (;\r\n\r\nAuthentication-Results: mx.example.net; none\r\n";
        let kept = without_forged(message, "mx.example.net");
        let expected = "From: a@b\r\nAuthentication-Results: (c) other.example;\r\n spf=pass\r\n\r\nAuthentication-Results: mx.example.net; none\r\n";
        assert_eq!(String::from_utf8_lossy(&kept), expected);
        assert!(matches!(without_forged(b"From: a@b\r\n\r\n", "mx"), Cow::Borrowed(_)));
        assert!(matches!(without_forged(b"", "mx"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn a_field_is_one_field(id in ".{1,30}", reason in any::<String>(), text in any::<String>()) {
            let one = MethodResult {
                method: text.clone(),
                result: text.clone(),
                reason: Some(reason),
                properties: vec![Property { kind: text.clone(), name: text.clone(), value: text }],
            };
            let field = AuthenticationResults { authserv_id: id, results: vec![one] }.to_field();
            let whole = format!("{field}\r\n");
            let split = Message::split(whole.as_bytes(), 9).unwrap();
            prop_assert_eq!(split.fields.len(), 1);
            let value = field.strip_prefix("Authentication-Results:").unwrap();
            prop_assert!(AuthenticationResults::parse(value).is_some(), "{}", field);
        }

        #[test]
        fn any_text_is_read_or_not(text in "[a-z();=\\\\\"./ \r\n\t]*", any in any::<String>()) {
            let _ = AuthenticationResults::parse(&text);
            let _ = AuthenticationResults::parse(&any);
            without_forged(format!("Authentication-Results: {text}\r\n\r\n").as_bytes(), "a");
        }
    }
}
