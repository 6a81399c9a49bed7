//! One worker: the real engine, its end of the wires, and who watches it.

use std::collections::VecDeque;
use std::time::Duration;

use super::audit::{audit, rests};
use super::broker::Broker;
use super::invariant::{Check, Invariant};
use super::plan::Plan;
use super::publisher::Publisher;
use super::saboteur::Saboteur;
use super::session::{Command, Event, Parcel, Session};
use super::watch::Watch;
use crate::answer::Answer;
use crate::delivery::Arrival;
use crate::engine::{Action, Call, Engine, Time};
use crate::request::{Malformed, Request};

/// With more items than this the engine's inside isn't looked at after every turn, but the more seldom the more.
const ITEMS_FEW: u64 = 25;

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) index: usize,
    /// How many there have been in its place before.
    pub(super) incarnation: u64,
    pub(super) engine: Engine,
    pub(super) watch: Watch,
    pub(super) publisher: Publisher,
    saboteur: Saboteur,
    seed: u64,
    rng: fastrand::Rng,
    session: Option<Session>,
    /// Counts sessions.
    epoch: u64,
    backlog: VecDeque<Parcel>,
    life: Life,
    connects_at: Option<Time>,
    /// When it notices that the connection is gone.
    notices_at: Option<Time>,
    /// Until then it does nothing.
    frozen_until: Time,
    /// By so much its timer fires late.
    late: Duration,
    /// Something has happened to it since its last turn.
    stirred: bool,
    turns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Up,
    Draining(Time),
    /// The engine is done; the session is being closed.
    Leaving(Time),
    /// Another one starts then.
    Gone(Time),
}

/// What a worker wants of the world.
#[derive(Debug)]
pub(super) enum Wish {
    Call(Call),
    /// Its connection is to be closed, with whatever is on it.
    Disconnect,
}

impl Worker {
    pub(super) fn new(plan: &Plan, index: usize, incarnation: u64, saboteur: Saboteur) -> Self {
        let seed =
            plan.seed ^ (0x5eed + 1000 * index as u64 + incarnation).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            index,
            incarnation,
            engine: Engine::new(saboteur.settings(plan.settings.clone()), seed),
            watch: Watch::new(plan),
            publisher: Publisher::new(seed + 1),
            saboteur,
            seed,
            rng: fastrand::Rng::with_seed(seed + 2),
            session: None,
            epoch: 0,
            backlog: VecDeque::new(),
            life: Life::Up,
            connects_at: Some(Time::default()),
            notices_at: None,
            frozen_until: Time::default(),
            late: Duration::ZERO,
            stirred: false,
            turns: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.life, Life::Up | Life::Draining(_))
    }

    /// Nothing of it is left in anybody's hands.
    pub(super) fn is_idle(&self) -> bool {
        self.watch.is_idle() && self.backlog.is_empty()
    }

    /// When it does something next by itself; answers come from outside.
    pub(super) fn next(&self, broker: &mut Broker) -> Option<Time> {
        if let Life::Gone(starts_at) = self.life {
            return Some(starts_at);
        }
        let leaves_at = match self.life {
            Life::Leaving(exit_by) => Some(exit_by),
            Life::Up | Life::Draining(_) | Life::Gone(_) => None,
        };
        let deadline = self.deadline();
        let full = !self.backlog.is_empty();
        let channel = broker.channel(self.index);
        let session = self.session.as_ref().and_then(|session| session.next(channel.as_deref(), full));
        let all = [leaves_at, deadline, session, self.connects_at, self.notices_at, self.publisher.next()];
        all.into_iter().flatten().min().map(|next| next.max(self.frozen_until))
    }

    /// Lets one thing happen that is due; what it leads to is done in its [`Self::turn`].
    pub(super) fn happen(&mut self, broker: &mut Broker, plan: &Plan, now: Time) -> Check<bool> {
        let happened = self.happen_if_due(broker, plan, now)?;
        self.stirred |= happened;
        Ok(happened)
    }

    fn happen_if_due(&mut self, broker: &mut Broker, plan: &Plan, now: Time) -> Check<bool> {
        match self.life {
            Life::Gone(starts_at) if starts_at <= now => {
                let saboteur = self.saboteur.successor();
                *self = Self {
                    connects_at: Some(now),
                    ..Self::new(plan, self.index, self.incarnation + 1, saboteur)
                };
                return Ok(true);
            }
            Life::Gone(_) => return Ok(false),
            Life::Leaving(exit_by) if exit_by <= now => {
                self.leave(broker, now);
                return Ok(true);
            }
            Life::Up | Life::Draining(_) | Life::Leaving(_) => {}
        }
        if self.is_frozen(now) {
            return Ok(false);
        }
        if self.connects_at.take_if(|due| *due <= now).is_some() {
            self.connect(broker, now);
            return Ok(true);
        }
        if self.notices_at.take_if(|due| *due <= now).is_some() {
            self.disconnected(now);
            return Ok(true);
        }
        for job in self.publisher.stored(&plan.spells, now) {
            self.stirred = true;
            broker.dead.insert(job.number);
            if job.epoch == self.epoch && self.session.is_some() {
                self.watch.stored(job.tag);
                self.engine.handle_dead_lettered(&[job.tag], now);
            }
        }
        self.take_in(broker, now)
    }

    /// Hands the engine what it has room for, and lets it do what it wants.
    pub(super) fn turn(&mut self, broker: &mut Broker, now: Time) -> Check<Vec<Wish>> {
        let mut wishes = Vec::new();
        let due = self.stirred || self.deadline().is_some_and(|deadline| deadline <= now);
        if due && self.is_up() && !self.is_frozen(now) {
            self.stirred = false;
            self.feed(now)?;
            self.poll(broker, now, &mut wishes)?;
            self.late = match self.rng.u8(..5) {
                0 => Duration::from_micros(self.rng.u64(..50_000)),
                _ => Duration::ZERO,
            };
        }
        Ok(wishes)
    }

    /// When its timer fires.
    fn deadline(&self) -> Option<Time> {
        let deadline = self.saboteur.deadline(self.engine.deadline()).filter(|_| self.is_up());
        deadline.map(|deadline| deadline + self.late)
    }

    pub(super) fn is_frozen(&self, now: Time) -> bool {
        now < self.frozen_until
    }

    /// When it goes on, if it does nothing now.
    pub(super) fn thaws_at(&self, now: Time) -> Option<Time> {
        Some(self.frozen_until).filter(|until| now < *until)
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.life, Life::Draining(_))
    }

    /// The answer to a call; one that was called by a former worker in its place is heard by nobody.
    pub(super) fn hear(&mut self, call: &Call, answer: &Answer, now: Time) -> Check {
        self.stirred = true;
        self.watch.hears(call, answer, now);
        if let Some(answer) = self.saboteur.hears(call, answer.clone()) {
            self.engine.handle_answer(call.id, answer, now);
        }
        self.watch.handled(&self.engine)
    }

    pub(super) fn drain(&mut self, now: Time) {
        if self.life == Life::Up {
            self.life = Life::Draining(now);
            self.stirred = true;
            self.engine.handle_drain(now);
        }
    }

    pub(super) fn freeze(&mut self, until: Time) {
        self.frozen_until = self.frozen_until.max(until);
    }

    pub(super) fn replace_credentials(&mut self, now: Time) {
        if self.is_up() {
            self.stirred = true;
            self.watch.credentials_changed(&self.engine);
            self.engine.handle_credentials_changed(now);
        }
    }

    /// The connection is gone, which it will notice.
    pub(super) fn cut(&mut self, broker: &mut Broker, now: Time) {
        if broker.channel(self.index).is_some() {
            broker.close(self.index, now);
            let soon = Duration::from_millis(self.rng.u64(..2_000));
            self.notices_at.get_or_insert(now + soon);
        }
    }

    /// It is killed; another one starts in its place.
    pub(super) fn crash(&mut self, broker: &mut Broker, now: Time) {
        broker.dead.extend(self.publisher.killed().into_iter().map(|job| job.number));
        self.leave(broker, now);
    }

    /// That it doesn't take longer over its drain than it was granted.
    pub(super) fn check_drain(&self, now: Time) -> Check {
        let Life::Draining(since) = self.life else { return Ok(()) };
        let grace = self.engine.settings.grace + Duration::from_millis(60);
        let overdue =
            now.since(since) > grace && !self.is_frozen(now) && now.since(self.frozen_until) > grace;
        Invariant::Drains.holds(!overdue, || format!("drains since {since:?}, and it is {now:?}"))
    }

    fn leave(&mut self, broker: &mut Broker, now: Time) {
        broker.close(self.index, now);
        self.life = Life::Gone(now + Duration::from_millis(self.rng.u64(..10_000)));
        self.watch.lost(&mut self.engine);
        self.session = None;
        self.backlog.clear();
        self.frozen_until = Time::default();
    }

    fn connect(&mut self, broker: &mut Broker, now: Time) {
        broker.open(self.index, self.saboteur.prefetch(self.engine.settings.prefetch));
        self.epoch += 1;
        self.session = Some(Session::new(self.seed + 100 * self.epoch));
        self.engine.handle_connected(now);
    }

    fn disconnected(&mut self, now: Time) {
        self.session = None;
        self.backlog.clear();
        self.engine.handle_disconnected();
        self.watch.lost(&mut self.engine);
        match self.life {
            Life::Up | Life::Draining(_) => {
                self.connects_at = Some(now + Duration::from_millis(self.rng.u64(..5_000)));
            }
            // There is nothing left to close.
            Life::Leaving(_) => self.life = Life::Leaving(now),
            Life::Gone(_) => {}
        }
    }

    /// One thing that comes from the session.
    fn take_in(&mut self, broker: &mut Broker, now: Time) -> Check<bool> {
        let Some(session) = &mut self.session else { return Ok(false) };
        match session.event(now) {
            Some(Event::Cancelled) => {
                self.backlog.extend(session.rest());
                self.feed(now)?;
                self.engine.handle_cancelled();
                return Ok(true);
            }
            Some(Event::Consuming) => {
                self.engine.handle_consuming(now);
                return Ok(true);
            }
            Some(Event::Closed) => {
                self.leave(broker, now);
                return Ok(true);
            }
            None => {}
        }
        if self.backlog.is_empty()
            && let Some(chunk) = session.arrivals(now)
        {
            self.backlog.extend(chunk);
            return Ok(true);
        }
        let Some(channel) = broker.channel(self.index) else { return Ok(false) };
        let Some(work) = session.work(channel, now) else { return Ok(false) };
        if let Some((tag, number)) = work {
            self.publisher.store(self.epoch, tag, number, now);
        }
        Ok(true)
    }

    fn feed(&mut self, now: Time) -> Check {
        while self.saboteur.has_room(self.engine.has_room())
            && let Some(Parcel { tag, message }) = self.backlog.pop_front()
        {
            let letter = &message.letter;
            let request = if letter.malformed {
                Err(Malformed("is not JSON".to_owned()))
            } else {
                let ids = letter.ids.iter().cloned().collect();
                Ok(Request { ids, namespace: letter.namespace.clone(), origin: None })
            };
            self.watch.enters(tag, &message)?;
            self.saboteur.enters(tag);
            let waited = message.waited || self.saboteur.takes_all_for_old();
            let arrival = Arrival { tag, redelivered: message.redelivered, waited, age: None, request };
            self.engine.handle_arrival(arrival, now);
            self.watch.handled(&self.engine)?;
        }
        Ok(())
    }

    /// Polls until there is nothing to do, and checks each action.
    fn poll(&mut self, broker: &mut Broker, now: Time, wishes: &mut Vec<Wish>) -> Check {
        let most = 100 + 4 * self.engine.settings.prefetch + 4 * self.engine.items.live();
        for _ in 0..most {
            let Some(action) = self.engine.poll(now) else { return self.rested(now) };
            for action in self.saboteur.does(action, &mut self.engine) {
                self.execute(action, broker, now, wishes)?;
            }
            if !self.is_up() {
                return Ok(());
            }
        }
        Err(Invariant::Rests.broken(format!("more than {most} actions at once")))
    }

    fn rested(&mut self, now: Time) -> Check {
        self.watch.rested(&mut self.engine, now)?;
        self.turns += 1;
        if self.turns.is_multiple_of(1 + self.engine.items.live() as u64 / ITEMS_FEW) {
            audit(&self.engine)?;
        }
        rests(self.saboteur.deadline(self.engine.deadline()), now)
    }

    fn execute(&mut self, action: Action, broker: &mut Broker, now: Time, wishes: &mut Vec<Wish>) -> Check {
        let command = match action {
            Action::Call(call) => {
                self.watch.departs(&call, &self.engine, now)?;
                wishes.push(Wish::Call(call));
                return Ok(());
            }
            Action::Ack(extent) => {
                self.watch.settles(extent, true)?;
                Command::Ack(extent)
            }
            Action::GiveBack(extent) => {
                self.watch.settles(extent, false)?;
                Command::GiveBack(extent)
            }
            Action::DeadLetter(tag, obituary) => {
                let number = self.watch.number(tag).unwrap_or(usize::MAX);
                self.watch.buries(tag, &obituary)?;
                if self.saboteur.believes_in_letters() {
                    self.engine.handle_dead_lettered(&[tag], now);
                }
                Command::DeadLetter(tag, number)
            }
            Action::Consume => Command::Consume,
            Action::Cancel => Command::Cancel,
            Action::Drained => return self.drained(broker, now, wishes),
        };
        if let Some(session) = &mut self.session {
            session.command(command, now);
        }
        Ok(())
    }

    fn drained(&mut self, broker: &mut Broker, now: Time, wishes: &mut Vec<Wish>) -> Check {
        let asked = matches!(self.life, Life::Draining(_));
        Invariant::Drains.holds(asked, || "drained unasked".to_owned())?;
        Invariant::Drains.holds(self.watch.is_idle(), || "leaves with deliveries in hand".to_owned())?;
        let next = self.engine.poll(now);
        Invariant::Drains.holds(next.is_none(), || format!("{next:?} follows the end"))?;
        match (&mut self.session, broker.channel(self.index)) {
            (Some(session), Some(_)) => {
                session.command(Command::Close, now);
                self.life = Life::Leaving(now + self.engine.settings.grace);
            }
            (Some(_) | None, _) => wishes.push(Wish::Disconnect),
        }
        Ok(())
    }
}
