//! What RabbitMQ does differently from version to version: nothing of it may cost a message.
//!
//! These tests pass on each version that we know of; `make test` and `make test BROKER=4` run them on two. Where brokers
//! differ, the difference is tested too: it shows that the rest is tested where it matters.

mod feature;
mod limit;
mod size;

use deletion_worker::rabbitmq::Management;
use futures_util::StreamExt;
use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use crate::support::{PATIENCE, broker};

/// A broker's version: major and minor.
type Version = (u32, u32);

/// From here on a quorum queue without a limit of its own has one: 20.
const LIMITED_BY_DEFAULT: Version = (4, 0);
/// From here on a returned message doesn't count as delivered if it comes back by `basic.nack`.
const NACKS_COUNT_NO_MORE: Version = (4, 3);

/// Set by `make test BROKER=...`: what the tests must find.
const MAJOR: &str = "RABBITMQ_MAJOR";

#[tokio::test]
async fn the_broker_is_the_one_that_was_asked_for() {
    let Ok(major) = std::env::var(MAJOR) else { return };
    let api = broker::shared().await.management().expect("the tests need the management plugin");
    assert_eq!(version(&api).await.0.to_string(), major);
    let node = broker::node().await;
    assert_eq!(version(&node.management()).await.0.to_string(), major);
}

async fn version(api: &Management) -> Version {
    let text = api.version().await.expect("the broker serves");
    let mut parts = text.split('.').map(|part| part.parse().ok());
    match (parts.next(), parts.next()) {
        (Some(Some(major)), Some(Some(minor))) => (major, minor),
        _ => panic!("unexpected version {text}"),
    }
}

/// Takes the one message that is in `queue`, until the channel gives it back.
async fn take(channel: &Channel, queue: &str) -> BasicGetMessage {
    // Consumed, as queues with a single active consumer refuse `basic.get`; and only one, as the next would be a return.
    let tag = "take";
    channel.basic_qos(1, BasicQosOptions::default()).await.expect("an open channel");
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(queue.into(), tag.into(), options, FieldTable::default());
    let mut consumer = consume.await.expect("the queue exists");
    let delivery = match timeout(PATIENCE, consumer.next()).await {
        Ok(Some(delivery)) => delivery.expect("an open channel"),
        other => panic!("no message in {queue}: {other:?}"),
    };
    channel.basic_cancel(tag.into(), BasicCancelOptions::default()).await.expect("an open channel");
    BasicGetMessage { delivery, message_count: 0 }
}

/// Takes the one message that is in `queue` and gives it back, so many times; each counts as a delivery on all versions.
async fn give_back(channel: &Channel, queue: &str, times: usize) {
    for _ in 0..times {
        let message = take(channel, queue).await;
        let given = message.acker.reject(BasicRejectOptions { requeue: true }).await;
        assert!(given.expect("an open channel"));
    }
}
