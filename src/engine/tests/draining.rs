//! The way out: what is open is sent, what is under way is awaited, the rest goes back, all within the grace.

use std::time::Duration;

use super::bench::{Bench, blocked, deleted, rejected, throttled, transient};

#[test]
fn an_idle_worker_leaves_as_soon_as_its_consumer_is_cancelled() {
    let mut bench = Bench::new();
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.expect(&["drained"]);
    bench.done();
}

#[test]
fn without_a_connection_it_leaves_at_once() {
    let mut bench = Bench::new();
    bench.disconnect();
    bench.drain();
    bench.expect(&["drained"]);
    bench.done();
}

#[test]
fn without_a_connection_suspects_keep_nobody() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.disconnect();
    bench.answer("a", transient());
    bench.pass(60_000);
    bench.quiet();
    bench.drain();
    bench.expect(&["drained"]);
}

#[test]
fn what_is_open_is_sent_and_what_is_under_way_awaited() {
    let mut bench = Bench::new();
    bench.arrive("a b c d");
    bench.expect(&["call full: a b c"]);
    bench.drain();
    bench.expect(&["cancel", "call drain: d"]);
    bench.arrive("late");
    bench.cancelled();
    bench.answer("a b c", deleted());
    bench.quiet();
    bench.answer("d", deleted());
    bench.expect(&["ack ..1", "give back ..2", "drained"]);
    bench.done();
}

#[test]
fn in_an_outage_what_is_in_hand_goes_back() {
    let mut bench = Bench::new();
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", blocked());
    bench.quiet();
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.expect(&["give back ..1", "drained"]);
}

#[test]
fn nobody_waits_for_a_backoff() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", transient());
    bench.quiet();
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.expect(&["give back ..1", "drained"]);
}

#[test]
fn a_call_that_never_returns_is_given_up_at_the_end_of_the_grace() {
    let mut bench = Bench::new();
    bench.arrive("a b c");
    bench.arrive("d e f");
    bench.expect(&["call full: a b c", "call full: d e f"]);
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.answer("d e f", deleted());
    bench.expect_after(500, &["ack 2"]);
    bench.expect_after(24_500, &["give back ..1", "drained"]);
    // Too late to matter.
    bench.answer("a b c", deleted());
    bench.done();
}

#[test]
fn a_broker_that_never_confirms_the_cancel_is_not_waited_for_beyond_the_grace() {
    let mut bench = Bench::new();
    bench.drain();
    bench.expect(&["cancel"]);
    bench.expect_after(25_000, &["drained"]);
    bench.arrive("a");
    bench.done();
}

#[test]
fn a_dead_letter_under_way_is_awaited() {
    let mut bench = Bench::new();
    bench.arrive_malformed("is empty");
    bench.expect(&["dead-letter 1 malformed: "]);
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.pass(20_000);
    bench.quiet();
    bench.stored(&[1]);
    bench.expect(&["ack ..1", "drained"]);
    bench.done();
}

#[test]
fn a_dead_letter_that_is_not_stored_in_time_goes_back_and_stays_so() {
    let mut bench = Bench::new();
    bench.arrive_malformed("is empty");
    bench.expect(&["dead-letter 1 malformed: "]);
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.expect_after(25_000, &["give back ..1", "drained"]);
    bench.stored(&[1]);
    bench.done();
}

#[test]
fn the_condemned_are_pronounced_before_the_exit() {
    let mut bench = Bench::new();
    bench.arrive("bad");
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: bad a"]);
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.answer("bad a", rejected());
    bench.expect(&["call split: bad", "call split: a"]);
    bench.answer("bad", rejected());
    bench.quiet();
    bench.answer("a", deleted());
    bench.expect(&["dead-letter 1 rejected: bad"]);
    bench.stored(&[1]);
    bench.expect(&["ack ..2", "drained"]);
    bench.done();
}

#[test]
fn a_dry_run_holds_everything_and_gives_it_back() {
    let mut bench = Bench::with(|settings| settings.dry_run = true);
    bench.arrive("a b");
    bench.arrive("c");
    bench.arrive_malformed("is empty");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", deleted());
    bench.pass(600_000);
    bench.quiet();
    assert_eq!((bench.tally().ids_dry_run, bench.tally().ids_deleted), (3, 0));
    assert_eq!(bench.tally().messages_deleted, 0);
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.expect(&["give back ..3", "drained"]);
    bench.done();
}

#[test]
fn a_call_that_may_leave_within_the_grace_is_waited_for() {
    let mut bench = Bench::with(|settings| settings.rate_max = Some(1.0));
    bench.arrive("a b c");
    bench.arrive("d e f");
    bench.expect(&["call full: a b c"]);
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..1"]);
    bench.expect_soon(&["call full: d e f"]);
    bench.answer("d e f", deleted());
    bench.expect(&["ack ..2", "drained"]);
    bench.done();
}

#[test]
fn a_call_that_may_leave_only_at_the_end_of_the_grace_is_not() {
    let mut bench = Bench::new();
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.answer("a b c", throttled(Some(25)));
    bench.expect(&["give back ..1", "drained"]);
}

#[test]
fn nothing_is_given_back_before_the_end_however_long_the_outage() {
    let mut bench = Bench::with(|settings| settings.release_after = Duration::from_secs(10));
    bench.arrive("a b c");
    bench.arrive("d e f");
    bench.expect(&["call full: a b c", "call full: d e f"]);
    bench.answer("d e f", blocked());
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.pass(20_000);
    bench.quiet();
    bench.answer("a b c", deleted());
    bench.expect(&["call full: d e f", "ack ..1"]);
    bench.answer("d e f", deleted());
    bench.expect(&["ack ..2", "drained"]);
    bench.done();
}
