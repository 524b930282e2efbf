//! The states that a proof goes through: SES's, of identities and of MAIL FROM domains.

use std::time::Duration;

use postrider_account::VerificationStatus;

/// How long what is not there is looked for, as SES does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(72 * 3600);

/// What a look at the DNS found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Everything is as it should be.
    Right,
    /// Something is not, in one printable line.
    Wrong(String),
    /// The DNS did not answer, which says nothing about what is there. Why, in one
    /// printable line.
    Unknown(String),
}

impl Finding {
    /// The worst of several: what is surely wrong, then what could not be seen.
    pub(crate) fn and(self, other: Finding) -> Finding {
        match (self, other) {
            (wrong @ Finding::Wrong(_), _) | (_, wrong @ Finding::Wrong(_)) => wrong,
            (unknown @ Finding::Unknown(_), _) | (_, unknown @ Finding::Unknown(_)) => unknown,
            (Finding::Right, Finding::Right) => Finding::Right,
        }
    }

    /// What is kept of it.
    pub(crate) fn problem(&self) -> Option<String> {
        match self {
            Finding::Right => None,
            Finding::Wrong(what) | Finding::Unknown(what) => Some(what.clone()),
        }
    }
}

/// The status after a finding, of a proof that has had its status for so long.
///
/// Nothing fails because the DNS does not answer.
pub(crate) fn step(status: VerificationStatus, age: Duration, finding: &Finding) -> VerificationStatus {
    use VerificationStatus::{Failed, NotStarted, Pending, Success, TemporaryFailure};
    match (status, finding) {
        (NotStarted | Failed, _) | (_, Finding::Unknown(_)) => status,
        (Pending | Success | TemporaryFailure, Finding::Right) => Success,
        (Success, Finding::Wrong(_)) => TemporaryFailure,
        (Pending | TemporaryFailure, Finding::Wrong(_)) if age >= PATIENCE => Failed,
        (Pending | TemporaryFailure, Finding::Wrong(_)) => status,
    }
}

/// Whether it is looked at any more.
pub(crate) fn is_alive(status: VerificationStatus) -> bool {
    !matches!(status, VerificationStatus::NotStarted | VerificationStatus::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_goes_where_it_should() {
        use VerificationStatus::{Failed, NotStarted, Pending, Success, TemporaryFailure};
        let (right, wrong, unknown) = (Finding::Right, Finding::Wrong("x".into()), Finding::Unknown("x".into()));
        let (young, old) = (PATIENCE - Duration::from_secs(1), PATIENCE);
        for (status, age, finding, after) in [
            (Pending, young, &wrong, Pending),
            (Pending, old, &wrong, Failed),
            (Pending, old, &unknown, Pending),
            (Pending, old, &right, Success),
            (Success, old, &right, Success),
            (Success, young, &wrong, TemporaryFailure),
            (Success, old, &wrong, TemporaryFailure),
            (Success, old, &unknown, Success),
            (TemporaryFailure, young, &wrong, TemporaryFailure),
            (TemporaryFailure, old, &wrong, Failed),
            (TemporaryFailure, old, &unknown, TemporaryFailure),
            (TemporaryFailure, young, &right, Success),
            (Failed, young, &right, Failed),
            (NotStarted, old, &right, NotStarted),
        ] {
            assert_eq!(step(status, age, finding), after, "{status:?} {age:?} {finding:?}");
        }
    }

    #[test]
    fn what_is_surely_wrong_counts_most() {
        let (wrong, unknown) = (Finding::Wrong("w".into()), Finding::Unknown("u".into()));
        assert_eq!(unknown.clone().and(wrong.clone()), wrong);
        assert_eq!(Finding::Right.and(unknown.clone()), unknown);
        assert_eq!(Finding::Right.and(Finding::Right), Finding::Right);
        assert_eq!(wrong.problem().as_deref(), Some("w"));
    }
}
