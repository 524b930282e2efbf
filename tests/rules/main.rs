//! SES's rules for senders as tables: each row of a `*.rules` file cites what it stands for and
//! is played against the real daemon over SMTP. `rows.rs` says how a row is written.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
mod stage;

#[cfg(target_os = "linux")]
mod tables {
    use crate::stage::play;

    /// One test for each table.
    macro_rules! tables {
        ($($name:ident: $file:literal,)*) => {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                play($file, include_str!($file)).await;
            }
        )*};
    }

    tables! {
        accounts: "accounts.rules",
        attachments: "attachments.rules",
        configuration_sets: "configuration-sets.rules",
        header_fields: "header-fields.rules",
        identities: "identities.rules",
        policies: "policies.rules",
        quotas: "quotas.rules",
        suppression: "suppression.rules",
    }
}
