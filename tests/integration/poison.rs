//! A bad ID costs itself only, and what is told of it is true.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deletion_worker::status::EndpointState;
use lapin::message::BasicGetMessage;

use crate::support::letter::{self, header};
use crate::support::world::{World, ids};
use crate::support::{PATIENCE, amqp, wait_for};

#[tokio::test]
async fn scattered_bad_ids_are_found_and_described() {
    // At the ends, in the middle, next to each other, and in every call.
    for places in [&[1234][..], &[0, 999, 1999], &[3, 4, 250, 700, 701, 1100, 1300, 1501, 1777, 1998]] {
        let mut world = World::new().await;
        world.unset("batch.linger"); // a busy broker must not cost a call
        world.prepare().await;
        let all = ids(2000);
        let bad: BTreeSet<String> = places.iter().map(|place| all[*place].clone()).collect();
        world.faults(|faults| faults.bad_ids = bad.clone());
        let before = SystemTime::now();
        world.publish_ids(&all).await;
        let mut worker = world.start().await;
        let good: Vec<String> = all.into_iter().filter(|id| !bad.contains(id)).collect();
        world.deleted(good.len() as u64).await;
        let letters = world.dead_letters(u32::try_from(bad.len()).expect("few")).await;
        worker.settled(&world).await;

        world.all_deleted_once(&good);
        let calls = world.mock.calls().len();
        assert!(calls <= 4 + 18 * bad.len(), "{calls} calls for {} bad IDs", bad.len());
        let blamed: BTreeSet<String> =
            letters.iter().map(|letter| header(letter, "x-deletion-failed-ids")).collect();
        assert_eq!(blamed, bad);
        for letter in &letters {
            let id = header(letter, "x-deletion-failed-ids");
            assert_eq!(letter::body(letter), format!(r#"{{"videoNo":"{id}"}}"#));
            is_described_as_rejected(letter, "1");
            is_timestamp_since(&header(letter, "x-deletion-at"), before);
        }
        let count = bad.len() as f64;
        assert_eq!(worker.metric("dead_letters_total", &[("reason", "rejected")]).await, count);
        assert_eq!(worker.metric("messages_settled_total", &[("outcome", "dead_lettered")]).await, count);
        assert!(worker.metric("batch_splits_total", &[]).await >= count);
        worker.stop().await;
        world.ready(0).await;
    }
}

#[tokio::test]
async fn of_a_message_with_one_bad_id_the_others_are_deleted() {
    let world = World::new().await;
    world.prepare().await;
    world.faults(|faults| faults.bad_ids = ["bad".to_owned(), "worse".to_owned()].into());
    let mixed = r#"{"videoNos":["VI1","bad","VI2","worse","VI3"],"requestId":"r-1"}"#;
    world.publish([mixed, r#"["VI4","VI5"]"#, r#"["bad","VI5"]"#]).await;
    let mut worker = world.start().await;
    world.deleted(5).await;
    let letters = world.dead_letters(2).await;
    worker.settled(&world).await;
    world.all_deleted(&(1..=5).map(|n| format!("VI{n}")).collect::<Vec<_>>());
    let of =
        |body: &str| letters.iter().find(|letter| letter.data == body.as_bytes()).expect("its dead letter");
    is_described_as_rejected(of(mixed), "2");
    let failed: BTreeSet<String> =
        header(of(mixed), "x-deletion-failed-ids").split(',').map(str::to_owned).collect();
    assert_eq!(failed, ["bad".to_owned(), "worse".to_owned()].into());
    is_described_as_rejected(of(r#"["bad","VI5"]"#), "1");
    assert_eq!(header(of(r#"["bad","VI5"]"#), "x-deletion-failed-ids"), "bad");
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "deleted")]).await, 1.0);
    worker.stop().await;
}

#[tokio::test]
async fn more_failed_ids_than_headers_hold_are_counted_all_the_same() {
    let world = World::new().await;
    world.prepare().await;
    world.faults(|faults| faults.bad_prefix = Some("bad".into()));
    let mut message: Vec<String> = (0..60).map(|n| format!("bad{n:0>117}")).collect();
    message.push("VI1".into());
    world.publish([serde_json::json!(message).to_string()]).await;
    let mut worker = world.start().await;
    world.deleted(1).await;
    let letters = world.dead_letters(1).await;
    worker.settled(&world).await;
    is_described_as_rejected(&letters[0], "60");
    let listed = header(&letters[0], "x-deletion-failed-ids");
    assert!(
        listed.split(',').count() < 60 && listed.split(',').all(|id| message.iter().any(|sent| sent == id))
    );
    let added: usize = letter::names(&letters[0])
        .iter()
        .filter(|name| name.starts_with("x-deletion-"))
        .map(|name| name.len() + header(&letters[0], name).len())
        .sum();
    assert!((2048..4096).contains(&added), "{added} bytes of headers");
    worker.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_rejects_everything_blames_nobody_new() {
    let world = World::new().await;
    let mut worker = world.start().await;
    world.publish_ids(["VIcontrol"]).await;
    world.deleted(1).await;
    world.faults(|faults| faults.bad_prefix = Some("VI".into()));
    let all = ids(600);
    world.publish_ids(&all).await;
    worker.endpoint_is(EndpointState::Blocked).await;
    let status = worker.status().await.expect("it runs");
    let failure = status.endpoint.last_failure.expect("there was one");
    assert_eq!(failure.code.as_deref(), Some("0001"));
    assert_eq!(status.totals.messages_dead_lettered, 0);
    assert_eq!(status.held.messages_unsettled, 600);
    // It stays so while probes go on, this one among them: one that has succeeded before.
    wait_for("the control", PATIENCE, async || {
        world.mock.calls().iter().filter(|call| call.ids == ["VIcontrol"]).count() >= 3
    })
    .await;
    worker.endpoint_is(EndpointState::Blocked).await;
    world.faults(|faults| faults.bad_prefix = None);
    world.deleted(601).await;
    worker.settled(&world).await;
    worker.endpoint_is(EndpointState::Healthy).await;
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "dead_lettered")]).await, 0.0);
    worker.stop().await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn an_id_that_always_answers_500_takes_nobody_with_it() {
    let mut world = World::new().await;
    world.set("retry.initial", "5ms").set("retry.max", "20ms").set("retry.max_strikes", "3");
    world.prepare().await;
    world.faults(|faults| {
        faults.failing_ids = ["VI77".to_owned()].into();
        faults.latency = Duration::from_millis(2);
    });
    // It starts in a full call among others.
    world.publish_ids(ids(300)).await;
    let mut worker = world.start().await;
    let mut good = 0;
    wait_for("the dead letter", PATIENCE, async || {
        good += 1;
        world.publish_ids([format!("good{good}")]).await;
        amqp::ready(&world.connection, "deletions.dead").await == 1
    })
    .await;
    world.deleted(299 + good).await;
    worker.settled(&world).await;
    let letters = world.dead_letters(1).await;
    assert_eq!(letter::body(&letters[0]), r#"{"videoNo":"VI77"}"#);
    assert_eq!(header(&letters[0], "x-deletion-reason"), "retries_exhausted");
    assert_eq!(header(&letters[0], "x-deletion-http-status"), "500");
    assert_eq!(letter::find(&letters[0], "x-deletion-code"), None);
    assert_eq!(header(&letters[0], "x-deletion-failed-ids"), "VI77");
    assert!(header(&letters[0], "x-deletion-attempts").parse::<u32>().expect("a number") >= 3);
    assert_eq!(worker.metric("dead_letters_total", &[("reason", "retries_exhausted")]).await, 1.0);
    assert!(worker.metric("retries_total", &[]).await >= 3.0);
    worker.stop().await;
}

/// Every header of a rejected message but the IDs and the time.
fn is_described_as_rejected(letter: &BasicGetMessage, failed: &str) {
    assert_eq!(header(letter, "x-deletion-reason"), "rejected");
    assert_eq!(header(letter, "x-deletion-code"), "0001");
    assert_eq!(header(letter, "x-deletion-http-status"), "200");
    assert_eq!(header(letter, "x-deletion-failed-count"), failed);
    assert_eq!(header(letter, "x-deletion-exchange"), "deletions");
    assert_eq!(header(letter, "x-deletion-routing-key"), "delete");
    assert_eq!(header(letter, "x-deletion-queue"), "deletions");
    assert_eq!(header(letter, "x-deletion-worker"), concat!("deletion-worker ", env!("CARGO_PKG_VERSION")));
    let detail = header(letter, "x-deletion-detail");
    assert!(detail.contains("0001") && detail.contains("incorrect") && detail.len() <= 1024, "{detail}");
    // At most nine halvings of 500, and a second trial.
    let attempts: u32 = header(letter, "x-deletion-attempts").parse().expect("a number");
    assert!((1..=12).contains(&attempts), "{attempts} attempts");
    assert_eq!(*letter.properties.delivery_mode(), Some(2));
}

fn is_timestamp_since(seconds: &str, before: SystemTime) {
    let seconds: u64 = seconds.parse().expect("seconds");
    let epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    assert!((epoch(before)..=epoch(SystemTime::now())).contains(&seconds), "{seconds}");
}
