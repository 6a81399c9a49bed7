//! The kinds of metric, each of which knows how to register and describe itself.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;

use prometheus::core::{AtomicU64, Collector, GenericGauge, GenericGaugeVec};
use prometheus::{HistogramOpts, IntCounterVec, Opts, Registry};

use super::label::Label;

/// A count that only grows.
pub type Counter = prometheus::IntCounter;
/// A whole number that goes up and down.
pub type Gauge = GenericGauge<AtomicU64>;
/// A number that goes up and down.
pub type GaugeF64 = prometheus::Gauge;
/// A distribution.
pub type Histogram = prometheus::Histogram;

/// One [`Counter`] per value of a label: `metrics.dead_letters_total[Reason::Malformed].inc()`.
pub struct Counters<L> {
    children: Box<[Counter]>,
    label: PhantomData<fn(L)>,
}

/// One gauge per value of a label, of which one is 1 and the others are 0, or, before the first
/// [`set`](States::set), all are 0.
pub struct States<L> {
    children: Box<[Gauge]>,
    label: PhantomData<fn(L)>,
}

/// A gauge that is always 1, with the program's version as its label.
#[derive(Debug)]
pub struct Info(());

/// A kind of metric.
pub(super) trait Metric: Sized {
    /// What it needs beyond name and help.
    type Spec;
    /// Its TYPE.
    const KIND: &'static str;

    /// Its label and every value of it.
    fn label() -> Option<(&'static str, Vec<&'static str>)> {
        None
    }

    /// Makes it, with all its series, a part of `registry`.
    fn register(registry: &Registry, opts: Opts, spec: Self::Spec) -> prometheus::Result<Self>;
}

impl<L: Label> Index<L> for Counters<L> {
    type Output = Counter;

    fn index(&self, label: L) -> &Counter {
        &self.children[label.index()]
    }
}

impl<L: Label> States<L> {
    /// Leaves the state it was in for this one.
    pub fn set(&self, state: L) {
        for (index, gauge) in self.children.iter().enumerate() {
            gauge.set(u64::from(index == state.index()));
        }
    }
}

impl<L> fmt::Debug for Counters<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.children.iter().map(Counter::get)).finish()
    }
}

impl<L> fmt::Debug for States<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.children.iter().map(Gauge::get)).finish()
    }
}

impl Metric for Counter {
    type Spec = ();
    const KIND: &'static str = "counter";

    fn register(registry: &Registry, opts: Opts, (): ()) -> prometheus::Result<Self> {
        registered(registry, Self::with_opts(opts)?)
    }
}

impl Metric for Gauge {
    type Spec = ();
    const KIND: &'static str = "gauge";

    fn register(registry: &Registry, opts: Opts, (): ()) -> prometheus::Result<Self> {
        registered(registry, Self::with_opts(opts)?)
    }
}

impl Metric for GaugeF64 {
    type Spec = ();
    const KIND: &'static str = "gauge";

    fn register(registry: &Registry, opts: Opts, (): ()) -> prometheus::Result<Self> {
        registered(registry, Self::with_opts(opts)?)
    }
}

impl Metric for Histogram {
    type Spec = &'static [f64];
    const KIND: &'static str = "histogram";

    fn register(registry: &Registry, opts: Opts, buckets: &'static [f64]) -> prometheus::Result<Self> {
        registered(registry, Self::with_opts(HistogramOpts::from(opts).buckets(buckets.to_vec()))?)
    }
}

impl<L: Label> Metric for Counters<L> {
    type Spec = ();
    const KIND: &'static str = "counter";

    fn label() -> Option<(&'static str, Vec<&'static str>)> {
        Some((L::NAME, L::values()))
    }

    fn register(registry: &Registry, opts: Opts, (): ()) -> prometheus::Result<Self> {
        let family = registered(registry, IntCounterVec::new(opts, &[L::NAME])?)?;
        let children = L::values().into_iter().map(|value| family.get_metric_with_label_values(&[value]));
        Ok(Self { children: children.collect::<Result<_, _>>()?, label: PhantomData })
    }
}

impl<L: Label> Metric for States<L> {
    type Spec = ();
    const KIND: &'static str = "gauge";

    fn label() -> Option<(&'static str, Vec<&'static str>)> {
        Some((L::NAME, L::values()))
    }

    fn register(registry: &Registry, opts: Opts, (): ()) -> prometheus::Result<Self> {
        let family = registered(registry, GenericGaugeVec::<AtomicU64>::new(opts, &[L::NAME])?)?;
        let children = L::values().into_iter().map(|value| family.get_metric_with_label_values(&[value]));
        Ok(Self { children: children.collect::<Result<_, _>>()?, label: PhantomData })
    }
}

impl Metric for Info {
    type Spec = ();
    const KIND: &'static str = "gauge";

    fn label() -> Option<(&'static str, Vec<&'static str>)> {
        Some(("version", vec![env!("CARGO_PKG_VERSION")]))
    }

    fn register(registry: &Registry, opts: Opts, (): ()) -> prometheus::Result<Self> {
        let opts = opts.const_label("version", env!("CARGO_PKG_VERSION"));
        registered(registry, Gauge::with_opts(opts)?)?.set(1);
        Ok(Self(()))
    }
}

fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
