//! Links that prove an address: who follows one reads the address's mail.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postrider_base::Timestamp;
use postrider_mail::{AccountId, EmailAddress};
use postrider_mailauth::MacKey;

/// How long a link can be followed, as in SES.
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 3600);

/// What codes of links are good for.
const PURPOSE: &str = "identity link";

/// Octets of a code.
const TAG: usize = 32;

/// Longer texts are no tokens: an address has at most 254 octets.
const MOST: usize = 512;

/// What a link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) account: AccountId,
    pub(crate) address: EmailAddress,
    pub(crate) sent: Timestamp,
    pub(crate) serial: u64,
}

impl Link {
    /// The token that stands in the link: letters, digits, `-` and `_`.
    pub(crate) fn token(&self, key: &MacKey) -> String {
        let numbers = [self.account.get(), self.sent.as_millis(), self.serial].map(u64::to_be_bytes).concat();
        let mut bytes = [&numbers[..], self.address.as_str().as_bytes()].concat();
        let tag = key.tag(PURPOSE, &bytes);
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token of ours says; `None` for what anybody else has written.
    pub(crate) fn read(token: &str, key: &MacKey) -> Option<Link> {
        if token.len() > MOST {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (said, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
        if !key.is_tag(PURPOSE, said, tag) {
            return None;
        }
        let (account, rest) = number(said)?;
        let (sent, rest) = number(rest)?;
        let (serial, address) = number(rest)?;
        Some(Link {
            account: AccountId::new(account)?,
            address: std::str::from_utf8(address).ok()?.parse().ok()?,
            sent: Timestamp::from_millis(sent),
            serial,
        })
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// Why a link does not prove anything. Its follower is told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// It is none of ours, or not whole. The follower's mistake, or a forgery; does not pass.
    Unknown,
    /// It is older than 24 hours. A new one can be asked for.
    Expired,
    /// A later one was mailed, or the address is not to be proved any more.
    Superseded,
    /// What it proves could not be written down. The relay's fault; passes.
    NotKept,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkError::Unknown => "This link is not one of ours, or it is not complete.",
            LinkError::Expired => "This link has expired. Ask for a new one.",
            LinkError::Superseded => "This link is not valid any more. If a newer one was mailed, use that.",
            LinkError::NotKept => "This did not work. Try again later.",
        })
    }
}

impl std::error::Error for LinkError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link() -> Link {
        Link {
            account: AccountId::default(),
            address: "ann@example.com".parse().unwrap(),
            sent: Timestamp::from_millis(1_700_000_000_000),
            serial: 7,
        }
    }

    #[test]
    fn a_token_says_what_was_put_in_and_nobody_else_can_write_one() {
        let key = MacKey::new(&[1; 32]);
        let token = link().token(&key);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert_eq!(Link::read(&token, &key), Some(link()));
        assert_eq!(Link::read(&token, &MacKey::new(&[2; 32])), None);
        let longest = format!("{}@{}.example", "a".repeat(64), vec!["b".repeat(60); 2].join("."));
        let long = Link { address: longest.parse().unwrap(), ..link() };
        assert_eq!(Link::read(&long.token(&key), &key), Some(long));
        for cut in 0..token.len() {
            assert_eq!(Link::read(&token[..cut], &key), None);
        }
        for wrong in ["", "x", "!!!", &"A".repeat(600), &"A".repeat(60)] {
            assert_eq!(Link::read(wrong, &key), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_token_is_nothing(at in 0..100usize, to in "[A-Za-z0-9_-]") {
            let key = MacKey::new(&[1; 32]);
            let token = link().token(&key);
            let mut changed = token.clone();
            let at = at % token.len();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(Link::read(&changed, &key).is_some(), changed == token);
        }
    }
}
