//! The log's choices, each on and off: waiting for company before a write, and
//! using the files of old segments again. On this disk and on one whose sync
//! takes four milliseconds.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, Disk, RealDisk};
use postrider_wal::Options as Wal;

use crate::drive::Sample;
use crate::matrix::bare;
use crate::place::Mailer;
use crate::slow_disk::SlowDisk;
use crate::{Options, median, say};

const SIZE: usize = 10_000;
const SLOW: Duration = Duration::from_millis(4);
const WRITERS: [usize; 2] = [20, 100];

struct Choice {
    name: &'static str,
    adaptive_wait: bool,
}

const CHOICES: [Choice; 2] =
    [Choice { name: "plain", adaptive_wait: false }, Choice { name: "wait", adaptive_wait: true }];

pub(crate) async fn run(options: &Options) -> io::Result<()> {
    say("disk    writers choice         commits/s    p99 ms   times plain");
    let disks: [(&str, Arc<dyn Disk>); 2] = [("real", Arc::new(RealDisk)), ("slow", Arc::new(SlowDisk(SLOW)))];
    let mailer = Mailer::new(SIZE, 1, Clock::system())?;
    for (name, disk) in disks {
        for writers in WRITERS {
            cell(options, &mailer, name, &disk, writers).await?;
        }
    }
    Ok(())
}

async fn cell(options: &Options, mailer: &Mailer, name: &str, disk: &Arc<dyn Disk>, writers: usize) -> io::Result<()> {
    let mut samples: [Vec<Sample>; CHOICES.len()] = Default::default();
    for run in 0..options.runs {
        for turn in 0..CHOICES.len() {
            let at = (run + turn) % CHOICES.len();
            let wal = Wal { adaptive_wait: CHOICES[at].adaptive_wait, ..Wal::default() };
            samples[at].push(bare(options, mailer, writers, disk.clone(), wal).await?);
        }
    }
    for (choice, own) in CHOICES.iter().zip(&samples) {
        let rate = median(own.iter().map(|sample| sample.rate));
        let p99 = median(own.iter().map(|sample| sample.p99));
        let times = median(own.iter().zip(&samples[0]).map(|(one, plain)| one.rate / plain.rate));
        let choice = choice.name;
        say(&format!("{name:7} {writers:7} {choice:12} {rate:11.0} {p99:9.2} {times:13.2}"));
        let figure = format!("spool_choice_{name}_{writers}_{choice}");
        say(&format!("figure {figure} {rate:.0} commits/s"));
        say(&format!("figure {figure}_p99 {p99:.2} ms"));
    }
    Ok(())
}
