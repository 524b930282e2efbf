//! What metrics are made of: plain atomics, resolved to their label up front.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Counts up. Cloning gives another handle to the same number.
pub type Counter = prometheus_client::metrics::counter::Counter;

/// Goes up and down. Cloning gives another handle to the same number.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;

/// A closed set of values for one label key.
pub trait Label: Copy + Debug + Send + Sync + 'static {
    /// The label's key.
    const KEY: &'static str;
    /// All values, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The label's value as it is printed.
    fn as_str(self) -> &'static str;
    /// Position in [`Label::ALL`].
    fn index(self) -> usize;
}

/// One metric for each value of a label. All exist, at zero, from the start.
#[derive(Clone, Debug)]
pub struct By<L, M> {
    metrics: Arc<[M]>,
    labels: std::marker::PhantomData<L>,
}

impl<L: Label, M> By<L, M> {
    /// The metric of one value; keep a clone where it is used often.
    pub fn of(&self, label: L) -> &M {
        &self.metrics[label.index()]
    }
}

impl<L: Label, M: Default> Default for By<L, M> {
    fn default() -> Self {
        Self { metrics: L::ALL.iter().map(|_| M::default()).collect(), labels: std::marker::PhantomData }
    }
}

impl<L: Label, M: EncodeMetric + TypedMetric> EncodeMetric for By<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for label in L::ALL {
            let labels = [(L::KEY, label.as_str())];
            self.of(*label).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// What a kind of things that the operator names is called in a label.
pub trait Named: Debug + Send + Sync + 'static {
    /// The label's key.
    const KEY: &'static str;
}

/// One metric for each name of a list that the operator writes down: as closed a set as
/// [`By`]'s, known when the relay starts. Never for names from the network.
pub struct ByName<N, M> {
    metrics: Arc<RwLock<BTreeMap<String, M>>>,
    names: std::marker::PhantomData<fn() -> N>,
}

impl<N: Named, M: Clone + Default> ByName<N, M> {
    /// The metric of one name, which exists from now on.
    pub fn of(&self, name: &str) -> M {
        if let Some(metric) = self.metrics.read().get(name) {
            return metric.clone();
        }
        self.metrics.write().entry(name.to_owned()).or_default().clone()
    }
}

impl<N, M> Clone for ByName<N, M> {
    fn clone(&self) -> Self {
        Self { metrics: self.metrics.clone(), names: std::marker::PhantomData }
    }
}

impl<N, M> Default for ByName<N, M> {
    fn default() -> Self {
        Self { metrics: Arc::default(), names: std::marker::PhantomData }
    }
}

impl<N: Named, M> Debug for ByName<N, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ByName").field(&N::KEY).field(&self.metrics.read().len()).finish()
    }
}

impl<N: Named, M: EncodeMetric + TypedMetric> EncodeMetric for ByName<N, M>
where
    M: Send + Sync,
{
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, metric) in self.metrics.read().iter() {
            let labels = [(N::KEY, name.as_str())];
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// Fractions of a few senders, of which whoever measures gives the whole list each time: how
/// many there are is bounded by that. Cloning gives another handle to the same list.
#[derive(Clone, Debug, Default)]
pub struct Rates(Arc<RwLock<Vec<Rate>>>);

/// One of [`Rates`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// The account's number.
    pub account: String,
    /// The name of its configuration set; empty for the account as a whole.
    pub configuration_set: String,
    /// From 0 to 1.
    pub rate: f64,
}

impl Rates {
    const KEYS: [&'static str; 2] = ["account", "configuration_set"];

    /// Takes the place of all that were there.
    pub fn replace(&self, rates: Vec<Rate>) {
        *self.0.write() = rates;
    }
}

impl TypedMetric for Rates {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Rates {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let [account, set] = Self::KEYS;
        for rate in self.0.read().iter() {
            let labels = [(account, rate.account.as_str()), (set, rate.configuration_set.as_str())];
            encoder.encode_family(&labels)?.encode_gauge(&rate.rate)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Upper bounds of a [`Histogram`]'s buckets, in microseconds: fine enough
/// for a sync of a few milliseconds and for a delivery of ten minutes.
const BOUNDS: [u64; 19] = [
    500,
    1000,
    2000,
    5000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
];

/// A distribution of spans of time, exported in seconds. Cloning gives
/// another handle to the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Adds one span.
    pub fn observe(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Spans added so far.
    pub fn count(&self) -> u64 {
        let counts = self.0.counts.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    #[expect(clippy::cast_precision_loss, reason = "sums and bounds are printed as seconds")]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound));
        let counts = self.0.counts.iter().map(|c| c.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::MAX]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.0.sum_micros.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// The version of the program, as the label of a metric that is always 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildInfo;

impl TypedMetric for BuildInfo {
    const TYPE: MetricType = MetricType::Info;
}

impl EncodeMetric for BuildInfo {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Counts one thing in a gauge for as long as it lives.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// Adds one now, takes it away when dropped.
    #[must_use]
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One metric as the reference page lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The name as exported.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: &'static str,
    /// Label keys, each with all its values; none where the operator names them.
    pub labels: Vec<(&'static str, Vec<&'static str>)>,
    /// What it means.
    pub help: &'static str,
}

/// An instrument that can say what it is.
pub(super) trait Described {
    const KIND: MetricType;
    fn labels() -> Vec<(&'static str, Vec<&'static str>)> {
        Vec::new()
    }
}

impl Described for Counter {
    const KIND: MetricType = MetricType::Counter;
}

impl Described for Gauge {
    const KIND: MetricType = MetricType::Gauge;
}

impl Described for Histogram {
    const KIND: MetricType = MetricType::Histogram;
}

impl Described for BuildInfo {
    const KIND: MetricType = MetricType::Info;
}

impl<L: Label, M: Described> Described for By<L, M> {
    const KIND: MetricType = M::KIND;
    fn labels() -> Vec<(&'static str, Vec<&'static str>)> {
        let values = L::ALL.iter().map(|label| label.as_str()).collect();
        vec![(L::KEY, values)]
    }
}

impl<N: Named, M: Described> Described for ByName<N, M> {
    const KIND: MetricType = M::KIND;
    fn labels() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![(N::KEY, Vec::new())]
    }
}

impl Described for Rates {
    const KIND: MetricType = MetricType::Gauge;
    fn labels() -> Vec<(&'static str, Vec<&'static str>)> {
        Self::KEYS.iter().map(|key| (*key, Vec::new())).collect()
    }
}

/// Describes an instrument registered as `name`.
pub(super) fn declaration<M: Described>(name: &str, help: &'static str) -> Declaration {
    let (suffix, kind) = match M::KIND {
        MetricType::Counter => ("_total", "counter"),
        MetricType::Info => ("_info", "info"),
        MetricType::Histogram => ("", "histogram"),
        _ => ("", "gauge"),
    };
    Declaration { name: format!("{name}{suffix}"), kind, labels: M::labels(), help }
}
