//! A Bloom filter: "certainly not" or "very likely", from one cache line.

/// Bits a key: about one absent key in 250 passes.
const BITS: u64 = 12;
/// Bits that a key sets, all in one line.
const PROBES: u32 = 6;
/// Words of a line: 64 octets, what a processor fetches at once.
const LINE: usize = 8;

/// A set of keys by their hashes.
#[derive(Debug, PartialEq)]
pub(super) struct Filter {
    words: Box<[u64]>,
}

impl Filter {
    /// For about so many keys.
    pub(super) fn new(keys: u64) -> Self {
        let lines = usize::try_from(keys * BITS / 512 + 1).unwrap_or(usize::MAX / 512);
        Self { words: vec![0; lines * LINE].into() }
    }

    pub(super) fn insert(&mut self, hash: u64) {
        let line = self.line(hash);
        for (word, bit) in probes(hash) {
            self.words[line + word] |= bit;
        }
    }

    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let line = self.line(hash);
        probes(hash).all(|(word, bit)| self.words[line + word] & bit != 0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// What [`Filter::to_bytes`] wrote; `None` for anything else.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks();
        let whole = rest.is_empty() && !words.is_empty() && words.len().is_multiple_of(LINE);
        whole.then(|| Self { words: words.iter().map(|word| u64::from_le_bytes(*word)).collect() })
    }

    /// The first word of a hash's line: by its high bits, without a division.
    #[expect(clippy::cast_possible_truncation, reason = "less than the number of lines")]
    fn line(&self, hash: u64) -> usize {
        let lines = (self.words.len() / LINE) as u128;
        ((u128::from(hash) * lines) >> 64) as usize * LINE
    }
}

/// The words in a line and their bits: by the low 54 bits of the hash, nine for each.
fn probes(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    // The high bits chose the line, and few lines leave them alike: they are mixed in.
    let mixed = hash.wrapping_mul(0x9fb2_1c65_1e98_df25) ^ (hash >> 32);
    (0..PROBES).map(move |probe| {
        let bits = (mixed >> (probe * 9)) & 0x1ff;
        ((bits >> 6) as usize & (LINE - 1), 1 << (bits & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::super::hash::hash;
    use super::*;

    fn of(n: u64) -> u64 {
        hash(5, &n.to_le_bytes())
    }

    #[test]
    fn what_is_in_passes_and_little_else() {
        let mut filter = Filter::new(20_000);
        (0..20_000).for_each(|n| filter.insert(of(n)));
        assert!((0..20_000).all(|n| filter.may_contain(of(n))));
        let passed = (20_000..120_000).filter(|n| filter.may_contain(of(*n))).count();
        assert!(passed < 1_000, "{passed} of 100,000");
        assert!(filter.bytes() <= 20_000 * 12 / 8 + 64);
    }

    #[test]
    fn bytes_come_back_and_others_do_not() {
        let mut filter = Filter::new(100);
        filter.insert(of(1));
        let bytes = filter.to_bytes();
        assert_eq!(Filter::from_bytes(&bytes), Some(filter));
        for cut in [0, 1, 8, bytes.len() - 1] {
            assert_eq!(Filter::from_bytes(&bytes[..cut]), None);
        }
        assert!(!Filter::new(0).may_contain(of(1)));
    }
}
