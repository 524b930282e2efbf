//! DKIM signatures on what is accepted: which keys sign, and where the work is done.
//!
//! A message is signed once, when all else is done to it and before it is committed: the
//! queue holds its final bytes, and retries need no key. A signature takes as much CPU as
//! everything else that acceptance does, so it is made on threads of its own and does not
//! hold up the sessions of others.

mod error;
mod keyring;
mod pool;
mod sealer;
mod settings;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turn_tests;
mod turns;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use postrider_account::DkimKey;
use postrider_base::{Metrics, Timestamp};
use postrider_mail::{AccountId, Domain, EmailAddress, HeaderBlock};
use postrider_mailauth::dkim::Digested;
use postrider_spool::Content;

pub use error::KeyRingError;
pub use keyring::{KeyRing, KeyRingDeps};
pub use sealer::Sealer;
pub use settings::DkimSettings;

use pool::Pool;

/// Signs what is accepted. A cheap handle; clones share the keys and the threads.
#[derive(Clone, Debug)]
pub struct Signing {
    ring: KeyRing,
    pool: Pool,
    /// Whose signature goes on everything besides.
    operator: Option<Domain>,
    metrics: Metrics,
}

impl Signing {
    /// Starts the threads that sign. They end when the last handle is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        ring: KeyRing,
        settings: &DkimSettings,
        operator: Option<Domain>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let pool = Pool::start(settings.threads(), settings.queue as usize, metrics.clone())?;
        let operator = operator.filter(|_| settings.operator_signature);
        Ok(Self { ring, pool, operator, metrics })
    }

    /// The keys.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The message with the signatures of its author's domain and, where that is wished, of
    /// the operator's in front. The latter goes on mail without a known author too. Its first
    /// piece holds the whole header. A message for which there is no key comes back as it is.
    pub(crate) async fn of_author(
        &self,
        account: AccountId,
        author: Option<&EmailAddress>,
        at: Timestamp,
        content: Content,
    ) -> Result<Content, KeyRingError> {
        let mut keys = author.map_or_else(Vec::new, |author| self.ring.keys_of(account, author));
        if let Some(operator) = &self.operator
            && keys.iter().all(|key| key.domain != *operator)
        {
            keys.extend(self.ring.keys_of_domain(AccountId::default(), operator));
        }
        self.with(keys, at, content).await
    }

    /// A message of the relay's own with the signature of the domain that it is sent from,
    /// if there is a key.
    pub(crate) async fn of_relay(
        &self,
        domain: &Domain,
        at: Timestamp,
        content: Content,
    ) -> Result<Content, KeyRingError> {
        self.with(self.ring.keys_of_domain(AccountId::default(), domain), at, content).await
    }

    async fn with(&self, keys: Vec<Arc<DkimKey>>, at: Timestamp, content: Content) -> Result<Content, KeyRingError> {
        if keys.is_empty() {
            return Ok(content);
        }
        let (ring, count) = (self.ring.clone(), keys.len() as u64);
        let chunks = content.chunks().to_vec();
        let signed = self.pool.run(move || sign(&ring, &keys, at, &chunks)).await;
        match signed {
            Some(Ok(fields)) => {
                self.metrics.dkim_signatures.inc_by(count);
                let mut chunks = Vec::with_capacity(content.chunks().len() + 1);
                chunks.push(fields);
                chunks.extend_from_slice(content.chunks());
                Ok(Content::new(chunks))
            }
            failed => {
                self.metrics.dkim_failures.inc();
                Err(failed.and_then(Result::err).unwrap_or(KeyRingError::Interrupted))
            }
        }
    }
}

/// The signature fields of these keys.
fn sign(ring: &KeyRing, keys: &[Arc<DkimKey>], at: Timestamp, chunks: &[Bytes]) -> Result<Bytes, KeyRingError> {
    let (first, rest) = chunks.split_first().ok_or(KeyRingError::Interrupted)?;
    let header = HeaderBlock::parse(first).map_err(KeyRingError::Header)?;
    let body = std::iter::once(&first[header.body_offset()..]).chain(rest.iter().map(|piece| &piece[..]));
    let message = Digested::new(&header, body)?;
    let mut fields = Vec::with_capacity(1024 * keys.len());
    for key in keys {
        ring.signer(key)?.sign(&message, at, &mut fields)?;
    }
    Ok(fields.into())
}
