//! The names of messages and accounts.

use std::fmt;
use std::str::FromStr;

use postrider_base::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::Error;

/// The id that a message gets when it is accepted and that every reply, log
/// line and event names it by. It looks like SES's: 60 characters,
/// `NNNNTTTTTTTTTTTT-uuid-000000`, where `NNNN` is the node in hex and `T` the
/// milliseconds since the Unix epoch in hex. Ids sort by node, then time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    head: u64,
    uuid: u128,
}

const TIME_BITS: u32 = 48;
const TEXT_LEN: usize = 60;
const TAIL: &str = "-000000";

impl MessageId {
    /// The node number of a relay that was given none.
    pub const DEFAULT_NODE: u16 = 0x0100;

    /// A new id. `uuid` is to be random (version 4), times beyond the year
    /// 10889 lose their high bits.
    pub fn new(node: u16, at: Timestamp, uuid: u128) -> MessageId {
        let millis = at.as_millis() & ((1 << TIME_BITS) - 1);
        MessageId { head: (u64::from(node) << TIME_BITS) | millis, uuid }
    }

    /// When the message was accepted.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.head & ((1 << TIME_BITS) - 1))
    }

    /// The node that accepted it.
    pub fn node(&self) -> u16 {
        u16::try_from(self.head >> TIME_BITS).expect("64 - 48 bits fit 16")
    }

    /// The random part.
    pub fn uuid(&self) -> u128 {
        self.uuid
    }

    /// 24 bytes that sort as the ids do.
    pub fn to_bytes(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.head.to_be_bytes());
        bytes[8..].copy_from_slice(&self.uuid.to_be_bytes());
        bytes
    }

    /// Reads what [`MessageId::to_bytes`] wrote; every value is an id.
    pub fn from_bytes(bytes: [u8; 24]) -> MessageId {
        let (mut head, mut uuid) = ([0; 8], [0; 16]);
        head.copy_from_slice(&bytes[..8]);
        uuid.copy_from_slice(&bytes[8..]);
        MessageId { head: u64::from_be_bytes(head), uuid: u128::from_be_bytes(uuid) }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uuid = Uuid::from_u128(self.uuid);
        write!(f, "{:016x}-{}{TAIL}", self.head, uuid.hyphenated())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = Error;

    /// Reads the one spelling that `Display` writes, nothing else.
    fn from_str(text: &str) -> Result<MessageId, Error> {
        let canonical = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        if text.len() != TEXT_LEN || !canonical {
            return Err(Error::MessageId);
        }
        let parse = || {
            let (head, rest) = text.split_at(16);
            let uuid = rest.strip_prefix('-')?.strip_suffix(TAIL)?;
            let head = u64::from_str_radix(head, 16).ok()?;
            Some((head, Uuid::try_parse(uuid).ok()?.as_u128()))
        };
        let (head, uuid) = parse().ok_or(Error::MessageId)?;
        Ok(MessageId { head, uuid })
    }
}

impl Serialize for MessageId {
    /// The text for people, 24 bytes for disks.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.to_bytes().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MessageId, D::Error> {
        if deserializer.is_human_readable() {
            crate::text::deserialize_from_str(deserializer, "a message id")
        } else {
            <[u8; 24]>::deserialize(deserializer).map(MessageId::from_bytes)
        }
    }
}

/// The number of an account: twelve digits, as AWS writes them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(u64);

impl AccountId {
    /// The largest number that has twelve digits.
    pub const MAX: AccountId = AccountId(999_999_999_999);

    /// The account with this number; `None` above [`AccountId::MAX`].
    pub const fn new(number: u64) -> Option<AccountId> {
        if number <= AccountId::MAX.0 { Some(AccountId(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Default for AccountId {
    /// The account of an install that has only one: `000000000001`.
    fn default() -> AccountId {
        AccountId(1)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012}", self.0)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AccountId {
    type Err = Error;

    /// Reads one to twelve digits.
    fn from_str(text: &str) -> Result<AccountId, Error> {
        if text.is_empty() || text.len() > 12 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::AccountId);
        }
        text.parse().map(AccountId).map_err(|_| Error::AccountId)
    }
}

impl Serialize for AccountId {
    /// The twelve digits for people, a number for disks.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AccountId, D::Error> {
        if deserializer.is_human_readable() {
            crate::text::deserialize_from_str(deserializer, "an account id")
        } else {
            let number = u64::deserialize(deserializer)?;
            AccountId::new(number).ok_or_else(|| serde::de::Error::custom(Error::AccountId))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "01000193b2a4c5d6-3f2504e0-4f89-41d3-9a0c-0305e82c3301-000000";

    #[test]
    fn an_id_reads_and_prints() {
        let id: MessageId = TEXT.parse().unwrap();
        assert_eq!(id.to_string(), TEXT);
        assert_eq!(id.node(), MessageId::DEFAULT_NODE);
        assert_eq!(id.timestamp().as_millis(), 0x0193_b2a4_c5d6);
        assert_eq!(MessageId::new(id.node(), id.timestamp(), id.uuid()), id);
    }

    #[test]
    fn only_the_one_spelling_is_read() {
        for bad in [
            String::new(),
            TEXT.to_uppercase(),
            TEXT.replace("-000000", "-000001"),
            TEXT.replacen('-', "0", 1),
            format!("{TEXT}0"),
            TEXT[..59].to_owned(),
            format!("+{}", &TEXT[1..]),
            format!("{}ä-000000", &TEXT[..51]),
        ] {
            assert_eq!(bad.parse::<MessageId>(), Err(Error::MessageId), "{bad}");
        }
    }

    #[test]
    fn serde_is_text_or_bytes() {
        let id: MessageId = TEXT.parse().unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{TEXT}\""));
        let bytes = postcard::to_allocvec(&id).unwrap();
        assert_eq!(bytes, id.to_bytes());
        assert_eq!(postcard::from_bytes::<MessageId>(&bytes).unwrap(), id);
    }

    #[test]
    fn account_numbers() {
        assert_eq!(AccountId::default().to_string(), "000000000001");
        let account: AccountId = "000000000042".parse().unwrap();
        assert_eq!(account.get(), 42);
        assert_eq!(serde_json::to_string(&account).unwrap(), "\"000000000042\"");
        for bad in ["", "+1", "-1", "1234567890123", "abc"] {
            assert_eq!(bad.parse::<AccountId>(), Err(Error::AccountId), "{bad}");
        }
        assert_eq!(AccountId::new(AccountId::MAX.get() + 1), None);
        let too_big = postcard::to_allocvec(&(AccountId::MAX.get() + 1)).unwrap();
        assert!(postcard::from_bytes::<AccountId>(&too_big).is_err());
    }

    proptest! {
        #[test]
        fn ids_survive_text_and_bytes(node: u16, millis in 0u64..1 << 48, uuid: u128) {
            let id = MessageId::new(node, Timestamp::from_millis(millis), uuid);
            prop_assert_eq!(id.to_string().len(), TEXT_LEN);
            prop_assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
            prop_assert_eq!(MessageId::from_bytes(id.to_bytes()), id);
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            if let Ok(id) = text.parse::<MessageId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
