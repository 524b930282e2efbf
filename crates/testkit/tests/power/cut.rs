//! Rounds of load, power cut and return, on a file system that is shut down.

use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use postrider_base::{Clock, Random};
use tokio::time::Instant;

use crate::ledger::{Counts, Ledger};
use crate::look::look;
use crate::machine::Machine;

/// How long the load may take to get going.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so long without load every outcome must be on the disk.
const IDLE: Duration = Duration::from_millis(1100);

pub(crate) struct Rounds {
    pub(crate) machine: Machine,
    pub(crate) random: Random,
    pub(crate) ledger: Ledger,
    pub(crate) timeline: Timeline,
}

/// Time since the beginning.
#[derive(Clone)]
pub(crate) struct Timeline {
    clock: Clock,
    began: Instant,
}

impl Timeline {
    pub(crate) fn begin() -> Self {
        let clock = Clock::system();
        Self { began: clock.instant(), clock }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.instant() - self.began
    }
}

/// What is done in one round.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Messages to be acknowledged before the cut.
    acked: u64,
    /// Time until the cut from then on.
    moment: Duration,
    /// Whether no more messages come than those.
    idle: bool,
    /// A second cut while the first is recovered from, after this time.
    again: Option<Duration>,
    /// Whether the index is lost too.
    without_index: bool,
}

impl Rounds {
    /// One round; the spool and what is known of it go on to the next.
    pub(crate) async fn round(&mut self, number: u64) -> Result<Counts, Box<dyn std::error::Error>> {
        let plan = self.plan(number);
        self.cut(plan.acked, plan.moment, plan.idle)?;
        if let Some(moment) = plan.again {
            self.cut(0, moment, false)?;
        }
        let directory = self.machine.path();
        if plan.without_index {
            remove_index(&directory)?;
        }
        let found = look(&directory, self.ledger.cursor()).await;
        let counts = found.and_then(|found| self.ledger.settle(&found));
        Ok(counts.map_err(|wrong| format!("round {number}, {plan:?}:\n{wrong}"))?)
    }

    fn plan(&self, number: u64) -> Plan {
        let idle = number % 4 == 3;
        let below = |bound| Duration::from_micros(self.random.below(bound));
        Plan {
            acked: 10 + self.random.below(250),
            moment: if idle { IDLE } else { below(20_000) },
            idle,
            again: (number % 3 == 2).then(|| below(150_000)),
            without_index: number % 2 == 1,
        }
    }

    /// Runs the load and takes its power away.
    fn cut(&mut self, acked: u64, moment: Duration, idle: bool) -> io::Result<()> {
        let switch = self.machine.switch()?;
        let target = self.ledger.acked() + acked;
        let messages = if idle { acked } else { u64::MAX };
        let load = Load::start(&self.machine.path(), messages, std::mem::take(&mut self.ledger), &self.timeline)?;
        let patient = load.wait_for(target);
        std::thread::sleep(moment);
        let cut = self.timeline.now();
        switch.off()?;
        self.ledger = load.kill()?;
        self.ledger.cut(cut);
        self.machine.on_again()?;
        match patient {
            true => Ok(()),
            false => Err(io::Error::other("the load does not get going")),
        }
    }
}

pub(crate) fn remove_index(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory.join("index")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The load program, and a thread that takes down what it says.
pub(crate) struct Load {
    program: Child,
    ledger: Arc<(Mutex<Ledger>, Condvar)>,
    reader: JoinHandle<io::Result<()>>,
}

impl Load {
    pub(crate) fn start(directory: &Path, messages: u64, ledger: Ledger, timeline: &Timeline) -> io::Result<Self> {
        let mut program = Command::new(env!("CARGO_BIN_EXE_spool-load"))
            .arg(directory)
            .args(["--messages", &messages.to_string(), "--cursor", &ledger.cursor().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It complains when its disk dies.
            .stderr(Stdio::null())
            .spawn()?;
        let output = program.stdout.take().ok_or_else(|| io::Error::other("the pipe was asked for"))?;
        let ledger = Arc::new((Mutex::new(ledger), Condvar::new()));
        let (shared, timeline) = (Arc::clone(&ledger), timeline.clone());
        let reader = std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut text = String::new();
            // The last line may be cut off.
            while output.read_line(&mut text)? > 0 && text.ends_with('\n') {
                let line = text.trim_end().parse().map_err(io::Error::other)?;
                shared.0.lock().take(line, timeline.now());
                shared.1.notify_all();
                text.clear();
            }
            Ok(())
        });
        Ok(Self { program, ledger, reader })
    }

    /// Waits until so many messages were acknowledged in all.
    pub(crate) fn wait_for(&self, acked: u64) -> bool {
        let (ledger, told) = &*self.ledger;
        let waited = told.wait_while_for(&mut ledger.lock(), |ledger| ledger.acked() < acked, PATIENCE);
        !waited.timed_out()
    }

    /// Ends it; what it told.
    pub(crate) fn kill(mut self) -> io::Result<Ledger> {
        self.program.kill()?;
        self.program.wait()?;
        self.reader.join().map_err(|_| io::Error::other("the reader panicked"))??;
        let ledger = std::mem::take(&mut *self.ledger.0.lock());
        Ok(ledger)
    }
}
