use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;
use crate::engine::Trigger;

fn at(seconds: u64) -> Timestamp {
    Timestamp(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 250))
}

/// A status of a failing endpoint.
pub(crate) fn status(state: BrokerState) -> Status {
    Status {
        version: "0.1.0".into(),
        at: at(1_700_000_060),
        uptime_seconds: 60.5,
        dry_run: false,
        draining_since: None,
        broker: Broker {
            state,
            since: at(1_700_000_000),
            queue: "deletions".into(),
            exchange: "deletions".into(),
            dead_letter_exchange: "deletions.dlx".into(),
            dead_letter_queue: "deletions.dead".into(),
            prefetch: 4500,
        },
        endpoint: Endpoint {
            state: EndpointState::Open,
            since: at(1_700_000_030),
            api: "v1.0".into(),
            url: "http://127.0.0.1:9/delete".into(),
            next_probe_in_seconds: Some(3.5),
            last_success: None,
            last_failure: Some(Failure {
                at: at(1_700_000_059),
                detail: "answered 503".into(),
                code: None,
                http_status: Some(503),
            }),
        },
        rate: Rate { limit_per_second: Some(5.0), current_per_second: Some(2.5) },
        held: Held { messages_unsettled: 3, ids_pending: 2, ids_in_flight: 1, calls_in_flight: 1 },
        totals: Totals::default(),
    }
}

#[test]
fn every_broker_state_survives_the_round_trip() {
    for state in [
        BrokerState::Disconnected { because: None },
        BrokerState::Disconnected { because: Some("connection refused".into()) },
        BrokerState::Connected,
        BrokerState::Consuming,
        BrokerState::Paused { because: "the endpoint is open".into() },
    ] {
        let status = status(state);
        let text = serde_json::to_string(&status).expect("serializable");
        assert_eq!(serde_json::from_str::<Status>(&text).expect("readable again"), status);
    }
}

#[test]
fn states_stand_beside_their_reason_and_times_are_readable() {
    let status = status(BrokerState::Paused { because: "the endpoint is open".into() });
    let value = serde_json::to_value(&status).expect("serializable");
    assert_eq!(
        value["broker"],
        json!({
            "state": "paused", "because": "the endpoint is open", "since": "2023-11-14T22:13:20.250Z",
            "queue": "deletions", "exchange": "deletions",
            "dead_letter_exchange": "deletions.dlx", "dead_letter_queue": "deletions.dead", "prefetch": 4500,
        })
    );
    assert_eq!(value["endpoint"]["last_failure"]["at"], "2023-11-14T22:14:19.250Z");
}

#[test]
fn an_endpoint_state_has_one_name() {
    for state in EndpointState::ALL {
        assert_eq!(serde_json::to_value(state).expect("serializable"), state.as_str());
    }
}

#[test]
fn totals_are_read_from_their_own_counters() {
    let metrics = Metrics::new();
    metrics.messages_received_total.inc_by(15);
    metrics.messages_settled_total[Settled::Deleted].inc_by(1);
    metrics.messages_settled_total[Settled::DeadLettered].inc_by(4);
    metrics.messages_settled_total[Settled::Released].inc_by(3);
    metrics.dead_letters_total[Reason::Malformed].inc_by(2);
    metrics.dead_letters_total[Reason::Rejected].inc_by(9);
    metrics.ids_deleted_total.inc_by(5);
    metrics.ids_deduplicated_total.inc_by(6);
    metrics.endpoint_request_duration_seconds.observe(0.1);
    metrics.batches_total[Trigger::Full].inc_by(7);
    metrics.broker_reconnects_total.inc_by(8);
    assert_eq!(
        Totals::of(&metrics),
        Totals {
            messages_received: 15,
            messages_deleted: 1,
            messages_dead_lettered: 4,
            messages_malformed: 2,
            messages_released: 3,
            ids_deleted: 5,
            ids_deduplicated: 6,
            calls: 1,
            broker_reconnects: 8,
        }
    );
}
