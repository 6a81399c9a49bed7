//! How much a session takes at once, by how the sessions before it ended.
//!
//! The broker counts every return of a message, also of those that were only prefetched, and a queue with a low
//! delivery limit throws away what was returned too often. So when sessions die one after another, fewer messages
//! are taken into the next one.

/// Deaths in a row on something unreadable before only one message is taken at a time.
const UNREADABLE_MAX: u32 = 3;
/// Sessions in a row that took messages and settled none before only one batch is taken.
const FRUITLESS_MAX: u32 = 5;
/// Each relapse doubles what has to be settled before more messages are taken again, so often.
const RELAPSES_MAX: u32 = 6;

/// What is known of the recent sessions.
#[derive(Debug, Default)]
pub(super) struct Pace {
    unreadable: u32,
    fruitless: u32,
    few: Option<Few>,
}

/// How many messages are taken where large ones are about.
#[derive(Clone, Copy, Debug)]
struct Few {
    count: u16,
    /// How often they were too many even so.
    relapses: u32,
}

/// How much the next session may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appetite {
    /// The configured prefetch.
    Full,
    /// What one call holds: sessions keep dying before they settle anything.
    Batch,
    /// So many, until the second number is settled: large messages are among them, and more would not fit into what
    /// they may take of the memory.
    Few(u16, u64),
    /// One message: something in the queue kills the connection, and only it shall gather returns.
    One,
}

/// How a session went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// Messages it was given.
    pub(super) taken: u64,
    /// Acks it handed to the broker.
    pub(super) acked: u64,
    /// It died because lapin could not read what the broker sent.
    pub(super) unreadable: bool,
    /// It died because its messages became too large together; so many had fitted.
    pub(super) overload: Option<u64>,
    /// It had settled enough to end for a better one.
    pub(super) recovered: bool,
}

impl Pace {
    /// Takes note of how a session went.
    pub(super) fn record(&mut self, course: Course) {
        if let Some(fitted) = course.overload {
            self.few = Some(Few::after(self.few, fitted));
        } else if course.recovered {
            // By doubling: whatever does not fit after all is returned to the broker, and counts as delivered.
            self.few = self.few.map(|few| Few { count: few.count.saturating_mul(2), ..few });
        }
        if course.acked > 0 {
            (self.unreadable, self.fruitless) = (0, 0);
        } else if course.taken > 0 && course.overload.is_none() {
            self.fruitless += 1;
        }
        if course.unreadable {
            self.unreadable += 1;
        } else {
            self.unreadable = 0;
        }
    }

    /// What the next session may take, where `configured` is the most.
    pub(super) fn appetite(&mut self, configured: u16) -> Appetite {
        self.few = self.few.filter(|few| few.count < configured);
        if self.unreadable >= UNREADABLE_MAX {
            Appetite::One
        } else if self.fruitless >= FRUITLESS_MAX {
            Appetite::Batch
        } else {
            self.few.map_or(Appetite::Full, |few| Appetite::Few(few.count, few.enough()))
        }
    }
}

impl Few {
    /// With some room to spare, as the next ones may be a little larger.
    fn after(before: Option<Self>, fitted: u64) -> Self {
        let count = u16::try_from(fitted - fitted / 4).unwrap_or(u16::MAX).max(1);
        Self { count, relapses: before.map_or(0, |few| (few.relapses + 1).min(RELAPSES_MAX)) }
    }

    fn enough(self) -> u64 {
        u64::from(self.count) << self.relapses
    }
}

impl Appetite {
    /// The prefetch it amounts to.
    pub(super) fn prefetch(self, configured: u16, batch: usize) -> u16 {
        match self {
            Self::Full => configured,
            Self::Batch => u16::try_from(batch).unwrap_or(u16::MAX).clamp(1, configured),
            Self::Few(few, _) => few.min(configured),
            Self::One => 1,
        }
    }

    /// Whether so many acks are enough to take more again.
    pub(super) fn is_stilled_by(self, acked: u64) -> bool {
        match self {
            Self::Full => false,
            Self::Batch | Self::One => acked > 0,
            Self::Few(_, enough) => acked >= enough,
        }
    }

    /// Why it is less than full, for people.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Full => "nothing is wrong",
            Self::Batch => "the last sessions died before they settled anything",
            Self::Few(..) => "there are large messages in the queue, and they are held in memory",
            Self::One => "something in the queue ends every session that it is delivered to",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Course = Course { taken: 0, acked: 0, unreadable: false, overload: None, recovered: false };
    const FRUITLESS: Course = Course { taken: 3, ..IDLE };
    const UNREADABLE: Course = Course { unreadable: true, ..FRUITLESS };
    const FRUITFUL: Course = Course { acked: 1, ..FRUITLESS };
    const RECOVERED: Course = Course { recovered: true, ..FRUITFUL };

    fn overload(fitted: u64) -> Course {
        Course { overload: Some(fitted), ..FRUITLESS }
    }

    fn after(courses: &[Course]) -> Appetite {
        let mut pace = Pace::default();
        for course in courses {
            pace.record(*course);
        }
        pace.appetite(4_500)
    }

    #[test]
    fn three_unreadable_deaths_in_a_row_isolate() {
        assert_eq!(after(&[UNREADABLE; 2]), Appetite::Full);
        assert_eq!(after(&[UNREADABLE; 3]), Appetite::One);
        assert_eq!(after(&[UNREADABLE; 30]), Appetite::One);
        assert_eq!(after(&[UNREADABLE, UNREADABLE, FRUITLESS, UNREADABLE]), Appetite::Full);
    }

    #[test]
    fn progress_ends_isolation() {
        assert_eq!(after(&[UNREADABLE, UNREADABLE, UNREADABLE, FRUITFUL]), Appetite::Full);
    }

    #[test]
    fn five_fruitless_sessions_take_one_batch() {
        assert_eq!(after(&[FRUITLESS; 4]), Appetite::Full);
        assert_eq!(after(&[FRUITLESS; 5]), Appetite::Batch);
        assert_eq!(after(&[FRUITLESS, FRUITLESS, FRUITLESS, FRUITLESS, FRUITLESS, FRUITFUL]), Appetite::Full);
    }

    #[test]
    fn sessions_of_an_idle_queue_prove_nothing() {
        assert_eq!(after(&[IDLE; 20]), Appetite::Full);
    }

    #[test]
    fn an_overloaded_session_is_followed_by_one_that_takes_less_than_fitted() {
        assert_eq!(after(&[overload(40)]), Appetite::Few(30, 30));
        assert_eq!(after(&[overload(0)]), Appetite::Few(1, 1));
        assert_eq!(after(&[overload(3)]), Appetite::Few(3, 3));
        assert_eq!(after(&[overload(1_000_000)]), Appetite::Full, "it is not the number");
        assert_eq!(after(&[overload(40), FRUITFUL]), Appetite::Few(30, 30), "it ended for something else");
        assert_eq!(after(&[overload(40), IDLE]), Appetite::Few(30, 30));
    }

    #[test]
    fn the_number_doubles_until_it_is_the_configured_one() {
        assert_eq!(after(&[overload(40), RECOVERED]), Appetite::Few(60, 60));
        assert_eq!(after(&[overload(40), RECOVERED, RECOVERED]), Appetite::Few(120, 120));
        assert_eq!(after(&[&[overload(40)][..], &[RECOVERED; 8]].concat()), Appetite::Full);
    }

    #[test]
    fn each_relapse_asks_for_twice_as_much_before_the_next_try() {
        assert_eq!(after(&[overload(4), RECOVERED, overload(4)]), Appetite::Few(3, 6));
        assert_eq!(after(&[overload(4), RECOVERED, overload(4), RECOVERED]), Appetite::Few(6, 12));
        assert_eq!(after(&[overload(4); 30]), Appetite::Few(3, 3 << 6));
    }

    #[test]
    fn an_appetite_is_stilled_by_its_own_measure() {
        assert!(!Appetite::Full.is_stilled_by(1_000));
        assert!(!Appetite::One.is_stilled_by(0) && Appetite::One.is_stilled_by(1));
        assert!(!Appetite::Batch.is_stilled_by(0) && Appetite::Batch.is_stilled_by(1));
        assert!(!Appetite::Few(3, 6).is_stilled_by(5) && Appetite::Few(3, 6).is_stilled_by(6));
    }

    #[test]
    fn an_appetite_never_exceeds_the_configured_prefetch() {
        assert_eq!(Appetite::Full.prefetch(4_500, 500), 4_500);
        assert_eq!(Appetite::Batch.prefetch(4_500, 500), 500);
        assert_eq!(Appetite::Batch.prefetch(100, 500), 100);
        assert_eq!(Appetite::Batch.prefetch(u16::MAX, 1_000_000), u16::MAX);
        assert_eq!(Appetite::Few(7, 7).prefetch(4_500, 500), 7);
        assert_eq!(Appetite::Few(u16::MAX, 7).prefetch(4_500, 500), 4_500);
        assert_eq!(Appetite::One.prefetch(4_500, 500), 1);
    }
}
