//! Exponential backoff with full jitter, as pure arithmetic.

use std::time::{Duration, Instant};

use backoff::backoff::Backoff as _;
use backoff::exponential::ExponentialBackoff;

use crate::config::Retry;

/// Rungs after which a ladder that never reaches its cap (a multiplier of 1) simply stays where it is.
const RUNGS_MAX: usize = 256;

/// The intervals of an exponential backoff, ascending: the first failure waits at most the first of them, and
/// so on; the last one repeats for ever.
///
/// Worked out once from the `backoff` crate's [`ExponentialBackoff`], without its jitter (which exceeds the
/// cap and draws on the global generator) and without its default of giving up after 15 minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder(Vec<Duration>);

impl Ladder {
    /// Works out the ladder from `initial`, growing by `multiplier`, up to `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration, multiplier: f64) -> Self {
        let mut policy = ExponentialBackoff::<StoppedClock> {
            current_interval: initial,
            initial_interval: initial,
            randomization_factor: 0.0,
            multiplier,
            max_interval: max,
            start_time: Instant::now(),
            max_elapsed_time: None,
            clock: StoppedClock(Instant::now()),
        };
        let mut rungs = Vec::new();
        while rungs.len() < RUNGS_MAX && rungs.last() != Some(&max) {
            rungs.extend(policy.next_backoff().map(|interval| interval.min(max)));
        }
        Self(rungs)
    }

    /// The ladder of `retry.*`.
    #[must_use]
    pub fn of(retry: &Retry) -> Self {
        Self::new(retry.initial, retry.max, retry.multiplier)
    }

    /// The longest wait after the `failure`th failure in a row, counted from 1.
    #[must_use]
    pub fn ceiling(&self, failure: u32) -> Duration {
        let rung = usize::try_from(failure.saturating_sub(1)).unwrap_or(usize::MAX).min(self.0.len() - 1);
        self.0[rung]
    }

    /// The wait after the `failure`th failure in a row: anything from nothing to its ceiling, all alike.
    ///
    /// Full jitter, after <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
    #[must_use]
    pub fn delay(&self, failure: u32, rng: &mut fastrand::Rng) -> Duration {
        self.ceiling(failure).mul_f64(rng.f64())
    }
}

/// The pauses between attempts at something that has no other limit: growing, from half of the ladder's interval to
/// all of it by chance.
#[derive(Debug)]
pub struct Pauses {
    ladder: Ladder,
    failures: u32,
}

impl Pauses {
    /// Pauses from `initial`, doubling up to `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { ladder: Ladder::new(initial, max, 2.0), failures: 0 }
    }

    /// The pause after another failure.
    pub fn after_failure(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.ladder.ceiling(self.failures).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It went well: the next pause is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A clock for a policy that never asks how long it has been trying.
struct StoppedClock(Instant);

impl backoff::Clock for StoppedClock {
    fn now(&self) -> Instant {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn grows_to_the_cap_and_stays() {
        let ladder = Ladder::new(ms(500), ms(3000), 2.0);
        let ceilings: Vec<_> = (1..=5).map(|failure| ladder.ceiling(failure)).collect();
        assert_eq!(ceilings, [ms(500), ms(1000), ms(2000), ms(3000), ms(3000)]);
        assert_eq!(ladder.ceiling(0), ms(500));
        assert_eq!(ladder.ceiling(u32::MAX), ms(3000), "it never gives up");
    }

    #[test]
    fn a_multiplier_of_one_stays_at_the_initial_interval() {
        let ladder = Ladder::new(ms(10), ms(1000), 1.0);
        assert_eq!(ladder.ceiling(10_000), ms(10));
    }

    #[test]
    fn pauses_grow_until_it_goes_well() {
        let mut pauses = Pauses::new(ms(100), ms(400));
        let within = |pause: Duration, max| pause >= max / 2 && pause <= max;
        for max in [ms(100), ms(200), ms(400), ms(400)] {
            assert!(within(pauses.after_failure(), max));
        }
        pauses.reset();
        assert!(within(pauses.after_failure(), ms(100)));
    }

    #[test]
    fn jitter_never_passes_the_cap_and_covers_the_range() {
        let ladder = Ladder::new(ms(100), ms(100), 2.0);
        let mut rng = fastrand::Rng::with_seed(7);
        let delays: Vec<_> = (0..1000).map(|_| ladder.delay(9, &mut rng)).collect();
        assert!(delays.iter().all(|delay| *delay <= ms(100)));
        assert!(delays.iter().any(|delay| *delay < ms(10)) && delays.iter().any(|delay| *delay > ms(90)));
    }
}
