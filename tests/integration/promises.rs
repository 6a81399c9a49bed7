//! What the program promises about batches, faults and exits, each with the real binary between a real broker and
//! a real HTTP server.

use std::collections::BTreeMap;
use std::time::Duration;

use deletion_worker::mock::{Down, Reply};
use deletion_worker::status::EndpointState;
use lapin::types::AMQPValue;

use crate::support::world::{TOKEN, World};
use crate::support::{PATIENCE, amqp, http, wait_for};

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("VI{n:06}")).collect()
}

fn message(ids: &[String]) -> String {
    serde_json::json!({ "videoNos": ids }).to_string()
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
        let world = World::new().await;
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
async fn an_endpoint_that_rejects_everything_is_at_fault_itself() {
    let world = World::new().await;
    world.prepare().await;
    world.faults(|faults| faults.bad_prefix = Some("VI".into()));
    world.publish_ids(ids(40)).await;
    let mut worker = world.start().await;
    worker.wait_until("blocked", async |worker| state(worker).await == Some(EndpointState::Blocked)).await;
    world.faults(|faults| faults.bad_prefix = None);
    world.deleted(40).await;
    worker.settled(&world).await;
    assert_eq!(amqp::ready(&world.connection, "deletions.dead").await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn an_outage_gives_everything_back_once_and_blames_nobody() {
    let mut world = World::new().await;
    world.set("health.release_after", "300ms");
    let mut worker = world.start().await;
    world.faults(|faults| faults.down = Some(Down::Unavailable));
    world.publish_ids(ids(700)).await;
    worker
        .wait_until("given back", async |worker| {
            worker.metric("messages_settled_total", &[("outcome", "released")]).await >= 700.0
                && worker.metric("consuming", &[]).await == 0.0
        })
        .await;
    wait_for("all in the queue", PATIENCE, async || amqp::ready(&world.connection, "deletions").await == 700)
        .await;
    let before = world.mock.stats().sizes.count;
    wait_for("probes go on", PATIENCE, async || world.mock.stats().sizes.count >= before + 3).await;
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "released")]).await, 700.0);
    let (ready, _) = http::get(&format!("{}/readyz", worker.admin)).await.expect("the worker runs");
    assert_eq!(ready, 200, "an outage of the endpoint is no reason to restart the worker");
    // Four calls at most before the breaker opens, then single IDs.
    let calls = world.mock.calls();
    assert!(calls.iter().rev().take(3).all(|call| call.size == 1), "{calls:?}");

    world.faults(|faults| faults.down = None);
    world.deleted(700).await;
    worker.settled(&world).await;
    assert_eq!(amqp::ready(&world.connection, "deletions.dead").await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn an_id_that_always_fails_is_given_up_while_others_go_through() {
    let mut world = World::new().await;
    world.set("retry.max_strikes", "3");
    world.faults(|faults| faults.failing_ids = ["VIpoison".to_owned()].into());
    let mut worker = world.start().await;
    world.publish_ids(["VIpoison"]).await;
    let mut good = 0;
    wait_for("the dead letter", PATIENCE, async || {
        good += 1;
        world.publish_ids([format!("VIgood{good}")]).await;
        amqp::ready(&world.connection, "deletions.dead").await == 1
    })
    .await;
    let letters = world.dead_letters(1).await;
    assert_eq!(header(&letters[0], "x-deletion-reason"), "retries_exhausted");
    assert_eq!(header(&letters[0], "x-deletion-http-status"), "500");
    world.deleted(good).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_refused_token_is_replaced_without_a_restart() {
    let mut world = World::new().await;
    let path = std::env::temp_dir().join(format!("deletion-worker-token-{}", std::process::id()));
    std::fs::write(&path, "expired\n").expect("a temporary file");
    world.unset("endpoint.token").set("endpoint.token_file", path.to_str().expect("UTF-8"));
    world.set("health.probe_initial", "1h").set("health.probe_max", "1h");
    let mut worker = world.start().await;
    world.publish_ids(ids(600)).await;
    worker.wait_until("blocked", async |worker| state(worker).await == Some(EndpointState::Blocked)).await;
    std::fs::write(&path, TOKEN).expect("a temporary file");
    world.deleted(600).await;
    worker.settled(&world).await;
    std::fs::remove_file(&path).expect("it was ours");
    assert_eq!(amqp::ready(&world.connection, "deletions.dead").await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn no_doubtful_answer_is_a_success() {
    let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let location = format!("http://{}/", stranger.local_addr().expect("bound"));
    let reply = |status, body: &str| Reply {
        status,
        headers: BTreeMap::new(),
        body: body.into(),
        calls: None,
        applies: false,
    };
    let redirect = Reply { headers: [("location".to_owned(), location)].into(), ..reply(307, "") };
    let answers = [
        ("blocked", redirect),
        ("blocked", reply(404, "not found")),
        ("blocked", reply(405, "")),
        ("blocked", reply(200, "<html>please log in</html>")),
        ("blocked", reply(200, "")),
        ("blocked", reply(200, r#"{"msg":"success"}"#)),
        ("blocked", reply(200, r#"{"code":"0402","msg":"no credit"}"#)),
        ("transient", reply(200, r#"{"code":"7777","msg":"success"}"#)),
        ("transient", reply(500, r#"{"code":"0000"}"#)),
        ("throttled", reply(429, "")),
    ];
    let mut world = World::new().await;
    world.set("retry.max", "50ms");
    let mut worker = world.start().await;
    for (n, (outcome, reply)) in answers.into_iter().enumerate() {
        let before = worker.metric("endpoint_requests_total", &[("outcome", outcome)]).await;
        world.faults(|faults| faults.reply = Some(reply));
        world.publish_ids([format!("VI{n}")]).await;
        worker
            .wait_until(outcome, async |worker| {
                worker.metric("endpoint_requests_total", &[("outcome", outcome)]).await > before
            })
            .await;
        assert_eq!(world.mock.stats().ids_deleted, n as u64);
        assert_eq!(worker.metric("messages_unsettled", &[]).await, 1.0);
        world.faults(|faults| faults.reply = None);
        world.deleted(n as u64 + 1).await;
        worker.settled(&world).await;
    }
    assert_eq!(amqp::ready(&world.connection, "deletions.dead").await, 0);
    worker.stop().await;
    let visit = tokio::time::timeout(Duration::ZERO, stranger.accept()).await;
    assert!(visit.is_err(), "the redirect was followed");
}

#[tokio::test]
async fn kill_9_at_ten_moments_loses_nothing() {
    let mut world = World::new().await;
    world.set("endpoint.max_concurrency", "1").set("batch.max_ids", "100");
    world.prepare().await;
    world.faults(|faults| faults.latency = Duration::from_millis(5));
    let all = ids(6000);
    world.publish_ids(&all).await;
    for round in 1..=10 {
        let mut worker = world.launch().await;
        wait_for("progress", PATIENCE, async || world.mock.stats().ids_deleted >= round * 500).await;
        worker.process.signal("KILL").await;
        worker.process.exit(PATIENCE).await;
    }
    let mut worker = world.start().await;
    world.deleted(6000).await;
    worker.settled(&world).await;
    assert!(world.mock.deleted().keys().eq(&all));
    assert_eq!(amqp::ready(&world.connection, "deletions.dead").await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_drain_deletes_nothing_twice_and_leaves_the_rest() {
    for signal in ["TERM", "INT"] {
        let mut world = World::new().await;
        world.set("endpoint.requests_per_second", "20").set("batch.max_ids", "50");
        world.prepare().await;
        world.publish_ids(ids(3000)).await;
        let mut worker = world.start().await;
        wait_for("progress", PATIENCE, async || world.mock.stats().ids_deleted >= 100).await;
        worker.process.signal(signal).await;
        let status = worker.process.exit(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(0));
        let stats = world.mock.stats();
        assert!(stats.ids_deleted < 3000, "the drain was to come before the end");
        wait_for("the rest in the queue", PATIENCE, async || {
            u64::from(amqp::ready(&world.connection, "deletions").await) == 3000 - stats.ids_deleted
        })
        .await;
        assert_eq!(stats.ids_deleted_again, 0);
    }
}

#[tokio::test]
async fn a_drain_in_an_outage_is_short() {
    let world = World::new().await;
    let mut worker = world.start().await;
    world.faults(|faults| faults.down = Some(Down::Reset));
    world.publish_ids(ids(300)).await;
    worker.wait_until("open", async |worker| state(worker).await == Some(EndpointState::Open)).await;
    worker.stop().await;
    wait_for("all back", PATIENCE, async || amqp::ready(&world.connection, "deletions").await == 300).await;
}

#[tokio::test]
async fn a_call_that_hangs_does_not_outlast_the_grace_nor_a_second_signal() {
    let mut world = World::new().await;
    world.set("shutdown.grace", "2s");
    world.prepare().await;
    world.faults(|faults| faults.down = Some(Down::Hang));
    for (signals, code) in [(1, 0), (2, 1)] {
        world.publish_ids([format!("VI{signals}")]).await;
        let mut worker = world.start().await;
        let hanging = async |worker: &crate::support::world::Worker| {
            worker.status().await.is_some_and(|status| status.held.ids_in_flight > 0)
        };
        worker.wait_until("a call under way", hanging).await;
        for _ in 0..signals {
            worker.process.signal("TERM").await;
            worker.process.stderr.wait_for("draining", PATIENCE).await;
        }
        let status = worker.process.exit(PATIENCE).await;
        assert_eq!(status.code(), Some(code), "{:#?}", worker.process.stderr.all());
    }
    wait_for("both back", PATIENCE, async || amqp::ready(&world.connection, "deletions").await == 2).await;
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

#[tokio::test]
async fn the_quota_holds_and_throttling_is_survived() {
    let mut world = World::new().await;
    world.set("endpoint.requests_per_second", "20").set("batch.max_ids", "20");
    world.prepare().await;
    world.publish_ids(ids(600)).await;
    world.faults(|faults| faults.requests_per_second = 10);
    let mut worker = world.start().await;
    wait_for("throttled", PATIENCE, async || {
        worker.metric("endpoint_requests_total", &[("outcome", "throttled")]).await > 0.0
    })
    .await;
    world.faults(|faults| faults.requests_per_second = 0);
    world.deleted(600).await;
    worker.settled(&world).await;
    assert!(world.mock.stats().peaks.in_one_second <= 20, "{:?}", world.mock.stats());
    assert!(worker.metric("rate_limit_requests_per_second", &[]).await < 20.0);
    worker.stop().await;
}

async fn state(worker: &crate::support::world::Worker) -> Option<EndpointState> {
    Some(worker.status().await?.endpoint.state)
}

fn header(message: &lapin::message::BasicGetMessage, name: &str) -> String {
    let headers = message.properties.headers().as_ref().expect("a dead letter has headers");
    match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        Some(AMQPValue::LongInt(number)) => number.to_string(),
        Some(AMQPValue::LongLongInt(number)) => number.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}
