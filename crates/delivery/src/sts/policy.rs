//! Policies (RFC 8461 section 3.2) and the records that announce them (section
//! 3.1), as strangers write them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest policy that is read. RFC 8461 section 3.2 suggests this bound.
pub const MAX_POLICY_BYTES: usize = 64 * 1024;

/// The most host patterns of a policy. No domain has more mail hosts.
const MAX_PATTERNS: usize = 200;

/// The longest life of a policy (RFC 8461 section 3.2): about a year.
const MAX_AGE: u32 = 31_557_600;

/// What a domain asks of those who send mail to it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Policy {
    /// How much it asks.
    pub mode: Mode,
    /// Seconds for which the policy may be kept; at most 31,557,600.
    pub max_age: u32,
    /// Which names the domain's mail hosts have.
    pub mx: Vec<Pattern>,
}

/// How much a policy asks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Mail goes to hosts of the policy that prove their names, or nowhere.
    Enforce,
    /// Failures are reported and nothing more.
    Testing,
    /// Nothing: the domain takes its policy back.
    None,
}

impl Mode {
    /// As policies spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }
}

/// A mail host's name, lower case, or `*.` and a domain, for one label more.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pattern(Box<str>);

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        is_name(name).then(|| Self(text.into()))
    }

    /// Whether this host is meant (RFC 8461 section 4.1): `*` stands for one
    /// whole label, the first.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self.0.strip_prefix("*.") {
            Some(domain) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain))
            }
            None => host.eq_ignore_ascii_case(&self.0),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a policy. The domain's fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// More than [`MAX_POLICY_BYTES`].
    #[error("longer than 64 KiB")]
    TooLong,
    /// Not UTF-8, or a line without a colon.
    #[error("not lines of keys and values")]
    Syntax,
    /// None, or one that is not `STSv1`.
    #[error("not of version STSv1")]
    Version,
    /// None, or one that is not known.
    #[error("no known mode")]
    Mode,
    /// None, or no number.
    #[error("no max_age")]
    MaxAge,
    /// None where one is needed, a malformed one, or too many.
    #[error("no usable mx patterns")]
    Mx,
}

impl Policy {
    /// Reads a policy file. Lines end with LF or CRLF; unknown keys are ignored,
    /// and of keys that are given twice the first counts (RFC 8461 section 3.2).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(file: &[u8]) -> Result<Self, PolicyError> {
        if file.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLong);
        }
        let file = std::str::from_utf8(file).map_err(|_| PolicyError::Syntax)?;
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut mx = Vec::new();
        for line in file.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once(':').ok_or(PolicyError::Syntax)?;
            let value = value.trim();
            match key.trim_end() {
                "version" => drop(version.get_or_insert(value)),
                "mode" => drop(mode.get_or_insert(value)),
                "max_age" => drop(max_age.get_or_insert(value)),
                "mx" if mx.len() == MAX_PATTERNS => return Err(PolicyError::Mx),
                "mx" => mx.push(Pattern::parse(value).ok_or(PolicyError::Mx)?),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(PolicyError::Version);
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(PolicyError::Mode),
        };
        let max_age = max_age.and_then(seconds).ok_or(PolicyError::MaxAge)?;
        if mx.is_empty() && mode != Mode::None {
            return Err(PolicyError::Mx);
        }
        Ok(Self { mode, max_age, mx })
    }

    /// Whether the domain's mail hosts have such names.
    pub fn allows(&self, host: &str) -> bool {
        self.mx.iter().any(|pattern| pattern.matches(host))
    }

    /// For how long it may be kept.
    pub fn life(&self) -> Duration {
        Duration::from_secs(self.max_age.into())
    }

    /// The policy as the lines of a file, for reports (RFC 8460 section 4.4).
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {}", self.mode.as_str())];
        lines.extend(self.mx.iter().map(|pattern| format!("mx: {pattern}")));
        lines.push(format!("max_age: {}", self.max_age));
        lines
    }
}

/// One to ten digits.
fn seconds(text: &str) -> Option<u32> {
    let is_number = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = is_number.then(|| text.parse().ok()).flatten()?;
    u32::try_from(number.min(MAX_AGE.into())).ok()
}

/// RFC 5321 section 4.1.2: what may stand in an MX record.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && allowed && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 255 && name.split('.').all(is_label)
}

/// The id of the policy that the TXT records of `_mta-sts.DOMAIN` announce.
/// `None` without a record, with several, and with a broken one: then there is
/// no policy to look for (RFC 8461 section 3.1).
pub fn policy_id(records: &[String]) -> Option<String> {
    let mut candidates = records.iter().filter_map(|record| record.strip_prefix("v=STSv1")).filter(|rest| {
        let rest = rest.trim_start_matches([' ', '\t']);
        rest.starts_with(';')
    });
    let (Some(fields), None) = (candidates.next(), candidates.next()) else { return None };
    let pairs = fields.split(';').filter_map(|field| field.trim_matches([' ', '\t']).split_once('='));
    let (_, id) = pairs.into_iter().find(|(key, _)| *key == "id")?;
    let is_id = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 8461 section 3.2
    const EXAMPLE: &str = "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\n\
                           mx: backupmx.example.com\nmax_age: 604800\n";

    fn id(records: &[&str]) -> Option<String> {
        policy_id(&records.iter().map(|record| (*record).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_policy_of_the_rfc_in_both_line_ends() {
        let policy = Policy::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((policy.mode, policy.max_age, policy.mx.len()), (Mode::Enforce, 604_800, 3));
        assert_eq!(Policy::parse(EXAMPLE.replace('\n', "\r\n").as_bytes()), Ok(policy.clone()));
        assert_eq!(Policy::parse(policy.lines().join("\n").as_bytes()), Ok(policy));
    }

    #[test]
    fn a_star_is_one_label_and_the_first() {
        let policy = Policy::parse(EXAMPLE.as_bytes()).unwrap();
        for host in ["mail.example.com", "MAIL.example.com.", "a.example.net", "backupmx.example.com"] {
            assert!(policy.allows(host), "{host}");
        }
        for host in ["example.net", "a.b.example.net", ".example.net", "xmail.example.com", "mail.example.com.evil", ""]
        {
            assert!(!policy.allows(host), "{host}");
        }
    }

    #[test]
    fn the_first_of_a_key_counts_and_unknown_keys_do_not() {
        let file = "version: STSv1\r\nmode: testing\r\nmode: enforce\r\nmx:mx.example\r\nx-new: a: b\r\n\r\nmax_age:9999999999";
        let policy = Policy::parse(file.as_bytes()).unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Testing, MAX_AGE));
        let none = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 0").unwrap();
        assert_eq!((none.mode, none.life()), (Mode::None, Duration::ZERO));
    }

    #[test]
    fn what_is_no_policy_is_named() {
        let spoiled = |from: &str, to: &str| Policy::parse(EXAMPLE.replace(from, to).as_bytes());
        for (from, to, error) in [
            ("STSv1", "STSv2", PolicyError::Version),
            ("version: STSv1\n", "", PolicyError::Version),
            ("enforce", "ENFORCE", PolicyError::Mode),
            ("mode: enforce\n", "", PolicyError::Mode),
            ("604800", "-1", PolicyError::MaxAge),
            ("604800", "", PolicyError::MaxAge),
            ("604800", "99999999999", PolicyError::MaxAge),
            ("mail.example.com", "*.*.example.com", PolicyError::Mx),
            ("mail.example.com", "mail..example.com", PolicyError::Mx),
            ("mail.example.com", "a*.example.com", PolicyError::Mx),
            ("mail.example.com", "b\u{fc}cher.example", PolicyError::Mx),
            ("mode:", "mode", PolicyError::Syntax),
        ] {
            assert_eq!(spoiled(from, to), Err(error), "{from} as {to}");
        }
        assert_eq!(Policy::parse(b""), Err(PolicyError::Version));
        assert_eq!(Policy::parse(b"<html>\xff"), Err(PolicyError::Syntax));
        assert_eq!(Policy::parse(b"version: STSv1\nmode: testing\nmax_age: 1"), Err(PolicyError::Mx));
        let many = format!("{EXAMPLE}{}", "mx: a.example\n".repeat(MAX_PATTERNS));
        assert_eq!(Policy::parse(many.as_bytes()), Err(PolicyError::Mx));
        let long = format!("{EXAMPLE}{}", "x: y\n".repeat(MAX_POLICY_BYTES / 5));
        assert_eq!(Policy::parse(long.as_bytes()), Err(PolicyError::TooLong));
    }

    #[test]
    fn a_record_announces_one_policy() {
        assert_eq!(id(&["v=STSv1; id=20160831085700Z;"]).as_deref(), Some("20160831085700Z"));
        assert_eq!(id(&["v=spf1 -all", "v=STSv1;id=1", "v=STSv10; id=2"]).as_deref(), Some("1"));
        assert_eq!(id(&["v=STSv1 ; x=y ; id=a ; id=b"]).as_deref(), Some("a"));
    }

    #[test]
    fn records_that_announce_none() {
        let long = format!("v=STSv1; id={}", "1".repeat(33));
        for records in [
            &[][..],
            &["v=STSv1; id=1", "v=STSv1; id=2"],
            &["v=STSv1"],
            &["v=STSv1;"],
            &["v=STSv1; id="],
            &["v=STSv1; id=a-b"],
            &["v=STSv1; ID=1"],
            &["id=1; v=STSv1"],
            &[" v=STSv1; id=1"],
            &[&long],
        ] {
            assert_eq!(id(records), None, "{records:?}");
        }
    }

    proptest! {
        #[test]
        fn no_file_breaks_the_reader(file in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Policy::parse(&file);
        }

        #[test]
        fn what_is_read_is_written_the_same(
            lines in proptest::collection::vec("(version: STSv1|mode: (enforce|none)|max_age: [0-9]{1,11}|mx: [a-z*.-]{1,12}|[ -~]{0,9})", 0..9),
        ) {
            if let Ok(policy) = Policy::parse(lines.join("\n").as_bytes()) {
                prop_assert_eq!(Policy::parse(policy.lines().join("\r\n").as_bytes()), Ok(policy));
            }
        }

        #[test]
        fn no_record_breaks_the_reader(record in "v=STSv1[ ;=a-z0-9é]{0,40}") {
            let _ = policy_id(&[record]);
        }
    }
}
