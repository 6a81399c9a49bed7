//! The effective configuration: its types here; how it is loaded, in the modules below.
//!
//! `key` is the table of all keys. `source` collects what file, environment and flags say, `value` and `address`
//! make it typed, `check` looks at values that depend on each other and at the files they name, `load` puts all of
//! it together, and `report` prints the result.

mod address;
mod check;
mod file;
mod key;
mod load;
mod problem;
mod report;
mod source;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::id::Namespace;

pub use load::{Loaded, Need};
pub use problem::{Origin, Problem, Problems};
pub use report::{Documented, Effective, Line, keys, markdown_table};

/// Everything the worker can be told, checked: a `Config` that exists is one the worker can run with.
#[derive(Clone, Debug)]
pub struct Config {
    /// `amqp.*`
    pub amqp: Amqp,
    /// `dead_letter.*`
    pub dead_letter: DeadLetter,
    /// `batch.*`
    pub batch: Batch,
    /// `endpoint.*`
    pub endpoint: Endpoint,
    /// `retry.*`
    pub retry: Retry,
    /// `health.*`
    pub health: Health,
    /// `shutdown.grace`
    pub shutdown_grace: Duration,
    /// `admin.listen`
    pub admin_listen: SocketAddr,
    /// `log.*`
    pub log: Log,
    /// `worker.dry_run`
    pub dry_run: bool,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A secret given as it is, or as a file that is re-read when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// Given in the configuration.
    Value(Secret),
    /// Read from this file; white space round the content is not part of it.
    File(PathBuf),
}

/// The broker and what stands on it.
#[derive(Clone, Debug)]
pub struct Amqp {
    /// Where the brokers of one cluster are; at least one URL.
    pub urls: Urls,
    /// The queue that is consumed.
    pub queue: String,
    /// The exchange that publishers publish to.
    pub exchange: String,
    /// The key they publish with.
    pub routing_key: String,
    /// What is done about exchange, queues and bindings at each connect.
    pub declare: Declare,
    /// What kind of queue `create` creates.
    pub queue_type: QueueType,
    /// `x-delivery-limit` of a quorum queue that `create` creates.
    pub delivery_limit: u32,
    /// `x-single-active-consumer` of a queue that `create` creates.
    pub single_active_consumer: bool,
    /// Messages in hand, `auto` worked out.
    pub prefetch: u16,
    /// How often the peers assure each other that they live; a dead peer is noticed after twice as long.
    pub heartbeat: Duration,
    /// Certificates for `amqps://`.
    pub tls: Tls,
}

/// Broker URLs; they hold a password, so they are a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Urls {
    /// Given in the configuration.
    Values(Vec<Secret>),
    /// A file, read at each connect: URLs separated by commas or line ends.
    File(PathBuf),
}

/// `amqp.declare`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declare {
    /// Declare what is missing.
    Create,
    /// Check passively that it is there.
    Verify,
    /// Neither.
    Skip,
}

/// `amqp.queue_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated.
    Quorum,
    /// On one node.
    Classic,
}

/// `amqp.tls.*`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM; trusted in addition to the system's roots.
    pub ca_file: Option<PathBuf>,
    /// PEM of the client certificate and its key (PKCS#8): both or none; with them SASL EXTERNAL is used.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// `dead_letter.*`
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The exchange dead letters are published to.
    pub exchange: String,
    /// The queue bound to it.
    pub queue: String,
}

/// `batch.*`
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// IDs a call may hold.
    pub max_ids: usize,
    /// How long a lone ID may wait for company.
    pub linger: Duration,
    /// IDs a message may hold.
    pub max_ids_per_message: usize,
}

/// `endpoint.*`
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Which of the two documented APIs is spoken.
    pub api: Api,
    /// Where; without a query.
    pub url: url::Url,
    /// The bare `Authorization` value; `None` only where nothing is called: in a dry run, and in commands that
    /// were loaded with [`Need::Broker`].
    pub token: Option<SecretSource>,
    /// v1.2's `unique_id` for messages that name none.
    pub namespace: Option<Namespace>,
    /// From sending a request to the last byte of its answer.
    pub timeout: Duration,
    /// The part of it that connecting may take.
    pub connect_timeout: Duration,
    /// Calls in flight.
    pub max_concurrency: usize,
    /// Calls in any one second; `None`: no limit.
    pub requests_per_second: Option<f64>,
    /// The values of `code` that mean deleted.
    pub success_codes: Vec<String>,
}

/// `endpoint.api`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `DELETE`, up to 500 IDs a call, no namespaces.
    V1_0,
    /// `POST`, up to 100 IDs a call, one namespace a call.
    V1_2,
}

/// `retry.*`
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first interval.
    pub initial: Duration,
    /// The longest interval.
    pub max: Duration,
    /// What an interval grows by.
    pub multiplier: f64,
    /// Strikes after which a batch is split, or a lone ID given up; at least 1.
    pub max_strikes: u32,
    /// Ceiling for what the endpoint may ask for.
    pub max_retry_after: Duration,
}

/// `health.*`
#[derive(Clone, Copy, Debug)]
pub struct Health {
    /// Consecutive failures that open the breaker; at least 1.
    pub failure_threshold: u32,
    /// The first interval between probes.
    pub probe_initial: Duration,
    /// The longest.
    pub probe_max: Duration,
    /// How long an outage lasts before the messages in hand are given back.
    pub release_after: Duration,
    /// What an outage means for messages.
    pub on_outage: OnOutage,
}

/// `health.on_outage`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// Nothing is dead-lettered, however long it lasts.
    Hold,
    /// Failures always count as strikes.
    DeadLetter,
}

/// `log.*`
#[derive(Clone, Debug)]
pub struct Log {
    /// A level, or a filter of the `tracing` kind.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For collectors.
    Json,
}

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The value itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
