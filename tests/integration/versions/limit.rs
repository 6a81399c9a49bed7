//! The delivery limit of quorum queues, and what the broker dead-letters for it.

use deletion_worker::mock::Down;
use lapin::options::QueueBindOptions;
use lapin::types::FieldTable;
use serde_json::json;

use super::{LIMITED_BY_DEFAULT, NACKS_COUNT_NO_MORE, give_back, take, version};
use crate::support::broker::{Vhost, node};
use crate::support::letter::{body, find, header};
use crate::support::world::World;
use crate::support::{PATIENCE, amqp, wait_for};

const MESSAGE: &str = r#"{"videoNo":"VIreturned"}"#;
const QUEUE: &str = "deletions";
const DEAD: &str = "deletions.dead";

#[tokio::test]
async fn a_message_outlives_more_returns_than_some_brokers_allow_by_default() {
    const RETURNS: usize = 30;
    let world = World::new().await;
    world.prepare().await;
    declare(&world, "bare", json!({})).await;
    publish(&world, &["bare", QUEUE]).await;
    let channel = world.connection.create_channel().await.expect("an open connection");

    // Without a limit of ours, for comparison.
    let limited = version(&world.vhost.management).await >= LIMITED_BY_DEFAULT;
    give_back(&channel, "bare", if limited { 21 } else { RETURNS }).await;
    becomes(&world, "bare", u32::from(!limited)).await;

    give_back(&channel, QUEUE, RETURNS).await;
    let message = take(&channel, QUEUE).await;
    assert_eq!(header(&message, "x-delivery-count"), RETURNS.to_string());
    drop(message);
    channel.close(200, "done".into()).await.expect("an open channel");
    let mut worker = world.start().await;
    world.deleted(1).await;
    worker.settled(&world).await;
    worker.stop().await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn an_outage_costs_a_message_one_return_or_none() {
    let mut world = World::new().await;
    world.set("health.release_after", "200ms").set("health.probe_max", "50ms");
    let mut worker = world.start().await;
    // So that there is something else to probe with than the message.
    world.publish_ids(["VI1"]).await;
    world.deleted(1).await;
    world.faults(|faults| faults.down = Some(Down::Unavailable));
    world.publish([MESSAGE]).await;
    worker.counted("messages_settled_total", &[("outcome", "released")], 1.0).await;
    wait_for("many probes", PATIENCE, async || world.mock.stats().sizes.count >= 20).await;
    worker.stop().await;
    let counts = version(&world.vhost.management).await < NACKS_COUNT_NO_MORE;
    let channel = world.connection.create_channel().await.expect("an open connection");
    let count = find(&take(&channel, QUEUE).await, "x-delivery-count");
    assert_eq!(count.as_deref().unwrap_or("0"), if counts { "1" } else { "0" });
}

#[tokio::test]
async fn what_reaches_the_limit_lies_beside_our_dead_letters() {
    let mut world = World::new().await;
    world.set("amqp.delivery_limit", "2").prepare().await;
    publish(&world, &[QUEUE]).await;
    let channel = world.connection.create_channel().await.expect("an open connection");
    give_back(&channel, QUEUE, 3).await;
    becomes(&world, DEAD, 1).await;
    let mut worker = world.start().await;
    world.publish(["garbage"]).await;

    let letters = world.dead_letters(2).await;
    assert_eq!(body(&letters[0]), MESSAGE);
    assert_eq!(header(&letters[0], "x-first-death-reason"), "delivery_limit");
    assert_eq!(header(&letters[0], "x-first-death-queue"), QUEUE);
    assert_eq!(find(&letters[0], "x-deletion-reason"), None);
    assert_eq!(body(&letters[1]), "garbage");
    assert_eq!(header(&letters[1], "x-deletion-reason"), "malformed");
    worker.settled(&world).await;
    worker.stop().await;
    assert_eq!(world.mock.stats().ids_deleted, 0);
}

#[tokio::test]
async fn a_policy_with_a_lower_limit_wins() {
    let world = World::new().await;
    let (api, vhost) = (&world.vhost.management, &world.vhost.name);
    let strict = json!({ "delivery-limit": 1 });
    api.set_policy(vhost, "strict", "^deletions$", strict).await.expect("the broker serves");
    world.prepare().await;
    publish(&world, &[QUEUE]).await;
    let channel = world.connection.create_channel().await.expect("an open connection");
    give_back(&channel, QUEUE, 2).await;
    let letters = world.dead_letters(1).await;
    assert_eq!(header(&letters[0], "x-first-death-reason"), "delivery_limit");
}

#[tokio::test]
async fn minus_one_is_no_limit_to_some_brokers_and_refused_by_us() {
    let mut world = World::new().await;
    let limitless = version(&world.vhost.management).await >= LIMITED_BY_DEFAULT;
    declare(&world, "limitless", json!({ "x-delivery-limit": -1 })).await;
    publish(&world, &["limitless"]).await;
    let channel = world.connection.create_channel().await.expect("an open connection");
    give_back(&channel, "limitless", if limitless { 30 } else { 1 }).await;
    becomes(&world, "limitless", u32::from(limitless)).await;

    world.set("amqp.delivery_limit", "-1");
    let mut process = world.process(&["check-config"]);
    assert_eq!(process.exit(PATIENCE).await.code(), Some(2));
    let said = process.stderr.all().join("\n");
    assert!(said.contains("amqp.delivery_limit") && said.contains("1000000"), "{said}");
}

#[tokio::test]
async fn what_the_broker_cannot_dead_letter_it_keeps() {
    let node = node().await;
    // When it tries again; for queues that are declared from now on.
    let again = "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 500).";
    node.ctl(&["eval", again]).await.expect("the node serves");
    let mut world = World::on(Vhost::on(&node).await).await;
    world.set("amqp.delivery_limit", "1").prepare().await;
    let channel = world.connection.create_channel().await.expect("an open connection");
    let (dead, exchange) = (DEAD.into(), "deletions.dlx".into());
    channel.queue_unbind(dead, exchange, "".into(), FieldTable::default()).await.expect("it is bound");
    publish(&world, &[QUEUE]).await;
    give_back(&channel, QUEUE, 2).await;

    // Neither ready nor with a consumer, and not gone.
    let (api, vhost) = (&world.vhost.management, &world.vhost.name);
    wait_for("the message is kept for its dead letter", PATIENCE, async || {
        let queue = api.queue(vhost, QUEUE).await;
        queue.is_ok_and(|queue| (queue.ready, queue.unacked, queue.messages) == (0, 0, 1))
    })
    .await;
    let (dead, exchange) = (DEAD.into(), "deletions.dlx".into());
    let options = QueueBindOptions::default();
    channel.queue_bind(dead, exchange, "".into(), options, FieldTable::default()).await.expect("both exist");
    let letters = world.dead_letters(1).await;
    assert_eq!(body(&letters[0]), MESSAGE);
}

async fn declare(world: &World, queue: &str, limit: serde_json::Value) {
    let mut arguments = limit;
    arguments["x-queue-type"] = "quorum".into();
    let api = &world.vhost.management;
    api.declare_queue(&world.vhost.name, queue, arguments).await.expect("a fresh queue");
}

async fn publish(world: &World, queues: &[&str]) {
    for queue in queues {
        amqp::publish(&world.connection, "", queue, amqp::persistent(), [MESSAGE]).await;
    }
}

async fn becomes(world: &World, queue: &str, messages: u32) {
    let what = format!("{messages} messages in {queue}");
    wait_for(&what, PATIENCE, async || amqp::ready(&world.connection, queue).await == messages).await;
}
