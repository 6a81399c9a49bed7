//! The connection is lost: every delivery comes again, and what is known about its IDs is worth keeping.

use super::bench::{Bench, blocked, deleted, rejected, transient};

fn reconnect(bench: &mut Bench) {
    bench.disconnect();
    bench.connect();
    bench.expect(&["consume"]);
}

#[test]
fn what_waited_in_a_lane_is_forgotten() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.disconnect();
    bench.done();
    bench.connect();
    bench.expect(&["consume"]);
    bench.rearrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn what_was_in_flight_is_joined_on_redelivery() {
    let mut bench = Bench::new();
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    reconnect(&mut bench);
    bench.rearrive("a b c");
    bench.pass(5000);
    bench.quiet();
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn what_was_deleted_in_between_is_recognised() {
    let mut bench = Bench::new();
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.disconnect();
    bench.answer("a b c", deleted());
    bench.connect();
    bench.expect(&["consume"]);
    bench.rearrive("a b c");
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn what_was_deleted_but_not_acknowledged_is_recognised() {
    let mut bench = Bench::new();
    bench.arrive("a b c d");
    bench.arrive("e");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", deleted());
    reconnect(&mut bench);
    bench.rearrive("a b c d");
    bench.rearrive("e");
    bench.expect_after(1000, &["call linger: d e"]);
    bench.answer("d e", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn suspects_keep_their_history() {
    let mut bench = Bench::new();
    bench.arrive("a b");
    bench.expect_after(1000, &["call linger: a b"]);
    bench.answer("a b", rejected());
    bench.expect(&["call split: a", "call split: b"]);
    bench.answer("a", transient());
    bench.answer("b", transient());
    reconnect(&mut bench);
    // The broker may take its time.
    bench.pass(900);
    bench.quiet();
    bench.rearrive("a b");
    bench.rearrive("c");
    // They are tried alone again, not in the company of fresh ones.
    let mut calls = Vec::new();
    while calls.len() < 3 {
        bench.wait();
        for line in bench.take() {
            calls.push(line.clone());
            let ids = line.split_once(": ").expect("a call").1.to_owned();
            bench.answer(&ids, deleted());
        }
        calls.extend(bench.take().into_iter().filter(|line| line.starts_with("call")));
        calls.retain(|line| line.starts_with("call"));
        while let Some(ids) = bench.under_way().pop() {
            bench.answer(&ids, deleted());
        }
    }
    calls.sort();
    assert_eq!(calls, ["call linger: c", "call retry: a", "call retry: b"]);
    bench.take();
    bench.done();
}

#[test]
fn suspects_that_nobody_asks_for_again_are_dropped_unasked() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", transient());
    reconnect(&mut bench);
    bench.pass(60_000);
    bench.done();
}

#[test]
fn the_condemned_are_tried_again() {
    let mut bench = Bench::new();
    bench.arrive("bad");
    bench.arrive("a b");
    bench.expect(&["call full: bad a b"]);
    bench.answer("bad a b", rejected());
    bench.expect(&["call split: b", "call split: bad a"]);
    bench.answer("bad a", rejected());
    bench.expect(&["call split: bad"]);
    bench.pass(1);
    bench.answer("bad", rejected());
    bench.expect(&["call split: a"]);
    reconnect(&mut bench);
    bench.rearrive("bad");
    bench.answer("a", deleted());
    bench.answer("b", deleted());
    bench.expect_soon(&["call split: bad"]);
    bench.answer("bad", rejected());
    bench.expect(&["dead-letter 1 rejected: bad"]);
    bench.stored(&[1]);
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn a_dead_letter_of_a_dead_epoch_changes_nothing() {
    let mut bench = Bench::new();
    bench.arrive_malformed("is empty");
    bench.disconnect();
    bench.quiet();
    bench.stored(&[1]);
    bench.connect();
    bench.expect(&["consume"]);
    bench.arrive("a");
    bench.stored(&[1]);
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn a_blocked_worker_may_lose_its_connection() {
    let mut bench = Bench::new();
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", blocked());
    reconnect(&mut bench);
    bench.pass(60_000);
    bench.quiet();
    bench.rearrive("a b c");
    bench.expect(&["call probe: a"]);
    bench.answer("a", deleted());
    bench.expect_soon(&["call linger: b c"]);
    bench.answer("b c", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}
