//! What becomes of policies when their owner goes.

use postrider_mail::AccountId;

use super::PolicyOwner;
use crate::policy::kept_tests::World;
use crate::{Accounts, Identity, IdentityName, Realm};

/// As a crash between the two leaves it.
#[tokio::test]
async fn policies_do_not_outlive_their_owner() {
    let world = World::new();
    let accounts = world.open();
    let account = AccountId::default();
    let realm = Realm { partition: "aws".to_owned(), region: "us-east-1".to_owned() };
    let name: IdentityName = "example.com".parse().unwrap();
    let owner = PolicyOwner::Identity(account, name.clone());
    let text = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"ses:SendRawEmail",
        "Resource":"arn:aws:ses:us-east-1:000000000001:identity/example.com"}}"#;
    let left = async |accounts: &Accounts| {
        accounts.identities().create(Identity::new(account, name.clone())).await.unwrap();
        accounts.policies().put(&owner, "partner", text, &realm).await.unwrap();
        accounts.policies().forget_remains(&owner).await.unwrap();
        assert!(accounts.policies().of(&owner).is_some(), "its owner is there");
        accounts.identities().delete(account, &name).await.unwrap();
    };
    left(&accounts).await;
    accounts.policies().forget_remains(&owner).await.unwrap();
    assert_eq!(accounts.policies().of(&owner), None);
    left(&accounts).await;

    let again = world.open();
    assert_eq!(again.policies().of(&owner), None, "not even for whoever makes it before they are removed");
    assert_eq!(again.policies().forget_orphans().await.unwrap(), 1);
    assert_eq!(again.policies().forget_orphans().await.unwrap(), 0);
    again.identities().create(Identity::new(account, name.clone())).await.unwrap();
    assert_eq!(world.open().policies().of(&owner), None);
}
