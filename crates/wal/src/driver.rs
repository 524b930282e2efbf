//! Running the writer and the keeper: two threads, or two tasks.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::keeper::Step;
use crate::shared::Shared;
use crate::writer::{Turn, Writer};
use crate::{Driver, Error};

/// Starts both.
pub(crate) fn start(writer: Writer, shared: &Arc<Shared>) -> Result<(), Error> {
    match shared.options.driver {
        Driver::Thread => {
            let own = shared.clone();
            spawn("log-writer", move || write(writer, &own))?;
            let own = shared.clone();
            spawn("log-keeper", move || keep(&own))
        }
        Driver::Task => {
            let runtime = Handle::try_current().map_err(|_| Error::Option("Driver::Task needs a tokio runtime"))?;
            runtime.spawn(write_task(writer, shared.clone()));
            runtime.spawn(keep_task(shared.clone()));
            Ok(())
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map(|_| ())
        .map_err(|error| Error::io("starting a thread", error))
}

fn write(mut writer: Writer, shared: &Arc<Shared>) {
    let _ended = Ended(shared.clone());
    loop {
        if let Some((batches, wait)) = writer.patience() {
            shared.queue.wait_for(batches, wait);
        }
        match writer.turn() {
            Turn::Worked => {}
            Turn::Rest(timeout) => {
                if let Some(bell) = shared.queue.fall_asleep() {
                    bell.wait(timeout);
                }
            }
            Turn::Ended => break,
        }
    }
}

async fn write_task(mut writer: Writer, shared: Arc<Shared>) {
    let _ended = Ended(shared.clone());
    loop {
        match writer.turn() {
            Turn::Worked => tokio::task::yield_now().await,
            Turn::Rest(timeout) => {
                if let Some(bell) = shared.queue.fall_asleep() {
                    bell.listen(timeout).await;
                }
            }
            Turn::Ended => break,
        }
    }
}

fn keep(shared: &Arc<Shared>) {
    let _ended = Ended(shared.clone());
    loop {
        match shared.keeper.step() {
            Step::Worked => {}
            Step::Rest(timeout) => shared.keeper.bell().wait(timeout),
            Step::Ended => break,
        }
    }
}

async fn keep_task(shared: Arc<Shared>) {
    let _ended = Ended(shared.clone());
    loop {
        match shared.keeper.step() {
            Step::Worked => tokio::task::yield_now().await,
            Step::Rest(timeout) => shared.keeper.bell().listen(timeout).await,
            Step::Ended => break,
        }
    }
}

/// Says that a driver has ended; that one is missing ends the log.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up();
        }
        self.0.end();
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}
