//! Whether a worker's calls heed what the endpoint answered: its breaker, probes, backoff, `Retry-After`.

use std::collections::{BTreeMap, VecDeque};

use super::invariant::{Check, Invariant};
use crate::answer::{Answer, Outcome};
use crate::config::OnOutage;
use crate::engine::{Call, Engine, Health, Settings, Time, Trigger};
use crate::id::{Id, Namespace};

/// Retries that are looked at together.
const RETRIES: usize = 16;

/// So much of the longest waits that these retries could have had they waited at least, together. With full jitter a
/// sum of 16 is below 0.5 in 2^-16 / 16! of all cases, less than one in 10^18.
const LEAST_WAIT: f64 = 0.5;

#[derive(Debug)]
pub(super) struct Caller {
    settings: Settings,
    /// Transient failures in a row, as the breaker counts them.
    failures: u32,
    was_healthy: bool,
    /// Nothing leaves before.
    quiet_until: Time,
    /// The outage that is on, by its beginning.
    outage: Option<Time>,
    /// Probes sent in it since the intervals began anew, and when the last of them was.
    probes: u32,
    probed_at: Option<Time>,
    /// Sets of IDs that failed together: how often, and when last.
    failed: BTreeMap<(Option<Namespace>, Vec<Id>), (u32, Time)>,
    /// How long the latest retries had waited, each as a share of the longest it could have.
    waits: VecDeque<f64>,
}

impl Caller {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            failures: 0,
            was_healthy: true,
            quiet_until: Time::default(),
            outage: None,
            probes: 0,
            probed_at: None,
            failed: BTreeMap::new(),
            waits: VecDeque::new(),
        }
    }

    pub(super) fn credentials_changed(&mut self, engine: &Engine) {
        self.outage = outage(engine);
        self.probes = 0;
        self.probed_at = None;
    }

    pub(super) fn hears(&mut self, call: &Call, answer: &Answer, now: Time) {
        if let Some(wait) = answer.retry_after {
            self.quiet_until = self.quiet_until.max(now + wait.min(self.settings.retry_after_max));
        }
        let set = (call.namespace.clone(), call.ids.clone());
        match answer.outcome {
            Outcome::Transient if call.trigger == Trigger::Probe => {}
            Outcome::Transient => {
                self.failures += 1;
                let (count, at) = self.failed.entry(set).or_insert((0, now));
                *count = if call.trigger == Trigger::Retry { *count + 1 } else { 1 };
                *at = now;
            }
            Outcome::Deleted | Outcome::Rejected(_) | Outcome::Blocked => {
                self.failures = 0;
                self.failed.remove(&set);
            }
            Outcome::Throttled => {}
        }
    }

    pub(super) fn handled(&mut self, engine: &Engine) -> Check {
        let healthy = engine.monitor.is_healthy();
        if healthy && !std::mem::replace(&mut self.was_healthy, healthy) {
            // Nobody waits for a backoff that began before.
            self.failed.clear();
        }
        self.was_healthy = healthy;
        let broken =
            self.settings.on_outage == OnOutage::Hold && self.failures >= self.settings.failure_threshold;
        Invariant::Breaks
            .holds(!broken || !healthy, || format!("healthy after {} failures in a row", self.failures))
    }

    pub(super) fn departs(&mut self, call: &Call, engine: &Engine, now: Time) -> Check {
        Invariant::RetryAfter.holds(now >= self.quiet_until, || {
            format!("{call:?} leaves at {now:?}, before {:?}", self.quiet_until)
        })?;
        match outage(engine) {
            Some(since) => self.check_probe(call, since, now)?,
            None => self.outage = None,
        }
        self.check_retry(call, now)
    }

    /// The n-th probe leaves no sooner after the one before it than nine tenths of the n-th interval.
    fn check_probe(&mut self, call: &Call, since: Time, now: Time) -> Check {
        let probe = call.trigger == Trigger::Probe && call.ids.len() == 1;
        Invariant::ProbesGrow.holds(probe, || format!("{call:?} in an outage"))?;
        if self.outage != Some(since) {
            (self.outage, self.probes, self.probed_at) = (Some(since), 0, Some(since));
        }
        self.probes += 1;
        let least = self.settings.probe.ceiling(self.probes).mul_f64(0.9);
        let waited = self.probed_at.replace(now).map(|before| now.since(before));
        Invariant::ProbesGrow.holds(waited.is_none_or(|waited| waited >= least), || {
            format!("probe {} after {waited:?} instead of {least:?}", self.probes)
        })
    }

    fn check_retry(&mut self, call: &Call, now: Time) -> Check {
        if call.trigger != Trigger::Retry {
            return Ok(());
        }
        let set = (call.namespace.clone(), call.ids.clone());
        let Some((count, at)) = self.failed.get(&set) else { return Ok(()) };
        let longest = self.settings.retry.ceiling(*count);
        self.waits.push_back(now.since(*at).div_duration_f64(longest).min(1.0));
        if self.waits.len() > RETRIES {
            self.waits.pop_front();
        }
        let sum: f64 = self.waits.iter().sum();
        Invariant::BacksOff.holds(self.waits.len() < RETRIES || sum >= LEAST_WAIT, || {
            format!("{RETRIES} retries waited {sum:.3} times their longest wait, together")
        })
    }
}

/// Since when the endpoint has been taken to be down, if it is.
fn outage(engine: &Engine) -> Option<Time> {
    match engine.monitor.health() {
        Health::Healthy => None,
        Health::Open(outage) | Health::Blocked(outage) => Some(outage.since),
    }
}
