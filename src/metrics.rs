//! Every metric of the worker: name, help, labels and buckets stand here once.
//!
//! The doc comment of a field of [`Metrics`] is its HELP text, the field's name its name after
//! `deletion_worker_`. Every label value has its series from the start, so that a rate or an alert never meets
//! a series that isn't there yet, and counting is an index and an atomic addition, never a look-up by name.

mod family;
mod label;

use prometheus::{Opts, Registry, TextEncoder};

pub use family::{Counter, Counters, Gauge, GaugeF64, Histogram, Info, States};
pub use label::{Code, Label, Settled};

use crate::answer::Outcome;
use crate::delivery::Reason;
use crate::engine::Trigger;
use crate::status::EndpointState;
use family::Metric;

/// IDs in a call: fine-grained below both versions' limits, 100 and 500, where a call is nearly full.
const IDS: &[f64] =
    &[1., 2., 5., 10., 25., 50., 75., 90., 99., 100., 200., 300., 400., 450., 475., 490., 499., 500.];
/// Seconds a call takes.
const CALL: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10., 15., 30., 60.];
/// Seconds a batch waits; the default `batch.linger` of 1 s has a bucket round it.
const WAIT: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9, 1.1, 2., 5., 10., 30., 60., 300.];
/// Seconds for a permit; at 5 calls a second the next one is at most 200 ms away.
const PERMIT: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1., 2., 5., 10., 30., 60.];
/// Seconds to days: a queue may have stood for a weekend.
const AGE: &[f64] =
    &[0.1, 0.5, 1., 2., 5., 10., 30., 60., 300., 900., 3_600., 14_400., 43_200., 86_400., 259_200., 604_800.];

/// Declares [`Metrics`], its registration, and its description: `name: kind` or `name: kind = buckets`.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ty $(= $spec:expr)?;)+) => {
        /// All metrics, on a registry of their own.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $name: $kind,)+
        }

        impl Metrics {
            fn register(registry: Registry) -> prometheus::Result<Self> {
                $(
                    let opts = Opts::new(concat!("deletion_worker_", stringify!($name)), help(&[$($help),+]));
                    let $name = <$kind as Metric>::register(&registry, opts, metrics!(@spec $($spec)?))?;
                )+
                Ok(Self { registry, $($name,)+ })
            }
        }

        /// Every metric, in the order of their declaration.
        #[must_use]
        pub fn descriptions() -> Vec<Description> {
            vec![$(Description {
                name: concat!("deletion_worker_", stringify!($name)),
                kind: <$kind as Metric>::KIND,
                label: <$kind as Metric>::label(),
                help: help(&[$($help),+]),
            },)+]
        }
    };
    (@spec) => { () };
    (@spec $spec:expr) => { $spec };
}

metrics! {
    /// Messages handed over by the broker, redeliveries included.
    messages_received_total: Counter;
    /// Messages settled: acknowledged with every ID deleted, dead-lettered, or given back to the queue.
    messages_settled_total: Counters<Settled>;
    /// Messages placed in the dead-letter queue, by reason.
    dead_letters_total: Counters<Reason>;
    /// Times a dead letter could not be placed and its message stayed unacknowledged.
    dead_letter_publish_failures_total: Counter;
    /// Messages in hand, delivered and not yet settled.
    messages_unsettled: Gauge;
    /// Age of a message, from its timestamp property to its settlement; messages without one are left out.
    message_age_seconds: Histogram = AGE;

    /// IDs the endpoint confirmed as deleted.
    ids_deleted_total: Counter;
    /// IDs that needed no place in a call, as the same ID was already pending, in flight or just deleted.
    ids_deduplicated_total: Counter;
    /// IDs that would have been deleted, were it not for worker.dry_run.
    dry_run_ids_total: Counter;
    /// IDs waiting for a call.
    ids_pending: Gauge;
    /// IDs in calls that are under way.
    ids_in_flight: Gauge;

    /// Calls that left, by what made them leave.
    batches_total: Counters<Trigger>;
    /// IDs in a call as it leaves.
    batch_ids: Histogram = IDS;
    /// Time from the first ID of a batch becoming ready to the call leaving.
    batch_wait_seconds: Histogram = WAIT;
    /// Time a batch that could otherwise have left waited for the rate limit.
    rate_limit_wait_seconds: Histogram = PERMIT;
    /// Calls a second the worker allows itself now: its ceiling, or less after the endpoint asked for less; 0 without a limit.
    rate_limit_requests_per_second: GaugeF64;
    /// Batches called again after a call that did not delete them.
    retries_total: Counter;
    /// Rejected batches that were halved to find the IDs at fault.
    batch_splits_total: Counter;

    /// Calls that ended, by the class of their answer.
    endpoint_requests_total: Counters<Outcome>;
    /// Time from sending a request to the last byte of its answer, or to its failure.
    endpoint_request_duration_seconds: Histogram = CALL;
    /// Answers by the code in their body; undocumented codes are counted as other, calls without a usable body as none.
    endpoint_response_codes_total: Counters<Code>;
    /// 1 for the state the endpoint is in: healthy, open (failing, being probed) or blocked (refuses us whatever the IDs).
    endpoint_state: States<EndpointState>;
    /// Unix time of the last call that deleted its IDs; 0 before the first.
    last_success_timestamp_seconds: GaugeF64;

    /// 1 while the channel to the broker is open and its topology in place.
    broker_connected: Gauge;
    /// Connections to the broker that were made anew after one was lost.
    broker_reconnects_total: Counter;
    /// 1 while the broker has confirmed our consumer.
    consuming: Gauge;
    /// Messages settled whose acknowledgement came too late for their channel; the broker delivers them again.
    acks_lost_total: Counter;
    /// 1 from the signal to stop until the exit.
    draining: Gauge;
    /// Always 1; the version is the label.
    build_info: Info;
}

/// What a metric is, for documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Prefix included.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The label and every value it can have.
    pub label: Option<(&'static str, Vec<&'static str>)>,
    /// The HELP text.
    pub help: String,
}

impl Metrics {
    /// All metrics at zero, every series present, and the process's own where the platform has them.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a second set of metrics is never what a caller wants by default"
    )]
    pub fn new() -> Self {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("the registry is empty");
        Self::register(registry).expect("names are valid and distinct, as a field's are")
    }

    /// Every series in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.registry.gather(), &mut text)
            .expect("gathered families are not empty, and writing to a string does not fail");
        text
    }
}

/// [`descriptions`] as a Markdown table, as it stands in the documentation.
#[must_use]
pub fn markdown_table() -> String {
    let mut table = String::from("| metric | kind | |\n| --- | --- | --- |\n");
    for Description { name, kind, label, help } in descriptions() {
        let label = label.map_or_else(String::new, |(label, values)| {
            format!(
                " `{label}`: {}.",
                values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
            )
        });
        table.push_str(&format!("| `{name}` | {kind} | {help}{label} |\n"));
    }
    table
}

/// The lines of a doc comment as one text.
fn help(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
