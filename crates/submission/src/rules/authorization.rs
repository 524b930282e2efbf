//! What policies say: those of the credential, and those of the identities that the message is
//! sent from. Identities of other accounts must be named by their ARNs, and must allow it.

use postrider_account::{
    Accounts, Arn, ArnError, PolicyDecision, Realm, SenderRole, SendingRequest, UsedAddress, UsedIdentity,
};
use postrider_mail::EmailAddress;

use super::Submitted;
use crate::Refusal;
use crate::header::Senders;

/// The identities that a message names by their ARNs.
#[derive(Debug, Default)]
pub(super) struct Named {
    source: Option<NamedArn>,
    from: Option<NamedArn>,
    return_path: Option<NamedArn>,
}

/// An ARN, and the field that it stands in.
#[derive(Clone, Debug)]
pub(super) struct NamedArn {
    field: &'static str,
    arn: Arn,
}

impl Named {
    /// The one of the source stands for those that are not given.
    ///
    /// # Errors
    /// [`Refusal::InvalidArn`]: one that can not be read.
    pub(super) fn read(senders: &Senders) -> Result<Self, Refusal> {
        let read = |field, text: &Option<String>| match text.as_ref().map(|text| text.trim().parse()) {
            Some(Ok(arn)) => Ok(Some(NamedArn { field, arn })),
            Some(Err(error)) => Err(invalid(field, &error)),
            None => Ok(None),
        };
        let source = read("X-SES-SOURCE-ARN", &senders.source_arn)?;
        Ok(Self {
            from: read("X-SES-FROM-ARN", &senders.from_arn)?.or_else(|| source.clone()),
            return_path: read("X-SES-RETURN-PATH-ARN", &senders.return_path_arn)?.or_else(|| source.clone()),
            source,
        })
    }

    /// The ARN for an address of this role. Nothing names that of the Sender field.
    pub(super) fn of(&self, role: SenderRole) -> Option<&NamedArn> {
        match role {
            SenderRole::Source => self.source.as_ref(),
            SenderRole::From => self.from.as_ref(),
            SenderRole::ReturnPath => self.return_path.as_ref(),
            SenderRole::Sender => None,
        }
    }
}

/// The identity that an ARN names, of whichever account, for mail from this address.
///
/// # Errors
/// [`Refusal::InvalidArn`]: the ARN of something else, or of something elsewhere;
/// [`Refusal::AccessDenied`]: there is no such identity, or it does not cover the address; the
/// reply does not tell which.
pub(super) fn named_identity(
    submitted: &Submitted<'_>,
    accounts: &Accounts,
    realm: &Realm,
    named: &NamedArn,
    address: &EmailAddress,
) -> Result<UsedIdentity, Refusal> {
    let NamedArn { field, arn } = named;
    let (account, name) = realm.identity_of(arn).map_err(|error| invalid(field, &error))?;
    let resource = realm.identity(account, &name);
    let found = UsedIdentity::named(accounts.identities(), account, name, address);
    found.ok_or_else(|| denied(submitted, realm, &resource))
}

/// Whether the credential may send the message, by its own policies and by those of all
/// identities that it uses.
///
/// # Errors
/// [`Refusal::AccessDenied`].
pub(super) fn credential_may(
    submitted: &Submitted<'_>,
    accounts: &Accounts,
    realm: &Realm,
    used: &[UsedAddress<'_>],
) -> Result<(), Refusal> {
    let mut request = SendingRequest {
        account: submitted.account,
        user_name: submitted.credential,
        realm,
        used,
        recipients: &[],
        source_ip: submitted.client_ip,
        is_secure: submitted.has_tls,
        now: submitted.now,
    };
    if request.needs_no_policy(accounts.policies()) {
        return Ok(());
    }
    let recipients: Vec<_> = submitted.envelope.recipients.iter().map(|recipient| &recipient.address).collect();
    request.recipients = &recipients;
    let decisions = request.decisions(accounts.policies());
    match decisions.iter().find(|decision| !decision.is_allowed()) {
        Some(decision) => Err(denied(submitted, realm, &decision.resource)),
        None => Ok(()),
    }
}

fn invalid(field: &'static str, error: &ArnError) -> Refusal {
    Refusal::InvalidArn(format!("{field}: {error}"))
}

fn denied(submitted: &Submitted<'_>, realm: &Realm, resource: &Arn) -> Refusal {
    Refusal::AccessDenied(PolicyDecision::denial(&realm.user(submitted.account, submitted.credential), resource))
}
