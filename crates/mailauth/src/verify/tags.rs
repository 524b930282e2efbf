//! Tag lists (RFC 6376 section 3.2), as in keys and policies that domains publish.

/// The tags of a list, without the space around names and values. What is no tag is left out.
pub(crate) fn tags(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|tag| tag.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

/// The value of a tag, the first when it is there twice. Names have case.
pub(crate) fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    tags(text).find(|(tag, _)| *tag == name).map(|(_, value)| value)
}

/// A stranger's text on one line, at most 500 characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(500).collect()
}
