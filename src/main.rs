//! The command line and the daemon: reads the configuration, wires the rooms, starts and stops
//! them. Has no mail logic.

mod access;
mod cli;
mod command;
mod config;
mod dkim;
mod instance;
mod logging;
mod output;
mod outside;
mod quickstart;
mod rooms;
mod serve;
mod state;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use postrider_control::Error as ControlError;

use crate::cli::{Cli, Command};
use crate::command::doctor::Unwell;
use crate::command::state::Differs;
use crate::config::ConfigError;
use crate::output::{Output, ReaderGone};

/// Many small allocations on many threads: jemalloc keeps them apart and gives memory back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) if error.is::<Differs>() => ExitCode::from(2),
        Err(error) if error.is::<Unwell>() => ExitCode::from(exit_code(&error)),
        Err(error) => {
            report(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let mut out = Output::new(cli.json);
    match cli.command {
        Command::Serve { debug_tls_key_log } => serve::run(cli.config.as_deref(), debug_tls_key_log),
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Config(command) => command::config::run(&command, cli.config.as_deref(), &mut out),
        Command::Auth(command) => command::auth::run(&command, cli.config.as_deref(), &mut out),
        Command::Dmarc(command) => command::dmarc::run(&command, &mut out),
        Command::Restore(arguments) => command::backup::run_restore(&arguments, cli.config.as_deref(), &mut out),
        Command::Completions { shell } => command::help::completions(shell, &mut out),
        Command::Metrics => command::help::metrics(&mut out),
        Command::Man => command::help::man(&mut out),
        command => command::operate(command, cli.config.as_deref(), &mut out),
    }?;
    out.flush()
}

/// One line on standard error, which may be closed by now.
fn report(error: &anyhow::Error) {
    let text = format!("{error:#}");
    let _ = writeln!(io::stderr(), "postrider: {}", text.lines().map(str::trim).collect::<Vec<_>>().join("; "));
}

/// The documented exit codes; see `postrider --help`.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() {
        return 78;
    }
    if let Some(unwell) = error.downcast_ref::<Unwell>() {
        return unwell.exit_code();
    }
    match error.downcast_ref::<ControlError>() {
        Some(ControlError::NotFound(_)) => 3,
        Some(ControlError::NoDaemon | ControlError::Forbidden(_)) => 4,
        _ => 1,
    }
}
