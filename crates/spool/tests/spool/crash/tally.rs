//! What the lives went through.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// How often what happened, in all lives of a test.
#[derive(Debug, Default)]
pub(super) struct Tally(RefCell<BTreeMap<String, u64>>);

impl Tally {
    pub(super) fn count(&self, what: impl Into<String>) {
        *self.0.borrow_mut().entry(what.into()).or_default() += 1;
    }

    /// Shown when the test fails, and with --nocapture.
    #[allow(clippy::print_stderr)]
    pub(super) fn say(&self) {
        for (what, count) in &*self.0.borrow() {
            eprintln!("{count:9} {what}");
        }
    }

    /// Otherwise the test does not test what it should.
    pub(super) fn expect(&self, happened: &[&str]) {
        for what in happened {
            assert!(self.0.borrow().contains_key(*what), "{what}: never happened");
        }
    }
}
