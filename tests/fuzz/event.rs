//! CloudEvents, likewise.

use std::sync::LazyLock;

use deletion_worker::request::parse;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::explore;
use crate::input::{Input, corpus, mutated, object, string, value};
use crate::message::{IDS_MAX, judge, schema};

/// What the members of an event's `data` are called.
const NAMES: &[&str] = &["videoNo", "videoNos", "namespace", "reason"];

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| schema("event"));

#[test]
fn corpus_of_events() {
    for Input(body) in corpus("event") {
        check(&body).expect("a property that holds");
    }
}

#[test]
fn mutated_events() {
    explore(&mutated("event"), |Input(body)| check(&body));
}

#[test]
fn structured_events() {
    let data = prop_oneof![3 => object(NAMES), 1 => value()];
    let attribute = || prop_oneof![4 => string(), 1 => value()];
    let version = prop_oneof![6 => Just("\"1.0\"".to_owned()), 1 => value()];
    let members = (version, attribute(), attribute(), attribute(), data, any::<[bool; 5]>());
    explore(&members, |(version, id, source, kind, data, is_there)| {
        let members =
            [("specversion", version), ("id", id), ("source", source), ("type", kind), ("data", data)];
        let members = members.iter().zip(is_there).filter(|(_, is_there)| *is_there);
        let members: Vec<_> = members.map(|((name, value), _)| format!("\"{name}\":{value}")).collect();
        check(format!("{{{}}}", members.join(",")).as_bytes())
    });
}

fn check(body: &[u8]) -> TestCaseResult {
    let read = parse(body, Some("application/cloudevents+json"), None, IDS_MAX);
    judge(body, None, read, &SCHEMA)
}
