//! What an operator sees, and what nobody may see.

use std::collections::BTreeSet;

use deletion_worker::metrics::descriptions;
use deletion_worker::status::{BrokerState, EndpointState};

use crate::support::http;
use crate::support::world::{TOKEN, Worker, World, ids};

async fn page(worker: &Worker, path: &str) -> (u16, String) {
    http::get(&format!("{}{path}", worker.admin)).await.expect("the worker runs")
}

/// Every series of design's list: name, kind, label, and its values.
const SERIES: &[(&str, &str, &str, &[&str])] = &[
    ("messages_received_total", "counter", "", &[]),
    ("messages_settled_total", "counter", "outcome", &["deleted", "dead_lettered", "released"]),
    ("ids_deleted_total", "counter", "", &[]),
    ("ids_deduplicated_total", "counter", "", &[]),
    ("dry_run_ids_total", "counter", "", &[]),
    ("dead_letters_total", "counter", "reason", &["malformed", "rejected", "retries_exhausted"]),
    ("dead_letter_publish_failures_total", "counter", "", &[]),
    (
        "endpoint_requests_total",
        "counter",
        "outcome",
        &["deleted", "rejected", "throttled", "transient", "blocked"],
    ),
    ("endpoint_request_duration_seconds", "histogram", "", &[]),
    (
        "endpoint_response_codes_total",
        "counter",
        "code",
        &["0000", "0001", "0003", "0401", "0402", "0403", "0409", "0429", "9009", "other", "none"],
    ),
    ("batch_ids", "histogram", "", &[]),
    ("batch_wait_seconds", "histogram", "", &[]),
    ("message_age_seconds", "histogram", "", &[]),
    ("batches_total", "counter", "trigger", &["full", "linger", "drain", "retry", "split", "probe"]),
    ("rate_limit_wait_seconds", "histogram", "", &[]),
    ("last_success_timestamp_seconds", "gauge", "", &[]),
    ("acks_lost_total", "counter", "", &[]),
    ("retries_total", "counter", "", &[]),
    ("batch_splits_total", "counter", "", &[]),
    ("ids_pending", "gauge", "", &[]),
    ("ids_in_flight", "gauge", "", &[]),
    ("messages_unsettled", "gauge", "", &[]),
    ("endpoint_state", "gauge", "state", &["healthy", "open", "blocked"]),
    ("rate_limit_requests_per_second", "gauge", "", &[]),
    ("broker_connected", "gauge", "", &[]),
    ("broker_reconnects_total", "counter", "", &[]),
    ("consuming", "gauge", "", &[]),
    ("build_info", "gauge", "version", &[env!("CARGO_PKG_VERSION")]),
];

#[tokio::test]
async fn every_series_is_there_before_anything_happened() {
    let mut world = World::new().await;
    world.unset("endpoint.requests_per_second");
    let mut worker = world.start().await;
    let (status, text) = page(&worker, "/metrics").await;
    assert_eq!(status, 200);
    for (name, kind, label, values) in SERIES {
        let name = format!("deletion_worker_{name}");
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
        if *kind == "histogram" {
            for (part, labels) in [("bucket", &[("le", "+Inf")][..]), ("sum", &[]), ("count", &[])] {
                assert_eq!(http::series(&text, &format!("{name}_{part}"), labels), Some(0.0), "{name}");
            }
        } else if values.is_empty() {
            assert!(http::series(&text, &name, &[]).is_some(), "{name}");
        }
        for value in *values {
            assert!(http::series(&text, &name, &[(label, value)]).is_some(), "{name} {value}");
        }
    }
    let helped: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let known: BTreeSet<&str> = descriptions().iter().map(|metric| metric.name).collect();
    let ours: BTreeSet<&str> = helped.iter().copied().filter(|name| !name.starts_with("process_")).collect();
    assert_eq!(ours, known);
    assert!(helped.contains("process_resident_memory_bytes"), "the process collector");

    // What is not zero says what is so.
    assert_eq!(worker.metric("endpoint_state", &[("state", "healthy")]).await, 1.0);
    assert_eq!(worker.metric("broker_connected", &[]).await, 1.0);
    assert_eq!(worker.metric("consuming", &[]).await, 1.0);
    assert_eq!(worker.metric("rate_limit_requests_per_second", &[]).await, 5.0);
    assert_eq!(worker.metric("build_info", &[("version", env!("CARGO_PKG_VERSION"))]).await, 1.0);
    worker.stop().await;
}

#[tokio::test]
async fn the_pages_tell_what_is_so() {
    let mut world = World::new().await;
    world.unset("endpoint.requests_per_second");
    let mut worker = world.start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(page(&worker, path).await.0, 200, "{path}");
    }
    assert_eq!(page(&worker, "/nothing").await.0, 404);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let properties = crate::support::amqp::persistent().with_timestamp(now - 100);
    world.publish_with(properties, [r#"["VI1","VI1","VI2"]"#, r#"{"videoNo":"VI3"}"#]).await;
    world.publish(["garbage"]).await;
    world.deleted(3).await;
    world.dead_letters(1).await;
    worker.settled(&world).await;

    let status = worker.status().await.expect("it runs");
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(status.broker.state, BrokerState::Consuming);
    assert_eq!((status.broker.queue.as_str(), status.broker.prefetch), ("deletions", 4500));
    assert_eq!(status.endpoint.state, EndpointState::Healthy);
    assert_eq!(status.endpoint.api, "v1.0");
    assert!(status.endpoint.last_success.is_some() && status.endpoint.last_failure.is_none());
    assert_eq!(status.rate.limit_per_second, Some(5.0));
    assert_eq!((status.held.messages_unsettled, status.held.ids_pending), (0, 0));
    let totals = status.totals;
    assert_eq!((totals.messages_received, totals.messages_deleted, totals.messages_dead_lettered), (3, 2, 1));
    assert_eq!((totals.ids_deleted, totals.messages_malformed, totals.messages_released), (3, 1, 0));

    assert_eq!(worker.metric("message_age_seconds_count", &[]).await, 2.0);
    assert!(worker.metric("message_age_seconds_sum", &[]).await >= 200.0);
    assert_eq!(worker.metric("batch_ids_sum", &[]).await, 3.0);
    assert_eq!(worker.metric("endpoint_request_duration_seconds_count", &[]).await, totals.calls as f64);
    assert!(worker.metric("last_success_timestamp_seconds", &[]).await >= now as f64);
    worker.stop().await;
}

#[tokio::test]
async fn a_dry_run_needs_no_token_and_touches_nothing() {
    let mut world = World::new().await;
    world.unset("endpoint.token").set("worker.dry_run", "true");
    world.prepare().await;
    world.publish_ids(ids(700)).await;
    let mut worker = world.start().await;
    worker.counted("dry_run_ids_total", &[], 700.0).await;
    assert_eq!(worker.metric("ids_deleted_total", &[]).await, 0.0);
    assert_eq!(worker.metric("messages_unsettled", &[]).await, 700.0);
    let status = worker.status().await.expect("it runs");
    assert!(status.dry_run && status.endpoint.last_success.is_none());
    worker.stop().await;
    assert!(world.mock.calls().is_empty());
    assert!(worker.process.stderr.all().iter().any(|line| line.contains("dry run: would delete")));
    world.ready(700).await;
}

#[tokio::test]
async fn secrets_are_seen_nowhere() {
    let mut world = World::new().await;
    let (user, password) = (format!("user-{}", world.vhost.name), "hush-hush-4711");
    let management = world.vhost.management.clone();
    management.set_user(&user, password, "").await.expect("the broker serves");
    management.set_permissions(&world.vhost.name, &user, [".*"; 3]).await.expect("the broker serves");
    world.set("amqp.urls", &world.vhost.url_as(&user, password)).set("log.level", "trace");
    world.set("health.release_after", "100ms");
    let mut worker = world.start().await;

    // Some of everything: a success, garbage, a rejection, a refusal, an outage, a lost connection.
    world.publish(["garbage", r#"["VI1"]"#, r#"["VIbad"]"#]).await;
    world.faults(|faults| faults.bad_ids = ["VIbad".to_owned()].into());
    world.publish_ids(["VI2"]).await;
    world.deleted(2).await;
    worker.settled(&world).await;
    let letters = format!("{:?}", world.dead_letters(2).await);
    world.faults(|faults| faults.blocked = Some(deletion_worker::mock::Block::Unauthorized));
    world.publish_ids(["VI3"]).await;
    worker.endpoint_is(EndpointState::Blocked).await;
    let status = page(&worker, "/status").await.1;
    world.faults(|faults| faults.blocked = None);
    world.deleted(3).await;
    management.set_user(&user, "changed", "").await.expect("the broker serves");
    let connections =
        crate::support::wait_for_some("its connections", crate::support::PATIENCE, async || {
            let mut ours = management.connections(&world.vhost.name).await.ok()?;
            ours.retain(|connection| connection.client.is_some());
            (!ours.is_empty()).then_some(ours)
        })
        .await;
    for connection in connections {
        // Ours as a publisher may be among them, or gone by now.
        let _ = management.close_connection(&connection.name).await;
    }
    worker.disconnected().await;
    let pages = [status, page(&worker, "/status").await.1, page(&worker, "/metrics").await.1];
    let ready = page(&worker, "/readyz").await;
    assert_eq!(ready.0, 503);
    worker.process.signal("TERM").await;
    worker.process.exit(crate::support::PATIENCE).await;

    let mut check = world.process(&["check-config"]);
    assert_eq!(check.exit(crate::support::PATIENCE).await.code(), Some(0));
    let said =
        [worker.process.stderr.all(), worker.process.stdout.all(), check.stdout.all(), check.stderr.all()];
    let seen = said.iter().flatten().chain(&pages).chain([&letters, &ready.1]);
    management.delete_user(&user).await.expect("the broker serves");
    let mut lines = 0;
    for line in seen {
        lines += 1;
        assert!(!line.contains(TOKEN) && !line.contains(password), "{line}");
    }
    assert!(lines > 50, "{lines} lines: too few to prove anything");
}
