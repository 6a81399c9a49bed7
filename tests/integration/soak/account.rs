//! What came of every message.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::gauge::Sample;
use super::{Soak, load};
use crate::support::amqp;
use crate::support::letter::{self, find};

/// The end of a run.
pub(super) struct Verdict {
    took: Duration,
    messages: u64,
    again: u64,
    ids: usize,
    faults: BTreeMap<&'static str, u64>,
    calls: u64,
    /// IDs that were deleted more often than asked for, and how many deletions those were too many.
    deleted_twice: usize,
    deletions_too_many: u64,
    letters: usize,
    letters_twice: usize,
    first: Sample,
    last: Sample,
    /// Its medians, quarter by quarter.
    quarters: [Sample; 4],
    /// Whether its growth was judged.
    long_enough: bool,
    peak: Sample,
    others_peak: Sample,
    /// What is wrong.
    objections: Vec<String>,
}

/// Counts everything, with all workers gone.
pub(super) async fn settle(soak: Soak) -> Verdict {
    let Soak { mut world, began, load, gauge, faults, .. } = soak;
    let (load, gauge) = (load.into_inner(), gauge.into_inner());
    world.connection = world.vhost.connect().await;
    let mut objections = gauge.objections();
    let mut object = |what: &str, of: Vec<&String>| {
        if !of.is_empty() {
            objections.push(format!("{} {what}: {:?}", of.len(), &of[..of.len().min(20)]));
        }
    };
    let left = amqp::take_all(&world.connection, "deletions").await;
    let left: Vec<String> = left.iter().map(|message| letter::body(message).to_owned()).collect();
    object("messages left in the queue", left.iter().collect());

    let deleted = world.mock.deleted();
    object("IDs lost", load.ids.keys().filter(|id| !deleted.contains_key(*id)).collect());
    // The bad ones can be among those whose answer never came.
    let uncalled_for = deleted.keys().filter(|id| !load.ids.contains_key(*id) && !id.starts_with(load::BAD));
    object("IDs deleted though nobody asked", uncalled_for.collect());
    let too_many = |(id, times): (&String, &u32)| times.checked_sub(load.ids.get(id).copied()?);
    let too_many: Vec<u32> = deleted.iter().filter_map(too_many).filter(|times| *times > 0).collect();

    let mut found = BTreeMap::<String, u32>::new();
    let mut wrong = Vec::new();
    for dead in amqp::take_all(&world.connection, "deletions.dead").await {
        let body = letter::body(&dead).to_owned();
        let reason = find(&dead, "x-deletion-reason");
        if load.letters.get(&body).map(|(reason, _)| *reason) != reason.as_deref() {
            wrong.push(format!("{body}: {reason:?}, {:?}", find(&dead, "x-deletion-detail")));
        }
        *found.entry(body).or_default() += 1;
    }
    object("wrongly dead-lettered", wrong.iter().collect());
    object("dead letters lost", load.letters.keys().filter(|body| !found.contains_key(*body)).collect());
    let twice = found
        .iter()
        .filter(|(body, times)| load.letters.get(*body).is_some_and(|(_, published)| *times > published));

    let most = |of: fn(&Sample) -> u64| gauge.samples.iter().map(of).max().unwrap_or_default();
    Verdict {
        took: began.elapsed(),
        messages: load.messages,
        again: load.again,
        ids: load.ids.len(),
        faults: faults.into_inner(),
        calls: world.mock.stats().calls.values().sum(),
        deleted_twice: too_many.len(),
        deletions_too_many: too_many.iter().copied().map(u64::from).sum(),
        letters: load.letters.len(),
        letters_twice: twice.count(),
        first: gauge.samples.first().copied().unwrap_or_default(),
        last: gauge.samples.last().copied().unwrap_or_default(),
        quarters: [0, 1, 2, 3].map(|quarter| Sample {
            resident: gauge.median_of_quarter(quarter, |sample| sample.resident),
            descriptors: gauge.median_of_quarter(quarter, |sample| sample.descriptors),
            threads: gauge.median_of_quarter(quarter, |sample| sample.threads),
        }),
        long_enough: gauge.is_long_enough(),
        peak: Sample {
            resident: most(|sample| sample.resident),
            descriptors: most(|sample| sample.descriptors),
            threads: most(|sample| sample.threads),
        },
        others_peak: gauge.others_peak,
        objections,
    }
}

impl Verdict {
    /// Panics if anything is wrong.
    pub(super) fn pass(&self) {
        assert!(self.objections.is_empty(), "{:#?}", self.objections);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in [
            ("took", format!("{:.1} minutes", self.took.as_secs_f64() / 60.0)),
            ("messages", format!("{}, {} of them published again", self.messages, self.again)),
            ("IDs to be deleted", self.ids.to_string()),
            ("calls", self.calls.to_string()),
            ("deleted twice", format!("{} IDs, {} times", self.deleted_twice, self.deletions_too_many)),
            ("dead letters", format!("{}, {} of them more than once", self.letters, self.letters_twice)),
            ("the elder at the start", self.first.to_string()),
            ("the elder at the end", self.last.to_string()),
            ("  in the first quarter", self.quarters[0].to_string()),
            ("  in the second", self.quarters[1].to_string()),
            ("  in the third", self.quarters[2].to_string()),
            ("  in the last", self.quarters[3].to_string()),
            ("  at most", self.peak.to_string()),
            ("the others at most", self.others_peak.to_string()),
            ("faults", self.faults.values().sum::<u64>().to_string()),
        ] {
            writeln!(f, "{name:24}{value}")?;
        }
        for (fault, times) in &self.faults {
            writeln!(f, "  {times:6}  {fault}")?;
        }
        match self.objections.len() {
            0 if self.long_enough => write!(f, "nothing lost, nothing wrongly dead-lettered, no growth"),
            0 => write!(f, "nothing lost, nothing wrongly dead-lettered; too short to see growth"),
            _ => write!(f, "WRONG: {:#?}", self.objections),
        }
    }
}
