//! An outage is not poison.

use std::collections::BTreeSet;
use std::time::Duration;

use super::bench::{Bench, deleted, rejected, transient};
use crate::answer::Answer;
use crate::config::OnOutage;
use crate::engine::Health;
use crate::id::Namespace;
use crate::retry::Ladder;

/// Fails the call of `ids` whenever it is made, until the breaker is open.
fn break_with(bench: &mut Bench, ids: &str) {
    while bench.engine.monitor.is_healthy() {
        bench.wait();
        bench.take();
        bench.answer(ids, transient());
    }
    bench.quiet();
}

#[test]
fn an_id_deleted_before_tells_whether_the_endpoint_is_back() {
    let mut bench = Bench::new();
    bench.arrive("good");
    bench.expect_after(1000, &["call linger: good"]);
    bench.answer("good", deleted());
    bench.expect(&["ack ..1"]);
    // This one always fails, and nothing else ever arrives.
    bench.arrive("poison");
    let mut calls = 0;
    while bench.engine.snapshot().messages_unsettled > 0 {
        bench.wait();
        for line in bench.take() {
            match line.as_str() {
                "dead-letter 2 retries_exhausted: poison" => bench.stored(&[2]),
                "ack ..2" => {}
                line => {
                    calls += 1;
                    let ids = line.split_once(": ").expect("a call").1;
                    bench.answer(ids, if ids == "good" { deleted() } else { transient() });
                }
            }
        }
    }
    assert!(calls < 50, "{calls} calls");
    bench.done();
}

#[test]
fn a_few_ids_that_always_fail_do_not_keep_a_new_worker_from_the_queue() {
    let mut bench = Bench::new();
    bench.arrive("poison");
    break_with(&mut bench, "poison");
    let mut given_back = false;
    // Nothing was ever deleted, and all that is in hand fails: new messages are the only hope.
    while !given_back {
        bench.wait();
        for line in bench.take() {
            match line.as_str() {
                "call probe: poison" => bench.answer("poison", transient()),
                "give back ..1" => given_back = true,
                "cancel" => bench.cancelled(),
                line => panic!("{line}"),
            }
        }
    }
    loop {
        bench.wait();
        match bench.take().as_slice() {
            [line] if line == "call probe: poison" => bench.answer("poison", transient()),
            [line] if line == "cancel" => bench.cancelled(),
            [line] if line == "consume" => break,
            other => panic!("{other:?}"),
        }
    }
    bench.rearrive("poison");
    bench.arrive("good");
    loop {
        bench.wait();
        match bench.take().as_slice() {
            [line] if line == "call probe: poison" => bench.answer("poison", transient()),
            [line] if line == "call probe: good" => break,
            other => panic!("{other:?}"),
        }
    }
    bench.answer("good", deleted());
    assert!(bench.engine.monitor.is_healthy());
    bench.take();
}

#[test]
fn failures_that_count_at_once_are_not_counted_again() {
    let mut bench = Bench::with(|settings| settings.on_outage = OnOutage::DeadLetter);
    bench.arrive("good0");
    bench.pass(1000);
    bench.take();
    bench.answer("good0", deleted());
    bench.expect(&["ack ..1"]);
    bench.arrive("flaky");
    for failure in 1..=2 {
        bench.wait();
        bench.take();
        bench.answer("flaky", transient());
        bench.quiet();
        assert_eq!(bench.engine.suspects[0].strikes, failure);
        assert_eq!(bench.engine.monitor.failures_in_row(), 1);
        let good = format!("good{failure}");
        bench.arrive(&good);
        bench.pass(1000);
        bench.take();
        bench.answer(&good, deleted());
        bench.take();
    }
    bench.answer("flaky", deleted());
    bench.take();
}

#[test]
fn a_probe_that_is_rejected_shows_that_the_endpoint_is_back() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.arrive("b");
    break_with(&mut bench, "a b");
    bench.expect_after(1000, &["call probe: a"]);
    bench.answer("a", rejected());
    bench.expect(&["call retry: b"]);
    bench.answer("b", deleted());
    bench.expect(&["dead-letter 1 rejected: a"]);
    bench.stored(&[1]);
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn strikes_in_company_do_not_count_against_the_one_that_is_left() {
    let mut bench = Bench::with(|settings| {
        settings.failure_threshold = 1;
        settings.strikes_max = 2;
    });
    bench.arrive("good");
    bench.expect_after(1000, &["call linger: good"]);
    bench.answer("good", deleted());
    bench.expect(&["ack ..1"]);
    // Two fail together; then a probe deletes one of them, and the other fails once more.
    bench.arrive("a b");
    let mut b_failed = false;
    while bench.engine.snapshot().messages_unsettled > 0 {
        bench.wait();
        for line in bench.take() {
            match line.split_once(": ") {
                Some((_, "a b")) => bench.answer("a b", transient()),
                Some((_, "b")) if !std::mem::replace(&mut b_failed, true) => bench.answer("b", transient()),
                Some((call, ids)) if call.starts_with("call") => bench.answer(ids, deleted()),
                Some(_) | None => assert_eq!(line, "ack ..2"),
            }
        }
    }
    assert!(b_failed);
    bench.done();
}

#[test]
fn a_deletion_proves_nothing_about_failures_after_its_call_had_left() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.arrive("x y z");
    bench.arrive("s t u");
    bench.expect(&["call full: x y z", "call full: s t u"]);
    bench.pass(10);
    bench.answer("x y z", transient());
    bench.answer("s t u", deleted());
    assert_eq!(bench.engine.suspects[0].strikes, 0);
    bench.arrive("d e f");
    bench.answer("d e f", deleted());
    assert_eq!(bench.engine.suspects[0].strikes, 1);
    bench.expect(&["call full: d e f"]);
    bench.expect_soon(&["call retry: x y z"]);
    bench.answer("x y z", deleted());
    bench.expect(&["ack ..4"]);
    bench.done();
}

#[test]
fn nobody_waits_for_a_backoff_that_began_before_the_endpoint_was_back() {
    let mut bench = Bench::with(|settings| {
        settings.failure_threshold = 1;
        settings.retry = Ladder::new(Duration::from_secs(1800), Duration::from_secs(1800), 1.0);
    });
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", transient());
    bench.expect_after(1000, &["call probe: a"]);
    bench.answer("a", deleted());
    bench.expect(&["call retry: b c"]);
    bench.answer("b c", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn the_cause_is_the_latest() {
    let mut bench = Bench::with(|settings| settings.failure_threshold = 1);
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    for detail in ["answered 500", "gave no answer", "answered 503"] {
        bench.answer("a", Answer { detail: detail.to_owned(), ..transient() });
        let Health::Open(outage) = bench.engine.snapshot().health else { panic!("the breaker is open") };
        assert_eq!(outage.cause, detail);
        bench.expect_soon(&["call probe: a"]);
    }
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn every_namespace_and_every_suspect_has_its_turn_beside_the_control() {
    let mut bench = Bench::with(|settings| {
        settings.namespace = Namespace::new("default").ok();
        settings.failure_threshold = 1;
        settings.batch_max = 1;
        settings.release_after = Duration::from_secs(86_400);
    });
    bench.arrive("control");
    bench.expect(&["call full default: control"]);
    bench.answer("control", deleted());
    bench.expect(&["ack ..1"]);
    bench.arrive("suspect");
    bench.expect(&["call full default: suspect"]);
    bench.answer("suspect", transient());
    for namespace in ["red", "blue"] {
        bench.arrive_in(namespace, "fresh");
    }
    let mut seen = BTreeSet::new();
    for _ in 0..24 {
        bench.wait();
        let line = bench.take().remove(0);
        let call = line.strip_prefix("call probe ").expect("nothing but probes");
        seen.insert(call.to_owned());
        bench.answer(call.split_once(": ").expect("an ID").1, transient());
    }
    let all = ["blue: fresh", "default: control", "default: suspect", "red: fresh"];
    assert_eq!(seen, all.map(str::to_owned).into());
}
