//! Looking for many patterns in one short text.

/// The text of a reply, prepared for some hundred patterns.
///
/// Nearly all of them are not in it, so each is first held against a set of the
/// text's four-byte windows: a pattern whose first and last window are not
/// both in the set needs no search.
pub(super) struct Words {
    /// In lower case, with a space in front, so that a pattern can ask for the
    /// beginning of a word.
    text: String,
    windows: [u64; SET / 64],
}

/// Places in the set of windows: a text of the greatest length that a reply can
/// have (2,048 bytes) fills less than half of them.
const SET: usize = 4096;

impl Words {
    pub(super) fn new(text: &str) -> Self {
        let text = format!(" {}", text.to_ascii_lowercase());
        let mut windows = [0; SET / 64];
        for window in text.as_bytes().windows(4) {
            let place = place(window);
            windows[place / 64] |= 1 << (place % 64);
        }
        Self { text, windows }
    }

    /// True when the parts of `pattern`, separated by `..`, stand in the text in
    /// this order.
    pub(super) fn contain(&self, pattern: &str) -> bool {
        self.may_contain(pattern) && parts_in_order(pattern, &self.text)
    }

    fn may_contain(&self, pattern: &str) -> bool {
        let bytes = pattern.as_bytes();
        let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) else { return true };
        self.may_have(first) && self.may_have(last)
    }

    fn may_have(&self, window: &[u8; 4]) -> bool {
        let place = place(window);
        // A full stop may be one of the two between parts.
        window.contains(&b'.') || self.windows[place / 64] >> (place % 64) & 1 == 1
    }
}

/// The place of a window of four bytes in the set.
fn place(window: &[u8]) -> usize {
    let word = window.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
    // Fibonacci hashing: the upper twelve bits.
    (word.wrapping_mul(0x9e37_79b9) >> 20) as usize
}

fn parts_in_order(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    pattern.split("..").all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_their_parts_in_order() {
        let words = Words::new("Client host [192.0.2.7] BLOCKED using example.org");
        assert!(words.contain("client host..blocked"));
        assert!(words.contain(" client"));
        assert!(words.contain("org"));
        assert!(words.contain(" [1..2.7]"));
        assert!(!words.contain("blocked..client host"));
        assert!(!words.contain("using..using"));
        assert!(!words.contain(" lient"));
    }

    proptest! {
        #[test]
        fn the_set_of_windows_loses_nothing(text in "[ -~]{0,200}", at in 0usize..200, length in 1usize..30) {
            let words = Words::new(&text);
            let text = format!(" {}", text.to_ascii_lowercase());
            let at = at.min(text.len() - 1);
            let pattern = &text[at..(at + length).min(text.len())];
            prop_assume!(!pattern.contains(".."));
            prop_assert!(words.contain(pattern));
        }

        #[test]
        fn any_text_will_do(text: String, pattern in "[a-z .]{0,20}") {
            let _ = Words::new(&text).contain(&pattern);
        }
    }
}
