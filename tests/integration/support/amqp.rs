//! The other programs round the queue: publishers, and whoever looks into it.

use std::time::{Duration, Instant};

use deletion_worker::rabbitmq::Rabbitmq;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, Connection};

/// Publishes `bodies` with the same properties, and returns when the broker has confirmed all of them.
///
/// Panics if one isn't routed to a queue.
pub(crate) async fn publish<B: AsRef<[u8]>>(
    connection: &Connection,
    exchange: &str,
    routing_key: &str,
    properties: BasicProperties,
    bodies: impl IntoIterator<Item = B>,
) {
    let channel = connection.create_channel().await.expect("an open connection");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("an open channel");
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut confirms = Vec::new();
    for body in bodies {
        let publish = channel.basic_publish(
            exchange.into(),
            routing_key.into(),
            options,
            body.as_ref(),
            properties.clone(),
        );
        confirms.push(publish.await.expect("an open channel"));
    }
    for confirm in confirms {
        let confirmation = confirm.await.expect("an open channel");
        assert!(matches!(confirmation, Confirmation::Ack(None)), "not stored: {confirmation:?}");
    }
    channel.close(200, "done".into()).await.expect("an open channel");
}

/// Persistent, JSON: what a publisher should send.
pub(crate) fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into())
}

/// How many messages wait in `queue` right now, and how many consumers it has; `None` if there is no such queue.
pub(crate) async fn counts(connection: &Connection, queue: &str) -> Option<(u32, u32)> {
    // A missing queue costs the channel.
    let channel = connection.create_channel().await.expect("an open connection");
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let counts = loop {
        let asked = Instant::now();
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
        let counts = (declared.message_count(), declared.consumer_count());
        // A quorum queue that is silent for longer counts as empty.
        if counts != (0, 0) || asked.elapsed() < Duration::from_millis(250) {
            break counts;
        }
    };
    channel.close(200, "done".into()).await.expect("an open channel");
    Some(counts)
}

/// How many messages wait in `queue` right now.
pub(crate) async fn ready(connection: &Connection, queue: &str) -> u32 {
    counts(connection, queue).await.unwrap_or_else(|| panic!("no queue {queue}")).0
}

/// Takes everything out of `queue`, for good, in its order.
pub(crate) async fn take_all(connection: &Connection, queue: &str) -> Vec<BasicGetMessage> {
    let channel = connection.create_channel().await.expect("an open connection");
    let mut taken = Vec::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(message) = channel.basic_get(queue.into(), options).await.expect("the queue exists") {
        taken.push(message);
    }
    channel.close(200, "done".into()).await.expect("an open channel");
    taken
}

/// Host and port of the broker's AMQP listener, for a proxy in front of it.
pub(crate) fn address(broker: &Rabbitmq) -> String {
    let url = url::Url::parse(&broker.amqp_url("/")).expect("the broker's URL is well-formed");
    format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(5672))
}
