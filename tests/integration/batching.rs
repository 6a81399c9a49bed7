//! Calls are as documented, as full and as few as they can be, and what is in hand is bounded.

use std::time::Duration;

use crate::support::world::{World, ids};
use crate::support::{PATIENCE, wait_for};

#[tokio::test]
async fn a_call_is_as_the_documentation_asks() {
    let mut world = World::new().await;
    world.unset("batch.linger"); // a busy broker must not cost a call
    world.prepare().await;
    let all = ids(1234);
    world.publish_ids(&all).await;
    let mut worker = world.start().await;
    world.deleted(1234).await;
    worker.settled(&world).await;
    for call in world.mock.calls() {
        // The mock takes nothing but the bare token, which `deleted` proves.
        assert_eq!((call.method.as_str(), call.path.as_str()), ("DELETE", "/api/serve/video/delete"));
        assert_eq!(call.headers["content-type"], "application/json");
        assert_eq!(call.namespace, None);
        assert!(call.size <= 500, "{call:?}");
    }
    world.all_deleted_once(&all);
    worker.stop().await;
    // What was unacknowledged would be back by now.
    world.ready(0).await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn every_message_of_a_shared_id_is_settled_and_counted_once() {
    let mut world = World::new().await;
    world.set("batch.linger", "1s");
    world.faults(|faults| faults.latency = Duration::from_millis(500));
    world.prepare().await;
    world.publish_ids(ids(500).iter().cycle().take(2000)).await;
    let mut worker = world.start().await;
    worker.counted("messages_settled_total", &[("outcome", "deleted")], 2000.0).await;
    worker.settled(&world).await;
    world.all_deleted(&ids(500));
    let sizes = world.mock.stats().sizes;
    assert!(sizes.count <= 4, "{sizes:?}");
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "deleted")]).await, 2000.0);
    assert_eq!(worker.metric("messages_received_total", &[]).await, 2000.0);
    let (called, shared) = (sizes.sum as f64, worker.metric("ids_deduplicated_total", &[]).await);
    assert_eq!(called + shared, 2000.0, "an ID either has a place in a call or shares one");
    assert_eq!(worker.metric("ids_deleted_total", &[]).await, called);
    worker.stop().await;
    world.ready(0).await;
}

#[tokio::test]
async fn what_was_in_the_queue_shares_deletions_gone_by_and_what_comes_later_does_not() {
    let mut world = World::new().await;
    world.set("amqp.prefetch", "100").set("batch.max_ids", "100");
    world.set("batch.linger", "1h"); // a busy broker must not cost a call
    // Nor a busy disk, for which a quorum queue waits with each acknowledgement: five seconds end what is certain.
    world.set("amqp.queue_type", "classic");
    world.prepare().await;
    let all = ids(2_000);
    // Each ID comes again when its deletion is long gone.
    world.publish_ids(all.iter().chain(&all)).await;
    let mut worker = world.start().await;
    worker.counted("messages_settled_total", &[("outcome", "deleted")], 4_000.0).await;
    let sizes = world.mock.stats().sizes;
    assert_eq!((sizes.count, sizes.sum), (20, 2_000), "{sizes:?}");
    // Whoever asks now may know something new.
    world.publish_ids(&all[..100]).await;
    wait_for("asked for again", PATIENCE, async || world.mock.stats().sizes.sum == 2_100).await;
    worker.settled(&world).await;
    worker.stop().await;
    world.ready(0).await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn large_messages_do_not_fill_the_memory() {
    let mut world = World::new().await;
    world.set("endpoint.max_concurrency", "1");
    world.prepare().await;
    // Neighbours share most of their IDs.
    let message = |n: usize| {
        serde_json::json!((n * 500..n * 500 + 10_000).map(|id| id.to_string()).collect::<Vec<_>>())
            .to_string()
    };
    world.publish((0..200).map(message)).await;
    let unique = 199 * 500 + 10_000;
    let mut worker = world.start().await;
    let mut most = 0;
    wait_for("all deleted", PATIENCE, async || {
        let held = worker.status().await.expect("it runs").held;
        most = most.max(held.ids_pending);
        world.mock.stats().ids_deleted >= unique
    })
    .await;
    worker.settled(&world).await;
    assert_eq!(world.mock.stats().ids_deleted, unique);
    // Several times what is in flight, and the message that exceeds it.
    let bound = 4 * 3 * 500 + 10_000;
    assert!((1..=bound).contains(&most), "{most} IDs pending");
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "deleted")]).await, 200.0);
    worker.stop().await;
}

#[tokio::test]
async fn the_default_quota_is_never_exceeded() {
    let mut world = World::new().await;
    world.unset("batch.linger"); // a busy broker must not cost a call
    world.unset("endpoint.requests_per_second");
    // The mock refuses the sixth call within a second.
    world.faults(|faults| faults.requests_per_second = 5);
    world.prepare().await;
    world.publish_ids(ids(5000)).await;
    let mut worker = world.start().await;
    world.deleted(5000).await;
    worker.settled(&world).await;
    let stats = world.mock.stats();
    assert!(stats.peaks.in_one_second <= 5, "{stats:?}");
    assert_eq!(worker.metric("endpoint_requests_total", &[("outcome", "throttled")]).await, 0.0);
    assert_eq!(worker.metric("rate_limit_requests_per_second", &[]).await, 5.0);
    assert!(worker.metric("rate_limit_wait_seconds_count", &[]).await > 0.0);
    assert_eq!(stats.sizes.mean_fill, 1.0, "{stats:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_smaller_quota_than_configured_is_found() {
    let mut world = World::new().await;
    world.unset("endpoint.requests_per_second");
    world.faults(|faults| faults.requests_per_second = 2);
    world.prepare().await;
    world.publish_ids(ids(3000)).await;
    let mut worker = world.start().await;
    worker.counted("endpoint_requests_total", &[("outcome", "throttled")], 1.0).await;
    worker
        .wait_until("a lower rate", async |worker| {
            worker.metric("rate_limit_requests_per_second", &[]).await < 5.0
        })
        .await;
    world.deleted(3000).await;
    worker.settled(&world).await;
    world.no_dead_letters().await;
    worker.stop().await;
}
