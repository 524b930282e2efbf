//! Amazon Resource Names: how SES, its clients and its policies name what accounts own.

use std::fmt;
use std::str::FromStr;

use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};

use crate::IdentityName;

/// Longest ARN that is read, in bytes: AWS's bound.
const MAX_ARN: usize = 2_048;

/// What the resource of an identity begins with.
const IDENTITY: &str = "identity/";

/// The part of the world that an installation names its things in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// The second part of an ARN: `aws`.
    pub partition: String,
    /// The fourth part of an ARN: `us-east-1`.
    pub region: String,
}

impl Realm {
    /// The name of an identity: `arn:aws:ses:us-east-1:000000000001:identity/example.com`.
    #[must_use]
    pub fn identity(&self, account: AccountId, name: &IdentityName) -> Arn {
        self.ses(account, format_args!("{IDENTITY}{name}"))
    }

    /// The name of a configuration set.
    #[must_use]
    pub fn configuration_set(&self, account: AccountId, name: &str) -> Arn {
        self.ses(account, format_args!("configuration-set/{name}"))
    }

    /// The name of an SMTP user: `arn:aws:iam::000000000001:user/AKIA...`. It has no region.
    #[must_use]
    pub fn user(&self, account: AccountId, user_name: &str) -> Arn {
        Arn(format!("arn:{}:iam::{account}:user/{user_name}", self.partition))
    }

    /// Whose identity an ARN names, and which.
    ///
    /// # Errors
    /// [`ArnError`]: it names something else, or something elsewhere.
    pub fn identity_of(&self, arn: &Arn) -> Result<(AccountId, IdentityName), ArnError> {
        let [_, partition, service, region, account, resource] = arn.parts();
        let name = resource.strip_prefix(IDENTITY);
        let Some(name) = name.filter(|_| service == "ses") else { return Err(ArnError::NoIdentity) };
        if partition != self.partition {
            return Err(ArnError::Elsewhere("partition", self.partition.clone()));
        }
        if region != self.region {
            return Err(ArnError::Elsewhere("region", self.region.clone()));
        }
        let account = account_of(account).ok_or(ArnError::NoAccount)?;
        Ok((account, name.parse().map_err(|_| ArnError::NoIdentity)?))
    }

    fn ses(&self, account: AccountId, resource: fmt::Arguments<'_>) -> Arn {
        Arn(format!("arn:{}:ses:{}:{account}:{resource}", self.partition, self.region))
    }
}

/// A name of six parts, `arn:partition:service:region:account:resource`. The region and the
/// account can be empty; the resource can have colons. It is one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Arn(String);

/// Why a text is no ARN, or not of the sort that is asked for. Whoever wrote it puts it right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArnError {
    /// Not six parts.
    #[error("an ARN has six parts: arn:partition:service:region:account:resource")]
    Parts,
    /// An end of line, or another character that can not be printed.
    #[error("an ARN has no control characters")]
    Unprintable,
    /// Longer than names are.
    #[error("an ARN has at most {MAX_ARN} bytes")]
    TooLong,
    /// Something else's name.
    #[error("the ARN of an identity is arn:partition:ses:region:account:identity/DOMAIN-OR-ADDRESS")]
    NoIdentity,
    /// Its fifth part is no account.
    #[error("the account of an ARN has 12 digits")]
    NoAccount,
    /// The name of something in another partition or region; here it is this.
    #[error("it is of another {0}: here it is {1}")]
    Elsewhere(&'static str, String),
}

impl Arn {
    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `arn`, the partition, the service, the region, the account, the resource.
    #[must_use]
    pub fn parts(&self) -> [&str; 6] {
        six(&self.0).unwrap_or_default()
    }

    /// The account and the name of an SMTP user, when this is the ARN of one.
    #[must_use]
    pub fn user(&self) -> Option<(AccountId, &str)> {
        let [_, _, service, _, account, resource] = self.parts();
        let name = resource.strip_prefix("user/").filter(|name| service == "iam" && !name.is_empty())?;
        Some((account_of(account)?, name))
    }
}

/// An account as ARNs and policies write it: in full length.
pub(crate) fn account_of(text: &str) -> Option<AccountId> {
    text.parse().ok().filter(|_| text.len() == 12)
}

/// The six parts of a text that has so many.
pub(crate) fn six(text: &str) -> Option<[&str; 6]> {
    let mut parts = text.splitn(6, ':');
    let six = [(); 6].map(|()| parts.next().unwrap_or_default());
    (six[0] == "arn" && !six[5].is_empty()).then_some(six)
}

impl FromStr for Arn {
    type Err = ArnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_ARN {
            return Err(ArnError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(ArnError::Unprintable);
        }
        let [_, partition, service, ..] = six(text).ok_or(ArnError::Parts)?;
        if partition.is_empty() || service.is_empty() {
            return Err(ArnError::Parts);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Arn {
    type Error = ArnError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Arn> for String {
    fn from(arn: Arn) -> String {
        arn.0
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm() -> Realm {
        Realm { partition: "aws".to_owned(), region: "us-east-1".to_owned() }
    }

    fn arn(text: &str) -> Result<Arn, ArnError> {
        text.parse()
    }

    #[test]
    fn names_are_made_and_understood() {
        let account = AccountId::default();
        for name in ["example.com", "ann@example.com", "ann@[IPv6:2001:db8::1]"] {
            let name: IdentityName = name.parse().unwrap();
            let made = realm().identity(account, &name);
            assert_eq!(arn(made.as_str()), Ok(made.clone()));
            assert_eq!(realm().identity_of(&made), Ok((account, name)));
        }
        let set = realm().configuration_set(account, "news");
        assert_eq!(set.as_str(), "arn:aws:ses:us-east-1:000000000001:configuration-set/news");
        assert_eq!(realm().identity_of(&set), Err(ArnError::NoIdentity));
        let user = realm().user(account, "AKIAIOSFODNN7EXAMPLE");
        assert_eq!(user.as_str(), "arn:aws:iam::000000000001:user/AKIAIOSFODNN7EXAMPLE");
        assert_eq!(user.user(), Some((account, "AKIAIOSFODNN7EXAMPLE")));
        assert_eq!(set.user(), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("", ArnError::Parts),
            ("example.com", ArnError::Parts),
            ("arn:aws:ses:us-east-1:000000000001", ArnError::Parts),
            ("arn:aws:ses:us-east-1:000000000001:", ArnError::Parts),
            ("arn::ses:us-east-1:000000000001:identity/a", ArnError::Parts),
            ("xarn:aws:ses:us-east-1:000000000001:identity/a", ArnError::Parts),
            ("arn:aws:ses:us-east-1:000000000001:identity/a\r\nb", ArnError::Unprintable),
            (&format!("arn:aws:ses:::{}", "x".repeat(MAX_ARN)), ArnError::TooLong),
        ] {
            assert_eq!(arn(text), Err(why), "{text}");
        }
        let elsewhere = |what, here: &str| ArnError::Elsewhere(what, here.to_owned());
        for (text, why) in [
            ("arn:aws:ses:us-east-1:000000000001:identity/not a name", ArnError::NoIdentity),
            ("arn:aws:s3:us-east-1:000000000001:identity/example.com", ArnError::NoIdentity),
            ("arn:aws:ses:us-east-1:1:identity/example.com", ArnError::NoAccount),
            ("arn:aws:ses:eu-west-1:000000000001:identity/example.com", elsewhere("region", "us-east-1")),
            ("arn:aws-cn:ses:us-east-1:000000000001:identity/example.com", elsewhere("partition", "aws")),
        ] {
            assert_eq!(realm().identity_of(&arn(text).unwrap()), Err(why), "{text}");
        }
    }
}
