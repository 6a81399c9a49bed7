//! What must hold, each under a name of its own, so that a test can say which one a fault was caught by.

use std::fmt;

/// One promise of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Invariant {
    /// Nothing is acknowledged before the endpoint confirmed each ID of it, to this very worker.
    AckedConfirmed,
    /// Nothing is acknowledged for a dead letter that isn't stored.
    AckedStored,
    /// A delivery is settled at most once an epoch, and only in its own.
    SettledOnce,
    /// Only what is bad is dead-lettered, with the IDs that are bad.
    BlamedBad,
    /// No call deletes what no message asked for, in its namespace.
    Asked,
    /// A call holds an ID.
    NotEmpty,
    /// A call holds no more IDs than its limit.
    NotOverfull,
    /// A call holds each ID once.
    NoRepeats,
    /// An ID is in one call at a time.
    NotShared,
    /// No more calls at a time than agreed.
    Concurrency,
    /// No more calls in any one second than the ceiling, neither leaving nor arriving.
    Rate,
    /// No more deliveries in hand than the prefetch.
    Prefetch,
    /// No more IDs in hand than there is room for, whatever the messages' size.
    Room,
    /// Consuming and cancelling take turns.
    TurnsConsuming,
    /// A message is given back at most once for each time that consuming began.
    GivenBackOnce,
    /// However long an outage lasts, deliveries are given back once in it; where there is nothing to probe with,
    /// at intervals that double.
    ReleasedOnce,
    /// Enough failures in a row open the breaker.
    Breaks,
    /// While the endpoint is down only single probes leave, at growing intervals.
    ProbesGrow,
    /// What fails again and again waits in between.
    BacksOff,
    /// No call leaves before the time that the endpoint asked for.
    RetryAfter,
    /// The engine's counts are what happened.
    Books,
    /// The engine's parts agree with each other.
    Whole,
    /// The engine names no deadline that has passed, and comes to rest.
    Rests,
    /// A drain ends within its grace, and with nothing in hand.
    Drains,
    /// Once faults are over everything settles.
    Settles,
    /// A backlog takes hardly more calls than the IDs need, and a bad ID few.
    Frugal,
    /// Workers on one quota get about the same share of it.
    Fair,
    /// Few calls are throttled.
    Yields,
    /// The engine doesn't panic.
    Unbroken,
}

/// One that was broken, and how.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) invariant: Invariant,
    pub(super) detail: String,
}

/// What a check comes to.
pub(super) type Check<T = ()> = Result<T, Violation>;

impl Invariant {
    pub(super) const ALL: [Self; 29] = [
        Self::AckedConfirmed,
        Self::AckedStored,
        Self::SettledOnce,
        Self::BlamedBad,
        Self::Asked,
        Self::NotEmpty,
        Self::NotOverfull,
        Self::NoRepeats,
        Self::NotShared,
        Self::Concurrency,
        Self::Rate,
        Self::Prefetch,
        Self::Room,
        Self::TurnsConsuming,
        Self::GivenBackOnce,
        Self::ReleasedOnce,
        Self::Breaks,
        Self::ProbesGrow,
        Self::BacksOff,
        Self::RetryAfter,
        Self::Books,
        Self::Whole,
        Self::Rests,
        Self::Drains,
        Self::Settles,
        Self::Frugal,
        Self::Fair,
        Self::Yields,
        Self::Unbroken,
    ];

    /// That this invariant was seen to hold, or how it was broken.
    pub(super) fn holds(self, holds: bool, detail: impl FnOnce() -> String) -> Check {
        if holds { Ok(()) } else { Err(self.broken(detail())) }
    }

    pub(super) fn broken(self, detail: impl Into<String>) -> Violation {
        Violation { invariant: self, detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.detail)
    }
}
