//! 64-bit hashes of keys, the same on every machine and with every compiler, because files
//! are found by them.

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX: u64 = 0xd1b5_4a32_d192_ed03;

/// The hash of a key. With a seed that nobody outside knows, nobody can prepare keys that
/// collide.
pub(super) fn hash(seed: u64, key: &[u8]) -> u64 {
    let mut state = seed ^ ODD.wrapping_mul(key.len() as u64 + 1);
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = fold(state ^ u64::from_le_bytes(word), MIX).wrapping_add(seed);
    }
    fold(state ^ MIX, ODD)
}

/// Both halves of the product, so that every bit of it counts.
#[expect(clippy::cast_possible_truncation, reason = "the halves are taken one after the other")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_files_were_written_with() {
        let known = [hash(7, b""), hash(7, b"ann@example.com"), hash(8, b"ann@example.com")];
        assert_eq!(known, KNOWN);
    }

    /// A change of these needs another version of the files.
    const KNOWN: [u64; 3] = [1_828_226_805_859_556_097, 2_757_866_595_482_886_568, 5_335_220_178_620_299_881];

    #[test]
    fn they_spread() {
        let mut low = std::collections::HashSet::new();
        let mut high = std::collections::HashSet::new();
        for n in 0..10_000u32 {
            let hash = hash(3, format!("user{n}@example.com").as_bytes());
            low.insert(hash & 0xffff_ffff);
            high.insert(hash >> 32);
        }
        assert!(low.len() > 9_990 && high.len() > 9_990, "{} {}", low.len(), high.len());
    }
}
