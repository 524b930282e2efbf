//! A string that keeps itself out of logs.

use std::fmt;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use zeroize::Zeroizing;

/// What marks a secret in an operation's JSON, so that it is known for one wherever it is.
const MARK: &str = "$secret";

/// A secret on its way between the command line and the daemon; `Debug` does not show it, the
/// audit log does not have it, and it is wiped from memory when it is dropped.
#[derive(Clone, PartialEq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: impl Into<Zeroizing<String>>) -> Secret {
        Secret(secret.into())
    }

    /// The secret itself, to be used and not kept.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut marked = serializer.serialize_map(Some(1))?;
        marked.serialize_entry(MARK, self.expose())?;
        marked.end()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Marked {
            #[serde(rename = "$secret")]
            secret: String,
        }
        Marked::deserialize(deserializer).map(|marked| Secret::new(marked.secret))
    }
}

/// Takes all secrets out of an operation's JSON.
pub(crate) fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) if fields.contains_key(MARK) => *value = Value::String("(secret)".to_owned()),
        Value::Object(fields) => fields.values_mut().for_each(redact),
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// A secret as a plain string, in an answer that is there to show it.
pub(crate) mod shown {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_it() {
        let secret = Secret::new("hunter2".to_owned());
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
        let text = serde_json::to_string(&secret).unwrap();
        assert_eq!(
            (text.as_str(), serde_json::from_str::<Secret>(&text).unwrap()),
            (r#"{"$secret":"hunter2"}"#, secret)
        );
    }

    #[test]
    fn it_is_wiped() {
        fn check(_: &impl zeroize::ZeroizeOnDrop) {}
        check(&Secret::new("hunter2".to_owned()).0);
    }
}
