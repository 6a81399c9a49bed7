//! From a message to what it asks for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::shelf::Parcel;
use super::sieve::Brief;
use crate::delivery::{Arrival, Tag};
use crate::request;

/// Reads a message for the engine, with at most `ids_max` IDs; says how much work that was, in IDs.
pub(super) fn unpack(tag: Tag, parcel: &Parcel, ids_max: usize, now: SystemTime) -> (Arrival, usize) {
    let Brief { content_type, content_encoding, timestamp, .. } = parcel.brief();
    let request = request::parse(&parcel.body, content_type, content_encoding, ids_max);
    let age = timestamp.and_then(|seconds| age(seconds, now));
    let ids = request.as_ref().map_or(1, |request| request.ids.len());
    let weight = weight(ids, parcel.body.len(), content_encoding.is_some());
    (Arrival { tag, redelivered: parcel.redelivered, waited: parcel.waited, age, request }, weight)
}

fn weight(ids: usize, bytes: usize, is_compressed: bool) -> usize {
    /// An ID as it stands in a body, roughly.
    const ID_BYTES: usize = 32;
    // Compressed, it may be a thousand times as large inside.
    let bytes = bytes.saturating_mul(if is_compressed { 1_000 } else { 1 });
    ids.max(bytes / ID_BYTES)
}

/// Whole seconds since the epoch are what AMQP knows; a publisher whose clock is ahead sends messages of no age.
fn age(timestamp: u64, now: SystemTime) -> Option<Duration> {
    let sent = UNIX_EPOCH.checked_add(Duration::from_secs(timestamp))?;
    Some(now.duration_since(sent).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::message::Delivery;

    use super::super::shelf::Shelf;
    use super::super::sieve::Note;
    use super::*;

    #[test]
    fn what_is_long_or_compressed_is_heavy() {
        let weight = |body: &[u8], encoding: Option<&str>| {
            let delivery = Delivery::mock(1, "".into(), "".into(), false, body.to_vec());
            let mut properties = BasicProperties::default();
            if let Some(encoding) = encoding {
                properties = properties.with_content_encoding(encoding.into());
            }
            let mut shelf = Shelf::new();
            shelf.put(delivery, Note::specimen(&properties, false)).expect("the first");
            unpack(Tag(1), &shelf.take(Tag(1)).expect("kept"), 10_000, UNIX_EPOCH).1
        };
        assert_eq!(weight(br#"["VI1","VI2","VI3"]"#, None), 3);
        assert_eq!(weight(b"garbage", None), 1);
        assert_eq!(weight(&[b' '; 32_000], None), 1_000);
        assert_eq!(weight(&[0; 320], Some("gzip")), 10_000);
    }

    #[test]
    fn ages_are_never_negative_and_never_panic() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(age(990, now), Some(Duration::from_secs(10)));
        assert_eq!(age(1_010, now), Some(Duration::ZERO));
        assert_eq!(age(u64::MAX, now), None);
    }
}
