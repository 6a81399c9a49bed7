//! The breaker, refusals, and an endpoint that rejects everything.

use super::bench::{Bench, blocked, deleted, rejected, transient};
use crate::config::OnOutage;
use crate::engine::Health;

fn with_control(change: impl FnOnce(&mut crate::engine::Settings)) -> Bench {
    let mut bench = Bench::with(change);
    bench.arrive("control");
    bench.wait();
    bench.take();
    bench.answer("control", deleted());
    bench.expect(&["ack ..1"]);
    bench
}

/// The endpoint deletes whatever is left, and nobody dies.
fn deletes_everything(mut bench: Bench) {
    while bench.engine.snapshot().messages_unsettled > 0 {
        if bench.under_way().is_empty() {
            bench.wait();
        }
        assert!(!bench.take().iter().any(|line| line.starts_with("dead-letter")), "all were good");
        for ids in bench.under_way() {
            bench.answer(&ids, deleted());
        }
    }
    bench.take();
    bench.done();
}

fn is_open(bench: &Bench) -> bool {
    matches!(bench.engine.snapshot().health, Health::Open(_))
}

fn is_blocked(bench: &Bench) -> bool {
    matches!(bench.engine.snapshot().health, Health::Blocked(_))
}

#[test]
fn the_breaker_opens_at_the_threshold_and_closes_with_the_first_deletion() {
    let mut bench = Bench::with(|settings| settings.batch_max = 1);
    for n in 1..=6 {
        bench.arrive(&format!("v{n}"));
    }
    bench.expect(&["call full: v1", "call full: v2"]);
    for failure in 1..=4 {
        let ids = bench.under_way().remove(0);
        bench.answer(&ids, transient());
        bench.take();
        assert!(!is_open(&bench), "after {failure} failures");
    }
    let ids = bench.under_way().remove(0);
    bench.answer(&ids, transient());
    bench.quiet();
    assert!(is_open(&bench));
    // One probe at a time, though two calls may be in flight.
    let ids = bench.under_way().remove(0);
    bench.answer(&ids, transient());
    bench.wait();
    assert_eq!(bench.take().len(), 1);
    bench.pass(20_000);
    bench.quiet();
    let probe = bench.under_way().remove(0);
    bench.answer(&probe, deleted());
    bench.quiet_but_calls(2);
    assert!(!is_open(&bench));
    while let Some(ids) = bench.under_way().pop() {
        bench.answer(&ids, deleted());
        bench.take();
    }
    bench.done();
}

#[test]
fn probes_are_single_ids_in_rotation_at_growing_intervals() {
    let mut bench = Bench::new();
    bench.arrive("a b c");
    bench.arrive("d e f");
    bench.expect(&["call full: a b c", "call full: d e f"]);
    bench.answer("a b c", blocked());
    bench.answer("d e f", blocked());
    bench.quiet();
    let mut seen = std::collections::BTreeSet::new();
    for ceiling in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0_f64] {
        let waited = bench.wait().as_secs_f64();
        assert!((0.9 * ceiling..=ceiling).contains(&waited), "{waited} s of {ceiling} s");
        let line = bench.take().remove(0);
        let id = line.strip_prefix("call probe: ").expect("a probe").to_owned();
        bench.answer(&id, blocked());
        bench.quiet();
        seen.insert(id);
        if bench.engine.snapshot().released {
            break;
        }
    }
    assert!(seen.len() >= 6, "each ID had its turn: {seen:?}");
    bench.wait();
    bench.take();
}

#[test]
fn one_id_that_always_fails_cannot_keep_the_breaker_open() {
    let mut bench = Bench::new();
    bench.arrive("poison");
    while !is_open(&bench) {
        bench.wait();
        bench.take();
        bench.answer("poison", transient());
    }
    bench.arrive("good");
    for probe in 1.. {
        bench.wait();
        let line = bench.take().remove(0);
        if line == "call probe: good" {
            break;
        }
        assert_eq!(line, "call probe: poison");
        bench.answer("poison", transient());
        assert!(probe < 4, "it is always the same");
    }
    bench.answer("good", deleted());
    assert!(!is_open(&bench));
    bench.take();
}

#[test]
fn who_is_refused_blames_nobody_however_long() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    for _ in 0..50 {
        let ids = bench.under_way().pop();
        if let Some(ids) = ids {
            bench.answer(&ids, blocked());
            bench.quiet();
            assert!(is_blocked(&bench));
        }
        bench.wait();
        for line in bench.take() {
            assert!(!line.starts_with("dead-letter"), "{line}");
            if line == "cancel" {
                bench.cancelled();
            }
        }
    }
}

#[test]
fn new_credentials_are_worth_a_probe_at_once() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", blocked());
    for _ in 0..5 {
        bench.expect_soon(&["call probe: a"]);
        bench.answer("a", blocked());
    }
    bench.pass(5);
    bench.quiet();
    bench.credentials_changed();
    bench.expect(&["call probe: a"]);
    bench.answer("a", deleted());
    bench.expect(&["ack ..1"]);
    bench.done();
    bench.credentials_changed();
    bench.done();
}

#[test]
fn an_endpoint_that_rejects_everything_is_to_blame_itself() {
    let mut bench = with_control(|settings| settings.batch_max = 8);
    bench.arrive("a b c d e f g h");
    bench.arrive("i");
    bench.expect(&["call full: a b c d e f g h"]);
    // Everything is rejected, the control too.
    for _ in 0..100 {
        while let Some(ids) = bench.under_way().pop() {
            bench.answer(&ids, rejected());
            assert!(bench.take().iter().all(|line| line.starts_with("call ")));
        }
        if is_blocked(&bench) {
            break;
        }
        bench.wait();
        bench.take();
    }
    assert!(is_blocked(&bench));
    let mut controls = 0;
    for _ in 0..6 {
        bench.wait();
        let line = bench.take().remove(0);
        let id = line.strip_prefix("call probe: ").expect("only probes leave").to_owned();
        controls += usize::from(id == "control");
        bench.answer(&id, rejected());
        bench.quiet();
        assert!(is_blocked(&bench), "a rejection proves nothing now");
    }
    assert_eq!(controls, 3, "every other one");
    // It deletes again: a second trial, which really bad ones don't survive.
    while bench.engine.snapshot().messages_unsettled > 0 {
        while let Some(ids) = bench.under_way().pop() {
            bench.answer(&ids, if ids == "c" { rejected() } else { deleted() });
            for line in bench.take() {
                if line.starts_with("dead-letter") {
                    assert_eq!(line, "dead-letter 2 rejected: c");
                    bench.stored(&[2]);
                }
            }
        }
        if bench.engine.snapshot().messages_unsettled > 0 {
            bench.wait();
            bench.take();
        }
    }
    assert_eq!(bench.obituary(2).failed_ids.len(), 1);
    bench.take();
    bench.done();
}

#[test]
fn ten_bad_ids_in_a_row_among_good_ones_all_die() {
    let mut bench = with_control(|settings| settings.batch_max = 1);
    for n in 1..=10 {
        bench.arrive(&format!("bad{n}"));
    }
    bench.arrive("good");
    let mut dead = 0;
    while bench.engine.snapshot().messages_unsettled > 0 {
        for line in bench.take() {
            if let Some(letter) = line.strip_prefix("dead-letter ") {
                dead += 1;
                let (tag, rest) = letter.split_once(' ').expect("a reason");
                assert!(rest.starts_with("rejected: bad"), "{rest}");
                bench.stored(&[tag.parse().expect("a number")]);
            }
        }
        match bench.under_way().pop() {
            Some(ids) => bench.answer(&ids, if ids.starts_with("bad") { rejected() } else { deleted() }),
            None if bench.engine.snapshot().messages_unsettled == 0 => {}
            None => {
                bench.wait();
            }
        }
    }
    assert_eq!(dead, 10);
    bench.take();
    bench.done();
}

#[test]
fn outages_one_after_another_neither_split_nor_blame() {
    let mut bench = with_control(|settings| settings.failure_threshold = 2);
    for outage in 0..20 {
        bench.arrive(&format!("a{outage} b{outage} c{outage}"));
        bench.arrive(&format!("d{outage}"));
        let mut failures = 0;
        while bench.engine.snapshot().messages_unsettled > 0 {
            bench.wait();
            bench.take();
            while let Some(ids) = bench.under_way().pop() {
                failures += 1;
                bench.answer(&ids, if failures < 10 { transient() } else { deleted() });
                assert!(bench.take().iter().all(|line| !line.starts_with("dead-letter")));
            }
        }
        assert!(failures >= 10);
    }
    assert_eq!(bench.tally().batch_splits, 0);
    assert_eq!(bench.tally().messages_deleted, 41);
    bench.done();
}

#[test]
fn where_outages_count_they_exhaust_the_messages() {
    let mut bench = Bench::with(|settings| {
        settings.on_outage = OnOutage::DeadLetter;
        settings.failure_threshold = 2;
    });
    bench.arrive("a");
    bench.arrive("b");
    for _ in 1..=3 {
        bench.expect_soon(&[if bench.engine.suspects.is_empty() {
            "call linger: a b"
        } else {
            "call retry: a b"
        }]);
        bench.answer("a b", transient());
    }
    bench.expect(&["dead-letter 1 retries_exhausted: a", "dead-letter 2 retries_exhausted: b"]);
    bench.stored(&[1, 2]);
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn on_a_quiet_system_the_control_speaks_before_anybody_dies() {
    let mut bench = with_control(|settings| settings.batch_max = 1);
    // Long after the last deletion, a lone message is rejected: is it the message, or the endpoint?
    bench.pass(60_000);
    bench.arrive("bad");
    bench.expect(&["call full: bad"]);
    bench.answer("bad", rejected());
    bench.expect(&["call probe: control"]);
    bench.answer("control", deleted());
    bench.expect(&["dead-letter 2 rejected: bad"]);
    bench.stored(&[2]);
    bench.expect(&["ack ..2"]);
    bench.done();

    bench.pass(60_000);
    bench.arrive("good");
    bench.expect(&["call full: good"]);
    bench.answer("good", rejected());
    bench.expect(&["call probe: control"]);
    bench.answer("control", rejected());
    assert!(is_blocked(&bench), "it rejects what it deleted before");
    while !bench.under_way().contains(&"good".to_owned()) {
        for ids in bench.under_way() {
            bench.answer(&ids, rejected());
        }
        bench.wait();
        bench.take();
    }
    bench.answer("good", deleted());
    bench.expect(&["ack ..3"]);
    bench.done();
}

#[test]
fn eight_bad_ids_in_a_row_are_told_from_an_endpoint_at_fault_without_an_alarm() {
    let mut bench = with_control(|settings| settings.batch_max = 1);
    bench.pass(60_000);
    for n in 1..=8 {
        bench.arrive(&format!("bad{n}"));
    }
    let mut letters = 0;
    while letters < 8 {
        for line in bench.take() {
            letters += usize::from(line.starts_with("dead-letter"));
        }
        assert!(!is_blocked(&bench));
        if let Some(ids) = bench.under_way().pop() {
            bench.answer(&ids, if ids == "control" { deleted() } else { rejected() });
        }
    }
    bench.stored(&[2, 3, 4, 5, 6, 7, 8, 9]);
    bench.take();
    bench.done();
}

#[test]
fn nobody_is_blamed_while_the_control_is_under_way_for_somebody_else() {
    let mut bench = with_control(|settings| settings.batch_max = 1);
    for n in 1..=8 {
        bench.arrive(&format!("v{n}"));
    }
    while !bench.under_way().contains(&"control".to_owned()) {
        for ids in bench.under_way() {
            bench.answer(&ids, rejected());
        }
        bench.take();
    }
    bench.answer("control", transient());
    // Before the next control is due, somebody asks for its deletion.
    bench.arrive("control");
    bench.expect(&["call full: control"]);
    bench.pass(60_000);
    bench.quiet();
    bench.answer("control", rejected());
    let mut is_mended = false;
    while bench.engine.snapshot().messages_unsettled > 0 {
        if bench.under_way().is_empty() {
            bench.wait();
        }
        assert!(!bench.take().iter().any(|line| line.starts_with("dead-letter")), "all were good");
        is_mended |= is_blocked(&bench);
        for ids in bench.under_way() {
            bench.answer(&ids, if is_mended { deleted() } else { rejected() });
        }
    }
    assert!(is_mended, "it was found out");
    bench.take();
    bench.done();
}

#[test]
fn an_endpoint_that_rejects_everything_is_found_out_before_the_backlog_is_halved_through() {
    let mut bench = with_control(|settings| settings.batch_max = 8);
    for batch in 0..50 {
        bench.arrive(&(0..8).map(|n| format!("v{batch}.{n}")).collect::<Vec<_>>().join(" "));
    }
    let mut calls = 0;
    while !is_blocked(&bench) {
        bench.take();
        let ids = bench.under_way().remove(0);
        bench.answer(&ids, rejected());
        calls += 1;
    }
    // The first two batches, halved to the end, and the control: 2 x (1 + 2 + 4 + 8) at the most.
    assert!(calls <= 31, "{calls}");
    deletes_everything(bench);
}

#[test]
fn what_was_under_way_when_everything_was_found_to_be_rejected_is_not_to_blame() {
    let mut bench = with_control(|settings| {
        settings.batch_max = 1;
        settings.concurrency_max = 3;
    });
    for n in 1..=10 {
        bench.arrive(&format!("v{n}"));
    }
    bench.take();
    for n in 1..=8 {
        bench.answer(&format!("v{n}"), rejected());
        bench.take();
    }
    assert_eq!(bench.under_way(), ["v9", "v10", "control"]);
    bench.answer("control", rejected());
    assert!(is_blocked(&bench));
    bench.answer("v9", rejected());
    bench.answer("v10", rejected());
    deletes_everything(bench);
}
