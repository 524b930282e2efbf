//! What suppression lists of many millions cost: look-ups, memory, imports, the start.
//! Prints a table and `figure NAME VALUE UNIT` lines.
//!
//! Each part runs in a process of its own, so that its memory is its own: one fills the
//! lists, one starts from an orderly end, looks up and imports, one starts after a crash.

mod node;

use std::fmt::Display;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use postrider_base::Clock;
use postrider_testkit::relay::{Relay, RelayOptions, built_beside};

/// The daemon's allocator, for memory as the daemon has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Addresses of an import.
const IMPORTED: u64 = 100_000;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: Options,
}

#[derive(Args, Clone)]
struct Options {
    /// Addresses on the list; ten million take 600 MB of disk, and as much again while they are merged
    #[arg(long, default_value_t = 10_000_000)]
    addresses: u64,
    /// Look-ups of each kind
    #[arg(long, default_value_t = 1_000_000)]
    lookups: u64,
    /// Where the files are: on the file system that is to be measured
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Without the import through the command line of a running daemon
    #[arg(long)]
    alone: bool,
}

#[derive(Subcommand)]
enum Role {
    /// Fills the lists, for the other parts
    #[command(hide = true)]
    Fill { dir: PathBuf, addresses: u64 },
    /// Starts, looks up, imports, and ends without a close
    #[command(hide = true)]
    Use { dir: PathBuf, addresses: u64, lookups: u64 },
    /// Starts after that
    #[command(hide = true)]
    Restart { dir: PathBuf, addresses: u64 },
}

fn main() -> ExitCode {
    let Arguments { role, options } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.and_then(|runtime| {
        runtime.block_on(async {
            match role {
                Some(Role::Fill { dir, addresses }) => node::fill(&dir, addresses).await,
                Some(Role::Use { dir, addresses, lookups }) => node::work(&dir, addresses, lookups).await,
                Some(Role::Restart { dir, addresses }) => node::restart(&dir, addresses).await,
                None => measure(&options),
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-suppression: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    let dir = tempfile::Builder::new().prefix("suppression-").tempdir_in(&options.dir)?;
    let addresses = options.addresses.to_string();
    let (program, path) = (std::env::current_exe()?, dir.path().display().to_string());
    say(&format!("{addresses} addresses in {path}"));
    for arguments in [
        vec!["fill", &path, &addresses],
        vec!["use", &path, &addresses, &options.lookups.to_string()],
        vec!["restart", &path, &addresses],
    ] {
        let status = Command::new(&program).args(&arguments).status()?;
        if !status.success() {
            return Err(failed(format!("{} failed", arguments[0])));
        }
    }
    if options.alone { Ok(()) } else { import_through_the_command_line(dir.path()) }
}

/// As an operator does it, while the daemon runs: to the end of the command.
fn import_through_the_command_line(dir: &Path) -> io::Result<()> {
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let text = format!("[dns]\nservers = [\"{nobody}\"]\n");
    let relay = Relay::start(RelayOptions::to(built_beside(&std::env::current_exe()?)?, nobody, &text))?;
    let file = dir.join("list.csv");
    let lines: String = (0..IMPORTED).map(|number| format!("{}, BOUNCE\n", node::address_text(number))).collect();
    std::fs::write(&file, lines)?;
    let clock = Clock::system();
    let before = clock.instant();
    relay.cli(&["suppression", "import", &file.display().to_string()])?;
    figure("suppression_import_command", seconds(clock.instant() - before), "s");
    Ok(())
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn figure(name: &str, value: f64, unit: &str) {
    say(&format!("figure {name} {value:.3} {unit}"));
}

fn failed(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

#[expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]
fn say(line: &str) {
    println!("{line}");
}
