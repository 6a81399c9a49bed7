use std::collections::BTreeSet;

use super::*;
use crate::answer::Rejection;

/// The value of a series, written as it stands in the text format, without the prefix.
fn value(metrics: &Metrics, series: &str) -> f64 {
    let text = metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("deletion_worker_{series} ")));
    line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().expect("a number")
}

#[test]
fn every_series_is_there_before_anything_was_counted() {
    let text = Metrics::new().encode();
    for Description { name, kind, label, help } in descriptions() {
        assert!(text.contains(&format!("# HELP {name} {help}\n")), "HELP of {name}");
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "TYPE of {name}");
        let suffix = if kind == "histogram" { "_count" } else { "" };
        match label {
            None => assert!(text.contains(&format!("\n{name}{suffix} 0\n")), "{name}"),
            Some((label, values)) => {
                for value in values {
                    assert!(text.contains(&format!("\n{name}{{{label}=\"{value}\"}} ")), "{name} {value}");
                }
            }
        }
    }
}

#[test]
fn nothing_is_exported_that_is_not_described() {
    let described: BTreeSet<_> = descriptions().into_iter().map(|metric| metric.name.to_owned()).collect();
    let text = Metrics::new().encode();
    let exported: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| !name.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(exported, described);
}

#[test]
fn names_follow_the_conventions() {
    for Description { name, kind, help, .. } in descriptions() {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(help.ends_with('.') && !help.contains('\n') && !help.contains("  "), "{help}");
    }
}

#[test]
fn a_label_value_indexes_its_own_series() {
    fn check<L: Label>(label: L, value: &str) {
        assert_eq!(L::values()[label.index()], value);
    }
    Settled::ALL.into_iter().for_each(|label| check(label, label.as_str()));
    Trigger::ALL.into_iter().for_each(|label| check(label, label.as_str()));
    Reason::ALL.into_iter().for_each(|label| check(label, label.as_str()));
    EndpointState::ALL.into_iter().for_each(|label| check(label, label.as_str()));
    check(Outcome::Deleted, "deleted");
    check(Outcome::Rejected(Rejection::Invalid), "rejected");
    check(Outcome::Rejected(Rejection::TooLarge), "rejected");
    check(Outcome::Throttled, "throttled");
    check(Outcome::Transient, "transient");
    check(Outcome::Blocked, "blocked");
    check(Code::of(Some("0000")), "0000");
    check(Code::of(Some("500")), "500");
    check(Code::of(Some("418")), "other");
    check(Code::of(Some("")), "other");
    check(Code::of(Some("none")), "other");
    check(Code::of(None), "none");
}

#[test]
fn counting_shows_in_the_series_that_was_meant() {
    let metrics = Metrics::new();
    metrics.messages_settled_total[Settled::Released].inc_by(3);
    metrics.endpoint_requests_total[Outcome::Rejected(Rejection::Duplicate)].inc();
    metrics.endpoint_response_codes_total[Code::of(Some("0409"))].inc();
    metrics.ids_pending.set(17);
    metrics.batch_ids.observe(500.0);
    metrics.batch_ids.observe(499.0);
    assert_eq!(value(&metrics, "messages_settled_total{outcome=\"released\"}"), 3.0);
    assert_eq!(value(&metrics, "messages_settled_total{outcome=\"deleted\"}"), 0.0);
    assert_eq!(value(&metrics, "endpoint_requests_total{outcome=\"rejected\"}"), 1.0);
    assert_eq!(value(&metrics, "endpoint_response_codes_total{code=\"0409\"}"), 1.0);
    assert_eq!(value(&metrics, "ids_pending"), 17.0);
    assert_eq!(value(&metrics, "batch_ids_bucket{le=\"499\"}"), 1.0);
    assert_eq!(value(&metrics, "batch_ids_bucket{le=\"500\"}"), 2.0);
    assert_eq!(value(&metrics, concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}")), 1.0);
}

#[test]
fn an_endpoint_is_in_one_state() {
    let metrics = Metrics::new();
    let states = || {
        EndpointState::ALL
            .map(|state| value(&metrics, &format!("endpoint_state{{state=\"{}\"}}", state.as_str())))
    };
    assert_eq!(states(), [0.0, 0.0, 0.0]);
    metrics.endpoint_state.set(EndpointState::Blocked);
    assert_eq!(states(), [0.0, 0.0, 1.0]);
    metrics.endpoint_state.set(EndpointState::Healthy);
    assert_eq!(states(), [1.0, 0.0, 0.0]);
}

#[test]
fn two_sets_of_metrics_are_independent() {
    let (one, other) = (Metrics::new(), Metrics::new());
    one.retries_total.inc();
    assert_eq!(value(&one, "retries_total"), 1.0);
    assert_eq!(value(&other, "retries_total"), 0.0);
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_is_measured_too() {
    let text = Metrics::new().encode();
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    assert!(text.contains("\nprocess_open_fds "), "{text}");
}

#[test]
fn the_table_has_a_row_for_each_metric() {
    let table = markdown_table();
    assert_eq!(table.lines().count(), 2 + descriptions().len());
    assert!(table.contains(
        "| `deletion_worker_dead_letters_total` | counter | Messages placed in the dead-letter queue, by \
         reason. `reason`: `malformed`, `rejected`, `retries_exhausted`. |\n"
    ));
}
