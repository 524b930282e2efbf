//! Variable envelope return paths: a bounce comes back to an address that names the message
//! and the recipient it is about, and that nobody else can make up.

use crate::MessageId;

/// The first character of every local part of ours: which layout the rest has.
const LAYOUT: u8 = b'a';
/// RFC 4648 section 6, in lower case: hosts on the way may fold a local part.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Octets under the MAC: a message id, and the index of a recipient.
const NAMED: usize = 24 + 2;
/// With the MAC.
const BYTES: usize = NAMED + 8;
/// Five bits a character, and the layout's.
const LENGTH: usize = 1 + (BYTES * 8).div_ceil(5);
/// The bit of an index that says that it is the first of several. A message has far fewer
/// recipients than the rest can count.
const SHARED: u16 = 1 << 15;

/// What the local part of a return path says: 56 characters, lower-case letters and digits
/// (at most 64 octets are allowed, RFC 5321 section 4.5.3.1.1).
///
/// The whole message id is in it, its node and its time included, so that nothing has to be
/// kept to find the message by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verp {
    /// The message.
    pub id: MessageId,
    /// Whom the transaction was for.
    pub scope: VerpScope,
}

/// Whom a transaction was for, by indexes of the message's recipients. Below 32,767.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VerpScope {
    /// This one.
    One(u16),
    /// Several with the domain of this one: a transaction has recipients of one domain.
    DomainOf(u16),
}

impl VerpScope {
    fn to_bits(self) -> u16 {
        // What is too large names nobody, rather than somebody else.
        let index = |index: u16| index.min(SHARED - 1);
        match self {
            Self::One(only) => index(only),
            Self::DomainOf(first) => index(first) | SHARED,
        }
    }

    fn from_bits(bits: u16) -> Self {
        match bits & SHARED {
            0 => Self::One(bits),
            _ => Self::DomainOf(bits & !SHARED),
        }
    }

    /// The recipient, where it is for just one.
    #[must_use]
    pub fn one(self) -> Option<u16> {
        match self {
            Self::One(only) => Some(only),
            Self::DomainOf(_) => None,
        }
    }
}

impl Verp {
    /// The local part. `mac` is keyed by a secret of the relay's.
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> u64) -> String {
        let mut bytes = [0; BYTES];
        bytes[..24].copy_from_slice(&self.id.to_bytes());
        bytes[24..NAMED].copy_from_slice(&self.scope.to_bits().to_be_bytes());
        let tag = mac(&bytes[..NAMED]);
        bytes[NAMED..].copy_from_slice(&tag.to_be_bytes());
        let mut text = String::with_capacity(LENGTH);
        text.push(char::from(LAYOUT));
        for first in (0..BYTES * 8).step_by(5) {
            text.push(char::from(ALPHABET[usize::from(five_bits(&bytes, first))]));
        }
        text
    }

    /// Reads a local part, in any case. `None` for one that [`Verp::encode`] has not written
    /// with the same `mac`: which is not asked for what can not be ours.
    pub fn decode(local: &str, mac: impl FnOnce(&[u8]) -> u64) -> Option<Verp> {
        let (layout, rest) = local.as_bytes().split_first()?;
        if local.len() != LENGTH || !layout.eq_ignore_ascii_case(&LAYOUT) {
            return None;
        }
        let mut bytes = [0; BYTES];
        for (index, character) in rest.iter().enumerate() {
            let value = value_of(*character)?;
            for bit in 0..5 {
                let at = index * 5 + bit;
                let is_set = value >> (4 - bit) & 1;
                match bytes.get_mut(at / 8) {
                    Some(byte) => *byte |= is_set << (7 - at % 8),
                    // One spelling for each: what is left over is zero.
                    None if is_set == 1 => return None,
                    None => {}
                }
            }
        }
        let (named, tag) = bytes.split_at(NAMED);
        // One operation on the whole number: how much of it fits does not show in the time.
        let difference = mac(named) ^ u64::from_be_bytes(tag.try_into().ok()?);
        let (id, index) = named.split_at(24);
        let scope = VerpScope::from_bits(u16::from_be_bytes(index.try_into().ok()?));
        (difference == 0).then_some(Verp { id: MessageId::from_bytes(id.try_into().ok()?), scope })
    }
}

/// Five bits from the bit `first` on; zeros beyond the end.
fn five_bits(bytes: &[u8; BYTES], first: usize) -> u8 {
    let byte = |index: usize| u16::from(bytes.get(index).copied().unwrap_or(0));
    let pair = byte(first / 8) << 8 | byte(first / 8 + 1);
    let [_, low] = (pair >> (11 - first % 8)).to_be_bytes();
    low & 0x1f
}

fn value_of(character: u8) -> Option<u8> {
    match character.to_ascii_lowercase() {
        letter @ b'a'..=b'z' => Some(letter - b'a'),
        digit @ b'2'..=b'7' => Some(digit - b'2' + 26),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_base::Timestamp;
    use proptest::prelude::*;

    /// Depends on every byte, and on a key.
    fn mac(key: u64) -> impl Fn(&[u8]) -> u64 {
        move |bytes| {
            bytes.iter().fold(key | 1, |tag, byte| (tag ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
        }
    }

    fn example() -> Verp {
        let id = MessageId::new(0x0100, Timestamp::from_millis(1_700_000_000_000), 0x1234_5678 << 64 | 9);
        Verp { id, scope: VerpScope::One(2) }
    }

    #[test]
    fn the_layout_stays_what_it_is() {
        let local = example().encode(mac(1));
        assert_eq!(local, "aaeaadc6p4vuaaaaaaaabencwpaaaaaaaaaaaaciaal7pynafntjlhgi");
    }

    #[test]
    fn it_is_a_local_part_in_any_case() {
        let local = example().encode(mac(1));
        assert_eq!(local.len(), LENGTH);
        assert!(LENGTH <= 63 && format!("{local}@example.com").parse::<crate::EmailAddress>().is_ok());
        assert_eq!(Verp::decode(&local, mac(1)), Some(example()));
        assert_eq!(Verp::decode(&local.to_ascii_uppercase(), mac(1)), Some(example()));
        let together = Verp { scope: VerpScope::DomainOf(2), ..example() };
        assert_eq!(Verp::decode(&together.encode(mac(1)), mac(1)), Some(together));
        let beyond = Verp { scope: VerpScope::One(SHARED), ..example() };
        let read = Verp::decode(&beyond.encode(mac(1)), mac(1)).unwrap();
        assert_eq!(read.scope, VerpScope::One(SHARED - 1), "never shared by being too large");
    }

    #[test]
    fn what_is_forged_cut_or_somebody_elses_is_nothing() {
        let local = example().encode(mac(1));
        assert_eq!(Verp::decode(&local, mac(2)), None, "another key");
        for end in 0..LENGTH {
            assert_eq!(Verp::decode(&local[..end], mac(1)), None);
        }
        assert_eq!(Verp::decode(&format!("{local}a"), mac(1)), None);
        let mut spelt = local.clone().into_bytes();
        let last = spelt.last_mut().unwrap();
        *last = ALPHABET[usize::from(value_of(*last).unwrap() | 1)];
        assert_eq!(Verp::decode(std::str::from_utf8(&spelt).unwrap(), mac(1)), None, "another spelling");
        let asked = |_: &[u8]| -> u64 { panic!("the MAC is asked for what can not be ours") };
        let other = format!("b{}", &local[1..]);
        let foreign = "é".repeat(LENGTH / 2);
        for local in ["", "a", "postmaster", "ann+news", other.as_str(), foreign.as_str()] {
            assert_eq!(Verp::decode(local, asked), None, "{local}");
        }
    }

    proptest! {
        #[test]
        fn everything_comes_back(bytes: [u8; 24], index in 0..SHARED, is_shared: bool, key: u64) {
            let scope = if is_shared { VerpScope::DomainOf(index) } else { VerpScope::One(index) };
            let verp = Verp { id: MessageId::from_bytes(bytes), scope };
            prop_assert_eq!(Verp::decode(&verp.encode(mac(key)), mac(key)), Some(verp));
        }

        #[test]
        fn one_changed_character_is_noticed(at in 0..LENGTH, to in 0..32usize) {
            let local = example().encode(mac(1));
            let mut changed = local.clone().into_bytes();
            changed[at] = ALPHABET[to];
            let changed = String::from_utf8(changed).unwrap();
            prop_assert_eq!(Verp::decode(&changed, mac(1)).is_some(), changed == local);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            prop_assert_eq!(Verp::decode(&text, mac(1)), None);
        }
    }
}
