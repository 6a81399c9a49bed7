//! `deletion-worker demo`: the whole system on one machine.
//!
//! `load` plans what is published and what must come of it, `script` makes the mock endpoint misbehave along the
//! way, `stage` sets worker and broker up so that nothing of anybody's is touched, `summary` holds what was seen
//! against the plan.

pub mod load;
pub mod script;
pub mod stage;
pub mod summary;
