//! Places for connections: a limit, and who waits for a place.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// So many places, which may become more and fewer. Who waits is served in
/// turn: one for each who waits, and in the order of coming for each.
#[derive(Debug)]
pub(crate) struct Seats {
    state: Mutex<State>,
    limit: AtomicUsize,
    taken: AtomicUsize,
    waiting: AtomicUsize,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    limit: usize,
    taken: usize,
    lines: VecDeque<Line>,
    /// Holders who were told that their place is wanted and have not left it.
    leaving: usize,
}

/// Those who wait for the same.
#[derive(Debug)]
struct Line {
    who: u64,
    waiters: VecDeque<oneshot::Sender<Seat>>,
}

/// A place, free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Taken away before a seat is thrown away under the lock.
    seats: Option<Arc<Seats>>,
    who: u64,
    is_leaving: AtomicBool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(seats) = self.seats.take() {
            let mut state = seats.state.lock();
            state.taken -= 1;
            state.leaving -= usize::from(*self.is_leaving.get_mut());
            seats.hand_out(&mut state);
        }
    }
}

impl Seat {
    /// Resolves when the place is wanted: see [`Seat::is_wanted`].
    pub(crate) async fn wanted(&self) {
        let Some(seats) = &self.seats else { return std::future::pending().await };
        loop {
            let mut called = pin!(seats.wanted.notified());
            called.as_mut().enable();
            if self.is_wanted() {
                return;
            }
            called.await;
        }
    }

    /// Whether somebody else waits for a place of this kind: true for as many
    /// holders as there are such. Who is told so is expected to leave soon.
    pub(crate) fn is_wanted(&self) -> bool {
        let Some(seats) = &self.seats else { return false };
        if self.is_leaving.load(Ordering::Relaxed) || seats.waiting() == 0 {
            return self.is_leaving.load(Ordering::Relaxed);
        }
        let mut state = seats.state.lock();
        let others = state.lines.iter().filter(|line| line.who != self.who);
        let waiting: usize = others.map(Line::alive).sum();
        let is_wanted = waiting > state.leaving;
        state.leaving += usize::from(is_wanted);
        self.is_leaving.store(is_wanted, Ordering::Relaxed);
        is_wanted
    }
}

impl Line {
    fn alive(&self) -> usize {
        self.waiters.iter().filter(|waiter| !waiter.is_closed()).count()
    }
}

impl Seats {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { limit, ..State::default() }),
            limit: AtomicUsize::new(limit),
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
        })
    }

    /// A place for `who`, at once or in turn. Giving up waiting loses nothing.
    pub(crate) async fn take(self: &Arc<Self>, who: u64) -> Seat {
        loop {
            let seat = match self.ask(who) {
                Ok(seat) => return seat,
                Err(seat) => seat,
            };
            // The sender is dropped with its line only when its seat was sent.
            if let Ok(seat) = seat.await {
                return seat;
            }
        }
    }

    fn ask(self: &Arc<Self>, who: u64) -> Result<Seat, oneshot::Receiver<Seat>> {
        let mut state = self.state.lock();
        if state.taken < state.limit && state.lines.is_empty() {
            state.taken += 1;
            self.publish(&state);
            return Ok(Seat { seats: Some(self.clone()), who, is_leaving: AtomicBool::new(false) });
        }
        let (sender, receiver) = oneshot::channel();
        match state.lines.iter_mut().find(|line| line.who == who) {
            Some(line) => {
                line.waiters.retain(|waiter| !waiter.is_closed());
                line.waiters.push_back(sender);
            }
            None => state.lines.push_back(Line { who, waiters: VecDeque::from([sender]) }),
        }
        self.publish(&state);
        drop(state);
        self.wanted.notify_waiters();
        Err(receiver)
    }

    /// How many places there are from now on; those in excess are not taken away.
    pub(crate) fn set_limit(self: &Arc<Self>, limit: usize) {
        let mut state = self.state.lock();
        state.limit = limit;
        self.hand_out(&mut state);
    }

    /// How many places there are.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many wait for one.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn hand_out(self: &Arc<Self>, state: &mut State) {
        while state.taken < state.limit {
            let Some(mut line) = state.lines.pop_front() else { break };
            if let Some(waiter) = line.waiters.pop_front() {
                let seat = Seat { seats: Some(self.clone()), who: line.who, is_leaving: AtomicBool::new(false) };
                match waiter.send(seat) {
                    Ok(()) => state.taken += 1,
                    // Its drop would ask for the lock.
                    Err(mut unwanted) => drop(unwanted.seats.take()),
                }
            }
            if !line.waiters.is_empty() {
                state.lines.push_back(line);
            }
        }
        self.publish(state);
    }

    /// For those who look without the lock.
    fn publish(&self, state: &State) {
        self.limit.store(state.limit, Ordering::Relaxed);
        self.taken.store(state.taken, Ordering::Relaxed);
        self.waiting.store(state.lines.iter().map(|line| line.waiters.len()).sum(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;

    fn wait(seats: &Arc<Seats>, who: u64) -> BoxFuture<'static, Seat> {
        let seats = seats.clone();
        let mut waiting: BoxFuture<'static, Seat> = Box::pin(async move { seats.take(who).await });
        assert!((&mut waiting).now_or_never().is_none());
        waiting
    }

    #[tokio::test]
    async fn who_waits_is_woken_in_turn() {
        let seats = Seats::new(1);
        let held = seats.take(1).await;
        let (mut first, mut second, mut other) = (wait(&seats, 1), wait(&seats, 1), wait(&seats, 2));
        assert_eq!((seats.taken(), seats.waiting()), (1, 3));
        drop(held);
        let held = (&mut first).now_or_never().unwrap();
        assert!((&mut second).now_or_never().is_none());
        drop(held);
        let held = (&mut other).now_or_never().expect("another comes before the second of the first");
        drop(held);
        drop((&mut second).now_or_never().unwrap());
        assert_eq!((seats.taken(), seats.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn who_gives_up_loses_nothing() {
        let seats = Seats::new(1);
        let held = seats.take(1).await;
        let (gone, mut waiting) = (wait(&seats, 2), wait(&seats, 3));
        drop(gone);
        drop(held);
        let held = (&mut waiting).now_or_never().unwrap();
        // Given up between the giving and the taking.
        let gone = wait(&seats, 2);
        drop(held);
        drop(gone);
        assert_eq!(seats.taken(), 0);
        drop(seats.take(4).now_or_never().unwrap());
    }

    #[tokio::test]
    async fn the_limit_rises_and_falls() {
        let seats = Seats::new(1);
        let first = seats.take(1).await;
        let mut waiting = wait(&seats, 1);
        seats.set_limit(2);
        let second = (&mut waiting).now_or_never().unwrap();
        seats.set_limit(1);
        let mut waiting = wait(&seats, 1);
        drop(first);
        assert!((&mut waiting).now_or_never().is_none(), "one above the limit was taken");
        drop(second);
        assert!((&mut waiting).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_holder_is_told_that_his_place_is_wanted() {
        let seats = Seats::new(2);
        let (one, other) = (seats.take(1).await, seats.take(1).await);
        assert!(!one.is_wanted());
        let same = wait(&seats, 1);
        assert!(!one.is_wanted(), "by oneself");
        drop(same);
        let told =
            tokio::spawn(async move { tokio::time::timeout(Duration::from_secs(9), one.wanted()).await.map(|()| one) });
        tokio::task::yield_now().await;
        let mut waiting = wait(&seats, 2);
        drop(told.await.unwrap().expect("somebody waits"));
        drop((&mut waiting).now_or_never().unwrap());
        assert!(!other.is_wanted());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn never_more_than_the_limit_and_everybody_is_served() {
        let seats = Seats::new(3);
        let most = Arc::new(AtomicUsize::new(0));
        let now = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..200u64)
            .map(|who| {
                let (seats, most, now) = (seats.clone(), most.clone(), now.clone());
                tokio::spawn(async move {
                    let _seat = seats.take(who % 7).await;
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    now.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 3);
        assert_eq!((seats.taken(), seats.waiting()), (0, 0));
    }
}
