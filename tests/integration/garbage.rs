//! Messages that are no requests, among good ones.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable};

use crate::support::world::World;

/// Bodies, and what their dead letters must say.
const GARBAGE: [(&[u8], &str); 25] = [
    (b"", "the body is empty, at byte 0"),
    (b"VI1", "byte 0"),
    (b"null", "the body is null, expected an object or a list"),
    (b"42", "the body is a number"),
    (b"\"VI1\"", "the body is a string"),
    (b"{}", "neither videoNo nor videoNos"),
    (b"[]", "the body is an empty list"),
    (b"{\"videoNo\": ", "at byte 12"),
    (b"{\"videoNo\": \"VI1\"} trailing", "byte 19"),
    (b"{\"videoNo\": \"VI1\"}{\"videoNo\": \"VI2\"}", "byte 18"),
    (b"\xef\xbb\xbf{\"videoNo\": \"VI1\"}", "byte order mark"),
    (b"{\"videoNo\": \"VI\xff\"}", "byte 15"),
    (b"{\"videoNo\": 1}", "videoNo"),
    (b"{\"videoNo\": null}", "videoNo"),
    (b"{\"videoNo\": [\"VI1\"]}", "videoNo"),
    (b"{\"videoNo\": \"\"}", "videoNo is empty"),
    (b"{\"videoNo\": \" VI1\"}", "videoNo has white space at character 0"),
    (b"{\"videoNo\": \"VI1\\u0007\"}", "videoNo has a control character at character 3"),
    (b"{\"videoNo\": \"VI1\", \"videoNo\": \"VI2\"}", "videoNo"),
    (b"{\"videoNo\": \"VI1\", \"videoNos\": [\"VI2\"]}", "videoNos"),
    (b"{\"videoNos\": []}", "empty"),
    (b"{\"videoNos\": [\"VI1\", 2]}", "videoNos[1]"),
    (b"{\"videoNos\": [\"VI1\", \"VI 2\"]}", "videoNos[1] has white space at character 2"),
    (b"{\"videoNo\": \"VI1\", \"namespace\": 7}", "namespace"),
    (b"{\"videoNo\": \"VI1\", \"requestId\": {}}", "requestId"),
];

#[tokio::test]
async fn garbage_is_dead_lettered_as_it_is_and_the_good_ones_are_deleted() {
    let world = World::new().await;
    let mut worker = world.start().await;
    for (n, (body, _)) in GARBAGE.iter().enumerate() {
        world.publish([body]).await;
        world.publish_ids([format!("VIgood{n}")]).await;
    }
    world.deleted(GARBAGE.len() as u64).await;
    let letters = world.dead_letters(u32::try_from(GARBAGE.len()).expect("few")).await;
    let details: BTreeMap<&[u8], String> =
        letters.iter().map(|letter| (letter.data.as_slice(), text(letter, "x-deletion-detail"))).collect();
    for (body, expected) in GARBAGE {
        let shown = String::from_utf8_lossy(body);
        let detail = details.get(body).unwrap_or_else(|| panic!("no dead letter for {shown}"));
        assert!(detail.contains(expected), "{shown}: {detail}");
    }
    assert!(letters.iter().all(|letter| text(letter, "x-deletion-reason") == "malformed"));
    worker.settled(&world).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_dead_letter_keeps_what_its_message_had() {
    let world = World::new().await;
    let mut worker = world.start().await;
    let mut headers = FieldTable::default();
    headers.insert("tenant".into(), AMQPValue::LongString("acme".into()));
    // It would be routed there too, were it left in its place.
    let copies = FieldArray::from(vec![AMQPValue::LongString("elsewhere".into())]);
    headers.insert("CC".into(), AMQPValue::FieldArray(copies));
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_delivery_mode(1)
        .with_expiration("3600000".into())
        .with_correlation_id("c-1".into())
        .with_message_id("m-1".into())
        .with_timestamp(1_700_000_000);
    world.publish_with(properties, [b"{\"videoNo\": 1}"]).await;
    let letters = world.dead_letters(1).await;
    let letter = &letters[0];
    let properties = &letter.properties;
    assert_eq!(properties.delivery_mode(), &Some(2), "made persistent");
    assert_eq!(properties.expiration(), &None);
    assert_eq!(text(letter, "x-original-expiration"), "3600000");
    assert_eq!(properties.correlation_id().as_ref().map(|id| id.as_str()), Some("c-1"));
    assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("m-1"));
    assert_eq!(properties.timestamp(), &Some(1_700_000_000));
    let headers = properties.headers().as_ref().expect("headers").inner();
    assert!(headers.contains_key("x-original-CC") && !headers.contains_key("CC"), "{headers:?}");
    assert_eq!(text(letter, "tenant"), "acme");
    assert_eq!(text(letter, "x-deletion-exchange"), "deletions");
    assert_eq!(text(letter, "x-deletion-routing-key"), "delete");
    assert_eq!(text(letter, "x-deletion-queue"), "deletions");
    assert!(text(letter, "x-deletion-worker").starts_with("deletion-worker "));
    assert!(matches!(headers.get("x-deletion-at"), Some(AMQPValue::Timestamp(_))), "{headers:?}");
    worker.stop().await;
}

fn text(message: &lapin::message::BasicGetMessage, header: &str) -> String {
    let headers = message.properties.headers().as_ref().expect("a dead letter has headers");
    match headers.inner().get(header) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{header}: {other:?}"),
    }
}
