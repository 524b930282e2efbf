//! What stands between a message and a site, for those who ask.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_mail::Domain;

use super::gate::Gate;
use super::pause::Scope;
use super::throttle::{Look, UNLIMITED};
use super::view::PauseView;

/// How a lane stands with shaping.
#[derive(Clone, Debug)]
pub(crate) struct GateLook {
    pub(crate) site: Bounds,
    pub(crate) provider: Option<(String, Bounds)>,
    /// The entries that gave the site its rules.
    pub(crate) rules: Vec<String>,
}

/// What a site or a provider gets.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) open: usize,
    pub(crate) limit: Option<usize>,
    pub(crate) rate: Option<String>,
    pub(crate) tokens: Option<u64>,
    /// When the one who waits for a token gets it.
    pub(crate) next: Option<Timestamp>,
    pub(crate) halved: u32,
}

impl Bounds {
    fn of(look: &Look, next: Option<Timestamp>) -> Self {
        Self {
            open: look.taken,
            limit: (look.limit < UNLIMITED).then_some(look.limit),
            rate: look.rate.map(|rate| rate.to_string()),
            tokens: look.tokens,
            next,
            halved: look.halved,
        }
    }

    /// Whether there is no place for another connection.
    pub(crate) fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.open >= limit)
    }
}

impl Gate {
    pub(crate) fn look(&self) -> GateLook {
        let now = self.inner.clock.now();
        let next = |wait: Option<Duration>| wait.map(|wait| now.saturating_add(wait));
        let throttle = &self.site.throttle;
        let look = throttle.look();
        let provider = self.site.provider.load_full().map(|provider| {
            let throttle = &provider.throttle;
            (provider.name.to_string(), Bounds::of(&throttle.look(), next(throttle.pacer.wait())))
        });
        let explained = self.inner.shaping.load().explain(&self.site.place).into_iter();
        let rules: BTreeSet<_> = explained.map(|rule| rule.from).collect();
        GateLook { site: Bounds::of(&look, next(throttle.pacer.wait())), provider, rules: rules.into_iter().collect() }
    }

    /// The pause that keeps mail of the lane to a recipient domain, with the name that
    /// `resume` takes.
    pub(crate) fn pause_view(&self, domain: &Domain, signing_domain: Option<&str>) -> Option<PauseView> {
        let provider = self.site.provider.load_full();
        let provider_name = provider.as_ref().map(|provider| &*provider.name);
        let place = &self.site.place;
        if let Some(order) = self.inner.orders.order_for(place, provider_name, self.source_name(), domain.as_str()) {
            return Some(PauseView::from(&*order));
        }
        let now = self.inner.clock.now();
        let signed = signing_domain.map(|domain| Scope::SigningDomain(domain.to_ascii_lowercase().into()));
        let scopes: Vec<Scope> = [Some(self.source.clone()), signed].into_iter().flatten().collect();
        let here = [Some((&place.name, &self.site.throttle)), provider.as_ref().map(|of| (&of.name, &of.throttle))];
        here.into_iter().flatten().find_map(|(name, throttle)| {
            scopes.iter().find_map(|scope| {
                let pause = throttle.pause_of(std::slice::from_ref(scope), now)?;
                Some(PauseView::of(name, scope, &pause))
            })
        })
    }
}
