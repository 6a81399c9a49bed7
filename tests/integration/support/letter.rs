//! A look at a dead letter.

use lapin::message::BasicGetMessage;
use lapin::types::AMQPValue;

/// A header, whatever its type, as text; the items of an array joined by commas.
///
/// Panics if it isn't there.
pub(crate) fn header(letter: &BasicGetMessage, name: &str) -> String {
    find(letter, name).unwrap_or_else(|| panic!("no {name} in {:#?}", letter.properties))
}

/// A header, whatever its type, as text.
pub(crate) fn find(letter: &BasicGetMessage, name: &str) -> Option<String> {
    let headers = letter.properties.headers().as_ref()?;
    headers.inner().get(name).map(text)
}

/// The names of all its headers.
pub(crate) fn names(letter: &BasicGetMessage) -> Vec<String> {
    let headers = letter.properties.headers().iter();
    headers.flat_map(|headers| headers.inner().keys()).map(ToString::to_string).collect()
}

/// Its body, which must be UTF-8.
pub(crate) fn body(letter: &BasicGetMessage) -> &str {
    str::from_utf8(&letter.data).expect("UTF-8")
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the types that dead letters have")]
fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Timestamp(seconds) => seconds.to_string(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(text).collect::<Vec<_>>().join(","),
        other => panic!("unexpected type: {other:?}"),
    }
}
