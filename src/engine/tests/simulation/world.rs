//! The workers between a modelled broker and a modelled endpoint, in virtual time.

use std::collections::VecDeque;
use std::time::Duration;

use super::broker::{Broker, Message};
use super::endpoint::{Endpoint, Journey};
use super::invariant::{Check, Invariant};
use super::plan::{Letter, Occurrence, Plan, WORKERS_MAX};
use super::saboteur::{Sabotage, Saboteur};
use super::watch::keys;
use super::worker::{Wish, Worker};
use crate::answer::{Answer, Outcome};
use crate::engine::{Call, Time, Trigger};
use crate::id::Id;

/// How long after the last fault everything must be settled.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// Events that a schedule may take, besides some for each message and second: far more than any needs.
const STEPS_BASE: u64 = 400_000;

/// How long the broker waits for a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Longer than any backoff.
const FORGETTING: Duration = Duration::from_secs(300);

/// Between two good messages after the faults.
const COMPANY_EVERY: Duration = Duration::from_secs(5);

/// What came of a schedule.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// Each worker's calls that the endpoint accepted, and those that it throttled.
    pub(super) accepted: [u64; WORKERS_MAX],
    pub(super) throttled: [u64; WORKERS_MAX],
    pub(super) calls: u64,
    pub(super) probes: u64,
    /// The most often that one message was given back, by all workers together.
    pub(super) most_given_back: u32,
    /// Good messages that had to be published to find out what was bad.
    pub(super) company: usize,
    /// Deliveries that went back before an engine heard of them.
    pub(super) skipped: u64,
    pub(super) settled: usize,
    pub(super) dead: usize,
    /// When the last message was settled.
    pub(super) settled_at: Time,
    pub(super) steps: u64,
}

#[derive(Debug)]
pub(super) struct World {
    plan: Plan,
    now: Time,
    schedule: VecDeque<(Time, Occurrence)>,
    broker: Broker,
    endpoint: Endpoint,
    workers: Vec<Worker>,
    flights: Vec<Flight>,
    /// When the broker gives up a frozen worker.
    heartbeats: Vec<(Time, usize)>,
    rng: fastrand::Rng,
    published: usize,
    company_at: Option<Time>,
    report: Report,
}

/// A call on its way.
#[derive(Debug)]
struct Flight {
    worker: usize,
    incarnation: u64,
    call: Call,
    journey: Journey,
    answer: Option<Answer>,
}

/// Runs a plan to its end, with a saboteur in each worker if one is given.
pub(super) fn run(plan: &Plan, sabotage: Option<Sabotage>) -> Check<Report> {
    let mut world = World::new(plan, sabotage);
    world.run_until(None)?;
    // What nobody waits for any more is forgotten when it is its turn.
    world.run_until(Some(world.now + FORGETTING))?;
    world.check_end()?;
    world.report.skipped = world.workers.iter().map(|worker| worker.watch.skipped).sum();
    for worker in 0..world.workers.len() {
        world.occur(Occurrence::Drain(worker));
        world.turn(worker)?;
    }
    let end = world.now + world.plan.settings.grace + Duration::from_secs(1);
    world.run_until(Some(end))?;
    let drains = world.workers.iter().find(|worker| worker.is_draining());
    Invariant::Drains.holds(drains.is_none(), || format!("the idle drain doesn't end: {drains:?}"))?;
    Ok(world.report)
}

/// Runs a plan for so long, whatever is settled by then.
pub(super) fn run_for(plan: &Plan, sabotage: Option<Sabotage>, end: Time) -> Check<Report> {
    let mut world = World::new(plan, sabotage);
    world.run_until(Some(end))?;
    Ok(world.report)
}

impl World {
    fn new(plan: &Plan, sabotage: Option<Sabotage>) -> Self {
        let saboteur = |worker| Saboteur::new(sabotage, worker);
        Self {
            now: Time::default(),
            schedule: plan.schedule.iter().cloned().collect(),
            broker: Broker::new(plan),
            endpoint: Endpoint::new(plan.seed ^ 0xe4d),
            workers: (0..plan.workers).map(|index| Worker::new(plan, index, 0, saboteur(index))).collect(),
            flights: Vec::new(),
            heartbeats: Vec::new(),
            rng: fastrand::Rng::with_seed(plan.seed ^ 0x70b1d),
            published: 0,
            company_at: plan.company.then_some(plan.faults_end),
            report: Report::default(),
            plan: Plan { schedule: Vec::new(), ..plan.clone() },
        }
    }

    /// Runs until everything is settled, or until `end`.
    fn run_until(&mut self, end: Option<Time>) -> Check {
        loop {
            let Some(next) = self.next().filter(|next| end.is_none_or(|end| *next <= end)) else {
                return Ok(());
            };
            self.step(next)?;
            self.check_progress(end.is_some())?;
            if end.is_none() && self.is_settled() && self.workers.iter().all(Worker::is_idle) {
                return Ok(());
            }
        }
    }

    /// When something happens next.
    fn next(&mut self) -> Option<Time> {
        let schedule = self.schedule.front().map(|(due, _)| *due);
        let heartbeats = self.heartbeats.iter().map(|(due, _)| *due).min();
        let flights = self.flights.iter().map(Flight::next).min();
        let mut next = [schedule, self.company_at, heartbeats, flights].into_iter().flatten().min();
        for worker in &self.workers {
            let its = [worker.next(&mut self.broker), self.broker.next(worker.index)];
            next = its.into_iter().flatten().chain(next).min();
        }
        next
    }

    fn step(&mut self, next: Time) -> Check {
        self.now = self.now.max(next);
        while self.happen()? {
            self.report.steps += 1;
            // A worker may hear of several things before it gets to do anything.
            if self.rng.u8(..4) != 0 {
                self.turn_all()?;
            }
        }
        self.report.steps += 1;
        self.turn_all()
    }

    /// Lets one thing happen that is due.
    fn happen(&mut self) -> Check<bool> {
        let now = self.now;
        if self.schedule.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, occurrence)) = self.schedule.pop_front() {
                self.occur(occurrence);
            }
            return Ok(true);
        }
        if self.company_at.is_some_and(|due| due <= now) {
            self.keep_company();
            return Ok(true);
        }
        if let Some(place) = self.heartbeats.iter().position(|(due, _)| *due <= now) {
            let (_, worker) = self.heartbeats.swap_remove(place);
            if self.workers[worker].is_frozen(now) {
                self.workers[worker].cut(&mut self.broker, now);
            }
            return Ok(true);
        }
        if self.fly()? {
            return Ok(true);
        }
        for worker in &mut self.workers {
            if let Some(frame) = self.broker.frame(worker.index, now) {
                let gone = self.broker.obey(worker.index, frame, now)?;
                for message in gone {
                    self.check_gone(&message)?;
                }
                return Ok(true);
            }
            if worker.happen(&mut self.broker, &self.plan, now)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets a call arrive at the endpoint, or its answer at the worker.
    fn fly(&mut self) -> Check<bool> {
        let now = self.now;
        let Some(place) = self.flights.iter().position(|flight| flight.next() <= now) else {
            return Ok(false);
        };
        let flight = &mut self.flights[place];
        let worker = &mut self.workers[flight.worker];
        if flight.answer.is_none() {
            if worker.incarnation == flight.incarnation {
                worker.watch.arrives(now)?;
            }
            let answer = self.endpoint.answer(&self.plan, &flight.call, flight.journey);
            match answer.outcome {
                Outcome::Throttled => self.report.throttled[flight.worker] += 1,
                Outcome::Deleted | Outcome::Rejected(_) | Outcome::Transient | Outcome::Blocked => {
                    self.report.accepted[flight.worker] += 1;
                }
            }
            flight.answer = Some(answer);
            return Ok(true);
        }
        if let Some(until) = worker.thaws_at(now) {
            flight.journey.returns = until;
            return Ok(true);
        }
        let flight = self.flights.swap_remove(place);
        if worker.incarnation == flight.incarnation
            && worker.is_up()
            && let Some(answer) = &flight.answer
        {
            worker.hear(&flight.call, answer, now)?;
        }
        Ok(true)
    }

    fn turn_all(&mut self) -> Check {
        (0..self.workers.len()).try_for_each(|worker| self.turn(worker))
    }

    fn turn(&mut self, index: usize) -> Check {
        let worker = &mut self.workers[index];
        for wish in worker.turn(&mut self.broker, self.now)? {
            match wish {
                Wish::Call(call) => {
                    self.report.calls += 1;
                    self.report.probes += u64::from(call.trigger == Trigger::Probe);
                    let journey = self.endpoint.journey(&self.plan, self.now);
                    let incarnation = worker.incarnation;
                    self.flights.push(Flight { worker: index, incarnation, call, journey, answer: None });
                }
                Wish::Disconnect => worker.crash(&mut self.broker, self.now),
            }
        }
        Ok(())
    }

    fn occur(&mut self, occurrence: Occurrence) {
        let Self { broker, now, workers, .. } = self;
        let now = *now;
        match occurrence {
            Occurrence::Publish(letter) => {
                self.published += 1;
                broker.publish(letter, now);
            }
            Occurrence::Cut(worker) => workers[worker].cut(broker, now),
            Occurrence::Drain(worker) => workers[worker].drain(now),
            Occurrence::Crash(worker) => {
                workers[worker].crash(broker, now);
            }
            Occurrence::Credentials(worker) => workers[worker].replace_credentials(now),
            Occurrence::Freeze(worker, time) => {
                workers[worker].freeze(now + time);
                self.heartbeats.push((now + HEARTBEAT, worker));
            }
            Occurrence::Restart => workers.iter_mut().for_each(|worker| worker.cut(broker, now)),
        }
    }

    /// Publishes a good message as long as something isn't settled.
    fn keep_company(&mut self) {
        self.company_at = (!self.is_settled()).then(|| self.now + COMPANY_EVERY);
        if self.company_at.is_some() {
            self.report.company += 1;
            let ids = vec![Id::new(&format!("company{}", self.published)).expect("fit")];
            let number = 1_000_000 + self.published;
            self.occur(Occurrence::Publish(Letter { number, ids, namespace: None, malformed: false }));
        }
    }

    fn is_settled(&self) -> bool {
        self.schedule.is_empty() && self.broker.settled.len() == self.published
    }

    /// Whether a message could rightly be acknowledged, by what is true rather than by what the worker was told.
    fn check_gone(&mut self, message: &Message) -> Check {
        self.report.settled_at = self.now;
        self.report.settled += 1;
        self.report.most_given_back = self.report.most_given_back.max(message.given_back());
        let letter = &message.letter;
        if self.broker.dead.contains(&letter.number) {
            self.report.dead += 1;
            return Ok(());
        }
        let deleted = keys(letter, &self.plan.settings).all(|key| self.endpoint.has_deleted(&key));
        let gone = || format!("{letter:?}");
        Invariant::AckedStored.holds(deleted || !letter.malformed, gone)?;
        Invariant::AckedConfirmed.holds(deleted, gone)
    }

    fn check_progress(&self, ends: bool) -> Check {
        for worker in &self.workers {
            worker.check_drain(self.now)?;
        }
        let steps = self.report.steps;
        let seconds = self.now.elapsed().as_secs() * self.workers.len() as u64;
        let steps_max = STEPS_BASE + 100 * self.published as u64 + seconds;
        let late = !self.is_settled() && self.now.since(self.plan.faults_end) >= PATIENCE;
        let stuck = !ends && (late || steps >= steps_max);
        Invariant::Settles.holds(!stuck, || self.standstill())
    }

    fn check_end(&self) -> Check {
        Invariant::Settles.holds(self.is_settled(), || self.standstill())?;
        // One that believes the endpoint to be down keeps a few IDs to probe with.
        let keeps = |worker: &&Worker| worker.engine.monitor.is_healthy() && worker.engine.items.live() > 0;
        let left = self.workers.iter().find(|worker| !worker.is_idle() || keeps(worker));
        Invariant::Settles.holds(left.is_none(), || format!("left over: {left:?}"))
    }

    fn standstill(&self) -> String {
        let (settled, steps) = (self.broker.settled.len(), self.report.steps);
        let published = self.published;
        format!(
            "{settled} of {published} settled by {:?} in {steps} steps\n{:?}\n{:?}",
            self.now, self.broker, self.workers
        )
    }
}

impl Flight {
    fn next(&self) -> Time {
        if self.answer.is_none() { self.journey.arrives } else { self.journey.returns }
    }
}
