//! Proof that the simulator bites: each sabotage is found out, by the invariant it is aimed at.

use std::collections::BTreeSet;

use super::draw;
use super::invariant::{Check, Invariant};
use super::plan::Plan;
use super::saboteur::Sabotage;
use super::scenarios;
use super::shrink::attempt;

/// Seeds within which a sabotage has to be found out.
const SEEDS: u64 = 400;

/// Each sabotage that random schedules find out, and what it breaks.
const RANDOM: [(Sabotage, Invariant); 35] = [
    (Sabotage::AcksEarly, Invariant::AckedConfirmed),
    (Sabotage::AcksOneMore, Invariant::AckedConfirmed),
    (Sabotage::TrustsSilence, Invariant::AckedConfirmed),
    (Sabotage::TakesAllForOld, Invariant::AckedConfirmed),
    (Sabotage::TrustsLetters, Invariant::AckedStored),
    (Sabotage::SettlesTwice, Invariant::SettledOnce),
    (Sabotage::SettlesLate, Invariant::SettledOnce),
    (Sabotage::SwallowsAck, Invariant::Books),
    (Sabotage::SwallowsLetter, Invariant::Settles),
    (Sabotage::RepeatsId, Invariant::NoRepeats),
    (Sabotage::Overfills, Invariant::NotOverfull),
    (Sabotage::CallsNothing, Invariant::NotEmpty),
    (Sabotage::MixesNamespaces, Invariant::Asked),
    (Sabotage::InventsId, Invariant::Asked),
    (Sabotage::CallsTwice, Invariant::NotShared),
    (Sabotage::CallsTooMany, Invariant::Concurrency),
    (Sabotage::IgnoresRate, Invariant::Rate),
    (Sabotage::IgnoresPrefetch, Invariant::Prefetch),
    (Sabotage::IgnoresRoom, Invariant::Room),
    (Sabotage::ConsumesTwice, Invariant::TurnsConsuming),
    (Sabotage::GivesBackHot, Invariant::GivenBackOnce),
    (Sabotage::NeverBreaks, Invariant::Breaks),
    (Sabotage::ProbesSteadily, Invariant::ProbesGrow),
    (Sabotage::ProbesWithAll, Invariant::ProbesGrow),
    (Sabotage::NeverProbes, Invariant::Settles),
    (Sabotage::RetriesHot, Invariant::BacksOff),
    (Sabotage::IgnoresRetryAfter, Invariant::RetryAfter),
    (Sabotage::BlamesTheLone, Invariant::BlamedBad),
    (Sabotage::GivesUpEarly, Invariant::BlamedBad),
    (Sabotage::LosesAnswer, Invariant::Settles),
    (Sabotage::ForgetsTimers, Invariant::Settles),
    (Sabotage::LivesInThePast, Invariant::Rests),
    (Sabotage::LeavesEarly, Invariant::Drains),
    (Sabotage::ForgetsIds, Invariant::Whole),
    (Sabotage::Panics, Invariant::Unbroken),
];

/// A scenario, with somebody in it.
type Scenario = fn(Option<Sabotage>) -> Check;

/// Each sabotage that a scenario finds out, and what it breaks.
const DIRECTED: [(Sabotage, Invariant, Scenario); 6] = [
    (Sabotage::ForgetsRelease, Invariant::ReleasedOnce, |sabotage| scenarios::outage(3, sabotage).map(drop)),
    (Sabotage::NeverLeaves, Invariant::Drains, scenarios::idle_drain),
    (Sabotage::CallsWithFew, Invariant::Frugal, |sabotage| scenarios::backlog(1, 0, sabotage)),
    (Sabotage::SplitsTheGood, Invariant::Frugal, |sabotage| scenarios::backlog(1, 5, sabotage)),
    (Sabotage::NeverYields, Invariant::Yields, |sabotage| scenarios::shared_quota(1, sabotage)),
    (Sabotage::OneNeverYields, Invariant::Fair, |sabotage| scenarios::shared_quota(1, sabotage)),
];

#[test]
fn each_sabotage_is_found_out_by_the_invariant_it_breaks() {
    let mut elsewhere = Vec::new();
    for (sabotage, invariant) in RANDOM {
        let found = (0..SEEDS).find_map(|seed| attempt(&draw::plan(seed), Some(sabotage)).err());
        if found.as_ref().map(|violation| violation.invariant) != Some(invariant) {
            elsewhere.push(format!("{sabotage:?}, aimed at {invariant:?}, broke {found:.300?}"));
        }
    }
    assert!(elsewhere.is_empty(), "{}", elsewhere.join("\n"));
}

#[test]
fn each_sabotage_of_a_scenario_is_found_out_by_the_invariant_it_breaks() {
    for (sabotage, invariant, scenario) in DIRECTED {
        let found = scenario(Some(sabotage)).expect_err("a sabotage is found out");
        assert_eq!(found.invariant, invariant, "{sabotage:?} was found out by {found}");
    }
}

/// An invariant that nothing breaks may as well not be there.
#[test]
fn each_invariant_has_a_sabotage_and_stands_in_the_documentation() {
    let random = RANDOM.into_iter();
    let all: BTreeSet<_> =
        random.chain(DIRECTED.map(|(sabotage, invariant, _)| (sabotage, invariant))).collect();
    let broken: BTreeSet<Invariant> = all.iter().map(|(_, invariant)| *invariant).collect();
    assert_eq!(broken, Invariant::ALL.into_iter().collect());
    let documentation = include_str!("../../../../docs/testing.md");
    for (sabotage, invariant) in all {
        let row = format!("| `{sabotage:?}` | `{invariant:?}` |");
        assert!(documentation.contains(&row), "docs/testing.md lacks a row that begins with {row}");
    }
}

/// What is left of a schedule that fails is little, and fails in the same way.
#[test]
fn a_failing_plan_is_shrunk_to_what_matters() {
    let sabotage = Some(Sabotage::BlamesTheLone);
    let (plan, violation) = (0..SEEDS)
        .find_map(|seed| {
            attempt(&draw::plan(seed), sabotage).err().map(|violation| (draw::plan(seed), violation))
        })
        .expect("it is found out");
    let before = plan.to_string().lines().count();
    let (plan, violation) = super::shrink::shrink(plan, violation, sabotage);
    assert_eq!(violation.invariant, Invariant::BlamedBad);
    assert!(plan.to_string().lines().count() < before, "{plan}");
    let again: Plan = plan.to_string().parse().expect("what was written is readable");
    let again = attempt(&again, sabotage).expect_err("it still fails");
    assert_eq!(again.to_string(), violation.to_string(), "the same, to the letter");
    assert!(plan.schedule.len() <= 2, "{plan}");
}
