//! The command about who changed what.

use clap::Args;

pub(crate) const AUDIT_EXAMPLES: &str = "Examples:
  postrider audit --since 2h
  postrider audit --since 2026-01-31T12:00:00Z --name CreateEmailIdentity
  postrider audit --json | jq 'select(.userIdentity.userName == \"alice\")'";

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// Only changes from a time on: 2026-01-31T12:00:00Z, or an age as 90s, 15m, 2h, 3d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only changes whose name contains this, in any case
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
}
