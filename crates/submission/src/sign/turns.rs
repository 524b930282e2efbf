//! What becomes of the keys of a domain when they take turns.

use std::sync::Arc;
use std::time::Duration;

use postrider_account::{DkimKey, Error, KeyState};
use postrider_base::Timestamp;
use postrider_mail::{DkimAlgorithm, Domain, Selector};

use super::KeyRingError;

/// How long a look at a record counts: what was published long ago may be gone.
const FRESH: Duration = Duration::from_hours(1);

/// The keys of one domain at one moment. What its methods give is to take the place of the
/// keys of the same selectors.
pub(super) struct Turns<'k> {
    pub(super) domain: &'k Domain,
    pub(super) keys: &'k [Arc<DkimKey>],
    pub(super) now: Timestamp,
    /// How long a retired key stays published.
    pub(super) retention: Duration,
}

impl Turns<'_> {
    /// For each kind that has a next key, that signs and the current one retires. A kind
    /// whose next key nobody can find stays as it is, when there is another.
    pub(super) fn rotate(&self, selector: Option<&Selector>, force: bool) -> Result<Vec<DkimKey>, KeyRingError> {
        let kinds = [DkimAlgorithm::RsaSha256, DkimAlgorithm::Ed25519Sha256];
        let (ready, waiting): (Vec<_>, Vec<_>) = kinds
            .into_iter()
            .filter_map(|algorithm| self.next(algorithm, selector))
            .partition(|next| force || self.is_seen(next));
        match (ready.as_slice(), waiting.first()) {
            ([], None) => Err(KeyRingError::NoNext(self.domain.clone())),
            ([], Some(next)) => Err(KeyRingError::NotSeen(next.record_name())),
            (ready, _) => Ok(ready.iter().flat_map(|next| self.hand_over(next)).collect()),
        }
    }

    /// A key signs no more; the next of its kind does, when it has been seen.
    pub(super) fn retire(&self, selector: &Selector, force: bool) -> Result<Vec<DkimKey>, KeyRingError> {
        let key = self.find(selector)?;
        match (key.state, self.next(key.algorithm, None)) {
            (KeyState::Retired, _) => Ok(Vec::new()),
            (KeyState::Current, Some(next)) if self.is_seen(next) => Ok(self.hand_over(next)),
            (KeyState::Current, _) if !force => Err(KeyRingError::LastKey(key.record_name())),
            _ => Ok(vec![self.retired(key)]),
        }
    }

    /// Nothing signs before its record has been seen again.
    pub(super) fn start_over(&self) -> Vec<DkimKey> {
        let again = |key: &Arc<DkimKey>| {
            let unseen = DkimKey { seen: None, ..DkimKey::clone(key) };
            match key.state {
                KeyState::Current => DkimKey { state: KeyState::Next, since: self.now, ..unseen },
                _ => unseen,
            }
        };
        self.keys.iter().map(again).collect()
    }

    pub(super) fn find(&self, selector: &Selector) -> Result<&Arc<DkimKey>, Error> {
        let found = self.keys.iter().find(|key| key.selector == *selector);
        found.ok_or_else(|| Error::NotFound { what: "DKIM key", name: selector.record_name(self.domain) })
    }

    /// The key that follows: one that has been seen rather than one that has not, then the
    /// oldest.
    fn next(&self, algorithm: DkimAlgorithm, selector: Option<&Selector>) -> Option<&Arc<DkimKey>> {
        let of_kind = self.keys.iter().filter(|key| key.state == KeyState::Next && key.algorithm == algorithm);
        let wanted = of_kind.filter(|key| selector.is_none_or(|selector| key.selector == *selector));
        wanted.min_by_key(|key| (!self.is_seen(key), key.created, &key.selector))
    }

    fn is_seen(&self, key: &DkimKey) -> bool {
        key.seen.is_some_and(|seen| self.now.saturating_since(seen) <= FRESH)
    }

    fn hand_over(&self, next: &DkimKey) -> Vec<DkimKey> {
        let is_before = |key: &&Arc<DkimKey>| key.state == KeyState::Current && key.algorithm == next.algorithm;
        let mut changed: Vec<_> = self.keys.iter().filter(is_before).map(|key| self.retired(key)).collect();
        changed.push(DkimKey { state: KeyState::Current, since: self.now, ..next.clone() });
        changed
    }

    fn retired(&self, key: &DkimKey) -> DkimKey {
        let until = Some(self.now.saturating_add(self.retention));
        DkimKey { state: KeyState::Retired, since: self.now, until, ..key.clone() }
    }
}
