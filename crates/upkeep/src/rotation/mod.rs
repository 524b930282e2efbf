//! DKIM keys over time: a domain gets keys, a published key signs, after its time the next
//! one takes its place, and what nobody needs any more makes room for a new key.

use std::sync::Arc;
use std::time::Duration;

use postrider_account::{DkimKey, Identities, Identity, IdentityName, KeyOrigin, KeyState};
use postrider_base::{Clock, Scope, Timestamp};
use postrider_dns::Resolver;
use postrider_mail::{AccountId, DkimAlgorithm, Domain};
use postrider_submission::{KeyRing, KeyRingError};
use tokio::task::JoinSet;

use crate::look::is_published;
use crate::machine::Finding;

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
    /// How long to wait between two looks at what is not published yet.
    pub interval: Duration,
}

/// The keys of one domain that sign in the same way: one signs, others follow.
type Group<'a> = &'a [Arc<DkimKey>];

impl Rotation {
    /// Works until the scope ends. New keys are looked for at once.
    pub async fn run(self, scope: Scope) {
        let work = async {
            loop {
                self.step().await;
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
    async fn step(&self) {
        for identity in self.identities.all() {
            if let IdentityName::Domain(domain) = &identity.name {
                self.provide(&identity, domain).await;
            }
        }
        let mut keys = self.ring.table().all();
        keys.sort_by_key(|key| (key.account, key.domain.clone(), key.algorithm));
        for group in keys.chunk_by(|one, other| whose(one) == whose(other)) {
            self.advance(group).await;
            self.renew(group).await;
        }
    }

    /// Makes the keys that a domain should have, as SES does for each domain identity.
    async fn provide(&self, identity: &Identity, domain: &Domain) {
        let keys = self.ring.table().of_domain(identity.account, domain);
        let second = identity.dkim.ed25519.then_some(DkimAlgorithm::Ed25519Sha256);
        for algorithm in [Some(DkimAlgorithm::RsaSha256), second].into_iter().flatten() {
            if identity.dkim.enabled && !keys.iter().any(|key| key.algorithm == algorithm) {
                match self.ring.create_managed(identity.account, domain, algorithm).await {
                    Ok(_) => tracing::info!(%domain, %algorithm, "DKIM keys made, to be published"),
                    Err(error) => tracing::warn!(%domain, %algorithm, %error, "no DKIM keys made"),
                }
            }
        }
    }

    /// Lets a next key sign when its time has come and receivers can find it.
    async fn advance(&self, group: Group<'_>) {
        let current = group.iter().find(|key| key.state == KeyState::Current);
        for next in group.iter().filter(|key| key.state == KeyState::Next) {
            let due = match (current, next.origin) {
                (None, _) | (_, KeyOrigin::Own) => true,
                (Some(current), KeyOrigin::Managed) => current.origin == KeyOrigin::Managed && self.has_served(current),
            };
            if !due && next.seen.is_some() {
                continue;
            }
            match self.look(next).await {
                Ok(true) if due => return self.tell(next, self.rotate(next).await),
                Ok(_) => {}
                Err(error) => tracing::warn!(key = next.record_name(), %error, "a DKIM key could not be looked after"),
            }
        }
    }

    fn has_served(&self, current: &DkimKey) -> bool {
        !self.period.is_zero() && current.since.saturating_add(self.period) <= self.clock.now()
    }

    /// Whether the record is in the DNS as it should be.
    async fn look(&self, key: &DkimKey) -> Result<bool, KeyRingError> {
        let found = is_published(&*self.resolver, &key.record_name(), &key.public).await;
        note(&self.ring, key, &found).await?;
        Ok(found == Finding::Right)
    }

    async fn rotate(&self, next: &DkimKey) -> Result<(), KeyRingError> {
        self.ring.rotate(next.account, &next.domain, Some(&next.selector), false).await.map(drop)
    }

    fn tell(&self, next: &DkimKey, result: Result<(), KeyRingError>) {
        match result {
            Ok(()) => tracing::info!(key = next.record_name(), "a DKIM key signs from now on"),
            Err(error) => tracing::warn!(key = next.record_name(), %error, "a DKIM key can not take its turn"),
        }
    }

    /// Gives the selector of a managed key that nobody needs any more a new key.
    async fn renew(&self, group: Group<'_>) {
        let now = self.clock.now();
        let over = |key: &&Arc<DkimKey>| is_over(self.ring.published_until(key), now);
        for key in group.iter().filter(|key| key.origin == KeyOrigin::Managed).filter(over) {
            match self.ring.renew(key).await {
                Ok(()) => tracing::info!(key = key.record_name(), "a new DKIM key, to be published"),
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
            let resolver = resolver.clone();
            looks.spawn(async move { (is_published(&*resolver, &key.record_name(), &key.public).await, key) });
        }
    }
    while let Some(looked) = looks.join_next().await {
        let (finding, key) = looked.map_err(|_| KeyRingError::Interrupted)?;
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

fn whose(key: &DkimKey) -> (AccountId, &Domain, DkimAlgorithm) {
    (key.account, &key.domain, key.algorithm)
}

fn is_over(until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_some_and(|until| until <= now)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use postrider_account::Accounts;
    use postrider_base::{Random, SimDisk};
    use postrider_dns::Zones;
    use postrider_dns::zones::Failure;
    use postrider_mailauth::dkim::Sealing;
    use postrider_store::Store;
    use postrider_submission::KeyRingDeps;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const RETENTION: Duration = Duration::from_hours(12 * 24);
    const KEY: &str = include_str!("../../mailauth/tests/keys/rsa-2048-pkcs8.pem");

    struct World {
        accounts: Accounts,
        zones: Zones,
        rotation: Rotation,
        _index: tempfile::TempDir,
    }

    fn com() -> Domain {
        "example.com".parse().unwrap()
    }

    impl World {
        async fn new() -> Self {
            let index = tempfile::tempdir().unwrap();
            let options = postrider_store::Options { index_dir: Some(index.path().to_owned()), ..Default::default() };
            let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
            let (clock, random) = (Clock::simulated(Timestamp::from_millis(1_700_000_000_000)), Random::seeded(5));
            let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap();
            let ring = KeyRing::new(KeyRingDeps {
                accounts: accounts.clone(),
                sealer: Sealing::ephemeral(&random).unwrap().into(),
                clock: clock.clone(),
                random,
                max_open: 10,
                retention: RETENTION,
            });
            let zones = Zones::new();
            let rotation = Rotation {
                ring,
                identities: accounts.identities().clone(),
                resolver: Arc::new(zones.clone()),
                clock,
                period: 90 * DAY,
                interval: Duration::from_mins(15),
            };
            let world = Self { accounts, zones, rotation, _index: index };
            let mut identity = Identity::new(AccountId::default(), "example.com".parse().unwrap());
            // Without RSA keys the tests are quick; those are made where a test asks for them.
            identity.dkim.enabled = false;
            world.accounts.identities().create(identity).await.unwrap();
            world
                .rotation
                .ring
                .create_managed(AccountId::default(), &com(), DkimAlgorithm::Ed25519Sha256)
                .await
                .unwrap();
            world
        }

        fn keys(&self, state: KeyState) -> Vec<Arc<DkimKey>> {
            let mut keys = self.accounts.dkim_keys().of_domain(AccountId::default(), &com());
            keys.retain(|key| key.state == state);
            keys
        }

        /// How many sign, follow, and are retired.
        fn counts(&self) -> [usize; 3] {
            [KeyState::Current, KeyState::Next, KeyState::Retired].map(|state| self.keys(state).len())
        }

        /// Publishes every key there is, and nothing else.
        fn publish(&self) {
            for key in self.accounts.dkim_keys().all() {
                self.zones.remove(&key.record_name()).add_txt(&key.record_name(), &key.public);
            }
        }

        async fn after(&self, time: Duration) {
            tokio::time::advance(time).await;
            self.rotation.step().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_signs_before_its_record_is_seen() {
        let world = World::new().await;
        world.after(DAY).await;
        assert_eq!(world.counts(), [0, 3, 0]);
        let first = world.keys(KeyState::Next).remove(0);
        world.zones.add_txt(&first.record_name(), "v=DKIM1; k=ed25519; p=c29tZXRoaW5nIGVsc2U=");
        world.after(DAY).await;
        assert_eq!(world.counts(), [0, 3, 0], "another key is published");
        world.zones.fail(&first.record_name(), Failure::ServFail);
        world.after(DAY).await;
        assert_eq!(world.counts(), [0, 3, 0]);
        world.publish();
        world.after(DAY).await;
        assert_eq!(world.counts(), [1, 2, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_take_turns_and_every_retired_one_stays_for_the_life_of_mail() {
        let world = World::new().await;
        world.publish();
        world.rotation.step().await;
        let first = world.keys(KeyState::Current).remove(0);
        world.after(89 * DAY).await;
        assert_eq!(world.keys(KeyState::Current)[0].selector, first.selector);
        world.after(DAY).await;
        let second = world.keys(KeyState::Current).remove(0);
        assert_ne!(second.selector, first.selector);
        assert_eq!(world.counts(), [1, 1, 1]);
        world.after(RETENTION - Duration::from_secs(1)).await;
        assert_eq!(world.keys(KeyState::Retired)[0].public, first.public);
        world.after(Duration::from_secs(1)).await;
        assert_eq!(world.counts(), [1, 2, 0]);
        let renewed = world.keys(KeyState::Next).into_iter().find(|key| key.selector == first.selector).unwrap();
        assert!(renewed.public != first.public && renewed.seen.is_none());
        // Nobody publishes the new one: those that are published take their turns, and then the last goes on.
        for _ in 0..4 {
            world.after(90 * DAY).await;
            assert_eq!(world.keys(KeyState::Current).len(), 1);
        }
        assert!(world.zones_have(&world.keys(KeyState::Current)[0]).await);
    }

    impl World {
        async fn zones_have(&self, key: &DkimKey) -> bool {
            is_published(&self.zones, &key.record_name(), &key.public).await == Finding::Right
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_no_period_keys_stay() {
        let mut world = World::new().await;
        world.rotation.period = Duration::ZERO;
        world.publish();
        world.rotation.step().await;
        let first = world.keys(KeyState::Current).remove(0);
        world.after(1_000 * DAY).await;
        assert_eq!(world.keys(KeyState::Current)[0].selector, first.selector);
    }

    #[tokio::test(start_paused = true)]
    async fn an_own_key_signs_when_it_is_seen_and_is_nobody_elses_to_change() {
        let world = World::new().await;
        let own = "mine".parse().unwrap();
        world.rotation.ring.create_managed(AccountId::default(), &com(), DkimAlgorithm::RsaSha256).await.unwrap();
        world.publish();
        world.rotation.step().await;
        let taken = world.rotation.ring.import(AccountId::default(), &com(), own, KEY).await.unwrap();
        world.after(DAY).await;
        assert!(world.keys(KeyState::Current).iter().all(|key| key.origin == KeyOrigin::Managed));
        world.publish();
        world.after(DAY).await;
        let signs = |key: &Arc<DkimKey>| key.selector == taken.selector;
        assert!(world.keys(KeyState::Current).iter().any(signs));
        world.after(200 * DAY).await;
        assert!(world.keys(KeyState::Current).iter().any(signs), "it is not replaced by schedule");
    }

    #[tokio::test(start_paused = true)]
    async fn a_domain_gets_the_keys_that_it_should_have() {
        let world = World::new().await;
        let name = "example.com".parse().unwrap();
        let on = |identity: &mut Identity| identity.dkim.enabled = true;
        world.accounts.identities().change(AccountId::default(), &name, on).await.unwrap();
        world
            .accounts
            .identities()
            .create(Identity::new(AccountId::default(), "a@example.org".parse().unwrap()))
            .await
            .unwrap();
        world.rotation.step().await;
        let keys = world.accounts.dkim_keys().all();
        let rsa = keys.iter().filter(|key| key.algorithm == DkimAlgorithm::RsaSha256).count();
        assert_eq!((rsa, keys.len()), (3, 6));
        world.rotation.step().await;
        assert_eq!(world.accounts.dkim_keys().all().len(), 6);
    }
}
