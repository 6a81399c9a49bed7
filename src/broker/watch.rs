//! Notices a consumer that the broker has forgotten.
//!
//! A quorum queue's channel keeps acknowledgements back while 32 of them wait to be replicated. If those are lost
//! between two members of a cluster, it may wait for ever: the connection lives, the consumer is there, nothing is
//! unacknowledged that could time out, and nothing comes any more (RabbitMQ before 4.2, after a partition with
//! `cluster_partition_handling = ignore`). And a member that has lost the queue's leader for good keeps its consumers.
//! Nobody tells, so whoever hears nothing has to ask.

use std::time::Duration;

use tokio::time::Instant;

use super::sight::Sight;

/// After so much silence the queue is looked at.
const SILENCE: Duration = Duration::from_secs(20);
/// Looks in a row that find fault before the session is given up: a queue between two leaders counts as empty.
const LOOKS: u32 = 2;

/// When the queue is looked at, and what was found so far.
#[derive(Debug)]
pub(super) struct Watch {
    due: Instant,
    /// Deliveries when the silence began.
    taken: u64,
    faults: u32,
}

/// What a session knows of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intake {
    /// Deliveries so far.
    pub(super) taken: u64,
    /// The broker could send more: we consume, and have less in hand than we may.
    pub(super) has_room: bool,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now + SILENCE, taken: 0, faults: 0 }
    }

    /// When to ask [`Self::is_silent`] again.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether nothing came since the last time, though it could have: then the queue is worth a look.
    pub(super) fn is_silent(&mut self, intake: Intake, now: Instant) -> bool {
        self.due = now + SILENCE;
        let is_silent = intake.has_room && intake.taken == self.taken;
        if !is_silent {
            self.faults = 0;
        }
        self.taken = intake.taken;
        is_silent
    }

    /// Judges what was seen in a silence: what is wrong, once it was seen often enough.
    ///
    /// With a single active consumer a standby gets nothing, however full the queue; but whoever got something once
    /// is the active one for as long as the broker remembers it.
    pub(super) fn judge(&mut self, intake: Intake, sight: Sight) -> Option<String> {
        let Sight { ready, consumers } = sight;
        let problem = if consumers == 0 {
            "it has no consumer, though we are one, or no leader".to_owned()
        } else if ready > 0 && intake.taken > 0 {
            format!("{ready} messages wait in it, and we get none")
        } else {
            self.faults = 0;
            return None;
        };
        self.faults += 1;
        (self.faults >= LOOKS).then_some(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: Intake = Intake { taken: 7, has_room: true };
    const STANDBY: Intake = Intake { taken: 0, has_room: true };

    /// What comes of so many looks in a row, each of which finds `sight`.
    fn after(looks: u32, intake: Intake, sight: Sight) -> Option<String> {
        let now = Instant::now();
        let mut watch = Watch::new(now);
        // The first interval only tells how much there had been.
        watch.is_silent(intake, now);
        let judge = |_| watch.is_silent(intake, now).then(|| watch.judge(intake, sight)).flatten();
        (0..looks).map(judge).last().flatten()
    }

    #[test]
    fn messages_that_wait_for_a_served_consumer_are_a_fault_at_the_second_look() {
        let sight = Sight { ready: 3, consumers: 2 };
        assert_eq!(after(1, SERVED, sight), None);
        assert_eq!(after(2, SERVED, sight).as_deref(), Some("3 messages wait in it, and we get none"));
    }

    #[test]
    fn a_queue_without_consumers_has_forgotten_a_standby_too() {
        let sight = Sight { ready: 0, consumers: 0 };
        assert_eq!(after(1, STANDBY, sight), None);
        assert!(after(2, STANDBY, sight).is_some());
    }

    #[test]
    fn a_standby_an_idle_queue_and_full_hands_are_no_fault() {
        assert_eq!(after(9, STANDBY, Sight { ready: 3, consumers: 2 }), None);
        assert_eq!(after(9, SERVED, Sight { ready: 0, consumers: 1 }), None);
        assert_eq!(after(9, Intake { has_room: false, ..SERVED }, Sight { ready: 3, consumers: 1 }), None);
    }

    #[test]
    fn a_delivery_between_two_looks_starts_anew() {
        let now = Instant::now();
        let (mut watch, sight) = (Watch::new(now), Sight { ready: 3, consumers: 1 });
        assert!(!watch.is_silent(SERVED, now), "something came");
        assert!(watch.is_silent(SERVED, now));
        assert_eq!(watch.judge(SERVED, sight), None);
        let more = Intake { taken: 8, ..SERVED };
        assert!(!watch.is_silent(more, now), "something came");
        assert!(watch.is_silent(more, now));
        assert_eq!(watch.judge(more, sight), None);
        assert!(watch.is_silent(more, now));
        assert!(watch.judge(more, sight).is_some());
        assert_eq!(watch.due(), now + SILENCE);
    }
}
