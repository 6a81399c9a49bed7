//! A model of the delete endpoint.

use std::collections::BTreeSet;
use std::time::Duration;

use super::plan::{Nature, Plan, SpellKind};
use crate::answer::{Answer, Outcome, Rejection};
use crate::engine::{Call, Time};
use crate::id::{Id, Namespace};

#[derive(Debug, Default)]
pub(super) struct Endpoint {
    deleted: BTreeSet<(Option<Namespace>, Id)>,
}

impl Endpoint {
    /// How long it takes to answer.
    pub(super) fn latency(plan: &Plan, now: Time, rng: &mut fastrand::Rng) -> Duration {
        let faulty = now < plan.faults_end;
        if faulty && rng.u8(..100) == 0 {
            return Duration::from_secs(30);
        }
        plan.endpoint.latency_max.mul_f64(rng.f64())
    }

    /// Does what `call` asks for, as far as it is in the mood to.
    pub(super) fn answer(&mut self, plan: &Plan, call: &Call, now: Time, rng: &mut fastrand::Rng) -> Answer {
        let temper = plan.endpoint;
        let faulty = now < plan.faults_end;
        let keys = || call.ids.iter().map(|id| (call.namespace.clone(), id.clone()));
        match plan.spell(now) {
            Some(SpellKind::Blocked) => return said(Outcome::Blocked, "0401", 200),
            Some(SpellKind::Outage) => {
                if rng.u8(..8) == 0 && call.ids.iter().all(|id| Nature::of(id) == Nature::Good) {
                    self.deleted.extend(keys());
                }
                return said(Outcome::Transient, "", 503);
            }
            Some(SpellKind::RejectsAll) => return said(Outcome::Rejected(Rejection::Invalid), "0001", 200),
            Some(SpellKind::Throttles) => return throttled(rng),
            None => {}
        }
        if faulty && rng.f64() < temper.throttled {
            return throttled(rng);
        }
        if faulty && rng.f64() < temper.transient || holds(call, Nature::Poison) {
            return said(Outcome::Transient, "", 500);
        }
        if call.ids.len() > temper.ids_max {
            return said(Outcome::Rejected(Rejection::TooLarge), "", 413);
        }
        if holds(call, Nature::Bad) {
            return said(Outcome::Rejected(Rejection::Invalid), "0001", 200);
        }
        if temper.refuses_duplicates && keys().any(|key| self.deleted.contains(&key)) {
            return said(Outcome::Rejected(Rejection::Duplicate), "0409", 200);
        }
        self.deleted.extend(keys());
        if faulty && rng.f64() < temper.unheard {
            return said(Outcome::Transient, "", 504);
        }
        said(Outcome::Deleted, "0000", 200)
    }
}

fn holds(call: &Call, nature: Nature) -> bool {
    call.ids.iter().any(|id| Nature::of(id) == nature)
}

fn throttled(rng: &mut fastrand::Rng) -> Answer {
    let retry_after = rng.bool().then(|| Duration::from_secs(rng.u64(..100)));
    Answer { retry_after, ..said(Outcome::Throttled, "0429", 200) }
}

fn said(outcome: Outcome, code: &str, http_status: u16) -> Answer {
    Answer {
        outcome,
        code: (!code.is_empty()).then(|| code.into()),
        http_status: Some(http_status),
        retry_after: None,
        detail: format!("answered {http_status} {code}"),
    }
}
