//! Whether a connection may be kept for the next call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long every call has a connection of its own after one ended under a call.
const WARY: Duration = Duration::from_secs(5 * 60);

/// Some servers, and what stands before them, close a kept connection without a word, at any moment: also when the
/// next call is on its way. If they do so again and again, the same IDs are struck again and again, and are blamed
/// in the end. A fresh connection per call costs a round trip or two, and has nothing to be struck by.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust(Arc<Mutex<Option<Instant>>>);

impl Trust {
    /// Whether the connection of a call that begins now may be kept.
    pub(super) fn keeps(&self, now: Instant) -> bool {
        let ended = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.is_none_or(|ended| now.saturating_duration_since(ended) >= WARY)
    }

    /// A connection ended before the answer to its call had begun.
    pub(super) fn ended(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ended_is_remembered_for_a_while() {
        let (trust, start) = (Trust::default(), Instant::now());
        assert!(trust.keeps(start));
        trust.clone().ended(start);
        assert!(!trust.keeps(start));
        assert!(!trust.keeps(start + Duration::from_secs(299)));
        assert!(trust.keeps(start + Duration::from_secs(300)));
    }
}
