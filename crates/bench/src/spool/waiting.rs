//! A long queue that waits: what it takes in memory, and how soon a process
//! that finds it takes new mail and delivers old.

use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use postrider_base::{Clock, Metrics};
use postrider_spool::Spool;
use postrider_testkit::process::Usage;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::place::{self, Mailer, directory};
use crate::{Options, failed, say};

/// Half of the mail goes to the first of so many domains, the rest to the others in turn.
const DOMAINS: usize = 10_000;
const WRITERS: usize = 100;
/// Until the index has settled and the allocator has given memory back.
const REST: Duration = Duration::from_secs(12);

/// What a child works on.
#[derive(Args)]
pub(crate) struct Hold {
    /// The directory of the queue
    dir: PathBuf,
    /// Messages
    messages: usize,
    /// Bytes of each
    size: usize,
}

/// Fills a queue, says what it takes, holds it until it is killed.
pub(crate) async fn fill(hold: &Hold) -> io::Result<()> {
    let clock = Clock::system();
    let spool = place::spool(&hold.dir, &clock, &Metrics::new()).await?;
    let mailer = Mailer::new(hold.size, DOMAINS, clock)?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (spool, mailer, messages) = (spool.clone(), mailer.clone(), hold.messages);
        writers.spawn(async move {
            for number in (writer..messages).step_by(WRITERS) {
                let domain = if number % 2 == 0 { 0 } else { number / 2 };
                spool.accept(mailer.message(domain)).await.map_err(failed)?;
            }
            io::Result::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    tell("filled")?;
    settle(&spool).await;
    tell("settled")?;
    park(&spool).await
}

/// Opens a queue that was left, says when it takes and delivers, holds it
/// until it is killed or asked to stop.
pub(crate) async fn reopen(hold: &Hold) -> io::Result<()> {
    let clock = Clock::system();
    let spool = place::spool(&hold.dir, &clock, &Metrics::new()).await?;
    let mut message = Mailer::new(hold.size, 1, clock.clone())?.message(0);
    let mine = message.accepted_at;
    // Nobody may deliver it now: an old one is wanted.
    message.not_before = Some(mine.saturating_add(Duration::from_hours(1)));
    spool.accept(message).await.map_err(failed)?;
    tell("accepted")?;
    let claims = spool.take_due(1).await;
    if claims.iter().any(|claim| claim.message.accepted_at >= mine) {
        return Err(failed("a new message was claimed"));
    }
    tell("claimed")?;
    drop(claims);
    spool.recovered().await.map_err(failed)?;
    tell("recovered")?;
    let messages = spool.stat().messages;
    if messages <= hold.messages as u64 {
        return Err(failed(format!("{messages} messages wait, with one more than {}", hold.messages)));
    }
    settle(&spool).await;
    tell("settled")?;
    park(&spool).await
}

async fn settle(spool: &Spool) {
    loop {
        let stat = spool.stat();
        if stat.young == 0 && stat.index_backlog == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tokio::time::sleep(REST).await;
}

/// A line on stdin asks for a clean stop.
async fn park(spool: &Spool) -> io::Result<()> {
    let asked = tokio::task::spawn_blocking(|| io::stdin().lock().lines().next().transpose()).await??;
    if asked.is_some() {
        spool.close().await.map_err(failed)?;
    }
    Ok(())
}

fn tell(what: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()
}

/// Fills a queue in one process; opens it in others after a kill, after a
/// clean stop, and without its index.
pub(crate) async fn run(options: &Options) -> io::Result<()> {
    let dir = directory(&options.dir)?;
    say("waiting    accepted s  claimed s  recovered s  cpu s  resident MB  peak MB");
    let mut filled = Holder::start("fill", dir.path(), options)?;
    let seconds = filled.hear("filled").await?;
    say(&format!("figure spool_waiting_fill {:.0} messages/s", options.messages as f64 / seconds));
    filled.hear("settled").await?;
    let (steady, peak) = filled.memory()?;
    say(&format!("filled     {:>49} {peak:8.1}", format!("{steady:.1}")));
    say(&format!("figure spool_waiting_filled_rss {steady:.1} MB"));
    say(&format!("figure spool_waiting_filled_peak_rss {peak:.1} MB"));
    filled.kill().await?;
    let killed = open(dir.path(), options, "killed").await?;
    killed.stop().await?;
    let clean = open(dir.path(), options, "clean").await?;
    clean.kill().await?;
    std::fs::remove_dir_all(dir.path().join("index"))?;
    let rebuilt = open(dir.path(), options, "unindexed").await?;
    rebuilt.kill().await
}

async fn open(dir: &Path, options: &Options, how: &str) -> io::Result<Holder> {
    let mut holder = Holder::start("reopen", dir, options)?;
    let accepted = holder.hear("accepted").await?;
    let claimed = holder.hear("claimed").await?;
    let recovered = holder.hear("recovered").await?;
    let cpu = holder.processor()?;
    holder.hear("settled").await?;
    let (steady, peak) = holder.memory()?;
    say(&format!("{how:10} {accepted:10.2} {claimed:10.2} {recovered:12.2} {cpu:6.2} {steady:12.1} {peak:8.1}"));
    let name = format!("spool_waiting_{how}");
    say(&format!("figure {name}_accepted {accepted:.2} s"));
    say(&format!("figure {name}_claimed {claimed:.2} s"));
    say(&format!("figure {name}_recovered {recovered:.2} s"));
    say(&format!("figure {name}_recovered_cpu {cpu:.2} s"));
    say(&format!("figure {name}_rss {steady:.1} MB"));
    say(&format!("figure {name}_peak_rss {peak:.1} MB"));
    Ok(holder)
}

/// A process that holds a queue; killed when this goes.
struct Holder {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    clock: Clock,
    started: Instant,
}

impl Holder {
    fn start(role: &str, dir: &Path, options: &Options) -> io::Result<Self> {
        let clock = Clock::system();
        let started = clock.instant();
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg(dir)
            .args([options.messages.to_string(), options.waiting_size.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| failed("no output"))?;
        Ok(Self { child, input, output: BufReader::new(output).lines(), clock, started })
    }

    /// Waits until it says so; seconds since its start.
    async fn hear(&mut self, what: &str) -> io::Result<f64> {
        match self.output.next_line().await? {
            Some(line) if line == what => Ok((self.clock.instant() - self.started).as_secs_f64()),
            line => Err(failed(format!("{what} was expected, not {}", line.unwrap_or_default()))),
        }
    }

    /// Seconds of processor time so far.
    fn processor(&self) -> io::Result<f64> {
        Ok(Usage::of(self.pid()?)?.cpu.as_secs_f64())
    }

    /// Resident memory and its peak, MB.
    fn memory(&self) -> io::Result<(f64, f64)> {
        place::memory(self.pid()?)
    }

    fn pid(&self) -> io::Result<u32> {
        self.child.id().ok_or_else(|| failed("the process has ended"))
    }

    async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    async fn stop(mut self) -> io::Result<()> {
        use tokio::io::AsyncWriteExt as _;
        let mut input = self.input.take().ok_or_else(|| failed("no input"))?;
        input.write_all(b"stop\n").await?;
        match self.child.wait().await? {
            status if status.success() => Ok(()),
            status => Err(failed(format!("the process ended with {status}"))),
        }
    }
}
