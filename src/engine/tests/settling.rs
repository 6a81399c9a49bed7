//! One frame for the settled prefix, single ones only beyond a gap that stays, and no tag twice.

use super::bench::{Bench, deleted, rejected};

/// `count` messages, one ID each, in calls of one.
fn singles(count: usize, prefetch: usize) -> Bench {
    let mut bench = Bench::with(|settings| {
        settings.batch_max = 1;
        settings.concurrency_max = count;
        settings.prefetch = prefetch;
    });
    for n in 1..=count {
        bench.arrive(&format!("v{n}"));
    }
    assert_eq!(bench.take().len(), count, "one call each");
    bench
}

#[test]
fn the_prefix_goes_in_one_frame() {
    let mut bench = singles(4, 100);
    bench.answer("v2", deleted());
    bench.answer("v3", deleted());
    bench.quiet();
    bench.answer("v1", deleted());
    bench.expect(&["ack ..3"]);
    bench.answer("v4", deleted());
    bench.expect(&["ack ..4"]);
    bench.done();
}

#[test]
fn what_lies_beyond_a_gap_waits_for_it_half_a_second() {
    let mut bench = singles(5, 100);
    bench.answer("v2", deleted());
    bench.pass(300);
    bench.answer("v4", deleted());
    bench.expect_after(200, &["ack 2", "ack 4"]);
    bench.answer("v5", deleted());
    bench.quiet();
    // 4 was acknowledged before: the frame names 3, and then 5.
    bench.answer("v1", deleted());
    bench.expect(&["ack ..1"]);
    bench.answer("v3", deleted());
    bench.expect(&["ack ..5"]);
    bench.done();
}

#[test]
fn the_last_tag_of_a_frame_was_never_settled_before() {
    let mut bench = singles(3, 100);
    bench.answer("v2", deleted());
    bench.answer("v3", deleted());
    bench.expect_after(500, &["ack 2", "ack 3"]);
    bench.answer("v1", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn a_gap_that_moves_is_not_a_gap_that_stays() {
    let mut bench = singles(40, 100);
    let mut acks = Vec::new();
    // Answers come in pairs, the later one first: there is always something beyond the gap.
    bench.answer("v2", deleted());
    for n in (1..37).step_by(2) {
        bench.pass(50);
        bench.answer(&format!("v{}", n + 3), deleted());
        bench.answer(&format!("v{n}"), deleted());
        acks.extend(bench.take());
    }
    assert!(acks.iter().all(|ack| ack.starts_with("ack ..")), "{acks:?}");
    assert_eq!(acks.len(), 18);
    for n in ["v40", "v39", "v37"] {
        bench.answer(n, deleted());
    }
    bench.expect(&["ack ..40"]);
    bench.done();
}

#[test]
fn a_crowd_beyond_a_gap_does_not_wait() {
    let mut bench = singles(5, 6);
    bench.answer("v2", deleted());
    bench.answer("v3", deleted());
    bench.quiet();
    bench.answer("v4", deleted());
    bench.expect(&["ack 2", "ack 3", "ack 4"]);
    bench.answer("v1", deleted());
    bench.expect(&["ack ..1"]);
    bench.answer("v5", deleted());
    bench.expect(&["ack ..5"]);
    bench.done();
}

#[test]
fn runs_of_mixed_verdicts_go_frame_by_frame() {
    let mut bench = singles(4, 100);
    bench.answer("v3", deleted());
    bench.quiet();
    bench.drain();
    bench.expect(&["cancel"]);
    bench.arrive("late");
    bench.arrive("later");
    bench.cancelled();
    bench.answer("v2", deleted());
    bench.answer("v4", deleted());
    bench.quiet();
    bench.answer("v1", deleted());
    bench.expect(&["ack ..4", "give back ..6", "drained"]);
    bench.done();
}

#[test]
fn a_message_is_dead_lettered_before_it_is_acknowledged() {
    let mut bench = singles(3, 100);
    bench.pass(1);
    bench.answer("v1", rejected());
    // Their calls left before: they prove nothing.
    bench.answer("v2", deleted());
    bench.expect_after(500, &["ack 2"]);
    bench.answer("v3", deleted());
    // But now there is nothing else to try.
    bench.expect(&["dead-letter 1 rejected: v1"]);
    bench.expect_after(500, &["ack 3"]);
    bench.pass(60_000);
    bench.quiet();
    bench.stored(&[1]);
    bench.expect(&["ack ..1"]);
    // Confirmed once more, it changes nothing.
    bench.stored(&[1]);
    bench.done();
}
