//! Keeping policies fresh: an attacker who can keep us from fetching one has to
//! do so until it expires.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use postrider_mail::Domain;

use crate::Shared;
use crate::config::Config;
use crate::sts::{Kept, Sts};

/// How often it is looked what is due.
const ROUND: Duration = Duration::from_secs(3600);

/// How old a policy gets (RFC 8461 section 10.2 asks for a refresh now and then;
/// once a day is what its section 3.3 has as an example), where it lives longer
/// than twice that.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// Policies of domains that no mail went to for so long are left to expire.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Policies that are refreshed at the same time.
const AT_ONCE: usize = 10;

/// Runs until the relay stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let wait = tokio::time::sleep(shared.random.jitter(ROUND, 10));
        tokio::select! {
            () = wait => {}
            () = shared.scope.cancelled() => return,
        }
        let config = shared.config.load_full();
        if config.settings.tls.mta_sts {
            tokio::select! {
                () = shared.sts.refresh(&config) => {}
                () = shared.scope.cancelled() => return,
            }
        }
    }
}

impl Sts {
    /// Fetches again what is due, and forgets what has expired.
    pub(crate) async fn refresh(&self, config: &Config) {
        let now = self.0.clock.now();
        let rows = self.rows(|_| true).await;
        let (valid, expired): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, kept)| kept.expires_at() > now);
        self.forget(expired).await;
        self.counted(valid.len());
        let due = valid.into_iter().filter(|(_, kept)| {
            let age = now.saturating_since(kept.fetched_at);
            age >= FRESH.min(kept.policy.life() / 2) && now.saturating_since(kept.used_at) < UNUSED
        });
        futures_util::stream::iter(due)
            .for_each_concurrent(AT_ONCE, |(domain, kept)| self.refresh_one(config, domain, kept))
            .await;
    }

    async fn refresh_one(&self, config: &Config, domain: String, kept: Kept) {
        let Ok(domain) = domain.parse::<Domain>() else { return };
        // What failed is kept, and tried again in the next round. Nobody sends
        // there just because it was refreshed.
        let _ = self.fetch(config, &domain, &kept.id, kept.used_at).await;
    }
}
