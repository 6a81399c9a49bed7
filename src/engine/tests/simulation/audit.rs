//! What holds of the engine's inside at all times.

use std::collections::BTreeSet;

use crate::engine::batch::Load;
use crate::engine::{Engine, Time};

/// Every live item is in exactly one lane, batch or call, none is forgotten, and the counts agree.
pub(super) fn audit(engine: &Engine, now: Time) {
    let lanes = engine.lanes.values().flatten();
    let suspects = engine.suspects.iter().flat_map(|batch| &batch.items);
    let condemned = engine.condemned.iter().map(|condemned| &condemned.key);
    let mut in_flight = Vec::new();
    for call in &engine.calls {
        match &call.load {
            Load::Fresh(batch) | Load::Suspect(batch) => in_flight.extend(batch.items.iter().copied()),
            Load::Probe(key, _) => in_flight.push(*key),
            Load::Control => {}
        }
    }
    assert_eq!(engine.ids_in_flight, in_flight.len(), "IDs in flight");
    let mut seen = BTreeSet::new();
    for key in lanes.chain(suspects).chain(condemned).chain(&in_flight) {
        assert!(engine.items.is_live(*key), "a stale key");
        let id = (engine.items.slot_of(*key), engine.items.id(*key).clone());
        assert!(seen.insert(id), "{:?} is in two places", engine.items.id(*key));
    }
    assert_eq!(seen.len(), engine.items.live(), "live items are somewhere");
    assert!(engine.lanes.values().all(|lane| !lane.is_empty()), "no lane is empty");
    let limit = engine.settings.batch_max;
    assert!(engine.suspects.iter().all(|batch| batch.items.len() <= limit), "batches are bounded");
    assert!(engine.suspects.iter().all(|batch| batch.strikes < engine.settings.strikes_max), "strikes");
    if let Some(ledger) = &engine.ledger {
        assert!(ledger.in_hand() <= engine.settings.prefetch, "in hand beyond the prefetch");
        assert!(engine.failures.len() <= ledger.in_hand(), "failures of deliveries not in hand");
    } else {
        assert!(engine.failures.is_empty(), "failures without deliveries");
    }
    if let Some(deadline) = engine.deadline() {
        assert!(deadline > now, "the deadline {deadline:?} has passed at {now:?}: a hot loop");
    }
}
