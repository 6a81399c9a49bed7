use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::types::{ByteArray, DecimalValue};
use proptest::prelude::*;

use super::*;
use crate::broker::shelf::{Parcel, Route};
use crate::broker::sieve::Note;
use crate::delivery::Reason;
use crate::id::Id;

fn names() -> Names {
    Names {
        queue: "deletions".into(),
        exchange: "deletions".into(),
        routing_key: "delete".into(),
        dead_exchange: "deletions.dlx".into(),
        dead_queue: "deletions.dead".into(),
    }
}

fn parcel(properties: BasicProperties) -> Parcel {
    let delivery = Delivery::mock(1, "".into(), "".into(), false, Vec::new());
    Parcel {
        acker: delivery.acker,
        body: b"\xff not even text".to_vec(),
        route: Arc::new(Route { exchange: "videos".into(), routing_key: "video.gone".into() }),
        redelivered: false,
        waited: false,
        note: Note::specimen(&properties, false),
    }
}

#[test]
fn what_had_to_be_made_readable_is_said() {
    let mut repaired = parcel(BasicProperties::default());
    repaired.note = Note::specimen(&BasicProperties::default(), true);
    let letter = letter(&repaired, &obituary(), &names(), UNIX_EPOCH);
    let said = "bytes that are not UTF-8 became question marks; \
                headers that do not fit a frame, or are garbled, were left out";
    assert_eq!(header(&letter, "x-deletion-repaired"), Some(&text(said)));
    assert_eq!(header(&dead(BasicProperties::default()), "x-deletion-repaired"), None);
}

fn obituary() -> Obituary {
    Obituary {
        reason: Reason::Rejected,
        detail: "a parameter is incorrect".to_owned(),
        code: Some("0001".into()),
        http_status: Some(400),
        attempts: 3,
        failed_ids: vec![Id::new("VI1").expect("an ID"), Id::new("VI2").expect("an ID")],
    }
}

fn dead(properties: BasicProperties) -> Letter {
    dead_as(properties, &obituary())
}

fn dead_as(properties: BasicProperties, obituary: &Obituary) -> Letter {
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    letter(&parcel(properties), obituary, &names(), now)
}

fn with_header(name: &str, value: AMQPValue) -> BasicProperties {
    let headers = FieldTable::from(BTreeMap::from([(name.into(), value)]));
    BasicProperties::default().with_headers(headers)
}

fn header<'a>(letter: &'a Letter, name: &str) -> Option<&'a AMQPValue> {
    headers(letter).get(name)
}

fn headers(letter: &Letter) -> &Headers {
    letter.properties.headers().as_ref().expect("a dead letter has headers").inner()
}

#[test]
fn it_says_what_happened() {
    let letter = dead(BasicProperties::default());
    let ids = FieldArray::from(vec![text("VI1"), text("VI2")]);
    let expected = Headers::from([
        ("x-deletion-reason".into(), text("rejected")),
        ("x-deletion-detail".into(), text("a parameter is incorrect")),
        ("x-deletion-code".into(), text("0001")),
        ("x-deletion-http-status".into(), AMQPValue::LongLongInt(400)),
        ("x-deletion-attempts".into(), AMQPValue::LongLongInt(3)),
        ("x-deletion-failed-ids".into(), AMQPValue::FieldArray(ids)),
        ("x-deletion-failed-count".into(), AMQPValue::LongLongInt(2)),
        ("x-deletion-exchange".into(), text("videos")),
        ("x-deletion-routing-key".into(), text("video.gone")),
        ("x-deletion-queue".into(), text("deletions")),
        ("x-deletion-worker".into(), text(concat!("deletion-worker ", env!("CARGO_PKG_VERSION")))),
        ("x-deletion-at".into(), AMQPValue::Timestamp(1_700_000_000)),
    ]);
    assert_eq!(*headers(&letter), expected);
    assert_eq!(letter.exchange.as_str(), "deletions.dlx");
    assert_eq!(letter.routing_key.as_str(), "video.gone");
    assert_eq!(letter.body, b"\xff not even text");
    assert_eq!(*letter.properties.delivery_mode(), Some(2));
}

#[test]
fn without_an_answer_there_is_no_code() {
    let obituary = Obituary { code: None, http_status: None, attempts: 0, ..obituary() };
    let letter = dead_as(BasicProperties::default(), &obituary);
    assert_eq!(header(&letter, "x-deletion-code"), None);
    assert_eq!(header(&letter, "x-deletion-http-status"), None);
}

#[test]
fn harmless_properties_are_kept() {
    let original = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("gzip".into())
        .with_priority(7)
        .with_correlation_id("correlation".into())
        .with_reply_to("answers".into())
        .with_message_id("message".into())
        .with_timestamp(12)
        .with_type("kind".into())
        .with_app_id("app".into())
        .with_cluster_id("cluster".into());
    let letter = dead(original.clone());
    let copied = original.with_headers(headers(&letter).clone().into()).with_delivery_mode(2);
    assert_eq!(letter.properties, copied);
}

#[test]
fn a_transient_message_becomes_persistent() {
    assert_eq!(*dead(BasicProperties::default().with_delivery_mode(1)).properties.delivery_mode(), Some(2));
}

#[test]
fn an_expiration_would_lose_it() {
    let letter = dead(BasicProperties::default().with_expiration("1000".into()));
    assert_eq!(*letter.properties.expiration(), None);
    assert_eq!(header(&letter, "x-original-expiration"), Some(&text("1000")));
}

#[test]
fn a_user_id_would_be_refused() {
    let letter = dead(BasicProperties::default().with_user_id("publisher".into()));
    assert_eq!(*letter.properties.user_id(), None);
    assert_eq!(header(&letter, "x-original-user_id"), Some(&text("publisher")));
}

#[test]
fn direct_reply_to_would_be_refused() {
    for reply_to in ["amq.rabbitmq.reply-to", "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA"] {
        let letter = dead(BasicProperties::default().with_reply_to(reply_to.into()));
        assert_eq!(*letter.properties.reply_to(), None);
        assert_eq!(header(&letter, "x-original-reply_to"), Some(&text(reply_to)));
    }
}

#[test]
fn further_recipients_would_get_it_too() {
    for (name, original) in [("CC", "x-original-CC"), ("BCC", "x-original-BCC")] {
        let recipients = AMQPValue::FieldArray(vec![text("deletions")].into());
        let letter = dead(with_header(name, recipients.clone()));
        assert_eq!(header(&letter, name), None);
        assert_eq!(header(&letter, original), Some(&recipients));
    }
}

#[test]
fn counts_of_deliveries_are_dropped() {
    for name in ["x-delivery-count", "x-acquired-count"] {
        assert_eq!(header(&dead(with_header(name, AMQPValue::LongLongInt(9))), name), None);
    }
}

#[test]
fn the_broker_s_history_is_kept() {
    for name in ["x-death", "x-first-death-queue", "x-first-death-reason"] {
        assert_eq!(header(&dead(with_header(name, text("history"))), name), Some(&text("history")));
    }
}

#[test]
fn an_earlier_obituary_is_replaced_whole() {
    let first = dead(BasicProperties::default());
    let obituary = Obituary { code: None, reason: Reason::RetriesExhausted, ..obituary() };
    let second = dead_as(first.properties, &obituary);
    assert_eq!(header(&second, "x-deletion-reason"), Some(&text("retries_exhausted")));
    assert_eq!(header(&second, "x-deletion-code"), None, "the earlier one's code is not this one's");
}

#[test]
fn a_kept_name_that_is_taken_is_the_message_s_own() {
    let mut headers = FieldTable::default();
    headers.insert("x-original-expiration".into(), text("an earlier one"));
    let letter = dead(BasicProperties::default().with_headers(headers).with_expiration("5".into()));
    assert_eq!(header(&letter, "x-original-expiration"), Some(&text("5")));
}

#[test]
fn a_long_detail_is_cut_at_a_whole_character() {
    let obituary = Obituary { detail: "ä".repeat(1_000), ..obituary() };
    let letter = dead_as(BasicProperties::default(), &obituary);
    assert_eq!(header(&letter, "x-deletion-detail"), Some(&text("ä".repeat(512))));
    let obituary = Obituary { detail: format!("a{}", "ä".repeat(1_000)), ..obituary };
    let letter = dead_as(BasicProperties::default(), &obituary);
    assert_eq!(header(&letter, "x-deletion-detail"), Some(&text(format!("a{}", "ä".repeat(511)))));
}

#[test]
fn failed_ids_are_cut_short_but_counted_whole() {
    let ids = (0..10_000).map(|number| Id::new(&format!("VI{number}")).expect("an ID"));
    let obituary = Obituary { failed_ids: ids.collect(), ..obituary() };
    let letter = dead_as(BasicProperties::default(), &obituary);
    assert_eq!(header(&letter, "x-deletion-failed-count"), Some(&AMQPValue::LongLongInt(10_000)));
    let named = header(&letter, "x-deletion-failed-ids").and_then(AMQPValue::as_array).expect("an array");
    assert!((100..10_000).contains(&named.as_slice().len()), "{}", named.as_slice().len());
    assert!(table_bytes(headers(&letter)) <= ADDED_BYTES_MAX);
}

#[test]
fn the_largest_of_everything_stays_below_4_kib() {
    let parcel = Parcel {
        route: Arc::new(Route { exchange: "e".repeat(255).into(), routing_key: "k".repeat(255).into() }),
        ..parcel(BasicProperties::default())
    };
    let names = Names { queue: "q".repeat(255).into(), ..names() };
    let obituary = Obituary {
        detail: "d".repeat(5_000),
        code: Some("c".repeat(5_000).into()),
        attempts: u32::MAX,
        failed_ids: vec![Id::new(&"ä".repeat(128)).expect("an ID"); 10_000],
        ..obituary()
    };
    let letter = letter(&parcel, &obituary, &names, SystemTime::now());
    assert!(table_bytes(headers(&letter)) <= ADDED_BYTES_MAX);
}

#[test]
fn headers_too_large_to_publish_are_dropped_and_it_says_so() {
    let letter = dead(with_header("large", text(vec![b'x'; HEADERS_BYTES_MAX])));
    assert_eq!(header(&letter, "large"), None);
    assert!(header(&letter, "x-deletion-headers-dropped").is_some());
    assert_eq!(header(&letter, "x-deletion-reason"), Some(&text("rejected")));
    let letter = dead(with_header("large", text(vec![b'x'; HEADERS_BYTES_MAX - 4_096])));
    assert!(header(&letter, "large").is_some());
    assert_eq!(header(&letter, "x-deletion-headers-dropped"), None);
}

#[test]
fn the_mark_and_the_note_fit_their_reserve() {
    let letter = dead(with_header("large", text(vec![b'x'; 10 * HEADERS_BYTES_MAX])));
    let (note, value) = headers(&letter).get_key_value("x-deletion-headers-dropped").expect("the note");
    let mark = ShortString::from(crate::broker::press::MARK);
    let mark = entry_bytes(&mark, &AMQPValue::LongLongInt(i64::MAX));
    assert!(entry_bytes(note, value) + mark <= RESERVED_BYTES - 40, "numbers may have up to 40 digits more");
}

fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f32>().prop_map(AMQPValue::Float),
        any::<f64>().prop_map(AMQPValue::Double),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        (any::<u8>(), any::<u32>())
            .prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(text),
        prop::collection::vec(any::<u8>(), 0..300)
            .prop_map(|bytes| AMQPValue::ByteArray(ByteArray::from(bytes))),
        Just(AMQPValue::Void),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8)
                .prop_map(|values| AMQPValue::FieldArray(FieldArray::from(values))),
            table(inner).prop_map(AMQPValue::FieldTable),
        ]
    })
}

fn table(value: impl Strategy<Value = AMQPValue>) -> impl Strategy<Value = FieldTable> {
    let known = prop::sample::select(vec!["CC", "BCC", "x-death", "x-delivery-count", "x-deletion-reason"]);
    let name = prop_oneof![known.prop_map(str::to_owned), "\\PC{0,60}"];
    let entry = (name.prop_map(ShortString::from), value);
    prop::collection::btree_map(entry.0, entry.1, 0..8).prop_map(FieldTable::from)
}

proptest! {
    #[test]
    fn no_message_makes_it_panic_or_too_large(
        headers in table(value()),
        detail in "\\PC{0,2000}",
        code in proptest::option::of("\\PC{0,300}"),
        expiration in proptest::option::of("\\PC{0,60}"),
        ids in prop::collection::vec("[!-~]{1,128}", 0..100),
    ) {
        let mut original = BasicProperties::default().with_headers(headers);
        if let Some(expiration) = expiration {
            original = original.with_expiration(expiration.into());
        }
        let obituary = Obituary {
            detail,
            code: code.map(Into::into),
            failed_ids: ids.iter().map(|id| Id::new(id).expect("an ID")).collect(),
            ..obituary()
        };
        let letter = dead_as(original, &obituary);
        let headers = self::headers(&letter);
        prop_assert!(table_bytes(headers) <= HEADERS_BYTES_MAX + RESERVED_BYTES);
        let ours = headers.iter().filter(|(name, _)| name.as_str().starts_with(PREFIX));
        let ours: usize = ours.map(|(name, value)| entry_bytes(name, value)).sum();
        prop_assert!(ours <= 4096, "{ours}");
        prop_assert_eq!(headers.get("x-deletion-reason"), Some(&text("rejected")));
        for name in ["CC", "BCC", "x-delivery-count"] {
            prop_assert!(!headers.contains_key(name));
        }
        prop_assert_eq!(letter.properties.expiration(), &None);
    }
}
