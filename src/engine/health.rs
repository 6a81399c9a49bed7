//! What we believe of the endpoint, and whom a failure is charged to.

use std::time::Duration;

use compact_str::CompactString;

use super::Time;
use super::batch::BatchNumber;
use crate::retry::Ladder;

/// Lone IDs rejected in a row with the same code, and nothing deleted in between, that put the blame on the
/// endpoint.
pub(super) const REJECTIONS_MAX: u32 = 8;

/// For how long a deletion shows that the endpoint is itself.
const LATELY: Duration = Duration::from_secs(3);

/// What we believe of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers, or nothing speaks against it.
    Healthy,
    /// The breaker is open: too many calls in a row came to nothing.
    Open(Outage),
    /// It refuses us, whatever the IDs.
    Blocked(Outage),
}

/// An endpoint that isn't healthy is asked now and then with a small call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When it began.
    pub since: Time,
    /// When the next probe may leave.
    pub next_probe: Time,
    /// The latest failure, as a fragment that fits "the endpoint ...".
    pub cause: String,
    /// Probes that failed.
    pub(super) probes: u32,
    /// A probe is under way.
    pub(super) probing: bool,
    /// It began with rejections of one lone ID after another: only a deletion proves the contrary.
    pub(super) rejects_all: bool,
}

/// Whom the failures since the last success belong to.
///
/// A failure is charged to its batch only if it stands between two successes, and either all failures between them
/// are its own, or they were too few to open the breaker: then the endpoint was healthy around it, and what
/// differed was the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Streak {
    /// These batches failed since the last success, each with the time of its last failure.
    Of(Vec<(BatchNumber, Time)>),
    /// Too many failed, or nothing has succeeded yet: it proves nothing about any of them.
    Mixed,
}

/// Keeps [`Health`], and what follows from the sequence of answers.
#[derive(Debug)]
pub(super) struct Monitor {
    health: Health,
    /// Since when nothing has succeeded although something was tried.
    trouble_since: Option<Time>,
    failures_in_row: u32,
    streak: Streak,
    succeeded_at: Option<Time>,
    rejections: u32,
    rejection_code: Option<CompactString>,
    threshold: u32,
    probe: Ladder,
}

impl Monitor {
    pub(super) fn new(threshold: u32, probe: Ladder) -> Self {
        Self {
            health: Health::Healthy,
            trouble_since: None,
            failures_in_row: 0,
            streak: Streak::Mixed,
            succeeded_at: None,
            rejections: 0,
            rejection_code: None,
            threshold,
            probe,
        }
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.health == Health::Healthy
    }

    /// Since when nothing has succeeded although something was tried.
    pub(super) fn trouble_since(&self) -> Option<Time> {
        self.trouble_since
    }

    /// Transient failures since the last other answer.
    pub(super) fn failures_in_row(&self) -> u32 {
        self.failures_in_row
    }

    /// Whether a call that left after `time` has deleted IDs.
    pub(super) fn succeeded_since(&self, time: Time) -> bool {
        self.succeeded_at.is_some_and(|succeeded| succeeded > time)
    }

    /// Whether a call that left just now has deleted IDs.
    pub(super) fn succeeded_lately(&self, now: Time) -> bool {
        self.succeeded_at.is_some_and(|succeeded| now.since(succeeded) <= LATELY)
    }

    /// Whether `batch` failed since the last success, and may yet be charged with it.
    pub(super) fn implicates(&self, batch: BatchNumber) -> bool {
        match &self.streak {
            Streak::Of(batches) => batches.iter().any(|(number, _)| *number == batch),
            Streak::Mixed => false,
        }
    }

    pub(super) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// The endpoint rejects whatever it is asked: lone rejections prove nothing now.
    pub(super) fn rejects_all(&self) -> bool {
        self.outage().is_some_and(|outage| outage.rejects_all)
    }

    /// When the next probe may leave; `None` while healthy, or while one is under way.
    pub(super) fn next_probe(&self) -> Option<Time> {
        self.outage().filter(|outage| !outage.probing).map(|outage| outage.next_probe)
    }

    /// A call that left at `departed` has deleted IDs. Returns the batches that earlier failures are now charged
    /// to; those that failed while the call was under way wait for the next one.
    pub(super) fn succeeded(&mut self, departed: Time) -> Vec<BatchNumber> {
        let (charged, pending) = match std::mem::replace(&mut self.streak, Streak::Mixed) {
            Streak::Of(batches) => batches.into_iter().partition(|(_, failed)| *failed <= departed),
            Streak::Mixed => (Vec::new(), Vec::new()),
        };
        self.streak = Streak::Of(pending);
        self.succeeded_at = self.succeeded_at.max(Some(departed));
        self.failures_in_row = 0;
        self.rejections = 0;
        self.trouble_since = None;
        self.health = Health::Healthy;
        charged.into_iter().map(|(number, _)| number).collect()
    }

    /// A call of `batch` came to nothing; with `opens`, enough of these in a row open the breaker.
    pub(super) fn failed(&mut self, batch: BatchNumber, opens: bool, cause: &str, now: Time) {
        self.trouble_since.get_or_insert(now);
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        if let Streak::Of(batches) = &mut self.streak {
            batches.retain(|(number, _)| *number != batch);
            batches.push((batch, now));
            if batches.len() > 1 && self.failures_in_row >= self.threshold {
                self.streak = Streak::Mixed;
            }
        }
        match &mut self.health {
            Health::Healthy if opens && self.failures_in_row >= self.threshold => self.open(cause, now),
            Health::Healthy => {}
            Health::Open(outage) | Health::Blocked(outage) => cause.clone_into(&mut outage.cause),
        }
    }

    /// The endpoint answered that something in a batch is bad: it is there, and speaks with us.
    pub(super) fn rejected(&mut self) {
        self.failures_in_row = 0;
        if !self.rejects_all() {
            self.health = Health::Healthy;
            self.trouble_since = None;
        }
    }

    /// A lone ID was rejected with `code`.
    pub(super) fn rejected_alone(&mut self, code: Option<&CompactString>) {
        if self.rejections > 0 && self.rejection_code.as_ref() == code {
            self.rejections = self.rejections.saturating_add(1);
        } else {
            self.rejections = 1;
            self.rejection_code = code.cloned();
        }
    }

    /// Whether so many lone IDs were rejected in a row that the endpoint may be to blame.
    pub(super) fn is_suspect(&self) -> bool {
        self.rejections >= REJECTIONS_MAX
    }

    /// The endpoint rejects whatever it is asked.
    pub(super) fn rejects_everything(&mut self, cause: &str, now: Time) {
        self.trouble_since.get_or_insert(now);
        if self.is_healthy() {
            let cause = format!("rejects whatever it is asked: {cause}");
            self.health = Health::Blocked(Outage { rejects_all: true, ..self.outage_from(&cause, now) });
        }
    }

    /// Over the rate limit: trouble, if it lasts.
    pub(super) fn throttled(&mut self, now: Time) {
        self.trouble_since.get_or_insert(now);
    }

    /// The endpoint refuses us, whatever the IDs.
    pub(super) fn blocked(&mut self, cause: &str, now: Time) {
        self.trouble_since.get_or_insert(now);
        self.failures_in_row = 0;
        self.streak = Streak::Mixed;
        match &mut self.health {
            Health::Healthy => self.health = Health::Blocked(self.outage_from(cause, now)),
            Health::Open(outage) | Health::Blocked(outage) => {
                cause.clone_into(&mut outage.cause);
                self.health = Health::Blocked(outage.clone());
            }
        }
    }

    /// Opens the breaker.
    pub(super) fn open(&mut self, cause: &str, now: Time) {
        self.health = Health::Open(self.outage_from(cause, now));
    }

    /// A probe leaves.
    pub(super) fn probe_left(&mut self) {
        if let Some(outage) = self.outage_mut() {
            outage.probing = true;
        }
    }

    /// The probe under way came to nothing; the next one follows later. If it `tells` about the endpoint, it
    /// exonerates the batches that failed.
    pub(super) fn probe_failed(&mut self, tells: bool, now: Time, rng: &mut fastrand::Rng) {
        if tells {
            self.streak = Streak::Mixed;
        }
        let Self { health, probe, .. } = self;
        if let Health::Open(outage) | Health::Blocked(outage) = health {
            outage.probing = false;
            outage.probes = outage.probes.saturating_add(1);
            outage.next_probe = now + interval(probe, outage.probes + 1, rng);
        }
    }

    /// The outage goes on, for this reason.
    pub(super) fn still_out(&mut self, cause: &str) {
        if let Some(outage) = self.outage_mut() {
            cause.clone_into(&mut outage.cause);
        }
    }

    /// Something has changed that may mend it: the next probe leaves at once, and the intervals start anew.
    pub(super) fn probe_now(&mut self, now: Time) {
        if let Some(outage) = self.outage_mut() {
            outage.probes = 0;
            outage.next_probe = now;
        }
    }

    /// Nothing is left that came to nothing.
    pub(super) fn forget_trouble(&mut self) {
        self.trouble_since = None;
    }

    /// Starts the time over after which an outage counts as long.
    pub(super) fn restart_trouble(&mut self, now: Time) {
        self.trouble_since = Some(now);
    }

    fn outage_from(&self, cause: &str, now: Time) -> Outage {
        Outage {
            since: now,
            next_probe: now + self.probe.ceiling(1),
            cause: cause.to_owned(),
            probes: 0,
            probing: false,
            rejects_all: false,
        }
    }

    fn outage(&self) -> Option<&Outage> {
        match &self.health {
            Health::Healthy => None,
            Health::Open(outage) | Health::Blocked(outage) => Some(outage),
        }
    }

    fn outage_mut(&mut self) -> Option<&mut Outage> {
        match &mut self.health {
            Health::Healthy => None,
            Health::Open(outage) | Health::Blocked(outage) => Some(outage),
        }
    }
}

/// The interval before the `probe`th probe, up to a tenth shorter, so that replicas fall out of step.
fn interval(ladder: &Ladder, probe: u32, rng: &mut fastrand::Rng) -> Duration {
    ladder.ceiling(probe).mul_f64(1.0 - 0.1 * rng.f64())
}
