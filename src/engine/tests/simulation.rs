//! Random schedules of a modelled broker and endpoint, in virtual time, with invariants after every step.
//!
//! Each seed decides a [`Plan`]: settings, messages, faults. `SEED=n` runs one seed, `SEEDS=n` that many, from
//! seed 0. A failure names its seed.

mod audit;
mod broker;
mod endpoint;
mod plan;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use self::plan::Plan;
use self::world::World;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 2000;

/// Seeds that have found something once.
const FORMER: [u64; 0] = [];

#[test]
fn nothing_is_lost_blamed_or_stuck_on_any_schedule() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Box<dyn Iterator<Item = u64>> = match number("SEED") {
        Some(seed) => Box::new(std::iter::once(seed)),
        None => Box::new(FORMER.into_iter().chain(0..number("SEEDS").unwrap_or(SEEDS))),
    };
    for seed in seeds {
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| World::new(Plan::new(seed)).run())) {
            tell(seed);
            resume_unwind(cause);
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one line that lets a failure be repeated")]
fn tell(seed: u64) {
    eprintln!("the schedule that failed: SEED={seed}");
}
