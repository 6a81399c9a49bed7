//! A model of the delete endpoint: one account, whoever calls.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::plan::{Nature, Plan, SpellKind};
use crate::answer::{Answer, Outcome, Rejection};
use crate::engine::{Call, Time};
use crate::id::{Id, Namespace};

/// An ID as the endpoint knows it.
pub(super) type Key = (Option<Namespace>, Id);

/// It takes no longer to reach the endpoint on an open connection; the engine counts on 100 ms.
const TRANSIT_MAX: Duration = Duration::from_millis(90);

/// When the client gives up.
const TIMEOUT: Duration = Duration::from_secs(30);

const QUOTA_WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Endpoint {
    rng: fastrand::Rng,
    deleted: BTreeSet<Key>,
    /// The calls accepted within the last second.
    accepted: VecDeque<Time>,
}

/// How a call travels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Journey {
    /// When it reaches the endpoint.
    pub(super) arrives: Time,
    /// When the caller hears of it.
    pub(super) returns: Time,
}

impl Endpoint {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), deleted: BTreeSet::new(), accepted: VecDeque::new() }
    }

    pub(super) fn has_deleted(&self, key: &Key) -> bool {
        self.deleted.contains(key)
    }

    /// How a call that leaves now will travel.
    pub(super) fn journey(&mut self, plan: &Plan, now: Time) -> Journey {
        let hangs = now < plan.faults_end && self.rng.u32(..100) == 0 && !plan.is_spotless();
        let taken = if hangs { TIMEOUT } else { plan.temper.latency_max.mul_f64(self.rng.f64()) };
        let transit = taken.min(TRANSIT_MAX).mul_f64(self.rng.f64());
        Journey { arrives: now + transit, returns: now + taken }
    }

    /// Does what `call` asks for, as far as it is in the mood to. A call that hangs is answered to nobody.
    pub(super) fn answer(&mut self, plan: &Plan, call: &Call, journey: Journey) -> Answer {
        let answer = self.decide(plan, call, journey.arrives);
        if journey.returns.since(journey.arrives) >= TIMEOUT - TRANSIT_MAX {
            return Answer::lost("did not answer within 30 s");
        }
        answer
    }

    fn decide(&mut self, plan: &Plan, call: &Call, now: Time) -> Answer {
        let keys = || call.ids.iter().map(|id| (call.namespace.clone(), id.clone()));
        match plan.endpoint_spell(now) {
            Some(SpellKind::Blocked) => return said(Outcome::Blocked, "0401", 200),
            Some(SpellKind::Outage) => {
                if self.rng.u8(..8) == 0 && call.ids.iter().all(|id| Nature::of(id) == Nature::Good) {
                    self.deleted.extend(keys());
                }
                return said(Outcome::Transient, "", 503);
            }
            Some(SpellKind::RejectsAll) => return said(Outcome::Rejected(Rejection::Invalid), "0001", 200),
            Some(SpellKind::Throttles) => return self.throttled(),
            Some(SpellKind::Flaps) if now.elapsed().as_secs().is_multiple_of(2) => {
                return said(Outcome::Transient, "", 502);
            }
            Some(SpellKind::Flaps | SpellKind::BrokerStalls | SpellKind::LettersRefused) | None => {}
        }
        if !self.has_quota(plan, now) {
            return said(Outcome::Throttled, "0429", 200);
        }
        let temper = plan.temper;
        let faulty = now < plan.faults_end;
        let mut chance = |of_thousand| faulty && of_thousand > 0 && self.rng.u32(..1000) < of_thousand;
        let (throttled, transient, unheard) =
            (chance(temper.throttled), chance(temper.transient), chance(temper.unheard));
        if throttled {
            return self.throttled();
        }
        if transient || holds(call, Nature::Poison) {
            return said(Outcome::Transient, "", 500);
        }
        if temper.ids_max.is_some_and(|max| call.ids.len() > max) {
            return said(Outcome::Rejected(Rejection::TooLarge), "", 413);
        }
        if holds(call, Nature::Bad) {
            return said(Outcome::Rejected(Rejection::Invalid), "0001", 200);
        }
        if temper.refuses_duplicates && keys().any(|key| self.deleted.contains(&key)) {
            return said(Outcome::Rejected(Rejection::Duplicate), "0409", 200);
        }
        self.deleted.extend(keys());
        if unheard {
            return said(Outcome::Transient, "", 504);
        }
        said(Outcome::Deleted, "0000", 200)
    }

    /// Takes a place in the second if there is one; calls over the quota don't count.
    fn has_quota(&mut self, plan: &Plan, now: Time) -> bool {
        let Some(quota) = plan.temper.quota else { return true };
        while self.accepted.front().is_some_and(|at| now.since(*at) >= QUOTA_WINDOW) {
            self.accepted.pop_front();
        }
        let has = self.accepted.len() < quota;
        if has {
            self.accepted.push_back(now);
        }
        has
    }

    fn throttled(&mut self) -> Answer {
        let retry_after = self.rng.bool().then(|| Duration::from_secs(self.rng.u64(..100)));
        Answer { retry_after, ..said(Outcome::Throttled, "0429", 200) }
    }
}

impl Plan {
    fn endpoint_spell(&self, now: Time) -> Option<SpellKind> {
        let rules =
            |spell: &&super::plan::Spell| spell.kind.is_endpoints() && spell.from <= now && now < spell.to;
        self.spells.iter().find(rules).map(|spell| spell.kind)
    }

    /// Whether no call fails by chance.
    fn is_spotless(&self) -> bool {
        let Self { temper, .. } = self;
        temper.transient == 0 && temper.unheard == 0 && temper.throttled == 0
    }
}

fn holds(call: &Call, nature: Nature) -> bool {
    call.ids.iter().any(|id| Nature::of(id) == nature)
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
