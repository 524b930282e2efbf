//! `cargo xtask test`: everything, with the real peers.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{cargo, fuzz, layers, packages, say};

/// A short look by every fuzzer, each time.
const FUZZ_SECONDS: u32 = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Do not look for or install Debian packages
    #[arg(long)]
    no_install: bool,
}

#[derive(Args)]
pub(crate) struct SoakOptions {
    /// How many times the daemon is killed
    #[arg(long, default_value_t = 500)]
    rounds: u32,
    /// How many times the power fails under a spool's file system
    #[arg(long, default_value_t = 100)]
    power_rounds: u32,
    /// How many cuts between system calls a spool comes back from
    #[arg(long, default_value_t = 5_000)]
    power_cuts: u32,
    /// How many random lives of the log and of the spool are compared with their models
    #[arg(long, default_value_t = 100_000)]
    model_cases: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !options.no_install {
        packages::ensure(&[packages::FOR_TESTS])?;
        packages::unpack_peers()?;
    }
    layers::check()?;
    let mut arguments = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    if let Some(filter) = &options.filter {
        arguments.extend(["--", filter.as_str()]);
    }
    let mut total = cargo_test(&arguments, &[])?;
    if options.filter.is_none() {
        let (held, broken) = fuzz::run(&fuzz::Options { seconds: FUZZ_SECONDS, target: None })?;
        total.passed += held;
        total.failed += broken;
    }
    total.conclude()
}

pub(crate) fn soak(options: &SoakOptions) -> Result<()> {
    packages::ensure(&[packages::FOR_TESTS])?;
    let SoakOptions { rounds, power_rounds, power_cuts, model_cases } = options;
    let mut total = cargo_test(
        &["test", "--release", "--locked", "--test", "kill", "--", "--nocapture"],
        &[("POSTRIDER_KILL_ROUNDS", &rounds.to_string())],
    )?;
    let power = cargo_test(
        &["test", "--release", "--locked", "--package", "postrider-testkit", "--test", "power", "--", "--nocapture"],
        &[("POSTRIDER_POWER_ROUNDS", &power_rounds.to_string()), ("POSTRIDER_POWER_CUTS", &power_cuts.to_string())],
    )?;
    let packages = ["--package", "postrider-wal", "--package", "postrider-spool", "--lib", "--test", "spool"];
    let lives = ["--", "every_synced_batch_survives", "nothing_is_lost_with_the_index", "--nocapture"];
    let models = cargo_test(
        &[&["test", "--release", "--locked"], &packages[..], &lives[..]].concat(),
        &[("POSTRIDER_MODEL_CASES", &model_cases.to_string())],
    )?;
    for part in [power, models] {
        total.passed += part.passed;
        total.failed += part.failed;
    }
    total.conclude()
}

/// Runs cargo's tests, passes their output on and adds the counts up, so that
/// one closing line tells the result of all of them.
fn cargo_test(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Counts> {
    let mut child = cargo()
        .args(arguments)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .context("running cargo test")?;
    let output = child.stdout.take().context("cargo's output is not piped")?;
    let mut total = Counts::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("reading cargo's output")?;
        total.add(&line);
        say(&line);
    }
    let status = child.wait().context("waiting for cargo")?;
    if !status.success() && total.failed == 0 {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(total)
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    /// Says the result of everything in one closing line.
    fn conclude(&self) -> Result<()> {
        say(&format!("{} passed, {} failed", self.passed, self.failed));
        match (self.passed, self.failed) {
            (0, 0) => bail!("no test ran"),
            (_, 0) => Ok(()),
            (_, failed) => bail!("{failed} failed"),
        }
    }

    /// Takes in a line such as `test result: ok. 3 passed; 1 failed; ...`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ').map(|(number, what)| (number.parse::<u64>(), what)) {
                Some((Ok(number), "passed")) => self.passed += number,
                Some((Ok(number), "failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_several_programs_add_up() {
        let mut total = Counts::default();
        total.add("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        total.add("test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s");
        assert_eq!(total, Counts { passed: 7, failed: 2 });
    }

    #[test]
    fn other_lines_count_nothing() {
        let mut total = Counts::default();
        total.add("test wal::tests::three passed; 9 failed ... ok");
        assert_eq!(total, Counts::default());
    }
}
