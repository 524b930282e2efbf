//! Who is to be woken when, without anybody asking again and again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use postrider_base::{Clock, Timestamp};
use tokio::sync::Notify;

/// Times at which somebody wants to be woken.
pub(crate) struct Alarms<T> {
    set: Mutex<BTreeMap<(Timestamp, u64), Weak<T>>>,
    /// The first one is nearer than it was.
    nearer: Notify,
    clock: Clock,
}

impl<T> Alarms<T> {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { set: Mutex::default(), nearer: Notify::new(), clock }
    }

    /// Moves the alarm of `sleeper`, whose number is `id`.
    pub(crate) fn set(&self, id: u64, before: Option<Timestamp>, at: Option<Timestamp>, sleeper: &Weak<T>) {
        let mut set = self.set.lock();
        if let Some(before) = before {
            set.remove(&(before, id));
        }
        let Some(at) = at else { return };
        set.insert((at, id), sleeper.clone());
        let is_first = set.first_key_value().is_some_and(|(key, _)| *key == (at, id));
        drop(set);
        if is_first {
            self.nearer.notify_one();
        }
    }

    /// Waits for the next alarm; who set it. Alarms that go off at the same
    /// time come together.
    pub(crate) async fn next(&self) -> Vec<Arc<T>> {
        loop {
            let nearer = self.nearer.notified();
            let first = self.set.lock().first_key_value().map(|((at, _), _)| *at);
            let now = self.clock.now();
            match first {
                Some(at) if at <= now => return self.ring(now),
                Some(at) => tokio::select! {
                    () = tokio::time::sleep(at.saturating_since(now)) => {}
                    () = nearer => {}
                },
                None => nearer.await,
            }
        }
    }

    fn ring(&self, now: Timestamp) -> Vec<Arc<T>> {
        let mut set = self.set.lock();
        let mut rung = Vec::new();
        while let Some(first) = set.first_entry().filter(|first| first.key().0 <= now) {
            rung.extend(first.remove().upgrade());
        }
        rung
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn alarms_go_off_in_time_and_those_moved_or_forgotten_do_not() {
        let start = Timestamp::from_millis(1_000_000);
        let clock = Clock::simulated(start);
        let alarms = Alarms::new(clock.clone());
        let sleepers: Vec<_> = (0..4u64).map(Arc::new).collect();
        let at = |secs| Some(start.saturating_add(Duration::from_secs(secs)));
        for (sleeper, secs) in sleepers.iter().zip([30, 20, 10, 40]) {
            alarms.set(**sleeper, None, at(secs), &Arc::downgrade(sleeper));
        }
        alarms.set(0, at(30), at(20), &Arc::downgrade(&sleepers[0]));
        alarms.set(2, at(10), None, &Weak::new());
        let rung = alarms.next().await;
        assert_eq!(rung.iter().map(|id| **id).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(Some(clock.now()), at(20));
        // One that nears while it is waited for.
        let moved = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            alarms.set(3, at(40), at(26), &Arc::downgrade(&sleepers[3]));
        };
        let (rung, ()) = tokio::join!(alarms.next(), moved);
        assert_eq!((rung.len(), Some(clock.now())), (1, at(26)));
    }
}
