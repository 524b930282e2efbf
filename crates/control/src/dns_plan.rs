//! What a domain should publish.

use postrider_account::{DkimKey, IdentityName, KeyState};
use postrider_mail::{AccountId, Domain, EmailAddress};
use postrider_mailauth::records::{PlanInput, PlannedKey, plan};
use serde::{Deserialize, Serialize};

use crate::control::Deps;
use crate::{Error, Response};

/// What is to be planned.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DnsPlanRequest {
    /// Whose identity it is.
    pub account: AccountId,
    /// The domain that mail is sent from.
    pub domain: Domain,
    /// Compare each record with the DNS.
    pub check: bool,
    /// Who reads the DMARC reports.
    pub dmarc_reports: Option<EmailAddress>,
    /// Who reads the reports on TLS.
    pub tls_reports: Option<EmailAddress>,
}

pub(crate) async fn execute(deps: &Deps, request: DnsPlanRequest) -> Result<Response, Error> {
    let DnsPlanRequest { account, domain, check, dmarc_reports, tls_reports } = request;
    let identity = deps.accounts.identities().find(account, &IdentityName::Domain(domain.clone()));
    let keys = deps.ring.table().of_domain(account, &domain);
    let mut plan = plan(&PlanInput {
        keys: keys.iter().map(|key| planned(deps, key)).collect(),
        mail_from: identity.as_ref().and_then(|identity| Some(identity.mail_from.as_ref()?.domain.clone())),
        return_path: deps.return_path_domain()?,
        bounce_host: deps.bounce_host()?,
        operator_domain: deps.world.operator_domain.clone(),
        sources: deps.planned_sources(),
        domain: domain.clone(),
        dmarc_reports,
        tls_reports,
    });
    if identity.is_none() {
        plan.notes
            .push(format!("{domain} is no identity of account {account}: `postrider identities create {domain}`"));
    }
    if check {
        plan.check(deps.world.resolver()?).await;
    }
    Ok(Response::DnsPlan(Box::new(plan)))
}

pub(crate) fn planned(deps: &Deps, key: &DkimKey) -> PlannedKey {
    let why = match key.state {
        KeyState::Current => format!("the key that signs ({})", key.algorithm),
        KeyState::Next if key.replaces.is_some() => {
            "a key that will sign: put it in the place of the old one there, which nobody needs any more".to_owned()
        }
        KeyState::Next => "a key that will sign: once its record is seen it can take over without a gap".to_owned(),
        KeyState::Retired => {
            let until = deps.ring.published_until(key).map_or_else(String::new, |at| at.rfc3339());
            format!("a key that signed: mail may be under way until {until}")
        }
    };
    PlannedKey { selector: key.selector.to_string(), record: key.public.clone(), replaces: key.replaces.clone(), why }
}
