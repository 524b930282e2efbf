//! `cargo xtask bench`: builds for release and hands over to the measuring
//! program of the test kit.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::{cargo, packages};

#[derive(Args)]
pub(crate) struct Options {
    /// What to measure
    what: Bench,
    /// Further arguments of the benchmark (`--help` lists them)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bench {
    /// Load generator, relay and sink on this machine, Postfix beside it
    Relay,
    /// From a full queue to many hosts, Postfix beside it
    Delivery,
    /// The spool on real files, the bare log beside it
    Spool,
    /// DKIM signatures alone, beside the bare operation, and in the relay
    Auth,
    /// The SMTP server alone: rates, memory, system calls, allocations, instructions
    Server,
    /// What the rules about senders cost a message
    Rules,
    /// Suppression lists of ten million addresses: look-ups, memory, imports, the start
    Suppression,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let (package, name) = match options.what {
        Bench::Relay => {
            packages::ensure(&[packages::FOR_TESTS, packages::FOR_BENCHMARKS])?;
            ("postrider-testkit", "bench-relay")
        }
        Bench::Delivery => {
            packages::ensure(&[packages::FOR_TESTS, packages::FOR_BENCHMARKS])?;
            ("postrider-testkit", "bench-delivery")
        }
        Bench::Auth => ("postrider-bench", "bench-auth"),
        Bench::Rules => ("postrider-bench", "bench-rules"),
        Bench::Spool => ("postrider-bench", "bench-spool"),
        Bench::Suppression => ("postrider-bench", "bench-suppression"),
        Bench::Server => {
            packages::ensure(&[packages::FOR_COUNTING])?;
            ("postrider-bench", "bench-server")
        }
    };
    if !matches!(options.what, Bench::Rules | Bench::Spool) {
        checked(&["build", "--release", "--locked", "--bin", "postrider"])?;
    }
    let mut arguments = vec!["run", "--release", "--locked", "--quiet", "--package", package, "--bin", name, "--"];
    arguments.extend(options.rest.iter().map(String::as_str));
    checked(&arguments)
}

fn checked(arguments: &[&str]) -> Result<()> {
    let status = cargo().args(arguments).status().context("running cargo")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}
