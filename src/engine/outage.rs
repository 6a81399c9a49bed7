//! Long outages: what is in hand goes back to the broker, once, and comes again when the endpoint is back.

use std::time::Duration;

use super::batch::Load;
use super::item::ItemKey;
use super::{Engine, Time};
use crate::config::OnOutage;

/// How long suspects wait after a reconnect for those who had waited for them.
pub(super) const REJOIN: Duration = Duration::from_secs(1);

/// IDs kept as payload for probes after everything was given back. Deleting them is wanted anyway.
const KEPT_MAX: usize = 10;

/// How often the wait doubles before deliveries are taken again for something to probe with: each time they go back
/// once more, which counts towards a delivery limit, but what is new in the queue should not wait for hours.
const DOUBLINGS: u32 = 4;

impl Engine {
    /// Gives everything back in a long outage, and asks for it again afterwards.
    pub(super) fn advance_outage(&mut self, now: Time) -> bool {
        if self.shrunk.is_some_and(|(_, until)| until <= now) {
            self.shrunk = None;
        }
        if self.monitor.is_healthy() && self.calls.is_empty() && self.items.live() == 0 {
            // Whoever was in trouble is gone.
            self.monitor.forget_trouble();
        }
        if self.monitor.is_healthy() {
            self.resumptions = 0;
        }
        if self.released && self.monitor.is_healthy() {
            self.released = false;
            self.drop_lanes();
            return true;
        }
        if self.resume_at().is_some_and(|due| due <= now) {
            return self.resume_for_payload(now);
        }
        if self.release_at().is_none_or(|due| now < due) {
            return false;
        }
        if self.monitor.is_healthy() {
            // Throttled for so long is an outage too.
            self.monitor.open("has asked to slow down since, and accepted nothing", now);
        }
        self.released = true;
        self.monitor.restart_trouble(now);
        // First the consumer, or the broker hands out again what it gets back.
        self.advance_consumer();
        self.keep_probe_payload();
        self.give_back_all(false);
        self.advance_settlements(now, true);
        true
    }

    /// When a long outage is due to be acted upon.
    pub(super) fn outage_deadline(&self) -> Option<Time> {
        let shrunk = self.shrunk.map(|(_, until)| until);
        [self.release_at(), self.resume_at(), shrunk].into_iter().flatten().min()
    }

    /// Gives back every delivery in hand that is not decided yet; with `dying`, also those whose dead letters
    /// are on the way. Nobody waits for anything then.
    pub(super) fn give_back_all(&mut self, dying: bool) {
        if let Some(ledger) = &mut self.ledger {
            self.tally.messages_released += ledger.release(dying) as u64;
        }
        self.failures.clear();
        self.items.clear_waiters();
        if dying {
            self.actions.retain(|action| !matches!(action, super::Action::DeadLetter(..)));
        }
    }

    /// With nothing to probe with, deliveries are taken again to have something.
    pub(super) fn resume_for_payload(&mut self, now: Time) -> bool {
        if !self.released {
            return false;
        }
        self.released = false;
        self.resumptions = self.resumptions.saturating_add(1);
        self.monitor.restart_trouble(now);
        true
    }

    /// Forgets the fresh IDs: those who waited for them are gone.
    pub(super) fn drop_lanes(&mut self) {
        for key in std::mem::take(&mut self.lanes).into_values().flatten() {
            self.items.remove(key);
        }
    }

    fn release_at(&self) -> Option<Time> {
        let hold = self.settings.on_outage == OnOutage::Hold;
        if self.released || self.drain.is_some() || self.monitor.is_healthy() && !hold {
            return None;
        }
        let throttled = self.pace.throttled_in_row() > 0;
        let since = self.monitor.trouble_since().filter(|_| throttled || !self.monitor.is_healthy());
        since.map(|since| since + self.settings.release_after)
    }

    /// When deliveries are taken again although the outage lasts: a few IDs are all there was, nothing was ever
    /// deleted to try instead, and if just these IDs are what fails, others must be tried. Each time later.
    fn resume_at(&self) -> Option<Time> {
        let waits = self.released && self.drain.is_none() && !self.monitor.is_healthy();
        let short = self.control.is_none() && self.items.live() < KEPT_MAX;
        let since = self.monitor.trouble_since().filter(|_| waits && short);
        since.map(|since| since + self.settings.release_after * (1 << self.resumptions.min(DOUBLINGS)))
    }

    /// Keeps a few IDs in their lanes, fresh ones before suspects, and forgets all others.
    fn keep_probe_payload(&mut self) {
        let lanes = std::mem::take(&mut self.lanes).into_values().flatten();
        let suspects = std::mem::take(&mut self.suspects).into_iter().flat_map(|batch| batch.items);
        let condemned = std::mem::take(&mut self.condemned).into_iter().map(|condemned| condemned.key);
        let probing: Vec<ItemKey> = self.calls.iter().filter_map(|call| call.load.probe()).collect();
        let keys: Vec<ItemKey> = lanes.chain(suspects).chain(condemned).collect();
        let mut kept = probing.len();
        for key in keys {
            if probing.contains(&key) || !self.items.is_live(key) {
                continue;
            }
            if kept < KEPT_MAX {
                kept += 1;
                self.lanes.entry(self.items.slot_of(key)).or_default().push_back(key);
            } else {
                self.items.remove(key);
            }
        }
    }
}

impl Load {
    /// The ID of a probe under way.
    fn probe(&self) -> Option<ItemKey> {
        match self {
            Self::Probe(key, _) => Some(*key),
            Self::Fresh(_) | Self::Suspect(_) | Self::Control => None,
        }
    }
}
