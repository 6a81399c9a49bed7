//! Makes a plan that fails as small as it gets: whatever isn't needed for the same invariant to be broken goes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::invariant::{Check, Invariant, Violation};
use super::plan::{Occurrence, Plan, Temper};
use super::saboteur::Sabotage;
use super::world::{Report, run};

/// Runs of a plan that are worth it.
const RUNS_MAX: u32 = 600;

/// Runs a plan; a panic of the engine is a violation like others.
pub(super) fn attempt(plan: &Plan, sabotage: Option<Sabotage>) -> Check<Report> {
    catch_unwind(AssertUnwindSafe(|| run(plan, sabotage))).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| cause.downcast_ref::<&str>().copied());
        Err(Invariant::Unbroken.broken(text.unwrap_or("panicked")))
    })
}

/// The smallest plan found that breaks the same invariant as `plan` does, and how it does.
pub(super) fn shrink(plan: Plan, violation: Violation, sabotage: Option<Sabotage>) -> (Plan, Violation) {
    let mut shrinking = Shrinking { plan, violation, sabotage, runs: 0 };
    while shrinking.round() && shrinking.runs < RUNS_MAX {}
    (shrinking.plan, shrinking.violation)
}

struct Shrinking {
    plan: Plan,
    violation: Violation,
    sabotage: Option<Sabotage>,
    runs: u32,
}

impl Shrinking {
    /// Tries everything once; whether anything helped.
    fn round(&mut self) -> bool {
        let mut smaller = self.shorten(|plan| &mut plan.schedule);
        smaller |= self.shorten(|plan| &mut plan.spells);
        smaller |= self.calm();
        for place in 0..self.plan.schedule.len() {
            smaller |= self.thin(place);
        }
        smaller
    }

    /// Leaves out stretches of a list, from half of it down to single entries.
    fn shorten<T>(&mut self, list: impl Fn(&mut Plan) -> &mut Vec<T>) -> bool {
        let mut smaller = false;
        let mut stretch = list(&mut self.plan).len().div_ceil(2);
        while stretch > 0 {
            let mut from = 0;
            while from < list(&mut self.plan).len() {
                let helped = self.attempt(|plan| {
                    let list = list(plan);
                    list.drain(from..list.len().min(from + stretch));
                });
                smaller |= helped;
                from += if helped { 0 } else { stretch };
            }
            stretch /= 2;
        }
        smaller
    }

    /// Does without one fault of the endpoint after the other, without workers, and without waiting.
    fn calm(&mut self) -> bool {
        let calm = Temper::default();
        let mut smaller = false;
        let Temper { transient, unheard, throttled, latency_max, quota, refuses_duplicates, ids_max } =
            self.plan.temper;
        smaller |= transient > 0 && self.attempt(|plan| plan.temper.transient = 0);
        smaller |= unheard > 0 && self.attempt(|plan| plan.temper.unheard = 0);
        smaller |= throttled > 0 && self.attempt(|plan| plan.temper.throttled = 0);
        smaller |=
            latency_max > calm.latency_max && self.attempt(|plan| plan.temper.latency_max = calm.latency_max);
        smaller |= quota.is_some() && self.attempt(|plan| plan.temper.quota = None);
        smaller |= refuses_duplicates && self.attempt(|plan| plan.temper.refuses_duplicates = false);
        smaller |= ids_max.is_some() && self.attempt(|plan| plan.temper.ids_max = None);
        smaller |=
            self.plan.settings.rate_max.is_some() && self.attempt(|plan| plan.settings.rate_max = None);
        smaller |= self.plan.settings.linger > Duration::ZERO
            && self.attempt(|plan| plan.settings.linger = Duration::ZERO);
        smaller |= self.plan.company && self.attempt(|plan| plan.company = false);
        smaller |= self.plan.workers > 1 && self.attempt(dismiss);
        smaller
    }

    /// Takes half of its IDs off a message.
    fn thin(&mut self, place: usize) -> bool {
        let mut smaller = false;
        for second in [false, true] {
            let Occurrence::Publish(letter) = &self.plan.schedule[place].1 else { return smaller };
            let ids = letter.ids.clone();
            if ids.len() == 1 {
                return smaller;
            }
            let (first_half, second_half) = ids.split_at(ids.len() / 2);
            let half = if second { second_half } else { first_half };
            smaller |= self.attempt(|plan| {
                if let Occurrence::Publish(letter) = &mut plan.schedule[place].1 {
                    letter.ids = half.to_vec();
                }
            });
        }
        smaller
    }

    /// Keeps a change if the same invariant is broken with it.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let mut plan = self.plan.clone();
        change(&mut plan);
        match attempt(&plan, self.sabotage) {
            Err(violation) if violation.invariant == self.violation.invariant => {
                (self.plan, self.violation) = (plan, violation);
                true
            }
            Err(_) | Ok(_) => false,
        }
    }
}

/// Does without the last worker, and without what happens to it.
fn dismiss(plan: &mut Plan) {
    plan.workers -= 1;
    let gone = plan.workers;
    plan.schedule.retain(|(_, occurrence)| match occurrence {
        Occurrence::Cut(worker)
        | Occurrence::Drain(worker)
        | Occurrence::Crash(worker)
        | Occurrence::Freeze(worker, _)
        | Occurrence::Credentials(worker) => *worker != gone,
        Occurrence::Publish(_) | Occurrence::Restart => true,
    });
}
