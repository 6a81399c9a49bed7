//! A model of the broker: one queue, at most one consumer at a time, commands and notices in order but late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::plan::Nature;
use crate::delivery::{Extent, Tag};
use crate::engine::Time;
use crate::id::{Id, Namespace};

#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Its place in the queue, which it returns to.
    pub(super) number: usize,
    pub(super) ids: Vec<Id>,
    pub(super) namespace: Option<Namespace>,
    pub(super) malformed: bool,
    pub(super) redelivered: bool,
}

/// What the worker hears.
#[derive(Debug)]
pub(super) enum Notice {
    Delivery(Tag, Message),
    Cancelled,
}

/// What the broker is told.
#[derive(Debug)]
pub(super) enum Command {
    Consume,
    Cancel,
    Ack(Extent),
    GiveBack(Extent),
}

#[derive(Debug)]
pub(super) struct Broker {
    prefetch: usize,
    queue: BTreeMap<usize, Message>,
    connected: bool,
    consuming: bool,
    next_tag: u64,
    unacked: BTreeMap<Tag, Message>,
    notices: VecDeque<(Time, Notice)>,
    commands: VecDeque<(Time, Command)>,
    /// Dead letters that will be confirmed then.
    storing: Vec<(Time, Tag)>,
    /// Numbers of messages whose dead letter is stored.
    pub(super) dead: BTreeSet<usize>,
    /// Numbers of messages that are gone.
    pub(super) settled: BTreeSet<usize>,
}

impl Broker {
    pub(super) fn new(prefetch: usize) -> Self {
        Self {
            prefetch,
            queue: BTreeMap::new(),
            connected: false,
            consuming: false,
            next_tag: 1,
            unacked: BTreeMap::new(),
            notices: VecDeque::new(),
            commands: VecDeque::new(),
            storing: Vec::new(),
            dead: BTreeSet::new(),
            settled: BTreeSet::new(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn connect(&mut self) {
        self.connected = true;
        self.next_tag = 1;
    }

    /// Ends the epoch: what is unacked goes back, what is under way is lost. A dead letter that was under way
    /// may be stored all the same.
    pub(super) fn disconnect(&mut self, rng: &mut fastrand::Rng) {
        self.connected = false;
        self.consuming = false;
        for (_, tag) in std::mem::take(&mut self.storing) {
            if rng.bool() {
                self.dead.extend(self.unacked.get(&tag).map(|message| message.number));
            }
        }
        for (_, message) in std::mem::take(&mut self.unacked) {
            self.requeue(message);
        }
        self.notices.clear();
        self.commands.clear();
    }

    pub(super) fn publish(&mut self, message: Message, now: Time, rng: &mut fastrand::Rng) {
        self.queue.insert(message.number, message);
        self.deliver(now, rng);
    }

    pub(super) fn command(&mut self, command: Command, now: Time, rng: &mut fastrand::Rng) {
        let due = self.commands.back().map_or(now, |(last, _)| *last).max(now + transit(rng));
        self.commands.push_back((due, command));
    }

    pub(super) fn store(&mut self, tag: Tag, now: Time, rng: &mut fastrand::Rng) {
        let slow = rng.u8(..10) == 0;
        let wait = Duration::from_millis(if slow { rng.u64(..60_000) } else { rng.u64(..50) });
        self.storing.push((now + wait, tag));
    }

    /// When something happens next; deliveries wait while there is no `room` for them.
    pub(super) fn next(&self, room: bool) -> Option<Time> {
        let notice = self.notices.front().filter(|(_, notice)| room || !notice.is_delivery());
        let stored = self.storing.iter().map(|(due, _)| *due).min();
        [notice.map(|(due, _)| *due), self.commands.front().map(|(due, _)| *due), stored]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next notice that is due.
    pub(super) fn notice(&mut self, room: bool, now: Time) -> Option<Notice> {
        let (due, notice) = self.notices.front()?;
        if *due > now || notice.is_delivery() && !room {
            return None;
        }
        self.notices.pop_front().map(|(_, notice)| notice)
    }

    /// The dead letters that are stored by now.
    pub(super) fn stored(&mut self, now: Time) -> Vec<Tag> {
        let stored: Vec<Tag> =
            self.storing.extract_if(.., |(due, _)| *due <= now).map(|(_, tag)| tag).collect();
        self.dead.extend(stored.iter().filter_map(|tag| self.unacked.get(tag)).map(|message| message.number));
        stored
    }

    /// Carries out the next command that is due.
    pub(super) fn obey(&mut self, now: Time, rng: &mut fastrand::Rng) -> bool {
        if self.commands.front().is_none_or(|(due, _)| *due > now) {
            return false;
        }
        let Some((_, command)) = self.commands.pop_front() else { return false };
        match command {
            Command::Consume => {
                assert!(!self.consuming, "consumes twice");
                self.consuming = true;
            }
            Command::Cancel => {
                assert!(self.consuming, "cancels no consumer");
                self.consuming = false;
                self.tell(Notice::Cancelled, now, rng);
            }
            Command::Ack(extent) => {
                for message in self.take(extent) {
                    self.settled.insert(message.number);
                }
            }
            Command::GiveBack(extent) => {
                for message in self.take(extent) {
                    self.requeue(message);
                }
            }
        }
        self.deliver(now, rng);
        true
    }

    /// Another consumer takes a message off the queue and does what it asks for.
    pub(super) fn lose_one(&mut self, rng: &mut fastrand::Rng) {
        let good = |message: &Message| {
            !message.malformed && message.ids.iter().all(|id| Nature::of(id) == Nature::Good)
        };
        let numbers: Vec<usize> = self.queue.values().filter(|m| good(m)).map(|m| m.number).collect();
        if let Some(number) = rng.choice(numbers) {
            self.queue.remove(&number);
            self.settled.insert(number);
        }
    }

    fn take(&mut self, extent: Extent) -> Vec<Message> {
        let (first, last) = match extent {
            Extent::One(tag) => (tag, tag),
            Extent::UpTo(tag) => (Tag(0), tag),
        };
        assert!(self.unacked.contains_key(&last), "{last:?} is unknown: the channel is closed");
        self.unacked.extract_if(first..=last, |_, _| true).map(|(_, message)| message).collect()
    }

    fn requeue(&mut self, message: Message) {
        self.queue.insert(message.number, Message { redelivered: true, ..message });
    }

    fn deliver(&mut self, now: Time, rng: &mut fastrand::Rng) {
        while self.consuming && self.unacked.len() < self.prefetch {
            let Some((_, message)) = self.queue.pop_first() else { return };
            let tag = Tag(self.next_tag);
            self.next_tag += 1;
            self.unacked.insert(tag, message.clone());
            self.tell(Notice::Delivery(tag, message), now, rng);
        }
    }

    fn tell(&mut self, notice: Notice, now: Time, rng: &mut fastrand::Rng) {
        let due = self.notices.back().map_or(now, |(last, _)| *last).max(now + transit(rng));
        self.notices.push_back((due, notice));
    }
}

impl Notice {
    fn is_delivery(&self) -> bool {
        match self {
            Self::Delivery(..) => true,
            Self::Cancelled => false,
        }
    }
}

fn transit(rng: &mut fastrand::Rng) -> Duration {
    Duration::from_micros(rng.u64(..3_000))
}
