//! Keeps a lasting fault from filling the log.

use std::time::Duration;

use tokio::time::Instant;

/// Between two lines about the same trouble.
const QUIET: Duration = Duration::from_secs(30);

/// Lets the first line of a series through, then one every 30 s.
#[derive(Debug, Default)]
pub(crate) struct Muffle {
    spoke: Option<Instant>,
    kept: u64,
}

impl Muffle {
    /// Whether to log now; then how many lines were kept back since the last one.
    pub(crate) fn speak(&mut self, now: Instant) -> Option<u64> {
        if self.spoke.is_some_and(|spoke| now < spoke + QUIET) {
            self.kept += 1;
            return None;
        }
        self.spoke = Some(now);
        Some(std::mem::take(&mut self.kept))
    }

    /// The trouble is over; whether anything had been logged about it.
    pub(crate) fn reset(&mut self) -> bool {
        std::mem::take(self).spoke.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_passes_then_one_every_30_s() {
        let start = Instant::now();
        let mut muffle = Muffle::default();
        assert_eq!(muffle.speak(start), Some(0));
        assert_eq!(muffle.speak(start + Duration::from_secs(1)), None);
        assert_eq!(muffle.speak(start + Duration::from_secs(29)), None);
        assert_eq!(muffle.speak(start + Duration::from_secs(30)), Some(2));
        assert!(muffle.reset());
        assert!(!muffle.reset());
        assert_eq!(muffle.speak(start + Duration::from_secs(31)), Some(0));
    }
}
