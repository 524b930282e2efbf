//! Keeps the spool in a directory busy until it is killed, the disk fails or
//! enough messages are accepted, and tells what it was promised.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use postrider_testkit::spool_load::SpoolLoad;

#[derive(Parser)]
struct Arguments {
    /// Holds the spool and its index
    directory: PathBuf,
    /// Messages to accept
    #[arg(long, default_value_t = u64::MAX)]
    messages: u64,
    /// The last batch of the feed that was read before
    #[arg(long, default_value_t = 0)]
    cursor: u64,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let Arguments { directory, messages, cursor } = Arguments::parse();
    match (SpoolLoad { messages, cursor }).run(&directory).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody else to tell.
            let _ = writeln!(std::io::stderr(), "spool-load: {error}");
            ExitCode::FAILURE
        }
    }
}
