//! The engine between a modelled broker and a modelled endpoint, and what must hold of its actions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::audit::audit;
use super::broker::{Broker, Command, Message, Notice};
use super::endpoint::Endpoint;
use super::plan::{Nature, Occurrence, Plan};
use crate::answer::{Outcome, Rejection};
use crate::config::OnOutage;
use crate::delivery::{Arrival, Extent, Obituary, Reason, Tag};
use crate::engine::{Action, Call, Engine, Tally, Time, Trigger};
use crate::id::{Id, Namespace};
use crate::request::{Malformed, Request};

/// How long after the last fault everything must be settled.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// Virtual events a schedule may take: far more than the longest needs.
const STEPS_MAX: u64 = 400_000;

type Key = (Option<Namespace>, Id);

#[derive(Debug)]
pub(super) struct World {
    plan: Plan,
    rng: fastrand::Rng,
    now: Time,
    /// Counts events, for before and after.
    step: u64,
    schedule: VecDeque<(Time, Occurrence)>,
    engine: Engine,
    /// Workers so far; calls of former ones are answered to nobody.
    worker: u64,
    draining_since: Option<Time>,
    connects_at: Option<Time>,
    broker: Broker,
    endpoint: Endpoint,
    calls: Vec<(Time, u64, Call)>,
    departures: VecDeque<Time>,
    /// Deliveries that the engine has in hand.
    held: BTreeMap<Tag, Held>,
    /// The last step at which the endpoint confirmed an ID's deletion.
    confirmed: BTreeMap<Key, u64>,
    published: usize,
    /// When the next good message comes, after the faults: a lone poison ID is only found out beside others.
    company_at: Option<Time>,
    tally: Tally,
}

#[derive(Debug)]
struct Held {
    message: Message,
    since: u64,
    dying: bool,
    stored: bool,
}

impl World {
    pub(super) fn new(mut plan: Plan) -> Self {
        let company_at = plan.has_poison().then_some(plan.faults_end);
        let schedule = std::mem::take(&mut plan.schedule).into();
        Self {
            rng: fastrand::Rng::with_seed(plan.seed ^ 0x5eed),
            now: Time::default(),
            step: 0,
            schedule,
            engine: Engine::new(plan.settings.clone(), plan.seed),
            worker: 0,
            draining_since: None,
            connects_at: Some(Time::default()),
            broker: Broker::new(plan.settings.prefetch),
            endpoint: Endpoint::default(),
            calls: Vec::new(),
            departures: VecDeque::new(),
            held: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            published: 0,
            company_at,
            tally: Tally::default(),
            plan,
        }
    }

    /// Runs the schedule to its end.
    pub(super) fn run(mut self) {
        self.run_dry();
        self.check_end();
        let worker = self.worker;
        self.occur(Occurrence::Drain);
        self.poll();
        self.run_dry();
        assert!(self.worker > worker, "the idle drain doesn't end: {:?}", self.engine);
    }

    fn run_dry(&mut self) {
        while let Some(next) = self.next() {
            self.step(next);
            self.check_progress();
        }
    }

    /// When something happens next.
    fn next(&mut self) -> Option<Time> {
        let call = self.calls.iter().map(|(due, ..)| *due).min();
        let schedule = self.schedule.front().map(|(due, _)| *due);
        let broker = self.broker.next(self.engine.has_room());
        let world = [call, schedule, self.connects_at, self.company_at, broker];
        let world = world.into_iter().flatten().min();
        let Some(deadline) = self.engine.deadline() else { return world };
        // A timer may fire late.
        let late = Duration::from_micros(if self.rng.u8(..5) == 0 { self.rng.u64(..50_000) } else { 0 });
        Some(world.map_or(deadline + late, |world| world.min(deadline + late)))
    }

    fn step(&mut self, next: Time) {
        self.now = self.now.max(next);
        while self.happen() {
            self.step += 1;
            // The worker may feed several events before it polls.
            if self.rng.u8(..4) != 0 {
                self.poll();
            }
        }
        self.step += 1;
        self.poll();
        audit(&self.engine, self.now);
        let snapshot = self.engine.snapshot();
        assert_eq!(snapshot.messages_unsettled, self.held.len(), "deliveries in hand");
        self.tally();
    }

    /// Lets one thing happen that is due.
    fn happen(&mut self) -> bool {
        let now = self.now;
        if self.schedule.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, occurrence)) = self.schedule.pop_front() {
                self.occur(occurrence);
            }
            return true;
        }
        if self.connects_at.is_some_and(|due| due <= now) {
            self.connects_at = None;
            self.broker.connect();
            self.engine.handle_connected(now);
            return true;
        }
        if self.company_at.is_some_and(|due| due <= now) {
            self.company();
            return true;
        }
        if let Some(place) = self.calls.iter().position(|(due, ..)| *due <= now) {
            let (_, worker, call) = self.calls.swap_remove(place);
            self.answer(worker, &call);
            return true;
        }
        if let Some(notice) = self.broker.notice(self.engine.has_room(), now) {
            match notice {
                Notice::Delivery(tag, message) => self.deliver(tag, message),
                Notice::Cancelled => self.engine.handle_cancelled(),
            }
            return true;
        }
        let stored = self.broker.stored(now);
        if !stored.is_empty() {
            for tag in &stored {
                // Given back in the meantime, it may be stored nevertheless.
                if let Some(held) = self.held.get_mut(tag) {
                    held.stored = true;
                }
            }
            self.engine.handle_dead_lettered(&stored, now);
            return true;
        }
        self.broker.obey(now, &mut self.rng)
    }

    fn occur(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Publish(message) => {
                self.published += 1;
                self.broker.publish(message, self.now, &mut self.rng);
            }
            Occurrence::Cut => {
                if self.broker.is_connected() {
                    self.disconnect();
                    self.engine.handle_disconnected();
                }
            }
            Occurrence::Drain => {
                self.draining_since.get_or_insert(self.now);
                self.engine.handle_drain(self.now);
            }
            Occurrence::Crash => self.replace_worker(),
            Occurrence::Credentials => self.engine.handle_credentials_changed(self.now),
        }
    }

    /// Publishes a good message as long as something isn't settled.
    fn company(&mut self) {
        self.company_at = (!self.is_settled()).then(|| self.now + Duration::from_secs(5));
        if self.company_at.is_some() {
            let ids = vec![Id::new(&format!("company{}", self.published)).expect("fit")];
            let number = 1_000_000 + self.published;
            let message = Message { number, ids, namespace: None, malformed: false, redelivered: false };
            self.occur(Occurrence::Publish(message));
        }
    }

    fn is_settled(&self) -> bool {
        self.schedule.is_empty() && self.broker.settled.len() == self.published
    }

    fn disconnect(&mut self) {
        if self.broker.is_connected() {
            self.broker.disconnect(&mut self.rng);
            self.connects_at = Some(self.now + Duration::from_millis(self.rng.u64(..5_000)));
        }
        self.held.clear();
        if self.rng.u8(..4) == 0 {
            self.broker.lose_one(&mut self.rng);
        }
        self.engine.take_tally();
        self.tally = Tally::default();
    }

    fn replace_worker(&mut self) {
        self.disconnect();
        self.worker += 1;
        self.draining_since = None;
        self.departures.clear();
        self.engine = Engine::new(self.plan.settings.clone(), self.plan.seed + self.worker);
        self.tally = Tally::default();
    }

    fn deliver(&mut self, tag: Tag, message: Message) {
        let request = if message.malformed {
            Err(Malformed("is not JSON".to_owned()))
        } else {
            let ids = message.ids.iter().cloned().collect();
            Ok(Request { ids, namespace: message.namespace.clone(), origin: None })
        };
        let redelivered = message.redelivered;
        let held = Held { message, since: self.step, dying: false, stored: false };
        assert!(self.held.insert(tag, held).is_none(), "the model repeats a tag");
        self.engine.handle_arrival(Arrival { tag, redelivered, age: None, request }, self.now);
    }

    fn answer(&mut self, worker: u64, call: &Call) {
        let answer = self.endpoint.answer(&self.plan, call, self.now, &mut self.rng);
        if worker != self.worker {
            return;
        }
        let duplicate = answer.outcome == Outcome::Rejected(Rejection::Duplicate) && call.ids.len() == 1;
        if answer.outcome == Outcome::Deleted || duplicate {
            for id in &call.ids {
                self.confirmed.insert((call.namespace.clone(), id.clone()), self.step);
            }
        }
        self.engine.handle_answer(call.id, answer, self.now);
    }

    /// Polls until there is nothing to do, and checks each action.
    fn poll(&mut self) {
        let most = 100 + 4 * self.plan.settings.prefetch + 4 * self.engine.items.live();
        for _ in 0..most {
            let Some(action) = self.engine.poll(self.now) else { return };
            match action {
                Action::Call(call) => self.depart(call),
                Action::Ack(extent) => self.settle(extent, true),
                Action::GiveBack(extent) => self.settle(extent, false),
                Action::DeadLetter(tag, obituary) => self.bury(tag, &obituary),
                Action::Consume => self.broker.command(Command::Consume, self.now, &mut self.rng),
                Action::Cancel => self.broker.command(Command::Cancel, self.now, &mut self.rng),
                Action::Drained => {
                    assert!(self.draining_since.is_some(), "drained unasked");
                    assert!(self.held.is_empty(), "leaves with deliveries in hand");
                    assert_eq!(self.engine.poll(self.now), None, "nothing follows");
                    self.tally();
                    return self.replace_worker();
                }
            }
        }
        panic!("more than {most} actions at once");
    }

    fn depart(&mut self, call: Call) {
        let ids: BTreeSet<&Id> = call.ids.iter().collect();
        assert!(!ids.is_empty(), "an empty call");
        assert_eq!(ids.len(), call.ids.len(), "an ID twice in {call:?}");
        assert!(ids.len() <= self.plan.settings.batch_max, "over the limit");
        assert_eq!(call.namespace.is_some(), self.plan.settings.namespace.is_some(), "namespace");
        assert!(call.trigger != Trigger::Probe || ids.len() == 1, "a probe is small");
        let mine = self.calls.iter().filter(|(_, worker, _)| *worker == self.worker);
        for (_, _, other) in mine.clone() {
            assert_ne!(other.id, call.id);
            let shared = other.ids.iter().any(|id| ids.contains(id)) && other.namespace == call.namespace;
            // A probe may be one of an ID deleted before, which may be asked for anew.
            assert!(!shared || other.trigger == Trigger::Probe, "{call:?} shares an ID with {other:?}");
        }
        assert!(mine.count() < self.plan.settings.concurrency_max, "too many calls");
        self.check_rate();
        let due = self.now + Endpoint::latency(&self.plan, self.now, &mut self.rng);
        self.calls.push((due, self.worker, call));
    }

    fn check_rate(&mut self) {
        let Some(rate) = self.plan.settings.rate_max else { return };
        while self.departures.front().is_some_and(|at| self.now.since(*at) >= Duration::from_secs(1)) {
            self.departures.pop_front();
        }
        self.departures.push_back(self.now);
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let departures = self.departures.len() as f64;
        assert!(departures <= rate, "{departures} calls in a second");
    }

    fn settle(&mut self, extent: Extent, ack: bool) {
        let (first, last) = match extent {
            Extent::One(tag) => (tag, tag),
            Extent::UpTo(tag) => (Tag(0), tag),
        };
        assert!(self.held.contains_key(&last), "{last:?} is not in hand");
        for (tag, held) in self.held.extract_if(first..=last, |_, _| true) {
            let default = self.plan.settings.namespace.as_ref();
            let namespace = default.map(|default| held.message.namespace.as_ref().unwrap_or(default).clone());
            let done = |id: &Id| {
                let step = self.confirmed.get(&(namespace.clone(), id.clone()));
                step.is_some_and(|step| held.message.redelivered || *step >= held.since)
            };
            let done = !held.message.malformed && held.message.ids.iter().all(done);
            assert!(!ack || held.stored || done && !held.dying, "{tag:?} is acked too early: {held:?}");
        }
        let command = if ack { Command::Ack(extent) } else { Command::GiveBack(extent) };
        self.broker.command(command, self.now, &mut self.rng);
    }

    fn bury(&mut self, tag: Tag, obituary: &Obituary) {
        let held = self.held.get_mut(&tag).expect("dead-letters a delivery in hand");
        assert!(!std::mem::replace(&mut held.dying, true), "dead-letters {tag:?} twice");
        let holds = |nature| obituary.failed_ids.iter().any(|id| Nature::of(id) == nature);
        assert_eq!(held.message.malformed, obituary.reason == Reason::Malformed);
        assert_eq!(held.message.malformed, obituary.failed_ids.is_empty());
        assert!(obituary.failed_ids.iter().all(|id| held.message.ids.contains(id)), "{obituary:?}");
        if !self.plan.rejects_all() && self.plan.settings.on_outage == OnOutage::Hold {
            assert!(!holds(Nature::Good), "blames a good ID: {obituary:?}");
            match obituary.reason {
                Reason::Malformed => {}
                Reason::Rejected => assert!(holds(Nature::Bad), "{obituary:?}"),
                Reason::RetriesExhausted => assert!(holds(Nature::Poison), "{obituary:?}"),
            }
        }
        self.broker.store(tag, self.now, &mut self.rng);
    }

    /// Adds up the engine's counts and compares them with what happened.
    fn tally(&mut self) {
        let tally = self.engine.take_tally();
        self.tally.messages_received += tally.messages_received;
        self.tally.messages_deleted += tally.messages_deleted;
        self.tally.messages_dead_lettered += tally.messages_dead_lettered;
        self.tally.messages_released += tally.messages_released;
        let Tally { messages_received, messages_deleted, messages_dead_lettered, .. } = self.tally;
        let decided = messages_deleted + messages_dead_lettered + self.tally.messages_released;
        let undecided = messages_received.checked_sub(decided).expect("decides no more than it received");
        assert!(undecided <= self.held.len() as u64, "counts {undecided} too many undecided");
    }

    fn check_progress(&mut self) {
        assert!(self.step < STEPS_MAX, "no end after {} steps", self.step);
        if let Some(since) = self.draining_since {
            let grace = self.plan.settings.grace + Duration::from_millis(60);
            assert!(self.now.since(since) <= grace, "the drain takes longer than its grace");
        }
        assert!(
            self.is_settled() || self.now.since(self.plan.faults_end) < PATIENCE,
            "stuck: {:?}\n{:?}",
            self.broker,
            self.engine
        );
    }

    fn check_end(&self) {
        assert_eq!(self.broker.settled.len(), self.published, "stuck: {:?} {:?}", self.broker, self.engine);
        assert!(self.held.is_empty() && self.engine.items.live() == 0, "left over: {:?}", self.engine);
    }
}
