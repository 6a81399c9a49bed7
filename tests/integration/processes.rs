//! Signals, and processes that die or work side by side.

use std::time::{Duration, Instant};

use deletion_worker::mock::Down;
use deletion_worker::status::EndpointState;

use crate::support::proxy::Mode;
use crate::support::world::{Worker, World, ids};
use crate::support::{PATIENCE, wait_for};

/// More than an exit takes that waits for nothing, on a busy machine; far less than the default grace.
const SOON: Duration = Duration::from_secs(12);

#[tokio::test]
async fn ten_kills_in_a_drain_lose_nothing() {
    const KILLS: usize = 10;
    let mut world = World::new().await;
    world.slow_down().prepare().await;
    let ids = ids(400 * (KILLS + 1));
    world.publish_ids(&ids).await;
    for kill in 0..KILLS {
        let mut worker = world.launch().await;
        world.deleted_at_least(1 + 400 * kill as u64).await;
        worker.process.signal("KILL").await;
        assert_eq!(worker.process.exit(PATIENCE).await.code(), None, "a signal ended it");
        assert!(world.mock.stats().ids_deleted < ids.len() as u64, "killed before the end");
    }
    let mut worker = world.start().await;
    world.deleted(ids.len() as u64).await;
    worker.settled(&world).await;
    worker.stop().await;
    world.all_deleted(&ids);
    world.ready(0).await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn a_drain_gives_back_what_is_not_deleted() {
    for signal in ["TERM", "INT"] {
        let mut world = World::new().await;
        world.slow_down().prepare().await;
        let ids = ids(2000);
        world.publish_ids(&ids).await;
        let mut worker = world.start().await;
        world.deleted_at_least(500).await;
        exits_with(&mut worker, signal, 0, SOON).await;
        let deleted = world.mock.stats().ids_deleted;
        assert!(deleted < 2000, "ended before the end");
        world.ready(2000 - u32::try_from(deleted).expect("less than 2000")).await;

        let mut next = world.start().await;
        world.deleted(2000).await;
        next.settled(&world).await;
        next.stop().await;
        world.all_deleted_once(&ids);
        world.ready(0).await;
        world.no_dead_letters().await;
    }
}

#[tokio::test]
async fn a_drain_in_an_outage_gives_everything_back_at_once() {
    let world = World::new().await;
    world.faults(|faults| faults.down = Some(Down::Unavailable));
    let mut worker = world.start().await;
    world.publish_ids(ids(300)).await;
    worker
        .wait_until("the breaker opens with everything in hand", async |worker| {
            worker.status().await.is_some_and(|status| {
                status.endpoint.state == EndpointState::Open && status.held.messages_unsettled == 300
            })
        })
        .await;
    exits_with(&mut worker, "TERM", 0, SOON).await;
    world.ready(300).await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn a_call_that_hangs_does_not_outlast_the_grace() {
    let mut world = World::new().await;
    world.set("shutdown.grace", "2s").faults(|faults| faults.down = Some(Down::Hang));
    let mut worker = world.start().await;
    world.publish_ids(ids(10)).await;
    hanging(&world).await;
    let start = Instant::now();
    exits_with(&mut worker, "TERM", 0, SOON).await;
    // It gave the call what there was; the rest is for the slowness of a busy machine.
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    world.ready(10).await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("INT", "TERM")] {
        let mut world = World::new().await;
        world.set("shutdown.grace", "10m").faults(|faults| faults.down = Some(Down::Hang));
        let mut worker = world.start().await;
        world.publish_ids(ids(10)).await;
        hanging(&world).await;
        worker.process.signal(first).await;
        worker.process.stderr.wait_for("draining; a second signal stops at once", PATIENCE).await;
        exits_with(&mut worker, second, 1, SOON).await;
        let last = worker.process.stderr.all().pop().expect("it logs why it ends");
        assert!(last.contains("second signal"), "{last}");
        world.ready(10).await;
        world.no_dead_letters().await;
    }
}

#[tokio::test]
async fn an_idle_worker_goes_when_asked() {
    for signal in ["TERM", "INT"] {
        let world = World::new().await;
        let mut worker = world.start().await;
        exits_with(&mut worker, signal, 0, SOON).await;
    }
}

#[tokio::test]
async fn without_a_broker_it_still_goes_when_asked() {
    let mut world = World::new().await;
    let mut proxy = world.proxy().await;
    let mut worker = world.start().await;
    proxy.set(Mode::Reset).await;
    worker.disconnected().await;
    exits_with(&mut worker, "TERM", 0, SOON).await;

    for away in [Mode::Refuse, Mode::Reset, Mode::Pause] {
        proxy.set(away).await;
        let mut worker = world.launch().await;
        exits_with(&mut worker, "TERM", 0, SOON).await;
    }
}

#[tokio::test]
async fn a_silent_broker_does_not_keep_it_beyond_the_grace() {
    let mut world = World::new().await;
    world.set("shutdown.grace", "3s");
    let mut proxy = world.proxy().await;
    let mut worker = world.start().await;
    world.publish_ids(ids(10)).await;
    world.deleted(10).await;
    worker.settled(&world).await;
    proxy.set(Mode::Pause).await;
    exits_with(&mut worker, "TERM", 0, SOON).await;
}

#[tokio::test]
async fn a_standby_takes_over_when_the_active_one_dies() {
    let mut world = World::new().await;
    world.slow_down();
    let mut active = world.start().await;
    let mut standby = world.start().await;
    assert_eq!((active.readyz().await, standby.readyz().await), (200, 200));
    let ids = ids(2000);
    world.publish_ids(&ids).await;
    world.deleted_at_least(500).await;
    let status = standby.status().await.expect("it runs");
    assert_eq!(status.totals.messages_received, 0, "it stands by");
    active.process.signal("KILL").await;
    active.process.exit(PATIENCE).await;
    assert!(world.mock.stats().ids_deleted < 2000, "killed before the end");
    world.deleted(2000).await;
    standby.settled(&world).await;
    assert!(standby.metric("messages_received_total", &[]).await > 0.0);
    standby.stop().await;
    world.all_deleted(&ids);
    world.no_dead_letters().await;
}

#[tokio::test]
async fn without_single_active_consumer_replicas_share() {
    let mut world = World::new().await;
    world.slow_down().set("amqp.single_active_consumer", "false").set("amqp.prefetch", "20");
    let mut workers = [world.start().await, world.start().await];
    let ids = ids(1000);
    world.publish_ids(&ids).await;
    world.deleted(1000).await;
    for worker in &mut workers {
        worker.settled(&world).await;
        assert!(worker.metric("ids_deleted_total", &[]).await > 0.0);
        worker.stop().await;
    }
    world.all_deleted_once(&ids);
    world.no_dead_letters().await;
}

/// Waits until a call came in that gets no answer.
async fn hanging(world: &World) {
    wait_for("a call that hangs", PATIENCE, async || world.mock.stats().concurrent > 0).await;
}

async fn exits_with(worker: &mut Worker, signal: &str, code: i32, patience: Duration) {
    worker.process.signal(signal).await;
    let status = worker.process.exit(patience).await;
    assert_eq!(status.code(), Some(code), "{signal}: {:#?}", worker.process.stderr.all());
}
