//! How much a session takes at once, by how the sessions before it ended.
//!
//! The broker counts every return of a message, also of those that were only prefetched, and a queue with a low
//! delivery limit throws away what was returned too often. So when sessions die one after another, fewer messages
//! are taken into the next one.

/// Deaths in a row on something unreadable before only one message is taken at a time.
const UNREADABLE_MAX: u32 = 3;
/// Sessions in a row that took messages and settled none before only one batch is taken.
const FRUITLESS_MAX: u32 = 5;

/// What is known of the recent sessions.
#[derive(Debug, Default)]
pub(super) struct Pace {
    unreadable: u32,
    fruitless: u32,
}

/// How much the next session may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appetite {
    /// The configured prefetch.
    Full,
    /// What one call holds: sessions keep dying before they settle anything.
    Batch,
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
}

impl Pace {
    /// Takes note of how a session went.
    pub(super) fn record(&mut self, course: Course) {
        if course.acked > 0 {
            *self = Self::default();
        } else if course.taken > 0 {
            self.fruitless += 1;
        }
        if course.unreadable {
            self.unreadable += 1;
        } else {
            self.unreadable = 0;
        }
    }

    /// What the next session may take.
    pub(super) fn appetite(&self) -> Appetite {
        if self.unreadable >= UNREADABLE_MAX {
            Appetite::One
        } else if self.fruitless >= FRUITLESS_MAX {
            Appetite::Batch
        } else {
            Appetite::Full
        }
    }
}

impl Appetite {
    /// The prefetch it amounts to.
    pub(super) fn prefetch(self, configured: u16, batch: usize) -> u16 {
        match self {
            Self::Full => configured,
            Self::Batch => u16::try_from(batch).unwrap_or(u16::MAX).clamp(1, configured),
            Self::One => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREADABLE: Course = Course { taken: 3, acked: 0, unreadable: true };
    const FRUITLESS: Course = Course { taken: 3, acked: 0, unreadable: false };
    const FRUITFUL: Course = Course { taken: 3, acked: 1, unreadable: false };
    const IDLE: Course = Course { taken: 0, acked: 0, unreadable: false };

    fn after(courses: &[Course]) -> Appetite {
        let mut pace = Pace::default();
        for course in courses {
            pace.record(*course);
        }
        pace.appetite()
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
    fn an_appetite_never_exceeds_the_configured_prefetch() {
        assert_eq!(Appetite::Full.prefetch(4_500, 500), 4_500);
        assert_eq!(Appetite::Batch.prefetch(4_500, 500), 500);
        assert_eq!(Appetite::Batch.prefetch(100, 500), 100);
        assert_eq!(Appetite::Batch.prefetch(u16::MAX, 1_000_000), u16::MAX);
        assert_eq!(Appetite::One.prefetch(4_500, 500), 1);
    }
}
