//! Tag lists (RFC 6376 section 3.2), as in keys and policies that domains publish.

use std::collections::HashSet;

/// The tags of a list, without the space around names and values. What is no tag is left out.
pub(crate) fn tags(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|tag| tag.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

/// The value of a tag, the first when it is there twice. Names have case.
pub(crate) fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    tags(text).find(|(tag, _)| *tag == name).map(|(_, value)| value)
}

/// Whether a list is one that all its readers read alike (RFC 6376 section 3.2): each tag has a
/// name and a value, and no name is there twice. Letters have case in names; but there are
/// readers who do not mind it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_list(text: &str) -> Result<(), String> {
    let mut names = HashSet::new();
    for tag in text.split(';').map(str::trim).filter(|tag| !tag.is_empty()) {
        let name = tag.split_once('=').map_or("", |(name, _)| name.trim());
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err("something in it is no tag with a value".to_owned());
        }
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(format!("it has the tag {} twice", printable(name)));
        }
    }
    Ok(())
}

/// A stranger's text on one line, at most 500 characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_alike_or_not_at_all() {
        for list in ["", "v=1", "v=1; d=a; dd=b;", " v = 1 ;\r\n a_1=;; b=x=y; "] {
            assert_eq!(check_list(list), Ok(()), "{list}");
        }
        for list in ["d=a; d=b", "d=a; D=b", "d=a;\td =a", "x; d=a", "d d=a", "=a", "d\0=a", "\u{a0}\u{e4}=a"] {
            assert!(check_list(list).is_err(), "{list}");
        }
    }
}
