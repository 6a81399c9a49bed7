//! Listing, showing, exporting, purging.

use deletion_worker::config::QueueType;
use lapin::types::AMQPValue;

use super::{QUEUE, dead, drain, epitaph, fill, headers, numbers, run, waiting, world};
use crate::support::{amqp, wait_for};

#[tokio::test]
async fn causes_are_told_apart() {
    let mut world = world(QueueType::Quorum).await;
    world.set("amqp.declare", "verify");
    world.faults(|faults| faults.bad_ids = ["VIbad".to_owned()].into());
    let shop = || amqp::persistent().with_app_id("shop".into());
    world.publish_with(shop(), ["garbage", "more garbage", r#"["V I"]"#, r#"["VI", "V I"]"#]).await;
    world.publish([r#"{"videoNo":"VIbad","requestedBy":"gdpr"}"#, "[]"]).await;
    let mut worker = world.start().await;
    waiting(&world, QUEUE, 6).await;
    worker.stop().await;
    amqp::publish(&world.connection, "", QUEUE, amqp::persistent(), [r#"["VIodd"]"#]).await;

    let list = run(&world, &["list", "--output", "json"]).await.fine().json();
    let groups = list["groups"].as_array().expect("an array");
    let find = |reason: &str, kind: Option<&str>| {
        groups
            .iter()
            .find(|group| group["reason"] == reason && kind.is_none_or(|kind| group["kind"] == kind))
            .unwrap_or_else(|| panic!("no {reason} {kind:?} in {list:#}"))
    };
    let spaced = find("malformed", Some("[N] has white space at character N"));
    assert_eq!((&spaced["count"], &spaced["publishers"][0]), (&2.into(), &"shop".into()), "{list:#}");
    assert_eq!(find("rejected", None)["publishers"][0], "gdpr");
    assert_eq!(find("rejected", None)["example"], "VIbad");
    assert_eq!(find("unknown", None)["example"], "VIodd");
    assert_eq!(list["letters"], 7);
    let table = run(&world, &["list"]).await.fine().out;
    assert!(table.starts_with("COUNT  REASON"), "{table}");
    assert!(table.contains("2      malformed: [N] has white space at character N"), "{table}");
}

#[tokio::test]
async fn filters_are_alike_everywhere() {
    let world = world(QueueType::Classic).await;
    let at = |seconds: u64, reason: &str, code: &str| {
        let mut table = epitaph(reason, code);
        table.insert("x-deletion-at".into(), AMQPValue::Timestamp(seconds));
        dead(table)
    };
    let letters = [
        (at(1_000, "rejected", "0001").with_app_id("shop".into()), r#"{"videoNo":"VI1"}"#),
        (at(2_000, "rejected", "0002"), r#"{"videoNos":["VI7","VI2"],"namespace":"space"}"#),
        (at(3_000, "malformed", ""), "3"),
        (dead(headers(&[])), "4"),
    ];
    for (properties, body) in letters {
        amqp::publish(&world.connection, "", QUEUE, properties, [body]).await;
    }
    for (filter, expected) in [
        (&["--reason", "rejected"][..], &["VI1", "VI2"][..]),
        (&["--reason", "malformed", "--reason", "unknown"], &["3", "4"]),
        (&["--code", "0002"], &["VI2"]),
        (&["--id", "VI2"], &["VI2"]),
        (&["--namespace", "space"], &["VI2"]),
        (&["--publisher", "shop"], &["VI1"]),
        (&["--after", "1970-01-01T00:33:20Z"], &["VI2", "3"]),
        (&["--before", "1970-01-01T00:33:20Z"], &["VI1"]),
        (&["--after", "1h"], &[]),
        (&["--reason", "rejected", "--code", "nothing"], &[]),
    ] {
        let export = run(&world, &[&["export"], filter].concat()).await.fine();
        let bodies: Vec<&str> = export.out.lines().collect();
        assert_eq!(bodies.len(), expected.len(), "{filter:?}: {export:?}");
        for (body, expected) in bodies.iter().zip(expected) {
            assert!(body.contains(expected), "{filter:?}: {body}");
        }
        let count = expected.len();
        let show = run(&world, &[&["show"], filter].concat()).await.fine();
        assert_eq!(show.out.matches("=== ").count(), count, "{filter:?}");
        let list = run(&world, &[&["list", "--output", "json"], filter].concat()).await.fine().json();
        assert_eq!(list["letters"], count, "{filter:?}");
        let dry = run(&world, &[&["replay", "--dry-run"], filter].concat()).await;
        assert!(dry.out.contains(&format!("skipped {}", 4 - count)), "{filter:?}: {dry:?}");
    }
}

#[tokio::test]
async fn purge_removes_what_each_filter_selects_and_nothing_else() {
    let at = |seconds: u64, reason: &str, code: &str| {
        let mut table = epitaph(reason, code);
        table.insert("x-deletion-at".into(), AMQPValue::Timestamp(seconds));
        table.insert("x-deletion-failed-ids".into(), AMQPValue::Void);
        dead(table)
    };
    let letters = [
        (at(1_000, "rejected", "0001").with_app_id("shop".into()), r#"{"videoNo":"VI1"}"#),
        (at(2_000, "rejected", "0002"), r#"{"videoNos":["VI2"],"namespace":"space"}"#),
        (at(3_000, "malformed", ""), "3"),
        (dead(headers(&[])), "4"),
    ];
    for queue_type in super::QUEUE_TYPES {
        let world = world(queue_type).await;
        for (filter, left) in [
            (&["--reason", "rejected"][..], &[3, 4][..]),
            (&["--reason", "malformed", "--reason", "unknown"], &[1, 2]),
            (&["--code", "0002"], &[1, 3, 4]),
            (&["--id", "VI1"], &[2, 3, 4]),
            (&["--namespace", "space"], &[1, 3, 4]),
            (&["--publisher", "shop"], &[2, 3, 4]),
            (&["--before", "1970-01-01T00:33:20Z"], &[2, 3, 4]),
            (&["--after", "1970-01-01T00:33:20Z"], &[1, 4]),
            (&["--after", "1970-01-01T00:33:20Z", "--before", "1970-01-01T00:33:21Z"], &[1, 3, 4]),
            (&["--code", "0001", "--publisher", "nobody"], &[1, 2, 3, 4]),
            (&[], &[]),
        ] {
            for (properties, body) in &letters {
                amqp::publish(&world.connection, "", QUEUE, properties.clone(), [body]).await;
            }
            waiting(&world, QUEUE, 4).await;
            let end = run(&world, &[&["purge", "--yes"], filter].concat()).await.fine();
            let removed = match 4 - left.len() {
                0 => "no dead letters\n".to_owned(),
                removed => format!("removed {removed} dead letters\n"),
            };
            assert!(end.out.ends_with(&removed), "{queue_type:?} {filter:?}: {end:?}");
            waiting(&world, QUEUE, left.len() as u32).await;
            let bodies = drain(&world, QUEUE).await;
            assert_eq!(numbers(&bodies), left, "{queue_type:?} {filter:?}");
        }
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_fault() {
    let world = world(QueueType::Quorum).await;
    fill(&world, 0..3_000, 3_000).await;
    let binary = env!("CARGO_BIN_EXE_deletion-worker");
    let mut command = tokio::process::Command::new("sh");
    command.args([
        "-c",
        &format!("{binary} dead-letters export --set amqp.urls={} | head -n 2", world.vhost.url),
    ]);
    let mut process = crate::support::process::Process::spawn(command);
    process.exit(super::PATIENCE).await;
    assert_eq!(process.stdout.all().len(), 2);
    assert!(process.stderr.all().is_empty(), "{:?}", process.stderr.all());
    waiting(&world, QUEUE, 3_000).await;
    assert_eq!(numbers(&drain(&world, QUEUE).await), (0..3_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_list_that_is_not_whole_says_so() {
    let world = world(QueueType::Quorum).await;
    fill(&world, 0..10, 10).await;
    let channel = world.connection.create_channel().await.expect("an open connection");
    let get = channel.basic_consume(QUEUE.into(), "".into(), Default::default(), Default::default());
    let _other = get.await.expect("the queue exists");
    wait_for("another to hold the letters", super::PATIENCE, async || {
        amqp::ready(&world.connection, QUEUE).await == 0
    })
    .await;
    let list = run(&world, &["list", "--output", "json"]).await.fine();
    assert!(list.err.contains("1 other consumers are reading queue `deletions.dead`"), "{list:?}");
    assert_eq!(list.json()["complete"], false);
}

#[tokio::test]
async fn purge_removes_what_it_shows_and_only_if_told_to() {
    for queue_type in super::QUEUE_TYPES {
        let world = world(queue_type).await;
        fill(&world, 0..12_000, 3).await;
        waiting(&world, QUEUE, 12_000).await;
        let refused = run(&world, &["purge"]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains("give --yes"), "{refused:?}");
        waiting(&world, QUEUE, 12_000).await;
        let end = run(&world, &["purge", "--yes", "--code", "0001"]).await.fine();
        assert!(
            end.out.contains("8000   rejected") && end.out.ends_with("removed 8000 dead letters\n"),
            "{end:?}"
        );
        waiting(&world, QUEUE, 4_000).await;
        let rest: Vec<u32> = (0..12_000).filter(|number| number % 3 == 2).collect();
        assert_eq!(numbers(&drain(&world, QUEUE).await), rest);
        assert_eq!(run(&world, &["list"]).await.fine().out, "no dead letters\n");
    }
}

#[tokio::test]
async fn show_says_where_it_came_from_and_what_it_is() {
    let world = world(QueueType::Classic).await;
    let properties = dead(epitaph("rejected", "0001")).with_message_id("m\u{202e}1".into());
    amqp::publish(&world.connection, "", QUEUE, properties, [r#"{"videoNo":"VI1"}"#]).await;
    let end = run(&world, &["show", "--limit", "1"]).await.fine();
    let start = "=== 1: rejected 0001, 2026-01-01T00:00:00Z\n  the endpoint says no\n  \
                 published to exchange `deletions` with routing key `delete`\nproperties\n  content_type: \"application/json\"\n";
    assert!(end.out.starts_with(start), "{}", end.out);
    assert!(end.out.contains("  message_id: \"m\\u202e1\"\n"), "{}", end.out);
    assert!(end.out.contains("  x-deletion-attempts: 2\n"), "{}", end.out);
    assert!(end.out.contains("body, 17 bytes of JSON\n  {\n    \"videoNo\": \"VI1\"\n  }\n"), "{}", end.out);
}
