//! Whom a failure is charged to, and who may be called while that is found out.

use std::time::Duration;

use super::bench::{Bench, deleted, rejected, throttled, transient};
use crate::config::OnOutage;
use crate::engine::Settings;
use crate::retry::Ladder;

/// A bench whose endpoint has deleted an ID, `control`, just now.
fn with_control(change: impl FnOnce(&mut Settings)) -> Bench {
    let mut bench = Bench::with(change);
    bench.arrive("control");
    bench.pass(1000);
    bench.take();
    bench.answer("control", deleted());
    bench.expect(&["ack ..1"]);
    bench
}

/// Backoffs of a quarter of an hour on average: whoever is called earlier wasn't waited for.
fn slow_retries() -> Ladder {
    Ladder::new(Duration::from_secs(1800), Duration::from_secs(1800), 1.0)
}

/// Lets another ID be deleted, from its arrival to its ack; what else happens meanwhile is returned.
fn delete(bench: &mut Bench, id: &str) -> Vec<String> {
    bench.arrive(id);
    let mut lines = bench.take();
    if !bench.under_way().contains(&id.to_owned()) {
        bench.pass(1000);
        lines.extend(bench.take());
    }
    bench.answer(id, deleted());
    lines.extend(bench.take());
    lines
}

/// The strikes of the suspects, in the order of their IDs.
fn strikes(bench: &Bench) -> Vec<(String, u32)> {
    let engine = &bench.engine;
    let ids =
        |items: &[_]| items.iter().map(|key| engine.items.id(*key).as_str()).collect::<Vec<_>>().join(" ");
    let mut strikes: Vec<_> =
        engine.suspects.iter().map(|batch| (ids(&batch.items), batch.strikes)).collect();
    strikes.sort();
    strikes
}

fn charged<const N: usize>(rows: [(&str, u32); N]) -> Vec<(String, u32)> {
    rows.map(|(ids, strikes)| (ids.to_owned(), strikes)).to_vec()
}

#[test]
fn failures_too_few_to_open_the_breaker_are_charged_to_each() {
    let mut bench = with_control(|settings| {
        settings.batch_max = 1;
        settings.concurrency_max = 3;
        settings.retry = slow_retries();
    });
    bench.arrive("p");
    bench.arrive("q");
    bench.expect(&["call full: p", "call full: q"]);
    bench.answer("p", transient());
    bench.answer("q", transient());
    bench.pass(1);
    delete(&mut bench, "good");
    assert_eq!(strikes(&bench), charged([("p", 1), ("q", 1)]));
}

#[test]
fn failures_that_open_the_breaker_are_charged_to_nobody() {
    let mut bench = with_control(|settings| {
        settings.failure_threshold = 2;
        settings.retry = slow_retries();
    });
    bench.arrive("p1 p2 p3");
    bench.arrive("q1 q2 q3");
    bench.expect(&["call full: p1 p2 p3", "call full: q1 q2 q3"]);
    bench.answer("p1 p2 p3", transient());
    bench.answer("q1 q2 q3", transient());
    bench.expect_soon(&["call probe: p1"]);
    bench.answer("p1", deleted());
    // Back at once, whatever the backoff was; and nobody has a strike.
    bench.expect(&["call retry: p2 p3", "call retry: q1 q2 q3"]);
    bench.answer("q1 q2 q3", throttled(Some(1)));
    bench.answer("p2 p3", throttled(Some(1)));
    assert_eq!(strikes(&bench), charged([("p2 p3", 0), ("q1 q2 q3", 0)]));
}

#[test]
fn a_batch_is_charged_while_it_is_called_again() {
    let mut bench = with_control(|settings| {
        settings.batch_max = 1;
        settings.concurrency_max = 3;
    });
    bench.arrive("p");
    bench.expect(&["call full: p"]);
    bench.answer("p", transient());
    bench.pass(1);
    bench.arrive("good");
    bench.expect(&["call full: good"]);
    bench.expect_soon(&["call retry: p"]);
    bench.answer("good", deleted());
    bench.answer("p", throttled(Some(60)));
    assert_eq!(strikes(&bench), charged([("p", 1)]));
    bench.take();
    bench.pass(500);
    bench.take();
}

#[test]
fn a_failed_probe_of_a_suspect_in_question_tells_nothing() {
    let mut bench = with_control(|settings| {
        settings.failure_threshold = 1;
        settings.retry = slow_retries();
    });
    bench.arrive("p1 p2 p3");
    bench.expect(&["call full: p1 p2 p3"]);
    bench.answer("p1 p2 p3", transient());
    // It may be just this batch that fails, so the breaker's first probe says no more than its call did.
    bench.expect_soon(&["call probe: p1"]);
    bench.answer("p1", transient());
    bench.expect_soon(&["call probe: control"]);
    bench.answer("control", deleted());
    bench.expect(&["call retry: p2 p3 p1"]);
    bench.answer("p2 p3 p1", throttled(Some(1)));
    assert_eq!(strikes(&bench), charged([("p2 p3 p1", 1)]));
}

#[test]
fn a_failed_probe_of_anybody_else_clears_those_that_failed() {
    let mut bench = with_control(|settings| {
        settings.failure_threshold = 1;
        settings.retry = slow_retries();
    });
    bench.arrive("p1 p2 p3");
    bench.expect(&["call full: p1 p2 p3"]);
    bench.answer("p1 p2 p3", transient());
    bench.arrive("fresh");
    bench.expect_soon(&["call probe: fresh"]);
    bench.answer("fresh", transient());
    bench.expect_soon(&["call probe: control"]);
    bench.answer("control", deleted());
    bench.expect(&["call linger: fresh", "call retry: p1 p2 p3"]);
    bench.answer("p1 p2 p3", throttled(Some(1)));
    assert_eq!(strikes(&bench), charged([("p1 p2 p3", 0)]));
    bench.answer("fresh", deleted());
    bench.take();
}

/// `p` and `q` have failed twice, with a deletion of another ID in between.
fn relapsed(concurrency_max: usize) -> Bench {
    let mut bench = with_control(|settings| {
        settings.batch_max = 1;
        settings.concurrency_max = concurrency_max;
        settings.strikes_max = 100;
        settings.failure_threshold = 100;
        settings.retry = Ladder::new(Duration::from_millis(10), Duration::from_millis(10), 1.0);
    });
    bench.arrive("p");
    bench.arrive("q");
    bench.expect(&["call full: p", "call full: q"]);
    for id in ["p", "q"] {
        bench.answer(id, transient());
    }
    bench.pass(20);
    assert_eq!(bench.under_way(), ["q", "p"], "together, as nothing was deleted in between");
    bench.take();
    delete(&mut bench, "good");
    for id in ["p", "q"] {
        bench.answer(id, transient());
    }
    bench
}

/// Which of those that relapsed is called at the moment, at most one.
#[track_caller]
fn on_trial(bench: &Bench) -> Option<String> {
    let mut under_way = bench.under_way();
    under_way.retain(|ids| ["p", "q"].contains(&ids.as_str()));
    assert!(under_way.len() <= 1, "{under_way:?}");
    under_way.pop()
}

#[test]
fn those_that_relapsed_are_called_one_at_a_time_until_something_is_deleted() {
    let mut bench = relapsed(4);
    for _ in 0..5 {
        bench.pass(1000);
        bench.quiet_but_calls(1);
        let ids = on_trial(&bench).expect("one is called");
        bench.answer(&ids, transient());
    }
    bench.pass(20);
    bench.quiet_but_calls(1);
    // Who fails for the first time is called beside it, again and again, and takes nobody's turn.
    bench.arrive("r");
    bench.expect(&["call full: r"]);
    for _ in 0..3 {
        bench.answer("r", transient());
        bench.pass(20);
        bench.expect(&["call retry: r"]);
    }
    let ids = on_trial(&bench).expect("it's still under way");
    bench.answer(&ids, transient());
    bench.pass(20);
    bench.quiet_but_calls(1);
    let ids = on_trial(&bench).expect("r keeps nobody waiting");
    bench.answer("r", deleted());
    bench.answer(&ids, deleted());
    bench.take();
    bench.pass(20);
    bench.take();
    let other = on_trial(&bench).expect("the other one's turn");
    assert_ne!(ids, other);
    bench.answer(&other, deleted());
    bench.take();
    bench.done();
}

#[test]
fn failures_without_a_deletion_between_them_are_no_relapse() {
    let mut bench = with_control(|settings| {
        settings.batch_max = 1;
        settings.failure_threshold = 100;
        settings.retry = Ladder::new(Duration::from_millis(10), Duration::from_millis(10), 1.0);
    });
    bench.arrive("p");
    bench.arrive("q");
    bench.expect(&["call full: p", "call full: q"]);
    for _ in 0..5 {
        for id in ["p", "q"] {
            bench.answer(id, transient());
        }
        bench.pass(20);
        bench.quiet_but_calls(2);
    }
    for id in ["p", "q"] {
        bench.answer(id, deleted());
    }
    bench.take();
    bench.done();
}

#[test]
fn what_is_left_of_a_batch_has_not_failed_alone() {
    let mut bench = with_control(|settings| {
        settings.failure_threshold = 1;
        settings.strikes_max = 1;
        settings.retry = slow_retries();
    });
    bench.arrive("a b");
    bench.expect_after(1000, &["call linger: a b"]);
    bench.answer("a b", transient());
    bench.expect_soon(&["call probe: a"]);
    bench.answer("a", deleted());
    // With one strike it would be given up.
    bench.expect(&["call retry: b"]);
    bench.answer("b", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn halves_are_not_split_again_for_what_is_not_charged_to_them() {
    let mut bench = with_control(|settings| {
        settings.batch_max = 4;
        settings.linger = Duration::ZERO;
        settings.failure_threshold = 100;
        settings.retry = Ladder::new(Duration::from_secs(1), Duration::from_secs(1), 1.0);
    });
    bench.arrive("a b c d");
    bench.expect(&["call full: a b c d"]);
    for strike in 1..=3 {
        bench.answer("a b c d", transient());
        bench.pass(1);
        let lines = delete(&mut bench, &format!("good{strike}"));
        if strike < 3 {
            while !bench.under_way().contains(&"a b c d".to_owned()) {
                bench.wait();
                bench.take();
            }
        } else {
            assert!(lines.contains(&"call split: a b".to_owned()), "{lines:?}");
        }
    }
    for _ in 0..5 {
        for ids in ["a b", "c d"] {
            bench.answer(ids, transient());
        }
        bench.pass(1000);
        bench.quiet_but_calls(2);
    }
    assert_eq!(bench.tally().batch_splits, 1);
    for ids in ["a b", "c d"] {
        bench.answer(ids, deleted());
    }
    bench.take();
    bench.done();
}

#[test]
fn where_outages_count_a_batch_is_split_unless_there_is_one() {
    let mut bench = Bench::with(|settings| settings.on_outage = OnOutage::DeadLetter);
    bench.arrive("a bad");
    bench.expect_after(1000, &["call linger: a bad"]);
    for _ in 1..=2 {
        bench.answer("a bad", transient());
        bench.expect_soon(&["call retry: a bad"]);
    }
    // Three failures are fewer than open a breaker.
    bench.answer("a bad", transient());
    bench.expect(&["call split: a", "call split: bad"]);
    bench.answer("a", deleted());
    bench.quiet();
    for _ in 1..=2 {
        bench.answer("bad", transient());
        bench.expect_soon(&["call retry: bad"]);
    }
    bench.answer("bad", transient());
    bench.expect(&["dead-letter 1 retries_exhausted: bad"]);
    bench.stored(&[1]);
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn retries_are_counted_and_splits_are_none() {
    let mut bench = with_control(|_| {});
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", transient());
    bench.expect_soon(&["call retry: a b c"]);
    bench.answer("a b c", rejected());
    bench.expect(&["call split: c", "call split: a b"]);
    assert_eq!((bench.tally().retries, bench.tally().batch_splits), (1, 1), "of one batch each");
    bench.answer("a b", deleted());
    bench.answer("c", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

/// A bench whose breaker opens at the first failure, and whose suspect `x1 x2 x3` has failed once before.
fn with_suspect() -> Bench {
    let mut bench = with_control(|settings| {
        settings.failure_threshold = 1;
        settings.retry = Ladder::new(Duration::from_secs(20), Duration::from_secs(20), 1.0);
    });
    bench.arrive("x1 x2 x3");
    bench.expect(&["call full: x1 x2 x3"]);
    bench.answer("x1 x2 x3", transient());
    bench.expect_soon(&["call probe: x1"]);
    bench.answer("x1", transient());
    bench.expect_soon(&["call probe: control"]);
    bench.answer("control", deleted());
    bench.expect(&["call retry: x2 x3 x1"]);
    bench
}

/// Lets `y1 y2 y3` fail while the suspect waits, a probe of the suspect fail, and one of the control delete.
fn probe_the_suspect_while_another_is_in_question(bench: &mut Bench, suspect: &str, probe: &str) {
    bench.arrive("y1 y2 y3");
    bench.expect(&["call full: y1 y2 y3"]);
    bench.answer(suspect, throttled(Some(5)));
    bench.answer("y1 y2 y3", transient());
    bench.expect_soon(&[&format!("call probe: {probe}")]);
    bench.answer(probe, transient());
    bench.expect_soon(&["call probe: control"]);
    bench.answer("control", deleted());
    while !bench.under_way().contains(&"y1 y2 y3".to_owned()) {
        bench.wait();
        bench.take();
    }
    for ids in bench.under_way() {
        bench.answer(&ids, if ids.starts_with('y') { throttled(Some(5)) } else { deleted() });
    }
    bench.take();
}

#[test]
fn a_failed_probe_of_a_suspect_that_was_cleared_clears_others() {
    let mut bench = with_suspect();
    probe_the_suspect_while_another_is_in_question(&mut bench, "x2 x3 x1", "x2");
    assert_eq!(strikes(&bench), charged([("y1 y2 y3", 0)]));
}

#[test]
fn a_failed_probe_of_one_that_relapsed_clears_nobody() {
    let mut bench = with_suspect();
    bench.answer("x2 x3 x1", transient());
    bench.expect_soon(&["call probe: x2"]);
    bench.answer("x2", transient());
    bench.expect_soon(&["call probe: control"]);
    bench.answer("control", deleted());
    bench.expect(&["call retry: x3 x1 x2"]);
    probe_the_suspect_while_another_is_in_question(&mut bench, "x3 x1 x2", "x3");
    assert_eq!(strikes(&bench), charged([("y1 y2 y3", 1)]));
}
