//! What of an account can be changed, one thing at a time.

use std::collections::BTreeSet;

use postrider_mail::{EmailAddress, SuppressionReason};
use serde::{Deserialize, Serialize};

use super::Tenant;

/// One thing of an account, to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TenantOption {
    /// [`Tenant::name`].
    Name(String),
    /// [`Tenant::contact`].
    Contact(Option<EmailAddress>),
    /// [`Tenant::sandbox`].
    Sandbox(bool),
    /// [`Tenant::daily_quota`].
    DailyQuota(Option<u64>),
    /// [`Tenant::max_rate`].
    MaxRate(Option<u32>),
    /// [`Tenant::suppressed_reasons`].
    SuppressedReasons(BTreeSet<SuppressionReason>),
    /// [`Tenant::auto_pause`].
    AutoPause(bool),
    /// One of [`Tenant::tags`], or another value for it.
    Tag(String, String),
    /// One of [`Tenant::tags`] less.
    Untag(String),
}

impl Tenant {
    /// Makes one change; whether the account may be so, is looked at when it is kept.
    pub fn apply(&mut self, option: TenantOption) {
        match option {
            TenantOption::Name(name) => self.name = name,
            TenantOption::Contact(contact) => self.contact = contact,
            TenantOption::Sandbox(sandbox) => self.sandbox = sandbox,
            TenantOption::DailyQuota(quota) => self.daily_quota = quota,
            TenantOption::MaxRate(rate) => self.max_rate = rate,
            TenantOption::SuppressedReasons(reasons) => self.suppressed_reasons = reasons,
            TenantOption::AutoPause(may) => self.auto_pause = may,
            TenantOption::Tag(key, value) => drop(self.tags.insert(key, value)),
            TenantOption::Untag(key) => drop(self.tags.remove(&key)),
        }
    }
}
