//! Whose mail it is: the address in the From field.

use postrider_mail::EmailAddress;

use crate::header::mailboxes;

/// The first mailbox of a From field whose folding is taken out (RFC 5322 section 3.4).
/// Comments, display names and group names are passed over. Where the value breaks the rules,
/// as with a quotation mark or a bracket alone in a name, what stands in the last angle
/// brackets counts: so receivers read it too. `None` when there is no address in any way.
pub fn author(value: &str) -> Option<EmailAddress> {
    let strictly = mailboxes(value).ok().and_then(|found| found.into_iter().next());
    strictly.map(|mailbox| mailbox.address).or_else(|| in_last_brackets(value))
}

fn in_last_brackets(value: &str) -> Option<EmailAddress> {
    let (_, rest) = value.rsplit_once('<')?;
    rest.split_once('>')?.0.trim().parse().ok()
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
    fn a_name_that_breaks_the_rules_does_not_hide_the_address() {
        for value in
            ["27\" Monitors <ann@example.com>", "Bob :( <ann@example.com>", "Ann (<x@y>) (Ann \\< < ann@example.com >"]
        {
            assert_eq!(author(value), Some("ann@example.com".parse().unwrap()), "{value}");
        }
    }

    #[test]
    fn what_is_no_mailbox_is_nobody() {
        for value in [
            "",
            "Ann",
            "<>",
            "undisclosed:;",
            "Ann ann@example.com",
            "\"ann@example.com",
            "a\\@b",
            "(a@b",
            "(<a@b",
            "\"<>",
        ] {
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
