//! What the SMTP server costs, client and server in processes of their own.
//! Prints a table and `figure NAME VALUE UNIT` lines.

mod machine;
mod null_disk;
mod null_server;
mod parts;
mod trace;

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// The system's allocator, counting.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Messages of one run
    #[arg(long, default_value_t = 10_000)]
    messages: u64,
    /// Connections of one run
    #[arg(long, default_value_t = 3_000)]
    connections: u64,
    /// Interleaved runs; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Bytes of one message
    #[arg(long, default_value_t = 10 * 1024)]
    size: usize,
    /// Sessions at the same time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20, 100, 500])]
    sessions: Vec<usize>,
    /// Connections that are held without a word
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Messages a second
    Messages,
    /// Connections a second
    Connections,
    /// Memory of idle connections
    Idle,
    /// System calls of a message
    Calls,
    /// Heap allocations of a message
    Allocations,
    /// Instructions of a message
    Instructions,
}

#[derive(Subcommand)]
enum Role {
    /// The server without a disk, for the other parts
    #[command(hide = true)]
    ServeNull,
    /// The session machine alone, for callgrind
    #[command(hide = true)]
    Machine { messages: u64, size: usize },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match &arguments.role {
        Some(Role::Machine { messages, size }) => {
            machine::work(*messages, *size);
            Ok(())
        }
        Some(Role::ServeNull) => runtime.and_then(|runtime| runtime.block_on(null_server::serve())),
        None => runtime.and_then(|runtime| runtime.block_on(parts::run(&arguments))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-server: {error}"));
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

fn failed(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

#[expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]
fn say(line: &str) {
    println!("{line}");
}
