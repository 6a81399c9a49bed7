//! A model of the broker: one queue, a channel for each worker, frames in order but late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::invariant::{Check, Invariant};
use super::plan::{Letter, Plan, Queue, SpellKind, WORKERS_MAX};
use super::wire::{Stalls, Wire};
use crate::delivery::{Extent, Tag};
use crate::engine::Time;

/// A letter in the queue or in somebody's hands.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) letter: Rc<Letter>,
    pub(super) redelivered: bool,
    /// It was there when whoever got it began to consume, as its only consumer.
    pub(super) waited: bool,
    /// When it was published.
    pub(super) published: Time,
    /// Its place in the queue.
    place: u64,
    /// How often each worker gave it back: what counts towards a delivery limit.
    given_back: [u32; WORKERS_MAX],
}

/// What the broker is told.
#[derive(Debug)]
pub(super) enum Frame {
    Consume,
    Cancel,
    Ack(Extent),
    GiveBack(Extent),
    Close,
}

/// What it tells.
#[derive(Debug)]
pub(super) enum Notice {
    Delivery(Tag, Message),
    Consuming,
    Cancelled,
    Closed,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) up: Wire<Frame>,
    pub(super) down: Wire<Notice>,
    prefetch: usize,
    next_tag: u64,
    /// Deliveries before this tag were in the queue when the consumer began, alone.
    newcomers: u64,
    unacked: BTreeMap<Tag, Message>,
}

#[derive(Debug)]
pub(super) struct Broker {
    rng: fastrand::Rng,
    queue: Queue,
    stalls: Stalls,
    ready: BTreeMap<u64, Message>,
    next_place: u64,
    channels: [Option<Channel>; WORKERS_MAX],
    /// The workers that consume: the one to be served next is first; it stays so if only one may be active.
    consumers: VecDeque<usize>,
    /// How often each has begun to consume.
    begun: [u32; WORKERS_MAX],
    /// Numbers of the messages whose dead letters are stored.
    pub(super) dead: BTreeSet<usize>,
    /// Numbers of the messages that are gone.
    pub(super) settled: BTreeSet<usize>,
}

impl Message {
    /// How often it was given back, by all together.
    pub(super) fn given_back(&self) -> u32 {
        self.given_back.iter().sum()
    }
}

impl Broker {
    pub(super) fn new(plan: &Plan) -> Self {
        let stalls = plan.spells.iter().filter(|spell| spell.kind == SpellKind::BrokerStalls);
        Self {
            rng: fastrand::Rng::with_seed(plan.seed ^ 0xb40c),
            queue: plan.queue,
            stalls: stalls.map(|spell| (spell.from, spell.to)).collect(),
            ready: BTreeMap::new(),
            next_place: 0,
            channels: Default::default(),
            consumers: VecDeque::new(),
            begun: Default::default(),
            dead: BTreeSet::new(),
            settled: BTreeSet::new(),
        }
    }

    /// The way to and from a worker, while it is connected.
    pub(super) fn channel(&mut self, worker: usize) -> Option<&mut Channel> {
        self.channels[worker].as_mut()
    }

    /// Opens a worker's channel.
    pub(super) fn open(&mut self, worker: usize, prefetch: usize) {
        self.channels[worker] = Some(Channel {
            up: Wire::new(&self.stalls),
            down: Wire::new(&self.stalls),
            prefetch,
            next_tag: 1,
            newcomers: 0,
            unacked: BTreeMap::new(),
        });
    }

    /// Ends a worker's channel: what is unacked goes back, what is under way is lost.
    pub(super) fn close(&mut self, worker: usize, now: Time) {
        self.consumers.retain(|consumer| *consumer != worker);
        if let Some(channel) = self.channels[worker].take() {
            for message in channel.unacked.into_values() {
                self.requeue(message);
            }
        }
        self.deliver(now);
    }

    pub(super) fn publish(&mut self, letter: Letter, now: Time) {
        let place = self.tail();
        let letter = Rc::new(letter);
        let message = Message {
            letter,
            redelivered: false,
            waited: false,
            published: now,
            place,
            given_back: Default::default(),
        };
        self.ready.insert(place, message);
        self.deliver(now);
    }

    /// When the next frame of `worker` arrives.
    pub(super) fn next(&self, worker: usize) -> Option<Time> {
        self.channels[worker].as_ref()?.up.next()
    }

    /// The next frame of `worker` that has arrived.
    pub(super) fn frame(&mut self, worker: usize, now: Time) -> Option<Frame> {
        self.channels[worker].as_mut()?.up.take(now)
    }

    /// Obeys; returns what is gone by that.
    pub(super) fn obey(&mut self, worker: usize, frame: Frame, now: Time) -> Check<Vec<Message>> {
        let mut gone = Vec::new();
        match frame {
            Frame::Consume => {
                let first = !self.consumers.contains(&worker);
                Invariant::TurnsConsuming.holds(first, || "consumes twice".to_owned())?;
                let alone = self.queue.single_active && self.consumers.is_empty();
                let ready = if alone { self.ready.len() as u64 } else { 0 };
                if let Some(channel) = &mut self.channels[worker] {
                    channel.newcomers = channel.next_tag + ready;
                }
                self.consumers.push_back(worker);
                self.begun[worker] += 1;
                if let Some(channel) = &mut self.channels[worker] {
                    channel.down.send(Notice::Consuming, now, Duration::ZERO);
                }
            }
            Frame::Cancel => {
                let consumes = self.consumers.contains(&worker);
                Invariant::TurnsConsuming.holds(consumes, || "cancels no consumer".to_owned())?;
                self.consumers.retain(|consumer| *consumer != worker);
                self.tell(worker, Notice::Cancelled, now);
            }
            Frame::Ack(extent) => {
                gone = self.take(worker, extent)?;
                self.settled.extend(gone.iter().map(|message| message.letter.number));
            }
            Frame::GiveBack(extent) => {
                for mut message in self.take(worker, extent)? {
                    message.given_back[worker] += 1;
                    let (times, begun) = (message.given_back[worker], self.begun[worker]);
                    Invariant::GivenBackOnce.holds(times <= begun, || {
                        format!("{times} times, having begun to consume {begun} times: {message:?}")
                    })?;
                    self.requeue(message);
                }
            }
            Frame::Close => {
                self.tell(worker, Notice::Closed, now);
                self.consumers.retain(|consumer| *consumer != worker);
                let unacked =
                    self.channels[worker].as_mut().map(|channel| std::mem::take(&mut channel.unacked));
                for message in unacked.into_iter().flat_map(BTreeMap::into_values) {
                    self.requeue(message);
                }
            }
        }
        self.deliver(now);
        Ok(gone)
    }

    fn take(&mut self, worker: usize, extent: Extent) -> Check<Vec<Message>> {
        let Some(channel) = &mut self.channels[worker] else { return Ok(Vec::new()) };
        let (first, last) = match extent {
            Extent::One(tag) => (tag, tag),
            Extent::UpTo(tag) => (Tag(0), tag),
        };
        let known = channel.unacked.contains_key(&last);
        Invariant::SettledOnce.holds(known, || format!("{last:?} is unknown: the channel is closed"))?;
        Ok(channel.unacked.extract_if(first..=last, |_, _| true).map(|(_, message)| message).collect())
    }

    fn requeue(&mut self, message: Message) {
        let place = if self.queue.returns_to_tail { self.tail() } else { message.place };
        self.ready.insert(place, Message { redelivered: true, place, ..message });
    }

    fn tail(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    fn deliver(&mut self, now: Time) {
        while !self.ready.is_empty()
            && let Some(worker) = self.turn()
            && let Some((_, mut message)) = self.ready.pop_first()
        {
            let Some(channel) = &mut self.channels[worker] else { return };
            let tag = Tag(channel.next_tag);
            message.waited = channel.next_tag < channel.newcomers;
            channel.next_tag += 1;
            channel.unacked.insert(tag, message.clone());
            self.tell(worker, Notice::Delivery(tag, message), now);
        }
    }

    /// Who is served next, if anybody may be.
    fn turn(&mut self) -> Option<usize> {
        let has_room = |worker: &usize| {
            self.channels[*worker].as_ref().is_some_and(|channel| channel.unacked.len() < channel.prefetch)
        };
        if self.queue.single_active {
            return self.consumers.front().copied().filter(|worker| has_room(worker));
        }
        let place = self.consumers.iter().position(has_room)?;
        let worker = self.consumers.remove(place)?;
        self.consumers.push_back(worker);
        Some(worker)
    }

    fn tell(&mut self, worker: usize, notice: Notice, now: Time) {
        let transit = transit(&mut self.rng);
        if let Some(channel) = &mut self.channels[worker] {
            channel.down.send(notice, now, transit);
        }
    }
}

/// How long a frame takes.
pub(super) fn transit(rng: &mut fastrand::Rng) -> Duration {
    Duration::from_micros(rng.u64(..3_000))
}
