//! The pauses of operators, which survive a restart.

use std::sync::Arc;

use arc_swap::ArcSwap;
use postrider_base::metrics::{Held, Metrics, PauseKind};
use postrider_base::{Clock, Timestamp};
use postrider_store::{Store, Table};
use serde::{Deserialize, Serialize};

use super::pause::Pause;
use super::rules::Place;
use crate::Error;

/// Name of the table in the store.
const TABLE: &str = "shaping_pauses";

/// Pauses that operators may have at the same time.
const MOST: usize = 10_000;

/// A pause that an operator wants.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Order {
    /// A provider, a recipient domain, a host or a whole site, by its name in lower case.
    pub name: String,
    /// Whether the name is a provider's.
    pub is_provider: bool,
    /// Only what leaves from this source; `None` is from all.
    pub source: Option<String>,
    /// When it was ordered.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    /// Why, in one line.
    pub reason: String,
}

/// Rows as they are stored. A later form becomes another variant, so that rows
/// written today stay readable.
#[derive(Clone, Debug, Deserialize, Serialize)]
enum Row {
    V1(Order),
}

/// All orders: in memory for the deliveries, on disk for the next start.
pub(crate) struct Orders {
    table: Table<String, Row>,
    clock: Clock,
    metrics: Metrics,
    list: ArcSwap<Vec<Standing>>,
    /// One change after the other.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Standing {
    order: Arc<Order>,
    _counted: Arc<Held>,
}

impl Order {
    fn key(&self) -> String {
        let kind = if self.is_provider { "provider" } else { "name" };
        format!("{kind} {} {}", self.source.as_deref().unwrap_or("*"), self.name)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether it holds for mail to a recipient domain, by a site, from a source.
    pub(super) fn holds(&self, place: &Place, provider: Option<&str>, source: &str, domain: &str) -> bool {
        let is_meant = match self.is_provider {
            true => provider == Some(&self.name),
            false => self.name == domain || place.is_called(&self.name),
        };
        is_meant && self.source.as_deref().is_none_or(|wanted| source == wanted)
    }
}

impl Orders {
    /// Reads what the last run left.
    pub(crate) fn open(store: &Store, clock: &Clock, metrics: &Metrics) -> Result<Self, Error> {
        let orders = Self {
            table: store.table(TABLE),
            clock: clock.clone(),
            metrics: metrics.clone(),
            list: ArcSwap::default(),
            writing: tokio::sync::Mutex::default(),
        };
        let mut list = Vec::new();
        for row in orders.table.scan() {
            let (_, Row::V1(order)) = row?;
            list.push(orders.standing(order));
        }
        orders.list.store(Arc::new(list));
        Ok(orders)
    }

    /// Gives an order, or changes the one for the same. On disk when it returns.
    pub(crate) async fn put(&self, order: Order) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        let key = order.key();
        let mut list: Vec<Standing> = self.others(|old| old.key() == key);
        if list.len() >= MOST {
            return Err(Error::Settings(format!("there are {MOST} pauses already; lift some first")));
        }
        self.table.put(&key, &Row::V1(order.clone())).await?;
        list.push(self.standing(order));
        self.list.store(Arc::new(list));
        Ok(())
    }

    /// Takes orders back, and says which.
    pub(crate) async fn remove(&self, wanted: impl Fn(&Order) -> bool) -> Result<Vec<Arc<Order>>, Error> {
        let _turn = self.writing.lock().await;
        let gone: Vec<Arc<Order>> = self.all().into_iter().filter(|order| wanted(order)).collect();
        for order in &gone {
            self.table.delete(&order.key()).await?;
        }
        if !gone.is_empty() {
            self.list.store(Arc::new(self.others(|order| wanted(order))));
        }
        Ok(gone)
    }

    /// Takes those out of force whose time is over.
    pub(crate) fn end(&self, now: Timestamp) -> Vec<Arc<Order>> {
        let is_over = |standing: &&Standing| standing.order.is_over(now);
        let before =
            self.list.rcu(|list| list.iter().filter(|standing| !is_over(standing)).cloned().collect::<Vec<_>>());
        before.iter().filter(is_over).map(|standing| standing.order.clone()).collect()
    }

    /// Takes an order off the disk, unless it has been given anew.
    pub(crate) async fn forget(&self, order: &Order) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        let key = order.key();
        if self.list.load().iter().all(|standing| standing.order.key() != key) {
            self.table.delete(&key).await?;
        }
        Ok(())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Order>> {
        self.list.load().iter().map(|standing| standing.order.clone()).collect()
    }

    /// When the first one ends.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.list.load().iter().filter_map(|standing| standing.order.until).min()
    }

    /// The pause that holds for mail to a recipient domain, by a site, from a source.
    pub(crate) fn pause_of(&self, place: &Place, provider: Option<&str>, source: &str, domain: &str) -> Option<Pause> {
        self.order_for(place, provider, source, domain).map(|order| order.pause())
    }

    /// The order behind that pause.
    pub(crate) fn order_for(
        &self,
        place: &Place,
        provider: Option<&str>,
        source: &str,
        domain: &str,
    ) -> Option<Arc<Order>> {
        let list = self.list.load();
        if list.is_empty() {
            return None;
        }
        let now = self.clock.now();
        let holds = |order: &Order| !order.is_over(now) && order.holds(place, provider, source, domain);
        list.iter().map(|standing| &standing.order).find(|order| holds(order)).cloned()
    }

    fn others(&self, is_meant: impl Fn(&Order) -> bool) -> Vec<Standing> {
        self.list.load().iter().filter(|standing| !is_meant(&standing.order)).cloned().collect()
    }

    fn standing(&self, order: Order) -> Standing {
        let counted = Held::new(self.metrics.shaping_pauses.of(PauseKind::Operator));
        Standing { order: Arc::new(order), _counted: Arc::new(counted) }
    }
}

impl Order {
    pub(super) fn pause(&self) -> Pause {
        Pause { kind: PauseKind::Operator, since: self.since, until: self.until, why: self.reason.as_str().into() }
    }
}
