//! Tags: words that people put on what they own, to sort it by.

use std::collections::BTreeMap;

use crate::Error;

/// Most tags of one thing, as in SES.
const MAX_TAGS: usize = 50;
/// Longest key, in characters, as in AWS.
const MAX_KEY: usize = 128;
/// Longest value, in characters, as in AWS; it may be empty.
const MAX_VALUE: usize = 256;

/// By key.
pub(crate) type Tags = BTreeMap<String, String>;

/// Whether something of the kind `what` may have these.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn check(what: &'static str, tags: &Tags) -> Result<(), Error> {
    let invalid = |reason| Err(Error::Invalid { what, reason });
    if tags.len() > MAX_TAGS {
        return invalid("it can have at most 50 tags");
    }
    for (key, value) in tags {
        if !(1..=MAX_KEY).contains(&key.chars().count()) || value.chars().count() > MAX_VALUE {
            return invalid("a tag has a key of 1 to 128 characters and a value of at most 256");
        }
        if key.contains('=') || key.chars().chain(value.chars()).any(char::is_control) {
            return invalid("a tag's key has no =, and neither key nor value has control characters");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn bounds_are_kept() {
        assert!(check("thing", &tags(&[("team", "billing"), ("empty", "")])).is_ok());
        for bad in [tags(&[("", "x")]), tags(&[("a=b", "x")]), tags(&[("a", "x\ny")]), tags(&[("a", &"x".repeat(257))])]
        {
            assert!(check("thing", &bad).is_err(), "{bad:?}");
        }
        let many = |count: usize| (0..count).map(|number| (number.to_string(), String::new())).collect();
        assert!(check("thing", &many(50)).is_ok());
        assert!(check("thing", &many(51)).is_err());
    }
}
