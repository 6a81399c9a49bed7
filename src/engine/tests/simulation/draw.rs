//! A plan from a seed.

use std::time::Duration;

use super::plan::{Letter, Occurrence, Plan, Queue, Spell, SpellKind, Temper, WORKERS_MAX, at, settings};
use crate::config::OnOutage;
use crate::engine::{Settings, Time};
use crate::id::{Id, Namespace};

/// The plan that `seed` stands for.
pub(super) fn plan(seed: u64) -> Plan {
    let mut rng = fastrand::Rng::with_seed(seed);
    let rng = &mut rng;
    let span = [2_000, 20_000, 200_000, 1_500_000][rng.usize(..4)];
    let workers = [1, 1, 2, 3, WORKERS_MAX][rng.usize(..5)];
    let queue = Queue { single_active: rng.bool(), returns_to_tail: rng.u8(..3) == 0 };
    let settings = random_settings(rng);
    let calm = rng.u8(..4) == 0;
    let letters = letters(rng, settings.batch_max);
    let company = letters.iter().flat_map(|letter| &letter.ids).any(|id| id.as_str().starts_with("poison"));
    let burst = rng.bool();
    let when = |rng: &mut fastrand::Rng| at(if burst { rng.u64(..100) } else { rng.u64(..span) });
    let mut schedule: Vec<(Time, Occurrence)> =
        letters.into_iter().map(|letter| (when(rng), Occurrence::Publish(letter))).collect();
    if !calm {
        schedule.extend(mishaps(rng, span, workers));
    }
    schedule.sort_by_key(|(time, _)| *time);
    let spells = if calm { Vec::new() } else { spells(rng, span) };
    let temper = temper(rng, calm, settings.batch_max);
    Plan { seed, workers, queue, settings, schedule, spells, temper, faults_end: at(span + 1_000), company }
}

fn random_settings(rng: &mut fastrand::Rng) -> Settings {
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
        failure_threshold: rng.u32(1..=6),
        release_after: Duration::from_secs([60, 120, 300][rng.usize(..3)]),
        on_outage: if rng.u8(..6) == 0 { OnOutage::DeadLetter } else { OnOutage::Hold },
        prefetch: if rng.bool() { auto } else { rng.usize(least..=auto) },
        namespace: rng.bool().then(|| namespace("default")),
        grace: Duration::from_secs(rng.u64(1..=25)),
        ..settings()
    }
}

fn letters(rng: &mut fastrand::Rng, batch_max: usize) -> Vec<Letter> {
    let names = rng.usize(1..=120);
    let bad = [0, 0, 1, 3, 12][rng.usize(..5)];
    let poison = [0, 0, 0, 1, 3][rng.usize(..5)];
    let ids_max = if rng.bool() { 2 * batch_max + 2 } else { 1 };
    let spaces = rng.usize(1..=3);
    (0..rng.usize(1..=80))
        .map(|number| {
            let ids = (0..rng.usize(1..=ids_max)).map(|_| match rng.usize(..60) {
                0 if bad > 0 => format!("bad{}", rng.usize(..bad)),
                1 if poison > 0 => format!("poison{}", rng.usize(..poison)),
                _ => format!("v{}", rng.usize(..names)),
            });
            let ids = ids.map(|id| Id::new(&id).expect("fit")).collect();
            let namespace = match rng.usize(..=spaces) {
                0 | 1 => None,
                named => Some(namespace(&format!("ns{named}"))),
            };
            Letter { number, ids, namespace, malformed: rng.u8(..40) == 0 }
        })
        .collect()
}

/// What happens to workers and broker.
fn mishaps(rng: &mut fastrand::Rng, span: u64, workers: usize) -> Vec<(Time, Occurrence)> {
    type Make = fn(&mut fastrand::Rng, usize) -> Occurrence;
    const KINDS: [Make; 6] = [
        |_, worker| Occurrence::Cut(worker),
        |_, worker| Occurrence::Drain(worker),
        |_, worker| Occurrence::Crash(worker),
        |_, worker| Occurrence::Credentials(worker),
        |rng, worker| Occurrence::Freeze(worker, Duration::from_millis(1 << rng.u64(..17))),
        |_, _| Occurrence::Restart,
    ];
    let mut mishaps = Vec::new();
    for make in KINDS {
        if rng.u8(..3) == 0 {
            for _ in 0..rng.usize(1..=2) {
                let worker = rng.usize(..workers);
                mishaps.push((at(rng.u64(..span)), make(rng, worker)));
            }
        }
    }
    mishaps
}

fn spells(rng: &mut fastrand::Rng, span: u64) -> Vec<Spell> {
    (0..rng.u32(..4))
        .map(|_| {
            let from = rng.u64(..span);
            let mut to = span.min(from + rng.u64(..=span / 2));
            let kind = match rng.u8(..16) {
                0..=4 => SpellKind::Outage,
                5..=6 => SpellKind::Blocked,
                7..=8 => SpellKind::Throttles,
                9..=10 => SpellKind::Flaps,
                11..=12 => SpellKind::LettersRefused,
                13..=14 => SpellKind::BrokerStalls,
                _ => SpellKind::RejectsAll,
            };
            if kind == SpellKind::BrokerStalls {
                // Longer ones are a lost connection.
                to = to.min(from + 25_000);
            }
            Spell { from: at(from), to: at(to), kind }
        })
        .collect()
}

fn temper(rng: &mut fastrand::Rng, calm: bool, batch_max: usize) -> Temper {
    let some = |rng: &mut fastrand::Rng, most| if calm || rng.bool() { 0 } else { rng.u32(..=most) };
    Temper {
        transient: some(rng, 80),
        unheard: some(rng, 40),
        throttled: some(rng, 100),
        latency_max: Duration::from_millis([1, 50, 500, 5_000][rng.usize(..4)]),
        quota: [None, None, Some(5), Some(20)][rng.usize(..4)],
        refuses_duplicates: rng.u8(..4) == 0,
        ids_max: (rng.u8(..8) == 0).then(|| rng.usize(1..=batch_max)),
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).expect("fit")
}
