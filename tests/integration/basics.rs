//! What the program promises first: full calls, few of them, and nobody blamed for another's fault.

use std::time::Duration;

use crate::support::letter::header;
use crate::support::world::{World, ids};
use crate::support::{PATIENCE, amqp, wait_for};

#[tokio::test]
async fn a_backlog_leaves_in_full_calls() {
    let mut world = World::new().await;
    world.unset("batch.linger"); // a busy broker must not cost a call
    world.prepare().await;
    world.publish_ids((0..1234).map(|n| format!("VI{n}"))).await;
    let mut worker = world.start().await;
    world.deleted(1234).await;
    worker.settled(&world).await;
    let calls = world.mock.calls();
    assert_eq!(calls.iter().map(|call| call.size).collect::<Vec<_>>(), [500, 500, 234]);
    assert!(calls.iter().all(|call| call.method == "DELETE"));
    worker.stop().await;
}

#[tokio::test]
async fn a_lone_message_leaves_when_it_has_lingered() {
    let world = World::new().await;
    let mut worker = world.start().await;
    world.publish_ids(["VI1"]).await;
    world.deleted(1).await;
    worker.settled(&world).await;
    assert_eq!(worker.metric("batches_total", &[("trigger", "linger")]).await, 1.0);
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "deleted")]).await, 1.0);
    worker.stop().await;
}

#[tokio::test]
async fn ids_are_batched_not_messages() {
    let world = World::new().await;
    let mut worker = world.start().await;
    world.publish([message(&ids(1200))]).await;
    world.deleted(1200).await;
    worker.settled(&world).await;
    let sizes: Vec<_> = world.mock.calls().iter().map(|call| call.size).collect();
    assert_eq!(sizes, [500, 500, 200]);
    worker.stop().await;
}

#[tokio::test]
async fn duplicates_wait_for_the_one_deletion() {
    let world = World::new().await;
    world.prepare().await;
    world.publish_ids(ids(500).iter().cycle().take(2000)).await;
    let mut worker = world.start().await;
    world.deleted(500).await;
    worker
        .wait_until("2,000 messages settled", async |worker| {
            worker.metric("messages_settled_total", &[("outcome", "deleted")]).await >= 2000.0
        })
        .await;
    worker.settled(&world).await;
    assert!(world.mock.calls().len() <= 4, "{:?}", world.mock.stats());
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "deleted")]).await, 2000.0);
    worker.stop().await;
}

#[tokio::test]
async fn batches_are_bound_late_when_the_endpoint_is_slow() {
    let mut world = World::new().await;
    world.unset("endpoint.requests_per_second").unset("batch.linger");
    world.faults(|faults| faults.latency = Duration::from_secs(1));
    let mut worker = world.start().await;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let all = ids(4000);
    for hundred in all.chunks(100) {
        tick.tick().await;
        world.publish_ids(hundred).await;
    }
    world.deleted(4000).await;
    worker.settled(&world).await;
    // The last call takes what is left.
    let sizes: Vec<_> = world.mock.calls().iter().map(|call| call.size).collect();
    let (_, full) = sizes.split_last().expect("there were calls");
    let mean = full.iter().sum::<usize>() as f64 / full.len() as f64;
    assert!(mean >= 450.0, "{sizes:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_bad_id_costs_itself_only() {
    for bad in [1, 3, 10] {
        let mut world = World::new().await;
        world.unset("batch.linger"); // a busy broker must not cost a call
        world.prepare().await;
        let all = ids(2000);
        // Adjacent ones, as those are the hardest to tell from an endpoint that rejects everything.
        let bad: Vec<_> = all.iter().skip(700).take(bad).cloned().collect();
        world.faults(|faults| faults.bad_ids = bad.iter().cloned().collect());
        world.publish_ids(&all).await;
        let mut worker = world.start().await;
        world.deleted(2000 - bad.len() as u64).await;
        let letters = world.dead_letters(u32::try_from(bad.len()).expect("few")).await;
        worker.settled(&world).await;
        let mut blamed: Vec<_> = letters.iter().map(|letter| letter.data.clone()).collect();
        blamed.sort();
        let expected: Vec<_> = bad.iter().map(|id| format!(r#"{{"videoNo":"{id}"}}"#).into_bytes()).collect();
        assert_eq!(blamed, expected);
        for letter in &letters {
            assert_eq!(header(letter, "x-deletion-reason"), "rejected");
            assert_eq!(header(letter, "x-deletion-code"), "0001");
        }
        let calls = world.mock.calls().len();
        assert!(calls <= 4 + 18 * bad.len(), "{calls} calls for {} bad IDs", bad.len());
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_dry_run_calls_nobody_and_gives_everything_back() {
    let mut world = World::new().await;
    world.set("worker.dry_run", "true");
    let mut worker = world.start().await;
    world.publish_ids(ids(120)).await;
    worker.wait_until("counted", async |worker| worker.metric("dry_run_ids_total", &[]).await == 120.0).await;
    worker.stop().await;
    assert_eq!(world.mock.stats().sizes.count, 0);
    wait_for("all back", PATIENCE, async || amqp::ready(&world.connection, "deletions").await == 120).await;
}

#[tokio::test]
async fn namespaces_never_share_a_call() {
    let mut world = World::new().await;
    world.v1_2();
    let mut worker = world.start().await;
    let bodies = (0..300).map(|n| format!(r#"{{"videoNo":"VI{n}","namespace":"ns{}"}}"#, n % 3));
    world.publish(bodies).await;
    world.publish_ids(["VIplain"]).await;
    world.deleted(301).await;
    worker.settled(&world).await;
    let calls = world.mock.calls();
    assert!(calls.iter().all(|call| call.method == "POST" && call.size <= 100), "{calls:?}");
    for call in &calls {
        let namespace = call.namespace.as_deref().expect("v1.2 names one");
        for id in &call.ids {
            let expected = id[2..].parse::<u32>().map_or("default".into(), |n| format!("ns{}", n % 3));
            assert_eq!(namespace, expected, "{id}");
        }
    }
    worker.stop().await;
}

fn message(ids: &[String]) -> String {
    serde_json::json!({ "videoNos": ids }).to_string()
}
