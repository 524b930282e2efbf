//! Waking a driver, be it a thread or a task.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// Rung by anyone, heard by one; a ring before the wait is heard too.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    thread: Condvar,
    task: Notify,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock() = true;
        self.thread.notify_one();
        self.task.notify_one();
    }

    /// Blocks until the bell rings or `timeout` has passed.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let mut rung = self.rung.lock();
        if !*rung {
            match timeout {
                Some(timeout) => {
                    self.thread.wait_for(&mut rung, timeout);
                }
                None => self.thread.wait(&mut rung),
            }
        }
        *rung = false;
    }

    /// As [`Bell::wait`], for a task.
    pub(crate) async fn listen(&self, timeout: Option<Duration>) {
        match timeout {
            Some(timeout) => {
                let _ = tokio::time::timeout(timeout, self.task.notified()).await;
            }
            None => self.task.notified().await,
        }
    }
}
