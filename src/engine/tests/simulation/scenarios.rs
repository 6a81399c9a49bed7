//! Schedules that are made to measure: what is promised in figures.

use std::time::Duration;

use super::invariant::{Check, Invariant};
use super::plan::{Letter, Occurrence, Plan, Queue, Spell, SpellKind, Temper, at, settings};
use super::saboteur::Sabotage;
use super::world::{Report, run, run_for};
use crate::engine::{Settings, Time};
use crate::id::Id;

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

/// One worker, and an endpoint that is always well.
fn plan(seed: u64, letters: impl IntoIterator<Item = (Time, Letter)>) -> Plan {
    let publish = |(time, letter)| (time, Occurrence::Publish(letter));
    Plan {
        seed,
        workers: 1,
        queue: Queue { single_active: true, returns_to_tail: false },
        settings: settings(),
        schedule: letters.into_iter().map(publish).collect(),
        spells: Vec::new(),
        temper: Temper::default(),
        faults_end: Time::default(),
        company: false,
    }
}

fn letter(number: usize, ids: impl IntoIterator<Item = String>) -> Letter {
    let ids = ids.into_iter().map(|id| Id::new(&id).expect("fit")).collect();
    Letter { number, ids, namespace: None, malformed: false }
}

/// Messages of one ID each, published `every` so many milliseconds.
fn singles(count: usize, every: u64) -> impl Iterator<Item = (Time, Letter)> {
    (0..count).map(move |n| (at(n as u64 * every), letter(n, [format!("v{n}")])))
}

/// As the defaults have it.
fn documented() -> Settings {
    Settings { batch_max: 500, rate_max: Some(5.0), prefetch: 4_500, ..settings() }
}

/// A backlog of 20,000 IDs in messages of `per_message` IDs, `bad` of them rejected: not more than 1.01 times as many
/// calls as the IDs fill, and 18 more for each bad one.
pub(super) fn backlog(per_message: usize, bad: usize, sabotage: Option<Sabotage>) -> Check {
    const IDS: usize = 20_000;
    let name = |n: usize| if bad > 0 && n % (IDS / bad) == 77 { format!("bad{n}") } else { format!("v{n}") };
    let letters = (0..IDS.div_ceil(per_message)).map(|number| {
        letter(number, (number * per_message..((number + 1) * per_message).min(IDS)).map(name))
    });
    let mut plan = plan(per_message as u64, letters.map(|letter| (Time::default(), letter)));
    plan.settings = documented();
    plan.temper.latency_max = Duration::from_millis(200);
    let report = run(&plan, sabotage)?;
    // 1.01 x 40 calls.
    let most = IDS as u64 / 500 + 18 * bad as u64;
    Invariant::Frugal.holds(report.calls <= most, || format!("{} calls instead of {most}", report.calls))
}

#[test]
fn a_backlog_takes_no_more_calls_than_its_ids_fill() {
    for per_message in [1, 10, 70, 700] {
        backlog(per_message, 0, None).expect("frugal");
    }
}

#[test]
fn each_bad_id_costs_at_most_18_calls_more() {
    for bad in [1, 5] {
        backlog(1, bad, None).expect("frugal");
    }
}

#[test]
fn duplicates_cost_nothing() {
    const IDS: usize = 20_000;
    // Each ID three times, near and far.
    let letters =
        (0..3 * IDS).map(|n| (Time::default(), letter(n, [format!("v{}", (n / 2 + n % 2 * 40) % IDS)])));
    let mut plan = plan(3, letters);
    plan.settings = documented();
    let asked: std::collections::BTreeSet<_> = (0..3 * IDS).map(|n| (n / 2 + n % 2 * 40) % IDS).collect();
    assert_eq!(asked.len(), IDS);
    let report = run(&plan, None).expect("all settle");
    // What was deleted and acknowledged is forgotten: 10,000 IDs come a second time, after 10,000 others.
    assert!(report.calls <= 61, "{} calls", report.calls);
}

/// An outage of so many days, with messages in hand and more to come: deliveries go back once
/// for each worker, and probes become rare.
pub(super) fn outage(days: u64, sabotage: Option<Sabotage>) -> Check<Report> {
    let mut plan = plan(days, singles(400, 1_000));
    plan.spells.push(Spell { from: at(2 * MINUTE), to: at(days * DAY), kind: SpellKind::Outage });
    plan.faults_end = at(days * DAY);
    plan.workers = 4;
    let report = run(&plan, sabotage)?;
    let given_back = report.most_given_back;
    Invariant::ReleasedOnce.holds(given_back <= 4, || format!("{given_back} times by 4 workers"))?;
    Ok(report)
}

#[test]
fn an_outage_of_any_length_gives_messages_back_once_and_probes_ever_more_rarely() {
    let mut probes = Vec::new();
    for days in [1, 7, 30] {
        let report = outage(days, None).expect("all settle");
        assert_eq!((report.settled, report.dead), (400, 0));
        // Each worker probes seven times at intervals from 1 to 60 s, and then once in 54 to 60 s.
        let most = 4 * (8 + days * DAY / 54_000);
        assert!(report.probes <= most, "{} probes in {days} days", report.probes);
        let within = report.settled_at.since(at(days * DAY));
        assert!(within <= Duration::from_secs(3 * 60), "it took {within:?} to settle");
        probes.push(report.probes);
    }
    assert!(probes[1] <= 8 * probes[0], "{probes:?}");
}

#[test]
fn an_outage_with_next_to_nothing_to_probe_with_gives_back_ever_more_rarely() {
    // Nothing has ever been deleted, and three IDs are all there is.
    let mut plan = plan(1, singles(3, 1));
    plan.spells.push(Spell { from: at(0), to: at(30 * DAY), kind: SpellKind::Blocked });
    plan.faults_end = at(30 * DAY);
    let report = run(&plan, None).expect("all settle");
    let cap = Duration::from_secs(17 * 300);
    let most = 6 + Duration::from_millis(30 * DAY).div_duration_f64(cap) as u32;
    assert!(report.most_given_back <= most, "{} times", report.most_given_back);
}

#[test]
fn a_lone_bad_message_is_dead_lettered_with_no_other_traffic() {
    let report = run(&plan(1, [(Time::default(), letter(0, ["bad".into()]))]), None).expect("it settles");
    assert_eq!((report.dead, report.company), (1, 0));
    assert!(report.settled_at <= at(2 * MINUTE), "{:?}", report.settled_at);
}

#[test]
fn an_id_that_always_fails_holds_nobody_up() {
    // All alone for ten minutes; then a message a minute, each of which must not wait for long.
    let poison = (Time::default(), letter(0, ["poison".into()]));
    let others =
        (10..40).map(|minute| (at(minute * MINUTE), letter(minute as usize, [format!("v{minute}")])));
    let report = run(&plan(1, [poison].into_iter().chain(others)), None).expect("all settle");
    assert_eq!((report.settled, report.dead), (31, 1));
    // One other message only, and nothing to probe with but what fails.
    let poison = (Time::default(), letter(0, ["poison".into()]));
    let report =
        run_for(&plan(2, [poison, (at(10 * MINUTE), letter(1, ["v".into()]))]), None, at(30 * MINUTE));
    assert!(report.expect("safe").settled > 0, "at least the good one");
}

#[test]
fn an_endpoint_that_fails_every_other_second_wedges_nothing() {
    let mut plan = plan(1, singles(600, 500));
    plan.spells.push(Spell { from: at(0), to: at(60 * MINUTE), kind: SpellKind::Flaps });
    plan.faults_end = at(60 * MINUTE);
    plan.settings.rate_max = Some(5.0);
    let report = run(&plan, None).expect("all settle");
    assert!(report.settled_at <= at(20 * MINUTE), "settled by {:?}, though it flaps on", report.settled_at);
    assert_eq!(report.dead, 0);
}

/// In a long outage the consumer is cancelled while there is no room for most of what was delivered.
#[test]
fn deliveries_that_go_back_unseen_leave_gaps_in_the_tags() {
    let letters = (0..60).map(|n| (Time::default(), letter(n, (0..10).map(|id| format!("v{n}-{id}")))));
    let mut plan = plan(1, letters);
    plan.settings = Settings { batch_max: 1, concurrency_max: 1, prefetch: 60, ..settings() };
    plan.spells.push(Spell { from: at(0), to: at(20 * MINUTE), kind: SpellKind::Outage });
    plan.faults_end = at(20 * MINUTE);
    let report = run(&plan, None).expect("all settle");
    assert_eq!((report.settled, report.dead), (60, 0));
    assert!(report.skipped > 0, "no tag was skipped");
}

#[test]
fn an_endpoint_that_rejects_everything_is_not_believed() {
    let mut plan = plan(1, singles(600, 500));
    plan.spells.push(Spell { from: at(30_000), to: at(4 * MINUTE), kind: SpellKind::RejectsAll });
    plan.faults_end = at(5 * MINUTE);
    let report = run(&plan, None).expect("all settle");
    assert_eq!(report.settled, 600);
    assert!(report.dead < 8, "{} good messages blamed", report.dead);
}

/// An idle worker that is asked to go does.
pub(super) fn idle_drain(sabotage: Option<Sabotage>) -> Check {
    run(&plan(1, singles(1, 1)), sabotage).map(drop)
}

#[test]
fn an_idle_worker_goes_when_asked() {
    idle_drain(None).expect("it goes");
}

/// Four workers with a ceiling of 5 calls a second each, on an account that has 5, for ten minutes: each gets between
/// 15 and 35 % of what is accepted, and less than 5 % of all calls are throttled.
pub(super) fn shared_quota(seed: u64, sabotage: Option<Sabotage>) -> Check {
    let letters = (0..8_000).map(|n| (Time::default(), letter(n, (0..10).map(|id| format!("v{n}-{id}")))));
    let mut plan = plan(seed, letters);
    plan.workers = 4;
    plan.queue.single_active = false;
    plan.settings = Settings { batch_max: 10, rate_max: Some(5.0), prefetch: 27, ..settings() };
    plan.temper.quota = Some(5);
    plan.temper.latency_max = Duration::from_millis([20, 100, 400][seed as usize % 3]);
    let report = run_for(&plan, sabotage, at(10 * MINUTE))?;
    let (accepted, throttled): (u64, u64) = (report.accepted.iter().sum(), report.throttled.iter().sum());
    let share = |part: u64, all: u64| 100.0 * part as f64 / all as f64;
    let yields = share(throttled, accepted + throttled);
    let shares = report.accepted.map(|its| share(its, accepted));
    let told = || format!("shares {shares:.1?} %, {yields:.2} % of {} throttled", accepted + throttled);
    let fair = shares.iter().all(|share| (15.0..=35.0).contains(share));
    if sabotage == Some(Sabotage::OneNeverYields) {
        // It throttles the others as well, but what is looked for here is its share.
        return Invariant::Fair.holds(fair, told);
    }
    Invariant::Yields.holds(yields < 5.0, told)?;
    Invariant::Fair.holds(fair, told)?;
    let used = share(accepted, 5 * 600);
    Invariant::Frugal.holds(used >= 66.0, || format!("{used:.1} % of the quota used"))
}

#[test]
fn four_workers_share_one_quota_fairly_and_are_seldom_throttled() {
    for seed in 0..12 {
        shared_quota(seed, None).expect("fair");
    }
}
