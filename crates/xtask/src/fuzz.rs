//! `cargo xtask fuzz`: coverage-guided fuzzing with libFuzzer, on the stable
//! toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{cargo, packages, say};

/// Every target has its seeds in a folder of its name.
const CORPUS: &str = "crates/fuzz/corpus";
/// Builds and what the fuzzers found out; not under version control.
const HOME: &str = "target/fuzz";
/// What rustc needs to be told so that libFuzzer sees which branches an input
/// takes. cargo-fuzz passes the same, and a sanitizer that only nightly has;
/// without unsafe code there is little for it to find.
const INSTRUMENT: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];
/// Longest input: some transactions with short messages.
const MAX_INPUT: u32 = 2_048;

#[derive(Args)]
pub(crate) struct Options {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u32,
    /// Only this target
    #[arg(long)]
    pub(crate) target: Option<String>,
}

/// Fuzzes each target for a while and says how many held, and how many did not.
pub(crate) fn run(options: &Options) -> Result<(u64, u64)> {
    packages::ensure(&[packages::FOR_FUZZING])?;
    let targets = targets(options.target.as_deref())?;
    let programs = build()?;
    let mut failed = Vec::new();
    for target in &targets {
        if !fuzz(target, &programs, options.seconds)? {
            failed.push(target.as_str());
        }
    }
    for target in &failed {
        say(&format!("fuzz: {target} failed; the input is under {HOME}/findings/{target}"));
    }
    Ok(((targets.len() - failed.len()) as u64, failed.len() as u64))
}

fn targets(only: Option<&str>) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(CORPUS).with_context(|| format!("reading {CORPUS}"))? {
        targets.push(entry?.file_name().to_string_lossy().into_owned());
    }
    targets.sort();
    if let Some(only) = only {
        if !targets.iter().any(|target| target == only) {
            bail!("no target {only:?}; there are: {}", targets.join(", "));
        }
        targets.retain(|target| target == only);
    }
    Ok(targets)
}

/// Builds the fuzzers; returns the folder that they are in.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let status = cargo()
        .args(["build", "--locked", "--quiet", "--profile", "fuzz", "--package", "postrider-fuzz"])
        // With a target named, build scripts and macros are not instrumented.
        .args(["--features", "libfuzzer", "--bins", "--target-dir", HOME, "--target", &host])
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENT.join("\x1f"))
        .status()
        .context("running cargo")?;
    if !status.success() {
        bail!("the fuzzers do not build");
    }
    Ok(Path::new(HOME).join(host).join("fuzz"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("running rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}

/// Runs one fuzzer; false when it found something.
fn fuzz(target: &str, programs: &Path, seconds: u32) -> Result<bool> {
    let grown = Path::new(HOME).join("corpus").join(target);
    let findings = Path::new(HOME).join("findings").join(target);
    for folder in [&grown, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let output = Command::new(programs.join(format!("fuzz-{target}")))
        .arg(&grown)
        .arg(Path::new(CORPUS).join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_INPUT}"))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .args(["-dict=crates/fuzz/smtp.dict", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .output()
        .with_context(|| format!("running fuzz-{target}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let stat = |name: &str| log.lines().rev().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    if output.status.success() {
        let runs = stat("stat::number_of_executed_units:");
        say(&format!("fuzz {target}: ok, {runs} inputs in {seconds} s"));
        return Ok(true);
    }
    say(&log);
    Ok(false)
}
