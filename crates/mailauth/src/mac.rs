//! A secret that tells what the relay itself has written from what others made up.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

/// A key for message authentication codes (HMAC with SHA-256, RFC 2104), of return paths and
/// of mailed links. Clones are the same key. Never shown.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// Octets of a key.
    pub const LENGTH: usize = 32;

    /// The key of these octets, which are random.
    #[must_use]
    pub fn new(secret: &[u8; Self::LENGTH]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The code of `data`. What is written for one purpose is nothing for another.
    #[must_use]
    pub fn tag(&self, purpose: &str, data: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(data);
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// Whether a code is that of `data`, in a time that does not tell how much of it is.
    #[must_use]
    pub fn is_tag(&self, purpose: &str, data: &[u8], tag: &[u8]) -> bool {
        verify_slices_are_equal(&self.tag(purpose, data), tag).is_ok()
    }

    /// The first 64 bits of the code, where room is short.
    #[must_use]
    pub fn short_tag(&self, purpose: &str, data: &[u8]) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.tag(purpose, data);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_keys_and_data_are_told_apart() {
        let key = MacKey::new(&[1; 32]);
        let tag = key.tag("link", b"data");
        assert_eq!(tag, MacKey::new(&[1; 32]).tag("link", b"data"));
        for other in [
            key.tag("verp", b"data"),
            key.tag("link", b"date"),
            key.tag("lin", b"kdata"),
            MacKey::new(&[2; 32]).tag("link", b"data"),
        ] {
            assert_ne!(tag, other);
        }
        assert!(key.is_tag("link", b"data", &tag));
        assert!(!key.is_tag("link", b"data", &tag[..31]) && !key.is_tag("verp", b"data", &tag));
        assert_eq!(key.short_tag("link", b"data").to_be_bytes(), tag[..8]);
        assert_eq!(format!("{key:?}"), "MacKey");
    }
}
