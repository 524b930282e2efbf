//! What accounts have used of their quotas, as metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_base::{Metrics, Scope, Timestamp};
use postrider_mail::AccountId;

use super::Limits;
use crate::Accounts;

/// How old the metrics become.
const EVERY: Duration = Duration::from_secs(15);

impl Accounts {
    /// Keeps the metrics of quotas up to date, and their memory small, until the scope is
    /// cancelled.
    pub async fn show_usage(self, metrics: Metrics, scope: Scope) {
        let mut shown = BTreeSet::new();
        loop {
            let now = self.quotas.0.clock.now();
            self.quotas.forget_idle(now);
            self.show(&mut shown, &metrics, now);
            tokio::select! {
                () = scope.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// An account that has once been shown stays; what it was shown with is then brought down.
    fn show(&self, shown: &mut BTreeSet<AccountId>, metrics: &Metrics, now: Timestamp) {
        let mut unshown = 0;
        for (account, _) in self.quotas.accounts(now) {
            if shown.len() < self.quotas.0.shown as usize || shown.contains(&account) {
                shown.insert(account);
            } else {
                unshown += 1;
            }
        }
        metrics.quota_unshown.set(unshown);
        for account in shown.iter() {
            let sent = self.quotas.usage(*account, now).sent_last_24_hours;
            let max = Limits::of(&self.tenants.find(*account)).per_day;
            let percent = max.map_or(0, |max| u128::from(sent) * 100 / u128::from(max.max(1)));
            let name = account.to_string();
            metrics.quota_sent.of(&name).set(i64::try_from(sent).unwrap_or(i64::MAX));
            metrics.quota_used.of(&name).set(i64::try_from(percent).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {

    use postrider_base::{Clock, Random, SimDisk};

    use super::*;
    use crate::{Settings, Tenant};

    #[tokio::test]
    async fn the_first_accounts_are_shown_and_the_others_are_counted() {
        let (store, _index) = crate::samples::store(&SimDisk::new());
        let now = Timestamp::from_millis(1_500_000_000_000);
        let settings = Settings { usage_metrics: 2, ..Settings::default() };
        let accounts = Accounts::open(&store, &Clock::simulated(now), &Random::seeded(1), &settings).unwrap();
        let (metrics, mut shown) = (Metrics::new(), BTreeSet::new());
        let tenant = Tenant { daily_quota: Some(200), ..Tenant::new(AccountId::new(30).unwrap()) };
        accounts.tenants().create(tenant).await.unwrap();
        for number in [30, 20, 10] {
            let account = AccountId::new(number).unwrap();
            accounts.quotas().reserve(account, &Limits::default(), 50, now).unwrap().keep();
            accounts.show(&mut shown, &metrics, now);
        }
        let text = metrics.encode();
        for line in [
            "postrider_quota_sent_24h{account=\"000000000030\"} 50",
            "postrider_quota_used_percent{account=\"000000000030\"} 25",
            "postrider_quota_used_percent{account=\"000000000020\"} 0",
            "postrider_quota_accounts_unshown 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        assert!(!text.contains("000000000010"));
        let later = now.saturating_add(Duration::from_hours(25));
        accounts.show(&mut shown, &metrics, later);
        assert!(metrics.encode().contains("postrider_quota_sent_24h{account=\"000000000030\"} 0\n"));
    }
}
