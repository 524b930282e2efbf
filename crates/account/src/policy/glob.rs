//! Patterns of policies: `*` stands for any number of characters, `?` for one.

/// Whether the whole text is as the pattern says. `same` compares two characters. Takes at most
/// as many steps as the product of the two lengths.
pub(super) fn matches(pattern: &str, text: &str, same: fn(char, char) -> bool) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // What follows the last `*`, and where its match was tried last.
    let mut retry = None;
    loop {
        let text_here = text.clone();
        let fits = match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                text = text_here;
                retry = Some((pattern.clone(), text.clone()));
                continue;
            }
            (Some('?'), Some(_)) => true,
            (Some(expected), Some(character)) => same(expected, character),
            (None, Some(_)) => false,
            (Some(_), None) => return false,
        };
        if fits {
            continue;
        }
        let Some((after_star, from)) = &mut retry else { return false };
        from.next();
        (pattern, text) = (after_star.clone(), from.clone());
    }
}

/// Characters as they are.
pub(super) fn exact(a: char, b: char) -> bool {
    a == b
}

/// ASCII letters without their case.
pub(super) fn ignoring_case(a: char, b: char) -> bool {
    a.eq_ignore_ascii_case(&b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plainly right, and slow.
    fn model(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(('*', rest)), _) => (0..=text.len()).any(|skipped| model(rest, &text[skipped..])),
            (Some(_), None) => false,
            (Some((expected, rest)), Some((character, others))) => {
                (*expected == '?' || expected == character) && model(rest, others)
            }
        }
    }

    #[test]
    fn wildcards_stand_anywhere() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
            ("*@example.com", "ann@example.com", true),
            ("*@example.com", "ann@example.com.evil.example", false),
            ("*admin*example.com", "sender@admin.example.com", true),
            ("marketing+.*@example.com", "marketing+.a@example.com", true),
            ("marketing+.*@example.com", "marketing@example.com", false),
            ("?nn@*", "änn@example.com", true),
            ("Ann@*", "ann@example.com", false),
        ] {
            assert_eq!(matches(pattern, text, exact), expected, "{pattern} {text}");
        }
        assert!(matches("SES:send*", "ses:SendRawEmail", ignoring_case));
    }

    #[test]
    fn many_stars_take_no_ages() {
        let (pattern, text) = (format!("{}b", "*a".repeat(1_000)), "a".repeat(4_000));
        assert!(!matches(&pattern, &text, exact));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn a_pattern_matches_what_the_model_says(pattern in "[abä*?]{0,8}", text in "[abäc]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text, exact), model(&chars(&pattern), &chars(&text)));
        }
    }
}
