//! A model of the broker shell: a worker's end of its channel, which carries out commands in order.
//!
//! Deliveries wait on the shelf until they are handed over, a few at a time. When the consumer is cancelled, what is
//! on the shelf goes back unseen; the engine never hears of those tags.

use std::collections::VecDeque;
use std::time::Duration;

use super::broker::{Channel, Frame, Message, Notice, transit};
use super::wire::{Stalls, Wire};
use crate::delivery::{Extent, Tag};
use crate::engine::Time;

/// Deliveries that are handed over at once.
const CHUNK_MAX: usize = 16;

/// What the shell is told.
#[derive(Debug)]
pub(super) enum Command {
    Consume,
    Cancel,
    Ack(Extent),
    GiveBack(Extent),
    /// Store the dead letter of this message.
    DeadLetter(Tag, usize),
    Close,
}

/// What it tells.
#[derive(Debug)]
pub(super) enum Event {
    Consuming,
    Cancelled,
    Closed,
}

#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) tag: Tag,
    pub(super) message: Message,
}

#[derive(Debug)]
pub(super) struct Session {
    rng: fastrand::Rng,
    commands: Wire<Command>,
    events: Wire<Event>,
    shelf: VecDeque<Parcel>,
    /// On the way to the worker, one chunk at a time.
    handed: Option<(Time, Vec<Parcel>)>,
    /// Nothing else is done before the broker has answered.
    waits: bool,
}

impl Session {
    pub(super) fn new(seed: u64) -> Self {
        let none = Stalls::default();
        Self {
            rng: fastrand::Rng::with_seed(seed),
            commands: Wire::new(&none),
            events: Wire::new(&none),
            shelf: VecDeque::new(),
            handed: None,
            waits: false,
        }
    }

    pub(super) fn command(&mut self, command: Command, now: Time) {
        let transit = transit(&mut self.rng);
        self.commands.send(command, now, transit);
    }

    /// When there is something to do, for the session or for the worker; the latter takes nothing more in if it is
    /// `full`.
    pub(super) fn next(&self, channel: Option<&Channel>, full: bool) -> Option<Time> {
        let commands = self.commands.next().filter(|_| !self.waits && channel.is_some());
        let handed = self.handed.as_ref().filter(|_| !full).map(|(due, _)| *due);
        let notices = channel.and_then(|channel| channel.down.next());
        [commands, handed, notices, self.events.next()].into_iter().flatten().min()
    }

    /// What the worker hears next.
    pub(super) fn event(&mut self, now: Time) -> Option<Event> {
        self.events.take(now)
    }

    /// The deliveries that the worker takes in next.
    pub(super) fn arrivals(&mut self, now: Time) -> Option<Vec<Parcel>> {
        self.handed.take_if(|(due, _)| *due <= now).map(|(_, chunk)| chunk)
    }

    /// What is on the way to the worker, at once.
    pub(super) fn rest(&mut self) -> Vec<Parcel> {
        self.handed.take().map(|(_, chunk)| chunk).unwrap_or_default()
    }

    /// Does one thing that is due, if any. A dead letter is for the publisher to store.
    pub(super) fn work(&mut self, channel: &mut Channel, now: Time) -> Option<Option<(Tag, usize)>> {
        if let Some(notice) = channel.down.take(now) {
            self.notice(notice, channel, now);
            self.hand_over(now);
            return Some(None);
        }
        if self.waits {
            return None;
        }
        self.hand_over(now);
        let frame = match self.commands.take(now)? {
            Command::DeadLetter(tag, number) => return Some(Some((tag, number))),
            Command::Consume => Frame::Consume,
            Command::Ack(extent) => Frame::Ack(extent),
            Command::GiveBack(extent) => Frame::GiveBack(extent),
            Command::Cancel => {
                self.waits = true;
                Frame::Cancel
            }
            Command::Close => {
                self.waits = true;
                Frame::Close
            }
        };
        channel.up.send(frame, now, transit(&mut self.rng));
        Some(None)
    }

    fn notice(&mut self, notice: Notice, channel: &mut Channel, now: Time) {
        let event = match notice {
            Notice::Delivery(tag, message) => return self.shelf.push_back(Parcel { tag, message }),
            // Before any delivery, and whatever comes first is handled first.
            Notice::Consuming => return self.events.send(Event::Consuming, now, Duration::ZERO),
            Notice::Cancelled => {
                for Parcel { tag, .. } in self.shelf.drain(..) {
                    channel.up.send(Frame::GiveBack(Extent::One(tag)), now, transit(&mut self.rng));
                }
                Event::Cancelled
            }
            Notice::Closed => Event::Closed,
        };
        self.waits = false;
        let transit = transit(&mut self.rng);
        self.events.send(event, now, transit);
    }

    fn hand_over(&mut self, now: Time) {
        if self.waits || self.shelf.is_empty() || self.handed.is_some() {
            return;
        }
        let count = self.shelf.len().min(self.rng.usize(1..=CHUNK_MAX));
        self.handed = Some((now + transit(&mut self.rng), self.shelf.drain(..count).collect()));
    }
}
