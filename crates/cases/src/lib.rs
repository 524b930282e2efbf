//! Many random cases for tests that compare with a model, each with a seed of its own that
//! repeats it. No part of the product.

use postrider_base::Random;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// Tries `default` cases, or as many as `POSTRIDER_MODEL_CASES` says (of a test whose cases take
/// longer than others' only one in `one_in` of those), beginning with the seed in
/// `POSTRIDER_MODEL_SEED` or a random one; how many it tried. Prints the seed.
///
/// # Panics
/// When a case fails: made as small as it gets, and told with its seed.
pub fn each<S: Strategy>(default: u64, one_in: u64, strategy: &S, test: impl Fn(S::Value)) -> u64 {
    let cases = from_env("POSTRIDER_MODEL_CASES").map_or(default, |cases| cases.div_ceil(one_in));
    let first = from_env("POSTRIDER_MODEL_SEED").unwrap_or_else(|| Random::system().u64());
    run(cases, first, strategy, test);
    cases
}

#[expect(clippy::print_stderr, reason = "shown when the test fails, and with --nocapture")]
fn run<S: Strategy>(cases: u64, first: u64, strategy: &S, test: impl Fn(S::Value)) {
    eprintln!("{cases} cases from POSTRIDER_MODEL_SEED={first}");
    for seed in (0..cases).map(|n| first.wrapping_add(n)) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: 5000, ..Config::default() };
        let run = TestRunner::new_with_rng(config, random).run(strategy, |case| {
            test(case);
            Ok(())
        });
        if let Err(error) = run {
            let repeat = format!("POSTRIDER_MODEL_CASES=1 POSTRIDER_MODEL_SEED={seed} repeats this");
            match error {
                TestError::Fail(reason, case) => panic!("{repeat}: {reason}\n{case:?}"),
                TestError::Abort(reason) => panic!("{repeat}: {reason}"),
            }
        }
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_case_that_fails_is_told_with_its_seed_and_is_the_smallest() {
        let tried = RefCell::new(0);
        let all = each(5, 1, &(0..9u32), |_| *tried.borrow_mut() += 1);
        assert_eq!(*tried.borrow(), all);
        let failed = catch_unwind(AssertUnwindSafe(|| run(2_000, 1, &(0..1_000u32), |n| assert!(n < 700))));
        let said = failed.unwrap_err().downcast::<String>().unwrap();
        assert!(said.starts_with("POSTRIDER_MODEL_CASES=1 POSTRIDER_MODEL_SEED="), "{said}");
        assert!(said.ends_with("\n700"), "{said}");
    }
}
