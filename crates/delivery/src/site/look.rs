//! Looks at one lane of a site, for operators.

use std::sync::Arc;

use postrider_mail::MessageId;
use postrider_spool::{Message, QueueKey};

use super::Site;
use crate::lane::responsible_domain;
use crate::progress::{Doing, Progress, Step};
use crate::shaping::{Bounds, GateLook};
use crate::site_view::SiteView;
use crate::why::{Wait, Why};

/// The recipients of one domain of one message.
pub(crate) struct Asked<'a> {
    pub(crate) queue: &'a QueueKey,
    pub(crate) message: &'a Message,
}

impl Asked<'_> {
    fn is(&self, job: Option<(MessageId, u16)>) -> bool {
        let Some((id, first)) = job else { return false };
        let recipient = self.message.envelope.recipients.get(usize::from(first));
        let domain = recipient.map(|recipient| recipient.address.domain());
        id == self.message.id && domain == Some(&self.queue.domain)
    }
}

impl Site {
    /// What a task of a connection tells of itself.
    pub(crate) fn enroll(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress::new(self.around.clock.clone()));
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| task.strong_count() > 0);
        tasks.push(Arc::downgrade(&progress));
        progress
    }

    fn tasks(&self) -> Vec<Doing> {
        self.tasks.lock().iter().filter_map(|task| Some(task.upgrade()?.look())).collect()
    }

    /// Why a message has not left that this lane has in hand; `total` is how many
    /// connections the relay may have.
    pub(crate) fn why_in_hand(&self, asked: &Asked<'_>, total: usize) -> Option<Why> {
        let tasks = self.tasks();
        let site = self.lane.site.to_string();
        if let Some(task) = tasks.iter().find(|task| asked.is(task.job)) {
            return Some(match task.step {
                Step::Slot => Why::NoConnection { site, limit: total, since: task.since },
                _ => Why::InDelivery { site, host: task.host.clone(), stage: task.stage, since: task.since },
            });
        }
        let (before, ready) = {
            let state = self.state.lock();
            (state.ready.before(asked.queue, asked.message.id)?, state.ready.len())
        };
        let wait = self.wait_of(&tasks, total);
        Some(Why::Ready { site, before, others: ready - 1, wait })
    }

    /// Why this lane has left a message, or its queue, in the spool.
    pub(crate) fn why_left(&self, asked: &Asked<'_>) -> Option<Why> {
        let site = self.lane.site.to_string();
        let (ready, is_paused, is_sourceless, is_parked, pause) = {
            let state = self.state.lock();
            let [paused, sourceless, parked] =
                [&state.paused, &state.sourceless, &state.parked].map(|queues| queues.holds(asked.queue));
            (state.ready.len(), paused || sourceless, sourceless, parked, state.pause.clone())
        };
        let view = is_paused.then(|| self.gate.pause_view(&asked.queue.domain, responsible_domain(asked.message)));
        if let Some(view) = view.flatten() {
            return Some(Why::Paused {
                site,
                name: view.name,
                source: view.source,
                signing_domain: view.signing_domain,
                by: view.kind.to_owned(),
                since: view.since,
                until: view.until,
                why: view.why,
            });
        }
        if let Some((until, why)) = pause.filter(|_| is_sourceless) {
            return Some(Why::NoSource { site, until, why });
        }
        is_parked.then_some(Why::Parked { site, ready })
    }

    /// What those wait for that are ready.
    fn wait_of(&self, tasks: &[Doing], total: usize) -> Wait {
        let look = self.gate.look();
        if tasks.iter().any(|task| task.step == Step::Slot) {
            return Wait::TotalLimit { limit: total };
        }
        if tasks.iter().any(|task| task.step == Step::Turn) {
            return turn_of(self.lane.site.to_string(), &look);
        }
        let is_at_work = tasks.iter().any(|task| task.step == Step::Attempt);
        if !is_at_work && tasks.iter().any(|task| task.step == Step::Place) {
            return match look.provider {
                Some((provider, bounds)) if bounds.is_full() => {
                    Wait::ProviderLimit { provider, open: bounds.open, limit: bounds.limit.unwrap_or(bounds.open) }
                }
                _ => Wait::SiteLimit { open: look.site.open, limit: look.site.limit.unwrap_or(look.site.open) },
            };
        }
        let state = self.state.lock();
        let (connections, limit) = (state.connections, self.limit(&state));
        match tasks.iter().find(|task| task.step == Step::Attempt) {
            Some(task) if !state.is_greeted => {
                Wait::FirstConnection { host: task.host.clone(), stage: task.stage, since: task.since }
            }
            _ => Wait::Busy { connections, limit },
        }
    }

    pub(crate) fn view(&self) -> SiteView {
        let look = self.gate.look();
        let state = self.state.lock();
        SiteView {
            name: self.lane.site.to_string(),
            source: self.lane.source.as_ref().map(|source| source.name.to_string()),
            demand: self.lane.demand,
            ready: state.ready.len(),
            parked: state.parked.len(),
            connections: state.connections,
            idle: state.waiting.len(),
            limit: self.limit(&state),
            rate: look.site.rate,
            tokens: look.site.tokens,
            halved: look.site.halved,
            paused: state.paused.len() + state.sourceless.len(),
            pause: state.pause.clone(),
            is_down: state.down.is_some(),
            delivered: state.delivered,
            refusals: state.refusals.iter().cloned().collect(),
            provider: look.provider.map(|(name, _)| name),
            rules: look.rules,
        }
    }
}

/// Whose rate it is that is waited for.
fn turn_of(site: String, look: &GateLook) -> Wait {
    let provider = look.provider.as_ref().map(|(name, bounds)| (name.clone(), bounds));
    let (of, bounds): (String, &Bounds) = match provider {
        Some(provider) if provider.1.next.is_some() => provider,
        _ => (site, &look.site),
    };
    Wait::Rate { of, rate: bounds.rate.clone().unwrap_or_default(), next: bounds.next }
}
