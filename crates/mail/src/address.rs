//! Email addresses.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::is_unprintable;
use crate::{AddressError, Domain};

/// RFC 5321 section 4.5.3.1.1
const MAX_LOCAL: usize = 64;
/// RFC 5321 section 4.5.3.1.3: a path of 256 octets holds two angle brackets.
const MAX_ADDRESS: usize = 254;

/// A mailbox address, valid by construction (RFC 5321 section 4.1.2, with the
/// UTF-8 of RFC 6531 section 3.3).
///
/// The local part is kept as it was given; the domain is canonical (see
/// [`Domain`]). Never holds a control character. Cloning copies pointers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EmailAddress {
    text: Arc<str>,
    domain: Domain,
}

impl EmailAddress {
    /// Joins a local part and a domain.
    ///
    /// # Errors
    /// When the local part is not one, or the whole is longer than 254 octets.
    pub fn new(local: &str, domain: Domain) -> Result<EmailAddress, AddressError> {
        check_local(local)?;
        if local.len() + 1 + domain.as_str().len() > MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        let text = [local, "@", domain.as_str()].concat().into();
        Ok(EmailAddress { text, domain })
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the last `@`, quotes included.
    pub fn local(&self) -> &str {
        &self.text[..self.text.len() - self.domain.as_str().len() - 1]
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The address without its label: `ann@` of `ann+news@` (RFC 5233 section 1 calls the
    /// label a detail). `None` when it has none, or nothing in front of it.
    pub fn without_label(&self) -> Option<EmailAddress> {
        let (base, _) = self.local().split_once('+').filter(|_| !self.local().starts_with('"'))?;
        EmailAddress::new(base, self.domain.clone()).ok()
    }

    /// Whether a server without SMTPUTF8 can be given this address. The domain
    /// always can, in A-label form; so this speaks of the local part.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// The key for comparing addresses as people mean them (suppression,
    /// quotas): lower case, and without quotes that change nothing
    /// (RFC 5321 section 4.1.2 calls both spellings one mailbox).
    pub fn fold(&self) -> String {
        self.unquoted().as_str().to_lowercase()
    }

    /// The address without quotes that change nothing: both spellings are one mailbox (RFC 5321
    /// section 4.1.2). Costs nothing where there are none.
    pub fn unquoted(&self) -> Cow<'_, EmailAddress> {
        let quoted = self.local().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let plain = quoted.map(unescape).and_then(|inside| match is_dot_string(&inside) {
            true => EmailAddress::new(&inside, self.domain.clone()).ok(),
            false => None,
        });
        plain.map_or(Cow::Borrowed(self), Cow::Owned)
    }
}

impl FromStr for EmailAddress {
    type Err = AddressError;

    /// Reads an address without angle brackets, source route or display name.
    fn from_str(text: &str) -> Result<EmailAddress, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::NoLocalPart)?;
        check_local(local)?;
        EmailAddress::new(local, domain.parse()?)
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmailAddress({})", self.text)
    }
}

impl AsRef<str> for EmailAddress {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl Serialize for EmailAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for EmailAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EmailAddress, D::Error> {
        crate::text::deserialize_from_str(deserializer, "an email address")
    }
}

fn check_local(local: &str) -> Result<(), AddressError> {
    if local.is_empty() {
        return Err(AddressError::NoLocalPart);
    }
    if local.len() > MAX_LOCAL {
        return Err(AddressError::LocalPartTooLong);
    }
    let valid = match local.strip_prefix('"') {
        Some(rest) => is_quoted_rest(rest),
        None => is_dot_string(local),
    };
    valid.then_some(()).ok_or(AddressError::LocalPart)
}

/// RFC 5321 section 4.1.2: `Dot-string = Atom *("." Atom)`.
fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 section 3.2.3, widened by RFC 6531 section 3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !is_unprintable(c) && !c.is_whitespace())
}

/// What follows the opening quote of a `Quoted-string`, the closing one
/// included (RFC 5321 section 4.1.2).
fn is_quoted_rest(rest: &str) -> bool {
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return chars.as_str().is_empty(),
            '\\' => match chars.next() {
                Some(escaped) if (' '..='~').contains(&escaped) => {}
                _ => return false,
            },
            c if is_unprintable(c) => return false,
            _ => {}
        }
    }
    false
}

fn unescape(quoted: &str) -> String {
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<EmailAddress, AddressError> {
        text.parse()
    }

    #[test]
    fn parts_of_an_address() {
        let address = parse("Alice.B+tag@Example.COM").unwrap();
        assert_eq!(address.as_str(), "Alice.B+tag@example.com");
        assert_eq!(address.local(), "Alice.B+tag");
        assert_eq!(address.domain().as_str(), "example.com");
        assert_eq!(address.fold(), "alice.b+tag@example.com");
        assert!(address.is_ascii());
    }

    #[test]
    fn labels_come_off() {
        let without = |text| parse(text).unwrap().without_label().map(|address| address.as_str().to_owned());
        assert_eq!(without("Ann+news+more@example.com").as_deref(), Some("Ann@example.com"));
        for none in ["ann@example.com", "+ann@example.com", "\"a+b\"@example.com", "a.+b@example.com"] {
            assert_eq!(without(none), None, "{none}");
        }
    }

    #[test]
    fn good_addresses() {
        for good in [
            "a@b",
            "\"a b\"@example.com",
            "\"a\\\"b\"@example.com",
            "\"a@b\"@example.com",
            "\"\"@example.com",
            "user@[192.0.2.1]",
            "user@[IPv6:2001:db8::1]",
            "!#$%&'*+-/=?^_`{|}~@example.com",
            "jürgen@example.com",
        ] {
            assert_eq!(parse(good).map(|a| a.to_string()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn bad_addresses() {
        use AddressError::*;
        for (bad, why) in [
            ("", NoLocalPart),
            ("alice", NoLocalPart),
            ("@example.com", NoLocalPart),
            ("a b@example.com", LocalPart),
            (".a@example.com", LocalPart),
            ("a..b@example.com", LocalPart),
            ("a.@example.com", LocalPart),
            ("<a@example.com", LocalPart),
            ("a@b@example.com", LocalPart),
            ("\"a@example.com", LocalPart),
            ("\"a\"b\"@example.com", LocalPart),
            ("\"a\\\"@example.com", LocalPart),
            ("\"a\rb\"@example.com", LocalPart),
            ("a\u{85}b@example.com", LocalPart),
            ("a\u{2028}b@example.com", LocalPart),
            ("a@", Domain),
            ("a@exa mple.com", Domain),
            ("a@example.com\r\nX: y", Domain),
            ("a@[300.1.1.1]", Literal),
        ] {
            assert_eq!(parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn length_limits() {
        let local = "a".repeat(64);
        assert!(parse(&format!("{local}@example.com")).is_ok());
        assert_eq!(parse(&format!("{local}a@example.com")), Err(AddressError::LocalPartTooLong));
        let domain = ["a".repeat(63), "b".repeat(63), "c".repeat(61)].join(".");
        assert_eq!(domain.len(), 189);
        assert!(parse(&format!("{local}@{domain}")).is_ok());
        assert_eq!(parse(&format!("{local}@{domain}d")), Err(AddressError::TooLong));
    }

    #[test]
    fn international_addresses() {
        let address = parse("Jürgen@bücher.example").unwrap();
        assert_eq!(address.as_str(), "Jürgen@xn--bcher-kva.example");
        assert!(!address.is_ascii());
        assert_eq!(address.fold(), "jürgen@xn--bcher-kva.example");
        assert!(parse("info@bücher.example").unwrap().is_ascii());
    }

    #[test]
    fn folding_drops_needless_quotes_only() {
        assert_eq!(parse("\"Al\\ice\"@b.c").unwrap().fold(), "alice@b.c");
        assert_eq!(parse("\"Al ice\"@b.c").unwrap().fold(), "\"al ice\"@b.c");
        let unquoted = |text| parse(text).unwrap().unquoted().to_string();
        assert_eq!(unquoted("\"A.l\\ice\"@b.c"), "A.lice@b.c");
        for needed in ["\"Al ice\"@b.c", "\"\"@b.c", "\"a.\"@b.c", "alice@b.c"] {
            assert_eq!(unquoted(needed), needed);
        }
    }

    #[test]
    fn serde_is_a_checked_string() {
        let address = parse("a@b.c").unwrap();
        assert_eq!(serde_json::to_string(&address).unwrap(), "\"a@b.c\"");
        let bytes = postcard::to_allocvec(&address).unwrap();
        assert_eq!(postcard::from_bytes::<EmailAddress>(&bytes), Ok(address));
        assert!(serde_json::from_str::<EmailAddress>("\"a b@c\"").is_err());
    }

    proptest! {
        #[test]
        fn display_parses_back(text in "[a-zA-Z0-9.\"\\\\ +ä]{0,12}@[a-zA-Z0-9.ä-]{1,12}") {
            if let Ok(address) = text.parse::<EmailAddress>() {
                let again: EmailAddress = address.to_string().parse().unwrap();
                prop_assert_eq!(&again, &address);
                let folded: EmailAddress = address.fold().parse().unwrap();
                prop_assert_eq!(folded.fold(), address.fold());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            if let Ok(address) = text.parse::<EmailAddress>() {
                prop_assert!(!address.as_str().chars().any(char::is_control));
            }
        }
    }
}
