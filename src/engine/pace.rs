//! The pace of calls: a hard ceiling in any one second, and below it the rate the account's quota leaves us.

use std::collections::VecDeque;
use std::time::Duration;

use super::Time;

/// In any span of this length no more calls than the ceiling arrive.
const WINDOW: Duration = Duration::from_secs(1);

/// A call on an open connection may arrive this much later than it left: the network, a busy machine.
const SLACK: Duration = Duration::from_millis(100);

/// One that has to connect first may arrive this much later: TCP and TLS take several round trips.
const CONNECTING: Duration = Duration::from_secs(1);

/// For how long an idle connection is counted on; shorter than anybody between us and the endpoint keeps it.
const WARM: Duration = Duration::from_secs(5);

/// Calls a second at which an endpoint without a known limit is taken to object, if fewer were sent.
const BLIND: usize = 10;

/// The share of the ceiling that the rate grows by in a second of success, after a throttled answer halved it.
/// With four workers on one quota this keeps throttled answers near 4 % of all.
const RAISE: f64 = 1.0 / 300.0;

/// Below this share of the ceiling the rate grows faster, in inverse proportion to itself: who was throttled more often
/// than others catches up sooner, and who calls often nears the quota as gently as before (Bansal and Balakrishnan,
/// "Binomial congestion control algorithms", 2001).
const KNEE: f64 = 1.0 / 5.0;

/// The lowest rate that throttled answers can bring about, in calls a second.
const FLOOR: f64 = 0.1;

/// Departures remembered when there is no ceiling, to know the rate at which the endpoint objected.
const MEMORY: usize = 4096;

/// Decides when the next call may leave.
///
/// The ceiling is a sliding window: no more than so many calls arrive in any one second, without a burst on top. As
/// we see only when they leave, a call counts from its answer, or from when it has surely arrived if that is sooner.
///
/// The rate below it follows throttled answers by additive increase, multiplicative decrease (Chiu and Jain,
/// 1989), so that any number of workers converge to a fair split of one quota without knowing of each other.
#[derive(Debug)]
pub(super) struct Pace {
    /// Calls a second; `None`: no limit.
    ceiling: Option<f64>,
    /// The rate after throttled answers; `None`: at the ceiling.
    reduced: Option<Reduced>,
    departures: VecDeque<Departure>,
    /// Since when each open connection has been idle, the most recent last.
    idle: Vec<Time>,
    paused_until: Time,
    throttled_in_row: u32,
}

#[derive(Clone, Copy, Debug)]
struct Departure {
    left: Time,
    /// When it has arrived at the latest, as far as the endpoint's count goes.
    arrived: Time,
}

#[derive(Clone, Copy, Debug)]
struct Reduced {
    /// Calls a second.
    rate: f64,
    /// The rate it grows back to.
    target: f64,
    cut_at: Time,
    raised_at: Time,
}

impl Pace {
    pub(super) fn new(ceiling: Option<f64>) -> Self {
        Self {
            ceiling,
            reduced: None,
            departures: VecDeque::new(),
            idle: Vec::new(),
            paused_until: Time::default(),
            throttled_in_row: 0,
        }
    }

    /// Calls a second at present; `None`: no limit.
    pub(super) fn rate(&self) -> Option<f64> {
        self.reduced.map(|reduced| reduced.rate).or(self.ceiling)
    }

    /// Throttled answers since the last other one.
    pub(super) fn throttled_in_row(&self) -> u32 {
        self.throttled_in_row
    }

    /// When the next call may leave; a moment gone by means now.
    pub(super) fn opens_at(&self) -> Time {
        let window = match self.ceiling {
            Some(ceiling) if self.departures.len() >= per_window(ceiling) => {
                self.departures.front().map(|first| first.arrived + window(ceiling))
            }
            Some(_) | None => None,
        };
        let spacing = self.reduced.and_then(|reduced| {
            self.departures.back().map(|last| last.left + Duration::from_secs_f64(1.0 / reduced.rate))
        });
        self.paused_until.max(window.unwrap_or_default()).max(spacing.unwrap_or_default())
    }

    /// A call leaves.
    pub(super) fn depart(&mut self, now: Time) {
        let memory = self.ceiling.map_or(MEMORY, per_window);
        while self.departures.len() >= memory {
            self.departures.pop_front();
        }
        // The client's pool hands out the connection that was used last.
        let warm = self.idle.pop().is_some_and(|since| now.since(since) < WARM);
        if !warm {
            self.idle.clear();
        }
        self.departures
            .push_back(Departure { left: now, arrived: now + if warm { SLACK } else { CONNECTING } });
    }

    /// A call that left at `departed` has come to its end, `connected` if by an answer.
    pub(super) fn ended(&mut self, departed: Time, connected: bool, now: Time) {
        if connected {
            self.idle.push(now);
        }
        if let Some(departure) =
            self.departures.iter_mut().rev().find(|it| it.left == departed && it.arrived > now)
        {
            departure.arrived = now;
        }
    }

    /// No call leaves for this long.
    pub(super) fn pause(&mut self, now: Time, pause: Duration) {
        self.paused_until = self.paused_until.max(now + pause);
    }

    /// A call that departed at `departed` was throttled: the rate is halved, once for all calls that were
    /// under way then.
    pub(super) fn throttled(&mut self, departed: Time, now: Time) {
        self.throttled_in_row = self.throttled_in_row.saturating_add(1);
        if self.reduced.is_some_and(|reduced| departed <= reduced.cut_at) {
            return;
        }
        let (rate, target) = match (self.reduced, self.ceiling) {
            (Some(reduced), _) => (reduced.rate, reduced.target),
            (None, Some(ceiling)) => (ceiling, ceiling),
            (None, None) => {
                let recent =
                    self.departures.iter().rev().take_while(|it| now.since(it.left) <= WINDOW).count();
                #[expect(clippy::cast_precision_loss, reason = "at most MEMORY")]
                let recent = recent.max(BLIND) as f64;
                (recent, 2.0 * recent)
            }
        };
        self.reduced = Some(Reduced { rate: (rate / 2.0).max(FLOOR), target, cut_at: now, raised_at: now });
    }

    /// A call was answered otherwise.
    pub(super) fn accepted(&mut self) {
        self.throttled_in_row = 0;
    }

    /// A call succeeded: the rate grows a little.
    pub(super) fn succeeded(&mut self, now: Time) {
        self.throttled_in_row = 0;
        let Some(reduced) = &mut self.reduced else { return };
        let span = now.since(reduced.raised_at).min(Duration::from_secs(2)).as_secs_f64();
        let haste = (KNEE * reduced.target / reduced.rate).max(1.0);
        reduced.rate += span * RAISE * reduced.target * haste;
        reduced.raised_at = now;
        if reduced.rate >= reduced.target {
            self.reduced = None;
        }
    }
}

/// How many calls fit into a [`window`].
fn per_window(ceiling: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturating")]
    let whole = ceiling.floor() as usize;
    whole.max(1)
}

/// A second, or as long as one call takes of a ceiling below one a second.
fn window(ceiling: f64) -> Duration {
    WINDOW.mul_f64((1.0 / ceiling).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::after_start(Duration::from_millis(ms))
    }

    /// Departure times of a worker that always has a call ready.
    fn departures(pace: &mut Pace, calls: usize) -> Vec<Time> {
        let mut now = at(0);
        let mut all = Vec::new();
        for _ in 0..calls {
            now = now.max(pace.opens_at());
            pace.depart(now);
            all.push(now);
        }
        all
    }

    #[test]
    fn the_ceiling_holds_in_any_one_second() {
        for ceiling in [0.5, 1.0, 2.5, 5.0, 100.0] {
            let all = departures(&mut Pace::new(Some(ceiling)), 500);
            for (n, from) in all.iter().enumerate() {
                let span = Duration::from_secs_f64((1.0 / ceiling).max(1.0));
                let within = all[n..].iter().take_while(|at| at.since(*from) < span).count();
                assert!(within <= per_window(ceiling), "{within} calls from {from:?} on at {ceiling}/s");
            }
        }
    }

    #[test]
    fn a_call_that_connects_first_counts_from_its_answer() {
        let mut pace = Pace::new(Some(1.0));
        pace.depart(at(0));
        assert_eq!(pace.opens_at(), at(2000), "it may take a second to arrive");
        pace.ended(at(0), true, at(300));
        assert_eq!(pace.opens_at(), at(1300), "it had arrived by then");
        // On the connection that is open now the next one arrives at once.
        pace.depart(at(1300));
        assert_eq!(pace.opens_at(), at(2400));
        pace.ended(at(1300), false, at(1310));
        assert_eq!(pace.opens_at(), at(2310), "lost, but it had left");
        // It was lost with its connection.
        pace.depart(at(2400));
        assert_eq!(pace.opens_at(), at(4400));
    }

    #[test]
    fn without_a_ceiling_nothing_waits() {
        let all = departures(&mut Pace::new(None), 10_000);
        assert_eq!(all.last(), Some(&at(0)));
    }

    #[test]
    fn calls_throttled_together_halve_the_rate_once() {
        let mut pace = Pace::new(Some(8.0));
        pace.depart(at(0));
        pace.throttled(at(0), at(50));
        pace.throttled(at(10), at(60));
        assert_eq!(pace.rate(), Some(4.0));
        assert_eq!(pace.throttled_in_row(), 2);
        pace.throttled(at(100), at(110));
        assert_eq!(pace.rate(), Some(2.0));
    }

    #[test]
    fn success_raises_the_rate_slowly_back_to_the_ceiling() {
        let mut pace = Pace::new(Some(5.0));
        pace.throttled(at(1), at(1));
        let mut seconds: u64 = 0;
        while pace.rate() < Some(5.0) {
            seconds += 1;
            pace.succeeded(at(seconds * 1000));
            assert!(seconds < 1000, "never recovers");
        }
        assert!((50..=200).contains(&seconds), "{seconds} s");
    }

    #[test]
    fn a_low_rate_grows_faster() {
        let mut pace = Pace::new(Some(5.0));
        for second in 1..=3 {
            pace.throttled(at(second * 1000), at(second * 1000));
        }
        assert_eq!(pace.rate(), Some(0.625));
        pace.succeeded(at(4000));
        let rate = pace.rate().expect("a ceiling");
        let grown = 5.0 / 300.0 * (1.0 / 0.625);
        assert!((rate - 0.625 - grown).abs() < 1e-9, "{rate}");
    }

    #[test]
    fn without_a_ceiling_a_throttled_answer_halves_what_was_sent_lately() {
        let mut pace = Pace::new(None);
        for n in 0..100 {
            pace.depart(at(n * 10));
        }
        pace.throttled(at(990), at(1000));
        assert_eq!(pace.rate(), Some(50.0));
        for second in 1..=1000 {
            pace.succeeded(at(1000 + second * 1000));
        }
        assert_eq!(pace.rate(), None);
    }

    #[test]
    fn a_pause_holds_everything() {
        let mut pace = Pace::new(Some(5.0));
        pace.pause(at(0), Duration::from_secs(7));
        pace.pause(at(0), Duration::from_secs(3));
        assert_eq!(pace.opens_at(), at(7000));
    }

    #[test]
    fn calls_on_connections_that_are_open_arrive_at_once_each() {
        let mut pace = Pace::new(Some(2.0));
        for _ in 0..2 {
            pace.depart(at(0));
        }
        for _ in 0..2 {
            pace.ended(at(0), true, at(100));
        }
        assert_eq!(pace.opens_at(), at(1100));
        for _ in 0..2 {
            pace.depart(at(1200));
        }
        assert_eq!(pace.opens_at(), at(2300));
        pace.depart(at(2300));
        assert_eq!(pace.opens_at(), at(2300), "the second one, too, had arrived a second before");
        // Below one a second the window is longer.
        let mut pace = Pace::new(Some(0.5));
        pace.depart(at(0));
        pace.ended(at(0), true, at(10));
        assert_eq!(pace.opens_at(), at(2010));
    }

    #[test]
    fn the_way_back_is_as_steep_as_it_is_long() {
        let mut pace = Pace::new(None);
        for n in 0..100 {
            pace.depart(at(n * 10));
        }
        pace.throttled(at(990), at(1000));
        // Up to twice the rate to which it objected, a 300th of that in a second.
        pace.succeeded(at(2500));
        assert_eq!(pace.rate(), Some(51.0));
    }

    #[test]
    fn any_other_answer_ends_a_row_of_throttled_ones() {
        let mut pace = Pace::new(Some(5.0));
        for _ in 0..2 {
            pace.throttled(at(0), at(0));
            pace.accepted();
            assert_eq!(pace.throttled_in_row(), 0);
        }
    }
}
