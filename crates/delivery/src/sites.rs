//! The lanes that are in use.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Clock, Timestamp};
use postrider_mail::AccountId;
use postrider_spool::Spool;
use tokio::sync::Semaphore;

use crate::SiteView;
use crate::alarm::Alarms;
use crate::lane::Lane;
use crate::settings::Limits;
use crate::shaping::{Ended, Governor};
use crate::site::{HeldBy, Job, Pushed, Site};
use crate::slots::Slots;
use crate::target::Target;

/// Lanes that had trouble and that nothing uses any more: what their sites said last is kept for
/// operators.
const MOST_PAST: usize = 1_000;

/// For how long that is.
const PAST: Duration = Duration::from_secs(60 * 60);

/// All lanes that are in use, by generation of the settings.
pub(crate) struct Sites {
    lanes: Mutex<Lanes>,
    around: Arc<Around>,
    made: AtomicU64,
}

#[derive(Default)]
struct Lanes {
    used: HashMap<Key, Arc<Site>>,
    /// The newest generation of those.
    newest: u64,
    /// Those that had trouble, since when nothing has used them, and how they were left.
    past: HashMap<Lane, (Timestamp, SiteView)>,
}

/// Generation and lane, as it was asked for.
pub(crate) type Key = (u64, Lane);

/// What all lanes work with.
pub(crate) struct Around {
    pub(crate) spool: Spool,
    pub(crate) clock: Clock,
    pub(crate) governor: Governor,
    /// A place for each job.
    pub(crate) ready: Arc<Semaphore>,
    /// A place for each open connection.
    pub(crate) slots: Arc<Slots>,
    pub(crate) alarms: Alarms<Site>,
}

/// Where a job goes, by these settings.
pub(crate) struct Destination<'a> {
    pub(crate) generation: u64,
    pub(crate) target: &'a Arc<Target>,
    pub(crate) lane: Lane,
    pub(crate) limits: &'a Limits,
}

impl Sites {
    /// For jobs that have a place of `ready` each, and connections that have one of `slots`.
    pub(crate) fn new(
        spool: Spool,
        clock: Clock,
        governor: Governor,
        ready: Arc<Semaphore>,
        slots: Arc<Slots>,
    ) -> Self {
        let alarms = Alarms::new(clock.clone());
        let around = Arc::new(Around { spool, clock, governor, ready, slots, alarms });
        Self { lanes: Mutex::default(), around, made: AtomicU64::new(0) }
    }

    /// Hands a job to its lane.
    pub(crate) fn push(&self, to: Destination<'_>, job: Job) -> Pushed {
        // Inside the lock, so that a lane is not forgotten with a job in it.
        let mut lanes = self.lanes.lock();
        self.site(&mut lanes, to).push(job)
    }

    /// As [`Sites::push`], for a job that has to wait until then.
    pub(crate) fn hold_back(&self, to: Destination<'_>, job: Job, until: Timestamp, why: &str, by: HeldBy) -> Pushed {
        let mut lanes = self.lanes.lock();
        self.site(&mut lanes, to).hold_back(job, until, why, by)
    }

    /// Pauses have ended: what they held goes on. How many queues are looked at again.
    pub(crate) fn resume(&self, ended: &[Ended]) -> u64 {
        self.each(|site| site.resume(ended))
    }

    /// There are new rules: what waits for the end of a pause may not be meant by it any
    /// more. How many queues are looked at again.
    pub(crate) fn reconsider(&self) -> u64 {
        self.each(Site::reconsider)
    }

    /// There is news of the addresses to leave from: what waits for one goes on. How many
    /// queues are looked at again.
    pub(crate) fn resource(&self) -> u64 {
        self.each(Site::resource)
    }

    /// Pauses of senders of these accounts have ended. How many queues are looked at again.
    pub(crate) fn release(&self, accounts: &[AccountId]) -> u64 {
        self.each(|site| site.release(accounts))
    }

    fn each(&self, lets_go: impl Fn(&Site) -> u64) -> u64 {
        let mut count = 0;
        for site in self.all() {
            count += lets_go(&site);
            self.tidy(&site);
        }
        count
    }

    /// Waits until lanes have jobs whose time is over, or queues that are to be
    /// looked at again; the lanes.
    pub(crate) async fn alarm(&self) -> Vec<Arc<Site>> {
        self.around.alarms.next().await
    }

    /// Forgets a lane that nothing uses any more.
    pub(crate) fn tidy(&self, site: &Arc<Site>) {
        let mut lanes = self.lanes.lock();
        // It may have gone already, and have a successor.
        if lanes.used.get(&site.key).is_some_and(|known| Arc::ptr_eq(known, site)) && site.retire() {
            lanes.used.remove(&site.key);
            let view = site.view();
            if view.refusals.is_empty() {
                return;
            }
            let successor = (lanes.newest, site.key.1.clone());
            match lanes.used.get(&successor) {
                Some(successor) => successor.inherit(view.refusals),
                None => lanes.remember(successor.1, self.around.clock.now(), view),
            }
        }
    }

    /// Returns all claims that wait, for the end.
    pub(crate) fn clear(&self) {
        let sites: Vec<_> = self.lanes.lock().used.drain().map(|(_, site)| site).collect();
        sites.iter().for_each(|site| site.give_up());
    }

    pub(crate) fn views(&self) -> Vec<SiteView> {
        let mut views: Vec<_> = self.all().iter().map(|site| site.view()).collect();
        let now = self.around.clock.now();
        let is_fresh = |(since, _): &&(Timestamp, SiteView)| now.saturating_since(*since) < PAST;
        views.extend(self.lanes.lock().past.values().filter(is_fresh).map(|(_, view)| view.clone()));
        views.sort_by(|a, b| {
            b.trouble().cmp(&a.trouble()).then_with(|| (&a.name, &a.source).cmp(&(&b.name, &b.source)))
        });
        views
    }

    pub(crate) fn all(&self) -> Vec<Arc<Site>> {
        self.lanes.lock().used.values().cloned().collect()
    }

    fn site<'l>(&self, lanes: &'l mut Lanes, to: Destination<'_>) -> &'l Arc<Site> {
        let Destination { generation, target, lane, limits } = to;
        let Lanes { used, newest, past } = lanes;
        *newest = generation.max(*newest);
        let now = self.around.clock.now();
        used.entry((generation, lane)).or_insert_with_key(|key| {
            let id = self.made.fetch_add(1, Ordering::Relaxed);
            let site = Site::new(id, key.clone(), target.clone(), limits, self.around.clone());
            let known = past.remove(&key.1).filter(|(since, _)| now.saturating_since(*since) < PAST);
            known.into_iter().for_each(|(_, view)| site.inherit(view.refusals));
            site
        })
    }
}

impl Lanes {
    fn remember(&mut self, lane: Lane, now: Timestamp, view: SiteView) {
        if self.past.len() >= MOST_PAST {
            self.past.retain(|_, (since, _)| now.saturating_since(*since) < PAST);
        }
        if self.past.len() >= MOST_PAST
            && let Some(oldest) = self.past.iter().min_by_key(|(_, (since, _))| *since).map(|(lane, _)| lane.clone())
        {
            self.past.remove(&oldest);
        }
        self.past.insert(lane, (now, view));
    }
}
