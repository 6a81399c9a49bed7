//! Replaying: back to where it came from, as it was, and nothing lost whenever it ends.

use std::collections::BTreeMap;

use deletion_worker::config::QueueType;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};

use super::{
    QUEUE, QUEUE_TYPES, dead, drain, epitaph, fill, headers, numbers, run, same_order, text, waiting, world,
};
use crate::support::raw_amqp::{self, Raw};
use crate::support::world::World;
use crate::support::{PATIENCE, amqp, wait_for, wait_for_some};

#[tokio::test]
async fn what_is_not_selected_stays_in_its_order() {
    for queue_type in QUEUE_TYPES {
        let world = world(queue_type).await;
        // Every 50th has another reason.
        fill(&world, 0..25_000, 50).await;
        waiting(&world, QUEUE, 25_000).await;
        let dry = run(&world, &["replay", "--code", "500", "--dry-run"]).await.fine();
        assert!(dry.out.contains("would replay 500 letters, skipped 24500, refused 0"), "{dry:?}");
        waiting(&world, QUEUE, 25_000).await;
        let end = run(&world, &["replay", "--reason", "retries_exhausted", "--limit", "400"]).await.fine();
        assert!(end.out.starts_with("replayed 400 letters, "), "{end:?}");
        assert!(end.out.contains("to exchange `deletions`, routing key `delete`: 400"), "{end:?}");
        waiting(&world, QUEUE, 24_600).await;
        let (left, back) = (drain(&world, QUEUE).await, drain(&world, "deletions").await);
        let is_selected = |number: &u32| number % 50 == 49 && *number < 400 * 50;
        assert_eq!(numbers(&back), (0..25_000).filter(is_selected).collect::<Vec<_>>());
        let rest = (0..25_000).filter(|number| !is_selected(number)).collect::<Vec<_>>();
        same_order(&numbers(&left), &rest, &format!("{queue_type:?}"));
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_loses_nothing_and_is_run_again() {
    const LETTERS: u32 = 20_000;
    for queue_type in QUEUE_TYPES {
        let world = world(queue_type).await;
        fill(&world, 0..LETTERS, 10).await;
        waiting(&world, QUEUE, LETTERS).await;
        for moment in 0..10_u32 {
            // From the very start to the middle of ever later barriers; slowly, as a busy machine looks seldom.
            let before = amqp::ready(&world.connection, "deletions").await;
            let replay = ["dead-letters", "replay", "--reason", "rejected", "--rate", "1000"];
            let mut process = world.process(&replay);
            let replayed =
                async || amqp::ready(&world.connection, "deletions").await >= before + moment * 100;
            wait_for("a replay to get on", PATIENCE, replayed).await;
            process.signal("KILL").await;
            process.exit(PATIENCE).await;
            // What it held comes back, so all others are there again.
            let all = async || {
                let dead = amqp::ready(&world.connection, QUEUE).await;
                let consumers = amqp::counts(&world.connection, QUEUE).await.expect("the queue exists").1;
                consumers == 0 && dead + amqp::ready(&world.connection, "deletions").await >= LETTERS
            };
            wait_for("what was held to come back", PATIENCE, all).await;
        }
        let end = run(&world, &["replay", "--reason", "rejected"]).await.fine();
        assert!(end.out.contains("refused 0"), "{end:?}");
        waiting(&world, QUEUE, LETTERS / 10).await;
        let (left, back) = (drain(&world, QUEUE).await, drain(&world, "deletions").await);
        let is_selected = |number: &u32| number % 10 != 9;
        let mut times: BTreeMap<u32, u32> = BTreeMap::new();
        for number in numbers(&back) {
            *times.entry(number).or_default() += 1;
        }
        let selected: Vec<u32> = (0..LETTERS).filter(is_selected).collect();
        assert_eq!(times.keys().copied().collect::<Vec<_>>(), selected, "each is back, nothing else");
        // Twice is only what was in the barrier that a kill cut short: 500 at most for each.
        assert!(back.len() <= selected.len() + 10 * 500, "{} came back", back.len());
        let rest = (0..LETTERS).filter(|number| !is_selected(number)).collect::<Vec<_>>();
        same_order(&numbers(&left), &rest, &format!("{queue_type:?}: the others, in their order"));
    }
}

/// Messages that are as different as they can be, each of which the worker or the broker gives up.
fn specimens() -> Vec<(BasicProperties, Vec<u8>)> {
    let plain = amqp::persistent;
    let json = |text: &str| text.as_bytes().to_vec();
    let one = |value: AMQPValue| plain().with_headers(headers(&[("theirs", value)]));
    let table = headers(&[("inner", text("x")), ("n", AMQPValue::LongInt(7))]);
    let list = AMQPValue::FieldArray(vec![text("a"), AMQPValue::Boolean(false), AMQPValue::Void].into());
    let mut all = vec![
        (plain(), json("not json")),
        (plain(), json("")),
        (plain(), json("{\"videoNo\":\"V I\"}")),
        (plain(), json("[]")),
        (plain(), b"\xff\xfe\x00binary".to_vec()),
        (plain(), "\u{1b}[2J\u{202e}".as_bytes().to_vec()),
        (plain(), vec![b'x'; 200_000]),
        (plain().with_content_encoding("gzip".into()), json("not gzip")),
        (plain().with_content_encoding("br".into()), json("[\"VI1\"]")),
        (plain().with_content_type("application/cloudevents+json".into()), json("{}")),
        (plain().with_expiration("3600000".into()), json("expires")),
        (plain().with_priority(3).with_type("deletion".into()), json("typed")),
        (plain().with_reply_to("answers".into()).with_correlation_id("c-1".into()), json("asks")),
        (plain().with_message_id("m-1".into()).with_app_id("shop".into()), json("named")),
        (plain().with_timestamp(1_767_225_600).with_cluster_id("c".into()), json("timed")),
        (plain().with_user_id("guest".into()), json("signed")),
        (
            plain().with_headers(headers(&[("CC", AMQPValue::FieldArray(vec![text("copy")].into()))])),
            json("copied"),
        ),
    ];
    for value in [
        AMQPValue::Boolean(true),
        AMQPValue::ShortShortInt(-3),
        AMQPValue::LongUInt(4_000_000_000),
        AMQPValue::Double(0.5),
        AMQPValue::Timestamp(1_767_225_600),
        AMQPValue::LongString(b"\xff\x00"[..].into()),
        AMQPValue::FieldTable(table),
        list,
    ] {
        all.push((one(value), json("headed")));
    }
    all
}

#[tokio::test]
async fn twenty_five_kinds_come_back_as_they_were() {
    let mut world = world(QueueType::Quorum).await;
    let user = url::Url::parse(&world.vhost.url).expect("a URL").username().to_owned();
    let specimens: Vec<_> = specimens()
        .into_iter()
        .map(|(properties, body)| match properties.user_id() {
            Some(_) => (properties.with_user_id(user.as_str().into()), body),
            None => (properties, body),
        })
        .collect();
    assert_eq!(specimens.len(), 25);
    for (properties, body) in &specimens {
        world.publish_with(properties.clone(), [body]).await;
    }
    world.set("amqp.declare", "verify");
    let mut worker = world.start().await;
    waiting(&world, QUEUE, 25).await;
    worker.stop().await;

    let export = run(&world, &["export"]).await.fine();
    let records: Vec<serde_json::Value> =
        export.out.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    for (record, (_, body)) in records.iter().zip(&specimens) {
        let text = record["body"].as_str().map(|text| text.as_bytes().to_vec());
        let bytes = text.unwrap_or_else(|| unbase64(record["body_base64"].as_str().expect("one of both")));
        assert_eq!(&bytes, body, "byte for byte");
        assert_eq!(record["reason"], "malformed");
        assert_eq!((&record["exchange"], &record["routing_key"]), (&"deletions".into(), &"delete".into()));
    }
    assert_eq!(records[10]["headers"]["x-original-expiration"], "3600000");
    assert_eq!(records[19]["headers"]["theirs"], serde_json::json!({ "uint32": 4_000_000_000_u32 }));
    let show = run(&world, &["show"]).await.fine();
    assert_eq!(show.out.matches("=== ").count(), 25);
    assert!(show.out.contains("ff fe 00 62 69 6e 61 72 79"), "hex for what isn't text");
    for text in [&show.out, &export.out] {
        assert!(!text.contains(|char: char| char.is_control() && char != '\n'), "nothing for a terminal");
    }

    let end = run(&world, &["replay"]).await.fine();
    assert!(end.out.starts_with("replayed 25 letters, skipped 0, refused 0\n"), "{end:?}");
    let back = drain(&world, "deletions").await;
    assert_eq!(back.len(), 25);
    for (message, (properties, body)) in back.iter().zip(&specimens) {
        as_published(message, properties, body, 1);
    }
    assert_eq!(amqp::ready(&world.connection, QUEUE).await, 0);
}

/// Sees that `message` is what was published, but for the number of replays.
fn as_published(message: &Delivery, properties: &BasicProperties, body: &[u8], replays: i64) {
    assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("deletions", "delete"));
    assert_eq!(message.data, body);
    let mut table = properties.headers().clone().unwrap_or_default();
    table.insert("x-deletion-replays".into(), AMQPValue::LongLongInt(replays));
    assert_eq!(message.properties, properties.clone().with_headers(table));
}

fn unbase64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for char in text.bytes().filter(|char| *char != b'=') {
        let digit = DIGITS.iter().position(|digit| *digit == char).expect("base64");
        (bits, count) = (bits << 6 | digit as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[tokio::test]
async fn the_count_of_replays_survives_another_death() {
    let mut world = world(QueueType::Quorum).await;
    world.set("amqp.declare", "verify");
    world.publish(["garbage"]).await;
    for replays in 1..=2 {
        let mut worker = world.start().await;
        waiting(&world, QUEUE, 1).await;
        worker.stop().await;
        run(&world, &["replay"]).await.fine();
        assert_eq!(amqp::ready(&world.connection, "deletions").await, 1);
        if replays == 2 {
            as_published(&drain(&world, "deletions").await[0], &amqp::persistent(), b"garbage", 2);
        }
    }
}

#[tokio::test]
async fn what_the_broker_gave_up_goes_back_too() {
    for queue_type in QUEUE_TYPES {
        let world = world(queue_type).await;
        let expiring = amqp::persistent().with_expiration("1".into());
        world.publish_with(expiring.clone(), [r#"["VI1"]"#]).await;
        waiting(&world, QUEUE, 1).await;
        let list = run(&world, &["list", "--reason", "expired", "--output", "json"]).await.fine().json();
        assert_eq!(list["groups"][0]["reason"], "expired", "{list}");
        assert!(list["groups"][0]["oldest"].is_string(), "{list}");
        // It expires once more, as that is how it was published; so it is taken where nothing expires.
        let channel = world.connection.create_channel().await.expect("an open connection");
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut consumer = channel
            .basic_consume("deletions".into(), "".into(), options, FieldTable::default())
            .await
            .expect("the queue exists");
        run(&world, &["replay"]).await.fine();
        use futures_util::StreamExt as _;
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("it comes");
        let message = next.expect("a consumer that goes on").expect("an open channel");
        as_published(&message, &expiring, br#"["VI1"]"#, 1);
    }
}

#[tokio::test]
async fn what_was_delivered_too_often_goes_back_too() {
    let world = world(QueueType::Quorum).await;
    let channel = again(&world, "quorum", ("x-delivery-limit", AMQPValue::LongLongInt(2))).await;
    let properties = amqp::persistent().with_message_id("m-1".into());
    world.publish_with(properties.clone(), [r#"["VI1"]"#]).await;
    // The third return is beyond the limit.
    for _ in 0..3 {
        let got = wait_for_some("the message", PATIENCE, async || {
            channel.basic_get("deletions".into(), Default::default()).await.expect("the queue exists")
        })
        .await;
        let requeue = BasicNackOptions { requeue: true, multiple: false };
        channel.basic_nack(got.delivery_tag, requeue).await.expect("an open channel");
    }
    goes_back(&world, "delivery_limit", &properties).await;
}

#[tokio::test]
async fn what_had_no_room_goes_back_too() {
    for queue_type in QUEUE_TYPES {
        let world = world(queue_type).await;
        again(&world, super::kind_of(queue_type), ("x-max-length", AMQPValue::LongLongInt(1))).await;
        let properties = amqp::persistent().with_message_id("m-1".into());
        world.publish_with(properties.clone(), [r#"["VI1"]"#]).await;
        world.publish([r#"["VI2"]"#]).await;
        waiting(&world, QUEUE, 1).await;
        // Room for it.
        assert_eq!(drain(&world, "deletions").await.len(), 1);
        goes_back(&world, "maxlen", &properties).await;
    }
}

/// Sees that the only dead letter died for `reason`, and comes back as it was published.
async fn goes_back(world: &World, reason: &str, properties: &BasicProperties) {
    waiting(world, QUEUE, 1).await;
    let list = run(world, &["list", "--reason", reason, "--output", "json"]).await.fine().json();
    assert_eq!((&list["letters"], &list["groups"][0]["reason"]), (&1.into(), &reason.into()), "{list}");
    let end = run(world, &["replay", "--reason", reason]).await.fine();
    assert!(end.out.starts_with("replayed 1 letters, skipped 0, refused 0\n"), "{end:?}");
    waiting(world, "deletions", 1).await;
    as_published(&drain(world, "deletions").await[0], properties, br#"["VI1"]"#, 1);
    assert_eq!(amqp::ready(&world.connection, QUEUE).await, 0);
}

/// Declares the queue anew, of this type and with this argument.
async fn again(world: &World, queue_type: &str, argument: (&str, AMQPValue)) -> Channel {
    let channel = world.connection.create_channel().await.expect("an open connection");
    channel.queue_delete("deletions".into(), Default::default()).await.expect("the queue exists");
    let dead = ("x-dead-letter-exchange", text("deletions.dlx"));
    let arguments = headers(&[("x-queue-type", text(queue_type)), dead, argument]);
    channel
        .queue_declare("deletions".into(), QueueDeclareOptions::durable(), arguments)
        .await
        .expect("it was deleted");
    let none = FieldTable::default();
    channel
        .queue_bind("deletions".into(), "deletions".into(), "delete".into(), Default::default(), none)
        .await
        .expect("both exist");
    channel
}

#[tokio::test]
async fn what_was_made_readable_is_not_published_as_if_it_had_been_so() {
    let mut world = world(QueueType::Quorum).await;
    let entry = [&raw_amqp::short(b"na\xffme")[..], b"S", &raw_amqp::long(b"value")].concat();
    let properties = [&raw_amqp::long(&entry)[..], &[2]].concat();
    let unreadable = Raw {
        flags: raw_amqp::HEADERS | raw_amqp::DELIVERY_MODE,
        properties: &properties,
        ..Raw::new(b"garbage")
    };
    raw_amqp::publish(&world.vhost.url, &[unreadable]).await;
    world.set("amqp.declare", "verify");
    let mut worker = world.start().await;
    waiting(&world, QUEUE, 1).await;
    worker.stop().await;
    for flag in [&["--dry-run"][..], &[]] {
        let end = run(&world, &[&["replay"], flag].concat()).await;
        assert_eq!(end.code, Some(1), "{end:?}");
        let words = "refused 1: it can't be published as it was, it had to be made readable: \
                     bytes that are not UTF-8 became question marks";
        assert!(end.out.contains(words), "{end:?}");
        waiting(&world, QUEUE, 1).await;
    }
    assert_eq!(amqp::ready(&world.connection, "deletions").await, 0);
}

#[tokio::test]
async fn large_letters_go_back_whatever_they_add_up_to() {
    const LARGE: usize = 1024 * 1024;
    const COUNT: u32 = 200;
    let world = world(QueueType::Quorum).await;
    let bodies = (0..COUNT).map(|number| format!(r#"{{"videoNo":"VI{number}"}}"#) + &" ".repeat(LARGE));
    amqp::publish(&world.connection, "", QUEUE, dead(epitaph("rejected", "0001")), bodies).await;
    waiting(&world, QUEUE, COUNT).await;
    let limited = run(&world, &["replay", "--limit", "3"]).await.fine();
    assert!(limited.out.starts_with("replayed 3 letters, ") && limited.err.is_empty(), "{limited:?}");
    waiting(&world, QUEUE, COUNT - 3).await;
    let end = run(&world, &["replay"]).await.fine();
    assert!(end.out.starts_with("replayed 197 letters, skipped 0, refused 0\n"), "{end:?}");
    waiting(&world, "deletions", COUNT).await;
    assert_eq!(numbers(&drain(&world, "deletions").await), (0..COUNT).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_has_nowhere_to_go_stays() {
    let world = world(QueueType::Quorum).await;
    let place = |exchange: &str, key: &str| {
        let mut table = epitaph("rejected", "0001");
        table.insert("x-deletion-exchange".into(), text(exchange));
        table.insert("x-deletion-routing-key".into(), text(key));
        dead(table)
    };
    let letters = [
        (place("gone", "a"), "1"),
        (place("deletions", "nowhere"), "2"),
        (place("deletions", "delete"), "3"),
        (amqp::persistent(), "4"),
        (place("gone", "a"), "5"),
        (place("deletions", "delete").with_reply_to("amq.rabbitmq.reply-to.x".into()), "6"),
    ];
    for (properties, body) in letters {
        // The last one's reply-to is refused by the broker unless it comes from a header.
        let properties = if properties.reply_to().is_some() {
            let mut table = properties.headers().clone().expect("an epitaph");
            table.insert("x-original-reply_to".into(), text("amq.rabbitmq.reply-to.x"));
            dead(table)
        } else {
            properties
        };
        amqp::publish(&world.connection, "", QUEUE, properties, [body]).await;
    }
    let end = run(&world, &["replay"]).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.out.starts_with("replayed 2 letters, skipped 0, refused 4\n"), "{end:?}");
    for words in [
        "refused 2: its exchange `gone` doesn't exist any more",
        "refused 1: no queue is bound to the exchange for it",
        "refused 1: it doesn't say where it was published to",
        "1 without the property reply_to",
    ] {
        assert!(end.out.contains(words), "{words} in {end:?}");
    }
    assert!(end.err.contains("4 letters were refused; they stay"), "{end:?}");
    waiting(&world, QUEUE, 4).await;
    assert_eq!(numbers(&drain(&world, QUEUE).await), [1, 2, 4, 5]);
    assert_eq!(numbers(&drain(&world, "deletions").await), [3, 6]);
}

#[tokio::test]
async fn only_the_failed_ids_if_that_is_wanted() {
    let world = world(QueueType::Quorum).await;
    let whole = r#"{"namespace":"n","videoNos":["VI1","VI2"]}"#;
    let cut_short = {
        let mut table = epitaph("rejected", "0001");
        table.insert("x-deletion-failed-count".into(), AMQPValue::LongLongInt(2));
        dead(table)
    };
    let rejected = dead(epitaph("rejected", "0001"));
    for (properties, body) in
        [(rejected.clone(), whole), (rejected, r#"{"videoNo":"VI1"}"#), (cut_short, whole)]
    {
        amqp::publish(&world.connection, "", QUEUE, properties, [body]).await;
    }
    let end = run(&world, &["replay", "--failed-ids-only"]).await;
    assert!(end.out.contains("refused 1: its list of failed IDs was cut short"), "{end:?}");
    let back = drain(&world, "deletions").await;
    let bodies: Vec<_> = back.iter().map(|message| str::from_utf8(&message.data).expect("UTF-8")).collect();
    assert_eq!(bodies, [r#"{"namespace":"n","videoNos":["VI1"]}"#, r#"{"videoNo":"VI1"}"#]);
}

#[tokio::test]
async fn operators_and_the_worker_do_not_disturb_each_other() {
    const LETTERS: u32 = 6_000;
    // Fewer than the worker takes for a fault of the endpoint's.
    const BAD: u32 = 5;
    let mut world = world(QueueType::Quorum).await;
    world.set("amqp.declare", "verify");
    fill(&world, 0..LETTERS, LETTERS).await;
    world.faults(|faults| {
        faults.bad_ids = (0..LETTERS).step_by((LETTERS / BAD) as usize).map(|n| format!("VI{n}")).collect()
    });
    let mut worker = world.start().await;
    // The worker gives five of them up again while both replay.
    let one = run(&world, &["replay"]);
    let two = run(&world, &["replay"]);
    let (one, two) = tokio::join!(one, two);
    for end in [one, two] {
        assert!(end.fine().out.contains("refused 0"));
    }
    // Whatever one held while the other looked, a last run finds.
    let list = async || run(&world, &["list", "--output", "json"]).await.fine().json();
    let deleted = u64::from(LETTERS - BAD);
    wait_for("all good IDs deleted", PATIENCE, async || {
        if amqp::ready(&world.connection, QUEUE).await > BAD {
            run(&world, &["replay"]).await.fine();
        }
        world.mock.stats().ids_deleted >= deleted
    })
    .await;
    // The worker may take one of the bad ones again for a while, if a replay brought them twice.
    waiting(&world, QUEUE, BAD).await;
    worker.settled(&world).await;
    worker.stop().await;
    assert_eq!(list().await["letters"], BAD);
    assert_eq!(world.mock.stats().ids_deleted, deleted);
}

#[tokio::test]
async fn a_rate_is_kept_to() {
    let world = world(QueueType::Classic).await;
    fill(&world, 0..20, 20).await;
    let start = std::time::Instant::now();
    run(&world, &["replay", "--rate", "10"]).await.fine();
    // The last of barriers of three leaves after 18 letters at 10 a second.
    assert!(start.elapsed().as_millis() >= 1_800, "{:?}", start.elapsed());
}
