//! Which operations are changes, and what the audit log says of each.

mod names;
mod who;

use std::ops::ControlFlow;

use postrider_account::{Actor, AuditEntry, AuditFilter, AuditRecord, IdentityName};
use postrider_mail::{AccountId, Domain, Selector};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::control::Deps;
use crate::{Error, Operation, Response, secret};

pub use who::user;

/// Records that are answered together.
const PAGE: usize = 200;

/// Whether it changes anything.
pub(crate) fn is_change(operation: &Operation) -> bool {
    names::is_change(operation.name())
}

/// What the log says of an operation before it is done; none for one that changes nothing,
/// and for one that has entries of its own.
pub(crate) fn entry(deps: &Deps, actor: &Actor, operation: &Operation) -> Option<AuditEntry> {
    if matches!(operation, Operation::State(_)) || !is_change(operation) {
        return None;
    }
    let mut parameters = serde_json::to_value(operation).unwrap_or_default();
    secret::redact(&mut parameters);
    let parameters = innermost(parameters);
    let previously = previously(deps, operation.name(), &parameters);
    // Some things are named without their account, as credentials are.
    let of_before = || field(previously.as_ref()?, "account");
    Some(AuditEntry {
        actor: actor.clone(),
        name: names::event_name(operation.name()),
        account: field(&parameters, "account").or_else(|| field(&parameters, "id")).or_else(of_before),
        previously,
        parameters,
    })
}

/// Sends the records that the filter lets through, the oldest first.
pub(crate) async fn list(deps: &Deps, filter: AuditFilter, answer: &mpsc::Sender<Response>) -> Result<(), Error> {
    let (audit, answer) = (deps.accounts.audit().clone(), answer.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let mut page = Vec::with_capacity(PAGE);
        let mut each = |record: AuditRecord| {
            page.push(record);
            if page.len() < PAGE {
                return ControlFlow::Continue(());
            }
            let full = std::mem::replace(&mut page, Vec::with_capacity(PAGE));
            match answer.blocking_send(Response::AuditRecords(full)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        audit.read(&filter, &mut each)?;
        // Nobody receives: the asker has gone.
        let _ = answer.blocking_send(Response::AuditRecords(page));
        Ok(())
    });
    reading.await.map_err(|error| Error::Failed(error.to_string()))?
}

/// An operation is `{kind: {verb: {parameters}}}`, or less.
fn innermost(mut value: Value) -> Value {
    for _ in 0..2 {
        let Value::Object(fields) = &mut value else { break };
        let only = if fields.len() == 1 { fields.iter_mut().next() } else { None };
        match only {
            Some((_, inner)) if inner.is_object() || inner.is_string() => value = inner.take(),
            _ => break,
        }
    }
    if value.is_object() { value } else { Value::Object(serde_json::Map::new()) }
}

fn field<T: DeserializeOwned>(parameters: &Value, name: &str) -> Option<T> {
    serde_json::from_value(parameters.get(name)?.clone()).ok()
}

/// What the operation is about, as it is now.
fn previously(deps: &Deps, operation: &str, parameters: &Value) -> Option<Value> {
    let accounts = &deps.accounts;
    let account = || field::<AccountId>(parameters, "account");
    let name = || field::<String>(parameters, "name");
    let kind = KINDS.iter().find(|kind| operation.starts_with(**kind))?;
    match *kind {
        "accounts-" => seen(accounts.tenants().made(field(parameters, "id").or_else(account)?)?.as_ref()),
        "configuration-sets-" => seen(accounts.configuration_sets().find(account()?, &name()?)?.as_ref()),
        "credentials-" => seen(&accounts.credentials().get(&field::<String>(parameters, "user_name")?)?),
        "dkim-" => {
            let (domain, selector): (Domain, Selector) = (field(parameters, "domain")?, field(parameters, "selector")?);
            let mut key = seen(accounts.dkim_keys().find(account()?, &domain, &selector)?.as_ref())?;
            // Nothing of the private half, though it is sealed.
            key.as_object_mut()?.remove("sealed");
            Some(key)
        }
        "identities-" => {
            let name = field::<IdentityName>(parameters, "name")?;
            seen(accounts.identities().find(account()?, &name)?.as_ref())
        }
        "pools-" => seen(accounts.pools().find(account()?, &name()?)?.as_ref()),
        "suppression-" => {
            let address = field(parameters, "address")?;
            seen(&accounts.suppression().get(account()?, &address).ok()??)
        }
        _ => None,
    }
}

/// What operations are about whose state before is in the log.
const KINDS: [&str; 7] =
    ["accounts-", "configuration-sets-", "credentials-", "dkim-", "identities-", "pools-", "suppression-"];

fn seen(row: &impl Serialize) -> Option<Value> {
    serde_json::to_value(row).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{DkimOperation, Secret};

    #[test]
    fn parameters_are_what_is_innermost() {
        let value = json!({ "credentials": { "disable": { "user_name": "AKIA" } } });
        assert_eq!(innermost(value), json!({ "user_name": "AKIA" }));
        assert_eq!(innermost(json!("reload")), json!({}));
        let value = json!({ "queue": { "retry": "All" } });
        assert_eq!(innermost(value), json!({}));
        let value = json!({ "queue": { "retry": { "Domain": "example.com" } } });
        assert_eq!(innermost(value), json!({ "Domain": "example.com" }));
    }

    #[test]
    fn secrets_are_redacted_wherever_they_are() {
        let operation = Operation::Dkim(DkimOperation::Import {
            account: AccountId::default(),
            domain: "example.com".parse().unwrap(),
            selector: "web".parse().unwrap(),
            key: Secret::new("hunter2".to_owned()),
            now: true,
        });
        let mut value = serde_json::to_value(&operation).unwrap();
        assert!(value.to_string().contains("hunter2"), "the daemon needs it");
        secret::redact(&mut value);
        assert!(!value.to_string().contains("hunter2"), "{value}");
        assert!(value.to_string().contains("\"selector\":\"web\""), "{value}");
    }
}
