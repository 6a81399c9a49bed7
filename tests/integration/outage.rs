//! Long outages: few probes, nothing blamed, everything given back once and deleted in the end.

use std::time::Instant;

use deletion_worker::mock::{Block, Down};
use deletion_worker::status::EndpointState;

use crate::support::letter::header;
use crate::support::world::{TOKEN, World, ids};
use crate::support::{PATIENCE, wait_for};

#[tokio::test]
async fn a_long_outage_is_probed_rarely_and_gives_everything_back_once() {
    for down in [Down::Unavailable, Down::Reset] {
        let mut world = World::new().await;
        world.set("health.release_after", "500ms").set("health.probe_max", "400ms");
        // All are there at once: who comes after everything was given back isn't taken.
        world.prepare().await;
        world.publish_ids(ids(600)).await;
        world.faults(|faults| faults.down = Some(down));
        let began = Instant::now();
        let mut worker = world.launch().await;
        worker.endpoint_is(EndpointState::Open).await;
        worker.counted("messages_settled_total", &[("outcome", "released")], 600.0).await;
        world.ready(600).await;

        wait_for("many probes", PATIENCE, async || world.mock.stats().sizes.count >= 20).await;
        let (calls, elapsed) = (world.mock.calls(), began.elapsed());
        // What opens the breaker: five failures, of up to four calls at once. Then 50, 100, 200 ms, and 400 ms, up
        // to a tenth shorter.
        let probes = 5 + 3 + 4 + elapsed.as_millis() / 360;
        assert!(calls.len() as u128 <= probes, "{} calls in {elapsed:?}", calls.len());
        assert!(calls[8..].iter().all(|call| call.size == 1), "a probe is small: {calls:?}");

        // Still away, and nothing was taken again.
        assert_eq!(worker.metric("messages_received_total", &[]).await, 600.0);
        assert_eq!(worker.metric("messages_settled_total", &[("outcome", "released")]).await, 600.0);
        assert_eq!(worker.metric("consuming", &[]).await, 0.0);
        assert_eq!(worker.readyz().await, 200, "restarting the worker would help nobody");
        world.ready(600).await;

        world.faults(|faults| faults.down = None);
        world.deleted(600).await;
        worker.settled(&world).await;
        worker.endpoint_is(EndpointState::Healthy).await;
        assert_eq!(worker.metric("messages_received_total", &[]).await, 1200.0);
        worker.stop().await;
        world.no_dead_letters().await;
        world.ready(0).await;
    }
}

#[tokio::test]
async fn who_wants_it_gets_dead_letters_from_an_outage() {
    let mut world = World::new().await;
    world.set("health.on_outage", "dead_letter").set("retry.max_strikes", "3").set("retry.max", "50ms");
    let mut worker = world.start().await;
    world.faults(|faults| faults.down = Some(Down::Unavailable));
    world.publish_ids(ids(20)).await;
    let letters = world.dead_letters(20).await;
    for letter in &letters {
        assert_eq!(header(letter, "x-deletion-reason"), "retries_exhausted");
        assert_eq!(header(letter, "x-deletion-http-status"), "503");
        assert_eq!(header(letter, "x-deletion-failed-count"), "1");
    }
    worker.settled(&world).await;
    world.faults(|faults| faults.down = None);
    world.publish_ids(["VIafter"]).await;
    world.deleted(1).await;
    worker.settled(&world).await;
    assert_eq!(worker.metric("dead_letters_total", &[("reason", "retries_exhausted")]).await, 20.0);
    worker.stop().await;
}

#[tokio::test]
async fn a_refused_account_blames_nobody_however_long() {
    for (block, code) in [
        (Block::Unauthorized, "0401"),
        (Block::OutOfCredits, "0402"),
        (Block::Disabled, "0403"),
        (Block::Denied, "9009"),
    ] {
        let mut world = World::new().await;
        world.set("health.release_after", "200ms").set("health.probe_max", "100ms");
        let mut worker = world.start().await;
        world.faults(|faults| faults.blocked = Some(block));
        world.publish_ids(ids(30)).await;
        worker.endpoint_is(EndpointState::Blocked).await;
        worker.counted("messages_settled_total", &[("outcome", "released")], 30.0).await;
        world.ready(30).await;
        worker.counted("endpoint_response_codes_total", &[("code", code)], 10.0).await;
        let failure = worker.status().await.expect("it runs").endpoint.last_failure.expect("there was one");
        assert_eq!(failure.code.as_deref(), Some(code));
        world.faults(|faults| faults.blocked = None);
        world.deleted(30).await;
        worker.settled(&world).await;
        worker.stop().await;
        world.no_dead_letters().await;
    }
}

#[tokio::test]
async fn a_replaced_token_file_ends_the_refusal_without_a_restart() {
    let mut world = World::new().await;
    let path = std::env::temp_dir().join(format!("{}-token", world.vhost.name));
    std::fs::write(&path, "sk-expired").expect("a temporary file");
    world.unset("endpoint.token").set("endpoint.token_file", path.to_str().expect("UTF-8"));
    // Given back meanwhile, and no probe for hours: only the new token can bring it back.
    world.set("health.release_after", "100ms");
    world.set("health.probe_initial", "1h").set("health.probe_max", "1h");
    let mut worker = world.start().await;
    let all = ids(40);
    world.publish_ids(&all).await;
    worker.endpoint_is(EndpointState::Blocked).await;
    worker.counted("messages_settled_total", &[("outcome", "released")], 40.0).await;
    // Renamed into place, as Kubernetes does it.
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, TOKEN).expect("a temporary file");
    std::fs::rename(&fresh, &path).expect("the same directory");
    world.deleted(40).await;
    worker.settled(&world).await;
    worker.endpoint_is(EndpointState::Healthy).await;
    worker.stop().await;
    std::fs::remove_file(&path).expect("it was ours");
    world.all_deleted(&all);
    world.no_dead_letters().await;
}
