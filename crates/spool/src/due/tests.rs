//! Whose turn it is.

use postrider_mail::AccountId;

use super::*;
use crate::view::Selector;

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn key(domain: &str) -> QueueKey {
    QueueKey { account: AccountId::default(), domain: domain.parse().unwrap() }
}

fn slot(due: u64, id: u128) -> Slot {
    (Timestamp::from_millis(due), MessageId::new(1, NOW, id))
}

fn due() -> Due {
    Due::new(2, Holds::default())
}

fn taken(due: &mut Due, max: usize) -> Vec<Slot> {
    due.take(max, NOW).into_iter().map(|(_, slot)| slot).collect()
}

#[test]
fn a_queue_is_read_part_by_part_and_in_order() {
    let (mut due, key) = (due(), key("a.example"));
    let all: Vec<Slot> = (0..5).map(|n| slot(10 + n, n.into())).collect();
    all.iter().for_each(|slot| due.restore(&key, *slot));
    due.start(NOW);
    assert!(due.refills().is_empty(), "the first is at hand");
    assert_eq!(taken(&mut due, 9), all[..1]);
    let refill = due.refills();
    assert_eq!((refill.len(), refill[0].after, refill[0].limit), (1, Some(all[0]), 2));
    // Beyond what is read, and before: only the latter is taken in.
    due.reslot(&key, slot(2_000, 9), slot(3_000, 9), NOW);
    due.refilled(&key, &all[1..3], false, NOW);
    assert_eq!(taken(&mut due, 9), all[1..3]);
    assert_eq!(due.refills()[0].after, Some(all[2]));
    due.refilled(&key, &all[3..], true, NOW);
    assert_eq!(taken(&mut due, 9), all[3..]);
    assert!(due.refills().is_empty());
}

#[test]
fn a_message_in_delivery_is_not_handed_out_from_a_place_that_it_left() {
    let (mut due, key) = (due(), key("a.example"));
    let (first, moved) = (slot(10, 0), slot(2_000, 1));
    [first, moved].iter().for_each(|slot| due.restore(&key, *slot));
    due.start(NOW);
    assert_eq!(taken(&mut due, 9), [first]);
    assert_eq!(due.refills().len(), 1);
    // While the index is read, an operator makes the second one due.
    due.reslot(&key, moved, slot(1_000, 1), NOW);
    due.refilled(&key, &[moved], true, NOW);
    assert_eq!(taken(&mut due, 9), [slot(1_000, 1)]);
    let later = Timestamp::from_millis(3_000);
    assert_eq!(due.take(9, later), []);
    due.give_back(&key, moved.1, Some(slot(1_000, 1)), false, later);
    assert_eq!(due.take(9, later).len(), 1);
}

#[test]
fn an_account_with_much_mail_delays_nobody_elses() {
    let mut due = due();
    let domains: Vec<_> = (0..10_000).map(|n| format!("d{n}.example")).collect();
    for n in 0..100_000u32 {
        due.add_fresh(&key(&domains[n as usize % domains.len()]), slot(1, n.into()), NOW);
    }
    // All of that came first.
    let (other, one) = (AccountId::new(2).unwrap(), AccountId::new(3).unwrap());
    for n in 0..100u32 {
        let key = QueueKey { account: other, domain: format!("d{}.example", n % 10).parse().unwrap() };
        due.add_fresh(&key, slot(2, (200_000 + n).into()), NOW);
    }
    due.add_fresh(&QueueKey { account: one, ..key("d0.example") }, slot(3, 300_000), NOW);
    let accounts = |taken: &[(QueueKey, Slot)], account| taken.iter().filter(|(key, _)| key.account == account).count();
    let first = due.take(3, NOW);
    assert_eq!((accounts(&first, other), accounts(&first, one)), (1, 1), "{first:?}");
    let next = due.take(200, NOW);
    assert!(accounts(&next, other) >= 99, "{}", accounts(&next, other));
    // And within the account every domain has its turn.
    let rest = due.take(10_000, NOW);
    let seen: std::collections::HashSet<_> = rest.iter().map(|(key, _)| &key.domain).collect();
    assert!(seen.len() >= 9_890, "{}", seen.len());
}

#[test]
fn a_window_is_cut_and_read_again() {
    let (mut due, key) = (due(), key("a.example"));
    for n in 0..10u8 {
        due.add_fresh(&key, slot(0, n.into()), NOW);
        taken(&mut due, 1);
        due.give_back(&key, slot(0, n.into()).1, Some(slot(500 - u64::from(n), n.into())), false, NOW);
        due.queues.values().for_each(|queue| assert!(queue.window.len() <= 4));
    }
    assert_eq!(taken(&mut due, 1), [slot(491, 9)]);
    while due.refills.is_empty() {
        assert_eq!(taken(&mut due, 1).len(), 1);
    }
    assert!(taken(&mut due, 1).is_empty(), "the rest is in the index");
}

#[test]
fn blocked_queues_stand_nowhere() {
    let (mut due, key) = (due(), key("a.example"));
    due.add_fresh(&key, slot(500, 1), NOW);
    due.add_fresh(&key, slot(5_000, 2), NOW);
    due.park(&key, true, NOW);
    assert!(taken(&mut due, 9).is_empty());
    assert_eq!((due.is_ready(), due.next()), (false, None));
    due.park(&key, false, NOW);
    assert_eq!(taken(&mut due, 9), [slot(500, 1)]);
    assert_eq!(due.next(), Some(Timestamp::from_millis(5_000)));
    let all = Holds { all: true, ..Holds::default() };
    due.set_holds(all, NOW);
    assert_eq!(due.next(), None);
}

#[test]
fn an_emptied_queue_keeps_no_second_place() {
    let (mut due, key) = (due(), key("a.example"));
    for round in 0..3 {
        due.add_fresh(&key, slot(1, round), NOW);
        due.end(&key, slot(1, round), NOW);
    }
    due.add_fresh(&key, slot(1, 9), NOW);
    assert_eq!(due.ready.of(&key.account).len(), 1);
    assert_eq!(taken(&mut due, 9).len(), 1);
    due.end(&key, slot(1, 9), NOW);
    due.give_back(&key, slot(1, 9).1, None, true, NOW);
    assert!(due.ready.is_empty());
    assert_eq!((due.len(), due.timers.len()), (0, 0));
}

#[test]
fn what_is_set_aside_lets_the_others_of_its_queue_pass() {
    let (mut due, key) = (due(), key("a.example"));
    let (first, second) = (slot(10, 0), slot(20, 1));
    [first, second].iter().for_each(|slot| due.add_fresh(&key, *slot, NOW));
    assert_eq!(taken(&mut due, 1), [first]);
    due.give_back(&key, first.1, Some(first), true, NOW);
    let until = Timestamp::from_millis(5_000);
    assert!(due.set_aside(&key, first, until, NOW));
    assert_eq!(taken(&mut due, 9), [second]);
    assert_eq!(due.next(), Some(until));
    // Moving to the index does not bring it back before its time.
    due.reslot(&key, first, first, NOW);
    assert!(taken(&mut due, 9).is_empty());
    assert_eq!(due.take(9, until), [(key.clone(), first)]);
    due.give_back(&key, first.1, Some(first), false, until);
    assert!(due.set_aside(&key, first, Timestamp::from_millis(9_000), until));
    due.recall(&key, until);
    assert_eq!(due.take(9, until).len(), 1);
}

#[test]
fn what_is_let_on_is_what_its_time_brings_back_and_the_rest_stays_aside() {
    let (mut due, key) = (due(), key("a.example"));
    for n in 0..1_001u32 {
        due.add_fresh(&key, slot(10, n.into()), NOW);
        let until = Timestamp::from_millis(5_000 + u64::from(n));
        if !due.set_aside(&key, slot(10, n.into()), until, NOW) {
            due.park(&key, true, NOW);
        }
    }
    let at = Timestamp::from_millis;
    assert!(due.take(9, at(5_001)).is_empty(), "too many are aside");
    assert_eq!(due.let_on(&key, at(5_001)), Some(at(5_002)));
    // Those two, and the one that there was no room for.
    assert_eq!(due.take(9, at(5_001)).len(), 3);
    assert_eq!(due.let_on(&key, at(9_000)), None);
    assert_eq!(due.take(2_000, at(9_000)).len(), 998);
}

#[test]
fn one_that_is_recalled_comes_though_too_many_are_aside() {
    let (mut due, key) = (due(), key("a.example"));
    let until = Timestamp::from_millis(5_000);
    for n in 0..1_001u32 {
        due.add_fresh(&key, slot(10, n.into()), NOW);
        if !due.set_aside(&key, slot(10, n.into()), until, NOW) {
            due.park(&key, true, NOW);
        }
    }
    let [none, one] = [5_000, 700].map(|n| Selector::Message(slot(10, n).1));
    assert_eq!((due.recall_selected(&none, NOW), taken(&mut due, 9).len()), (0, 0));
    assert_eq!(due.recall_selected(&one, NOW), 1);
    assert_eq!(taken(&mut due, 1), [slot(10, 700)]);
}

#[test]
fn what_is_recalled_comes_before_what_was_due_later() {
    let (mut due, key) = (due(), key("a.example"));
    let all: Vec<Slot> = (0..6).map(|n| slot(10 + n, 100 - u128::from(n))).collect();
    all.iter().for_each(|slot| due.add_fresh(&key, *slot, NOW));
    for slot in taken(&mut due, 4) {
        due.give_back(&key, slot.1, Some(slot), true, NOW);
        assert!(due.set_aside(&key, slot, Timestamp::from_millis(5_000), NOW));
    }
    // One goes to the index meanwhile, and is read from there.
    due.reslot(&key, all[1], all[1], NOW);
    due.recall(&key, NOW);
    assert_eq!(taken(&mut due, 9), all);
    assert!(taken(&mut due, 9).is_empty());
}

#[test]
fn so_many_are_set_aside_and_those_that_end_or_are_wanted_at_once_are_not() {
    let (mut due, key) = (due(), key("a.example"));
    let until = Timestamp::from_millis(5_000);
    for n in 0..1_001u32 {
        due.add_fresh(&key, slot(10, n.into()), NOW);
        assert_eq!(due.set_aside(&key, slot(10, n.into()), until, NOW), n < 1_000, "{n}");
    }
    assert_eq!(taken(&mut due, 9), [slot(10, 1_000)]);
    due.end(&key, slot(10, 0), NOW);
    due.reslot(&key, slot(10, 1), slot(900, 1), NOW);
    assert_eq!(taken(&mut due, 9), [slot(900, 1)]);
    assert_eq!(due.take(2_000, until).len(), 998);
}

#[test]
fn any_number_is_passed_over_and_comes_back_when_the_queue_is_read_again() {
    let (mut due, key) = (Due::new(100, Holds::default()), key("a.example"));
    let until = Timestamp::from_millis(5_000);
    for n in 0..3_000u32 {
        due.add_fresh(&key, slot(10, n.into()), NOW);
        due.pass_over(&key, slot(10, n.into()), until, NOW);
    }
    due.add_fresh(&key, slot(20, 9_000), NOW);
    assert_eq!(taken(&mut due, 9), [slot(20, 9_000)], "what is not meant goes on");
    assert!(due.set_aside(&key, slot(20, 9_000), until, NOW), "there is no room left for others");
    // Some go to the index, some end, one is wanted at another time.
    due.reslot(&key, slot(10, 2_000), slot(10, 2_000), NOW);
    due.reslot(&key, slot(10, 2_001), slot(15, 2_001), NOW);
    due.end(&key, slot(10, 2_002), NOW);
    assert_eq!(taken(&mut due, 9), [slot(15, 2_001)]);
    due.recall(&key, NOW);
    assert_eq!(taken(&mut due, 9_999).len(), 500, "a recall is for those that have a place aside");
    due.read_again(&key, NOW);
    assert_eq!(taken(&mut due, 9_999).len(), 2_497);
    let refills = due.refills();
    assert_eq!((refills.len(), refills[0].after), (1, None), "the index is read from its beginning");
    due.refilled(&key, &[slot(10, 2_000)], true, NOW);
    assert_eq!(taken(&mut due, 9), [slot(10, 2_000)]);
}

#[test]
fn what_was_passed_over_in_the_index_is_found_again_though_it_is_being_read() {
    let (mut due, key) = (Due::new(2, Holds::default()), key("a.example"));
    let until = Timestamp::from_millis(5_000);
    for n in 0..500u32 {
        due.add_fresh(&key, slot(10, (1_000 + n).into()), NOW);
        due.pass_over(&key, slot(10, (1_000 + n).into()), until, NOW);
    }
    let all: Vec<Slot> = (0..3).map(|n| slot(10 + n, n.into())).collect();
    all.iter().for_each(|slot| due.restore(&key, *slot));
    due.start(NOW);
    assert_eq!(taken(&mut due, 9), all[..1]);
    due.give_back(&key, all[0].1, Some(all[0]), false, NOW);
    due.pass_over(&key, all[0], until, NOW);
    assert!(taken(&mut due, 9).is_empty());
    assert_eq!(due.refills().len(), 1);
    due.read_again(&key, NOW);
    // Answers the question of before.
    due.refilled(&key, &all[1..], true, NOW);
    assert_eq!(due.refills()[0].after, None);
    due.refilled(&key, &all, true, NOW);
    let mut index = due.take(9_999, NOW).into_iter().map(|(_, slot)| slot).filter(|slot| slot.1 < self::slot(0, 900).1);
    assert!(index.by_ref().eq(all));
}

#[test]
fn the_time_of_what_was_passed_over_comes_but_not_all_the_time() {
    let (mut due, key) = (due(), key("a.example"));
    let at = Timestamp::from_millis;
    for n in 0..501u32 {
        due.add_fresh(&key, slot(10, n.into()), NOW);
        due.pass_over(&key, slot(10, n.into()), at(2_000), NOW);
    }
    let again = NOW.saturating_add(std::time::Duration::from_secs(600));
    assert_eq!(due.let_on(&key, at(2_000)), Some(again));
    assert_eq!(due.take(9_999, at(2_000)).len(), 500);
    assert_eq!(due.let_on(&key, again), None);
    assert_eq!(due.take(9_999, again).len(), 1);
}
