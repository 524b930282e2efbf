//! What the spool reaches on real files, beside the bare log it stands on.
//! Prints tables and `figure NAME VALUE UNIT` lines.

mod choices;
mod drive;
mod life;
mod matrix;
mod place;
mod slow_disk;
mod waiting;

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use postrider_base::{Disk, RealDisk};

/// The daemon's allocator, for memory as the daemon has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: Options,
}

#[derive(Args, Clone)]
struct Options {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Interleaved runs; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Milliseconds of one measurement
    #[arg(long, default_value_t = 1500)]
    time: u64,
    /// Bodies in kilobytes (1,000 bytes)
    #[arg(long, value_delimiter = ',', default_values_t = [2, 10, 100])]
    sizes: Vec<usize>,
    /// Writers at the same time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20, 100, 500])]
    writers: Vec<usize>,
    /// Messages of a queue's life, and of a waiting queue
    #[arg(long, default_value_t = 1_000_000)]
    messages: usize,
    /// Bytes of a message that waits
    #[arg(long, default_value_t = 2_000)]
    waiting_size: usize,
    /// One side of the matrix without the other, for a profiler
    #[arg(long, value_enum)]
    alone: Option<Side>,
    /// Microseconds that a sync of the matrix takes at least: on a file system
    /// in memory, the same comparison on a disk that is always the same
    #[arg(long)]
    sync: Option<u64>,
    /// Where the files are: on the file system that is to be measured
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Messages a second, beside the bare log
    Matrix,
    /// The log's choices, on and off
    Choices,
    /// Hours of a queue, in and out
    Life,
    /// A million messages that wait: memory and restart
    Waiting,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// The bare log
    Log,
    /// The spool
    Spool,
}

#[derive(Subcommand)]
enum Role {
    /// Fills a queue and holds it
    #[command(hide = true)]
    Fill(waiting::Hold),
    /// Opens a queue that was left and holds it
    #[command(hide = true)]
    Reopen(waiting::Hold),
    /// Lets a queue live
    #[command(hide = true)]
    Live(life::Life),
}

fn main() -> ExitCode {
    let Arguments { role, options } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.and_then(|runtime| {
        runtime.block_on(async {
            match &role {
                Some(Role::Fill(hold)) => waiting::fill(hold).await,
                Some(Role::Reopen(hold)) => waiting::reopen(hold).await,
                Some(Role::Live(life)) => life::live(life).await,
                None => run(&options).await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-spool: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> io::Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    if options.wants(Part::Matrix) {
        matrix::run(options).await?;
    }
    if options.wants(Part::Choices) {
        choices::run(options).await?;
    }
    if options.wants(Part::Life) {
        life::run(options).await?;
    }
    if options.wants(Part::Waiting) {
        waiting::run(options).await?;
    }
    Ok(())
}

impl Options {
    /// The disk of the matrix.
    fn disk(&self) -> Arc<dyn Disk> {
        match self.sync {
            Some(sync) => Arc::new(slow_disk::SlowDisk(Duration::from_micros(sync))),
            None => Arc::new(RealDisk),
        }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.time)
    }
}

/// The middle one; 0 of none.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn failed(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

#[expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]
fn say(line: &str) {
    println!("{line}");
}
