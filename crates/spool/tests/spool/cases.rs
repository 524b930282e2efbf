//! Many random cases, each with a seed of its own that repeats it.

use postrider_base::Random;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// Cases of a test that tries the most, when nothing else is said.
pub(crate) const MOST: u64 = 1000;

/// Tries `default` cases, or as many as `POSTRIDER_MODEL_CASES` says (tests
/// that try fewer than [`MOST`] try fewer of those too, in proportion),
/// beginning with the seed in `POSTRIDER_MODEL_SEED` or a random one. A case
/// that fails is made as small as it gets, and told with its seed.
#[allow(clippy::print_stderr)] // Shown when the test fails, and with --nocapture.
pub(crate) fn each<S: Strategy>(default: u64, strategy: &S, test: impl Fn(S::Value)) {
    let cases = from_env("POSTRIDER_MODEL_CASES").map_or(default, |cases| (cases * default).div_ceil(MOST));
    let first = from_env("POSTRIDER_MODEL_SEED").unwrap_or_else(|| Random::system().u64());
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
