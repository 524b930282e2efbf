//! State as a file declares it: accounts, pools, configuration sets, identities, credentials
//! and policies. Whoever has the file compares it with what there is, and sends the changes;
//! here each batch of them is made whole or not at all, if what it changes is still so.
//!
//! Secrets are in none of it, and neither are addresses that are suppressed, what was found out
//! about identities, and pauses: those are acts and findings, not declarations.

mod change;
mod declared;
mod read;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use declared::{
    Declared, DeclaredAccount, DeclaredConfigurationSet, DeclaredCredential, DeclaredIdentity, DeclaredKey,
    DeclaredKind, DeclaredPolicy, DeclaredPool, DeclaredState,
};

use crate::control::Deps;
use crate::{Error, Response};
use postrider_account::Actor;
use tokio::sync::mpsc;

/// Most changes that one [`StateOperation::Apply`] may have.
pub const APPLY_BATCH: usize = 2_000;

/// Things that are answered together.
const PAGE: usize = 500;

/// Actions on the declared state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateOperation {
    /// Makes these changes or none, all of one kind; at most [`APPLY_BATCH`].
    Apply {
        /// The changes.
        changes: Vec<StateChange>,
    },
    /// All that can be declared, as it is, in the order in which it would be made.
    Read,
}

/// A thing that comes, changes or goes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StateChange {
    /// What it is now: else nothing is changed.
    pub was: Option<Declared>,
    /// What it is to be.
    pub now: Option<Declared>,
}

impl StateChange {
    /// What it is about.
    #[must_use]
    pub fn key(&self) -> Option<DeclaredKey> {
        self.now.as_ref().or(self.was.as_ref()).map(Declared::key)
    }
}

impl StateOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "apply",
            Self::Read => "state-read",
        }
    }

    pub(crate) async fn execute(
        self,
        deps: &Deps,
        actor: &Actor,
        answer: &mpsc::Sender<Response>,
    ) -> Result<(), Error> {
        let pages = match self {
            Self::Apply { changes } => vec![change::apply(deps, actor, changes).await?],
            Self::Read => {
                let all = read::all(&deps.accounts);
                all.chunks(PAGE).map(|page| Response::Declared(page.to_vec())).collect()
            }
        };
        for page in pages {
            if answer.send(page).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}
