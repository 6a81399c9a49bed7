//! What was seen, against what was planned.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::load::Expected;
use crate::delivery::Reason;

/// What the others counted: the mock endpoint, the broker, and the worker by its metrics and its exit.
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
    /// By the mock: calls it answered otherwise, by what it answered.
    pub calls_failed: BTreeMap<String, u64>,
    /// By the mock: the most calls in any one second.
    pub calls_in_one_second: u64,
    /// By the worker: `ids_deleted_total`.
    pub worker_ids_deleted: u64,
    /// By the worker: `dead_letters_total`, all reasons.
    pub worker_dead_letters: u64,
    /// By the worker: its exit code; `None` if a signal ended it.
    pub worker_exit: Option<i32>,
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
    let unasked = observed.deleted.keys().filter(|id| !expected.ids.contains(*id)).count();
    let mut checks = vec![
        compare("messages the broker confirmed", expected.messages, observed.published),
        compare("messages left in the queue", 0, observed.left),
        compare("IDs the endpoint didn't delete", 0, missing as u64),
        compare("IDs it deleted that nobody asked for", 0, unasked as u64),
        compare("deletions, by the endpoint and by the worker", deletions, observed.worker_ids_deleted),
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
        found: observed.worker_exit.map_or(-1, i64::from),
    });
    checks
}

/// The table for the audience: the numbers, then every comparison.
#[must_use]
pub fn render(expected: &Expected, observed: &Observed, checks: &[Check], ids_per_call: u64) -> String {
    let deletions: u64 = observed.deleted.values().map(|times| u64::from(*times)).sum();
    let ideal = (expected.ids.len() as u64).div_ceil(ids_per_call);
    let fill = 100.0 * ratio(deletions, observed.calls * ids_per_call);
    let seconds = observed.took.as_secs_f64();
    let rows = [
        ("messages", expected.messages.to_string()),
        ("IDs deleted", format!("{} different, named {} times", observed.deleted.len(), expected.mentions)),
        ("calls that deleted", format!("{}, ideally {ideal}; {fill:.1} % full", observed.calls)),
        ("calls that failed", failures(&observed.calls_failed)),
        ("most calls in a second", observed.calls_in_one_second.to_string()),
        ("time", format!("{seconds:.1} s, {:.0} IDs/s", deletions as f64 / seconds.max(0.001))),
    ];
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

fn failures(by_kind: &BTreeMap<String, u64>) -> String {
    let total: u64 = by_kind.values().sum();
    let kinds: Vec<String> = by_kind.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if total == 0 { "0".to_owned() } else { format!("{total}: {}", kinds.join(", ")) }
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
            calls_failed: [("invalid".to_owned(), 3)].into(),
            worker_ids_deleted: 4,
            worker_dead_letters: 2,
            worker_exit: Some(0),
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
    }

    #[test]
    fn each_disagreement_is_found() {
        type Case = (fn(&mut Observed), &'static [&'static str]);
        let cases: [Case; 9] = [
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
            (|o| o.worker_ids_deleted = 3, &["deletions, by the endpoint and by the worker"]),
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
            (|o| o.worker_exit = None, &["the worker's exit code"]),
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
        assert!(text.contains("  calls that deleted      2, ideally 2; 100.0 % full\n"), "{text}");
        assert!(text.contains("  calls that failed       3: 3 invalid\n"), "{text}");
        assert!(text.contains("  IDs deleted             3 different, named 4 times\n"), "{text}");
        assert!(text.contains("2.0 s, 2 IDs/s\n"), "{text}");
        assert!(text.contains("  WRONG  messages left in the queue: 7, expected 0\n"), "{text}");
        assert!(text.contains("  ok     dead letters: malformed: 1\n"), "{text}");
    }
}
