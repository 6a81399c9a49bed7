//! What publishers send: `request::parse` against the schema of `docs/`, by a second JSON parser.

use std::io::{Read as _, Write as _};
use std::sync::LazyLock;

use deletion_worker::id::Id;
use deletion_worker::request::{Malformed, Origin, Request, parse};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::input::{Input, corpus, mutated, names_twice, object, value};
use crate::{explore, is_harmful};

pub(crate) const IDS_MAX: usize = 5;

/// The longest sentence that a dead letter's header holds.
const SENTENCE_BYTES_MAX: usize = 1024;

/// What the members of a request are called.
const NAMES: &[&str] = &[
    "videoNo",
    "videoNos",
    "videoNo",
    "videoNos",
    "namespace",
    "requestId",
    "requestedBy",
    "reason",
    "extra",
];

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| schema("request"));

#[test]
fn corpus_of_messages() {
    for Input(body) in corpus("message") {
        for encoding in [None, Some("gzip"), Some("br\u{1b}")] {
            check(&body, encoding).expect("a property that holds");
        }
    }
}

#[test]
fn mutated_messages() {
    explore(&mutated("message"), |Input(body)| check(&body, None));
}

#[test]
fn mutated_gzip() {
    explore(&(mutated("message"), any::<bool>()), |(Input(body), pack)| {
        check(&if pack { gzip(&body) } else { body }, Some("gzip"))
    });
}

#[test]
fn structured_messages() {
    let bodies = prop_oneof![3 => object(NAMES), 1 => value()];
    explore(&bodies, |body| check(body.as_bytes(), None));
}

#[test]
fn any_bytes() {
    let bodies =
        (proptest::collection::vec(any::<u8>(), 0..200), "[ -~\u{0}-\u{a0}\u{2028}]{0,20}", any::<bool>());
    explore(&bodies, |(body, text, is_encoding)| {
        let (content_type, encoding) =
            if is_encoding { (None, Some(text.as_str())) } else { (Some(text.as_str()), None) };
        let read = parse(&body, content_type, encoding, IDS_MAX);
        read.map_or_else(|fault| is_a_sentence(&fault, body.len()), |request| fits(&request))
    });
}

/// What holds of a body that is no event.
fn check(body: &[u8], encoding: Option<&str>) -> TestCaseResult {
    let read = parse(body, None, encoding, IDS_MAX);
    judge(body, encoding, read, &SCHEMA)
}

/// Parser and schema say the same, the request is within the contract, and the fault is one that helps.
pub(crate) fn judge(
    body: &[u8],
    encoding: Option<&str>,
    read: Result<Request, Malformed>,
    schema: &jsonschema::Validator,
) -> TestCaseResult {
    let mut unpacked = Vec::new();
    let body = match encoding {
        None => body,
        Some("gzip") if MultiGzDecoder::new(body).read_to_end(&mut unpacked).is_ok() => &unpacked,
        Some(_) => {
            prop_assert!(read.is_err());
            return is_a_sentence(&read.expect_err("as was just seen"), body.len());
        }
    };
    // Reads numbers and depths that the other doesn't; neither sees members that come twice.
    let is_json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
    let is_valid = serde_json::from_slice::<Value>(body).ok().map(|value| schema.is_valid(&value));
    match read {
        Ok(request) => {
            prop_assert!(is_json && is_valid != Some(false), "accepted against the schema");
            fits(&request)
        }
        Err(fault) => {
            let beyond = names_twice(body) || fault.0.ends_with(&format!("more than {IDS_MAX} IDs"));
            prop_assert!(is_valid != Some(true) || beyond, "refused against the schema: {fault}");
            is_a_sentence(&fault, body.len())
        }
    }
}

/// The contract, said once more.
pub(crate) fn fits(request: &Request) -> TestCaseResult {
    prop_assert!((1..=IDS_MAX).contains(&request.ids.len()));
    let texts =
        request.ids.iter().map(Id::as_str).chain(request.namespace.as_ref().map(|name| name.as_str()));
    for text in texts {
        prop_assert!((1..=128).contains(&text.chars().count()), "{text:?}");
        prop_assert!(!text.contains(|char: char| char.is_whitespace() || char.is_control()), "{text:?}");
    }
    let Some(origin) = &request.origin else { return Ok(()) };
    let Origin { request_id, requested_by, reason } = &**origin;
    for text in [request_id, requested_by, reason].into_iter().flatten() {
        prop_assert!(text.len() <= Origin::BYTES_MAX);
    }
    Ok(())
}

/// One line, short, harmless, and the position it names is in the body or at its end.
pub(crate) fn is_a_sentence(Malformed(sentence): &Malformed, length: usize) -> TestCaseResult {
    prop_assert!(!sentence.is_empty() && sentence.len() <= SENTENCE_BYTES_MAX, "{sentence:?}");
    prop_assert!(!sentence.contains(is_harmful), "{sentence:?}");
    // The last one is ours: text of the message comes before it.
    if let Some((_, rest)) = sentence.rsplit_once(" at byte ") {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if let Ok(position) = digits.parse::<usize>() {
            prop_assert!(position <= length, "{sentence:?} of {length} bytes");
        }
    }
    Ok(())
}

/// The schema of `docs/`, or one of its parts.
pub(crate) fn schema(definition: &str) -> jsonschema::Validator {
    let mut schema: Value =
        serde_json::from_str(include_str!("../../docs/message.schema.json")).expect("JSON");
    schema["anyOf"] = serde_json::json!([{ "$ref": format!("#/$defs/{definition}") }]);
    jsonschema::validator_for(&schema).expect("the schema compiles")
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}
