//! Throttling: what the endpoint asks for, within a ceiling, and no more than the rate permits.

use super::bench::{Bench, deleted, throttled};

#[test]
fn retry_after_is_obeyed_up_to_its_ceiling() {
    let mut bench = Bench::new();
    bench.arrive("a");
    bench.expect_after(1000, &["call linger: a"]);
    bench.answer("a", throttled(Some(7)));
    bench.expect_after(7000, &["call linger: a"]);
    bench.answer("a", throttled(Some(1_000_000)));
    // At 5 minutes the long outage is noticed, too: what counts is that it is no later.
    assert_eq!(bench.wait().as_secs(), 293, "7 of the 300 s of trouble are over");
    bench.expect(&["cancel", "give back ..1"]);
    bench.cancelled();
    bench.expect_soon(&["call probe: a"]);
    assert_eq!(bench.now().elapsed().as_secs(), 1 + 7 + 300);
    bench.answer("a", deleted());
    bench.expect(&["consume"]);
    bench.done();
}

#[test]
fn everybody_waits_while_one_is_throttled() {
    let mut bench = Bench::new();
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.answer("a b c", throttled(Some(5)));
    bench.arrive("d e f");
    bench.expect_after(5000, &["call full: a b c"]);
    // Without a ceiling: half of the one call in the second before it was throttled.
    bench.expect_after(2000, &["call full: d e f"]);
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..1"]);
    bench.answer("d e f", deleted());
    bench.expect(&["ack ..2"]);
    bench.done();
}

#[test]
fn a_throttled_answer_halves_the_rate_and_success_raises_it() {
    let mut bench = Bench::with(|settings| settings.rate_max = Some(8.0));
    bench.arrive("a b c");
    bench.expect(&["call full: a b c"]);
    bench.pass(1);
    bench.answer("a b c", throttled(None));
    bench.quiet();
    assert_eq!(bench.engine.snapshot().rate, Some(4.0));
    bench.expect_soon(&["call full: a b c"]);
    bench.answer("a b c", deleted());
    bench.expect(&["ack ..1"]);
    let rate = bench.engine.snapshot().rate.expect("a ceiling");
    assert!(rate > 4.0 && rate < 4.1, "{rate}");
    bench.done();
}

#[test]
fn no_second_sees_more_calls_than_the_rate() {
    let mut bench = Bench::with(|settings| {
        settings.rate_max = Some(5.0);
        settings.batch_max = 1;
        settings.concurrency_max = 50;
        settings.prefetch = 200;
    });
    for n in 0..50 {
        bench.arrive(&format!("v{n}"));
    }
    let mut departures = Vec::new();
    while departures.len() < 50 {
        bench.wait();
        let now = bench.now();
        departures.extend(bench.take().iter().map(|_| now));
    }
    for from in &departures {
        let within = departures.iter().filter(|at| **at >= *from && at.since(*from).as_millis() < 1000);
        assert!(within.count() <= 5);
    }
    assert!(
        departures[49].elapsed().as_secs_f64() < 9.0 * 1.11,
        "and not many fewer, unanswered as they are"
    );
    for ids in bench.under_way() {
        bench.answer(&ids, deleted());
        bench.take();
    }
    bench.done();
}
