//! The message contract: what a publisher may send.
//!
//! `docs/message.schema.json` says the same as a JSON Schema. What a schema can't say: no member twice, no byte
//! order mark, nothing after the value, valid UTF-8, and at most `batch.max_ids_per_message` IDs.

mod event;
pub(crate) mod gzip;
mod plain;
mod shape;

use compact_str::CompactString;
use serde::de::DeserializeSeed;
use serde_json::error::Category;
use smallvec::SmallVec;

use crate::id::{Id, Namespace};
use crate::text::Shown;

use event::Event;
use plain::Plain;
use shape::{Place, Seed};

/// A well-formed deletion request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// At least one; in the message's order, duplicates included.
    pub ids: SmallVec<[Id; 1]>,
    /// The v1.2 namespace, where the message names one.
    pub namespace: Option<Namespace>,
    /// What the message says about itself, for logs; absent when it says nothing.
    pub origin: Option<Box<Origin>>,
}

/// The optional members that are carried along for people; each is cut after [`Origin::BYTES_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `requestId`.
    pub request_id: Option<CompactString>,
    /// `requestedBy`.
    pub requested_by: Option<CompactString>,
    /// `reason`.
    pub reason: Option<CompactString>,
}

impl Origin {
    /// What is kept of one member. The message itself is never cut: a dead letter has all of it.
    pub const BYTES_MAX: usize = 256;
}

/// Why a message is not a deletion request, as a sentence its publisher can act on; names the position.
///
/// Positions are byte offsets into the body (after decompression), list indices and characters, all counted
/// from 0, and members' names. Text from the message is escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Reads a message.
///
/// `content_type` matters only as the sign of a CloudEvents 1.0 structured event. A body of one ID costs no
/// allocation when the ID is of the documented form.
///
/// # Errors
/// [`Malformed`], on anything but a request of 1 to `ids_max` IDs.
pub fn parse(
    body: &[u8],
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    ids_max: usize,
) -> Result<Request, Malformed> {
    match content_encoding {
        None => read(body, content_type, ids_max),
        Some(none) if none.is_empty() || none.eq_ignore_ascii_case("identity") => {
            read(body, content_type, ids_max)
        }
        Some(gzip) if gzip.eq_ignore_ascii_case("gzip") => read(&gzip::unpack(body)?, content_type, ids_max),
        Some(other) => Err(Malformed(format!(
            "the content encoding is {}, expected none, identity or gzip",
            Shown(other)
        ))),
    }
}

fn read(body: &[u8], content_type: Option<&str>, ids_max: usize) -> Result<Request, Malformed> {
    let text = text(body)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let request = if content_type.is_some_and(is_event) {
        Seed(Event { ids_max }).deserialize(&mut json)
    } else {
        Seed(Plain { place: Place::BODY, ids_max }).deserialize(&mut json)
    }
    .map_err(|error| fault(text, &error))?;
    json.end()
        .map_err(|error| Malformed(format!("the body has trailing data at byte {}", offset(text, &error))))?;
    Ok(request)
}

fn text(body: &[u8]) -> Result<&str, Malformed> {
    if body.is_empty() {
        return Err(Malformed("the body is empty, at byte 0".to_owned()));
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(Malformed("the body starts with a byte order mark, at byte 0".to_owned()));
    }
    str::from_utf8(body)
        .map_err(|error| Malformed(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))
}

/// Whether the media type is that of a structured event, whatever its parameters (RFC 9110, 8.3.1).
fn is_event(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/cloudevents+json")
}

fn fault(text: &str, error: &serde_json::Error) -> Malformed {
    let sentence = error.to_string();
    // serde_json closes every message with the position; ours have named theirs already.
    let reason = sentence.rfind(" at line ").map_or(sentence.as_str(), |end| &sentence[..end]);
    Malformed(match error.classify() {
        Category::Data => reason.to_owned(),
        Category::Eof => format!("the body ends within the JSON value, at byte {}", text.len()),
        Category::Syntax | Category::Io => {
            format!("the body is not JSON at byte {}: {reason}", offset(text, error))
        }
    })
}

/// Where the offending byte is; serde_json tells lines and columns (in bytes), counted from 1.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let lines_before: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    (lines_before + error.column()).saturating_sub(1).min(text.len())
}

#[cfg(test)]
mod tests;
