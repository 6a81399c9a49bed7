//! A poison ID costs itself only.

use std::collections::BTreeSet;

use super::bench::{Bench, deleted, duplicate, rejected, too_large, transient};
use crate::delivery::Reason;

/// A bench whose calls hold `count` IDs, with that many messages of one ID each: `v0`, `v1`, ...
fn full(count: usize) -> Bench {
    let mut bench = Bench::with(|settings| {
        settings.batch_max = count;
        settings.concurrency_max = 1;
        settings.prefetch = 3 * count;
    });
    for n in 0..count {
        bench.arrive(&format!("v{n}"));
    }
    bench
}

/// Answers every call: rejected if it holds a bad ID. Returns how many there were.
fn answer_all(bench: &mut Bench, bad: &BTreeSet<String>) -> usize {
    let mut calls = 0;
    loop {
        for line in bench.take() {
            if let Some(tag) = line.strip_prefix("dead-letter ") {
                let tag = tag.split(' ').next().expect("a tag").parse().expect("a number");
                bench.stored(&[tag]);
            }
        }
        let Some(ids) = bench.under_way().pop() else {
            bench.take();
            return calls;
        };
        calls += 1;
        let is_bad = ids.split(' ').any(|id| bad.contains(id));
        bench.answer(&ids, if is_bad { rejected() } else { deleted() });
    }
}

#[test]
fn one_bad_id_in_500_costs_at_most_18_calls_wherever_it_is() {
    let mut worst = 0;
    for place in 0..500 {
        let mut bench = full(500);
        let calls = answer_all(&mut bench, &BTreeSet::from([format!("v{place}")]));
        worst = worst.max(calls - 1);
        let tally = bench.tally().clone();
        assert_eq!((tally.messages_deleted, tally.messages_dead_lettered), (499, 1));
        assert_eq!(bench.obituary(place + 1).failed_ids[0].as_str(), format!("v{place}"));
        bench.done();
    }
    assert_eq!(worst, 18);
}

#[test]
fn every_set_of_bad_ids_among_six_is_found() {
    for set in 0_u32..1 << 6 {
        let bad: BTreeSet<String> = (0..6).filter(|n| set & (1 << n) != 0).map(|n| format!("v{n}")).collect();
        let mut bench = full(6);
        answer_all(&mut bench, &bad);
        let tally = bench.tally().clone();
        assert_eq!(tally.messages_dead_lettered, bad.len() as u64, "{bad:?}");
        assert_eq!(tally.messages_deleted, 6 - bad.len() as u64, "{bad:?}");
        for n in (0..6).filter(|n| set & (1 << n) != 0) {
            assert_eq!(bench.obituary(n + 1).failed_ids[0].as_str(), format!("v{n}"));
        }
        bench.done();
    }
}

#[test]
fn only_messages_that_hold_it_die_and_say_why() {
    let mut bench = Bench::with(|settings| settings.batch_max = 4);
    bench.arrive("a bad");
    bench.arrive("b");
    bench.arrive("bad c");
    bench.expect(&["call full: a bad b c"]);
    bench.answer("a bad b c", rejected());
    bench.expect(&["call split: a bad", "call split: b c"]);
    bench.answer("b c", deleted());
    bench.quiet();
    bench.answer("a bad", rejected());
    bench.expect(&["call split: a", "call split: bad"]);
    bench.pass(1);
    bench.answer("bad", rejected());
    bench.quiet();
    bench.answer("a", deleted());
    // That call had left before the bad one was rejected, but there is nothing else to try.
    bench.expect(&["dead-letter 1 rejected: bad", "dead-letter 3 rejected: bad"]);
    let obituary = bench.obituary(3);
    assert_eq!(obituary.reason, Reason::Rejected);
    assert_eq!(obituary.detail, "the endpoint rejects this ID even alone with code 0001: it answered 0001");
    assert_eq!((obituary.code.as_deref(), obituary.http_status), (Some("0001"), Some(200)));
    assert_eq!(obituary.attempts, 3, "of four, of two, alone");
    bench.stored(&[1, 3]);
    bench.expect(&["ack ..3"]);
    assert_eq!(bench.tally().batch_splits, 2);
    bench.done();
}

#[test]
fn a_message_with_several_bad_ids_names_them_all() {
    let mut bench = Bench::new();
    bench.arrive("bad1 a bad2");
    bench.expect(&["call full: bad1 a bad2"]);
    answer_all(&mut bench, &BTreeSet::from(["bad1".to_owned(), "bad2".to_owned()]));
    let failed: Vec<_> = bench.obituary(1).failed_ids.iter().map(crate::id::Id::as_str).collect();
    assert_eq!(failed.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["bad1", "bad2"]));
    bench.done();
}

#[test]
fn a_lone_duplicate_is_deleted_already() {
    let mut bench = Bench::new();
    bench.arrive("a b");
    bench.expect_after(1000, &["call linger: a b"]);
    bench.answer("a b", duplicate());
    bench.expect(&["call split: a", "call split: b"]);
    bench.answer("a", duplicate());
    bench.answer("b", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
}

#[test]
fn a_batch_that_is_too_large_shrinks_those_after_it() {
    let mut bench = Bench::with(|settings| settings.batch_max = 8);
    let ids = |from: usize, to: usize| (from..to).map(|n| format!("v{n}")).collect::<Vec<_>>().join(" ");
    bench.arrive(&ids(0, 16));
    bench.expect(&[&format!("call full: {}", ids(0, 8)), &format!("call full: {}", ids(8, 16))]);
    bench.answer(&ids(0, 8), too_large());
    bench.expect(&[&format!("call split: {}", ids(0, 4))]);
    bench.answer(&ids(0, 4), too_large());
    bench.take();
    // Two pass now; the answer to a larger one that left earlier doesn't change that.
    bench.answer(&ids(8, 16), too_large());
    assert_eq!(bench.engine.batch_max(), 2);
    while let Some(call) = bench.under_way().pop() {
        let fits = call.split(' ').count() <= 2;
        bench.answer(&call, if fits { deleted() } else { too_large() });
        bench.take();
    }
    bench.arrive(&ids(20, 24));
    bench.expect(&["call full: v20 v21", "call full: v22 v23"]);
    bench.answer("v20 v21", deleted());
    bench.answer("v22 v23", deleted());
    bench.expect(&["ack ..2"]);
    // Ten minutes later larger ones are tried again.
    bench.pass(600_000);
    bench.arrive(&ids(30, 38));
    bench.expect(&[&format!("call full: {}", ids(30, 38))]);
    bench.answer(&ids(30, 38), deleted());
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn an_id_that_always_fails_among_healthy_ones_is_isolated_and_given_up() {
    let mut bench = full(500);
    let mut dead = Vec::new();
    let mut calls = 0;
    let mut company = 0;
    while bench.engine.snapshot().messages_unsettled > 0 {
        if dead.is_empty() && bench.engine.lanes.is_empty() {
            company += 1;
            bench.arrive(&format!("company{company}"));
        }
        bench.wait();
        for line in bench.take() {
            match line.split_once(": ") {
                Some((call, ids)) if call.starts_with("call") => {
                    calls += 1;
                    let poison = ids.split(' ').any(|id| id == "v123");
                    bench.answer(ids, if poison { transient() } else { deleted() });
                }
                Some((letter, ids)) if letter.starts_with("dead-letter 124 retries_exhausted") => {
                    dead.push(ids.to_owned());
                    bench.stored(&[124]);
                }
                Some(_) | None => assert!(line.starts_with("ack"), "{line}"),
            }
        }
    }
    assert_eq!(dead, ["v123"]);
    // 3 strikes for the batch, 2 calls for each of 9 halvings, 3 strikes for the ID alone; and half as many again
    // that came too early to be charged, as no company had been deleted since the last one.
    assert!(calls - company <= 40, "{calls} calls, {company} of them of company");
    let obituary = bench.obituary(124);
    assert_eq!((obituary.code.as_deref(), obituary.http_status), (None, Some(500)));
    assert_eq!(
        obituary.detail,
        format!("3 strikes in {} calls; the last time the endpoint answered 500", obituary.attempts)
    );
    bench.done();
}
