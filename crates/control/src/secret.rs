//! A string that keeps itself out of logs.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// A secret on its way between the command line and the daemon; `Debug` does not show it, and
/// it is wiped from memory when it is dropped.
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
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
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
        assert_eq!((text.as_str(), serde_json::from_str::<Secret>(&text).unwrap()), ("\"hunter2\"", secret));
    }

    #[test]
    fn it_is_wiped() {
        fn check(_: &impl zeroize::ZeroizeOnDrop) {}
        check(&Secret::new("hunter2".to_owned()).0);
    }
}
