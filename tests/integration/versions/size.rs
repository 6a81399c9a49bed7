//! Messages as large as the broker takes, and larger.

use lapin::Confirmation;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};

use super::version;
use crate::support::broker::{Vhost, node};
use crate::support::letter::header;
use crate::support::world::World;
use crate::support::{PATIENCE, amqp, wait_for};

/// What RabbitMQ takes from 4.0 on; before, eight times as much.
const MAX: usize = 16 * 1024 * 1024;

#[tokio::test]
async fn the_largest_message_is_dead_lettered_whole() {
    let world = World::new().await;
    let mut worker = world.start().await;
    let largest = version(&world.vhost.management).await >= (4, 0);
    let sizes = if largest { vec![MAX] } else { vec![MAX, MAX + 1] };
    // No JSON, and no two stretches of it alike.
    let body: Vec<u8> = (0..=MAX as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for size in &sizes {
        world.publish([&body[..*size]]).await;
        let letters = world.dead_letters(1).await;
        assert_eq!(header(&letters[0], "x-deletion-reason"), "malformed");
        assert!(letters[0].data == body[..*size], "{} of {size} bytes", letters[0].data.len());
    }
    if largest {
        assert!(!is_taken(&world, &body).await, "the broker took one byte more");
    }
    worker.settled(&world).await;
    assert_eq!(worker.metric("broker_reconnects_total", &[]).await, 0.0);
    worker.stop().await;
    world.ready(0).await;
}

#[tokio::test]
async fn a_dead_letter_larger_than_the_broker_takes_by_now_keeps_its_original() {
    const SMALL: usize = 10_000;
    let node = node().await;
    let world = World::on(Vhost::on(&node).await).await;
    world.prepare().await;
    world.publish([vec![b'x'; SMALL + 1]]).await;
    // For new channels: where 4.x keeps it, and where older ones do.
    let limit = |bytes: usize| {
        format!(
            "persistent_term:put(max_message_size, {bytes}), application:set_env(rabbit, max_message_size, {bytes})."
        )
    };
    node.ctl(&["eval", &limit(SMALL)]).await.expect("the node serves");
    wait_for("the limit is in force", PATIENCE, async || !is_taken(&world, &[b'x'; SMALL + 1]).await).await;

    let mut worker = world.start().await;
    worker.counted("dead_letter_publish_failures_total", &[], 2.0).await;
    let line = worker.process.stderr.wait_for("\"ERROR\"", PATIENCE).await;
    assert!(line.contains("deletions.dlx"), "{line}");
    // Everybody else goes on, dead letters included.
    world.publish_ids(["VI1"]).await;
    world.deleted(1).await;
    world.publish(["small garbage"]).await;
    let letters = world.dead_letters(1).await;
    assert_eq!(letters[0].data, b"small garbage");
    worker.wait_until("one kept", async |worker| worker.metric("messages_unsettled", &[]).await == 1.0).await;
    assert_eq!(worker.metric("consuming", &[]).await, 1.0);

    node.ctl(&["eval", &limit(MAX)]).await.expect("the node serves");
    let letters = world.dead_letters(1).await;
    assert_eq!(letters[0].data.len(), SMALL + 1);
    worker.settled(&world).await;
    worker.stop().await;
    world.ready(0).await;
}

/// Whether the broker takes a message of this body, to a queue that nobody reads.
async fn is_taken(world: &World, body: &[u8]) -> bool {
    let api = &world.vhost.management;
    api.declare_queue(&world.vhost.name, "unread", serde_json::json!({}))
        .await
        .expect("not declared otherwise");
    // On a connection of its own: a refusal may cost more than the channel.
    let connection = world.vhost.connect().await;
    let channel = connection.create_channel().await.expect("an open connection");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("an open channel");
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publish = channel.basic_publish("".into(), "unread".into(), options, body, amqp::persistent());
    match publish.await.expect("an open channel").await {
        Ok(confirmation) => matches!(confirmation, Confirmation::Ack(None)),
        Err(refusal) => {
            assert!(refusal.to_string().contains("PRECONDITION_FAILED"), "{refusal}");
            false
        }
    }
}
