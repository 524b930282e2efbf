//! Quotas against a plain list of what was sent, under many threads, and after a restart.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use postrider_base::SimDisk;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::samples;

/// 2017-08-05T00:40:02.012Z
const START: Timestamp = Timestamp::from_millis(1_501_893_602_012);
const DAY: Duration = Duration::from_hours(24);
const MINUTE: Duration = Duration::from_mins(1);

fn daily(max: u64) -> Limits {
    Limits { per_day: Some(max), per_second: None }
}

fn after(time: Duration) -> Timestamp {
    START.saturating_add(time)
}

async fn quotas() -> (Quotas, TempDir) {
    let (store, index) = samples::store(&SimDisk::new());
    (Quotas::open(&store, Clock::simulated(START), &Settings::default()).unwrap(), index)
}

fn account(number: u64) -> AccountId {
    AccountId::new(number).unwrap()
}

/// Whether a message with so many recipients is sent.
fn send(quotas: &Quotas, limits: Limits, recipients: u32, now: Timestamp) -> Result<(), Exceeded> {
    quotas.reserve(account(7), &limits, recipients, now).map(Reservation::keep)
}

fn sent(quotas: &Quotas, now: Timestamp) -> u64 {
    quotas.usage(account(7), now).sent_last_24_hours
}

#[tokio::test]
async fn all_recipients_of_a_message_or_none() {
    let (quotas, _index) = quotas().await;
    assert_eq!(send(&quotas, daily(100), 60, START), Ok(()));
    assert_eq!(send(&quotas, daily(100), 41, START), Err(Exceeded::Daily));
    assert_eq!(send(&quotas, daily(100), 40, START), Ok(()));
    assert_eq!(send(&quotas, daily(100), 1, START), Err(Exceeded::Daily));
    assert_eq!(send(&quotas, daily(100), 0, START), Ok(()), "to the simulator");
    assert_eq!(sent(&quotas, START), 100);
    assert_eq!(send(&quotas, Limits::default(), 1, START), Ok(()), "without a bound it counts all the same");
    assert_eq!(sent(&quotas, START), 101);
    assert_eq!(send(&quotas, daily(100), 0, START), Ok(()), "whatever the bound is now");
    assert_eq!(quotas.usage(account(8), START), Usage::default(), "accounts have nothing in common");
    assert_eq!(quotas.accounts(START), [(account(7), Usage { sent_last_24_hours: 101 })]);
}

#[tokio::test]
async fn what_was_sent_counts_for_a_day_and_not_two_minutes_more() {
    let (quotas, _index) = quotas().await;
    send(&quotas, daily(10), 10, START).unwrap();
    assert_eq!(send(&quotas, daily(10), 1, after(DAY)), Err(Exceeded::Daily), "it is not over");
    assert_eq!(send(&quotas, daily(10), 10, after(DAY + MINUTE)), Ok(()));
    assert_eq!(sent(&quotas, after(DAY * 30)), 0, "after a long silence nothing counts");
    send(&quotas, daily(10), 10, after(DAY * 30)).unwrap();
    assert_eq!(send(&quotas, daily(10), 1, after(DAY * 31)), Err(Exceeded::Daily));
}

#[tokio::test]
async fn what_is_not_kept_goes_back() {
    let (quotas, _index) = quotas().await;
    let refused = quotas.reserve(account(7), &daily(10), 10, START).unwrap();
    assert_eq!(send(&quotas, daily(10), 1, START), Err(Exceeded::Daily), "it is being accepted");
    drop(refused);
    assert_eq!(send(&quotas, daily(10), 4, START), Ok(()));
    let slow = quotas.reserve(account(7), &daily(10), 6, START).unwrap();
    assert_eq!(sent(&quotas, after(DAY * 2)), 6, "the clock jumped meanwhile");
    drop(slow);
    assert_eq!(sent(&quotas, after(DAY * 2)), 0);
}

#[tokio::test(start_paused = true)]
async fn the_rate_allows_bursts_of_a_second_and_takes_nothing_from_the_day() {
    let (quotas, _index) = quotas().await;
    let limits = Limits { per_day: Some(100), per_second: Some(5) };
    for _ in 0..5 {
        assert_eq!(send(&quotas, limits, 1, START), Ok(()));
    }
    assert_eq!(send(&quotas, limits, 1, START), Err(Exceeded::Rate));
    assert_eq!(send(&quotas, limits, 0, START), Ok(()), "to the simulator");
    assert_eq!(sent(&quotas, START), 5);
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!(send(&quotas, limits, 1, START), Ok(()));
    assert_eq!(send(&quotas, limits, 1, START), Err(Exceeded::Rate));
    assert_eq!(send(&quotas, Limits { per_day: Some(6), ..limits }, 1, START), Err(Exceeded::Daily));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(send(&quotas, limits, 6, START), Ok(()), "more than a second's worth after a rest");
}

#[tokio::test]
async fn a_clock_that_goes_back_gives_no_second_quota_and_takes_none_for_good() {
    for back in [MINUTE, MINUTE * 59, MINUTE * 61, DAY * 365] {
        let (quotas, _index) = quotas().await;
        send(&quotas, daily(10), 10, START).unwrap();
        let now = START.saturating_sub(back);
        assert_eq!(send(&quotas, daily(10), 1, now), Err(Exceeded::Daily));
        let most = now.saturating_add(DAY + MINUTE * 61);
        assert_eq!(send(&quotas, daily(10), 10, most), Ok(()), "{back:?} back");
    }
}

#[tokio::test]
async fn a_bound_of_the_day_waits_until_what_was_before_is_counted() {
    let (quotas, _index) = quotas().await;
    quotas.recounting();
    assert_eq!(send(&quotas, daily(10), 1, START), Err(Exceeded::Recounting));
    assert_eq!(send(&quotas, Limits { per_day: None, per_second: Some(1) }, 1, START), Ok(()));
    quotas.recount(account(7), 8, START.saturating_sub(DAY / 2));
    quotas.recount(account(7), 100, START.saturating_sub(DAY * 2));
    quotas.recounted();
    assert_eq!(send(&quotas, daily(10), 2, START), Err(Exceeded::Daily));
    assert_eq!(send(&quotas, daily(10), 1, START), Ok(()));
}

async fn save(quotas: &Quotas, store: &Store, sent: &Sent) {
    let mut batch = Batch::new();
    quotas.save(sent, &mut batch).unwrap();
    store.write(batch).await.unwrap();
}

#[tokio::test]
async fn saved_counts_add_up_and_come_back_and_old_ones_go() {
    let disk = SimDisk::new();
    let (store, _index) = samples::store(&disk);
    let open = |now| Quotas::open(&store, Clock::simulated(now), &Settings::default()).unwrap();
    let quotas = open(START);
    for _ in 0..2 {
        let mut news = Sent::default();
        news.add(account(7), 3, START);
        news.add(account(7), 4, START.saturating_sub(DAY / 2));
        news.add(account(7), 100, START.saturating_sub(DAY * 2));
        news.add(Holder::Credential("AKIAEXAMPLE".to_owned()), 5, START);
        assert_eq!(news.rows(), 4);
        save(&quotas, &store, &news).await;
    }
    let quotas = open(START);
    assert_eq!(sent(&quotas, START), 14);
    assert_eq!(sent(&quotas, after(DAY / 2 + MINUTE)), 6);
    assert_eq!(quotas.usage(Holder::Credential("AKIAEXAMPLE".to_owned()), START).sent_last_24_hours, 10);
    assert_eq!(sent(&open(START.saturating_sub(DAY * 9)), START.saturating_sub(DAY * 9)), 14, "of the future");
    let later = after(DAY * 2);
    save(&open(later), &store, &Sent::default()).await;
    assert!(store.table::<Key, Hour>(table::TABLE).is_empty().unwrap());
}

#[tokio::test]
async fn who_has_sent_nothing_for_a_day_takes_no_memory() {
    let (quotas, _index) = quotas().await;
    let known = |quotas: &Quotas| quotas.0.holders.lock().len();
    let shop = || Holder::Credential("AKIAEXAMPLE".to_owned());
    quotas.reserve(shop(), &daily(10), 10, START).unwrap().keep();
    send(&quotas, daily(10), 10, after(DAY / 2)).unwrap();
    quotas.forget_idle(after(DAY));
    assert_eq!((known(&quotas), quotas.usage(shop(), after(DAY)).sent_last_24_hours), (2, 10));
    quotas.forget_idle(after(DAY + MINUTE));
    assert_eq!((known(&quotas), sent(&quotas, after(DAY + MINUTE))), (1, 10));
    assert!(quotas.find(&shop()).is_none());
    // Nothing counts of the other one, but somebody is about to take from it.
    let found = quotas.count(&account(7).into());
    quotas.forget_idle(after(DAY * 2));
    assert!(Arc::ptr_eq(&found, &quotas.count(&account(7).into())));
    drop(found);
    quotas.forget_idle(after(DAY * 2));
    assert_eq!(known(&quotas), 0);
    assert_eq!(send(&quotas, daily(10), 10, after(DAY * 2)), Ok(()), "it is known again");
}

#[tokio::test]
async fn what_is_taken_while_idle_ones_are_forgotten_counts() {
    let (quotas, _index) = quotas().await;
    let kept = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| {
            for _ in 0..2_000 {
                let taken = quotas.reserve(account(7), &daily(u64::MAX), 1, START).unwrap();
                // Given back, it is idle until the next.
                let is_kept = kept.fetch_add(1, Ordering::Relaxed) >= 10;
                if is_kept {
                    taken.keep();
                }
            }
        });
        while !taking.is_finished() {
            quotas.forget_idle(START);
        }
    });
    assert_eq!(sent(&quotas, START), 1_990);
}

/// What should be answered, by adding up a list.
#[derive(Default)]
struct Model(Vec<(Timestamp, u64)>);

impl Model {
    fn since(&self, from: Timestamp) -> u64 {
        self.0.iter().filter(|(at, _)| *at >= from).map(|(_, recipients)| recipients).sum()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(u32),
    Fail(u32),
    Wait(u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u32..60).prop_map(Step::Send),
        1 => (0u32..60).prop_map(Step::Fail),
        4 => (0u64..200_000).prop_map(Step::Wait),
        2 => (0u64..14_000_000).prop_map(Step::Wait),
        1 => (80_000_000u64..90_000_000).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn never_more_than_the_maximum_in_any_day_and_what_is_due_within_a_minute(steps in steps()) {
        const MAX: u64 = 100;
        let (mut window, mut model, mut now) = (Window::default(), Model::default(), START);
        for step in steps {
            match step {
                Step::Wait(millis) => now = now.saturating_add(Duration::from_millis(millis)),
                Step::Fail(recipients) => {
                    if window.reserve(recipients, Some(MAX), minute_of(now)).is_some() {
                        window.give_back(recipients);
                    }
                }
                Step::Send(recipients) => {
                    let recipients64 = u64::from(recipients);
                    let taken = window.reserve(recipients, Some(MAX), minute_of(now));
                    if let Some(minute) = taken {
                        window.keep(recipients, minute);
                        model.0.push((now, recipients64));
                        prop_assert!(model.since(now.saturating_sub(DAY)) <= MAX);
                    } else {
                        prop_assert!(model.since(now.saturating_sub(DAY + MINUTE)) + recipients64 > MAX);
                    }
                }
                Step::Restart => {
                    let after = Window::default();
                    model.0.iter().for_each(|(at, n)| after.add(u32::try_from(*n).unwrap(), minute_of(*at), minute_of(now)));
                    prop_assert_eq!(after.used(minute_of(now)), window.used(minute_of(now)));
                    window = after;
                }
            }
        }
    }
}

#[tokio::test]
async fn many_threads_get_no_more_than_there_is_and_all_of_it() {
    const MAX: u64 = 20_000;
    let (quotas, _index) = quotas().await;
    let kept = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (quotas, kept) = (&quotas, &kept);
            scope.spawn(move || {
                for turn in 0..4_000u64 {
                    let now = after(MINUTE * u32::try_from(turn / 1000).unwrap());
                    let Ok(reservation) = quotas.reserve(account(7), &daily(MAX), 1 + u32::from(turn % 2 == 0), now)
                    else {
                        continue;
                    };
                    assert!(sent(quotas, now) <= MAX);
                    if (turn + thread) % 3 == 0 {
                        drop(reservation);
                    } else {
                        kept.fetch_add(u64::from(reservation.recipients), Ordering::Relaxed);
                        reservation.keep();
                    }
                }
            });
        }
    });
    let (kept, now) = (kept.into_inner(), after(MINUTE * 3));
    assert_eq!(sent(&quotas, now), kept, "nothing is lost by what goes back");
    assert!(kept <= MAX);
    let rest = u32::try_from(MAX - kept).unwrap();
    assert_eq!(send(&quotas, daily(MAX), rest, now), Ok(()), "what is left can be had");
    assert_eq!(send(&quotas, daily(MAX), 1, now), Err(Exceeded::Daily));
    assert_eq!(sent(&quotas, after(DAY + MINUTE * 4)), 0, "all of it belongs to a minute");
}
