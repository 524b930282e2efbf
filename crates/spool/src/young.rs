//! The task that moves messages from memory to the index when they are no
//! longer young.

use std::sync::Arc;
use std::time::Duration;

use crate::shared::Shared;

/// Messages moved at once.
const STEP: usize = 256;
/// How often the metrics of the log are brought up to date under way.
const PUBLISH: Duration = Duration::from_secs(1);

/// Moves messages until the spool is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let age = shared.settings.index_after.as_duration();
    let work = async {
        let mut published = shared.clock.now();
        loop {
            shared.indexer.room().await;
            let next = shared.update(|state, now| state.age(age, STEP, now));
            if shared.clock.now().saturating_since(published) >= PUBLISH {
                published = shared.clock.now();
                shared.publish();
            }
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
