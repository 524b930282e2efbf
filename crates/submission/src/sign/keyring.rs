//! The keys of all accounts: made, given, changed, and opened for signing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use postrider_account::{
    Accounts, DkimKey, DkimKeys, Error, Identities, Identity, IdentityName, KeyOrigin, KeyState, Sealed,
};
use postrider_base::{Clock, Random, Timestamp};
use postrider_mail::{AccountId, DkimAlgorithm, Domain, EmailAddress, Selector};
use postrider_mailauth::dkim::{PrivateKey, SealError, Sealing, Signer};
use tokio::sync::Notify;

use super::KeyRingError;

/// Keys that a domain has of each kind when the relay looks after them: one signs, one is
/// published to follow, and one is waited for until it is out of use everywhere, or rests.
const MANAGED_KEYS: usize = 3;

/// What a key ring works with.
#[derive(Debug)]
pub struct KeyRingDeps {
    /// Whose keys.
    pub accounts: Accounts,
    /// What opens them, or why that is not there: then keys can be listed and deleted alone.
    pub sealing: Result<Sealing, SealError>,
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
    sealing: Result<Sealing, String>,
    clock: Clock,
    random: Random,
    open: RwLock<HashMap<Name, Open>>,
    max_open: usize,
    retention: Duration,
    /// There are keys that nobody has looked for in the DNS.
    added: Notify,
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
        let KeyRingDeps { accounts, sealing, clock, random, max_open, retention } = deps;
        let (keys, identities) = (accounts.dkim_keys().clone(), accounts.identities().clone());
        let sealing = sealing.map_err(|error| error.to_string());
        Self(Arc::new(Inner {
            keys,
            identities,
            sealing,
            clock,
            random,
            open: RwLock::default(),
            max_open,
            retention,
            added: Notify::new(),
        }))
    }

    /// Whether the keys can be opened: better not to start than to send mail unsigned. A
    /// single damaged key is only told of in the log.
    ///
    /// # Errors
    /// [`KeyRingError::Sealing`], or [`KeyRingError::Seal`] when they were sealed by another
    /// key.
    pub fn check(&self) -> Result<(), KeyRingError> {
        let sealing = self.sealing()?;
        for key in self.0.keys.all() {
            match sealing.open(key.sealed.as_bytes(), &context(&key)) {
                Err(error @ SealError::WrongKey(_)) => return Err(error.into()),
                Err(error) => tracing::error!(key = key.record_name(), %error, "its domain's mail can not be signed"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn sealing(&self) -> Result<&Sealing, KeyRingError> {
        self.0.sealing.as_ref().map_err(|reason| KeyRingError::Sealing(reason.clone()))
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &DkimKeys {
        &self.0.keys
    }

    /// Waits until keys have been made or taken, since it was last waited for. For one who waits.
    pub async fn changed(&self) {
        self.0.added.notified().await;
    }

    /// When a retired key need not be published any more.
    #[must_use]
    pub fn published_until(&self, key: &DkimKey) -> Option<Timestamp> {
        (key.state == KeyState::Retired).then(|| key.since.saturating_add(self.0.retention))
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
        let der = self.sealing()?.open(row.sealed.as_bytes(), &context(row))?;
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
        self.0.added.notify_one();
        Ok(created)
    }

    /// Lets the next key of each kind sign in the place of the current one, which retires;
    /// with a selector, that key. Durable when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::NoNext`]; [`KeyRingError::NotSeen`] unless `force` says that the
    /// record is published; or what the table says.
    pub async fn rotate(
        &self,
        account: AccountId,
        domain: &Domain,
        selector: Option<&Selector>,
        force: bool,
    ) -> Result<Vec<Arc<DkimKey>>, KeyRingError> {
        let mut refusal = None;
        let now = self.0.clock.now();
        let changed = self.0.keys.change(account, domain, |keys| {
            rotated(keys, domain, selector, force, now).or_else(|error| {
                refusal = Some(error);
                Ok(Vec::new())
            })
        });
        let changed = changed.await?;
        refusal.map_or(Ok(changed), Err)
    }

    /// Notes that the record of this key has been seen in the DNS as it should be.
    ///
    /// # Errors
    /// [`KeyRingError::Account`].
    pub async fn seen(&self, key: &DkimKey) -> Result<(), KeyRingError> {
        let now = self.0.clock.now();
        self.edit(key.account, &key.domain, &key.selector, |key| key.seen = Some(now)).await
    }

    /// Lets a key sign no more. It stays published. Durable when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::Account`].
    pub async fn retire(&self, account: AccountId, domain: &Domain, selector: &Selector) -> Result<(), KeyRingError> {
        let now = self.0.clock.now();
        let retire = |key: &mut DkimKey| {
            if key.state != KeyState::Retired {
                (key.state, key.since) = (KeyState::Retired, now);
            }
        };
        self.edit(account, domain, selector, retire).await
    }

    /// Makes a new key under the selector of a retired managed one, to be the next. Durable
    /// when it returns.
    ///
    /// # Errors
    /// [`KeyRingError::StillNeeded`] or what the table says.
    pub async fn renew(&self, key: &DkimKey) -> Result<(), KeyRingError> {
        self.check_unneeded(key)?;
        let new = self.generate(key.account, key.domain.clone(), key.selector.clone(), key.algorithm).await?;
        self.edit(key.account, &key.domain, &key.selector, |row| *row = new).await
    }

    /// Forgets a key. Durable when it returns.
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
            && !force
            && key.state != KeyState::Next
        {
            self.check_unneeded(&key)?;
        }
        self.0.keys.delete(account, domain, selector).await?;
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

    async fn edit(
        &self,
        account: AccountId,
        domain: &Domain,
        selector: &Selector,
        edit: impl FnOnce(&mut DkimKey),
    ) -> Result<(), KeyRingError> {
        let change = |keys: &[Arc<DkimKey>]| {
            let found = keys.iter().find(|key| key.selector == *selector);
            let name = || selector.record_name(domain);
            let mut key = DkimKey::clone(found.ok_or_else(|| Error::NotFound { what: "DKIM key", name: name() })?);
            edit(&mut key);
            Ok(vec![key])
        };
        self.0.keys.change(account, domain, change).await?;
        Ok(())
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
        let sealed = self.sealing()?.seal(key.to_der(), &DkimKey::context(account, &domain, &selector))?;
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
            public: key.public()?.record(),
            sealed: Sealed::new(sealed),
        })
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("sealing", &self.0.sealing).finish_non_exhaustive()
    }
}

fn context(key: &DkimKey) -> Vec<u8> {
    DkimKey::context(key.account, &key.domain, &key.selector)
}

/// What becomes of a domain's keys: for each kind that has a next one, that signs and the
/// current one retires.
fn rotated(
    keys: &[Arc<DkimKey>],
    domain: &Domain,
    selector: Option<&Selector>,
    force: bool,
    now: Timestamp,
) -> Result<Vec<DkimKey>, KeyRingError> {
    let next = |algorithm| {
        let of_kind = |key: &&Arc<DkimKey>| key.state == KeyState::Next && key.algorithm == algorithm;
        let wanted = |key: &&Arc<DkimKey>| selector.is_none_or(|selector| key.selector == *selector);
        // One that has been seen rather than one that has not, then the oldest.
        keys.iter().filter(of_kind).filter(wanted).min_by_key(|key| (key.seen.is_none(), key.created, &key.selector))
    };
    let mut changed = Vec::new();
    for algorithm in [DkimAlgorithm::RsaSha256, DkimAlgorithm::Ed25519Sha256] {
        let Some(next) = next(algorithm) else { continue };
        if next.seen.is_none() && !force {
            return Err(KeyRingError::NotSeen(next.record_name()));
        }
        let current = keys.iter().filter(|key| key.state == KeyState::Current && key.algorithm == algorithm);
        let retired = current.map(|key| DkimKey { state: KeyState::Retired, since: now, ..DkimKey::clone(key) });
        changed.extend(retired);
        changed.push(DkimKey { state: KeyState::Current, since: now, ..DkimKey::clone(next) });
    }
    if changed.is_empty() { Err(KeyRingError::NoNext(domain.clone())) } else { Ok(changed) }
}
