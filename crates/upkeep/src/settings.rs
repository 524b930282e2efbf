//! What the operator chooses about identities and MAIL FROM domains.

use postrider_base::Period;
use postrider_mail::{Domain, EmailAddress};
use serde::{Deserialize, Serialize};

/// How identities and MAIL FROM domains are looked after.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Who is mailed when the state of an identity or of a MAIL FROM domain changes.
    /// Without it, changes are logged alone.
    pub operator_address: Option<EmailAddress>,
    /// What links that prove an address begin with: where the world reaches the path
    /// `/verify` of the HTTP service, such as `https://relay.example.com`. Without it, an
    /// address can not be verified by a link.
    pub link_url: Option<String>,
    /// The host that the MX record of each MAIL FROM domain must name: where the feedback
    /// listener is reached. Without it, the relay's host name.
    pub bounce_host: Option<String>,
    /// How often the DNS is asked for what is not there yet, or not any more.
    pub pending_interval: Period,
    /// How often the DNS is asked for what is there.
    pub recheck_interval: Period,
    /// Most of them that are looked at at the same time.
    pub lookups: usize,
    /// Most mails to the operator in an hour; further changes are logged alone.
    pub notices_per_hour: u32,
}

/// Between these, a relay neither floods its name servers nor sleeps over a change.
const INTERVALS: (Period, Period) = (Period::from_secs(10), Period::from_days(2));

impl Default for Settings {
    fn default() -> Self {
        Self {
            operator_address: None,
            link_url: None,
            bounce_host: None,
            pending_interval: Period::from_mins(5),
            recheck_interval: Period::from_hours(6),
            lookups: 8,
            notices_per_hour: 20,
        }
    }
}

impl Settings {
    /// The host that takes bounces, where the relay has this host name.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn bounce_host(&self, hostname: &str) -> Result<Domain, String> {
        let name = self.bounce_host.as_deref().unwrap_or(hostname);
        name.parse().map_err(|error| format!("bounce_host: {name:?} is no host name: {error}"))
    }

    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        self.bounce_host("localhost")?;
        if let Some(url) = &self.link_url {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
            let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'<' | b'>' | b'"');
            if rest.is_empty() || url.len() > 200 || !rest.bytes().all(is_plain) {
                return Err(format!("link_url: expected an address such as https://relay.example.com, found {url:?}"));
            }
        }
        let (shortest, longest) = INTERVALS;
        for (key, interval) in
            [("pending_interval", self.pending_interval), ("recheck_interval", self.recheck_interval)]
        {
            if interval < shortest || interval > longest {
                return Err(format!("{key}: must be 10s to 2d"));
            }
        }
        if !(1..=1000).contains(&self.lookups) {
            return Err("lookups: must be 1 to 1000".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_refused_by_name() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().unwrap_err()
        };
        assert_eq!(Settings::default().validate(), Ok(()));
        assert!(with(|s| s.bounce_host = Some("a b".into())).starts_with("bounce_host: "));
        assert!(with(|s| s.pending_interval = Period::from_secs(9)).starts_with("pending_interval: "));
        assert!(with(|s| s.recheck_interval = Period::from_days(3)).starts_with("recheck_interval: "));
        assert!(with(|s| s.lookups = 0).starts_with("lookups: "));
        for url in ["relay.example.com", "https://", "https://a b", "https://a/?x", "https://a\r\nb", "ftp://a"] {
            let settings = Settings { link_url: Some(url.into()), ..Settings::default() };
            assert!(settings.validate().unwrap_err().starts_with("link_url: "), "{url}");
        }
        let settings = Settings { link_url: Some("https://relay.example.com/mail".into()), ..Settings::default() };
        assert_eq!(settings.validate(), Ok(()));
    }

    #[test]
    fn the_host_for_bounces_falls_back_to_the_relay() {
        let settings = Settings::default();
        assert_eq!(settings.bounce_host("MX.example.net").unwrap().as_str(), "mx.example.net");
        let own = Settings { bounce_host: Some("feedback.example.net".into()), ..settings };
        assert_eq!(own.bounce_host("mx.example.net").unwrap().as_str(), "feedback.example.net");
    }
}
