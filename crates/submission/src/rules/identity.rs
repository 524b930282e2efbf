//! Whether the addresses that a message is sent as are the account's, and proved to be.

use postrider_account::{SenderRole, UsedAddress, UsedIdentity};
use postrider_mail::EmailAddress;

use super::authorization::{Named, named_identity};
use super::{Decision, Rules, Submitted, sandbox};
use crate::{Refusal, UnverifiedSenders};

/// The envelope's sender, every address in From, and those in Sender and Return-Path: each must
/// belong to a verified identity of the account, or to another account's that an X-SES-*-ARN
/// field names. The null sender has no address: then the header decides alone.
///
/// What the most specific identity of an address says is taken; that a domain is verified is
/// enough for all below it, and a `+label` is nobody of its own. The local part of an address
/// identity has case, as in SES; domains have none.
///
/// Where some are refused, so are the recipients that the sandbox refuses, in the same reply.
pub(super) fn may_be_used<'a>(
    rules: &Rules,
    submitted: &Submitted<'a>,
    decision: &mut Decision<'a>,
) -> Result<(), Refusal> {
    let named = Named::read(submitted.senders)?;
    let must_be_verified = rules.unverified_senders == UnverifiedSenders::Reject;
    if must_be_verified && submitted.senders.from.is_empty() {
        return Err(Refusal::MissingHeader("From"));
    }
    let mut refused: Vec<String> = Vec::new();
    for (address, name, role) in senders(submitted) {
        let identity = match named.of(role) {
            Some(named) => Some(named_identity(submitted, &rules.accounts, &rules.realm, named, address)?),
            None => unnamed(rules, submitted, decision, address, role),
        };
        if role == SenderRole::From && !decision.used.iter().any(|used| used.role == SenderRole::From) {
            has_author(submitted, decision, identity.as_ref());
        }
        let is_verified = identity.as_ref().is_some_and(|identity| identity.resolved.is_verified());
        if must_be_verified && !is_verified && !refused.iter().any(|other| other == address.as_str()) {
            refused.push(address.to_string());
        }
        decision.used.push(UsedAddress { address, name, role, identity });
    }
    if refused.is_empty() {
        return Ok(());
    }
    let recipients = sandbox::unverified(rules, submitted, decision);
    let recipients: Vec<_> = recipients.into_iter().filter(|recipient| !refused.contains(recipient)).collect();
    refused.extend(recipients);
    Err(Refusal::NotVerified { identities: refused, region: rules.realm.region.clone() })
}

/// In the order in which a refusal names them, with the names of authors.
fn senders<'a>(submitted: &Submitted<'a>) -> impl Iterator<Item = (&'a EmailAddress, Option<&'a str>, SenderRole)> {
    let envelope = submitted.envelope.sender.iter().map(|address| (address, None, SenderRole::Source));
    let from = submitted.senders.from.iter();
    let from = from.map(|author| (&author.address, author.name.as_deref(), SenderRole::From));
    let sender = submitted.senders.sender.iter().map(|address| (address, None, SenderRole::Sender));
    let return_path = submitted.senders.return_path.iter().map(|address| (address, None, SenderRole::ReturnPath));
    envelope.chain(from).chain(sender).chain(return_path)
}

/// The author's identity decides more than whether it may be used, where it is the account's
/// own; another's only signs.
fn has_author(submitted: &Submitted<'_>, decision: &mut Decision<'_>, identity: Option<&UsedIdentity>) {
    let Some(UsedIdentity { owner, resolved, .. }) = identity else { return };
    if *owner == submitted.account {
        decision.resolved = Some(resolved.clone());
    } else {
        decision.signer = Some(*owner);
    }
}

/// The account's own identity of an address, which mostly has been looked for already, in
/// another place of the message. No ARN is for the Sender field: it goes with the others.
fn unnamed(
    rules: &Rules,
    submitted: &Submitted<'_>,
    decision: &Decision<'_>,
    address: &EmailAddress,
    role: SenderRole,
) -> Option<UsedIdentity> {
    let owner = submitted.account;
    let same = decision.used.iter().filter(|used| used.address == address).filter_map(|used| used.identity.as_ref());
    let mut usable = same.filter(|identity| role == SenderRole::Sender || identity.owner == owner);
    if let Some(identity) = usable.next() {
        return Some(identity.clone());
    }
    let resolved = rules.accounts.identities().resolve(owner, address)?;
    Some(UsedIdentity { owner, resolved, named: None })
}
