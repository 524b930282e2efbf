//! The format of `shaping.toml`, as people write it.

use std::collections::BTreeMap;
use std::ops::Range;

use postrider_base::Period;
use serde::Deserialize;

use super::rate::Rate;
use crate::lane::Demand;

/// What stands in one file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    /// For every site that is found by DNS.
    pub(super) default: Limits,
    /// By name.
    pub(super) provider: BTreeMap<String, Provider>,
    /// By site, or by one of its hosts.
    pub(super) site: BTreeMap<String, Limits>,
    /// By recipient domain.
    pub(super) domain: BTreeMap<String, Limits>,
    /// In the order in which they are tried.
    pub(super) feedback: Vec<Feedback>,
}

/// Whom many domains gave their mail to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Provider {
    /// Ends of the names of its hosts.
    pub(super) mx: Option<Vec<String>>,
    /// Connections to all of its sites together.
    pub(super) connections: Option<usize>,
    /// Messages to all of its sites together.
    pub(super) rate: Option<Rate>,
    /// For each of its sites.
    pub(super) site: Limits,
}

/// What one site takes. What is left out is as the more general entry says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) connections: Option<usize>,
    pub(super) initial_connections: Option<usize>,
    pub(super) messages_per_connection: Option<u32>,
    pub(super) rate: Option<Rate>,
    pub(super) recipients_per_transaction: Option<usize>,
    pub(super) retry: Option<Vec<Period>>,
    pub(super) tls: Option<TlsMinimum>,
}

/// The least that a session must have of TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsMinimum {
    /// None: TLS where it can be had.
    #[default]
    Opportunistic,
    /// Encryption, whoever the host is.
    Encrypted,
    /// Encryption, and a host that has proved its name.
    Authenticated,
}

impl TlsMinimum {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Opportunistic => "opportunistic",
            Self::Encrypted => "encrypted",
            Self::Authenticated => "authenticated",
        }
    }

    /// What it asks of the session, as a sender would.
    pub(crate) fn demand(self) -> Demand {
        match self {
            Self::Opportunistic => Demand::Opportunistic,
            Self::Encrypted => Demand::Encrypted,
            Self::Authenticated => Demand::Verified,
        }
    }
}

/// What follows from a reply.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Feedback {
    /// What it is called; a rule of the operator replaces the built-in one of
    /// the same name.
    pub(super) name: String,
    /// Only from hosts of this provider.
    pub(super) provider: Option<String>,
    /// Only at these stages.
    pub(super) stages: Vec<StageName>,
    /// Only with one of these reply codes.
    pub(super) codes: Vec<u16>,
    /// Only with one of these enhanced codes.
    pub(super) enhanced: Vec<String>,
    /// Only with one of these texts.
    pub(super) text: Vec<String>,
    pub(super) action: Option<ActionName>,
    /// Whom the action is about.
    pub(super) about: About,
    /// How long.
    pub(super) r#for: Option<Period>,
    /// As which bounce.
    pub(super) bounce: Option<String>,
    /// The reply that it was made for.
    pub(super) example: String,
}

/// Stages of a session, as people write them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StageName {
    Banner,
    Ehlo,
    Starttls,
    Auth,
    Mail,
    Rcpt,
    Data,
    EndOfData,
}

/// Whom a rule's action is about.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum About {
    /// The site that has spoken.
    #[default]
    Site,
    /// All sites of its provider.
    Provider,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ActionName {
    /// Nothing: a rule that stands before others.
    Ignore,
    Slow,
    PauseSource,
    PauseSigningDomain,
    BlockSource,
    Bounce,
}

impl File {
    /// Reads a file. The error names the line, the entry and the key, and says
    /// what was expected.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let message = error.message().replace('\n', " ");
            match error.span() {
                Some(span) => format!("{}: {message}", place(text, &span)),
                None => message,
            }
        })
    }
}

/// `line 7, [provider.google], key rate` for a part of a file.
fn place(text: &str, span: &Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let number = before.matches('\n').count();
    let lines: Vec<&str> = text.lines().collect();
    let line = lines.get(number).copied().unwrap_or_default().trim();
    let header = lines.iter().take(number + 1).rev().find(|line| line.trim_start().starts_with('['));
    let mut place = format!("line {}", number + 1);
    if let Some(header) = header {
        place += &format!(", {}", header.split('#').next().unwrap_or_default().trim());
    }
    if let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('[')) {
        place += &format!(", key {}", key.trim());
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_left_open() {
        let file = File::parse("[provider.x]\nmx = ['.x.example']\n[provider.x.site]\nrate = '5/m'").unwrap();
        let provider = &file.provider["x"];
        assert_eq!((provider.connections, provider.rate), (None, None));
        assert_eq!(provider.site.rate.unwrap().to_string(), "5/m");
        assert!(File::parse("").unwrap().feedback.is_empty());
    }

    #[test]
    fn errors_name_line_entry_and_key_and_what_was_expected() {
        for (text, expected) in [
            ("[default]\nconnection = 5", &["line 2, [default], key connection", "connections"][..]),
            ("[provider.x]\nrate = '5 per hour'", &["line 2, [provider.x], key rate", "such as"]),
            ("[provider.x.site]\n\nconnections = 'many'", &["line 3, [provider.x.site], key connections", "usize"]),
            ("[site.'a b']\ntls = 'always'", &["line 2, [site.'a b'], key tls", "opportunistic"]),
            ("[site.a]\nretry = ['2 minutes']", &["line 2, [site.a], key retry", "such as \"90s\""]),
            ("[[feedback]]\nname = 'x'\naction = 'flee'", &["line 3, [[feedback]], key action", "pause-source"]),
            ("[[feedback]]\nstages = ['hello']", &["line 2, [[feedback]], key stages", "end-of-data"]),
            ("[sites.a]", &["line 1", "unknown field `sites`", "site"]),
            ("[default", &["line 1"]),
        ] {
            let error = File::parse(text).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{error} should contain {part}");
            }
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
