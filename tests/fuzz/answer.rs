//! What the endpoint says: `answer::classify` against a second reading of the documentation.

use std::time::Duration;

use deletion_worker::answer::{Answer, Body, KNOWN_CODES, Outcome, classify, code_label};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use serde_json::Value;

use crate::input::{Input, corpus, mutated, object};
use crate::{explore, is_harmful};

const SECRET: &str = r#"sk-"quoted"\1"#;

/// What the members of an answer are called.
const NAMES: &[&str] = &["code", "code", "msg", "data", "success", "failed", "Code"];

/// The statuses that documentation and proxies know, and any other.
fn status() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(200), 2 => select(vec![201, 204, 301, 400, 401, 409, 413, 429, 500, 503]), 1 => 100..1000_u16]
}

fn success_codes() -> impl Strategy<Value = Vec<String>> {
    let codes = [&["0000"][..], &["0000", "200"], &["ok"], &[]];
    select(codes.map(|codes| codes.iter().map(|code| (*code).to_owned()).collect()).to_vec())
}

fn retry_after() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![3 => Just(None), 1 => any::<Duration>().prop_map(Some)]
}

#[test]
fn corpus_of_answers() {
    let codes = ["0000".to_owned()];
    for Input(body) in corpus("answer") {
        for status in [200, 400, 401, 500] {
            check(status, &body, None, &codes).expect("a property that holds");
        }
    }
}

#[test]
fn mutated_answers() {
    explore(
        &(status(), mutated("answer"), retry_after(), success_codes()),
        |(status, Input(body), wait, codes)| check(status, &body, wait, &codes),
    );
}

#[test]
fn structured_answers() {
    explore(&(status(), object(NAMES), retry_after(), success_codes()), |(status, body, wait, codes)| {
        check(status, body.as_bytes(), wait, &codes)
    });
}

#[test]
fn answers_that_are_cut_or_never_came() {
    explore(&(status(), any::<String>(), any::<bool>(), retry_after()), |(status, how, is_long, wait)| {
        let body = if is_long { Body::TooLong } else { Body::Broken(&how) };
        let answer = classify(status, body, wait, &["0000".to_owned()], None);
        prop_assert!(answer.outcome != Outcome::Deleted);
        prop_assert!(!is_long || !matches!(answer.outcome, Outcome::Deleted));
        is_presentable(&answer)?;
        is_presentable(&Answer::lost(&how))
    });
}

#[test]
fn answers_that_say_the_token_back() {
    let places = (status(), mutated("answer"), any::<prop::sample::Index>(), any::<bool>());
    explore(&places, |(status, Input(mut body), at, is_json)| {
        let written = Value::from(SECRET).to_string();
        let secret = if is_json { written.trim_matches('"') } else { SECRET };
        let at = at.index(body.len() + 1);
        body.splice(at..at, secret.bytes());
        let answer = classify(status, Body::Whole(&body), None, &[], Some(SECRET));
        let said = format!("{} {}", answer.detail, answer.code.unwrap_or_default());
        // However it is escaped when it is quoted.
        prop_assert!(!said.contains("quoted"), "{said}");
        Ok(())
    });
}

fn check(status: u16, body: &[u8], wait: Option<Duration>, codes: &[String]) -> TestCaseResult {
    let answer = classify(status, Body::Whole(body), wait, codes, None);
    let deletes = (200..300).contains(&status) && has_code(body, codes);
    prop_assert_eq!(answer.outcome == Outcome::Deleted, deletes, "{:?}", answer);
    if wait.is_some() && !deletes {
        prop_assert_eq!(answer.outcome, Outcome::Throttled);
    }
    prop_assert_eq!((answer.http_status, answer.retry_after), (Some(status), wait));
    is_presentable(&answer)
}

/// Whether the body is an object with exactly one `code` that is one of these, as a string or an integer.
fn has_code(body: &[u8], codes: &[String]) -> bool {
    let Ok(members) = serde_json::from_slice::<Members>(body) else { return false };
    let found: Vec<_> = members.0.iter().filter(|(name, _)| name == "code").collect();
    match found[..] {
        [(_, Value::String(code))] => codes.contains(code),
        [(_, Value::Number(code))] if code.is_u64() || code.is_i64() => codes.contains(&code.to_string()),
        _ => false,
    }
}

/// An object's members, those that come twice included; what is too deep or too large for a [`Value`] is `null`.
struct Members(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = if name == "code" {
                        map.next_value::<Value>()?
                    } else {
                        map.next_value::<serde::de::IgnoredAny>()?;
                        Value::Null
                    };
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Bounded, on one line, and harmless; and a label that is one of a few.
fn is_presentable(answer: &Answer) -> TestCaseResult {
    let Answer { detail, code, .. } = answer;
    prop_assert!(detail.len() <= Answer::DETAIL_BYTES_MAX && !detail.contains(is_harmful), "{detail:?}");
    let code = code.as_deref().unwrap_or_default();
    prop_assert!(code.len() <= Answer::CODE_BYTES_MAX && !code.contains(is_harmful), "{code:?}");
    let label = code_label(answer);
    prop_assert!(KNOWN_CODES.contains(&label) || ["other", "none"].contains(&label), "{label}");
    Ok(())
}
