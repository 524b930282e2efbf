//! An MX of our own behind a built-in route: accepts mail and shows it.
