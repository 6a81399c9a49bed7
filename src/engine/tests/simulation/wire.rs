//! A way on which things travel in order, but late.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::engine::Time;

/// From when to when nothing passes.
pub(super) type Stalls = Rc<[(Time, Time)]>;

#[derive(Debug)]
pub(super) struct Wire<T> {
    under_way: VecDeque<(Time, T)>,
    stalls: Stalls,
}

impl<T> Wire<T> {
    pub(super) fn new(stalls: &Stalls) -> Self {
        Self { under_way: VecDeque::new(), stalls: Rc::clone(stalls) }
    }

    /// Sends `item` off, to arrive after `transit`, but not before what went ahead of it.
    pub(super) fn send(&mut self, item: T, now: Time, transit: Duration) {
        let last = self.under_way.back().map_or(now, |(last, _)| *last);
        let due = last.max(now + transit);
        let stall = self.stalls.iter().find(|(from, to)| *from <= due && due < *to);
        self.under_way.push_back((stall.map_or(due, |(_, to)| *to), item));
    }

    /// When something arrives next.
    pub(super) fn next(&self) -> Option<Time> {
        self.under_way.front().map(|(due, _)| *due)
    }

    /// What has arrived by now.
    pub(super) fn take(&mut self, now: Time) -> Option<T> {
        self.next().filter(|due| *due <= now)?;
        self.under_way.pop_front().map(|(_, item)| item)
    }
}
