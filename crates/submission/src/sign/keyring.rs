//! The keys of all accounts: made, given, changed, and opened for signing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use postrider_account::{Accounts, DkimKey, DkimKeys, Identities, Identity, IdentityName, KeyOrigin, KeyState, Sealed};
use postrider_base::{Clock, Random, Timestamp};
use postrider_mail::{AccountId, DkimAlgorithm, Domain, EmailAddress, Selector};
use postrider_mailauth::dkim::{PrivateKey, SealError, Signer};
use tokio::sync::{Mutex, Notify};

use super::turns::Turns;
use super::{KeyRingError, Sealer};

/// Keys that a domain has of each kind when the relay looks after them: one signs, one is
/// published to follow, and one is waited for until it is out of use everywhere, or rests.
const MANAGED_KEYS: usize = 3;

/// What a key ring works with.
#[derive(Debug)]
pub struct KeyRingDeps {
    /// Whose keys.
    pub accounts: Accounts,
    /// What opens them. While that is not there, keys can be listed and deleted alone.
    pub sealer: Sealer,
    /// What time it is.
    pub clock: Clock,
    /// For selectors.
    pub random: Random,
    /// Most private keys that are kept open.
    pub max_open: usize,
    /// How long a retired key stays published: as long as mail can be under way, and more.
    pub retention: Duration,
}

/// The keys of all accounts, and the one way to their private halves. Clones share them.
#[derive(Clone)]
pub struct KeyRing(Arc<Inner>);

struct Inner {
    keys: DkimKeys,
    identities: Identities,
    sealer: Sealer,
    clock: Clock,
    random: Random,
    open: RwLock<HashMap<Name, Open>>,
    max_open: usize,
    retention: Duration,
    /// Held while managed keys are made, which takes a second.
    making: Mutex<()>,
    /// There are other keys, or keys in other states, than there were.
    changed: Notify,
}

type Name = (AccountId, Domain, Selector);

/// A key that has been opened, and the row that it was opened from: another may follow
/// under the same selector.
struct Open {
    row: Arc<DkimKey>,
    signer: Arc<Signer>,
}

impl KeyRing {
    /// The keys in the account tables.
    #[must_use]
    pub fn new(deps: KeyRingDeps) -> Self {
        let KeyRingDeps { accounts, sealer, clock, random, max_open, retention } = deps;
        let (keys, identities) = (accounts.dkim_keys().clone(), accounts.identities().clone());
        Self(Arc::new(Inner {
            keys,
            identities,
            sealer,
            clock,
            random,
            open: RwLock::default(),
            max_open,
            retention,
            making: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Whether the keys can be opened: better not to start than to send mail unsigned. A
    /// single damaged key is only told of in the log.
    ///
    /// # Errors
    /// [`KeyRingError::Seal`] when the sealing key is not as it should be, or they were sealed
    /// by another.
    pub fn check(&self) -> Result<(), KeyRingError> {
        let keys = self.0.keys.all();
        if keys.is_empty() && !self.0.sealer.is_there() {
            return Ok(());
        }
        let sealing = self.0.sealer.key()?;
        for key in keys {
            match sealing.open(key.sealed.as_bytes(), &context(&key)) {
                Err(error @ SealError::WrongKey(_)) => return Err(error.into()),
                Err(error) => tracing::error!(key = key.record_name(), %error, "its domain's mail can not be signed"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &DkimKeys {
        &self.0.keys
    }

    /// Waits until keys are made, taken, deleted or take turns, since it was last waited for.
    /// For one who waits.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// When a retired key need not be published any more: by what the settings said when it
    /// retired or by what they say now, whichever is later.
    #[must_use]
    pub fn published_until(&self, key: &DkimKey) -> Option<Timestamp> {
        let by_now = key.since.saturating_add(self.0.retention);
        (key.state == KeyState::Retired).then(|| key.until.map_or(by_now, |until| until.max(by_now)))
    }

    /// The keys that sign what this author sends, from memory. Whether it is signed at all
    /// is said by the most specific identity; with what, by the nearest domain that has keys.
    #[must_use]
    pub fn keys_of(&self, account: AccountId, author: &EmailAddress) -> Vec<Arc<DkimKey>> {
        match self.0.identities.resolve(account, author) {
            Some(resolved) if resolved.identity.dkim.enabled => self.nearest(account, author.domain()),
            _ => Vec::new(),
        }
    }

    /// The keys that sign what is sent from this domain, whoever in it is the author.
    #[must_use]
    pub fn keys_of_domain(&self, account: AccountId, domain: &Domain) -> Vec<Arc<DkimKey>> {
        match self.0.identities.domains(account, domain).next() {
            Some(identity) if identity.dkim.enabled => self.nearest(account, domain),
            _ => Vec::new(),
        }
    }

    fn nearest(&self, account: AccountId, domain: &Domain) -> Vec<Arc<DkimKey>> {
        let signing = |identity: Arc<Identity>| {
            let mut keys = self.0.keys.current(account, identity.name.domain());
            keys.retain(|key| {
                let second = key.algorithm == DkimAlgorithm::Ed25519Sha256 && key.origin == KeyOrigin::Managed;
                !second || identity.dkim.ed25519
            });
            keys
        };
        let mut domains = self.0.identities.domains(account, domain).map(signing);
        domains.find(|keys| !keys.is_empty()).unwrap_or_default()
    }

    /// The key, ready to sign. Opened at its first use, which takes longer.
    pub(super) fn signer(&self, row: &Arc<DkimKey>) -> Result<Arc<Signer>, KeyRingError> {
        let name = (row.account, row.domain.clone(), row.selector.clone());
        if let Some(open) = self.0.open.read().get(&name)
            && (Arc::ptr_eq(&open.row, row) || open.row.sealed == row.sealed)
        {
            return Ok(open.signer.clone());
        }
        let der = self.0.sealer.key()?.open(row.sealed.as_bytes(), &context(row))?;
        let key = PrivateKey::from_der(&der)?;
        let signer = Arc::new(Signer::new(row.domain.clone(), row.selector.clone(), key));
        let mut open = self.0.open.write();
        if open.len() >= self.0.max_open && !open.contains_key(&name) {
            // Any will do: it is opened again when it is needed.
            let victim = open.keys().next().cloned();
            victim.map(|name| open.remove(&name));
        }
        open.insert(name, Open { row: row.clone(), signer: signer.clone() });
        Ok(signer)
    }

    /// Makes the three keys of a domain that the relay looks after. None of them signs before
    /// its record has been seen. Durable when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::NotOurs`], [`KeyRingError::Managed`] or what the table says.
    pub async fn create_managed(
        &self,
        account: AccountId,
        domain: &Domain,
        algorithm: DkimAlgorithm,
    ) -> Result<Vec<Arc<DkimKey>>, KeyRingError> {
        self.check_domain(account, domain)?;
        let _making = self.0.making.lock().await;
        let is_one = |key: &Arc<DkimKey>| key.origin == KeyOrigin::Managed && key.algorithm == algorithm;
        if self.0.keys.of_domain(account, domain).iter().any(is_one) {
            return Err(KeyRingError::Managed(domain.clone()));
        }
        let mut rows = Vec::with_capacity(MANAGED_KEYS);
        for _ in 0..MANAGED_KEYS {
            let selector = Selector::random(&self.0.random);
            rows.push(self.generate(account, domain.clone(), selector, algorithm).await?);
        }
        self.create(rows).await
    }

    /// Takes a key that the owner of the domain has made. It signs when its record has been
    /// seen. Durable when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::NotOurs`], [`KeyRingError::Key`] or what the table says, that the
    /// selector is in use for one.
    pub async fn import(
        &self,
        account: AccountId,
        domain: &Domain,
        selector: Selector,
        private_key: &str,
    ) -> Result<Arc<DkimKey>, KeyRingError> {
        self.check_domain(account, domain)?;
        let key = PrivateKey::from_pem(private_key)?;
        let row = self.row(account, domain.clone(), selector, &key, KeyOrigin::Own)?;
        Ok(self.create(vec![row]).await?.remove(0))
    }

    async fn create(&self, rows: Vec<DkimKey>) -> Result<Vec<Arc<DkimKey>>, KeyRingError> {
        let created = self.0.keys.create(rows).await?;
        self.0.changed.notify_one();
        Ok(created)
    }

    /// Lets the next key of each kind sign in the place of the current one, which retires;
    /// with a selector, that key. A kind whose next key has not been seen stays as it is
    /// where another can go on. Durable when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::NoNext`]; [`KeyRingError::NotSeen`] when no look of the last hour has
    /// found a record, unless `force` says that it is published; or what the table says.
    pub async fn rotate(
        &self,
        account: AccountId,
        domain: &Domain,
        selector: Option<&Selector>,
        force: bool,
    ) -> Result<Vec<Arc<DkimKey>>, KeyRingError> {
        self.turn(account, domain, |turns| turns.rotate(selector, force)).await
    }

    /// Lets a key sign no more. It stays published; the next key of its kind signs in its
    /// place. Durable when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::LastKey`] when no look of the last hour has found a next one, unless
    /// `force` says that mail may leave unsigned; or what the table says.
    pub async fn retire(
        &self,
        account: AccountId,
        domain: &Domain,
        selector: &Selector,
        force: bool,
    ) -> Result<(), KeyRingError> {
        self.turn(account, domain, |turns| turns.retire(selector, force)).await.map(drop)
    }

    /// Lets none of a domain's keys sign before its record has been seen again: much may have
    /// happened while nobody looked. Durable when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::Account`].
    pub async fn start_over(&self, account: AccountId, domain: &Domain) -> Result<(), KeyRingError> {
        self.turn(account, domain, |turns| Ok(turns.start_over())).await.map(drop)
    }

    async fn turn(
        &self,
        account: AccountId,
        domain: &Domain,
        change: impl FnOnce(&Turns<'_>) -> Result<Vec<DkimKey>, KeyRingError>,
    ) -> Result<Vec<Arc<DkimKey>>, KeyRingError> {
        let changed = self.0.keys.change(account, domain, |keys| change(&self.turns(domain, keys))).await?;
        self.0.changed.notify_one();
        Ok(changed)
    }

    fn turns<'k>(&self, domain: &'k Domain, keys: &'k [Arc<DkimKey>]) -> Turns<'k> {
        Turns { domain, keys, now: self.0.clock.now(), retention: self.0.retention }
    }

    /// Notes whether the record of this key is in the DNS as it should be. Says nothing about
    /// another key that has followed under the same selector.
    ///
    /// # Errors
    /// [`KeyRingError::Account`].
    pub async fn looked(&self, key: &DkimKey, is_published: bool) -> Result<(), KeyRingError> {
        let seen = is_published.then(|| self.0.clock.now());
        let note = |keys: &[Arc<DkimKey>]| {
            let same = keys.iter().find(|other| (&other.selector, &other.public) == (&key.selector, &key.public));
            let news = same.filter(|same| same.seen != seen);
            Ok(news.map(|same| DkimKey { seen, ..DkimKey::clone(same) }).into_iter().collect())
        };
        self.0.keys.change(key.account, &key.domain, note).await.map(drop)
    }

    /// Makes a new key under the selector of a retired managed one, to be the next. Durable
    /// when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::StillNeeded`], also when it is in use again meanwhile, or what the
    /// table says.
    pub async fn renew(&self, key: &DkimKey) -> Result<(), KeyRingError> {
        self.check_unneeded(key)?;
        let new = self.generate(key.account, key.domain.clone(), key.selector.clone(), key.algorithm).await?;
        let renew = |turns: &Turns<'_>| {
            let old = turns.find(&key.selector)?;
            self.check_unneeded(old)?;
            if old.origin != KeyOrigin::Managed || old.public != key.public {
                return Err(KeyRingError::StillNeeded);
            }
            Ok(vec![DkimKey { replaces: Some(old.public.clone()), ..new }])
        };
        self.turn(key.account, &key.domain, renew).await.map(drop)
    }

    /// Forgets a key. If it signs, the next one does so in its place when it has been seen.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::StillNeeded`] unless forced, or what the table says.
    pub async fn delete(
        &self,
        account: AccountId,
        domain: &Domain,
        selector: &Selector,
        force: bool,
    ) -> Result<(), KeyRingError> {
        if let Some(key) = self.0.keys.find(account, domain, selector)
            && key.state != KeyState::Next
        {
            match force {
                true => self.retire(account, domain, selector, force).await?,
                false => self.check_unneeded(&key)?,
            }
        }
        self.0.keys.delete(account, domain, selector).await?;
        self.0.changed.notify_one();
        self.0.open.write().remove(&(account, domain.clone(), selector.clone()));
        Ok(())
    }

    /// Mail that the key signed is under way for so long.
    fn check_unneeded(&self, key: &DkimKey) -> Result<(), KeyRingError> {
        match self.published_until(key) {
            Some(until) if until <= self.0.clock.now() => Ok(()),
            _ => Err(KeyRingError::StillNeeded),
        }
    }

    fn check_domain(&self, account: AccountId, domain: &Domain) -> Result<(), KeyRingError> {
        let identity = self.0.identities.find(account, &IdentityName::Domain(domain.clone()));
        identity.map(drop).ok_or_else(|| KeyRingError::NotOurs(domain.clone()))
    }

    /// RSA takes its time, so it is made on a thread that may block.
    async fn generate(
        &self,
        account: AccountId,
        domain: Domain,
        selector: Selector,
        algorithm: DkimAlgorithm,
    ) -> Result<DkimKey, KeyRingError> {
        let made = tokio::task::spawn_blocking(move || PrivateKey::generate(algorithm)).await;
        let key = made.map_err(|_| KeyRingError::Interrupted)??;
        self.row(account, domain, selector, &key, KeyOrigin::Managed)
    }

    fn row(
        &self,
        account: AccountId,
        domain: Domain,
        selector: Selector,
        key: &PrivateKey,
        origin: KeyOrigin,
    ) -> Result<DkimKey, KeyRingError> {
        let now = self.0.clock.now();
        let sealing = self.0.sealer.key_beside(&self.0.keys.all())?;
        let sealed = sealing.seal(key.to_der(), &DkimKey::context(account, &domain, &selector))?;
        Ok(DkimKey {
            account,
            domain,
            selector,
            algorithm: key.algorithm(),
            state: KeyState::Next,
            since: now,
            origin,
            created: now,
            seen: None,
            until: None,
            replaces: None,
            public: key.public()?.record(),
            sealed: Sealed::new(sealed),
        })
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("sealer", &self.0.sealer).finish_non_exhaustive()
    }
}

fn context(key: &DkimKey) -> Vec<u8> {
    DkimKey::context(key.account, &key.domain, &key.selector)
}
