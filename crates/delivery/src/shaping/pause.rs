//! Pauses: mail that does not leave for a while, and why.

use std::collections::HashMap;
use std::sync::Arc;

use postrider_base::Timestamp;
use postrider_base::metrics::{Gauge, Held, PauseKind};

use super::orders::Order;
use super::throttle::Throttle;

/// Pauses of one site that are remembered.
const MOST: usize = 1_000;

/// Why mail does not leave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pause {
    pub(crate) kind: PauseKind,
    pub(crate) since: Timestamp,
    /// When it ends by itself; `None`: an operator has to end it.
    pub(crate) until: Option<Timestamp>,
    /// The reply that it came from, or what the operator said.
    pub(crate) why: Arc<str>,
}

impl Pause {
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// What of a site's mail pauses.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Scope {
    /// What leaves from this source; `None` is the address that the system chooses.
    Source(Option<Arc<str>>),
    /// What is signed by this domain.
    SigningDomain(Arc<str>),
}

/// A pause that has ended: whose mail may go on.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// One that replies led to, at a site or a provider.
    Heard(Arc<Throttle>, Scope),
    /// An operator's.
    Ordered(Arc<Order>),
}

/// The pauses of one site or provider that replies led to.
#[derive(Debug, Default)]
pub(crate) struct Pauses(HashMap<Scope, (Pause, Held)>);

impl Pauses {
    /// Adds a pause, unless one of the kind lasts longer. True when there was none.
    pub(crate) fn add(&mut self, scope: Scope, pause: Pause, gauge: &Gauge) -> bool {
        if let Some((old, _)) = self.0.get_mut(&scope) {
            if old.until < pause.until {
                *old = pause;
            }
            return false;
        }
        if self.0.len() >= MOST {
            let first = self.0.iter().min_by_key(|(_, (pause, _))| pause.until).map(|(scope, _)| scope.clone());
            first.map(|scope| self.0.remove(&scope));
        }
        self.0.insert(scope, (pause, Held::new(gauge)));
        true
    }

    pub(crate) fn find(&self, scope: &Scope, now: Timestamp) -> Option<&Pause> {
        self.0.get(scope).map(|(pause, _)| pause).filter(|pause| !pause.is_over(now))
    }

    /// Forgets those for which `ends` holds, and says whose they were.
    pub(crate) fn remove(&mut self, ends: impl Fn(&Scope, &Pause) -> bool) -> Vec<Scope> {
        self.0.extract_if(|scope, (pause, _)| ends(scope, pause)).map(|(scope, _)| scope).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Scope, &Pause)> {
        self.0.iter().map(|(scope, (pause, _))| (scope, pause))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
