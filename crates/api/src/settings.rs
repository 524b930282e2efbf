//! Where HTTP is served.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where metrics and health are served over HTTP.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address and port, or `"off"`. Who can reach it can read it: there is
    /// no authentication.
    #[serde(with = "address_or_off")]
    pub listen: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9125))) }
    }
}

impl Settings {
    /// Checks what the types can not; the error names the key.
    ///
    /// # Errors
    /// None as yet: every address can be listened on.
    pub fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

mod address_or_off {
    use std::net::SocketAddr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    const OFF: &str = "off";

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(listen: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match listen {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(OFF),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == OFF {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            let expected = r#"expected an address and port such as "127.0.0.1:9125", or "off""#;
            D::Error::custom(format!("{expected}, got {text:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_address_off_and_nothing_else() {
        for text in [r#"{"listen":"[::1]:80"}"#, r#"{"listen":"off"}"#] {
            let settings: Settings = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&settings).unwrap(), text);
        }
        assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
        for bad in [r#"{"listen":"localhost"}"#, r#"{"listen":80}"#, r#"{"port":80}"#] {
            assert!(serde_json::from_str::<Settings>(bad).is_err(), "{bad}");
        }
    }
}
