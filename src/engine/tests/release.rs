//! A long outage: everything goes back once, a few IDs stay as probe payload, and all comes again by itself.

use std::collections::BTreeSet;

use super::bench::{Bench, blocked, deleted, throttled, transient};

/// Blocked since the start, with 4 messages of 3 IDs in hand, and given back 5 minutes later.
fn released() -> Bench {
    release(Bench::new())
}

fn release(mut bench: Bench) -> Bench {
    for ids in ["a b c", "d e f", "g h i", "j k l"] {
        bench.arrive(ids);
    }
    bench.expect(&["call full: a b c", "call full: d e f"]);
    bench.answer("a b c", blocked());
    bench.answer("d e f", blocked());
    loop {
        bench.wait();
        let lines = bench.take();
        if let Some(id) = lines[0].strip_prefix("call probe: ") {
            bench.answer(id, blocked());
        } else {
            assert_eq!(lines, ["cancel", "give back ..4"]);
            return bench;
        }
    }
}

#[test]
fn everything_goes_back_once_after_release_after() {
    let mut bench = released();
    assert_eq!(bench.now().elapsed().as_secs(), 300);
    assert_eq!(bench.engine.items.live(), 10, "a few are kept");
    // What was on its way goes back too.
    bench.arrive("m");
    bench.expect(&["give back ..5"]);
    bench.cancelled();
    let mut probed = BTreeSet::new();
    for _ in 0..60 {
        bench.wait();
        let line = bench.take().remove(0);
        let id = line.strip_prefix("call probe: ").expect("nothing but probes").to_owned();
        bench.answer(&id, blocked());
        probed.insert(id);
    }
    assert_eq!(probed.len(), 10, "in rotation: {probed:?}");
    assert_eq!(bench.tally().messages_released, 5);
}

#[test]
fn a_late_word_of_an_earlier_consumer_confirms_no_later_one() {
    let mut bench = Bench::new();
    bench.disconnect();
    bench.connect();
    bench.expect(&["consume"]);
    let mut bench = release(bench);
    bench.cancelled();
    bench.wait();
    let line = bench.take().remove(0);
    bench.answer(line.strip_prefix("call probe: ").expect("a probe"), deleted());
    bench.expect(&["consume"]);
    // What waited for the second consumer may have been published after this.
    bench.consuming();
    bench.pass(1);
    for (ids, acks) in [("x y z", "ack ..5"), ("x y z", "ack ..6")] {
        bench.arrive_at_last(ids);
        bench.expect(&["call full: x y z"]);
        bench.answer(ids, deleted());
        bench.expect(&[acks]);
    }
    bench.consuming();
    bench.pass(1);
    bench.arrive("u v w");
    bench.expect(&["call full: u v w"]);
    bench.answer("u v w", deleted());
    bench.expect(&["ack ..7"]);
    bench.arrive_at_last("u v w");
    bench.expect(&["ack ..8"]);
}

#[test]
fn it_resumes_by_itself_and_recognises_what_it_deleted_meanwhile() {
    let mut bench = released();
    bench.cancelled();
    bench.wait();
    let line = bench.take().remove(0);
    let id = line.strip_prefix("call probe: ").expect("a probe").to_owned();
    bench.answer(&id, deleted());
    bench.expect(&["consume"]);
    assert_eq!(bench.engine.items.live(), 0, "the rest comes again");
    bench.rearrive(&id);
    bench.expect(&["ack ..5"]);
    bench.rearrive("a b c");
    bench.rearrive("d e f");
    bench.rearrive("z");
    let mut acks = Vec::new();
    while bench.engine.snapshot().messages_unsettled > 0 {
        match bench.under_way().pop() {
            Some(ids) => bench.answer(&ids, deleted()),
            None => {
                bench.wait();
            }
        }
        acks.extend(bench.take().into_iter().filter(|line| line.starts_with("ack")));
    }
    assert_eq!(acks.last().map(String::as_str), Some("ack ..8"));
    bench.done();
}

#[test]
fn a_call_under_way_at_the_release_still_counts() {
    let mut bench = Bench::with(|settings| settings.release_after = std::time::Duration::from_secs(10));
    bench.arrive("a b c");
    bench.arrive("d e f");
    bench.expect(&["call full: a b c", "call full: d e f"]);
    bench.answer("a b c", blocked());
    for id in ["a", "b", "c"] {
        bench.expect_soon(&[&format!("call probe: {id}")]);
        bench.answer(id, blocked());
    }
    bench.expect_soon(&["cancel", "give back ..2"]);
    bench.cancelled();
    bench.answer("d e f", deleted());
    bench.expect(&["consume"]);
    bench.rearrive("d e f");
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn throttled_for_so_long_is_an_outage_too() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    loop {
        bench.answer("a", throttled(Some(60)));
        bench.wait();
        let lines = bench.take();
        if lines[0] != "call linger: a" {
            assert_eq!(lines, ["cancel", "give back ..1"]);
            break;
        }
    }
    bench.cancelled();
    bench.expect_soon(&["call probe: a"]);
    bench.answer("a", deleted());
    bench.expect(&["consume"]);
    bench.rearrive("a");
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn a_short_outage_gives_nothing_back() {
    let mut bench = Bench::with(|settings| settings.failure_threshold = 1);
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", transient());
    for _ in 0..7 {
        bench.expect_soon(&["call probe: a"]);
        bench.answer("a", transient());
    }
    bench.expect_soon(&["call probe: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn trouble_long_past_does_not_make_an_outage_long() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", transient());
    bench.disconnect();
    bench.connect();
    bench.expect(&["consume"]);
    // The message went elsewhere; there is nothing to do for an hour.
    bench.pass(3_600_000);
    bench.arrive("b");
    bench.expect_after(1000, &["call linger: b"]);
    bench.answer("b", throttled(Some(3)));
    bench.expect_after(3000, &["call linger: b"]);
    bench.answer("b", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn failures_short_of_the_breaker_give_nothing_back() {
    let mut bench = Bench::with(|settings| settings.failure_threshold = 1000);
    bench.arrive("a");
    while bench.now().elapsed().as_secs() < 3600 {
        bench.wait();
        let lines = bench.take();
        assert!(lines.iter().all(|line| line.starts_with("call ")), "{lines:?}");
        bench.answer("a", transient());
    }
    assert_eq!(bench.engine.snapshot().messages_unsettled, 1);
}

#[test]
fn a_probe_under_way_is_one_of_the_few_that_are_kept() {
    let mut bench = Bench::new();
    for ids in ["a b c", "d e f", "g h i", "j k l"] {
        bench.arrive(ids);
    }
    bench.expect(&["call full: a b c", "call full: d e f"]);
    bench.answer("a b c", blocked());
    bench.answer("d e f", blocked());
    loop {
        bench.wait();
        let lines = bench.take();
        match lines[0].strip_prefix("call probe: ") {
            Some(id) if bench.now().elapsed().as_secs() < 200 => bench.answer(id, blocked()),
            // This one takes its time.
            Some(_) => {}
            None => {
                assert_eq!(lines, ["cancel", "give back ..4"]);
                break;
            }
        }
    }
    assert_eq!(bench.under_way().len(), 1);
    assert_eq!(bench.engine.items.live(), 10);
}

#[test]
fn a_cancel_that_is_confirmed_late_is_not_taken_for_a_later_one() {
    let mut bench = released();
    bench.wait();
    let line = bench.take().remove(0);
    let id = line.strip_prefix("call probe: ").expect("a probe").to_owned();
    bench.answer(&id, deleted());
    // Consumed again before the broker has confirmed the cancel.
    bench.expect(&["consume"]);
    bench.cancelled();
    bench.quiet();

    let mut bench = released();
    bench.wait();
    let line = bench.take().remove(0);
    let id = line.strip_prefix("call probe: ").expect("a probe").to_owned();
    bench.answer(&id, deleted());
    bench.expect(&["consume"]);
    bench.drain();
    bench.expect(&["cancel"]);
    bench.cancelled();
    bench.pass(1000);
    bench.quiet();
    bench.cancelled();
    bench.expect(&["drained"]);
    bench.done();
}
