//! The task that moves messages from memory to the index when they are no
//! longer young.

use std::sync::Arc;

use crate::shared::Shared;

/// Messages moved at once.
const STEP: usize = 256;

/// Moves messages until the spool is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let age = shared.settings.index_after.as_duration();
    let work = async {
        loop {
            shared.indexer.room().await;
            let next = shared.update(|state, now| state.age(age, STEP, now));
            match next {
                None => shared.young.notified().await,
                Some(at) => {
                    tokio::time::sleep(at.saturating_since(shared.clock.now())).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shared.scope.cancelled() => {}
    }
}
