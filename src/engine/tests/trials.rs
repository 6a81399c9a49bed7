//! The trial of lone IDs that were rejected: a control speaks, when it may, and its word is worth something.

use std::time::Duration;

use super::bench::{Bench, deleted, rejected, throttled, too_large, transient};
use crate::answer::Answer;
use crate::engine::{Health, Settings};
use crate::retry::Ladder;

/// A bench whose calls hold one ID, and whose endpoint has deleted an ID, `control`, a minute ago.
fn with_control(change: impl FnOnce(&mut Settings)) -> Bench {
    let mut bench = Bench::with(|settings| {
        settings.batch_max = 1;
        change(settings);
    });
    bench.arrive("control");
    bench.expect(&["call full: control"]);
    bench.answer("control", deleted());
    bench.expect(&["ack ..1"]);
    bench.pass(60_000);
    bench
}

/// Lets so many IDs be rejected alone, one after another; nothing follows from the first ones but their calls.
fn reject(bench: &mut Bench, count: usize) {
    for n in 1..=count {
        let id = format!("bad{n}");
        bench.arrive(&id);
        bench.expect(&[&format!("call full: {id}")]);
        bench.answer(&id, rejected());
    }
}

fn is_blocked(bench: &Bench) -> bool {
    matches!(bench.engine.snapshot().health, Health::Blocked(_))
}

#[test]
fn a_control_that_came_to_nothing_is_sent_again_a_while_later() {
    let mut bench = with_control(|_| {});
    bench.arrive("bad");
    bench.expect(&["call full: bad"]);
    bench.answer("bad", rejected());
    bench.expect(&["call probe: control"]);
    bench.answer("control", transient());
    bench.expect_after(1000, &["call probe: control"]);
    bench.answer("control", deleted());
    bench.expect(&["dead-letter 2 rejected: bad"]);
    bench.stored(&[2]);
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn nobody_waits_for_a_suspect_s_backoff() {
    let mut bench = with_control(|settings| {
        settings.retry = Ladder::new(Duration::from_secs(1800), Duration::from_secs(1800), 1.0);
    });
    bench.arrive("slow");
    bench.arrive("bad");
    bench.expect(&["call full: slow", "call full: bad"]);
    bench.answer("slow", transient());
    bench.answer("bad", rejected());
    bench.expect(&["call probe: control"]);
    bench.answer("control", deleted());
    bench.expect(&["dead-letter 3 rejected: bad"]);
    bench.stored(&[3]);
    bench.expect_after(500, &["ack 3"]);
}

#[test]
fn at_the_eighth_rejection_one_control_is_sent_though_others_are_under_way() {
    let mut bench = with_control(|settings| settings.concurrency_max = 3);
    bench.arrive("slow");
    bench.expect(&["call full: slow"]);
    reject(&mut bench, 7);
    bench.quiet();
    bench.arrive("bad8");
    bench.expect(&["call full: bad8"]);
    bench.answer("bad8", rejected());
    bench.expect(&["call probe: control"]);
    assert!(!is_blocked(&bench));
    bench.answer("control", deleted());
    bench.quiet_but_calls(0);
    bench.answer("slow", deleted());
    bench.take();
}

#[test]
fn the_control_goes_before_whatever_else_waits() {
    let mut bench = with_control(|_| {});
    bench.arrive("slow");
    bench.expect(&["call full: slow"]);
    reject(&mut bench, 7);
    for id in ["bad8", "bad9"] {
        bench.arrive(id);
    }
    bench.expect(&["call full: bad8"]);
    bench.answer("bad8", rejected());
    bench.expect(&["call probe: control"]);
    bench.answer("control", deleted());
    assert!(bench.take().contains(&"call full: bad9".to_owned()));
    bench.answer("bad9", rejected());
    bench.answer("slow", deleted());
    bench.take();
}

#[test]
fn an_id_that_is_under_way_is_no_control() {
    let mut bench = with_control(|settings| settings.concurrency_max = 3);
    // It was asked for anew, and is never in two calls at a time.
    bench.arrive("control");
    bench.expect(&["call full: control"]);
    reject(&mut bench, 8);
    bench.quiet();
    assert!(is_blocked(&bench), "there is nobody else to ask");
    bench.answer("control", deleted());
    assert!(!is_blocked(&bench));
    bench.take();
}

#[test]
fn rejections_with_different_codes_are_no_sign_of_a_faulty_endpoint() {
    let mut bench = Bench::with(|settings| settings.batch_max = 1);
    bench.arrive("slow");
    bench.expect(&["call full: slow"]);
    for n in 1..=16 {
        let id = format!("bad{n}");
        bench.arrive(&id);
        bench.expect(&[&format!("call full: {id}")]);
        let code = if n % 2 == 0 { "0001" } else { "0003" };
        bench.answer(&id, Answer { code: Some(code.into()), ..rejected() });
        assert!(!is_blocked(&bench), "after {n}");
    }
    bench.answer("slow", deleted());
    let letters = bench.take();
    assert_eq!(letters.iter().filter(|line| line.starts_with("dead-letter")).count(), 16, "{letters:?}");
    bench.take();
}

#[test]
fn an_id_that_is_too_large_alone_makes_no_call_smaller() {
    let mut bench = Bench::new();
    bench.arrive("huge");
    bench.expect_after(1000, &["call linger: huge"]);
    bench.answer("huge", too_large());
    bench.expect(&["dead-letter 1 rejected: huge"]);
    bench.stored(&[1]);
    bench.expect(&["ack ..1"]);
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..2"]);
    // Nothing is waited for, as nothing has shrunk.
    bench.done();
}

#[test]
fn a_rejected_control_shows_that_a_failing_endpoint_is_back() {
    let mut bench = with_control(|settings| {
        settings.failure_threshold = 1;
        settings.retry = Ladder::new(Duration::from_secs(1800), Duration::from_secs(1800), 1.0);
    });
    bench.arrive("a");
    bench.expect(&["call full: a"]);
    bench.answer("a", transient());
    bench.expect_soon(&["call probe: a"]);
    bench.answer("a", transient());
    bench.expect_soon(&["call probe: control"]);
    bench.answer("control", rejected());
    assert_eq!(bench.engine.snapshot().health, Health::Healthy);
    bench.expect(&["call retry: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn a_rejected_probe_tells_of_the_calls_before_it() {
    let mut bench = Bench::with(|settings| settings.failure_threshold = 1);
    bench.arrive("a b");
    bench.expect_after(1000, &["call linger: a b"]);
    bench.answer("a b", transient());
    bench.expect_soon(&["call probe: a"]);
    bench.answer("a", rejected());
    bench.expect(&["call retry: b"]);
    bench.answer("b", deleted());
    bench.expect(&["dead-letter 1 rejected: a"]);
    assert_eq!(bench.obituary(1).attempts, 2, "in company, and as a probe");
    bench.stored(&[1]);
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn a_second_trial_is_the_last_even_as_a_probe() {
    let mut bench = with_control(|settings| settings.failure_threshold = 1);
    bench.arrive("bad");
    bench.expect(&["call full: bad"]);
    bench.answer("bad", rejected());
    bench.expect(&["call probe: control"]);
    bench.answer("control", rejected());
    assert!(is_blocked(&bench), "it rejects what it deleted before");
    bench.expect_soon(&["call probe: bad"]);
    bench.answer("bad", rejected());
    bench.expect_soon(&["call probe: control"]);
    bench.answer("control", deleted());
    bench.expect(&["call retry: bad"]);
    bench.arrive("other");
    bench.expect(&["call full: other"]);
    bench.answer("bad", throttled(Some(5)));
    bench.answer("other", transient());
    bench.expect_soon(&["call probe: bad"]);
    bench.answer("bad", rejected());
    let lines = bench.take();
    assert!(lines.contains(&"dead-letter 2 rejected: bad".to_owned()), "{lines:?}");
}
