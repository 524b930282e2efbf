//! What can happen in a life.

use postrider_base::sim_disk::{Fault, Operation};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Accept a message to recipients of these domains, this long.
    Accept(Vec<usize>, usize),
    /// Begin to accept and go away.
    Abandon,
    /// Claim up to so many parts of messages and deal with each in turn: the
    /// verdicts go around their recipients. One by one: each recipient in a record of its own,
    /// by a claim of its own where an even number is claimed.
    Attempt {
        claims: usize,
        verdicts: Vec<Verdict>,
        one_by_one: bool,
    },
    /// Register the attempts of up to so many, and give the claims back.
    Start(usize),
    Operator(Act),
    /// Give back all space that nothing needs; perhaps something fails at it.
    Compact(Option<Failure>),
    /// Import the mail of another machine from one of its files.
    Import(usize),
    /// Read the feed to its end; perhaps need none of it any more.
    Read {
        acknowledge: bool,
    },
    /// In milliseconds.
    Wait(u64),
    Fail(Failure),
    /// No space but for so many segments, or all of it again.
    Full(Option<u64>),
    /// Nothing can be changed until the restart.
    ReadOnly,
    /// Of the files of the index every so many bytes one is wrong from now on.
    HurtIndex(usize),
    /// The spool ends and is opened again.
    End(End, IndexFate),
}

/// One of these operations will fail: the next is the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) operation: Operation,
    pub(super) nth: u64,
    pub(super) fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Delivered,
    Bounced,
    Deferred,
    /// No outcome: the recipient goes back to its queue.
    Nothing,
}

/// Messages by their place among those that wait, domains by number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Hold(usize),
    HoldDomain(usize),
    Release(usize),
    ReleaseAll,
    Delete(usize),
    RetryAll,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    Orderly,
    /// The process dies, the machine does not.
    Killed,
    /// The power fails; what was not synced is kept, dropped and torn by this.
    PowerCut(u64),
}

/// What becomes of the directory of the index meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) enum IndexFate {
    Kept,
    /// Kept, and a copy made for later.
    Copied,
    /// The last copy takes its place.
    Older,
    Lost,
    /// Every so many bytes one is wrong.
    Damaged(usize),
    /// Each file has lost its second half.
    Cut,
    /// A file is in its place, until the next restart.
    Blocked,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..60)
}

fn step() -> impl Strategy<Value = Step> {
    let to = prop::collection::vec(0..3usize, 1..5);
    let length = prop_oneof![3 => 0..300usize, 1 => 300..6000usize];
    prop_oneof![
        20 => (to, length).prop_map(|(to, length)| Step::Accept(to, length)),
        2 => Just(Step::Abandon),
        20 => attempt(),
        2 => (1..=3usize).prop_map(Step::Start),
        8 => act().prop_map(Step::Operator),
        2 => Just(Step::Compact(None)),
        2 => failure().prop_map(|failure| Step::Compact(Some(failure))),
        3 => (0..2usize).prop_map(Step::Import),
        6 => any::<bool>().prop_map(|acknowledge| Step::Read { acknowledge }),
        8 => prop_oneof![Just(50), Just(300), Just(5_000), Just(7_200_000)].prop_map(Step::Wait),
        5 => failure().prop_map(Step::Fail),
        3 => prop::option::of(0..3u64).prop_map(Step::Full),
        1 => Just(Step::ReadOnly),
        1 => (1..600usize).prop_map(Step::HurtIndex),
        10 => end().prop_map(|(end, index)| Step::End(end, index)),
    ]
}

fn attempt() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Delivered),
        2 => Just(Verdict::Bounced),
        3 => Just(Verdict::Deferred),
        1 => Just(Verdict::Nothing),
    ];
    let verdicts = prop::collection::vec(verdict, 1..4);
    (1..=6usize, verdicts, any::<bool>()).prop_map(|(claims, verdicts, one_by_one)| Step::Attempt {
        claims,
        verdicts,
        one_by_one,
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => (0..20usize).prop_map(Act::Hold),
        1 => (0..3usize).prop_map(Act::HoldDomain),
        1 => (0..20usize).prop_map(Act::Release),
        2 => Just(Act::ReleaseAll),
        1 => (0..20usize).prop_map(Act::Delete),
        1 => Just(Act::RetryAll),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    use Operation::{Create, Read, Remove, Rename, Sync, SyncDirectory, Write};
    let operation = prop_oneof![
        6 => Just(Write),
        6 => Just(Sync),
        2 => prop::sample::select(vec![SyncDirectory, Create, Rename, Remove]),
        1 => Just(Read),
    ];
    let fault = prop::sample::select(vec![Fault::InputOutput, Fault::NoSpace, Fault::ReadOnly]);
    (operation, 1..8u64, fault).prop_map(|(operation, nth, fault)| Failure { operation, nth, fault })
}

fn end() -> impl Strategy<Value = (End, IndexFate)> {
    let end = prop_oneof![
        2 => Just(End::Orderly),
        2 => Just(End::Killed),
        3 => any::<u64>().prop_map(End::PowerCut),
    ];
    let index = prop_oneof![
        3 => Just(IndexFate::Kept),
        2 => Just(IndexFate::Copied),
        2 => Just(IndexFate::Older),
        1 => Just(IndexFate::Lost),
        1 => (1..600usize).prop_map(IndexFate::Damaged),
        1 => Just(IndexFate::Cut),
        1 => Just(IndexFate::Blocked),
    ];
    (end, index)
}
