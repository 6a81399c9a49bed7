//! The table of keys: the one place that says what can be configured.
//!
//! Type, default, range and doc of a key stand here and nowhere else; sources, messages, `check-config` and the
//! README's table follow it.

use std::fmt;
use std::time::Duration;

use super::address::{BrokerUrl, EndpointUrl};
use super::value::{
    Address, Auto, Choice, Code, File, Filter, Flag, List, Name, NamespaceName, Real, Shape, Span, Token,
    Whole, Written,
};
use super::{Api, Declare, LogFormat, OnOutage, QueueType};

/// One key, whatever the type of its values.
///
/// What a source wrote is judged by [`AnyKey::check`]; who wants the value typed needs the [`Key`] itself.
pub(super) trait AnyKey: fmt::Debug + Sync {
    /// Dotted, as in TOML.
    fn name(&self) -> &'static str;
    /// One line.
    fn doc(&self) -> &'static str;
    /// What holds if no source gives a value.
    fn default(&self) -> Fallback;
    /// What may be written, for people.
    fn allowed(&self) -> String;
    /// Whether a value, or a part of it, must not be shown.
    fn is_secret(&self) -> bool;
    /// The value as TOML, with secrets masked; or what is wrong, as a fragment that follows the value.
    fn check(&self, written: &Written) -> Result<String, String>;
    /// What was written, fit for a message.
    fn shown(&self, written: &Written) -> String;
}

/// A key and the shape of its values.
#[derive(Debug)]
pub(super) struct Key<S> {
    pub(super) name: &'static str,
    pub(super) default: Fallback,
    pub(super) doc: &'static str,
    pub(super) shape: S,
}

/// What holds if no source gives a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// Nothing.
    Unset,
    /// This text.
    Text(&'static str),
    /// One of these texts, depending on `endpoint.api`.
    PerApi { v1_0: &'static str, v1_2: &'static str },
}

use Fallback::{PerApi, Text, Unset};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $ident:ident: $shape:ty = $name:literal, $default:expr, $value:expr;)+) => {
        $(
            $(#[doc = $doc])+
            pub(super) const $ident: Key<$shape> = Key {
                name: $name,
                default: $default,
                doc: concat!($($doc),+).trim_ascii_start(),
                shape: $value,
            };
        )+
        /// Every key, section by section.
        pub(super) static KEYS: &[&dyn AnyKey] = &[$(&$ident),+];
    };
}

keys! {
    /// Brokers of one cluster, tried in random order; `amqps://` for TLS. No path means the vhost `/`.
    AMQP_URLS: List<BrokerUrl> =
        "amqp.urls", Text("amqp://guest:guest@127.0.0.1:5672/%2f"), List(BrokerUrl);
    /// Instead of `amqp.urls`: a file of URLs, separated by commas or line ends; read at each connect.
    AMQP_URLS_FILE: File = "amqp.urls_file", Unset, File;
    /// The queue that is consumed.
    AMQP_QUEUE: Name = "amqp.queue", Text("deletions"), Name { min: 1 };
    /// The exchange that publishers publish to.
    AMQP_EXCHANGE: Name = "amqp.exchange", Text("deletions"), Name { min: 1 };
    /// The routing key that publishers use.
    AMQP_ROUTING_KEY: Name = "amqp.routing_key", Text("delete"), Name { min: 0 };
    /// What is done about exchange, queues and bindings at each connect: `create` what is missing, `verify` that
    /// it is there, or `skip` both.
    AMQP_DECLARE: Choice<Declare> = "amqp.declare", Text("create"), Choice(&[
        ("create", Declare::Create), ("verify", Declare::Verify), ("skip", Declare::Skip),
    ]);
    /// What kind of queue `create` creates.
    AMQP_QUEUE_TYPE: Choice<QueueType> = "amqp.queue_type", Text("quorum"), Choice(&[
        ("quorum", QueueType::Quorum), ("classic", QueueType::Classic),
    ]);
    /// `x-delivery-limit` of a quorum queue that `create` creates. Explicit and large, as the broker's default
    /// (20 from 4.0) throws away good messages in outages.
    AMQP_DELIVERY_LIMIT: Whole<u32> = "amqp.delivery_limit", Text("1000000"), Whole {
        min: 1, max: u32::MAX,
        why: "with -1, RabbitMQ 3.x drops messages at their first requeue; say 1000000 for \"practically never\"",
    };
    /// Whether one replica consumes while the others stand by; used when the queue is created.
    AMQP_SINGLE_ACTIVE_CONSUMER: Flag = "amqp.single_active_consumer", Text("true"), Flag;
    /// Messages in hand. `auto`: (2 x `endpoint.max_concurrency` + 1) x `batch.max_ids`, at most 65535. At least
    /// `batch.max_ids`.
    AMQP_PREFETCH: Auto<Whole<u16>> = "amqp.prefetch", Text("auto"), Auto(Whole {
        min: 1, max: u16::MAX,
        why: "to AMQP, 0 means no limit",
    });
    /// How often broker and worker assure each other that they live; a dead peer is noticed after twice as long.
    AMQP_HEARTBEAT: Span = "amqp.heartbeat", Text("15s"), Span { min: SECOND, max: HOUR, step: SECOND };
    /// PEM of certificates that are trusted in addition to the system's.
    AMQP_TLS_CA_FILE: File = "amqp.tls.ca_file", Unset, File;
    /// PEM of the client certificate; with it SASL EXTERNAL is used.
    AMQP_TLS_CERT_FILE: File = "amqp.tls.cert_file", Unset, File;
    /// PEM of the client certificate's key, PKCS#8.
    AMQP_TLS_KEY_FILE: File = "amqp.tls.key_file", Unset, File;

    /// The exchange dead letters are published to.
    DEAD_LETTER_EXCHANGE: Name = "dead_letter.exchange", Text("deletions.dlx"), Name { min: 1 };
    /// The queue bound to it.
    DEAD_LETTER_QUEUE: Name = "dead_letter.queue", Text("deletions.dead"), Name { min: 1 };

    /// IDs a call may hold; at most what the API allows.
    BATCH_MAX_IDS: Whole<usize> = "batch.max_ids", PerApi { v1_0: "500", v1_2: "100" },
        Whole { min: 1, max: Api::V1_0.ids_max(), why: "" };
    /// How long a lone ID may wait for company.
    BATCH_LINGER: Span = "batch.linger", Text("1s"), Span { min: Duration::ZERO, max: HOUR, step: MS };
    /// IDs a message may hold; more make it malformed.
    BATCH_MAX_IDS_PER_MESSAGE: Whole<usize> = "batch.max_ids_per_message", Text("10000"),
        Whole { min: 1, max: 1_000_000, why: "" };

    /// Which of the two documented APIs is spoken.
    ENDPOINT_API: Choice<Api> = "endpoint.api", Text("v1.0"), Choice(&[
        ("v1.0", Api::V1_0), ("v1.2", Api::V1_2),
    ]);
    /// Where the endpoint is.
    ENDPOINT_URL: EndpointUrl = "endpoint.url", PerApi {
        v1_0: "https://mavi-backend.memories.ai/api/serve/video/delete",
        v1_2: "https://api.memories.ai/serve/api/v1/delete_videos",
    }, EndpointUrl;
    /// Sent as `Authorization`, as it is: the bare token. This or `endpoint.token_file` is required.
    ENDPOINT_TOKEN: Token = "endpoint.token", Unset, Token;
    /// A file that holds the token; re-read when it changes. White space round it is ignored.
    ENDPOINT_TOKEN_FILE: File = "endpoint.token_file", Unset, File;
    /// v1.2's `unique_id` for messages that name no namespace.
    ENDPOINT_NAMESPACE: NamespaceName = "endpoint.namespace", Unset, NamespaceName;
    /// From sending a request to the last byte of its answer.
    ENDPOINT_TIMEOUT: Span = "endpoint.timeout", Text("30s"), Span { min: MS, max: HOUR, step: MS };
    /// The part of `endpoint.timeout` that connecting may take.
    ENDPOINT_CONNECT_TIMEOUT: Span =
        "endpoint.connect_timeout", Text("5s"), Span { min: MS, max: HOUR, step: MS };
    /// Calls in flight.
    ENDPOINT_MAX_CONCURRENCY: Whole<usize> = "endpoint.max_concurrency", Text("4"),
        Whole { min: 1, max: 1024, why: "" };
    /// Calls in any one second, without a burst on top; `0`: no limit.
    ENDPOINT_REQUESTS_PER_SECOND: Real = "endpoint.requests_per_second", Text("5"),
        Real { zero: true, min: 0.001, max: 100_000.0 };
    /// The values of `code` that mean deleted.
    ENDPOINT_SUCCESS_CODES: List<Code> = "endpoint.success_codes", Text("0000"), List(Code);

    /// The first interval of the exponential backoff, which has full jitter.
    RETRY_INITIAL: Span = "retry.initial", Text("500ms"), Span { min: MS, max: HOUR, step: MS };
    /// The longest interval.
    RETRY_MAX: Span = "retry.max", Text("60s"), Span { min: MS, max: HOUR, step: MS };
    /// What an interval grows by.
    RETRY_MULTIPLIER: Real = "retry.multiplier", Text("2"), Real { zero: false, min: 1.0, max: 10.0 };
    /// Failures charged to a batch after which it is split, or to a lone ID after which it is dead-lettered as
    /// `retries_exhausted`.
    RETRY_MAX_STRIKES: Whole<u32> = "retry.max_strikes", Text("8"), Whole { min: 1, max: 1000, why: "" };
    /// Ceiling for what the endpoint may ask for in `Retry-After`.
    RETRY_MAX_RETRY_AFTER: Span = "retry.max_retry_after", Text("5m"), Span { min: MS, max: HOUR, step: MS };

    /// Consecutive failures after which the endpoint is taken to be down.
    HEALTH_FAILURE_THRESHOLD: Whole<u32> = "health.failure_threshold", Text("5"),
        Whole { min: 1, max: 1_000_000, why: "" };
    /// The first interval between probes of an endpoint that is down.
    HEALTH_PROBE_INITIAL: Span = "health.probe_initial", Text("1s"), Span { min: MS, max: HOUR, step: MS };
    /// The longest.
    HEALTH_PROBE_MAX: Span = "health.probe_max", Text("60s"), Span { min: MS, max: HOUR, step: MS };
    /// How long an outage lasts before the messages in hand are given back to the broker.
    HEALTH_RELEASE_AFTER: Span =
        "health.release_after", Text("5m"), Span { min: Duration::ZERO, max: HOUR, step: MS };
    /// What an outage means for messages: `hold` them, however long it lasts, or `dead_letter` what fails too
    /// often.
    HEALTH_ON_OUTAGE: Choice<OnOutage> = "health.on_outage", Text("hold"), Choice(&[
        ("hold", OnOutage::Hold), ("dead_letter", OnOutage::DeadLetter),
    ]);

    /// How long calls in flight may take to end after SIGTERM.
    SHUTDOWN_GRACE: Span = "shutdown.grace", Text("25s"), Span { min: Duration::ZERO, max: HOUR, step: MS };

    /// Where `/metrics`, `/healthz`, `/readyz` and `/status` are served.
    ADMIN_LISTEN: Address = "admin.listen", Text("127.0.0.1:9090"), Address;

    /// A level, or directives like `info,deletion_worker::engine=debug`.
    LOG_LEVEL: Filter = "log.level", Text("info"), Filter;
    /// `auto`: text on a terminal, JSON otherwise.
    LOG_FORMAT: Choice<LogFormat> = "log.format", Text("auto"), Choice(&[
        ("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json),
    ]);

    /// Does everything but the call: logs and counts what it would delete, and gives the messages back on exit.
    /// Needs no token.
    WORKER_DRY_RUN: Flag = "worker.dry_run", Text("false"), Flag;
}

impl<S: Shape> AnyKey for Key<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn default(&self) -> Fallback {
        self.default
    }

    fn allowed(&self) -> String {
        self.shape.allowed()
    }

    fn is_secret(&self) -> bool {
        S::SECRET
    }

    fn check(&self, written: &Written) -> Result<String, String> {
        self.shape.read(written).map(|value| self.shape.render(&value))
    }

    fn shown(&self, written: &Written) -> String {
        written.shown(&self.shape)
    }
}

impl Fallback {
    /// The text for `api`.
    pub(super) fn text(self, api: Api) -> Option<&'static str> {
        match (self, api) {
            (Unset, _) => None,
            (Text(text), _) => Some(text),
            (PerApi { v1_0, .. }, Api::V1_0) => Some(v1_0),
            (PerApi { v1_2, .. }, Api::V1_2) => Some(v1_2),
        }
    }
}

impl Api {
    /// The most IDs that a call may hold, as documented.
    #[must_use]
    pub const fn ids_max(self) -> usize {
        match self {
            Self::V1_0 => 500,
            Self::V1_2 => 100,
        }
    }
}
