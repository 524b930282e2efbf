//! Whether the account may send at all.

use postrider_account::{Pause, PausedBy};

use super::{Decision, Rules, Submitted};
use crate::Refusal;

pub(super) fn may_send(rules: &Rules, submitted: &Submitted<'_>, _: &mut Decision<'_>) -> Result<(), Refusal> {
    match rules.accounts.tenants().find(submitted.account).sending.pause() {
        Some(pause) => Err(refusal(pause, Refusal::AccountPaused)),
        None => Ok(()),
    }
}

/// What a person has paused is refused; what a rule has paused is to come again, so that
/// nobody's smarthost loses mail by a rule.
pub(super) fn refusal(pause: &Pause, by_hand: Refusal) -> Refusal {
    match pause.by {
        PausedBy::Operator => by_hand,
        PausedBy::Rule => Refusal::PausedByRule,
    }
}
