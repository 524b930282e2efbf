//! What is wrong with a policy, and where.

use std::fmt;

/// Why a policy was refused. Its author's to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// `Statement 2, Condition, StringLike, ses:FromAddress`; empty for the whole document.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is named comes from the document: one line, and not without end.
        let line = |text: &str| postrider_mail::sanitize_text(text, 512);
        match self.place.is_empty() {
            true => f.write_str(&line(&self.reason)),
            false => write!(f, "{}: {}", line(&self.place), line(&self.reason)),
        }
    }
}

impl std::error::Error for PolicyError {}

/// A place in a policy, by the way that leads there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    outer: Option<&'a Place<'a>>,
    name: &'a str,
}

impl<'a> Place<'a> {
    pub(super) fn whole() -> Self {
        Self { outer: None, name: "" }
    }

    pub(super) fn within(&'a self, name: &'a str) -> Place<'a> {
        Place { outer: Some(self), name }
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> PolicyError {
        PolicyError { place: self.to_string(), reason: reason.into() }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            outer.fmt(f)?;
            let separator = if outer.name.is_empty() { "" } else { ", " };
            write!(f, "{separator}{}", self.name)?;
        }
        Ok(())
    }
}
