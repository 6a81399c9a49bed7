//! The engine: decides everything, does nothing.
//!
//! It is fed events, each with the time at which it happened (`handle_*`), and answers with [`Action`]s, polled
//! until there are none. Then it names the moment at which it wants to be asked again
//! ([`Engine::deadline`]). It does no I/O, reads no clock, draws on no generator but its own, which is seeded:
//! the same events give the same actions.
//!
//! # Where an ID can be
//!
//! ```text
//!  delivery ──► lane ──► call ──► deleted ──► remembered ──► gone
//!                ▲         │
//!                │         ├─ throttled, blocked ──► back where it was
//!                └─────────┤
//!                          ├─ transient ──► suspects (backoff) ──► call
//!                          ├─ rejected ───► suspects (two halves, at once) ──► call
//!                          └─ rejected alone ──► condemned ──► dead letter
//! ```
//!
//! * A **lane** holds the fresh IDs of one namespace, oldest first. It is ready when it fills a call, when its
//!   oldest ID has lingered, when nothing more can join it, or when the worker drains. IDs join until the moment
//!   a call may really leave: a call slot is free, the pace permits, the endpoint is healthy.
//! * **Suspects** are batches that failed. They keep together, and away from fresh IDs, so that whatever is bad
//!   among them costs nobody else. A rejected batch is split at once; one that keeps failing while others
//!   succeed is split when it has `max_strikes`. Batches that relapsed (failed again although others had been
//!   deleted in between) are called one at a time, as their failures would hide one another's.
//! * **Condemned** is a lone ID that was rejected. Its message is dead-lettered with the deletion of any other ID
//!   by a call that left afterwards, which proves that the endpoint does delete. When there is nothing to try, or
//!   eight were rejected in a row, an ID deleted before serves as the control. If that is rejected too, or they are
//!   eight and there is none, the endpoint is to blame: nobody is dead-lettered, the condemned become suspects
//!   again, and once it deletes they are tried a second time.
//!
//! # What we believe of the endpoint
//!
//! [`Health`]: `Healthy`, `Open` (breaker) after `failure_threshold` transient failures in a row, `Blocked` as
//! soon as it refuses us. In the latter two only probes leave: single IDs, in rotation, at growing intervals,
//! and every other time one that was deleted before, as what is in hand may be just what fails.
//! Any deletion makes it healthy again. After `release_after` without a success the deliveries are given back,
//! once, and a few IDs are kept as payload for the probes. Where these are all there was, and nothing was ever
//! deleted, deliveries are taken again for others to try, at intervals that double.
//!
//! # What holds at all times
//!
//! * A delivery is acknowledged only after the endpoint confirmed each ID of it, or its dead letter is stored.
//! * A delivery is settled at most once an epoch; at the end of an epoch all its deliveries are forgotten, as
//!   the broker hands them out again.
//! * An ID is in at most one call at a time, and at most once in it; a call holds at most `batch_max` IDs, of
//!   one namespace.
//! * A failure is charged to a batch only if it stands between two successes, the later one of a call that left
//!   after it, and either only that batch failed between them or too few calls did to open the breaker.
//!
//! # Deliberately absent
//!
//! Priorities, ordering between messages, per-message time limits, and any memory beyond the process.

mod answer;
mod batch;
mod call;
mod health;
mod item;
mod ledger;
mod outage;
mod pace;
mod tally;
#[cfg(test)]
mod tests;
mod time;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::batch::{Batch, BatchNumber, Condemned, InFlight};
pub use self::batch::{CallId, Trigger};
use self::health::Monitor;
pub use self::health::{Health, Outage};
use self::item::{ItemKey, Items, Joined, Slot};
use self::ledger::{Ledger, Settlement, Verdict};
use self::pace::Pace;
pub use self::tally::Tally;
pub use self::time::Time;
use crate::config::OnOutage;
use crate::delivery::{Arrival, Extent, Obituary, Reason, Tag};
use crate::id::{Id, Namespace};
use crate::request::Request;
use crate::retry::Ladder;

/// What the engine needs to know; checked against each other by the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// IDs a call may hold.
    pub batch_max: usize,
    /// How long a lone ID may wait for company.
    pub linger: Duration,
    /// Calls in flight.
    pub concurrency_max: usize,
    /// Calls in any one second; `None`: no limit.
    pub rate_max: Option<f64>,
    /// Backoff of failed batches, and of throttled calls.
    pub retry: Ladder,
    /// Strikes after which a batch is split, or a lone ID given up.
    pub strikes_max: u32,
    /// Ceiling for what the endpoint may ask for.
    pub retry_after_max: Duration,
    /// Transient failures in a row that open the breaker.
    pub failure_threshold: u32,
    /// Intervals between probes.
    pub probe: Ladder,
    /// How long an outage lasts before the deliveries in hand are given back.
    pub release_after: Duration,
    /// What an outage means for messages.
    pub on_outage: OnOutage,
    /// Deliveries that the broker lets us have in hand.
    pub prefetch: usize,
    /// The namespace of messages that name none; `None` where calls know no namespaces.
    pub namespace: Option<Namespace>,
    /// From the request to drain to its end, whatever is still open.
    pub grace: Duration,
    /// Deliveries are held instead of acknowledged, and given back at the end.
    pub dry_run: bool,
}

/// How many deliveries may wait for each of the most IDs in hand, on average: each takes a few bytes, but the same large
/// message may be published any number of times.
const WAITING_FACTOR: usize = 16;

impl Settings {
    /// IDs in hand beyond which no delivery is taken: several times what the calls in flight hold, so that the
    /// next ones are full whatever the duplicates, and large messages can't exhaust the memory.
    fn ids_max(&self) -> usize {
        4 * (2 * self.concurrency_max + 1) * self.batch_max
    }
}

/// What the engine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Call the endpoint; its answer comes back by [`Engine::handle_answer`].
    Call(Call),
    /// Acknowledge.
    Ack(Extent),
    /// Return to the broker through no fault of its own.
    GiveBack(Extent),
    /// Store a dead letter; success comes back by [`Engine::handle_dead_lettered`].
    DeadLetter(Tag, Box<Obituary>),
    /// Start consuming.
    Consume,
    /// Stop consuming; comes back by [`Engine::handle_cancelled`].
    Cancel,
    /// Everything is settled or given back: the worker may go. Nothing follows.
    Drained,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Names it in its answer.
    pub id: CallId,
    /// The namespace, where calls know one.
    pub namespace: Option<Namespace>,
    /// At least one ID, each once.
    pub ids: Vec<Id>,
    /// Why it leaves now.
    pub trigger: Trigger,
    /// Its ordinal among the calls its IDs were in together, from 1.
    pub attempt: u32,
    /// How long its oldest ID has waited.
    pub waited: Duration,
}

/// Counts and states for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// IDs waiting for a call.
    pub ids_pending: usize,
    /// IDs in calls under way.
    pub ids_in_flight: usize,
    /// Calls under way.
    pub calls_in_flight: usize,
    /// Deliveries in hand.
    pub messages_unsettled: usize,
    /// Batches that failed and wait for their next call.
    pub batches_suspect: usize,
    /// What we believe of the endpoint.
    pub health: Health,
    /// Calls a second at present; `None`: no limit.
    pub rate: Option<f64>,
    /// We want deliveries.
    pub consuming: bool,
    /// The deliveries were given back because of a long outage.
    pub released: bool,
    /// On the way out.
    pub draining: bool,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    rng: fastrand::Rng,
    actions: VecDeque<Action>,
    tally: Tally,

    /// The current epoch's deliveries; `None` without a connection.
    ledger: Option<Ledger>,
    items: Items,
    /// What failed of deliveries that are not settled yet.
    failures: BTreeMap<Tag, Obituary>,

    /// Fresh IDs, oldest first; no lane is empty.
    lanes: BTreeMap<Slot, VecDeque<ItemKey>>,
    /// Batches that failed.
    suspects: VecDeque<Batch>,
    condemned: Vec<Condemned>,
    calls: Vec<InFlight>,
    ids_in_flight: usize,

    monitor: Monitor,
    pace: Pace,
    /// Since when a call has been ready but for the pace.
    pace_wait: Option<Time>,
    /// The largest batch that is known to pass, and when to try larger ones again.
    shrunk: Option<(usize, Time)>,
    /// An ID deleted before, for control.
    control: Option<(Option<Namespace>, Id)>,
    /// Probes sent, to take turns between sources.
    probes: u64,

    /// Before then the condemned are not seen to again.
    trial_due: Time,

    consumer: Consumer,
    /// When the consumer was confirmed; what waited in the queue was there by then.
    consuming_since: Option<Time>,
    /// Consumers that the broker has not confirmed yet.
    consumes: u32,
    /// Cancellations likewise.
    cancels: u32,
    /// The deliveries were given back; none are wanted until the endpoint is back.
    released: bool,
    /// How often deliveries were taken again in this outage, for something to probe with.
    resumptions: u32,
    drain: Option<Drain>,
    next_call: u64,
    next_batch: u64,
}

/// The consumer, as commanded; the broker shell carries commands out in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumer {
    Off,
    On,
    /// Deliveries may still arrive until the broker has confirmed.
    Cancelling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    /// Until then.
    Until(Time),
    Done,
}

impl Engine {
    /// An engine without a connection. `seed` decides its jitter.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            actions: VecDeque::new(),
            tally: Tally::default(),
            ledger: None,
            items: Items::new(settings.ids_max(), seed),
            failures: BTreeMap::new(),
            lanes: BTreeMap::new(),
            suspects: VecDeque::new(),
            condemned: Vec::new(),
            calls: Vec::new(),
            ids_in_flight: 0,
            monitor: Monitor::new(settings.failure_threshold, settings.probe.clone()),
            pace: Pace::new(settings.rate_max),
            pace_wait: None,
            shrunk: None,
            control: None,
            probes: 0,
            trial_due: Time::default(),
            consumer: Consumer::Off,
            consuming_since: None,
            consumes: 0,
            cancels: 0,
            released: false,
            resumptions: 0,
            drain: None,
            next_call: 1,
            next_batch: 1,
            settings,
        }
    }

    /// A new epoch begins; its deliveries count from tag 1.
    pub fn handle_connected(&mut self, now: Time) {
        self.ledger = Some(Ledger::new(self.settings.prefetch));
        self.consumer = Consumer::Off;
        (self.consumes, self.cancels) = (0, 0);
        // Those who waited for the suspects come again; until then a suspect is nobody's.
        for batch in &mut self.suspects {
            batch.due = batch.due.max(now + outage::REJOIN);
        }
    }

    /// The epoch is over: its deliveries come again from the broker, here or elsewhere.
    pub fn handle_disconnected(&mut self) {
        self.ledger = None;
        self.consumer = Consumer::Off;
        (self.consumes, self.cancels) = (0, 0);
        self.failures.clear();
        self.items.clear_waiters();
        self.actions.retain(|action| matches!(action, Action::Call(_) | Action::Drained));
        for Condemned { mut batch, key, since: _ } in std::mem::take(&mut self.condemned) {
            batch.items = vec![key];
            self.suspects.push_back(batch);
        }
        if !self.released {
            self.drop_lanes();
        }
    }

    /// The broker confirmed the consumer; its deliveries are handled from now on.
    pub fn handle_consuming(&mut self, now: Time) {
        // It may be the one before the last.
        self.consumes = self.consumes.saturating_sub(1);
        if self.consumes == 0 {
            self.consuming_since = Some(now);
        }
    }

    /// The broker confirmed that the consumer is cancelled, and the last of its deliveries has been handled.
    pub fn handle_cancelled(&mut self) {
        self.cancels = self.cancels.saturating_sub(1);
        if self.consumer == Consumer::Cancelling && self.cancels == 0 {
            self.consumer = Consumer::Off;
        }
    }

    /// Whether there is room for the IDs of another delivery. Without it, deliveries stay unparsed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let ids_max = self.settings.ids_max();
        let fits = self.items.live() < ids_max && self.items.waiting() < WAITING_FACTOR * ids_max;
        !self.is_accepting() || fits
    }

    /// A delivery of the current epoch.
    pub fn handle_arrival(&mut self, arrival: Arrival, now: Time) {
        let accepting = self.is_accepting();
        let Some(ledger) = &mut self.ledger else { return };
        let Arrival { tag, redelivered, waited, age, request } = arrival;
        self.tally.messages_received += 1;
        if !accepting {
            ledger.enter(tag, 1, age, now);
            self.tally.messages_released += 1;
            ledger.decide(tag, Verdict::Released, now);
            return;
        }
        match request {
            Ok(request) => {
                // A redelivered message is one that was deleted, but whose ack was lost.
                let since = self.consuming_since;
                let suffices = |asked| redelivered || waited && since.is_some_and(|since| asked > since);
                self.enlist(tag, suffices, age, request, now);
            }
            Err(malformed) => {
                ledger.enter(tag, 0, age, now);
                let obituary = Obituary {
                    reason: Reason::Malformed,
                    detail: malformed.0,
                    code: None,
                    http_status: None,
                    attempts: 0,
                    failed_ids: Vec::new(),
                };
                self.bury(tag, obituary);
            }
        }
    }

    /// These dead letters are stored.
    pub fn handle_dead_lettered(&mut self, tags: &[Tag], now: Time) {
        let Some(ledger) = &mut self.ledger else { return };
        for tag in tags {
            // Given back at the end of a drain, it may be stored nevertheless.
            if ledger.is_dying(*tag) {
                self.tally.messages_dead_lettered += 1;
                self.tally.ages.extend(ledger.decide(*tag, Verdict::DeadLettered, now));
            }
        }
    }

    /// The credentials were replaced: worth a probe at once.
    pub fn handle_credentials_changed(&mut self, now: Time) {
        self.monitor.probe_now(now);
    }

    /// The worker is asked to go: no more deliveries; what is open is sent, what is under way is awaited, the
    /// rest is given back, all within the grace.
    pub fn handle_drain(&mut self, now: Time) {
        if self.drain.is_none() {
            self.drain = Some(Drain::Until(now + self.settings.grace));
        }
    }

    /// The next thing to do, if any. Polled until `None` after each event and each [`Self::deadline`].
    pub fn poll(&mut self, now: Time) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let progress = self.advance_outage(now)
                || self.advance_consumer()
                // Nothing else is worth a call while everything may be rejected.
                || self.monitor.is_suspect() && self.advance_condemned(now)
                || self.advance_calls(now)
                || self.advance_condemned(now)
                || self.advance_settlements(now, false)
                || self.advance_drain(now);
            if !progress {
                return None;
            }
        }
    }

    /// When to poll again, should nothing happen before. Meaningful once [`Self::poll`] answered `None`.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let gap = self.ledger.as_ref().and_then(Ledger::deadline);
        let drain = match self.drain {
            Some(Drain::Until(end)) => Some(end),
            Some(Drain::Done) | None => None,
        };
        [gap, drain, self.calls_deadline(), self.outage_deadline()].into_iter().flatten().min()
    }

    /// What happened since the last time.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// How things stand.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            ids_pending: self.items.live() - self.ids_in_flight,
            ids_in_flight: self.ids_in_flight,
            calls_in_flight: self.calls.len(),
            messages_unsettled: self.ledger.as_ref().map_or(0, Ledger::in_hand),
            batches_suspect: self.suspects.len(),
            health: self.monitor.health().clone(),
            rate: self.pace.rate(),
            consuming: self.consumer == Consumer::On,
            released: self.released,
            draining: self.drain.is_some(),
        }
    }

    /// Enters a request's IDs; deletions that have happened count if they were asked for when it `suffices`.
    fn enlist(
        &mut self,
        tag: Tag,
        suffices: impl Fn(Time) -> bool,
        age: Option<Duration>,
        request: Request,
        now: Time,
    ) {
        let named = request.namespace.as_ref();
        let namespace = self.settings.namespace.as_ref().map(|default| named.unwrap_or(default));
        let slot = self.items.slot(namespace);
        let mut remaining = 0;
        for id in request.ids {
            match self.items.join(slot, id, tag, &suffices, now) {
                Joined::New(key) => {
                    self.lanes.entry(slot).or_default().push_back(key);
                    remaining += 1;
                }
                Joined::Waiting => {
                    self.tally.ids_deduplicated += 1;
                    remaining += 1;
                }
                Joined::Twice | Joined::Deleted => self.tally.ids_deduplicated += 1,
            }
        }
        let Some(ledger) = &mut self.ledger else { return };
        ledger.enter(tag, remaining, age, now);
        if remaining == 0 {
            self.close(tag, now);
        }
    }

    /// Takes the IDs that `waiters` waited for off their books.
    fn strike_off(&mut self, waiters: &[Tag], now: Time) {
        for tag in waiters {
            if self.ledger.as_mut().is_some_and(|ledger| ledger.strike_off(*tag)) {
                self.close(*tag, now);
            }
        }
    }

    /// Decides a delivery of which no ID is outstanding.
    fn close(&mut self, tag: Tag, now: Time) {
        if let Some(obituary) = self.failures.remove(&tag) {
            self.bury(tag, obituary);
            return;
        }
        let Some(ledger) = &mut self.ledger else { return };
        if self.settings.dry_run {
            ledger.hold(tag);
            return;
        }
        self.tally.messages_deleted += 1;
        self.tally.ages.extend(ledger.decide(tag, Verdict::Deleted, now));
    }

    fn bury(&mut self, tag: Tag, obituary: Obituary) {
        let Some(ledger) = &mut self.ledger else { return };
        if self.settings.dry_run {
            ledger.hold(tag);
        } else {
            ledger.dying(tag);
            self.actions.push_back(Action::DeadLetter(tag, Box::new(obituary)));
        }
    }

    fn advance_consumer(&mut self) -> bool {
        let wanted = self.ledger.is_some() && self.is_accepting();
        match self.consumer {
            Consumer::Off | Consumer::Cancelling if wanted => {
                self.consumer = Consumer::On;
                self.consuming_since = None;
                self.consumes += 1;
                self.actions.push_back(Action::Consume);
                true
            }
            Consumer::On if !wanted => {
                self.consumer = Consumer::Cancelling;
                self.cancels += 1;
                self.actions.push_back(Action::Cancel);
                true
            }
            Consumer::Off | Consumer::On | Consumer::Cancelling => false,
        }
    }

    /// Lets the settlements go that may; with `singly` also those beyond a gap.
    fn advance_settlements(&mut self, now: Time, singly: bool) -> bool {
        let Some(ledger) = &mut self.ledger else { return false };
        let mut settlements = Vec::new();
        ledger.settle(now, singly, &mut settlements);
        let any = !settlements.is_empty();
        self.actions.extend(settlements.into_iter().map(|settlement| match settlement {
            Settlement::Ack(extent) => Action::Ack(extent),
            Settlement::GiveBack(extent) => Action::GiveBack(extent),
        }));
        any
    }

    /// Ends the drain when nothing is left that could still be brought to its end.
    fn advance_drain(&mut self, now: Time) -> bool {
        let Some(Drain::Until(end)) = self.drain else { return false };
        let over = now >= end;
        let calls_open = !self.calls.is_empty() || self.can_call_before(end, now);
        let letters_open = self.ledger.as_ref().is_some_and(Ledger::has_dying);
        if !over && (calls_open || letters_open || self.consumer != Consumer::Off) {
            return false;
        }
        self.give_back_all(true);
        self.advance_settlements(now, true);
        self.drain = Some(Drain::Done);
        self.ledger = None;
        self.actions.push_back(Action::Drained);
        true
    }

    /// Whether new deliveries are entered rather than given back at once.
    fn is_accepting(&self) -> bool {
        self.drain.is_none() && !self.released
    }

    fn batch_number(&mut self) -> BatchNumber {
        self.next_batch += 1;
        BatchNumber(self.next_batch)
    }
}

/// Adds a failed ID to what is known about a delivery.
fn implicate(failures: &mut BTreeMap<Tag, Obituary>, tag: Tag, id: &Id, obituary: &Obituary) {
    failures
        .entry(tag)
        .or_insert_with(|| Obituary { failed_ids: Vec::new(), ..obituary.clone() })
        .failed_ids
        .push(id.clone());
}
