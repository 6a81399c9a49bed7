//! `deletion-worker dead-letters`: read in order and left in order, sent back as it was, removed only when asked to.

mod errors;
mod many;
mod million;
mod read;
mod replay;
mod terminal;

use std::time::Duration;

use deletion_worker::config::QueueType;
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, ExchangeKind};

use crate::support::amqp;
use crate::support::world::World;

const QUEUE: &str = "deletions.dead";
const PATIENCE: Duration = Duration::from_secs(240);

/// How a run of the command ended.
#[derive(Debug)]
struct End {
    code: Option<i32>,
    out: String,
    err: String,
}

impl End {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn fine(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// Runs `dead-letters` to its end.
async fn run(world: &World, arguments: &[&str]) -> End {
    let mut process = world.process(&[&["dead-letters"], arguments].concat());
    let code = process.exit(PATIENCE).await.code();
    let text = |lines: Vec<String>| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    End { code, out: text(process.stdout.all()), err: text(process.stderr.all()) }
}

/// A world with the queues that a worker would declare, and none at work.
async fn world(queue_type: QueueType) -> World {
    prepared(World::new().await, queue_type).await
}

/// The same on any broker.
async fn prepared(mut world: World, queue_type: QueueType) -> World {
    world.set("amqp.queue_type", kind_of(queue_type));
    let channel = world.connection.create_channel().await.expect("an open connection");
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let arguments = |pairs: &[(&str, AMQPValue)]| {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), text(kind_of(queue_type)));
        for (name, value) in pairs {
            table.insert((*name).into(), value.clone());
        }
        table
    };
    let limit = ("x-delivery-limit", AMQPValue::LongLongInt(1_000_000));
    let limit = if queue_type == QueueType::Quorum { vec![limit] } else { vec![] };
    let mut main = limit.clone();
    main.push(("x-dead-letter-exchange", text("deletions.dlx")));
    for (exchange, kind, queue, key, pairs) in [
        ("deletions.dlx", ExchangeKind::Fanout, QUEUE, "", limit),
        ("deletions", ExchangeKind::Direct, "deletions", "delete", main),
    ] {
        channel
            .exchange_declare(exchange.into(), kind, durable, FieldTable::default())
            .await
            .expect("a fresh virtual host");
        channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments(&pairs))
            .await
            .expect("a fresh virtual host");
        channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("both exist");
    }
    // Whoever does without the worker's arguments is not stopped by them.
    world.set("amqp.declare", "skip");
    world
}

fn kind_of(queue_type: QueueType) -> &'static str {
    match queue_type {
        QueueType::Classic => "classic",
        QueueType::Quorum => "quorum",
    }
}

const QUEUE_TYPES: [QueueType; 2] = [QueueType::Classic, QueueType::Quorum];

/// A long string.
fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn headers(pairs: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), value.clone());
    }
    table
}

/// What the worker says of a letter of this reason and code.
fn epitaph(reason: &str, code: &str) -> FieldTable {
    headers(&[
        ("x-deletion-reason", text(reason)),
        ("x-deletion-code", text(code)),
        ("x-deletion-detail", text("the endpoint says no")),
        ("x-deletion-attempts", AMQPValue::LongLongInt(2)),
        ("x-deletion-failed-count", AMQPValue::LongLongInt(1)),
        ("x-deletion-failed-ids", AMQPValue::FieldArray(vec![text("VI1")].into())),
        ("x-deletion-exchange", text("deletions")),
        ("x-deletion-routing-key", text("delete")),
        ("x-deletion-queue", text("deletions")),
        ("x-deletion-worker", text("deletion-worker 0.1.0")),
        ("x-deletion-at", AMQPValue::Timestamp(1_767_225_600)),
    ])
}

fn dead(table: FieldTable) -> BasicProperties {
    amqp::persistent().with_headers(table)
}

/// Puts so many letters straight into the dead-letter queue: `{"videoNo":"VI<number>"}`, every `nth` with a reason of
/// its own.
async fn fill(world: &World, numbers: std::ops::Range<u32>, nth: u32) {
    let body = |number: u32| format!(r#"{{"videoNo":"VI{number}"}}"#);
    // In chunks, as the two kinds have to be mixed in order.
    let mut start = numbers.start;
    while start < numbers.end {
        let end = (start + nth - 1).min(numbers.end);
        let plain = dead(epitaph("rejected", "0001"));
        amqp::publish(&world.connection, "", QUEUE, plain, (start..end).map(body)).await;
        if end < numbers.end {
            let other = dead(epitaph("retries_exhausted", "500"));
            amqp::publish(&world.connection, "", QUEUE, other, [body(end)]).await;
        }
        start = end + 1;
    }
}

/// Takes everything out of a queue, in its order, as [`amqp::take_all`] would take minutes to.
async fn drain(world: &World, queue: &str) -> Vec<lapin::message::Delivery> {
    use futures_util::StreamExt as _;
    let ready = amqp::ready(&world.connection, queue).await;
    let channel = world.connection.create_channel().await.expect("an open connection");
    channel.basic_qos(0, BasicQosOptions { global: false }).await.expect("an open channel");
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut consumer = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .expect("the queue exists");
    let mut taken = Vec::new();
    while taken.len() < ready as usize {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("what is ready comes");
        taken.push(next.expect("a consumer that goes on").expect("an open channel"));
    }
    channel.close(200, "done".into()).await.expect("an open channel");
    taken
}

/// The numbers of letters from [`fill`].
fn numbers(letters: &[lapin::message::Delivery]) -> Vec<u32> {
    let number = |letter: &lapin::message::Delivery| {
        let body = str::from_utf8(&letter.data).expect("UTF-8");
        let digits: String = body.chars().filter(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    letters.iter().map(number).collect()
}

/// Numbers as runs of the same step, first and last: what is out of order is seen at a glance.
fn runs(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last < *number && *number <= *last + 2 => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    runs
}

/// Sees that `left` is in the order of `expected`.
#[track_caller]
fn same_order(left: &[u32], expected: &[u32], what: &str) {
    assert_eq!(runs(left), runs(expected), "{what}");
    assert!(left == expected, "{what}");
}

/// Waits until so many letters are ready.
async fn waiting(world: &World, queue: &str, letters: u32) {
    crate::support::wait_for(&format!("{letters} letters in {queue}"), PATIENCE, async || {
        amqp::ready(&world.connection, queue).await == letters
    })
    .await;
}
