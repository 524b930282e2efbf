//! Just enough of RFC 5322 address lists to name senders and recipients in
//! events. Nothing here decides where mail goes.

use postrider_mail::Domain;

/// Splits a header field's value at the commas between addresses.
pub(crate) fn split(list: &str) -> Vec<&str> {
    let mut addresses = Vec::new();
    let mut from = 0;
    for (at, c) in plain(list) {
        if c == ',' {
            addresses.push(list[from..at].trim());
            from = at + 1;
        }
    }
    addresses.push(list[from..].trim());
    addresses.retain(|address| !address.is_empty());
    addresses
}

/// The domain of one address, with or without a display name.
pub(crate) fn domain_of(address: &str) -> Option<Domain> {
    let spec = match plain(address).find(|(_, c)| *c == '<') {
        Some((at, _)) => address[at + 1..].split('>').next().unwrap_or_default(),
        None => address,
    };
    let at = spec.rfind('@')?;
    // RFC 5322 section 3.2.2: a comment may follow.
    let domain = spec[at + 1..].split('(').next().unwrap_or_default();
    domain.trim().parse().ok()
}

/// Characters outside of quoted strings, comments and angle brackets, the
/// opening bracket included.
fn plain(text: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut quoted, mut escaped, mut comments, mut angle) = (false, false, 0u32, false);
    text.char_indices().filter(move |(_, c)| {
        let inside = quoted || comments > 0 || angle;
        if std::mem::take(&mut escaped) {
            return false;
        }
        match c {
            '\\' if quoted || comments > 0 => escaped = true,
            '"' if comments == 0 => quoted = !quoted,
            '(' if !quoted => comments += 1,
            ')' if !quoted => comments = comments.saturating_sub(1),
            '<' if !inside => angle = true,
            '>' if !quoted && comments == 0 => angle = false,
            _ => {}
        }
        !inside
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splits_between_addresses_only() {
        assert_eq!(
            split(r#""Doe, Jane" <jane@example.com>, b@example.com (x, y) ,, <"a,b"@example.net>"#),
            [r#""Doe, Jane" <jane@example.com>"#, "b@example.com (x, y)", r#"<"a,b"@example.net>"#]
        );
        assert!(split("").is_empty());
    }

    #[test]
    fn finds_the_domain() {
        for address in [
            "jane@Example.COM",
            "Jane <jane@example.com>",
            r#""x <y@z>" <"a@b"@example.com>"#,
            "jane@example.com (work)",
        ] {
            let domain = domain_of(address).map(|d| d.to_string());
            assert_eq!(domain.as_deref(), Some("example.com"), "{address}");
        }
        for bad in ["", "jane", "jane@", "<>", "jane@ex ample.com"] {
            assert_eq!(domain_of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".*") {
            for address in split(&text) {
                let _ = domain_of(address);
            }
        }
    }
}
