//! Writers that do the same thing over and over, each as soon as its last is done.

use std::future::Future;
use std::io;
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::process::Usage;
use tokio::task::JoinSet;

/// Not counted at the beginning: threads start, segments begin to be recycled.
const WARM: Duration = Duration::from_millis(400);

/// One measurement.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Times a second.
    pub(crate) rate: f64,
    /// Microseconds of processor time, of all threads, each time.
    pub(crate) cpu: f64,
    /// Milliseconds that 99 of 100 took at most.
    pub(crate) p99: f64,
}

/// Lets so many writers work; `work` gets a number that no other call gets.
pub(crate) async fn drive<F, W>(writers: usize, time: Duration, work: F) -> io::Result<Sample>
where
    F: Fn(usize) -> W + Clone + Send + 'static,
    W: Future<Output = io::Result<()>> + Send,
{
    let clock = Clock::system();
    let begin = clock.instant() + WARM;
    let end = begin + time;
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (clock, work) = (clock.clone(), work.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            for number in (writer..).step_by(writers) {
                let start = clock.instant();
                if start >= end {
                    break;
                }
                work(number).await?;
                let now = clock.instant();
                if now >= begin && now < end {
                    took.push((now - start).as_secs_f32());
                }
            }
            io::Result::Ok(took)
        });
    }
    let me = std::process::id();
    tokio::time::sleep_until(begin).await;
    let before = Usage::of(me)?;
    tokio::time::sleep_until(end).await;
    let cpu = Usage::of(me)?.since(before).cpu;
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.append(&mut done??);
    }
    took.sort_by(f32::total_cmp);
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
    let times = took.len() as f64;
    Ok(Sample { rate: times / time.as_secs_f64(), cpu: cpu.as_secs_f64() * 1e6 / times, p99: f64::from(p99) * 1e3 })
}
