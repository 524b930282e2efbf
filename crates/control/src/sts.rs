//! Policies of recipient domains (MTA-STS).

use postrider_delivery::Delivery;

use crate::{Error, PolicyView, Response, StsOperation};

pub(crate) fn execute(delivery: &Delivery, operation: StsOperation) -> Result<Response, Error> {
    let StsOperation::Show { domain } = operation;
    let kept = delivery.policy(&domain).map_err(|error| Error::Failed(error.to_string()))?;
    let kept = kept.ok_or_else(|| Error::NotFound(format!("no MTA-STS policy of {domain} is kept")))?;
    Ok(Response::Policy(PolicyView {
        domain: domain.to_string(),
        mode: kept.policy.mode.as_str().to_owned(),
        mx: kept.policy.mx.iter().map(ToString::to_string).collect(),
        id: kept.id,
        fetched: kept.fetched_at,
        expires: kept.expires_at,
    }))
}
