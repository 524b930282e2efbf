//! How suppressed addresses are kept: by account and address.

use postrider_base::Timestamp;
use postrider_mail::{AccountId, EmailAddress, SuppressionReason};
use serde::{Deserialize, Serialize};

/// What a row is found by: rows of one account lie together, in the order of their
/// addresses. Addresses that differ only in case are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) account: AccountId,
    /// The address in lower case.
    pub(super) address: String,
}

impl Key {
    pub(super) fn new(account: AccountId, address: &EmailAddress) -> Self {
        Self { account, address: address.fold() }
    }
}

impl postrider_store::Key for Key {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.account.get().to_be_bytes(), self.address.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (account, address) = bytes.split_first_chunk()?;
        Some(Self {
            account: AccountId::new(u64::from_be_bytes(*account))?,
            address: std::str::from_utf8(address).ok()?.to_owned(),
        })
    }
}

/// What is kept of a suppressed address. A later form becomes another variant, so
/// that rows written today stay readable.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Row {
    V1 { reason: SuppressionReason, updated_at: Timestamp },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_bytes() {
        use postrider_store::Key as _;
        let key = Key::new(AccountId::default(), &"A@Example.com".parse().unwrap());
        assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(Key::from_bytes(b"short"), None);
        assert_eq!(Key::from_bytes(&[0xff; 20]), None);
    }
}
