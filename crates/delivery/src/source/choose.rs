//! Which source a message leaves from.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{Pool, PoolName};
use postrider_base::Timestamp;
use postrider_mail::AccountId;

use super::Source;
use super::address::{Address, Place};
use super::pick::{Turns, at, reaches};
use super::settings::{Excess, WarmUpSettings};
use super::warm_up::next_day;

/// When to ask again for a pool that has no address: its operator may give it one.
const ASK_AGAIN: Duration = Duration::from_secs(5 * 60);

/// What a message needs a source for.
pub(crate) struct Wish<'a> {
    /// Whose it is.
    pub(crate) account: AccountId,
    /// The pool of its configuration set.
    pub(crate) pool: Option<&'a str>,
    /// Who gets it, as the daily plan counts: the provider, else the site.
    pub(crate) site: &'a str,
    /// Whether strangers get it, whose opinion of the address counts. The operator's own
    /// hosts take everything.
    pub(crate) by_dns: bool,
    /// Where the last attempt came from: a greylisting host wants to see it again.
    pub(crate) last: Option<IpAddr>,
    /// The time.
    pub(crate) now: Timestamp,
    /// Whether mail from there to the site is paused.
    pub(crate) paused: &'a dyn Fn(&Source) -> bool,
}

/// Where a message leaves from.
#[derive(Debug)]
pub(crate) enum Choice {
    /// From here, now.
    Use {
        /// The source; without one the system chooses.
        source: Option<Arc<Source>>,
        /// To be kept with the message until it is sent.
        place: Place,
    },
    /// From nowhere yet.
    Wait {
        /// When to ask again.
        until: Timestamp,
        /// What for, in one line.
        why: String,
    },
}

/// All sources and where they belong, by the present settings and pools.
#[derive(Debug)]
pub(super) struct Layout {
    /// The pools' revision that this was made of.
    pub(super) revision: u64,
    pub(super) warm_up: WarmUpSettings,
    pub(super) known: BTreeMap<String, Arc<Address>>,
    dedicated: HashMap<AccountId, HashMap<String, Group>>,
    /// All that are in no pool.
    shared: Group,
}

/// The sources of a pool, with their weights.
#[derive(Debug, Default)]
struct Group(Vec<(Arc<Address>, u32)>);

impl Layout {
    pub(super) fn new(
        revision: u64,
        warm_up: WarmUpSettings,
        known: BTreeMap<String, Arc<Address>>,
        pools: &[Arc<Pool>],
    ) -> Self {
        let mut dedicated: HashMap<_, HashMap<_, _>> = HashMap::new();
        let mut owned = HashSet::new();
        for pool in pools {
            owned.extend(pool.members.iter().map(|member| member.source.as_str()));
            let found = |name: &str| known.get(name).cloned();
            let members = pool.members.iter().filter_map(|member| Some((found(&member.source)?, member.weight)));
            let group = Group(members.collect());
            dedicated.entry(pool.account).or_default().insert(pool.name.clone(), group);
        }
        let shared = known.iter().filter(|(name, _)| !owned.contains(name.as_str()));
        let shared = Group(shared.map(|(_, address)| (address.clone(), address.settings.weight)).collect());
        Self { revision, warm_up, known, dedicated, shared }
    }

    /// The source for a message, which is counted for a warm-up.
    pub(super) fn choose(&self, wish: &Wish<'_>, turns: &Turns) -> Choice {
        if self.known.is_empty() {
            return anywhere();
        }
        let own = wish.pool.filter(|name| !PoolName::is_shared(name));
        let group = match own {
            Some(name) => self.dedicated.get(&wish.account).and_then(|pools| pools.get(name)),
            None if self.shared.0.is_empty() => return anywhere(),
            None => Some(&self.shared),
        };
        let chosen = group.and_then(|group| self.among(group, own.is_some(), wish, turns));
        chosen.unwrap_or_else(|| Choice::Wait {
            until: wish.now.saturating_add(ASK_AGAIN),
            why: format!("pool {} has no address that may be used", own.unwrap_or(PoolName::SHARED[0])),
        })
    }

    /// `None` when no address of the group may be used.
    fn among(&self, group: &Group, is_dedicated: bool, wish: &Wish<'_>, turns: &Turns) -> Option<Choice> {
        if let Some(same) = self.same_again(group, is_dedicated, wish) {
            return Some(same);
        }
        let (pool, site) = (wish.pool, wish.site);
        let (address, share) = group
            .pick(turns.next((pool, site)), |address| free(address, wish))
            // Where all are paused, the message waits for one of them.
            .or_else(|| group.pick(turns.next((pool, site)), Address::is_usable))?;
        if self.is_warm(address, wish) {
            return Some(give(address));
        }
        let now = wish.now;
        let mine = reaches(address.percent(now, &self.warm_up), share);
        if let Some(place) = mine.then(|| address.take(site, now, &self.warm_up)).flatten() {
            return Some(Choice::Use { source: Some(address.source()), place });
        }
        // The rest of its share, and what is beyond its plan, is for others.
        let warm = |address: &Address| free(address, wish) && self.is_warm(address, wish);
        let others = [Some(group), is_dedicated.then_some(&self.shared)];
        for (turn, group) in others.into_iter().flatten().enumerate() {
            if let Some((address, _)) = group.pick(turns.next((pool, site, turn)), warm) {
                return Some(give(address));
            }
        }
        Some(self.without_help(group, address, wish))
    }

    /// None is warmed up: then there is nobody to share with, and only the plan counts.
    fn without_help(&self, group: &Group, first: &Arc<Address>, wish: &Wish<'_>) -> Choice {
        let (site, now) = (wish.site, wish.now);
        let others = group.0.iter().map(|(address, _)| address).filter(|address| free(address, wish));
        for address in std::iter::once(first).chain(others) {
            if let Some(place) = address.take(site, now, &self.warm_up) {
                return Choice::Use { source: Some(address.source()), place };
            }
        }
        match self.warm_up.excess {
            Excess::Send => {
                let place = first.take_excess(site, now);
                Choice::Use { source: Some(first.source()), place }
            }
            Excess::Wait => Choice::Wait {
                until: next_day(now),
                why: format!("{site} has had today's messages from {}, which is being warmed up", first.name),
            },
        }
    }

    fn same_again(&self, group: &Group, is_dedicated: bool, wish: &Wish<'_>) -> Option<Choice> {
        let last = wish.last?;
        let groups = [Some(group), is_dedicated.then_some(&self.shared)];
        let mut all = groups.into_iter().flatten().flat_map(|group| &group.0);
        let (address, _) = all.find(|(address, _)| address.has(last) && free(address, wish))?;
        let place = match self.is_warm(address, wish) {
            true => Place::default(),
            false => address.take_excess(wish.site, wish.now),
        };
        Some(Choice::Use { source: Some(address.source()), place })
    }

    fn is_warm(&self, address: &Address, wish: &Wish<'_>) -> bool {
        !wish.by_dns || address.is_warm(wish.now, &self.warm_up)
    }
}

impl Group {
    /// One of those that `may`, by weight, and how far into its part the point fell.
    fn pick(&self, point: u64, may: impl Fn(&Address) -> bool) -> Option<(&Arc<Address>, u64)> {
        let weights = self.0.iter().map(|(address, weight)| if may(address) { *weight } else { 0 });
        let (index, share) = at(weights, point)?;
        Some((&self.0[index].0, share))
    }
}

/// Whether mail may leave from there now, as far as its operator wants it elsewhere then.
fn free(address: &Address, wish: &Wish<'_>) -> bool {
    address.is_usable() && !(address.moves() && (wish.paused)(&address.source()))
}

fn give(address: &Address) -> Choice {
    Choice::Use { source: Some(address.source()), place: Place::default() }
}

/// The system chooses.
fn anywhere() -> Choice {
    Choice::Use { source: None, place: Place::default() }
}
