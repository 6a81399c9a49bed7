//! What was seen, against what was planned.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::load::Expected;
use super::script::OUTAGES;
use crate::delivery::Reason;
use crate::mock::Fate;

/// The documented quota, in calls a second.
const QUOTA: u64 = 5;

/// What the others counted: the mock endpoint, the broker, and the worker by its status and its exit.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// By the broker: messages confirmed.
    pub published: u64,
    /// By the broker: messages left in the queue, ready or unacknowledged.
    pub left: u64,
    /// By the broker: dead letters by their `x-deletion-reason`.
    pub dead_letters: BTreeMap<Reason, u64>,
    /// By the broker: dead letters with no reason that we know.
    pub dead_letters_strange: u64,
    /// By the mock: every deleted ID, and how often it was deleted.
    pub deleted: BTreeMap<String, u32>,
    /// By the mock: calls that deleted.
    pub calls: u64,
    /// By the mock: calls it answered otherwise, by what became of them.
    pub calls_failed: BTreeMap<Fate, u64>,
    /// By the mock: the most calls in any one second.
    pub calls_in_one_second: u64,
    /// By the worker: `ids_deleted`.
    pub worker_ids_deleted: u64,
    /// By the worker: `calls`.
    pub worker_calls: u64,
    /// By the worker: `messages_dead_lettered`.
    pub worker_dead_letters: u64,
    /// By the worker: its exit code, as a shell sees it.
    pub worker_exit: i32,
    /// From the first publish to the last settled message.
    pub took: Duration,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is compared.
    pub what: String,
    /// What it must be.
    pub expected: i64,
    /// What it is.
    pub found: i64,
}

impl Check {
    /// They agree.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.expected == self.found
    }
}

/// Compares everything that two sides know.
#[must_use]
pub fn check(expected: &Expected, observed: &Observed) -> Vec<Check> {
    let deletions: u64 = observed.deleted.values().map(|times| u64::from(*times)).sum();
    let missing = expected.ids.iter().filter(|id| !observed.deleted.contains_key(*id)).count();
    // A probe may have been an ID deleted before, which nobody asked for and the worker doesn't count.
    let probes = deletions.saturating_sub(observed.worker_ids_deleted).min(OUTAGES);
    let calls = observed.calls + observed.calls_failed.values().sum::<u64>();
    let unasked = observed.deleted.keys().filter(|id| !expected.ids.contains(*id)).count();
    let mut checks = vec![
        compare("messages the broker confirmed", expected.messages, observed.published),
        compare("messages left in the queue", 0, observed.left),
        compare("IDs the endpoint didn't delete", 0, missing as u64),
        compare("IDs it deleted that nobody asked for", 0, unasked as u64),
        compare(
            "deletions, by the endpoint and by the worker",
            deletions,
            observed.worker_ids_deleted + probes,
        ),
        compare("calls, by the endpoint and by the worker", calls, observed.worker_calls),
    ];
    for reason in Reason::ALL {
        let wanted = expected.dead_letters.get(&reason).copied().unwrap_or_default();
        let found = observed.dead_letters.get(&reason).copied().unwrap_or_default();
        checks.push(compare(&format!("dead letters: {}", reason.as_str()), wanted, found));
    }
    let dead: u64 = observed.dead_letters.values().sum::<u64>() + observed.dead_letters_strange;
    checks.push(compare("dead letters without a known reason", 0, observed.dead_letters_strange));
    checks.push(compare("dead letters, by the broker and by the worker", dead, observed.worker_dead_letters));
    checks.push(Check {
        what: "the worker's exit code".to_owned(),
        expected: 0,
        found: observed.worker_exit.into(),
    });
    checks
}

/// The table for the audience: the numbers, then every comparison.
#[must_use]
pub fn render(expected: &Expected, observed: &Observed, checks: &[Check], ids_per_call: u64) -> String {
    let ids = expected.ids.len() as u64;
    let deletions: u64 = observed.deleted.values().map(|times| u64::from(*times)).sum();
    let again = deletions.saturating_sub(observed.deleted.len() as u64);
    let ideal = ids.div_ceil(ids_per_call);
    let fill = 100.0 * ratio(deletions, observed.calls * ids_per_call);
    let failed: u64 = observed.calls_failed.values().sum();
    let seconds = observed.took.as_secs_f64();
    let at_quota = humantime::format_duration(Duration::from_secs((observed.calls + failed).div_ceil(QUOTA)));
    let mut rows = vec![
        ("messages", observed.published.to_string()),
        ("videos deleted", format!("{}, named {} times", observed.deleted.len(), expected.mentions)),
        ("deleted once more", format!("{again}, named again after they were deleted")),
        ("calls that deleted", format!("{}, {fill:.1} % full; with full ones only {ideal}", observed.calls)),
        ("calls that didn't", failed.to_string()),
    ];
    rows.extend(
        observed.calls_failed.iter().map(|(fate, count)| ("", format!("{count:>5} {}", cost(*fate)))),
    );
    rows.extend([
        ("most calls in a second", observed.calls_in_one_second.to_string()),
        ("time", format!("{seconds:.1} s: {:.0} videos/s", ids as f64 / seconds.max(0.001))),
        ("at the real quota", format!("{at_quota}: so many calls at {QUOTA} a second")),
    ]);
    let mut text = String::new();
    // Writing to a string can't fail.
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:<24}{value}");
    }
    text.push('\n');
    for check in checks {
        let Check { what, expected, found } = check;
        let _ = match check.holds() {
            true => writeln!(text, "  ok     {what}: {found}"),
            false => writeln!(text, "  WRONG  {what}: {found}, expected {expected}"),
        };
    }
    text
}

/// What a call was spent on that deleted nothing.
fn cost(fate: Fate) -> &'static str {
    match fate {
        Fate::Deleted => "deleted",
        Fate::Lost => "deleted, but the answer was lost",
        Fate::Invalid => "rejected (0001): halved again and again to find the bad IDs",
        Fate::Duplicate => "rejected (0409)",
        Fate::Throttled => "throttled (0429)",
        Fate::Blocked => "refused (0401 and the like)",
        Fate::Failed => "failed (HTTP 500)",
        Fate::Unavailable => "while the endpoint was down (HTTP 503), the last ones probes",
        Fate::Reset => "reset",
        Fate::Hung => "never answered",
        Fate::Scripted => "answered by script",
        Fate::TooLarge => "too large (HTTP 413)",
        Fate::NotFound => "to the wrong address (HTTP 404)",
    }
}

fn compare(what: &str, expected: u64, found: u64) -> Check {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Check { what: what.to_owned(), expected: signed(expected), found: signed(found) }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected {
            messages: 5,
            mentions: 4,
            ids: ["A", "B", "C"].map(str::to_owned).into(),
            dead_letters: [(Reason::Malformed, 1), (Reason::Rejected, 1)].into(),
        }
    }

    /// All as planned; one ID was deleted twice, which is no fault.
    fn observed() -> Observed {
        Observed {
            published: 5,
            dead_letters: [(Reason::Malformed, 1), (Reason::Rejected, 1)].into(),
            deleted: [("A", 1), ("B", 2), ("C", 1)].map(|(id, times)| (id.to_owned(), times)).into(),
            calls: 2,
            calls_failed: [(Fate::Invalid, 3)].into(),
            worker_ids_deleted: 4,
            worker_calls: 5,
            worker_dead_letters: 2,
            worker_exit: 0,
            took: Duration::from_secs(2),
            ..Observed::default()
        }
    }

    fn wrong(observed: &Observed) -> Vec<String> {
        check(&expected(), observed)
            .into_iter()
            .filter(|check| !check.holds())
            .map(|check| check.what)
            .collect()
    }

    #[test]
    fn a_run_as_planned_passes() {
        assert!(wrong(&observed()).is_empty());
        let probed = Observed { worker_ids_deleted: 3, ..observed() };
        assert!(wrong(&probed).is_empty(), "a probe may delete what is deleted");
    }

    #[test]
    fn each_disagreement_is_found() {
        type Case = (fn(&mut Observed), &'static [&'static str]);
        let cases: [Case; 11] = [
            (|o| o.published = 4, &["messages the broker confirmed"]),
            (|o| o.left = 1, &["messages left in the queue"]),
            (
                |o| {
                    o.deleted.remove("A");
                    o.worker_ids_deleted = 3;
                },
                &["IDs the endpoint didn't delete"],
            ),
            (
                |o| {
                    o.deleted.insert("D".to_owned(), 1);
                    o.worker_ids_deleted = 5;
                },
                &["IDs it deleted that nobody asked for"],
            ),
            (|o| o.worker_ids_deleted = 2, &["deletions, by the endpoint and by the worker"]),
            (|o| o.worker_ids_deleted = 5, &["deletions, by the endpoint and by the worker"]),
            (|o| o.worker_calls = 4, &["calls, by the endpoint and by the worker"]),
            (
                |o| {
                    o.dead_letters = [(Reason::Malformed, 1), (Reason::RetriesExhausted, 1)].into();
                },
                &["dead letters: rejected", "dead letters: retries_exhausted"],
            ),
            (
                |o| o.dead_letters_strange = 1,
                &["dead letters without a known reason", "dead letters, by the broker and by the worker"],
            ),
            (|o| o.worker_dead_letters = 1, &["dead letters, by the broker and by the worker"]),
            (|o| o.worker_exit = 137, &["the worker's exit code"]),
        ];
        for (spoil, what) in cases {
            let mut observed = observed();
            spoil(&mut observed);
            assert_eq!(wrong(&observed), what);
        }
    }

    #[test]
    fn the_table_shows_the_numbers_and_what_is_wrong() {
        let observed = Observed { left: 7, ..observed() };
        let text = render(&expected(), &observed, &check(&expected(), &observed), 2);
        for line in [
            "  videos deleted          3, named 4 times\n",
            "  deleted once more       1, named again after they were deleted\n",
            "  calls that deleted      2, 100.0 % full; with full ones only 2\n",
            "  calls that didn't       3\n",
            "                              3 rejected (0001): halved",
            "  time                    2.0 s: 2 videos/s\n",
            "  at the real quota       1s: so many calls at 5 a second\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert!(text.contains("  WRONG  messages left in the queue: 7, expected 0\n"), "{text}");
        assert!(text.contains("  ok     dead letters: malformed: 1\n"), "{text}");
    }
}
