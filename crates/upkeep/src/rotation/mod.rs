//! DKIM keys over time: a domain gets keys, a published key signs, after its time or when its
//! record is gone the next one takes its place, and what nobody needs any more makes room
//! for a new key.

#[cfg(test)]
mod mail_tests;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use postrider_account::{DkimKey, Identities, Identity, IdentityName, KeyOrigin, KeyState};
use postrider_base::{Clock, Scope};
use postrider_dns::Resolver;
use postrider_mail::{AccountId, DkimAlgorithm, Domain};
use postrider_submission::{KeyRing, KeyRingError};
use tokio::task::JoinSet;

use crate::look::is_published;
use crate::machine::Finding;
use crate::{Upkeep, notices};
use watch::Watch;

/// Looks after the DKIM keys of all accounts.
pub struct Rotation {
    /// The keys.
    pub ring: KeyRing,
    /// Whose domains have keys.
    pub identities: Identities,
    /// Says what is published.
    pub resolver: Arc<dyn Resolver>,
    /// Time.
    pub clock: Clock,
    /// How long a managed key signs; zero for ever.
    pub period: Duration,
    /// How long to wait between two looks at what is not published, and should be.
    pub interval: Duration,
    /// How long to wait between two looks at what is published.
    pub recheck: Duration,
    /// Most looks at the same time.
    pub lookups: usize,
    /// Mails the operator what a person has to do; without it the log alone says so.
    pub operator: Option<Upkeep>,
}

impl Rotation {
    /// Works until the scope ends. New keys are looked for at once.
    pub async fn run(self, scope: Scope) {
        let mut watch = Watch::default();
        let work = async {
            loop {
                self.step(&mut watch).await;
                // Whether it was the time or a change does not matter.
                let _ = tokio::time::timeout(self.interval, self.ring.changed()).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = scope.cancelled() => {}
        }
    }

    /// Does everything that is due.
    async fn step(&self, watch: &mut Watch) {
        for identity in self.identities.all() {
            if let IdentityName::Domain(domain) = &identity.name {
                self.provide(&identity, domain).await;
            }
        }
        watch.keep(&self.ring.table().all());
        // What follows is due where what signs turns out to be gone.
        for state in [KeyState::Current, KeyState::Next] {
            self.look_at(state, watch).await;
        }
        self.renew().await;
    }

    /// Makes the keys that a domain should have, as SES does for each domain identity.
    async fn provide(&self, identity: &Identity, domain: &Domain) {
        let keys = self.ring.table().of_domain(identity.account, domain);
        let second = identity.dkim.ed25519.then_some(DkimAlgorithm::Ed25519Sha256);
        for algorithm in [Some(DkimAlgorithm::RsaSha256), second].into_iter().flatten() {
            if identity.dkim.enabled && !keys.iter().any(|key| key.algorithm == algorithm) {
                match self.ring.create_managed(identity.account, domain, algorithm).await {
                    Ok(_) => {
                        tracing::info!(%domain, %algorithm, "DKIM keys made, to be published");
                        self.record("CreateDkimKeys", identity.account, domain, &algorithm.to_string()).await;
                    }
                    Err(error) => tracing::warn!(%domain, %algorithm, %error, "no DKIM keys made"),
                }
            }
        }
    }

    /// Looks at the keys in this state that are due, some at a time, and acts on each as soon
    /// as it is known: dead name servers hold nobody up for long.
    async fn look_at(&self, state: KeyState, watch: &mut Watch) {
        let mut due = self.ring.table().all();
        due.retain(|key| key.state == state && self.identity(key).is_some() && self.is_due(key, watch));
        let mut due = due.into_iter();
        let mut looks = JoinSet::new();
        loop {
            while looks.len() < self.lookups
                && let Some(key) = due.next()
            {
                looks.spawn(look(self.resolver.clone(), key));
            }
            match looks.join_next().await {
                Some(Ok((key, finding))) => self.found(&key, finding, watch).await,
                Some(Err(error)) => tracing::error!(%error, "a look at a DKIM key broke off"),
                None => return,
            }
        }
    }

    fn is_due(&self, key: &DkimKey, watch: &Watch) -> bool {
        let Some(last) = watch.last(key) else { return true };
        let wait = match last.finding {
            Finding::Unknown(_) => last.back_off(self.interval, self.recheck),
            Finding::Right if key.state == KeyState::Current || !self.is_its_turn(key, watch) => self.recheck,
            _ => self.interval,
        };
        last.at.saturating_add(wait) <= self.clock.now()
    }

    /// Whether a next key is to sign as soon as receivers can find it.
    fn is_its_turn(&self, next: &DkimKey, watch: &Watch) -> bool {
        let mut current = self.ring.table().current(next.account, &next.domain).into_iter();
        match (current.find(|key| key.algorithm == next.algorithm), next.origin) {
            (None, _) | (_, KeyOrigin::Own) => true,
            (Some(current), KeyOrigin::Managed) => {
                current.origin == KeyOrigin::Managed && (self.has_served(&current) || watch.is_gone(&current))
            }
        }
    }

    fn has_served(&self, current: &DkimKey) -> bool {
        !self.period.is_zero() && current.since.saturating_add(self.period) <= self.clock.now()
    }

    async fn found(&self, key: &DkimKey, finding: Finding, watch: &mut Watch) {
        if let Err(error) = note(&self.ring, key, &finding).await {
            tracing::warn!(key = key.record_name(), %error, "what was found of a DKIM key could not be kept");
        }
        let was_gone = watch.is_gone(key);
        watch.note(key, finding.clone(), self.clock.now());
        match (key.state, finding) {
            (KeyState::Next, Finding::Right) if self.is_its_turn(key, watch) => {
                self.tell(key, self.rotate(key).await);
            }
            (KeyState::Current, Finding::Wrong(problem)) if !was_gone => {
                tracing::warn!(key = key.record_name(), problem, "the record of a DKIM key that signs is gone");
                self.ask_operator(key, "A DKIM key that signs is not published", &notices::gone_text(key, &problem))
                    .await;
            }
            _ => {}
        }
    }

    /// Mails the operator about a key of a domain that signs.
    async fn ask_operator(&self, key: &DkimKey, subject: &str, text: &str) {
        let signs = self.identity(key).is_some_and(|identity| identity.dkim.enabled);
        if let Some(upkeep) = self.operator.as_ref().filter(|_| signs) {
            upkeep.0.mail_operator(subject, text).await;
        }
    }

    fn identity(&self, key: &DkimKey) -> Option<Arc<Identity>> {
        self.identities.find(key.account, &IdentityName::Domain(key.domain.clone()))
    }

    async fn rotate(&self, next: &DkimKey) -> Result<(), KeyRingError> {
        self.record("RotateDkimKey", next.account, &next.domain, next.selector.as_str()).await;
        self.ring.rotate(next.account, &next.domain, Some(&next.selector), false).await.map(drop)
    }

    /// In the audit log.
    async fn record(&self, name: &'static str, account: AccountId, domain: &Domain, what: &str) {
        if let Some(upkeep) = &self.operator {
            let parameters = serde_json::json!({ "account": account, "domain": domain, "what": what });
            upkeep.0.accounts.audit().by_relay("rotation", name, parameters).await;
        }
    }

    fn tell(&self, next: &DkimKey, result: Result<(), KeyRingError>) {
        match result {
            Ok(()) => tracing::info!(key = next.record_name(), "a DKIM key signs from now on"),
            Err(error) => tracing::warn!(key = next.record_name(), %error, "a DKIM key can not take its turn"),
        }
    }

    /// Gives the selectors of managed keys that nobody needs any more new keys.
    async fn renew(&self) {
        let now = self.clock.now();
        let is_over = |key: &DkimKey| self.ring.published_until(key).is_some_and(|until| until <= now);
        for key in self.ring.table().all() {
            if key.origin != KeyOrigin::Managed || !is_over(&key) {
                continue;
            }
            match self.ring.renew(&key).await {
                Ok(()) => {
                    tracing::info!(key = key.record_name(), "a new DKIM key, to be published");
                    self.ask_operator(&key, "A new DKIM key is to be published", &notices::renewed_text(&key)).await;
                }
                Err(error) => tracing::warn!(key = key.record_name(), %error, "no new DKIM key"),
            }
        }
    }
}

/// Looks at the records of the keys of a domain that are to follow, before one does.
///
/// # Errors
/// What the table of keys says.
pub async fn look_at_next(
    resolver: &Arc<dyn Resolver>,
    ring: &KeyRing,
    account: AccountId,
    domain: &Domain,
) -> Result<(), KeyRingError> {
    let mut looks = JoinSet::new();
    for key in ring.table().of_domain(account, domain) {
        if key.state == KeyState::Next {
            looks.spawn(look(resolver.clone(), key));
        }
    }
    while let Some(looked) = looks.join_next().await {
        let (key, finding) = looked.map_err(|_| KeyRingError::Interrupted)?;
        note(ring, &key, &finding).await?;
    }
    Ok(())
}

/// Keeps what was found. No answer says nothing.
async fn note(ring: &KeyRing, key: &DkimKey, finding: &Finding) -> Result<(), KeyRingError> {
    match finding {
        Finding::Right => ring.looked(key, true).await,
        Finding::Wrong(_) => ring.looked(key, false).await,
        Finding::Unknown(_) => Ok(()),
    }
}

async fn look(resolver: Arc<dyn Resolver>, key: Arc<DkimKey>) -> (Arc<DkimKey>, Finding) {
    let finding = is_published(&*resolver, &key.record_name(), &key.public).await;
    (key, finding)
}
