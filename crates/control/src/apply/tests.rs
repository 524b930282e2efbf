//! The things of a file, as they are compared and shown.

use serde_json::json;

use super::*;

#[test]
fn a_thing_says_what_differs_from_the_defaults() {
    let identity: DeclaredIdentity =
        serde_json::from_value(json!({ "account": "000000000007", "name": "Example.COM", "trusted": true })).unwrap();
    let thing = Declared::Identity(identity);
    assert_eq!(thing.key().to_string(), "identity example.com of account 000000000007");
    assert_eq!(serde_json::Value::Object(thing.fields()), json!({ "trusted": true }));
}

#[test]
fn an_account_has_a_name_that_is_no_key() {
    let account: DeclaredAccount = serde_json::from_value(json!({ "name": "Acme", "daily_quota": 5 })).unwrap();
    let thing = Declared::Account(account);
    assert_eq!(serde_json::Value::Object(thing.fields()), json!({ "name": "Acme", "daily_quota": 5 }));
}

#[test]
fn unknown_fields_and_wrong_values_are_refused() {
    for wrong in [
        json!({ "identity": [{ "name": "example.com", "trust": true }] }),
        json!({ "identity": [{ "name": "not a domain" }] }),
        json!({ "identities": [] }),
        json!({ "configuration_set": [{ "name": "x", "max_lifetime": "forever" }] }),
    ] {
        assert!(serde_json::from_value::<DeclaredState>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn a_state_is_its_things() {
    let state: DeclaredState = serde_json::from_value(json!({
        "policy": [{ "user": "AKIAIOSFODNN7EXAMPLE", "name": "p", "document": "{}" }],
        "account": [{ "id": "000000000002" }],
        "pool": [{ "name": "bulk", "sources": { "a": 1 } }],
    }))
    .unwrap();
    let things = state.clone().into_things();
    let kinds: Vec<_> = things.iter().map(|thing| thing.key().kind).collect();
    assert_eq!(kinds, [DeclaredKind::Account, DeclaredKind::Pool, DeclaredKind::Policy]);
    assert_eq!(DeclaredState::of(things), state);
}
