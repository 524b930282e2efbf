//! The configuration set that a message is sent with.

use super::{Decision, Rules, Submitted, account};
use crate::Refusal;
use postrider_account::Resolved;

/// The set that the message names, else the default of its author's identity. Where that is
/// gone the message is refused, as SES does: it would leave without the rules that its sender
/// relies on.
pub(super) fn may_send(rules: &Rules, submitted: &Submitted<'_>, decision: &mut Decision<'_>) -> Result<(), Refusal> {
    let default = || decision.resolved.as_ref().and_then(Resolved::default_configuration_set);
    let Some(name) = submitted.set.or_else(default) else { return Ok(()) };
    let Some(set) = rules.accounts.configuration_sets().find(submitted.account, name) else {
        return Err(Refusal::UnknownConfigurationSet(name.to_owned()));
    };
    if let Some(pause) = set.sending.pause() {
        return Err(account::refusal(pause, Refusal::ConfigurationSetPaused));
    }
    decision.set = Some(set);
    Ok(())
}
