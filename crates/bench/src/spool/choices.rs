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
use crate::place::{self, Mailer, Records};
use crate::slow_disk::SlowDisk;
use crate::{Options, median, say};

const SIZE: usize = 10_000;
const SLOW: Duration = Duration::from_millis(4);
const WRITERS: [usize; 2] = [20, 100];

struct Choice {
    name: &'static str,
    recycle: bool,
    adaptive_wait: bool,
}

const CHOICES: [Choice; 4] = [
    Choice { name: "recycled", recycle: true, adaptive_wait: false },
    Choice { name: "recycled_wait", recycle: true, adaptive_wait: true },
    Choice { name: "fresh", recycle: false, adaptive_wait: false },
    Choice { name: "fresh_wait", recycle: false, adaptive_wait: true },
];

pub(crate) async fn run(options: &Options) -> io::Result<()> {
    say("disk    writers choice         messages/s    p99 ms   times the first");
    let disks: [(&str, Arc<dyn Disk>); 2] = [("real", Arc::new(RealDisk)), ("slow", Arc::new(SlowDisk(SLOW)))];
    let records = place::records(&options.dir, &Mailer::new(SIZE, 1, Clock::system())?).await?;
    for (name, disk) in disks {
        for writers in WRITERS {
            cell(options, &records, name, &disk, writers).await?;
        }
    }
    Ok(())
}

async fn cell(
    options: &Options,
    records: &Records,
    name: &str,
    disk: &Arc<dyn Disk>,
    writers: usize,
) -> io::Result<()> {
    let mut samples: [Vec<Sample>; CHOICES.len()] = Default::default();
    for run in 0..options.runs {
        for turn in 0..CHOICES.len() {
            let at = (run + turn) % CHOICES.len();
            let Choice { recycle, adaptive_wait, .. } = CHOICES[at];
            let wal = Wal { recycle, adaptive_wait, ..Wal::default() };
            samples[at].push(bare(options, records, writers, disk.clone(), wal).await?);
        }
    }
    for (choice, own) in CHOICES.iter().zip(&samples) {
        let rate = median(own.iter().map(|sample| sample.rate));
        let p99 = median(own.iter().map(|sample| sample.p99));
        let times = median(own.iter().zip(&samples[0]).map(|(one, first)| one.rate / first.rate));
        let choice = choice.name;
        say(&format!("{name:7} {writers:7} {choice:14} {rate:11.0} {p99:9.2} {times:13.2}"));
        let figure = format!("spool_choice_{name}_{writers}_{choice}");
        say(&format!("figure {figure} {rate:.0} messages/s"));
        say(&format!("figure {figure}_p99 {p99:.2} ms"));
    }
    Ok(())
}
