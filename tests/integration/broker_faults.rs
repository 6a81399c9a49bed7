//! A broker that goes away, comes back, changes its mind or runs short of something.

use std::time::Duration;

use deletion_worker::mock::Down;
use deletion_worker::rabbitmq::Node;
use deletion_worker::status::EndpointState;

use crate::support::broker::Vhost;
use crate::support::proxy::Mode;
use crate::support::world::{World, ids};
use crate::support::{PATIENCE, wait_for};

#[tokio::test]
async fn what_was_deleted_before_its_acknowledgement_was_lost_is_not_deleted_again() {
    let mut world = World::new().await;
    // One call, however slowly they arrive.
    world.set("batch.max_ids", "100").set("batch.linger", "60s");
    let mut proxy = world.proxy().await;
    let mut worker = world.start().await;
    world.faults(|faults| faults.latency = Duration::from_secs(1));
    let ids = ids(100);
    world.publish_ids(&ids).await;
    wait_for("a call under way with all of them", PATIENCE, async || {
        worker.status().await.is_some_and(|status| status.held.ids_in_flight == 100)
    })
    .await;
    // The acknowledgement is written, gets no further than here, and dies with the connection.
    proxy.set(Mode::Pause).await;
    worker
        .wait_until("the acknowledgements are written", async |worker| {
            worker.status().await.is_some_and(|status| status.totals.messages_deleted == 100)
        })
        .await;
    proxy.set(Mode::Reset).await;
    worker.disconnected().await;
    world.ready(100).await;
    proxy.set(Mode::Pass).await;
    worker.reconnected(1).await;
    worker.settled(&world).await;
    // One break is not all that a worker gets over.
    proxy.set(Mode::Reset).await;
    worker.disconnected().await;
    proxy.set(Mode::Pass).await;
    worker.reconnected(2).await;
    worker.stop().await;
    world.all_deleted_once(&ids);
    assert_eq!(world.mock.calls().len(), 1);
    world.ready(0).await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn a_deleted_queue_that_may_not_be_declared_is_waited_for() {
    let mut world = World::new().await;
    world.prepare().await;
    // That is for somebody else to mend, and then it goes on by itself.
    let mut worker = world.set("amqp.declare", "verify").start().await;
    world.vhost.management.delete_queue(&world.vhost.name, "deletions").await.expect("it exists");
    worker.process.stderr.wait_for("queue `deletions` does not exist", PATIENCE).await;
    world.set("amqp.declare", "create").prepare().await;
    worker.reconnected(1).await;
    world.publish_ids(ids(3)).await;
    world.deleted(3).await;
    worker.stop().await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn a_broker_short_of_memory_or_patience_loses_nothing() {
    let node = crate::support::broker::node().await;
    let mut world = World::on(Vhost::on(&node).await).await;
    // With this little in hand, what is deleted has to be acknowledged before the rest can come.
    world.set("batch.max_ids", "50").set("amqp.prefetch", "50");
    let mut worker = world.start().await;
    // From now on the publishing connection has published, so the broker blocks it when it is short of memory.
    world.publish(["not a request"]).await;
    world.dead_letters(1).await;
    world.faults(|faults| {
        faults.down = Some(Down::Unavailable);
        faults.bad_prefix = Some("BAD".into());
    });
    world.publish_ids(ids(200)).await;
    world.publish_ids(["BAD1", "BAD2"]).await;
    worker
        .wait_until("the breaker is open", async |worker| {
            worker.status().await.is_some_and(|status| status.endpoint.state == EndpointState::Open)
        })
        .await;
    node.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await.expect("the node serves");
    wait_for("the alarm", PATIENCE, async || {
        node.ctl(&["eval", "rabbit_alarm:get_alarms()."]).await.is_ok_and(|alarms| alarms.contains("memory"))
    })
    .await;
    world.faults(|faults| faults.down = None);
    world.deleted(200).await;
    // By the broker's own count: our connection is blocked too.
    wait_for("only what waits for its dead letter is not acknowledged", PATIENCE, async || {
        let queue = world.vhost.management.queue(&world.vhost.name, "deletions").await;
        queue.is_ok_and(|queue| (queue.ready, queue.unacked) == (0, 2))
    })
    .await;
    assert_eq!(worker.readyz().await, 200);
    node.ctl(&["set_vm_memory_high_watermark", "0.9"]).await.expect("the node serves");
    world.dead_letters(2).await;
    worker.settled(&world).await;
    assert_eq!(worker.metric("broker_reconnects_total", &[]).await, 0.0);
    worker.stop().await;

    times_out(&node, &world).await;
}

/// A call takes longer than the broker lets its messages be held.
async fn times_out(node: &Node, world: &World) {
    // For new channels.
    let impatient = "application:set_env(rabbit, consumer_timeout, 2000), \
                     application:set_env(rabbit, channel_tick_interval, 500).";
    node.ctl(&["eval", impatient]).await.expect("the node serves");
    let mut worker = world.start().await;
    world.mock.reset();
    world.faults(|faults| faults.latency = Duration::from_secs(12));
    world.publish_ids(ids(10)).await;
    // By the broker's own count: between two sessions the worker has nothing in hand. A quorum queue counts every five
    // seconds only, so what it says counts once it has seen the messages.
    let held = async |messages: u64| {
        let queue = world.vhost.management.queue(&world.vhost.name, "deletions").await;
        queue.is_ok_and(|queue| queue.ready + queue.unacked == messages)
    };
    wait_for("the messages are counted", PATIENCE, async || held(10).await).await;
    worker.process.stderr.wait_for("consumer_timeout", PATIENCE).await;
    worker.counted("broker_reconnects_total", &[], 1.0).await;
    wait_for("everything acknowledged", PATIENCE, async || held(0).await).await;
    worker.stop().await;
    // The call went on meanwhile, and the messages that came again waited for it.
    world.all_deleted_once(&ids(10));
    world.ready(0).await;
    world.no_dead_letters().await;
}
