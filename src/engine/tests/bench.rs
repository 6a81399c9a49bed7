//! An engine on the bench: events by short words, actions as lines of text.
//!
//! ```text
//! call linger: a b          ack 3        dead-letter 2 rejected: bad
//! call retry default: a     ack ..3      give back 4     give back ..4
//! consume                   cancel       drained
//! ```
//!
//! `..3` is "up to tag 3"; a call names its namespace where it has one. Every action must be expected: a bench
//! that is dropped with one left over panics.

use std::collections::BTreeMap;
use std::mem::take;
use std::time::Duration;

use crate::answer::{Answer, Outcome, Rejection};
use crate::config::OnOutage;
use crate::delivery::{Arrival, Extent, Obituary, Tag};
use crate::engine::{Action, Call, Engine, Settings, Tally, Time};
use crate::id::{Id, Namespace};
use crate::request::{Malformed, Request};
use crate::retry::Ladder;

pub(super) struct Bench {
    pub(super) engine: Engine,
    now: Time,
    last_tag: u64,
    /// What the next message is.
    redelivered: bool,
    waited: bool,
    lines: Vec<String>,
    calls: Vec<Call>,
    obituaries: BTreeMap<u64, Obituary>,
    tally: Tally,
    waits: u32,
}

/// Calls of up to 3 IDs, two at a time, no rate limit; 3 strikes; a breaker that opens at the 5th failure.
pub(super) fn settings() -> Settings {
    Settings {
        batch_max: 3,
        linger: Duration::from_secs(1),
        concurrency_max: 2,
        rate_max: None,
        retry: Ladder::new(Duration::from_millis(500), Duration::from_secs(60), 2.0),
        strikes_max: 3,
        retry_after_max: Duration::from_secs(300),
        failure_threshold: 5,
        probe: Ladder::new(Duration::from_secs(1), Duration::from_secs(60), 2.0),
        release_after: Duration::from_secs(300),
        on_outage: OnOutage::Hold,
        prefetch: 100,
        namespace: None,
        grace: Duration::from_secs(25),
        dry_run: false,
    }
}

impl Bench {
    /// A connected, consuming engine with the ordinary [`settings`].
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, with settings changed.
    pub(super) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let mut bench = Self {
            engine: Engine::new(settings, 7),
            now: Time::default(),
            last_tag: 0,
            redelivered: false,
            waited: false,
            lines: Vec::new(),
            calls: Vec::new(),
            obituaries: BTreeMap::new(),
            tally: Tally::default(),
            waits: 0,
        };
        bench.connect();
        bench.expect(&["consume"]);
        bench.consuming();
        bench
    }

    pub(super) fn connect(&mut self) {
        self.last_tag = 0;
        self.engine.handle_connected(self.now);
    }

    pub(super) fn consuming(&mut self) {
        self.engine.handle_consuming(self.now);
    }

    pub(super) fn disconnect(&mut self) {
        self.engine.handle_disconnected();
        self.engine.take_tally();
        self.tally = Tally::default();
    }

    /// A new message with these IDs, separated by spaces.
    pub(super) fn arrive(&mut self, ids: &str) {
        self.deliver(None, Ok(ids));
    }

    /// A message that was delivered before.
    pub(super) fn rearrive(&mut self, ids: &str) {
        self.redelivered = true;
        self.deliver(None, Ok(ids));
    }

    /// A message that was in the queue when we began to consume.
    pub(super) fn arrive_at_last(&mut self, ids: &str) {
        self.waited = true;
        self.deliver(None, Ok(ids));
    }

    pub(super) fn arrive_in(&mut self, namespace: &str, ids: &str) {
        self.deliver(Some(namespace), Ok(ids));
    }

    pub(super) fn arrive_malformed(&mut self, fault: &str) {
        self.deliver(None, Err(fault));
    }

    fn deliver(&mut self, namespace: Option<&str>, ids: Result<&str, &str>) {
        self.last_tag += 1;
        let request = match ids {
            Ok(ids) => Ok(Request {
                ids: ids.split(' ').map(|id| Id::new(id).expect("fit")).collect(),
                namespace: namespace.map(|namespace| Namespace::new(namespace).expect("fit")),
                origin: None,
            }),
            Err(fault) => Err(Malformed(fault.to_owned())),
        };
        let (redelivered, waited) = (take(&mut self.redelivered), take(&mut self.waited));
        let arrival = Arrival { tag: Tag(self.last_tag), redelivered, waited, age: None, request };
        self.engine.handle_arrival(arrival, self.now);
    }

    /// Answers the call under way that holds exactly these IDs.
    pub(super) fn answer(&mut self, ids: &str, answer: Answer) {
        self.poll();
        let place = self.calls.iter().position(|call| text_of(call) == ids);
        let call = self.calls.remove(place.unwrap_or_else(|| panic!("no call of {ids}: {:?}", self.calls)));
        self.engine.handle_answer(call.id, answer, self.now);
    }

    pub(super) fn stored(&mut self, tags: &[u64]) {
        let tags: Vec<Tag> = tags.iter().copied().map(Tag).collect();
        self.engine.handle_dead_lettered(&tags, self.now);
    }

    pub(super) fn cancelled(&mut self) {
        self.engine.handle_cancelled();
    }

    pub(super) fn drain(&mut self) {
        self.engine.handle_drain(self.now);
    }

    pub(super) fn credentials_changed(&mut self) {
        self.engine.handle_credentials_changed(self.now);
    }

    /// These actions follow, in this order, and no others.
    #[track_caller]
    pub(super) fn expect(&mut self, lines: &[&str]) {
        self.poll();
        assert_eq!(take(&mut self.lines), lines);
    }

    /// Exactly so many calls follow.
    #[track_caller]
    pub(super) fn quiet_but_calls(&mut self, count: usize) {
        let lines = self.take();
        let calls = lines.iter().filter(|line| line.starts_with("call ")).count();
        assert_eq!(calls, count, "{lines:?}");
    }

    /// Nothing follows.
    #[track_caller]
    pub(super) fn quiet(&mut self) {
        self.expect(&[]);
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Lets `ms` go by, polling at each deadline on the way.
    pub(super) fn pass(&mut self, ms: u64) {
        self.poll();
        let end = self.now + Duration::from_millis(ms);
        while let Some(deadline) = self.engine.deadline().filter(|deadline| *deadline < end) {
            self.now = deadline;
            self.poll();
        }
        self.now = end;
        self.poll();
    }

    /// Nothing follows for `ms`, but then, at that very moment, these actions.
    #[track_caller]
    pub(super) fn expect_after(&mut self, ms: u64, lines: &[&str]) {
        self.quiet();
        let end = self.now + Duration::from_millis(ms);
        while let Some(deadline) = self.engine.deadline().filter(|deadline| *deadline < end) {
            self.now = deadline;
            self.quiet();
        }
        assert_eq!(self.engine.deadline(), Some(end), "the deadline");
        self.now = end;
        self.expect(lines);
    }

    /// Waits, through deadlines at which nothing happens, until something does; returns how long it took.
    #[track_caller]
    pub(super) fn wait(&mut self) -> Duration {
        self.waits += 1;
        assert!(self.waits < 1000, "this leads nowhere");
        let since = self.now;
        self.poll();
        for _ in 0..100 {
            if !self.lines.is_empty() {
                return self.now.since(since);
            }
            self.now = self.engine.deadline().expect("something to wait for");
            self.poll();
        }
        panic!("nothing happens");
    }

    /// Waits until these actions follow.
    #[track_caller]
    pub(super) fn expect_soon(&mut self, lines: &[&str]) {
        self.wait();
        self.expect(lines);
    }

    /// The actions that follow, for tests that look at a whole run of them.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.poll();
        take(&mut self.lines)
    }

    /// The IDs of the calls under way.
    pub(super) fn under_way(&self) -> Vec<String> {
        self.calls.iter().map(text_of).collect()
    }

    /// What was said of the message that died under this tag.
    pub(super) fn obituary(&self, tag: u64) -> &Obituary {
        &self.obituaries[&tag]
    }

    pub(super) fn tally(&mut self) -> &Tally {
        self.add_tally();
        &self.tally
    }

    /// Nothing is left: no ID, no delivery, no call, nothing to wait for, and the counts add up.
    #[track_caller]
    pub(super) fn done(&mut self) {
        self.quiet();
        let engine = &self.engine;
        assert_eq!(engine.items.live(), 0, "IDs are left");
        assert!(engine.lanes.is_empty() && engine.suspects.is_empty() && engine.condemned.is_empty());
        assert!(engine.calls.is_empty() && engine.failures.is_empty());
        assert_eq!(engine.snapshot().messages_unsettled, 0, "deliveries are left");
        assert_eq!(engine.deadline(), None, "waits for nothing");
        self.add_tally();
        let Tally { messages_deleted, messages_dead_lettered, messages_released, .. } = self.tally;
        let decided = messages_deleted + messages_dead_lettered + messages_released;
        assert_eq!(self.tally.messages_received, decided, "the counts add up");
    }

    fn add_tally(&mut self) {
        let tally = self.engine.take_tally();
        self.tally.messages_received += tally.messages_received;
        self.tally.messages_deleted += tally.messages_deleted;
        self.tally.messages_dead_lettered += tally.messages_dead_lettered;
        self.tally.messages_released += tally.messages_released;
        self.tally.ids_deleted += tally.ids_deleted;
        self.tally.ids_deduplicated += tally.ids_deduplicated;
        self.tally.ids_dry_run += tally.ids_dry_run;
        self.tally.retries += tally.retries;
        self.tally.batch_splits += tally.batch_splits;
        self.tally.rate_limit_waits.extend(tally.rate_limit_waits);
    }

    fn poll(&mut self) {
        while let Some(action) = self.engine.poll(self.now) {
            self.lines.push(line(&action));
            match action {
                Action::Call(call) => self.calls.push(call),
                Action::DeadLetter(tag, obituary) => {
                    self.obituaries.insert(tag.0, *obituary);
                }
                Action::Ack(_) | Action::GiveBack(_) | Action::Consume | Action::Cancel | Action::Drained => {
                }
            }
        }
        if let Some(deadline) = self.engine.deadline() {
            assert!(deadline > self.now, "a deadline that has passed");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.quiet();
        }
    }
}

pub(super) fn deleted() -> Answer {
    said(Outcome::Deleted, Some("0000"), 200)
}

pub(super) fn rejected() -> Answer {
    said(Outcome::Rejected(Rejection::Invalid), Some("0001"), 200)
}

pub(super) fn duplicate() -> Answer {
    said(Outcome::Rejected(Rejection::Duplicate), Some("0409"), 200)
}

pub(super) fn too_large() -> Answer {
    said(Outcome::Rejected(Rejection::TooLarge), None, 413)
}

pub(super) fn transient() -> Answer {
    said(Outcome::Transient, None, 500)
}

pub(super) fn blocked() -> Answer {
    said(Outcome::Blocked, Some("0401"), 200)
}

pub(super) fn throttled(retry_after: Option<u64>) -> Answer {
    let retry_after = retry_after.map(Duration::from_secs);
    Answer { retry_after, ..said(Outcome::Throttled, Some("0429"), 200) }
}

fn said(outcome: Outcome, code: Option<&str>, http_status: u16) -> Answer {
    let detail = format!("answered {}", code.map_or_else(|| http_status.to_string(), ToOwned::to_owned));
    Answer { outcome, code: code.map(Into::into), http_status: Some(http_status), retry_after: None, detail }
}

fn text_of(call: &Call) -> String {
    let ids: Vec<&str> = call.ids.iter().map(Id::as_str).collect();
    ids.join(" ")
}

fn line(action: &Action) -> String {
    let extent = |extent: &Extent| match extent {
        Extent::One(tag) => format!("{}", tag.0),
        Extent::UpTo(tag) => format!("..{}", tag.0),
    };
    match action {
        Action::Call(call) => {
            let namespace =
                call.namespace.as_ref().map_or_else(String::new, |ns| format!(" {}", ns.as_str()));
            format!("call {}{namespace}: {}", call.trigger.as_str(), text_of(call))
        }
        Action::Ack(which) => format!("ack {}", extent(which)),
        Action::GiveBack(which) => format!("give back {}", extent(which)),
        Action::DeadLetter(tag, obituary) => {
            let ids: Vec<&str> = obituary.failed_ids.iter().map(Id::as_str).collect();
            format!("dead-letter {} {}: {}", tag.0, obituary.reason.as_str(), ids.join(" "))
        }
        Action::Consume => "consume".to_owned(),
        Action::Cancel => "cancel".to_owned(),
        Action::Drained => "drained".to_owned(),
    }
}
