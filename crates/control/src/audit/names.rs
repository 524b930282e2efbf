//! What operations are called in the audit log, and which of them change nothing.

/// Last words of operations that only look.
const READING: [&str; 10] = ["get", "list", "plan", "show", "since", "stat", "summary", "tail", "test", "why"];

/// Operations that only look and are called otherwise.
const LOOKING: [&str; 9] =
    ["audit", "explain", "feedback-read", "message", "quota", "sites", "state-read", "status", "trace"];

/// SES's and IAM's names of what they can do too.
const NAMES: [(&str, &str); 33] = [
    ("accounts-create", "CreateTenant"),
    ("accounts-delete", "DeleteTenant"),
    ("accounts-pause", "UpdateAccountSendingEnabled"),
    ("accounts-resume", "UpdateAccountSendingEnabled"),
    ("configuration-sets-pause", "UpdateConfigurationSetSendingEnabled"),
    ("configuration-sets-resume", "UpdateConfigurationSetSendingEnabled"),
    ("configuration-sets-create", "CreateConfigurationSet"),
    ("configuration-sets-delete", "DeleteConfigurationSet"),
    ("credentials-create", "CreateAccessKey"),
    ("credentials-delete", "DeleteAccessKey"),
    ("credentials-disable", "UpdateAccessKey"),
    ("credentials-enable", "UpdateAccessKey"),
    ("credentials-set", "UpdateAccessKey"),
    ("identities-create", "CreateEmailIdentity"),
    ("identities-delete", "DeleteEmailIdentity"),
    ("identities-dkim", "PutEmailIdentityDkimAttributes"),
    ("identities-tag", "TagResource"),
    ("identities-mail-from", "PutEmailIdentityMailFromAttributes"),
    ("dkim-import", "PutEmailIdentityDkimSigningAttributes"),
    ("pools-assign", "PutDedicatedIpInPool"),
    ("pools-create", "CreateDedicatedIpPool"),
    ("pools-delete", "DeleteDedicatedIpPool"),
    ("sources-warm-up", "PutDedicatedIpWarmupAttributes"),
    ("suppression-delete", "DeleteSuppressedDestination"),
    ("suppression-import", "CreateImportJob"),
    ("suppression-put", "PutSuppressedDestination"),
    ("policies-put", "PutPolicy"),
    ("policies-delete", "DeletePolicy"),
    ("event-destinations-create", "CreateConfigurationSetEventDestination"),
    ("event-destinations-delete", "DeleteConfigurationSetEventDestination"),
    ("event-destinations-set", "UpdateConfigurationSetEventDestination"),
    ("accounts-set", "UpdateTenant"),
    ("configuration-sets-set", "UpdateConfigurationSet"),
];

/// Whether an operation changes anything. One that is not known to look alone counts as a
/// change: a record too many is better than one too few.
pub(super) fn is_change(operation: &str) -> bool {
    let last = operation.rsplit('-').next().unwrap_or(operation);
    !(LOOKING.contains(&operation) || READING.contains(&last) || operation.starts_with("doctor-"))
}

/// SES's name where it has one, else our own in the same style.
pub(super) fn event_name(operation: &str) -> String {
    let known = NAMES.iter().find(|(ours, _)| *ours == operation);
    known.map_or_else(|| in_capitals(operation), |(_, theirs)| (*theirs).to_owned())
}

/// `queue-retry` as `QueueRetry`.
fn in_capitals(operation: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    };
    operation.split('-').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_from_looks() {
        for change in ["identities-create", "queue-delete", "reload", "backup", "spool-compact", "never-heard-of"] {
            assert!(is_change(change), "{change}");
        }
        for look in
            ["identities-list", "queue-why", "status", "doctor-host", "dns-plan", "audit", "spool-stat", "quota"]
        {
            assert!(!is_change(look), "{look}");
        }
    }

    #[test]
    fn names_are_in_one_style() {
        assert_eq!(event_name("identities-create"), "CreateEmailIdentity");
        assert_eq!(event_name("queue-retry"), "QueueRetry");
    }
}
