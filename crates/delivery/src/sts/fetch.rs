//! Fetching a policy (RFC 8461 section 3.3).

use postrider_mail::Domain;

use crate::https::{Https, HttpsError, Url};
use crate::sts::policy::{MAX_POLICY_BYTES, Policy, PolicyError};

/// Why there is no policy. The domain's fault, most often.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum FetchError {
    /// The policy host gives none.
    #[error("{0}")]
    Https(#[from] HttpsError),
    /// It replied with something else than 200, redirects included.
    #[error("HTTP status {0}")]
    Status(u16),
    /// What it gives is no plain text.
    #[error("not of type text/plain")]
    MediaType,
    /// There are no authorities to check its certificate with: the operator's
    /// fault.
    #[error("no certificate authorities to check the policy host with")]
    NoAuthorities,
    /// What it gives is no policy.
    #[error("{0}")]
    Invalid(#[from] PolicyError),
}

/// Where a domain's policy is.
pub(crate) fn policy_url(domain: &Domain) -> Url {
    Url { host: format!("mta-sts.{domain}"), port: 443, path: "/.well-known/mta-sts.txt".to_owned() }
}

/// The policy of `domain`, as its policy host says at this moment.
pub(crate) async fn fetch(https: &Https<'_>, domain: &Domain) -> Result<Policy, FetchError> {
    let response = https.get(&policy_url(domain), MAX_POLICY_BYTES).await.map_err(|error| match error {
        HttpsError::TooLong => FetchError::Invalid(PolicyError::TooLong),
        error => FetchError::Https(error),
    })?;
    if response.status != 200 {
        return Err(FetchError::Status(response.status));
    }
    if response.media_type != "text/plain" {
        return Err(FetchError::MediaType);
    }
    Ok(Policy::parse(&response.body)?)
}
