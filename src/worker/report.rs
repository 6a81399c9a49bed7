//! What the worker says of itself: metrics, readiness, status, log.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::admin::Readiness;
use crate::answer::{Answer, Outcome};
use crate::broker::Event;
use crate::config::{Api, Config};
use crate::delivery::{Arrival, Obituary};
use crate::engine::{Call, Engine, Health, Snapshot, Time};
use crate::metrics::{Code, Metrics, Settled};
use crate::status::{
    Broker, BrokerState, Endpoint, EndpointState, Failure, Held, Rate, Status, Timestamp, Totals,
};

/// Why nothing is consumed in a long outage.
const AWAY: &str = "the endpoint is away; deliveries were given back";

/// Keeps what the engine and the shells report in a form that people and programs read.
pub(super) struct Report {
    metrics: Arc<Metrics>,
    readiness: watch::Sender<Readiness>,
    /// What of a status doesn't change, and what changes by events.
    status: Status,
    /// There was a session before.
    ever_up: bool,
    /// The engine's last word was to consume.
    consume: bool,
}

impl Report {
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        let Config { amqp, dead_letter, endpoint, .. } = config;
        let now = Timestamp(SystemTime::now());
        let (readiness, _) = watch::channel(Readiness::NotReady("not connected to the broker yet".into()));
        metrics.endpoint_state.set(EndpointState::Healthy);
        let status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            at: now,
            uptime_seconds: 0.0,
            dry_run: config.dry_run,
            draining_since: None,
            broker: Broker {
                state: BrokerState::Disconnected { because: None },
                since: now,
                queue: amqp.queue.clone(),
                exchange: amqp.exchange.clone(),
                dead_letter_exchange: dead_letter.exchange.clone(),
                dead_letter_queue: dead_letter.queue.clone(),
                prefetch: amqp.prefetch,
            },
            endpoint: Endpoint {
                state: EndpointState::Healthy,
                since: now,
                api: match endpoint.api {
                    Api::V1_0 => "v1.0".into(),
                    Api::V1_2 => "v1.2".into(),
                },
                url: endpoint.url.to_string(),
                next_probe_in_seconds: None,
                last_success: None,
                last_failure: None,
            },
            rate: Rate {
                limit_per_second: endpoint.requests_per_second,
                current_per_second: endpoint.requests_per_second,
            },
            held: Held::default(),
            totals: Totals::default(),
        };
        Self { metrics, readiness, status, ever_up: false, consume: false }
    }

    pub(super) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// The end of a turn: takes over what the engine counted, and its gauges.
    pub(super) fn turn(&mut self, engine: &mut Engine) {
        let (metrics, tally) = (&self.metrics, engine.take_tally());
        metrics.messages_received_total.inc_by(tally.messages_received);
        metrics.messages_settled_total[Settled::Deleted].inc_by(tally.messages_deleted);
        metrics.messages_settled_total[Settled::DeadLettered].inc_by(tally.messages_dead_lettered);
        metrics.messages_settled_total[Settled::Released].inc_by(tally.messages_released);
        metrics.ids_deleted_total.inc_by(tally.ids_deleted);
        metrics.ids_deduplicated_total.inc_by(tally.ids_deduplicated);
        metrics.dry_run_ids_total.inc_by(tally.ids_dry_run);
        metrics.retries_total.inc_by(tally.retries);
        metrics.batch_splits_total.inc_by(tally.batch_splits);
        for age in tally.ages {
            metrics.message_age_seconds.observe(age.as_secs_f64());
        }
        for wait in tally.rate_limit_waits {
            metrics.rate_limit_wait_seconds.observe(wait.as_secs_f64());
        }
        let snapshot = engine.snapshot();
        metrics.ids_pending.set(snapshot.ids_pending as u64);
        metrics.ids_in_flight.set(snapshot.ids_in_flight as u64);
        metrics.messages_unsettled.set(snapshot.messages_unsettled as u64);
        metrics.rate_limit_requests_per_second.set(snapshot.rate.unwrap_or(0.0));
        self.health(&snapshot);
        if snapshot.released && self.status.broker.state == BrokerState::Connected {
            self.become_state(BrokerState::Paused { because: AWAY.into() });
        }
    }

    /// Logs a change of the endpoint's state, and keeps it.
    fn health(&mut self, snapshot: &Snapshot) {
        let (state, cause) = match &snapshot.health {
            Health::Healthy => (EndpointState::Healthy, ""),
            Health::Open(outage) => (EndpointState::Open, outage.cause.as_str()),
            Health::Blocked(outage) => (EndpointState::Blocked, outage.cause.as_str()),
        };
        if state == self.status.endpoint.state {
            return;
        }
        match state {
            EndpointState::Healthy => tracing::info!("the endpoint is back: calls are full again"),
            EndpointState::Open => tracing::warn!(
                cause,
                "the endpoint fails, the breaker is open: only probes are sent, nothing is dead-lettered"
            ),
            EndpointState::Blocked => tracing::error!(
                cause,
                "the endpoint refuses us whatever the IDs: only probes are sent, nothing is dead-lettered"
            ),
        }
        self.metrics.endpoint_state.set(state);
        self.status.endpoint.state = state;
        self.status.endpoint.since = Timestamp(SystemTime::now());
    }

    pub(super) fn arrived(&self, arrival: &Arrival) {
        if let Ok(request) = &arrival.request {
            let origin = request.origin.as_deref();
            tracing::debug!(
                tag = arrival.tag.0,
                redelivered = arrival.redelivered,
                ids = ?request.ids,
                namespace = request.namespace.as_ref().map(|namespace| namespace.as_str()),
                request_id = origin.and_then(|origin| origin.request_id.as_deref()),
                requested_by = origin.and_then(|origin| origin.requested_by.as_deref()),
                reason = origin.and_then(|origin| origin.reason.as_deref()),
                "request received"
            );
        }
    }

    pub(super) fn calling(&self, call: &Call) {
        self.metrics.batches_total[call.trigger].inc();
        self.metrics.batch_ids.observe(f64::from(u32::try_from(call.ids.len()).unwrap_or(u32::MAX)));
        self.metrics.batch_wait_seconds.observe(call.waited.as_secs_f64());
        tracing::debug!(call = call.id.0, attempt = call.attempt, ids = ?call.ids, "calling the endpoint");
    }

    pub(super) fn answered(&mut self, call: &Call, answer: &Answer, took: Duration) {
        if self.status.dry_run {
            return;
        }
        let metrics = &self.metrics;
        metrics.endpoint_requests_total[answer.outcome].inc();
        metrics.endpoint_request_duration_seconds.observe(took.as_secs_f64());
        metrics.endpoint_response_codes_total[Code::of(answer.code.as_deref())].inc();
        let (ids, trigger, ms) =
            (call.ids.len(), call.trigger.as_str(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let at = SystemTime::now();
        if answer.outcome == Outcome::Deleted {
            let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            metrics.last_success_timestamp_seconds.set(since_epoch.as_secs_f64());
            self.status.endpoint.last_success = Some(Timestamp(at));
            tracing::info!(call = call.id.0, ids, trigger, ms, "deleted");
            return;
        }
        let namespace = call.namespace.as_ref().map(|namespace| namespace.as_str());
        tracing::warn!(
            call = call.id.0,
            ids,
            trigger,
            attempt = call.attempt,
            ms,
            outcome = outcome(answer.outcome),
            code = answer.code.as_deref(),
            http_status = answer.http_status,
            namespace,
            detail = answer.detail,
            "a call did not delete"
        );
        self.status.endpoint.last_failure = Some(Failure {
            at: Timestamp(at),
            detail: answer.detail.clone(),
            code: answer.code.as_ref().map(ToString::to_string),
            http_status: answer.http_status,
        });
    }

    pub(super) fn dead_lettering(&self, obituary: &Obituary) {
        tracing::warn!(
            reason = obituary.reason.as_str(),
            code = obituary.code.as_deref(),
            http_status = obituary.http_status,
            attempts = obituary.attempts,
            failed_ids = obituary.failed_ids.len(),
            detail = obituary.detail,
            "dead-lettering a message"
        );
    }

    pub(super) fn draining(&mut self) {
        self.metrics.draining.set(1);
        self.status.draining_since = Some(Timestamp(SystemTime::now()));
    }

    /// The engine starts or stops consuming.
    pub(super) fn consume(&mut self, consume: bool) {
        self.consume = consume;
        if consume {
            return;
        }
        self.metrics.consuming.set(0);
        if self.status.draining_since.is_some() {
            self.become_state(BrokerState::Paused { because: "draining".into() });
        } else {
            tracing::warn!(
                "the outage lasts: deliveries are given back, and none are taken until it is over"
            );
            self.become_state(BrokerState::Paused { because: AWAY.into() });
        }
    }

    pub(super) fn broker(&mut self, event: &Event) {
        match event {
            Event::Up(_) => {
                tracing::info!(queue = self.status.broker.queue, "connected to the broker");
                if std::mem::replace(&mut self.ever_up, true) {
                    self.metrics.broker_reconnects_total.inc();
                }
                self.metrics.broker_connected.set(1);
                self.become_state(BrokerState::Connected);
            }
            // The consumer may have been cancelled meanwhile.
            Event::Consuming if !self.consume => {}
            Event::Consuming => {
                self.metrics.consuming.set(1);
                tracing::info!(queue = self.status.broker.queue, "consuming");
                self.become_state(BrokerState::Consuming);
            }
            Event::Down { reason, acks_lost } => {
                self.metrics.broker_connected.set(0);
                self.metrics.consuming.set(0);
                self.metrics.acks_lost_total.inc_by(*acks_lost);
                if self.status.draining_since.is_some() {
                    tracing::info!(reason, "disconnected from the broker");
                } else {
                    tracing::warn!(reason, acks_lost, "lost the broker; connecting again");
                }
                self.become_state(BrokerState::Disconnected { because: Some(reason.clone()) });
            }
            Event::DeadLettered(letters) => {
                for (_, reason) in letters {
                    self.metrics.dead_letters_total[*reason].inc();
                }
            }
            Event::Cancelled | Event::Failed(_) => {}
            Event::DeadLettersRefused(count) => {
                self.metrics.dead_letter_publish_failures_total.inc_by(*count);
            }
        }
    }

    pub(super) fn status(&self, snapshot: &Snapshot, now: Time) -> Status {
        let mut status = self.status.clone();
        status.at = Timestamp(SystemTime::now());
        status.uptime_seconds = now.elapsed().as_secs_f64();
        status.endpoint.next_probe_in_seconds = match &snapshot.health {
            Health::Healthy => None,
            Health::Open(outage) | Health::Blocked(outage) => {
                Some(outage.next_probe.since(now).as_secs_f64())
            }
        };
        status.rate.current_per_second = snapshot.rate;
        status.held = Held {
            messages_unsettled: snapshot.messages_unsettled as u64,
            ids_pending: snapshot.ids_pending as u64,
            ids_in_flight: snapshot.ids_in_flight as u64,
            calls_in_flight: snapshot.calls_in_flight as u64,
        };
        status.totals = Totals::of(&self.metrics);
        status
    }

    fn become_state(&mut self, state: BrokerState) {
        let readiness = match &state {
            BrokerState::Disconnected { because: None } => {
                Readiness::NotReady("not connected to the broker yet".into())
            }
            BrokerState::Disconnected { because: Some(because) } => {
                Readiness::NotReady(Cow::Owned(format!("not connected to the broker: {because}")))
            }
            BrokerState::Connected => {
                Readiness::NotReady("the broker has not confirmed the consumer yet".into())
            }
            BrokerState::Paused { .. } if self.status.draining_since.is_some() => {
                Readiness::NotReady("draining".into())
            }
            BrokerState::Consuming | BrokerState::Paused { .. } => Readiness::Ready,
        };
        self.readiness.send_replace(readiness);
        self.status.broker.state = state;
        self.status.broker.since = Timestamp(SystemTime::now());
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Deleted => "deleted",
        Outcome::Rejected(_) => "rejected",
        Outcome::Throttled => "throttled",
        Outcome::Transient => "transient",
        Outcome::Blocked => "blocked",
    }
}
