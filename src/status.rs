//! The worker's snapshot of itself, as `/status` shows it to people and programs.
//!
//! Times are RFC 3339 in UTC, durations seconds. Nothing in it is secret.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::delivery::Reason;
use crate::metrics::{Metrics, Settled};

/// Everything a person asks first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// When this snapshot was taken.
    pub at: Timestamp,
    /// Since the start of the process.
    pub uptime_seconds: f64,
    /// `worker.dry_run`: nothing is really deleted.
    pub dry_run: bool,
    /// Since when the worker drains, once it does.
    pub draining_since: Option<Timestamp>,
    /// The broker and what is consumed from it.
    pub broker: Broker,
    /// The delete endpoint.
    pub endpoint: Endpoint,
    /// The pace of calls.
    pub rate: Rate,
    /// What is in hand now.
    pub held: Held,
    /// What was done since the start.
    pub totals: Totals,
}

/// The broker side of a [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// `disconnected`, `connected`, `consuming` or `paused`, and `because` of what, where there is a reason.
    #[serde(flatten)]
    pub state: BrokerState,
    /// When it got into this state.
    pub since: Timestamp,
    /// `amqp.queue`
    pub queue: String,
    /// `amqp.exchange`
    pub exchange: String,
    /// `dead_letter.exchange`
    pub dead_letter_exchange: String,
    /// `dead_letter.queue`
    pub dead_letter_queue: String,
    /// `amqp.prefetch`, `auto` worked out.
    pub prefetch: u16,
}

/// Where the worker stands with the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BrokerState {
    /// Connecting, for the first time or again.
    Disconnected {
        /// What ended the last connection, or failed the last try to connect.
        because: Option<String>,
    },
    /// Connected with the topology in place; the consumer is not confirmed yet.
    Connected,
    /// The broker has confirmed our consumer.
    Consuming,
    /// Connected, and not consuming on purpose.
    Paused {
        /// On which purpose.
        because: String,
    },
}

/// The endpoint side of a [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Whether it deletes.
    pub state: EndpointState,
    /// When it got into this state.
    pub since: Timestamp,
    /// `endpoint.api`
    pub api: String,
    /// `endpoint.url`, without credentials.
    pub url: String,
    /// When it is asked whether it is back; absent while it is healthy.
    pub next_probe_in_seconds: Option<f64>,
    /// The last call that deleted its IDs.
    pub last_success: Option<Timestamp>,
    /// The last call that did not.
    pub last_failure: Option<Failure>,
}

/// What the worker takes the endpoint for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It answers.
    Healthy,
    /// It fails: the breaker is open, and probes ask whether it is back.
    Open,
    /// It refuses us whatever the IDs: token, credit, account, URL, or something in between.
    Blocked,
}

/// A call that did not delete its IDs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// When it ended.
    pub at: Timestamp,
    /// What happened, as a fragment that fits "the endpoint ...".
    pub detail: String,
    /// The code in the answer's body, where there was one.
    pub code: Option<String>,
    /// The HTTP status, where there was an answer.
    pub http_status: Option<u16>,
}

/// The pace of calls, in calls a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// `endpoint.requests_per_second`; absent: no limit.
    pub limit_per_second: Option<f64>,
    /// What the worker allows itself now; below the limit after the endpoint asked for less.
    pub current_per_second: Option<f64>,
}

/// What is in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Messages delivered and not settled.
    pub messages_unsettled: u64,
    /// IDs waiting for a call.
    pub ids_pending: u64,
    /// IDs in calls under way.
    pub ids_in_flight: u64,
    /// Calls under way.
    pub calls_in_flight: u64,
}

/// Counts since the start of the process; the counters of `/metrics` under the same names have more detail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Messages delivered, redeliveries included.
    pub messages_received: u64,
    /// Messages acknowledged with every ID deleted.
    pub messages_deleted: u64,
    /// Messages dead-lettered.
    pub messages_dead_lettered: u64,
    /// Of these, messages that were no deletion request.
    pub messages_malformed: u64,
    /// Messages given back to the queue.
    pub messages_released: u64,
    /// IDs deleted.
    pub ids_deleted: u64,
    /// IDs that needed no place in a call.
    pub ids_deduplicated: u64,
    /// Calls that ended, whatever their answer.
    pub calls: u64,
    /// Connections lost and made anew.
    pub broker_reconnects: u64,
}

/// A point in time, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub SystemTime);

impl EndpointState {
    /// Every state, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Open, Self::Blocked];

    /// The state's name, here and as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Open => "open",
            Self::Blocked => "blocked",
        }
    }
}

impl Totals {
    /// Reads the counters.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        let settled = |outcome| metrics.messages_settled_total[outcome].get();
        Self {
            messages_received: metrics.messages_received_total.get(),
            messages_deleted: settled(Settled::Deleted),
            messages_dead_lettered: settled(Settled::DeadLettered),
            messages_malformed: metrics.dead_letters_total[Reason::Malformed].get(),
            messages_released: settled(Settled::Released),
            ids_deleted: metrics.ids_deleted_total.get(),
            ids_deduplicated: metrics.ids_deduplicated_total.get(),
            calls: metrics.endpoint_request_duration_seconds.get_sample_count(),
            broker_reconnects: metrics.broker_reconnects_total.get(),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(self.0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests;
