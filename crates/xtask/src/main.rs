//! Developer commands for postrider: everything that needs more than plain
//! cargo, so that contributors and CI call the same thing.

mod bench;
mod fuzz;
mod layers;
mod packages;
mod test;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands for postrider")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the tests need, check the layers and run every test
    Test(test::Options),
    /// Measure; each benchmark ends with `figure NAME VALUE UNIT` lines
    Bench(bench::Options),
    /// Long runs of the crash harness
    Soak(test::SoakOptions),
    /// Look for inputs that break a promise, guided by coverage
    Fuzz(fuzz::Options),
    /// Check that crates depend on each other only as the architecture allows
    Layers,
    /// Regenerate the reference pages under docs/ from the code
    Docs,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Soak(options) => test::soak(&options),
        Task::Fuzz(options) => match fuzz::run(&options)? {
            (_, 0) => Ok(()),
            (_, failed) => bail!("{failed} targets failed"),
        },
        Task::Layers => layers::check(),
        Task::Docs => docs(),
    }
}

/// Writes the generated reference pages; a test fails while they are stale.
fn docs() -> Result<()> {
    let pages: [(&str, &[&str]); 2] =
        [("docs/configuration.md", &["config", "reference"]), ("docs/metrics.md", &["metrics"])];
    for (page, arguments) in pages {
        let output = cargo()
            .args(["run", "--quiet", "--bin", "postrider", "--"])
            .args(arguments)
            .output()
            .context("running postrider for its reference")?;
        if !output.status.success() {
            bail!("postrider {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        std::fs::write(Path::new(page), output.stdout).with_context(|| format!("writing {page}"))?;
        say(&format!("wrote {page}"));
    }
    Ok(())
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[expect(clippy::print_stdout, reason = "a developer command talks to its terminal")]
fn say(line: &str) {
    println!("{line}");
}
