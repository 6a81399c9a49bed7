//! Hostile input: whatever a publisher or the endpoint sends, nothing panics, nothing is taken for what it isn't, and
//! nothing said about it can harm a log.
//!
//! Inputs are mutations of the files in `tests/corpus/`, or built from fragments. `make test` tries a few, `make fuzz`
//! goes on for as long as it is told. A failure prints the smallest input that fails; as a file of the corpus it is
//! tried for ever after.

#[path = "fuzz/answer.rs"]
mod answer;
#[path = "fuzz/event.rs"]
mod event;
#[path = "fuzz/input.rs"]
mod input;
#[path = "fuzz/memory.rs"]
mod memory;
#[path = "fuzz/message.rs"]
mod message;

use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

/// Tries `property` on inputs of `strategy`: `PROPTEST_CASES` of them, or until `FUZZ_SECONDS` are over.
#[track_caller]
fn explore<S: Strategy>(strategy: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    loop {
        // Failures are kept in the corpus, by hand.
        let config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
        if let Err(failure) = TestRunner::new(config).run(strategy, &property) {
            panic!("{failure}");
        }
        if end.is_none_or(|end| Instant::now() >= end) {
            return;
        }
    }
}

/// Whether `char` could end a line, speak to a terminal, or change the order in which others are read.
fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
