//! A dead letter that can't be placed keeps its original, and is placed once it can be; one of a message that broke
//! AMQP's rules says so.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::support::PATIENCE;
use crate::support::letter::{body, find, header};
use crate::support::raw_amqp::{self, CONTENT_TYPE, DELIVERY_MODE, HEADERS, Raw, long, short};
use crate::support::world::{Worker, World};

const EXCHANGE: &str = "deletions.dlx";
const QUEUE: &str = "deletions.dead";

#[tokio::test]
async fn without_its_exchange_the_original_stays() {
    for declare in ["skip", "verify"] {
        let mut world = World::new().await;
        world.prepare().await;
        world.set("amqp.declare", declare);
        let mut worker = world.start().await;
        let channel = world.connection.create_channel().await.expect("an open connection");
        channel.exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default()).await.expect("it exists");
        stays_until(&world, &mut worker, async || {
            let channel = world.connection.create_channel().await.expect("an open connection");
            let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel
                .exchange_declare(EXCHANGE.into(), ExchangeKind::Fanout, durable, FieldTable::default())
                .await
                .expect("it was gone");
            bind(&world).await;
        })
        .await;
    }
}

#[tokio::test]
async fn without_its_queue_bound_the_original_stays() {
    let mut world = World::new().await;
    world.prepare().await;
    world.set("amqp.declare", "skip");
    let mut worker = world.start().await;
    let channel = world.connection.create_channel().await.expect("an open connection");
    channel
        .queue_unbind(QUEUE.into(), EXCHANGE.into(), "".into(), FieldTable::default())
        .await
        .expect("it is bound");
    stays_until(&world, &mut worker, async || bind(&world).await).await;
}

#[tokio::test]
async fn what_was_unreadable_in_a_message_is_told() {
    let world = World::new().await;
    let mut worker = world.start().await;
    let entry = |name: &[u8], value: &[u8]| [&short(name)[..], b"S", &long(value)].concat();
    let table = long(&[entry(b"kept", b"\xff as it is"), entry(b"na\xffme", b"kept too")].concat());
    let properties = [&short(b"text/\xff")[..], &table, &[2]].concat();
    let flags = CONTENT_TYPE | HEADERS | DELIVERY_MODE;
    raw_amqp::publish(
        &world.vhost.url,
        &[Raw { flags, properties: &properties, ..Raw::new(b"garbage \xff") }],
    )
    .await;
    let letters = world.dead_letters(1).await;
    let letter = &letters[0];
    assert_eq!(letter.data, b"garbage \xff");
    assert_eq!(header(letter, "x-deletion-reason"), "malformed");
    assert_eq!(header(letter, "x-deletion-repaired"), "bytes that are not UTF-8 became question marks");
    assert_eq!(letter.properties.content_type().as_ref().map(|kind| kind.as_str()), Some("text/?"));
    assert_eq!(header(letter, "na?me"), "kept too");
    let headers = letter.properties.headers().as_ref().expect("there are some").inner();
    assert_eq!(headers.get("kept"), Some(&AMQPValue::LongString(b"\xff as it is"[..].into())));

    world.publish(["garbage"]).await;
    assert_eq!(find(&world.dead_letters(1).await[0], "x-deletion-repaired"), None);
    worker.stop().await;
}

/// A malformed and a rejected message stay unacknowledged, and it is said, until `mend` has been done.
async fn stays_until(world: &World, worker: &mut Worker, mend: impl AsyncFnOnce()) {
    world.faults(|faults| faults.bad_ids = ["VIbad".to_owned()].into());
    world.publish(["garbage", r#"["VIbad"]"#, r#"["VI1"]"#]).await;
    world.deleted(1).await;
    // Each try is counted, and said.
    worker.counted("dead_letter_publish_failures_total", &[], 2.0).await;
    let line = worker.process.stderr.wait_for("\"ERROR\"", PATIENCE).await;
    assert!(line.contains(EXCHANGE), "{line}");
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "dead_lettered")]).await, 0.0);
    worker.wait_until("two kept", async |worker| worker.metric("messages_unsettled", &[]).await == 2.0).await;
    assert_eq!(worker.metric("consuming", &[]).await, 1.0, "the others go on");
    world.ready(0).await;
    world.publish_ids(["VI2"]).await;
    world.deleted(2).await;

    mend().await;
    let letters = world.dead_letters(2).await;
    worker.settled(world).await;
    let mut found: Vec<_> =
        letters.iter().map(|letter| (header(letter, "x-deletion-reason"), body(letter))).collect();
    found.sort();
    assert_eq!(found, [("malformed".into(), "garbage"), ("rejected".into(), r#"["VIbad"]"#)]);
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "dead_lettered")]).await, 2.0);
    worker.stop().await;
    world.ready(0).await;
}

async fn bind(world: &World) {
    let channel = world.connection.create_channel().await.expect("an open connection");
    let options = QueueBindOptions::default();
    channel
        .queue_bind(QUEUE.into(), EXCHANGE.into(), "".into(), options, FieldTable::default())
        .await
        .expect("both exist");
}
