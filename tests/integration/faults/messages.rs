//! Messages that no client library would send: the broker passes them on as they are.

use deletion_worker::mock::Down;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::FieldTable;

use super::drain::{Bounds, Drain, LATENCY, Moment, Row, moments};
use crate::support::PATIENCE;
use crate::support::raw_amqp::{self, CONTENT_TYPE, DELIVERY_MODE, HEADERS, Raw, long, short};

/// The largest frame, and what a content header's frame holds beside its properties.
const FRAME_MAX: usize = 131_072;
const FRAME_OVERHEAD: usize = 8 + 14;
/// As large as RabbitMQ 4 lets messages be; 3.10 lets them be eight times as large.
const LARGE: usize = 16 * 1024 * 1024;
/// Far less than the 16 good ones alone; about three times what large messages may take in hand, as a message that
/// comes or goes is in memory more than once.
const PEAK_MAX: u64 = 200 * 1024 * 1024;

/// A persistent message with these headers.
fn with_headers(table: &[u8]) -> (u16, Vec<u8>) {
    (HEADERS | DELIVERY_MODE, [&long(table)[..], &[2]].concat())
}

fn text_header(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&short(name)[..], b"S", &long(value)].concat()
}

/// Headers of `depth` tables or arrays, each in the one before.
fn nested(kind: u8, depth: usize) -> Vec<u8> {
    // Built from the outside, as the sizes are known: a table adds name, type and size, an array type and size.
    let name: &[u8] = if kind == b'F' { b"\x01n" } else { b"" };
    let each = name.len() + 5;
    let mut bytes = b"\x01n".to_vec();
    for level in (0..depth).rev() {
        if level + 1 < depth {
            bytes.extend_from_slice(name);
        }
        bytes.push(kind);
        bytes.extend_from_slice(&u32::try_from(level * each).expect("small").to_be_bytes());
    }
    bytes
}

/// Property flags and properties, each of which lapin chokes on.
fn unreadable() -> Vec<(u16, Vec<u8>)> {
    let mut all = vec![
        (CONTENT_TYPE, short(b"text/\xff")),
        (CONTENT_TYPE | DELIVERY_MODE, [&short(b"\xc3\x28")[..], &[2]].concat()),
        with_headers(&text_header(b"na\xffme", b"value")),
        with_headers(&[text_header(b"fine", b"\xff"), text_header(b"\xfe", b"")].concat()),
    ];
    all.extend([1_000, 2_000, 18_000].map(|depth| with_headers(&nested(b'F', depth))));
    all.extend([2_000, 26_000].map(|depth| with_headers(&nested(b'A', depth))));
    all
}

/// Headers that just about fit a frame, but not with the delivery count that a second delivery adds.
fn near_frame_size() -> Vec<(u16, Vec<u8>)> {
    let table = |room: usize| text_header(b"big", &vec![b'x'; room - text_header(b"big", b"").len()]);
    (0..10).map(|less| with_headers(&table(FRAME_MAX - FRAME_OVERHEAD - 5 - 7 * less))).collect()
}

/// Publishes each of these properties with a good body and with a malformed one.
async fn publish(drain: &mut Drain, properties: &[(u16, Vec<u8>)]) {
    let bodies: Vec<_> = (0..properties.len())
        .map(|number| (format!(r#"{{"videoNo":"RAW{number}"}}"#), format!(r#"{{"videoNo":RAW{number}"#)))
        .collect();
    let mut messages = Vec::new();
    for (number, ((flags, properties), (good, malformed))) in properties.iter().zip(&bodies).enumerate() {
        let raw = |body| Raw { flags: *flags, properties, ..Raw::new(body) };
        messages.extend([raw(good.as_bytes()), raw(malformed.as_bytes())]);
        drain.also_deletes(format!("RAW{number}"));
        drain.also_dead_letters(malformed, "malformed");
    }
    raw_amqp::publish(&drain.world.vhost.url, &messages).await;
}

/// Publishes with a routing key that is not UTF-8, as a fanout or a topic exchange lets anybody do.
async fn publish_with_key(drain: &mut Drain, key: &[u8]) {
    let channel = drain.world.connection.create_channel().await.expect("an open connection");
    let exchange = "any-key";
    channel
        .exchange_declare(
            exchange.into(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("a new exchange");
    channel
        .queue_bind(
            "deletions".into(),
            exchange.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("both exist");
    let message = Raw { exchange, routing_key: key, ..Raw::new(br#"{"videoNo":"KEY"}"#) };
    drain.also_deletes("KEY");
    raw_amqp::publish(&drain.world.vhost.url, &[message]).await;
}

#[tokio::test]
async fn unreadable_properties_and_routing_keys() {
    let mut row = Row::new("message: names and properties not UTF-8, headers nested 26,000 deep");
    for moment in moments(Moment::Percent(30)) {
        let mut drain = Drain::new(moment).await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        publish(&mut drain, &unreadable()).await;
        // Everything else may be settled by now: RabbitMQ takes seconds for the deepest headers.
        let lifted = drain.lifted();
        publish_with_key(&mut drain, b"de\xfflete").await;
        drain.consumed_again(&worker, lifted).await;
        let warning = worker.process.stderr.wait_for("break AMQP", PATIENCE).await;
        assert!(warning.contains(r#""queue":"deletions""#), "{warning}");
        assert_eq!(worker.metric("broker_reconnects_total", &[]).await, 0.0, "nobody else was held up");
        row.add(drain.verify(worker, Bounds::NONE).await);
    }
    row.print();
}

#[tokio::test]
async fn headers_near_frame_size_delivered_twice() {
    let mut row = Row::new("message: headers of a frame's size, delivered again after `kill -9`");
    for moment in moments(Moment::Percent(30)) {
        let mut drain = Drain::new(moment).await;
        drain.world.prepare().await;
        publish(&mut drain, &near_frame_size()).await;
        drain.publish().await;
        drain.world.faults(|faults| faults.latency = PATIENCE);
        let mut worker = drain.world.start().await;
        worker.counted("messages_received_total", &[], 20.0).await;
        worker.process.signal("KILL").await;
        worker.process.exit(PATIENCE).await;
        drain.world.faults(|faults| faults.latency = LATENCY);
        let worker = drain.world.start().await;
        drain.reached().await;
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        worker.process.stderr.wait_for("do not fit a frame", PATIENCE).await;
        assert_eq!(worker.metric("broker_reconnects_total", &[]).await, 0.0, "nobody else was held up");
        row.add(drain.verify(worker, Bounds::ONE_DEATH).await);
    }
    row.print();
}

#[tokio::test]
async fn bodies_of_16_mib_while_the_endpoint_is_down() {
    let mut row = Row::new("message: 24 bodies of 16 MiB before an endpoint that is down");
    for moment in moments(Moment::Percent(30)) {
        let mut drain = Drain::new(moment).await;
        drain.world.prepare().await;
        for number in 0..24 {
            let malformed = number % 3 == 0;
            let body = format!(r#"{{"videoNo":"LARGE{number}"{}"#, if malformed { "" } else { "}" });
            let body = " ".repeat(LARGE - body.len()) + &body;
            if malformed {
                drain.also_dead_letters(&body, "malformed");
            } else {
                drain.also_deletes(format!("LARGE{number}"));
            }
            drain.world.publish([body]).await;
        }
        drain.publish().await;
        drain.world.faults(|faults| faults.down = Some(Down::Unavailable));
        let worker = drain.world.start().await;
        worker.process.stderr.wait_for("taking fewer messages at once: there are large", PATIENCE).await;
        drain.world.faults(|faults| faults.down = None);
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        drain.settled(&worker).await;
        let peak = worker.process.peak_rss();
        assert!(peak < PEAK_MAX, "{peak} bytes in memory");
        // Every other probe of an outage deletes once more what was deleted before.
        let bounds = Bounds { ids_twice: Bounds::CALLS_UNDER_WAY.ids_twice, ..Bounds::ONE_CONNECTION };
        row.add(drain.verify(worker, bounds).await);
    }
    row.print();
}
