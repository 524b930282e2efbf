//! Threads for work that would hold up a runtime's.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use postrider_base::Metrics;
use postrider_base::metrics::Held;
use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// So many threads, and a queue of bounded length before them. Whoever finds it full waits.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    jobs: mpsc::Sender<Job>,
    metrics: Metrics,
}

impl Pool {
    /// The threads end when the last handle is dropped and the queue is empty.
    pub(super) fn start(threads: usize, queue: usize, metrics: Metrics) -> io::Result<Self> {
        let (jobs, work) = mpsc::channel::<Job>(queue);
        let work = Arc::new(Mutex::new(work));
        for number in 0..threads {
            let work = Arc::clone(&work);
            thread::Builder::new().name(format!("dkim-{number}")).spawn(move || {
                loop {
                    // One waits for work, the others for their turn to wait.
                    let job = work.lock().blocking_recv();
                    let Some(job) = job else { return };
                    // Whoever asked learns of a panic from the answer that does not come.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self { jobs, metrics })
    }

    /// What `work` gives, done by one of the threads. `None` when it panicked.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, result) = oneshot::channel();
        let waiting = Held::new(&self.metrics.dkim_waiting);
        let job = Box::new(move || {
            drop(waiting);
            // Nobody waits any more when the session has gone.
            if !answer.is_closed() {
                let _ = answer.send(work());
            }
        });
        self.jobs.send(job).await.ok()?;
        result.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_by_several() {
        let pool = Pool::start(2, 1, Metrics::new()).unwrap();
        let barrier = Arc::new(Barrier::new(2));
        let meet = || {
            let barrier = barrier.clone();
            pool.run(move || {
                barrier.wait();
                thread::current().name().map(str::to_owned)
            })
        };
        let (one, other) = tokio::join!(meet(), meet());
        let mut names = [one.flatten().unwrap(), other.flatten().unwrap()];
        names.sort();
        assert_eq!(names, ["dkim-0", "dkim-1"]);
    }

    #[tokio::test]
    async fn a_panic_costs_one_job() {
        let pool = Pool::start(1, 1, Metrics::new()).unwrap();
        assert_eq!(pool.run(|| -> u32 { panic!("on purpose") }).await, None);
        assert_eq!(pool.run(|| 7).await, Some(7));
        assert_eq!(pool.metrics.dkim_waiting.get(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_holds_up_who_comes() {
        let pool = Pool::start(1, 1, Metrics::new()).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || held.recv().is_ok()).await }
        });
        let queued: Vec<_> = (0..2)
            .map(|number| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.run(move || number).await })
            })
            .collect();
        // One works, one is queued; the third is not.
        while pool.metrics.dkim_waiting.get() < 2 || pool.jobs.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.jobs.capacity(), 0);
        release.send(()).unwrap();
        assert_eq!(busy.await.unwrap(), Some(true));
        for (number, task) in queued.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Some(number));
        }
    }
}
