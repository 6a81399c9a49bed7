//! Spoils exactly one decision of an engine: what it is told, what it is set to, or what it does.
//!
//! The engine itself stays as it is in production; a saboteur stands between it and the world.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use crate::answer::{Answer, Outcome, Rejection};
use crate::delivery::{Extent, Tag};
use crate::engine::{Action, Call, CallId, Engine, Settings, Time, Trigger};
use crate::id::Id;
use crate::retry::Ladder;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sabotage {
    /// Acknowledges a delivery when a call leaves.
    AcksEarly,
    /// Acknowledges one delivery too many.
    AcksOneMore,
    /// Takes a lost answer for a success.
    TrustsSilence,
    /// Takes what is published now for something that an earlier deletion was meant for.
    TakesAllForOld,
    /// Acknowledges before the dead letter is stored.
    TrustsLetters,
    SettlesTwice,
    /// Settles in an epoch what was delivered in another.
    SettlesLate,
    SwallowsAck,
    SwallowsLetter,
    RepeatsId,
    Overfills,
    CallsNothing,
    /// Calls with an ID of another namespace.
    MixesNamespaces,
    InventsId,
    CallsTwice,
    CallsTooMany,
    IgnoresRate,
    IgnoresPrefetch,
    IgnoresRoom,
    ConsumesTwice,
    /// Gives back without having cancelled first.
    GivesBackHot,
    /// Forgets that everything was given back, and takes it again.
    ForgetsRelease,
    NeverBreaks,
    ProbesSteadily,
    /// Calls with all IDs while the endpoint is down.
    ProbesWithAll,
    NeverProbes,
    RetriesHot,
    IgnoresRetryAfter,
    /// Takes any failure of a lone ID for a rejection.
    BlamesTheLone,
    /// One strike is enough.
    GivesUpEarly,
    LosesAnswer,
    ForgetsTimers,
    /// Names a deadline that has passed.
    LivesInThePast,
    LeavesEarly,
    NeverLeaves,
    /// Forgets fresh IDs.
    ForgetsIds,
    /// Calls with fewer IDs than it might.
    CallsWithFew,
    /// Splits batches that were deleted.
    SplitsTheGood,
    /// Doesn't slow down when it is throttled.
    NeverYields,
    /// The same, but only one worker.
    OneNeverYields,
    Panics,
}

/// One in each worker.
#[derive(Clone, Debug)]
pub(super) struct Saboteur {
    sabotage: Option<Sabotage>,
    /// Deliveries in the engine's hands.
    entered: BTreeSet<Tag>,
    settled: Option<Tag>,
    earlier: Option<Call>,
    /// Has struck.
    done: bool,
}

type Actions = SmallVec<[Action; 2]>;

impl Saboteur {
    pub(super) fn new(sabotage: Option<Sabotage>, worker: usize) -> Self {
        let sabotage = match sabotage {
            Some(Sabotage::OneNeverYields) => (worker == 0).then_some(Sabotage::NeverYields),
            other => other,
        };
        Self { sabotage, entered: BTreeSet::new(), settled: None, earlier: None, done: false }
    }

    /// The one in the worker that follows.
    pub(super) fn successor(&self) -> Self {
        Self { sabotage: self.sabotage, ..Self::new(None, 0) }
    }

    /// What the engine is set to.
    pub(super) fn settings(&self, settings: Settings) -> Settings {
        let second = Duration::from_secs(1);
        match self.sabotage {
            Some(Sabotage::Overfills) => Settings { batch_max: 2 * settings.batch_max, ..settings },
            Some(Sabotage::CallsWithFew) => Settings { batch_max: settings.batch_max * 4 / 5, ..settings },
            Some(Sabotage::CallsTooMany) => {
                Settings { concurrency_max: settings.concurrency_max + 1, ..settings }
            }
            Some(Sabotage::IgnoresRate) => Settings { rate_max: None, ..settings },
            Some(Sabotage::NeverBreaks | Sabotage::NeverYields) => {
                Settings { failure_threshold: u32::MAX, ..settings }
            }
            Some(Sabotage::ProbesSteadily) => {
                Settings { probe: Ladder::new(second, second, 1.0), ..settings }
            }
            Some(Sabotage::RetriesHot) => {
                let hot = Duration::from_millis(1);
                Settings { retry: Ladder::new(hot, hot, 1.0), ..settings }
            }
            Some(Sabotage::GivesUpEarly) => Settings { strikes_max: 1, ..settings },
            Some(_) | None => settings,
        }
    }

    /// What is asked of the broker.
    pub(super) fn prefetch(&self, prefetch: usize) -> usize {
        if self.sabotage == Some(Sabotage::IgnoresPrefetch) { usize::MAX } else { prefetch }
    }

    /// Whether the engine is fed.
    pub(super) fn has_room(&self, has_room: bool) -> bool {
        has_room || self.sabotage == Some(Sabotage::IgnoresRoom)
    }

    /// When the engine is woken.
    pub(super) fn deadline(&self, deadline: Option<Time>) -> Option<Time> {
        match self.sabotage {
            Some(Sabotage::ForgetsTimers) => None,
            Some(Sabotage::LivesInThePast) => deadline.map(|_| Time::default()),
            Some(_) | None => deadline,
        }
    }

    /// Whether every message is taken for one that was in the queue from the start.
    pub(super) fn takes_all_for_old(&self) -> bool {
        self.sabotage == Some(Sabotage::TakesAllForOld)
    }

    /// Whether a dead letter is taken for stored as soon as it is to be.
    pub(super) fn believes_in_letters(&self) -> bool {
        self.sabotage == Some(Sabotage::TrustsLetters)
    }

    /// A delivery is handed to the engine.
    pub(super) fn enters(&mut self, tag: Tag) {
        if self.sabotage.is_some() {
            self.entered.insert(tag);
        }
    }

    /// What the engine hears of an answer, if it does.
    pub(super) fn hears(&mut self, call: &Call, answer: Answer) -> Option<Answer> {
        match self.sabotage {
            Some(sabotage) => self.hears_spoilt(sabotage, call, answer),
            None => Some(answer),
        }
    }

    fn hears_spoilt(&mut self, sabotage: Sabotage, call: &Call, answer: Answer) -> Option<Answer> {
        let lone = call.ids.len() == 1;
        let rejected = Outcome::Rejected(Rejection::Invalid);
        let outcome = match (sabotage, answer.outcome) {
            (Sabotage::LosesAnswer, Outcome::Transient) if !std::mem::replace(&mut self.done, true) => {
                return None;
            }
            (Sabotage::TrustsSilence, Outcome::Transient) => Outcome::Deleted,
            (Sabotage::BlamesTheLone, Outcome::Transient) if lone => rejected,
            (Sabotage::SplitsTheGood, Outcome::Deleted) if !lone && call.attempt == 1 => rejected,
            (Sabotage::NeverYields, Outcome::Throttled) => Outcome::Transient,
            (_, outcome) => outcome,
        };
        let retry_after = answer.retry_after.filter(|_| sabotage != Sabotage::IgnoresRetryAfter);
        Some(Answer { outcome, retry_after, ..answer })
    }

    /// What is done instead of what the engine wants done.
    pub(super) fn does(&mut self, action: Action, engine: &mut Engine) -> Actions {
        match self.sabotage {
            Some(sabotage) => self.does_spoilt(sabotage, action, engine),
            None => smallvec![action],
        }
    }

    fn does_spoilt(&mut self, sabotage: Sabotage, action: Action, engine: &mut Engine) -> Actions {
        match (sabotage, &action) {
            (Sabotage::LeavesEarly, _) if engine.drain.is_some() => {
                return smallvec![Action::Drained];
            }
            (Sabotage::NeverLeaves, Action::Drained) => return smallvec![],
            (Sabotage::ConsumesTwice, Action::Consume) => return smallvec![Action::Consume, Action::Consume],
            (Sabotage::GivesBackHot, Action::Cancel) if engine.released => return smallvec![],
            (Sabotage::SwallowsLetter, Action::DeadLetter(..)) => return smallvec![],
            (Sabotage::SettlesLate, Action::Consume) => {
                let late = self.settled.take().map(|tag| Action::Ack(Extent::One(tag)));
                return late.into_iter().chain([action]).collect();
            }
            _ => {}
        }
        match action {
            Action::Call(call) => self.calls(sabotage, call, engine),
            Action::Ack(extent) => self.acks(sabotage, extent),
            Action::Consume
            | Action::Cancel
            | Action::Drained
            | Action::GiveBack(_)
            | Action::DeadLetter(..) => smallvec![action],
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "each sabotage is seen to in one place only")]
    fn acks(&mut self, sabotage: Sabotage, extent: Extent) -> Actions {
        let (Extent::One(last) | Extent::UpTo(last)) = extent;
        let next = Tag(last.0 + 1);
        self.settled = Some(last);
        match sabotage {
            Sabotage::AcksOneMore if self.entered.contains(&next) => {
                smallvec![Action::Ack(Extent::UpTo(next))]
            }
            Sabotage::SettlesTwice => smallvec![Action::Ack(extent), Action::Ack(extent)],
            Sabotage::SwallowsAck => smallvec![],
            _ => smallvec![Action::Ack(extent)],
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "each sabotage is seen to in one place only")]
    fn calls(&mut self, sabotage: Sabotage, mut call: Call, engine: &mut Engine) -> Actions {
        let probe = call.trigger == Trigger::Probe;
        let earlier = self.earlier.replace(call.clone());
        match sabotage {
            Sabotage::AcksEarly => {
                let newest = self.entered.pop_last().map(|tag| Action::Ack(Extent::One(tag)));
                return newest.into_iter().chain([Action::Call(call)]).collect();
            }
            Sabotage::NeverProbes if probe => return smallvec![],
            Sabotage::CallsTwice => {
                let again = Call { id: CallId(u64::MAX - call.id.0), ..call.clone() };
                return smallvec![Action::Call(call), Action::Call(again)];
            }
            Sabotage::RepeatsId => call.ids.push(call.ids[0].clone()),
            Sabotage::CallsNothing => call.ids.clear(),
            Sabotage::InventsId => call.ids[0] = Id::new("invented").expect("fit"),
            Sabotage::MixesNamespaces => {
                if let Some(other) = earlier.filter(|earlier| earlier.namespace != call.namespace) {
                    call.ids[0] = other.ids[0].clone();
                }
            }
            Sabotage::ForgetsRelease if probe => engine.released = false,
            Sabotage::ProbesWithAll if probe => call.trigger = Trigger::Retry,
            Sabotage::ForgetsIds => engine.lanes.clear(),
            Sabotage::Panics => resume_unwind(Box::new("sabotage".to_owned())),
            _ => {}
        }
        smallvec![Action::Call(call)]
    }
}
