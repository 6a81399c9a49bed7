//! How the demo's endpoint misbehaves: by the worker's progress, not by the clock, so that a slow machine sees
//! the same play.

use std::collections::VecDeque;
use std::time::Duration;

use super::load::BAD_PREFIX;
use crate::mock::{Down, Faults};

/// Calls a second that worker and endpoint agree on: many times the documented quota of 5, so that nobody has to
/// wait for the end.
pub const REQUESTS_PER_SECOND: u32 = 200;
/// The quota while the endpoint throttles: below what the worker needs on the slowest machine.
const THROTTLED: u32 = 1;
/// How often the script has the endpoint down for so long that the worker notices.
pub const OUTAGES: u64 = 1;

/// When a step's turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So many IDs are deleted.
    Deleted(u64),
    /// So many calls have failed since the step before.
    Failed(u64),
}

/// A change of the endpoint's mood.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When.
    pub when: When,
    /// For the audience.
    pub says: &'static str,
    /// From then on.
    pub faults: Faults,
}

/// The steps still to come.
#[derive(Clone, Debug)]
pub struct Script {
    steps: VecDeque<Step>,
    failed_before: u64,
}

impl Script {
    /// The play for a load of `ids` different IDs.
    #[must_use]
    pub fn new(ids: u64) -> Self {
        let at = |percent: u64| When::Deleted(ids * percent / 100);
        let step = |when, says, faults| Step { when, says, faults };
        let steps = [
            step(
                at(20),
                "the endpoint throttles: 0429 for all but one call a second",
                Faults { requests_per_second: THROTTLED, ..healthy() },
            ),
            // The worker halves its rate at each throttled answer and takes minutes to trust the endpoint again.
            step(When::Failed(2), "the quota is back", healthy()),
            step(at(50), "the endpoint is down: 503", Faults { down: Some(Down::Unavailable), ..healthy() }),
            step(When::Failed(12), "the endpoint is back", healthy()),
            step(at(75), "three calls fail: 500", Faults { fail_next: 3, ..healthy() }),
        ];
        Self { steps: steps.into(), failed_before: 0 }
    }

    /// The next step, if its turn has come. `deleted` and `failed` count from the beginning.
    pub fn advance(&mut self, deleted: u64, failed: u64) -> Option<Step> {
        let is_due = match self.steps.front()?.when {
            When::Deleted(count) => deleted >= count,
            When::Failed(count) => failed - self.failed_before >= count,
        };
        if !is_due {
            return None;
        }
        self.failed_before = failed;
        self.steps.pop_front()
    }

    /// Every step has been taken.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.steps.is_empty()
    }
}

/// The endpoint on a good day: some latency, the quota, and a few IDs it will never take.
#[must_use]
pub fn healthy() -> Faults {
    Faults {
        latency: Duration::from_millis(30),
        jitter: Duration::from_millis(20),
        requests_per_second: REQUESTS_PER_SECOND,
        bad_prefix: Some(BAD_PREFIX.to_owned()),
        ..Faults::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_in_order_and_by_progress() {
        let mut script = Script::new(1000);
        assert_eq!(script.advance(199, 90), None);
        let throttled = script.advance(200, 90).expect("due");
        assert_eq!(throttled.faults.requests_per_second, THROTTLED);
        assert_eq!(script.advance(600, 91), None, "only failures since then count");
        // A long jump takes one step at a time.
        assert_eq!(script.advance(600, 100).expect("due").faults, healthy());
        assert!(script.advance(600, 103).expect("due").faults.down.is_some());
        assert_eq!(script.advance(600, 114), None, "only failures of the outage count");
        assert_eq!(script.advance(600, 115).expect("due").faults, healthy());
        assert_eq!(script.advance(750, 115).expect("due").faults.fail_next, 3);
        assert!(script.is_over());
        assert_eq!(script.advance(1000, 1000), None);
    }

    #[test]
    fn every_step_keeps_the_bad_ids_bad_and_leads_back_to_health() {
        let script = Script::new(1000);
        assert!(script.steps.iter().all(|step| step.faults.bad_prefix.as_deref() == Some(BAD_PREFIX)));
        assert!(script.steps.iter().all(|step| step.faults.check().is_ok()));
        let last = Faults { fail_next: 0, ..script.steps[4].faults.clone() };
        assert_eq!(last, healthy());
    }
}
