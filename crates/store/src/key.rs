//! Keys whose bytes sort as the keys do.

/// A key of a table. `a < b` exactly when `a.to_bytes() < b.to_bytes()`.
pub trait Key: Sized {
    /// The key's bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// What [`Key::to_bytes`] wrote; `None` for anything else.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Key for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

impl Key for u64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    }
}

impl<const N: usize> Key for [u8; N] {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_slice().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered<K: Key + PartialEq + std::fmt::Debug>(keys: &[K]) {
        assert!(keys.is_sorted_by(|a, b| a.to_bytes() < b.to_bytes()), "{keys:?}");
        for key in keys {
            assert_eq!(K::from_bytes(&key.to_bytes()).as_ref(), Some(key));
        }
    }

    #[test]
    fn bytes_sort_as_keys_do() {
        ordered(&[0, 1, 255, 256, u64::MAX]);
        ordered(&["", "a", "aa", "b", "é"].map(String::from));
        ordered(&[[0, 0, 9], [0, 1, 0], [200, 0, 0]]);
    }

    #[test]
    fn other_bytes_are_no_keys() {
        assert_eq!(u64::from_bytes(&[1; 7]), None);
        assert_eq!(String::from_bytes(&[0xff]), None);
        assert_eq!(<[u8; 2]>::from_bytes(&[1]), None);
    }
}
