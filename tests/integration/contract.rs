//! The message contract: what is a deletion request, and what becomes of a message that is none.

use std::io::Write;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable};

use crate::support::amqp;
use crate::support::letter::{body, find, header, names};
use crate::support::world::World;

const EVENT: &str = "application/cloudevents+json";

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fn event(data: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"1","source":"/test","type":"video.delete","data":{data}}}"#)
}

/// What is no request, and the position that the detail must name.
fn garbage() -> Vec<(Vec<u8>, &'static str)> {
    let long = format!(r#"["VI1","{}"]"#, "x".repeat(129));
    let many = serde_json::json!({ "videoNos": (0..10_001).map(|n| n.to_string()).collect::<Vec<_>>() });
    let text: &[(&str, &str)] = &[
        ("", "byte 0"),
        ("   ", "byte 3"),
        ("delete VI1 please", "byte 0"),
        (r#"{"videoNo":"VI1""#, "byte 16"),
        (r#"{"videoNo":"VI1"}{"videoNo":"VI2"}"#, "trailing data at byte 17"),
        ("\u{feff}[\"VI1\"]", "byte order mark, at byte 0"),
        (r#"["VI1",]"#, "byte 7"),
        ("null", "the body is null"),
        ("true", "the body is a boolean"),
        ("17", "the body is a number"),
        (r#""VI1""#, "the body is a string"),
        ("{}", "neither videoNo nor videoNos"),
        ("[]", "the body is an empty list"),
        (r#"{"videoNos":[]}"#, "videoNos is an empty list"),
        (r#"{"videoNo":"VI1","videoNos":["VI2"]}"#, "both videoNo and videoNos"),
        (r#"{"videoNo":"VI1","videoNo":"VI2"}"#, "the member `videoNo` twice"),
        (r#"{"videoNo":7}"#, "videoNo is a number"),
        (r#"{"videoNo":""}"#, "videoNo is empty"),
        (r#"{"videoNo":" VI1"}"#, "videoNo has white space at character 0"),
        (r#"{"videoNo":"VI1\u0007"}"#, "videoNo has a control character at character 3"),
        (r#"{"videoNos":["VI1",null]}"#, "videoNos[1] is null"),
        (r#"["VI1"," VI2"]"#, "[1] has white space at character 0"),
        (r#"["VI1","VI\u00002"]"#, "[1] has a control character at character 2"),
        (r#"{"videoNos":["VI1",["VI2"]]}"#, "videoNos[1] is a list"),
        (r#"{"videoNo":"VI1","namespace":7}"#, "namespace is a number"),
        (r#"{"videoNo":"VI1","requestId":[]}"#, "requestId is a list"),
    ];
    let mut all: Vec<_> = text.iter().map(|(body, place)| (body.as_bytes().to_vec(), *place)).collect();
    all.push((long.into_bytes(), "[1] has 129 characters"));
    all.push((many.to_string().into_bytes(), "videoNos has more than 10000 IDs"));
    all.push((b"[\"VI1\",\"\xff\xfe\"]".to_vec(), "not UTF-8 at byte 8"));
    all.push((b"\x00\x01\x02".to_vec(), "byte 0"));
    all
}

#[tokio::test]
async fn garbage_is_set_aside_and_the_rest_goes_on() {
    let world = World::new().await;
    world.prepare().await;
    let garbage = garbage();
    for (n, (body, _)) in garbage.iter().enumerate() {
        world.publish([format!(r#"{{"videoNo":"VI{n}"}}"#).as_bytes(), body]).await;
    }
    let mut worker = world.start().await;
    let count = u32::try_from(garbage.len()).expect("few");
    world.deleted(count.into()).await;
    let letters = world.dead_letters(count).await;
    worker.settled(&world).await;
    for (body, place) in &garbage {
        let found = letters.iter().find(|letter| letter.data == *body);
        let letter =
            found.unwrap_or_else(|| panic!("no dead letter for {:?}", String::from_utf8_lossy(body)));
        assert_eq!(header(letter, "x-deletion-reason"), "malformed");
        let detail = header(letter, "x-deletion-detail");
        assert!(detail.contains(place), "{detail:?} does not name {place:?}");
        assert!(detail.len() <= 1024, "{detail}");
        assert_eq!(header(letter, "x-deletion-attempts"), "0");
        assert_eq!(header(letter, "x-deletion-failed-count"), "0");
        assert_eq!(header(letter, "x-deletion-queue"), "deletions");
        assert_eq!(find(letter, "x-deletion-code"), None);
        assert_eq!(find(letter, "x-deletion-http-status"), None);
    }
    assert_eq!(worker.metric("dead_letters_total", &[("reason", "malformed")]).await, f64::from(count));
    assert_eq!(worker.status().await.expect("it runs").totals.messages_malformed, u64::from(count));
    worker.stop().await;
    world.ready(0).await;
}

#[tokio::test]
async fn what_the_properties_make_of_a_body_is_judged_too() {
    let world = World::new().await;
    let mut worker = world.start().await;
    let good = br#"["VI1"]"#.to_vec();
    let (plain, event_type) = (amqp::persistent(), amqp::persistent().with_content_type(EVENT.into()));
    let zipped = plain.clone().with_content_encoding("gzip".into());
    let mut broken = gzip(&good);
    broken.truncate(broken.len() - 9);
    let bomb = gzip(&vec![b' '; 17 * 1024 * 1024]);
    for (properties, body, place) in [
        (plain.with_content_encoding("br".into()), good.clone(), "the content encoding is `br`"),
        (zipped.clone(), good.clone(), "not gzip at byte 7"),
        (zipped.clone(), broken, "at byte"),
        (zipped.clone(), bomb, "more than 16777216 bytes"),
        (zipped, gzip(br#"{"videoNos":["VI1",2]}"#), "videoNos[1] is a number"),
        (event_type.clone(), good, "the body is a list, expected an event"),
        (
            event_type.clone(),
            event(r#"{"videoNos":["VI1","a b"]}"#).into(),
            "data.videoNos[1] has white space",
        ),
        (event_type, br#"{"specversion":"1.0","id":"1","data":["VI1"]}"#.to_vec(), "no source"),
    ] {
        world.publish_with(properties.clone(), [&body]).await;
        let letters = world.dead_letters(1).await;
        assert!(letters[0].data == body, "{place}: byte for byte");
        assert_eq!(header(&letters[0], "x-deletion-reason"), "malformed");
        let detail = header(&letters[0], "x-deletion-detail");
        assert!(detail.contains(place), "{detail:?} does not name {place:?}");
        assert_eq!(letters[0].properties.content_encoding(), properties.content_encoding());
        assert_eq!(letters[0].properties.content_type(), properties.content_type());
    }
    assert_eq!(world.mock.stats().sizes.count, 0);
    worker.stop().await;
}

#[tokio::test]
async fn every_shape_of_a_request_is_understood() {
    let world = World::new().await;
    let mut worker = world.start().await;
    let with = |content_type: &str, encoding: &str| {
        amqp::persistent().with_content_type(content_type.into()).with_content_encoding(encoding.into())
    };
    let json = "application/json";
    world.publish([r#"{"videoNo":"VI1"}"#, r#"{"videoNos":["VI2","VI3","VI2"]}"#, r#" ["VI4"] "#]).await;
    let full = r#"{"videoNo":"VI5","namespace":"n","requestId":"r","requestedBy":"b","reason":"x","more":{"a":[1]}}"#;
    world.publish([full]).await;
    world.publish_with(with(EVENT, ""), [event(r#"{"videoNo":"VI6"}"#), event(r#"["VI7","VI8"]"#)]).await;
    world.publish_with(with("application/cloudevents+json; charset=utf-8", ""), [event(r#"["VI9"]"#)]).await;
    world.publish_with(with(json, "gzip"), [gzip(br#"["VI10"]"#)]).await;
    world.publish_with(with(EVENT, "GZIP"), [gzip(event(r#"{"videoNos":["VI11"]}"#).as_bytes())]).await;
    world.publish_with(with("text/plain", "identity"), [r#"["VI12"]"#]).await;
    // No properties at all, and the largest that is allowed.
    world.publish_with(BasicProperties::default(), [r#"["VI13"]"#]).await;
    let many: Vec<String> = (14..10_014).map(|n| format!("VI{n}")).collect();
    world.publish([serde_json::json!(many).to_string()]).await;
    world.deleted(10_013).await;
    worker.settled(&world).await;
    world.all_deleted(&(1..10_014).map(|n| format!("VI{n}")).collect::<Vec<_>>());
    worker.stop().await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn a_dead_letter_keeps_what_came_with_the_message() {
    let world = World::new().await;
    let mut worker = world.start().await;
    let mut headers = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    let list = |items: &[&str]| {
        AMQPValue::FieldArray(FieldArray::from(items.iter().map(|i| text(i)).collect::<Vec<_>>()))
    };
    headers.insert("traceparent".into(), text("00-abc-def-01"));
    headers.insert("nested".into(), list(&["a", "b"]));
    headers.insert("CC".into(), list(&["nowhere"]));
    headers.insert("x-deletion-reason".into(), text("somebody else's"));
    let user = url::Url::parse(&world.vhost.url).expect("a URL").username().to_owned();
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_delivery_mode(1)
        .with_content_type("application/x-own".into())
        .with_priority(3)
        .with_correlation_id("correlation".into())
        .with_reply_to("replies".into())
        .with_message_id("message".into())
        .with_timestamp(1_700_000_000)
        .with_type("kind".into())
        .with_app_id("app".into())
        .with_expiration("3600000".into())
        .with_user_id(user.as_str().into());
    world.publish_with(properties, ["no request"]).await;
    let letters = world.dead_letters(1).await;
    worker.settled(&world).await;
    let letter = &letters[0];
    assert_eq!(body(letter), "no request");
    assert_eq!(header(letter, "x-deletion-reason"), "malformed");
    assert_eq!(header(letter, "traceparent"), "00-abc-def-01");
    assert_eq!(header(letter, "nested"), "a,b");
    assert_eq!(header(letter, "x-original-expiration"), "3600000");
    assert_eq!(header(letter, "x-original-user_id"), user);
    assert_eq!(header(letter, "x-original-CC"), "nowhere");
    assert!(!names(letter).contains(&"CC".to_owned()));
    let kept = &letter.properties;
    assert_eq!(*kept.delivery_mode(), Some(2));
    assert_eq!(*kept.expiration(), None);
    assert_eq!(*kept.user_id(), None);
    assert_eq!(kept.content_type().as_ref().map(|s| s.as_str()), Some("application/x-own"));
    assert_eq!(*kept.priority(), Some(3));
    assert_eq!(kept.correlation_id().as_ref().map(|s| s.as_str()), Some("correlation"));
    assert_eq!(kept.reply_to().as_ref().map(|s| s.as_str()), Some("replies"));
    assert_eq!(kept.message_id().as_ref().map(|s| s.as_str()), Some("message"));
    assert_eq!(*kept.timestamp(), Some(1_700_000_000));
    assert_eq!(kept.kind().as_ref().map(|s| s.as_str()), Some("kind"));
    assert_eq!(kept.app_id().as_ref().map(|s| s.as_str()), Some("app"));
    assert_eq!(letter.exchange.as_str(), "deletions.dlx");
    assert_eq!(letter.routing_key.as_str(), "delete");
    worker.stop().await;
}
