//! A drain of 20,000 messages with a fault in its middle, and the count at its end.
//!
//! A row of the matrix is a test of this form:
//!
//! ```ignore
//! let mut row = Row::new("worker: `kill -9`");
//! for moment in moments(Moment::Percent(50)) {
//!     let mut drain = Drain::new(moment).await;     // and whatever the row sets in `drain.world`
//!     drain.fill().await;
//!     let worker = drain.world.start().await;
//!     drain.reached().await;
//!     /* the fault, and its end */
//!     let lifted = drain.lifted();
//!     drain.consumed_again(&worker, lifted).await;
//!     row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
//! }
//! row.print();
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Once;
use std::time::{Duration, Instant};

use deletion_worker::mock::Fate;
use deletion_worker::status::EndpointState;

use crate::support::broker::{Vhost, vhost};
use crate::support::letter::{self, header};
use crate::support::world::{Worker, World};
use crate::support::{PATIENCE, amqp, wait_for};

/// Messages of a drain.
pub(super) const MESSAGES: usize = 20_000;
/// IDs a call may hold, and calls at a time: with [`LATENCY`] a drain takes some seconds, so it has a middle.
pub(super) const BATCH: usize = 100;
pub(super) const CALLS: usize = 2;
/// How long the endpoint takes for a call.
pub(super) const LATENCY: Duration = Duration::from_millis(20);
/// Messages in hand at most, as `amqp.prefetch` is by default.
const PREFETCH: u64 = (2 * CALLS as u64 + 1) * BATCH as u64;
/// From the end of a fault to the end of the drain, on a slow and busy machine.
const DRAIN_PATIENCE: Duration = Duration::from_secs(180);
/// More than a worker writes about any fault here; far less than one that goes round and round.
const LINES_MAX: usize = 2_000;
/// Likewise of calls that came to nothing.
const FUTILE_CALLS_MAX: u64 = 2_000;
/// Malformed messages, one after another, so that dead letters are written for a while.
const MALFORMED: std::ops::Range<usize> = 12_000..12_600;

/// When the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// So much of what has to be deleted is deleted, in percent.
    Percent(u64),
    /// Calls are under way: carried out by the endpoint, but not yet answered.
    Calls,
    /// Dead letters are being written.
    Letters,
}

/// Where the fault of a row comes: at `representative` in an ordinary run, at all moments in `make test-faults`.
pub(super) fn moments(representative: Moment) -> Vec<Moment> {
    match std::env::var("FAULT_MOMENTS") {
        Ok(which) if which == "all" => {
            vec![Moment::Percent(5), Moment::Calls, Moment::Percent(50), Moment::Letters, Moment::Percent(85)]
        }
        Ok(which) => panic!("FAULT_MOMENTS is {which:?}, expected \"all\" or nothing"),
        Err(_) => vec![representative],
    }
}

/// A queue with [`MESSAGES`] messages, an endpoint, and what has to come of them.
pub(super) struct Drain {
    pub(super) world: World,
    moment: Moment,
    wanted: Wanted,
    again: Duration,
}

/// What has to come of the messages.
#[derive(Default)]
struct Wanted {
    bodies: Vec<String>,
    /// The IDs to be deleted, and how many messages ask for each.
    ids: BTreeMap<String, u32>,
    /// The messages to be dead-lettered, and the reason.
    letters: BTreeMap<String, &'static str>,
}

/// What may happen twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// IDs that are deleted more often than messages ask for it.
    pub(super) ids_twice: u64,
    /// Messages that are dead-lettered more than once.
    pub(super) letters_twice: u64,
}

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifted {
    at: Instant,
    deleted: u64,
}

/// What was counted at the end of a drain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    ids_twice: u64,
    letters_twice: u64,
    again: Duration,
}

impl Drain {
    /// On a virtual host of the shared broker.
    pub(super) async fn new(moment: Moment) -> Self {
        Self::on(moment, vhost().await).await
    }

    /// On any virtual host.
    pub(super) async fn on(moment: Moment, vhost: Vhost) -> Self {
        let mut world = World::on(vhost).await;
        world.set("batch.max_ids", &BATCH.to_string());
        world.set("endpoint.max_concurrency", &CALLS.to_string());
        world.set("log.level", "info");
        world.faults(|faults| {
            faults.latency = LATENCY;
            faults.bad_prefix = Some("BAD".into());
        });
        Self { world, moment, wanted: Wanted::new(), again: Duration::ZERO }
    }

    /// Declares the queues and publishes all messages.
    pub(super) async fn fill(&mut self) {
        self.world.prepare().await;
        self.world.publish(std::mem::take(&mut self.wanted.bodies)).await;
    }

    /// Waits until the moment for the fault is there.
    pub(super) async fn reached(&self) {
        match self.moment {
            Moment::Percent(percent) => self.is_deleted(percent).await,
            Moment::Calls => {
                self.is_deleted(30).await;
                self.calls_under_way(Duration::from_millis(500)).await;
            }
            Moment::Letters => {
                wait_for("dead letters being written", PATIENCE, async || {
                    // More than all that don't stand in one place.
                    amqp::ready(&self.world.connection, "deletions.dead").await > 50
                })
                .await;
            }
        }
    }

    /// The fault has ended now.
    pub(super) fn lifted(&self) -> Lifted {
        Lifted { at: Instant::now(), deleted: self.world.mock.stats().ids_deleted }
    }

    /// Waits until `worker` consumes and deletes more than when the fault ended, and notes how long that took.
    pub(super) async fn consumed_again(&mut self, worker: &Worker, lifted: Lifted) -> Duration {
        worker
            .wait_until("it consumes and deletes again", async |worker| {
                self.world.mock.stats().ids_deleted > lifted.deleted && worker.is_consuming().await
            })
            .await;
        let took = lifted.at.elapsed();
        self.again = self.again.max(took);
        took
    }

    /// Waits until no call is under way any more, so that what is deleted from now on was consumed from now on.
    pub(super) async fn calls_ended(&self) {
        wait_for("no call under way", PATIENCE, async || self.world.mock.stats().concurrent == 0).await;
    }

    /// Waits until `worker` takes the endpoint for this, if only for a moment: calls from before a fault may still
    /// succeed.
    pub(super) async fn endpoint_is(&self, worker: &Worker, state: EndpointState) {
        let is = async |worker: &Worker| {
            worker.status().await.is_some_and(|status| status.endpoint.state == state)
        };
        worker.wait_until(&format!("the endpoint is {}", state.as_str()), is).await;
    }

    /// IDs of the calls whose effect came to pass and whose answer was lost, each as often as it was.
    pub(super) fn ids_of_lost_calls(&self) -> u64 {
        let calls = self.world.mock.calls();
        calls.iter().filter(|call| call.outcome == Fate::Lost).map(|call| call.size as u64).sum()
    }

    /// Waits until so many more IDs are deleted.
    pub(super) async fn deletes_more(&self, ids: u64) {
        self.world.deleted_at_least(self.world.mock.stats().ids_deleted + ids).await;
    }

    /// Waits until everything is settled, stops the worker and counts.
    ///
    /// Panics if anything was lost, or dead-lettered that doesn't belong there, or if more than `bounds` happened
    /// twice.
    pub(super) async fn verify(self, mut worker: Worker, bounds: Bounds) -> Count {
        self.settled(&worker).await;
        worker.stop().await;
        // With the consumer gone, what it had not settled would be back.
        self.world.ready(0).await;
        let stderr = worker.process.stderr.all();
        assert!(stderr.len() < LINES_MAX, "{} lines of log; the last: {:#?}", stderr.len(), tail(&stderr));
        let calls = self.world.mock.stats().calls;
        let futile: u64 = calls.iter().filter(|(fate, _)| **fate != Fate::Deleted).map(|(_, n)| n).sum();
        assert!(futile < FUTILE_CALLS_MAX, "{calls:?}");
        let ids_twice = self.count_ids();
        let letters_twice = self.count_letters().await;
        assert!(
            ids_twice <= bounds.ids_twice && letters_twice <= bounds.letters_twice,
            "{:?}: {ids_twice} IDs deleted twice, {letters_twice} messages dead-lettered twice; {bounds:?}",
            self.moment
        );
        Count { ids_twice, letters_twice, again: self.again }
    }

    async fn is_deleted(&self, percent: u64) {
        self.world.deleted_at_least(self.wanted.ids.len() as u64 * percent / 100).await;
    }

    /// Returns when all calls under way are such that take so long; those after them aren't.
    pub(super) async fn calls_under_way(&self, latency: Duration) {
        let before = self.calls_so_far();
        self.world.faults(|faults| faults.latency = latency);
        // The first may have been under way before: its latency is drawn when it comes in.
        wait_for("slow calls under way", PATIENCE, async || {
            self.calls_so_far() >= before + CALLS as u64 && self.world.mock.stats().concurrent == CALLS
        })
        .await;
        self.world.faults(|faults| faults.latency = LATENCY);
    }

    fn calls_so_far(&self) -> u64 {
        self.world.mock.stats().calls.values().sum()
    }

    /// Waits until nothing is left to do, by the worker's word and the broker's own count.
    async fn settled(&self, worker: &Worker) {
        let world = &self.world;
        let is_settled = async || {
            let ready = amqp::ready(&world.connection, "deletions").await;
            let status = worker.status().await;
            let held = status.map(|status| status.held.messages_unsettled);
            let queue = world.vhost.management.queue(&world.vhost.name, "deletions").await;
            ready == 0 && held == Some(0) && queue.is_ok_and(|queue| (queue.ready, queue.unacked) == (0, 0))
        };
        let waited = tokio::time::timeout(DRAIN_PATIENCE, async {
            while !is_settled().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if waited.await.is_err() {
            let status = worker.status().await;
            panic!(
                "{:?}: not drained after {DRAIN_PATIENCE:?}; {} of {} IDs deleted; {status:#?}; its log: {:#?}",
                self.moment,
                world.mock.stats().ids_deleted,
                self.wanted.ids.len(),
                tail(&worker.process.stderr.all())
            );
        }
    }

    /// Sees that exactly the wanted IDs were deleted; returns how many more often than asked for.
    fn count_ids(&self) -> u64 {
        let (deleted, wanted) = (self.world.mock.deleted(), &self.wanted.ids);
        let lost: Vec<_> = wanted.keys().filter(|id| !deleted.contains_key(*id)).collect();
        assert!(lost.is_empty(), "{:?}: {} IDs lost: {:?}", self.moment, lost.len(), tail(&lost));
        let other: Vec<_> = deleted.keys().filter(|id| !wanted.contains_key(*id)).collect();
        assert!(other.is_empty(), "{:?}: deleted though nobody asked: {:?}", self.moment, tail(&other));
        deleted.iter().filter(|(id, times)| **times > wanted[*id]).count() as u64
    }

    /// Sees that exactly the wanted messages were dead-lettered; returns how many more than once.
    async fn count_letters(&self) -> u64 {
        let letters = amqp::take_all(&self.world.connection, "deletions.dead").await;
        let mut found = BTreeMap::<String, u64>::new();
        for letter in &letters {
            let body = letter::body(letter).to_owned();
            let reason = header(letter, "x-deletion-reason");
            let detail = header(letter, "x-deletion-detail");
            let wanted = self.wanted.letters.get(&body);
            assert_eq!(wanted, Some(&reason.as_str()), "{:?}: {body}: {detail}", self.moment);
            *found.entry(body).or_default() += 1;
        }
        let lost: BTreeSet<_> =
            self.wanted.letters.keys().filter(|body| !found.contains_key(*body)).collect();
        assert!(lost.is_empty(), "{:?}: acknowledged without a dead letter: {lost:?}", self.moment);
        found.values().filter(|times| **times > 1).count() as u64
    }
}

impl Wanted {
    /// Mostly single IDs; some messages with three, some that repeat an ID of a moment or of long ago, and a few
    /// whose dead letter belongs there.
    fn new() -> Self {
        let mut wanted = Self::default();
        for place in 0..MESSAGES {
            let id = format!("VI{place}");
            if MALFORMED.contains(&place) {
                wanted.letter(format!(r#"{{"videoNo":{place}"#), "malformed");
            } else if place % 1000 == 0 {
                wanted.letter(format!(r#"{{"videoNo":"BAD{place}"}}"#), "rejected");
            } else if place % 1000 == 500 {
                wanted.letter(format!(r#"["{id}","BAD{place}"]"#), "rejected");
                wanted.ask([id]);
            } else if place % 20 == 7 {
                wanted.bodies.push(format!(r#"{{"videoNos":["{id}","{id}b","{id}c"]}}"#));
                wanted.ask([format!("{id}b"), format!("{id}c"), id]);
            } else if place % 20 == 13 {
                let back = if place % 40 == 13 { 20 } else { 6_000 };
                let again = format!("VI{}", place.saturating_sub(back));
                wanted.bodies.push(format!(r#"["{again}"]"#));
                wanted.ask([again]);
            } else {
                wanted.bodies.push(format!(r#"{{"videoNo":"{id}"}}"#));
                wanted.ask([id]);
            }
        }
        assert_eq!(wanted.bodies.len(), MESSAGES);
        wanted
    }

    fn ask(&mut self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            *self.ids.entry(id).or_default() += 1;
        }
    }

    fn letter(&mut self, body: String, reason: &'static str) {
        self.bodies.push(body.clone());
        self.letters.insert(body, reason);
    }
}

impl Bounds {
    /// Nothing.
    pub(super) const NONE: Self = Self { ids_twice: 0, letters_twice: 0 };
    /// What the same worker does twice when it loses its connection: what it deleted is remembered, but a dead
    /// letter whose message it could not acknowledge any more is written once more.
    pub(super) const ONE_CONNECTION: Self = Self { letters_twice: PREFETCH, ..Self::NONE };
    /// What the same worker does twice when it loses its connections to the endpoint: calls that were under way,
    /// and of which it can't know whether they were carried out.
    pub(super) const CALLS_UNDER_WAY: Self = Self { ids_twice: (CALLS * BATCH) as u64, ..Self::NONE };
    /// What a worker that dies may have done without the broker knowing: all it had in hand. Of as many messages
    /// in a row a twentieth holds three IDs; the few that wait long for a verdict are not in a row.
    pub(super) const ONE_DEATH: Self =
        Self { ids_twice: PREFETCH + PREFETCH / 10 + 40, letters_twice: PREFETCH };
}

/// The processor time of a worker that has nothing to do but to wait.
pub(super) struct Calm {
    since: Instant,
    used: Duration,
}

impl Calm {
    pub(super) fn from_now_on(worker: &Worker) -> Self {
        Self { since: Instant::now(), used: worker.process.processor_time() }
    }

    /// Sees that it did not keep a processor busy meanwhile.
    pub(super) fn verify(&self, worker: &Worker) {
        let (used, took) = (worker.process.processor_time() - self.used, self.since.elapsed());
        assert!(used < took / 2, "{used:?} of processor time in {took:?} of waiting");
    }
}

/// One row of the table.
pub(super) struct Row {
    name: &'static str,
    counts: Vec<Count>,
}

impl Row {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, counts: Vec::new() }
    }

    pub(super) fn add(&mut self, count: Count) {
        self.counts.push(count);
    }

    /// Prints the row; before the first one, the head of the table.
    #[expect(clippy::print_stdout, reason = "the table is what `make test-faults` is for")]
    pub(super) fn print(&self) {
        static HEAD: Once = Once::new();
        HEAD.call_once(|| {
            println!(
                "\n| fault | drains | lost | wrongly dead-lettered | IDs deleted twice | dead letters twice \
                 | consumed again after |\n| --- | --- | --- | --- | --- | --- | --- |"
            );
        });
        let worst = |what: fn(&Count) -> u64| self.counts.iter().map(what).max().unwrap_or_default();
        let again = self.counts.iter().map(|count| count.again).max().unwrap_or_default();
        println!(
            "| {} | {} | 0 | 0 | {} | {} | {:.1} s |",
            self.name,
            self.counts.len(),
            worst(|count| count.ids_twice),
            worst(|count| count.letters_twice),
            again.as_secs_f64(),
        );
    }
}

/// The last few, for a message.
fn tail<T>(all: &[T]) -> &[T] {
    &all[all.len().saturating_sub(20)..]
}

/// A drain that is over before it has begun.
async fn nothing_wanted() -> (Drain, Worker) {
    let mut drain = Drain::new(Moment::Percent(0)).await;
    drain.wanted = Wanted::default();
    let worker = drain.world.start().await;
    (drain, worker)
}

#[tokio::test]
#[should_panic(expected = "1 IDs lost: [\"VI1\"]")]
async fn a_loss_is_noticed() {
    let (mut drain, worker) = nothing_wanted().await;
    drain.wanted.ask(["VI1".to_owned()]);
    drain.verify(worker, Bounds::NONE).await;
}

#[tokio::test]
#[should_panic(expected = "deleted though nobody asked: [\"VI1\"]")]
async fn a_deletion_that_nobody_asked_for_is_noticed() {
    let (drain, worker) = nothing_wanted().await;
    drain.world.publish_ids(["VI1"]).await;
    drain.world.deleted(1).await;
    drain.verify(worker, Bounds::NONE).await;
}

#[tokio::test]
#[should_panic(expected = "1 IDs deleted twice")]
async fn a_repeated_deletion_is_noticed() {
    let (mut drain, worker) = nothing_wanted().await;
    drain.wanted.ask(["VI1".to_owned()]);
    for times in 1..=2 {
        drain.world.publish_ids(["VI1"]).await;
        let is_deleted = async || drain.world.mock.deleted().get("VI1") == Some(&times);
        wait_for("the ID is deleted", PATIENCE, is_deleted).await;
        // Else it may still be the same deletion that the second message asks for.
        worker.settled(&drain.world).await;
    }
    drain.verify(worker, Bounds::NONE).await;
}

#[tokio::test]
#[should_panic(expected = "not a request")]
async fn a_dead_letter_that_does_not_belong_there_is_noticed() {
    let (drain, worker) = nothing_wanted().await;
    drain.world.publish(["not a request"]).await;
    wait_for("its dead letter", PATIENCE, async || {
        amqp::ready(&drain.world.connection, "deletions.dead").await == 1
    })
    .await;
    drain.verify(worker, Bounds::NONE).await;
}

#[tokio::test]
#[should_panic(expected = "acknowledged without a dead letter: {\"not a request\"}")]
async fn a_missing_dead_letter_is_noticed() {
    let (mut drain, worker) = nothing_wanted().await;
    drain.wanted.letter("not a request".into(), "malformed");
    drain.verify(worker, Bounds::NONE).await;
}
