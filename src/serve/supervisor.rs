//! What the service manager is told (sd_notify): ready, alive, recovering, stopping.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use postrider_base::Scope;
use sd_notify::NotifyState;
use tracing::warn;

/// How often a start that takes long asks for more time, and how much more.
const RECOVERY_STEP: Duration = Duration::from_secs(5);
const RECOVERY_EXTENSION_USEC: u32 = 30_000_000;

/// Mail is accepted from now on.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line that `systemctl status` shows.
pub(crate) fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] ends it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot tell the service manager of the reload"),
    }
}

/// No new connections; `deadline` is left to end what has begun.
pub(crate) fn stopping(deadline: Duration) {
    let micros = u32::try_from(deadline.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Says at half the watchdog's time that the runtime still runs tasks.
pub(crate) fn keep_alive(scope: &Scope) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let inner = scope.clone();
    scope.spawn("watchdog", async move {
        loop {
            notify(&[NotifyState::Watchdog]);
            tokio::select! {
                () = inner.cancelled() => return,
                () = tokio::time::sleep(period / 2) => {}
            }
        }
    });
}

/// Asks for more time, and keeps the watchdog quiet, as long as this value lives: reading a
/// large log may take longer than a start is given. A thread, because recovery may keep the
/// runtime's threads busy.
#[derive(Debug)]
pub(crate) struct Recovering {
    done: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Recovering {
    pub(crate) fn start() -> Recovering {
        status("reading the log");
        let (done, ended) = mpsc::channel::<()>();
        let body = move || loop {
            notify(&[NotifyState::ExtendTimeoutUsec(RECOVERY_EXTENSION_USEC), NotifyState::Watchdog]);
            if ended.recv_timeout(RECOVERY_STEP) != Err(mpsc::RecvTimeoutError::Timeout) {
                return;
            }
        };
        let thread = thread::Builder::new().name("recovering".to_owned()).spawn(body).ok();
        Recovering { done: Some(done), thread }
    }
}

impl Drop for Recovering {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}
