//! Late-bound batches: IDs join until the call may leave, each ID once, namespaces apart.

use super::bench::{Bench, deleted, throttled, transient};
use crate::id::Namespace;

#[test]
fn a_lone_id_waits_for_company_as_long_as_linger() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn linger_counts_from_the_oldest() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.pass(600);
    bench.arrive("b");
    bench.expect_after(400, &["call linger: a b"]);
    bench.answer("a b", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn a_full_call_leaves_at_once() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.arrive("b");
    bench.quiet();
    bench.arrive("c");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn ids_join_until_a_slot_is_free() {
    let mut bench = Bench::with(|settings| settings.concurrency_max = 1);
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.arrive("b");
    bench.pass(5000);
    bench.arrive("c");
    bench.quiet();
    bench.answer("a", deleted());
    bench.expect(&["call linger: b c", "ack ..1"]);
    bench.answer("b c", deleted());
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn ids_join_until_the_rate_permits() {
    let mut bench = Bench::with(|settings| settings.rate_max = Some(1.0));
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.arrive("d");
    bench.pass(50);
    // A second later than it has surely arrived, the next may leave.
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..1"]);
    bench.pass(960);
    bench.arrive("e");
    bench.expect_after(40, &["call linger: d e"]);
    assert_eq!(bench.tally().rate_limit_waits.len(), 1, "it waited for the rate from its linger on");
    bench.answer("d e", deleted());
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn an_exhausted_window_is_as_full_as_it_gets() {
    let mut bench = Bench::with(|settings| settings.prefetch = 3);
    bench.arrive("a");
    bench.arrive("a");
    bench.quiet();
    bench.arrive("b");
    bench.expect(&["call full: a b"]);
    bench.answer("a b", deleted());
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn a_message_may_span_calls_and_share_each_of_them() {
    let mut bench = Bench::new();
    bench.arrive("a b c d");
    bench.arrive("e");
    bench.expect(&["call full: a b c"]);
    bench.arrive("f");
    bench.expect(&["call full: d e f"]);
    bench.answer("d e f", deleted());
    bench.quiet();
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn duplicates_wait_for_the_one_deletion() {
    let mut bench = Bench::new();
    bench.arrive("a a b a");
    bench.arrive("b");
    bench.expect_after(1000, &["call linger: a b"]);
    // In flight, too.
    bench.arrive("a");
    bench.pass(5000);
    bench.quiet();
    bench.answer("a b", deleted());
    bench.expect(&["ack ..3"]);
    assert_eq!(bench.tally().ids_deduplicated, 4);
    assert_eq!(bench.tally().ids_deleted, 2);
    bench.done();
}

#[test]
fn a_new_message_is_not_content_with_a_deletion_gone_by() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.rearrive("a");
    bench.expect(&["ack ..2"]);
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn a_message_that_waited_is_content_with_a_deletion_since_we_consume() {
    let mut bench = Bench::new();
    bench.pass(1);
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.arrive_at_last("a b");
    bench.expect_after(1000, &["call linger: b"]);
    bench.answer("b", deleted());
    bench.expect(&["ack ..2"]);
    assert_eq!(bench.tally().ids_deduplicated, 1);
    // It was published between the epochs, for all we know.
    bench.disconnect();
    bench.connect();
    bench.expect(&["consume"]);
    bench.consuming();
    bench.arrive_at_last("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn what_was_asked_for_before_the_consumer_was_confirmed_may_have_come_later() {
    let mut bench = Bench::new();
    bench.pass(1);
    bench.arrive("a b c");
    bench.consuming();
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..1"]);
    bench.arrive_at_last("a b c");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn deletions_are_remembered_within_bounds() {
    // 4 x (2 x 1 + 1) x 1 = 12 of them.
    let mut bench = Bench::with(|settings| {
        settings.batch_max = 1;
        settings.concurrency_max = 1;
    });
    for n in 1..=13 {
        let id = format!("v{n}");
        bench.arrive(&id);
        bench.expect(&[&format!("call full: {id}")]);
        bench.answer(&id, deleted());
        bench.expect(&[&format!("ack ..{n}")]);
    }
    bench.rearrive("v2");
    bench.expect(&["ack ..14"]);
    bench.rearrive("v1");
    bench.expect(&["call full: v1"]);
    bench.answer("v1", deleted());
    bench.expect(&["ack ..15"]);
    bench.done();
}

#[test]
fn namespaces_never_share_a_call() {
    let mut bench = Bench::with(|settings| settings.namespace = Namespace::new("default").ok());
    bench.arrive_in("red", "a");
    bench.arrive("a");
    bench.arrive_in("blue", "a");
    bench.arrive_in("default", "b");
    bench.expect_after(1000, &["call linger red: a", "call linger default: a b"]);
    bench.answer("a", deleted());
    bench.expect(&["call linger blue: a", "ack ..1"]);
    bench.answer("a", deleted());
    bench.answer("a b", deleted());
    bench.expect(&["ack ..4"]);
    bench.done();
}

#[test]
fn where_calls_know_no_namespaces_nobody_does() {
    let mut bench = Bench::new();
    bench.arrive_in("red", "a");
    bench.arrive_in("blue", "a b");
    bench.expect_after(1000, &["call linger: a b"]);
    bench.answer("a b", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn what_was_throttled_is_joined_by_others() {
    let mut bench = Bench::new();
    bench.arrive("a b");
    bench.expect_after(1000, &["call linger: a b"]);
    bench.answer("a b", throttled(Some(10)));
    bench.arrive("c");
    bench.expect_after(10_000, &["call full: a b c"]);
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn suspects_stay_away_from_fresh_ids() {
    let mut bench = Bench::new();
    bench.arrive("a b");
    bench.expect_after(1000, &["call linger: a b"]);
    bench.answer("a b", transient());
    bench.arrive("c");
    bench.expect_soon(&["call retry: a b"]);
    bench.expect_soon(&["call linger: c"]);
    bench.answer("a b", deleted());
    bench.expect(&["ack ..1"]);
    bench.answer("c", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn large_messages_are_bounded() {
    // 4 x (2 x 2 + 1) x 3 = 60 IDs.
    let mut bench = Bench::new();
    let ids = |from: usize, to: usize| (from..to).map(|n| format!("v{n}")).collect::<Vec<_>>().join(" ");
    bench.arrive(&ids(0, 59));
    assert!(bench.engine.has_room());
    bench.arrive(&ids(59, 90));
    assert!(!bench.engine.has_room(), "90 IDs");
    let mut waits = 0;
    while !bench.engine.has_room() {
        waits += 1;
        bench.take();
        let call = bench.under_way().remove(0);
        bench.answer(&call, deleted());
    }
    assert_eq!(waits, 11, "three deleted each time, until fewer than 60 are left");
    bench.drain();
    assert!(bench.engine.has_room(), "what is to be given back needs none");
    bench.take();
}

#[test]
fn messages_that_wait_for_the_same_id_are_bounded() {
    // 16 for each of those 60 IDs.
    let mut bench = Bench::new();
    for _ in 1..960 {
        bench.arrive("a");
    }
    assert!(bench.engine.has_room());
    bench.arrive("a");
    assert!(!bench.engine.has_room(), "960 messages");
    // Nothing more can join it.
    bench.expect(&["call full: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..960"]);
    assert!(bench.engine.has_room());
    bench.done();
}

#[test]
fn malformed_messages_hold_up_nobody() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.arrive_malformed("trailing data at byte 17");
    bench.arrive("b");
    bench.expect(&["dead-letter 2 malformed: "]);
    let obituary = bench.obituary(2).clone();
    assert_eq!(obituary.detail, "trailing data at byte 17");
    assert_eq!((obituary.attempts, obituary.code, obituary.http_status), (0, None, None));
    bench.stored(&[2]);
    bench.expect_after(500, &["ack 2"]);
    bench.expect_after(500, &["call linger: a b"]);
    bench.answer("a b", deleted());
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn a_snapshot_tells_what_waits_and_what_is_under_way() {
    let mut bench = Bench::new();
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.arrive("d e");
    let snapshot = bench.engine.snapshot();
    assert_eq!((snapshot.ids_pending, snapshot.ids_in_flight, snapshot.calls_in_flight), (2, 3, 1));
    assert_eq!((snapshot.messages_unsettled, snapshot.batches_suspect), (2, 0));
    assert!(snapshot.consuming && !snapshot.draining);
    bench.drain();
    bench.take();
    let snapshot = bench.engine.snapshot();
    assert!(!snapshot.consuming && snapshot.draining);
}
