//! What a seed decides.

use std::time::Duration;

use super::broker::Message;
use crate::config::OnOutage;
use crate::engine::{Settings, Time};
use crate::id::{Id, Namespace};
use crate::retry::Ladder;

/// Everything about one schedule that is known beforehand.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) settings: Settings,
    /// What happens when, in order.
    pub(super) schedule: Vec<(Time, Occurrence)>,
    pub(super) spells: Vec<Spell>,
    pub(super) endpoint: Temper,
    /// From here on nothing fails any more but bad IDs.
    pub(super) faults_end: Time,
}

/// Something that happens from outside.
#[derive(Debug)]
pub(super) enum Occurrence {
    Publish(Message),
    /// The connection to the broker is lost.
    Cut,
    /// The worker is asked to go; another one follows.
    Drain,
    /// The worker is killed; another one follows.
    Crash,
    Credentials,
}

/// A time in which every call fails alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spell {
    pub(super) from: Time,
    pub(super) to: Time,
    pub(super) kind: SpellKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpellKind {
    Outage,
    Blocked,
    RejectsAll,
    Throttles,
}

/// How the endpoint fails while faults last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Temper {
    pub(super) latency_max: Duration,
    pub(super) transient: f64,
    /// Deleted, but the answer is lost.
    pub(super) unheard: f64,
    pub(super) throttled: f64,
    /// Answers 0409 to a call that holds a deleted ID.
    pub(super) refuses_duplicates: bool,
    /// IDs beyond which it answers 413.
    pub(super) ids_max: usize,
}

pub(super) fn at(ms: u64) -> Time {
    Time::after_start(Duration::from_millis(ms))
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rng = &mut rng;
        let span = [2_000, 20_000, 200_000, 1_500_000][rng.usize(..4)];
        let settings = settings(rng);
        let calm = rng.u8(..4) == 0;
        let mut schedule = publications(rng, span, settings.batch_max);
        let spells = if calm { Vec::new() } else { spells(rng, span) };
        for (chance, make) in [
            (3, (|| Occurrence::Cut) as fn() -> Occurrence),
            (2, || Occurrence::Drain),
            (2, || Occurrence::Crash),
            (2, || Occurrence::Credentials),
        ] {
            if !calm && rng.bool() {
                for _ in 0..rng.u32(..chance) {
                    schedule.push((at(rng.u64(..span)), make()));
                }
            }
        }
        schedule.sort_by_key(|(time, _)| *time);
        let some =
            |rng: &mut fastrand::Rng, most: f64| if calm || rng.bool() { 0.0 } else { most * rng.f64() };
        let endpoint = Temper {
            latency_max: Duration::from_millis([1, 50, 500, 5_000][rng.usize(..4)]),
            transient: some(rng, 0.08),
            unheard: some(rng, 0.04),
            throttled: some(rng, 0.1),
            refuses_duplicates: rng.u8(..4) == 0,
            ids_max: if rng.u8(..8) == 0 { rng.usize(1..=settings.batch_max) } else { usize::MAX },
        };
        Self { seed, settings, schedule, spells, endpoint, faults_end: at(span + 1_000) }
    }

    /// The spell at `now`, if there is one.
    pub(super) fn spell(&self, now: Time) -> Option<SpellKind> {
        self.spells.iter().find(|spell| spell.from <= now && now < spell.to).map(|spell| spell.kind)
    }

    /// Whether a message holds an ID that always fails.
    pub(super) fn has_poison(&self) -> bool {
        let poison = |message: &Message| message.ids.iter().any(|id| Nature::of(id) == Nature::Poison);
        self.schedule.iter().any(|(_, occurrence)| match occurrence {
            Occurrence::Publish(message) => poison(message),
            Occurrence::Cut | Occurrence::Drain | Occurrence::Crash | Occurrence::Credentials => false,
        })
    }

    /// Whether the endpoint ever rejects what is good.
    pub(super) fn rejects_all(&self) -> bool {
        self.spells.iter().any(|spell| spell.kind == SpellKind::RejectsAll)
    }
}

fn settings(rng: &mut fastrand::Rng) -> Settings {
    let batch_max = [1, 2, 3, 5, 8, 40][rng.usize(..6)];
    let concurrency_max = rng.usize(1..=4);
    // A window that IDs that always fail can fill shows nothing else; there are three of them at most.
    let least = batch_max.max(5);
    let auto = ((2 * concurrency_max + 1) * batch_max).max(least);
    Settings {
        batch_max,
        linger: Duration::from_millis([0, 20, 1_000][rng.usize(..3)]),
        concurrency_max,
        rate_max: [None, None, Some(5.0), Some(50.0)][rng.usize(..4)],
        retry: Ladder::new(Duration::from_millis(500), Duration::from_secs(60), 2.0),
        strikes_max: 8,
        retry_after_max: Duration::from_secs(20),
        failure_threshold: rng.u32(1..=6),
        probe: Ladder::new(Duration::from_secs(1), Duration::from_secs(60), 2.0),
        release_after: Duration::from_secs([60, 120, 300][rng.usize(..3)]),
        on_outage: if rng.u8(..6) == 0 { OnOutage::DeadLetter } else { OnOutage::Hold },
        prefetch: if rng.bool() { auto } else { rng.usize(least..=auto) },
        namespace: rng.bool().then(|| Namespace::new("default").expect("fit")),
        grace: Duration::from_secs(rng.u64(1..=25)),
        dry_run: false,
    }
}

fn publications(rng: &mut fastrand::Rng, span: u64, batch_max: usize) -> Vec<(Time, Occurrence)> {
    let names = rng.usize(1..=120);
    let bad = [0, 0, 1, 3, 12][rng.usize(..5)];
    let poison = [0, 0, 0, 1, 3][rng.usize(..5)];
    let wide = rng.bool();
    let burst = rng.bool();
    let spaces = rng.usize(1..=3);
    (0..rng.usize(1..=80))
        .map(|number| {
            let most = if wide { 2 * batch_max + 2 } else { 1 };
            let ids = (0..rng.usize(1..=most)).map(|_| match rng.usize(..60) {
                0 if bad > 0 => format!("bad{}", rng.usize(..bad)),
                1 if poison > 0 => format!("poison{}", rng.usize(..poison)),
                _ => format!("v{}", rng.usize(..names)),
            });
            let ids = ids.map(|id| Id::new(&id).expect("fit")).collect();
            let namespace = match rng.usize(..=spaces) {
                0 | 1 => None,
                named => Some(Namespace::new(&format!("ns{named}")).expect("fit")),
            };
            let malformed = rng.u8(..40) == 0;
            let when = if burst { rng.u64(..100) } else { rng.u64(..span) };
            let message = Message { number, ids, namespace, malformed, redelivered: false };
            (at(when), Occurrence::Publish(message))
        })
        .collect()
}

fn spells(rng: &mut fastrand::Rng, span: u64) -> Vec<Spell> {
    (0..rng.u32(..4))
        .map(|_| {
            let from = rng.u64(..span);
            let to = span.min(from + rng.u64(..=span / 2));
            let kind = match rng.u8(..12) {
                0..=4 => SpellKind::Outage,
                5..=7 => SpellKind::Blocked,
                8..=10 => SpellKind::Throttles,
                _ => SpellKind::RejectsAll,
            };
            Spell { from: at(from), to: at(to), kind }
        })
        .collect()
}

/// What the endpoint thinks of an ID, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    Good,
    /// A call that holds it is rejected.
    Bad,
    /// A call that holds it fails with 500.
    Poison,
}

impl Nature {
    pub(super) fn of(id: &Id) -> Self {
        match id.as_str() {
            name if name.starts_with("bad") => Self::Bad,
            name if name.starts_with("poison") => Self::Poison,
            _ => Self::Good,
        }
    }
}
