//! What holds of the engine's inside at all times.

use std::collections::BTreeSet;

use super::invariant::{Check, Invariant};
use crate::engine::batch::Load;
use crate::engine::{Engine, Time};

/// Every live item is in exactly one lane, batch or call, none is forgotten, and the counts agree.
pub(super) fn audit(engine: &Engine) -> Check {
    let whole = |holds: bool, what: &str| Invariant::Whole.holds(holds, || format!("{what}: {engine:?}"));
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
    whole(engine.ids_in_flight == in_flight.len(), "IDs in flight")?;
    let mut seen = BTreeSet::new();
    for key in lanes.chain(suspects).chain(condemned).chain(&in_flight) {
        whole(engine.items.is_live(*key), "a stale key")?;
        let first = seen.insert((engine.items.slot_of(*key), engine.items.id(*key)));
        whole(first, "an ID is in two places")?;
    }
    whole(seen.len() == engine.items.live(), "a live item is nowhere")?;
    whole(engine.lanes.values().all(|lane| !lane.is_empty()), "an empty lane")?;
    let limit = engine.settings.batch_max;
    whole(engine.suspects.iter().all(|batch| batch.items.len() <= limit), "a batch over its limit")?;
    let strikes_max = engine.settings.strikes_max;
    whole(engine.suspects.iter().all(|batch| batch.strikes < strikes_max), "a batch with too many strikes")?;
    let in_hand = engine.ledger.as_ref().map_or(0, crate::engine::Ledger::in_hand);
    whole(engine.failures.len() <= in_hand, "failures of deliveries not in hand")
}

/// Nothing to be done is overdue.
pub(super) fn rests(deadline: Option<Time>, now: Time) -> Check {
    let ahead = deadline.is_none_or(|deadline| deadline > now);
    Invariant::Rests.holds(ahead, || format!("the deadline {deadline:?} has passed at {now:?}"))
}
