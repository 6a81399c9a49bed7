//! What a dead letter looks like: the original, with the reason in its headers.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use super::press::Letter;
use super::shelf::Parcel;
use super::sieve::Properties;
use super::topology::Names;
use crate::delivery::Obituary;

/// Begins the name of every header that is ours.
pub(crate) const PREFIX: &str = "x-deletion-";
/// How often the message was replayed: the one header of ours that a message carries on.
pub(crate) const REPLAYS: &str = "x-deletion-replays";
/// Begins the name of a header that keeps what would have made the dead letter expire, be refused, or go elsewhere.
pub(crate) const ORIGINAL_PREFIX: &str = "x-original-";

/// Headers of the broker's own book-keeping, which the next reader would take for true.
const DROPPED: [&str; 2] = ["x-delivery-count", "x-acquired-count"];
/// Headers that route a message to further queues, perhaps the one it came from.
const ROUTING: [&str; 2] = ["CC", "BCC"];
/// Direct reply-to works only for the one who published first; for anybody else it is an error.
pub(super) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// The whole set of our headers.
const ADDED_BYTES_MAX: usize = 4096 - RESERVED_BYTES;
/// What the publisher's mark and the notes on repaired properties and dropped headers take at most.
const RESERVED_BYTES: usize = 420;
const DETAIL_BYTES_MAX: usize = 1024;
const CODE_BYTES_MAX: usize = 255;
/// All headers; a content header has to fit one frame of 128 KiB, and on each redelivery the broker adds to it.
const HEADERS_BYTES_MAX: usize = 100 * 1024;

/// The dead letter for `parcel`.
pub(super) fn letter(parcel: &Parcel, obituary: &Obituary, names: &Names, now: SystemTime) -> Letter {
    let original = parcel.note.properties().map(Properties::parse).unwrap_or_default();
    let mut foreign = foreign_headers(&original);
    let mut headers = own_headers(parcel, &original, obituary, names, now);
    let added: usize = table_bytes(&headers);
    let carried = table_bytes(&foreign);
    if added + carried > HEADERS_BYTES_MAX {
        let note = format!("{} headers of {carried} bytes were too large to keep", foreign.len());
        foreign.clear();
        headers.insert(name("headers-dropped"), text(note));
    }
    if let Some(repaired) = parcel.note.repaired() {
        headers.insert(name("repaired"), text(repaired));
    }
    foreign.append(&mut headers);
    Letter {
        exchange: names.dead_exchange.clone(),
        routing_key: parcel.route.routing_key.clone(),
        properties: properties(&original, foreign),
        body: parcel.body.clone(),
    }
}

type Headers = BTreeMap<ShortString, AMQPValue>;

/// The original's headers, without what was ours, and with what is dangerous under other names.
fn foreign_headers(original: &BasicProperties) -> Headers {
    let mut kept = Headers::new();
    for (name, value) in original.headers().iter().flatten() {
        let lower = name.as_str();
        if lower.starts_with(PREFIX) || DROPPED.contains(&lower) {
            continue;
        }
        if ROUTING.contains(&lower) {
            kept.insert(original_name(lower), value.clone());
        } else {
            kept.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    let mut keep = |name, value: &Option<ShortString>| {
        if let Some(value) = value {
            kept.insert(original_name(name), text(value.as_str()));
        }
    };
    keep("expiration", original.expiration());
    keep("user_id", original.user_id());
    if is_direct_reply(original) {
        keep("reply_to", original.reply_to());
    }
    kept
}

fn own_headers(
    parcel: &Parcel,
    original: &BasicProperties,
    obituary: &Obituary,
    names: &Names,
    now: SystemTime,
) -> Headers {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let worker = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let mut headers = Headers::from([
        (name("reason"), text(obituary.reason.as_str())),
        (name("detail"), text(cut(&obituary.detail, DETAIL_BYTES_MAX))),
        (name("attempts"), AMQPValue::LongLongInt(obituary.attempts.into())),
        (name("failed-count"), AMQPValue::LongLongInt(obituary.failed_ids.len() as i64)),
        (name("exchange"), text(parcel.route.exchange.as_str())),
        (name("routing-key"), text(parcel.route.routing_key.as_str())),
        (name("queue"), text(names.queue.as_str())),
        (name("worker"), text(worker)),
        (name("at"), AMQPValue::Timestamp(seconds)),
    ]);
    if let Some(code) = &obituary.code {
        headers.insert(name("code"), text(cut(code, CODE_BYTES_MAX)));
    }
    if let Some(status) = obituary.http_status {
        headers.insert(name("http-status"), AMQPValue::LongLongInt(status.into()));
    }
    let carried = original.headers().as_ref().and_then(|headers| headers.inner().get(REPLAYS));
    if let Some(AMQPValue::LongLongInt(replays)) = carried {
        headers.insert(REPLAYS.into(), AMQPValue::LongLongInt(*replays));
    }
    let ids = name("failed-ids");
    let none = AMQPValue::FieldArray(FieldArray::default());
    let room = ADDED_BYTES_MAX - table_bytes(&headers) - entry_bytes(&ids, &none);
    headers.insert(ids, AMQPValue::FieldArray(failed_ids(obituary, room)));
    headers
}

/// As many failed IDs as fit.
fn failed_ids(obituary: &Obituary, room: usize) -> FieldArray {
    let mut bytes = 0;
    let fits = |value: &AMQPValue| {
        bytes += value_bytes(value);
        bytes <= room
    };
    let ids = obituary.failed_ids.iter().map(|id| text(id.as_str()));
    FieldArray::from(ids.take_while(fits).collect::<Vec<_>>())
}

fn properties(original: &BasicProperties, headers: Headers) -> BasicProperties {
    let mut copy = BasicProperties::default().with_headers(FieldTable::from(headers)).with_delivery_mode(2);
    macro_rules! copy {
        ($($read:ident => $write:ident),*) => {
            $(if let Some(value) = original.$read() { copy = copy.$write(value.clone()); })*
        };
    }
    copy!(
        content_type => with_content_type, content_encoding => with_content_encoding, priority => with_priority,
        correlation_id => with_correlation_id, message_id => with_message_id, timestamp => with_timestamp,
        kind => with_type, app_id => with_app_id, cluster_id => with_cluster_id
    );
    match original.reply_to() {
        Some(reply_to) if !is_direct_reply(original) => copy.with_reply_to(reply_to.clone()),
        _ => copy,
    }
}

fn is_direct_reply(original: &BasicProperties) -> bool {
    original.reply_to().as_ref().is_some_and(|reply_to| reply_to.as_str().starts_with(DIRECT_REPLY_TO))
}

fn name(rest: &str) -> ShortString {
    format!("{PREFIX}{rest}").into()
}

fn original_name(rest: &str) -> ShortString {
    format!("{ORIGINAL_PREFIX}{rest}").into()
}

/// A long string: a short one panics above 255 bytes.
pub(super) fn text(value: impl Into<Vec<u8>>) -> AMQPValue {
    AMQPValue::LongString(value.into().into())
}

/// The longest prefix of `text` with at most `max` bytes that ends with a whole character.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn table_bytes(table: &Headers) -> usize {
    table.iter().map(|(name, value)| entry_bytes(name, value)).sum()
}

fn entry_bytes(name: &ShortString, value: &AMQPValue) -> usize {
    1 + name.as_str().len() + value_bytes(value)
}

/// A value's bytes on the wire, its type included.
fn value_bytes(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(value_bytes).sum::<usize>(),
        AMQPValue::FieldTable(table) => 4 + table_bytes(table.inner()),
        AMQPValue::Void => 0,
    }
}

#[cfg(test)]
mod tests;
