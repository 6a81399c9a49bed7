//! Looks over one worker's shoulder, from its start to its end: what it was told, what it does, and whether it may.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::broker::Message;
use super::caller::Caller;
use super::endpoint::Key;
use super::invariant::{Check, Invariant};
use super::plan::{Letter, Nature, Plan};
use crate::answer::{Answer, Outcome, Rejection};
use crate::config::OnOutage;
use crate::delivery::{Extent, Obituary, Reason, Tag};
use crate::engine::{Call, Engine, Settings, Tally, Time};
use crate::id::Id;

#[derive(Debug)]
pub(super) struct Watch {
    settings: Settings,
    /// Counts what was seen, for before and after.
    step: u64,
    /// Deliveries that the engine has in hand.
    held: BTreeMap<Tag, Held>,
    /// What it was ever asked to delete.
    asked: BTreeSet<Key>,
    /// The last confirmation of each ID's deletion.
    confirmed: BTreeMap<Key, Confirmation>,
    /// The latest delivery of the epoch, and how many tags were skipped: they went back unseen.
    latest: Tag,
    pub(super) skipped: u64,
    /// The IDs of the largest message so far.
    largest: usize,
    /// Calls under way, and when they left.
    calls: Vec<(Call, Time)>,
    caller: Caller,
    /// Departures within the last second.
    departures: VecDeque<Time>,
    arrivals: VecDeque<Time>,
    tally: Tally,
    released: bool,
    /// Releases since something was last accepted, and when the first of them was.
    releases: u32,
    first_release: Time,
    blames_all: bool,
}

#[derive(Debug)]
struct Held {
    letter: Rc<Letter>,
    keys: Vec<Key>,
    redelivered: bool,
    published: Time,
    since: u64,
    dying: bool,
    stored: bool,
}

#[derive(Clone, Copy, Debug)]
struct Confirmation {
    /// When it was heard of.
    step: u64,
    /// When the call left.
    departed: Time,
}

impl Watch {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            settings: plan.settings.clone(),
            step: 0,
            held: BTreeMap::new(),
            asked: BTreeSet::new(),
            confirmed: BTreeMap::new(),
            latest: Tag(0),
            skipped: 0,
            largest: 0,
            calls: Vec::new(),
            caller: Caller::new(&plan.settings),
            departures: VecDeque::new(),
            arrivals: VecDeque::new(),
            tally: Tally::default(),
            released: false,
            releases: 0,
            first_release: Time::default(),
            blames_all: plan.rejects_all() || plan.settings.on_outage == OnOutage::DeadLetter,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// The number of the message in hand under `tag`.
    pub(super) fn number(&self, tag: Tag) -> Option<usize> {
        self.held.get(&tag).map(|held| held.letter.number)
    }

    /// A delivery is handed to the engine.
    pub(super) fn enters(&mut self, tag: Tag, message: &Message) -> Check {
        self.step += 1;
        let letter = Rc::clone(&message.letter);
        let keys: Vec<Key> = keys(&letter, &self.settings).collect();
        if !letter.malformed {
            self.asked.extend(keys.iter().cloned());
            self.largest = self.largest.max(keys.len());
        }
        self.skipped += tag.0 - self.latest.0 - 1;
        self.latest = tag;
        let Message { redelivered, published, .. } = *message;
        let held =
            Held { letter, keys, redelivered, published, since: self.step, dying: false, stored: false };
        self.held.insert(tag, held);
        let count = self.held.len();
        Invariant::Prefetch.holds(count <= self.settings.prefetch, || format!("{count} deliveries in hand"))
    }

    /// The epoch is over.
    pub(super) fn lost(&mut self, engine: &mut Engine) {
        self.held.clear();
        self.latest = Tag(0);
        engine.take_tally();
        self.tally = Tally::default();
    }

    /// The worker's token was replaced.
    pub(super) fn credentials_changed(&mut self, engine: &Engine) {
        self.caller.credentials_changed(engine);
    }

    /// A dead letter is stored, though the worker doesn't know it yet.
    pub(super) fn stored(&mut self, tag: Tag) {
        // Given back in the meantime, it may be stored nevertheless.
        if let Some(held) = self.held.get_mut(&tag) {
            held.stored = true;
        }
    }

    /// The endpoint's true answer reached the worker.
    pub(super) fn hears(&mut self, call: &Call, answer: &Answer, now: Time) {
        self.step += 1;
        let departed =
            self.calls.iter().find(|(other, _)| other.id == call.id).map(|(_, departed)| *departed);
        self.calls.retain(|(other, _)| other.id != call.id);
        self.caller.hears(call, answer, now);
        let duplicate = answer.outcome == Outcome::Rejected(Rejection::Duplicate) && call.ids.len() == 1;
        if answer.outcome == Outcome::Deleted || duplicate {
            let confirmation = Confirmation { step: self.step, departed: departed.unwrap_or_default() };
            for id in &call.ids {
                self.confirmed.insert((call.namespace.clone(), id.clone()), confirmation);
            }
        }
        if matches!(answer.outcome, Outcome::Deleted | Outcome::Rejected(_)) {
            self.releases = 0;
        }
    }

    /// What must hold whenever the engine has handled something.
    pub(super) fn handled(&mut self, engine: &Engine) -> Check {
        self.caller.handled(engine)?;
        let (live, room) = (engine.items.live(), self.settings.ids_max() + self.largest);
        Invariant::Room.holds(live <= room, || format!("{live} IDs in hand"))
    }

    /// A call leaves.
    pub(super) fn departs(&mut self, call: &Call, engine: &Engine, now: Time) -> Check {
        let ids: BTreeSet<_> = call.ids.iter().collect();
        let why = || format!("{call:?}");
        Invariant::NotEmpty.holds(!ids.is_empty(), why)?;
        Invariant::NoRepeats.holds(ids.len() == call.ids.len(), why)?;
        Invariant::NotOverfull.holds(ids.len() <= self.settings.batch_max, why)?;
        let asked = |id: &Id| self.asked.contains(&(call.namespace.clone(), id.clone()));
        Invariant::Asked.holds(call.ids.iter().all(asked), why)?;
        for (other, _) in &self.calls {
            let shared = other.ids.iter().any(|id| ids.contains(id)) && other.namespace == call.namespace;
            // A probe may be one of an ID deleted before, which may be asked for anew.
            let control = other.trigger == crate::engine::Trigger::Probe;
            Invariant::NotShared.holds(!shared || control, || format!("{call:?} and {other:?}"))?;
        }
        let concurrent = self.calls.len() + 1;
        Invariant::Concurrency
            .holds(concurrent <= self.settings.concurrency_max, || format!("{concurrent} calls at a time"))?;
        check_rate(&mut self.departures, &self.settings, now, "leave")?;
        self.caller.departs(call, engine, now)?;
        self.calls.push((call.clone(), now));
        Ok(())
    }

    /// A call of it arrives at the endpoint.
    pub(super) fn arrives(&mut self, now: Time) -> Check {
        check_rate(&mut self.arrivals, &self.settings, now, "arrive")
    }

    /// A settlement goes out.
    pub(super) fn settles(&mut self, extent: Extent, ack: bool) -> Check {
        let (first, last) = match extent {
            Extent::One(tag) => (tag, tag),
            Extent::UpTo(tag) => (Tag(0), tag),
        };
        Invariant::SettledOnce.holds(self.held.contains_key(&last), || format!("{last:?} is not in hand"))?;
        let Self { held, confirmed, .. } = self;
        for (tag, held) in held.extract_if(first..=last, |_, _| true).filter(|_| ack) {
            let done = |key: &Key| {
                confirmed.get(key).is_some_and(|Confirmation { step, departed }| {
                    held.redelivered || *step >= held.since || *departed >= held.published
                })
            };
            if held.dying {
                Invariant::AckedStored.holds(held.stored, || format!("{tag:?}: {held:?}"))?;
            } else {
                let done = !held.letter.malformed && held.keys.iter().all(done);
                Invariant::AckedConfirmed.holds(done, || format!("{tag:?}: {held:?}"))?;
            }
        }
        Ok(())
    }

    /// A dead letter is to be stored.
    pub(super) fn buries(&mut self, tag: Tag, obituary: &Obituary) -> Check {
        let Some(held) = self.held.get_mut(&tag) else {
            return Err(Invariant::SettledOnce.broken(format!("dead-letters {tag:?}, not in hand")));
        };
        let again = std::mem::replace(&mut held.dying, true);
        Invariant::SettledOnce.holds(!again, || format!("dead-letters {tag:?} twice"))?;
        let failed = &obituary.failed_ids;
        let holds = |nature| failed.iter().any(|id| Nature::of(id) == nature);
        let malformed = held.letter.malformed;
        let consistent =
            malformed == (obituary.reason == Reason::Malformed) && malformed == failed.is_empty();
        let own = failed.iter().all(|id| held.letter.ids.contains(id));
        let bad = match obituary.reason {
            Reason::Malformed => true,
            Reason::Rejected => holds(Nature::Bad),
            Reason::RetriesExhausted => holds(Nature::Poison),
        };
        let deserved = self.blames_all || bad && !holds(Nature::Good);
        Invariant::BlamedBad
            .holds(consistent && own && deserved, || format!("{:?} {obituary:?}", held.letter))
    }

    /// What must hold once the engine has come to rest.
    pub(super) fn rested(&mut self, engine: &mut Engine, now: Time) -> Check {
        let (counted, held) = (engine.snapshot().messages_unsettled, self.held.len());
        Invariant::Books.holds(counted == held, || format!("{counted} in hand instead of {held}"))?;
        self.check_tally(engine)?;
        self.check_release(engine, now)
    }

    /// Adds up the engine's counts and compares them with what happened.
    fn check_tally(&mut self, engine: &mut Engine) -> Check {
        let tally = engine.take_tally();
        self.tally.messages_received += tally.messages_received;
        self.tally.messages_deleted += tally.messages_deleted;
        self.tally.messages_dead_lettered += tally.messages_dead_lettered;
        self.tally.messages_released += tally.messages_released;
        let Tally { messages_received: received, messages_deleted, messages_dead_lettered, .. } = self.tally;
        let decided = messages_deleted + messages_dead_lettered + self.tally.messages_released;
        let undecided = received.checked_sub(decided);
        Invariant::Books.holds(undecided.is_some_and(|undecided| undecided <= self.held.len() as u64), || {
            format!("{decided} of {received} decided, {} in hand", self.held.len())
        })
    }

    fn check_release(&mut self, engine: &Engine, now: Time) -> Check {
        let began = engine.released && !std::mem::replace(&mut self.released, engine.released);
        self.released = engine.released;
        if !began {
            return Ok(());
        }
        if self.releases == 0 {
            self.first_release = now;
        }
        self.releases += 1;
        // The n-th pause for want of a payload is the first one doubled n - 1 times.
        let pauses = now.since(self.first_release).div_duration_f64(self.settings.release_after);
        let may = match self.confirmed.is_empty() {
            true => 1.0 + (1.0 + pauses).log2().min(5.0) + pauses / 16.0,
            false => 1.0,
        };
        let releases = self.releases;
        Invariant::ReleasedOnce.holds(f64::from(releases) <= may, || {
            format!("{releases} times in one outage, of which it may {may:.1}")
        })
    }
}

/// No window of a second sees more than the ceiling.
fn check_rate(times: &mut VecDeque<Time>, settings: &Settings, now: Time, they: &str) -> Check {
    let Some(rate) = settings.rate_max else { return Ok(()) };
    while times.front().is_some_and(|at| now.since(*at) >= Duration::from_secs(1)) {
        times.pop_front();
    }
    times.push_back(now);
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let count = times.len() as f64;
    Invariant::Rate.holds(count <= rate, || format!("{count} calls {they} in a second"))
}

/// The IDs of a letter, as the endpoint knows them.
pub(super) fn keys(letter: &Letter, settings: &Settings) -> impl Iterator<Item = Key> {
    let default = settings.namespace.as_ref();
    let namespace = default.map(|default| letter.namespace.as_ref().unwrap_or(default).clone());
    letter.ids.iter().map(move |id| (namespace.clone(), id.clone()))
}
