//! Whose mail it is: the address in the From field.

use postrider_mail::EmailAddress;

/// The first mailbox of a From field whose folding is taken out (RFC 5322 section 3.4).
/// Comments, display names and group names are passed over. `None` when there is none, or
/// what stands in its place is no address.
pub fn author(value: &str) -> Option<EmailAddress> {
    let mut text = String::new();
    let (mut is_quoted, mut comments, mut characters) = (false, 0_u32, value.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' if is_quoted || comments > 0 => {
                let escaped = characters.next()?;
                if is_quoted {
                    text.extend([character, escaped]);
                }
            }
            '"' if comments == 0 => {
                is_quoted = !is_quoted;
                text.push(character);
            }
            _ if is_quoted => text.push(character),
            '(' => comments += 1,
            ')' => comments = comments.saturating_sub(1),
            _ if comments > 0 => {}
            // What stood before is a name.
            '<' => text.clear(),
            ':' if !text.contains('@') => text.clear(),
            '>' | ',' | ';' if !text.trim().is_empty() => break,
            ',' | ';' => text.clear(),
            _ => text.push(character),
        }
    }
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_mailbox_counts() {
        for (value, address) in [
            ("ann@example.com", "ann@example.com"),
            ("Ann <ann@Example.COM>", "ann@example.com"),
            ("\"Last, Ann <x@y>\" <ann@example.com>", "ann@example.com"),
            ("\"A \\\" <\" <ann@example.com>, bob@example.com", "ann@example.com"),
            ("ann@example.com (Ann <x@y> (a\\)))", "ann@example.com"),
            (" (first) ann@example.com , bob@example.com", "ann@example.com"),
            ("Team: ann@example.com, bob@example.com;", "ann@example.com"),
            ("\"a b\"@example.com", "\"a b\"@example.com"),
            ("ann@[IPv6:2001:db8::1]", "ann@[IPv6:2001:db8::1]"),
            ("=?utf-8?q?A=2C?= <ann@bücher.example>", "ann@xn--bcher-kva.example"),
        ] {
            assert_eq!(author(value), Some(address.parse().unwrap()), "{value}");
        }
    }

    #[test]
    fn what_is_no_mailbox_is_nobody() {
        for value in ["", "Ann", "<>", "undisclosed:;", "Ann ann@example.com", "\"ann@example.com", "a\\@b", "(a@b"] {
            assert_eq!(author(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(value in "\\PC*") {
            let _ = author(&value);
        }
    }
}
