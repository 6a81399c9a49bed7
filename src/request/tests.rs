use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const IDS_MAX: usize = 5;
const EVENT: Option<&str> = Some("application/cloudevents+json");

fn plain(body: impl AsRef<[u8]>) -> Result<Request, Malformed> {
    parse(body.as_ref(), None, None, IDS_MAX)
}

fn event(body: &str) -> Result<Request, Malformed> {
    parse(body.as_bytes(), EVENT, None, IDS_MAX)
}

fn ids(request: &Request) -> Vec<&str> {
    request.ids.iter().map(Id::as_str).collect()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// Bodies whose verdict a schema can tell too; the sentence is `None` for a request.
fn plain_cases() -> Vec<(String, Option<&'static str>)> {
    let long = "x".repeat(129);
    [
        (r#"{"videoNo":"VI1"}"#, None),
        (" \r\n\t{ \"videoNo\" : \"VI1\" } \n", None),
        (r#"{"videoNos":["VI1","VI2","VI1"]}"#, None),
        (r#"["VI1","VI2"]"#, None),
        (r#"{"videoNo":"\u0056I\ud83c\udfac"}"#, None),
        (r#"{"video\u004eo":"VI1"}"#, None),
        (r#"{"videoNo":"VI1","namespace":"a","requestId":"b","requestedBy":"c","reason":""}"#, None),
        (r#"{"videoNo":"VI1","namespace":null,"requestId":null,"requestedBy":null,"reason":null}"#, None),
        (r#"{"videoNo":"VI1","extra":{"videoNo":[1,{"videoNo":2}]},"more":1e999}"#, None),
        ("null", Some("the body is null, expected an object or a list")),
        ("true", Some("the body is a boolean, expected an object or a list")),
        ("-1", Some("the body is a number, expected an object or a list")),
        ("1.5", Some("the body is a number, expected an object or a list")),
        (r#""VI1""#, Some("the body is a string, expected an object or a list")),
        ("{}", Some("the body has neither videoNo nor videoNos")),
        (r#"{"videono":"VI1"}"#, Some("the body has neither videoNo nor videoNos")),
        (r#"{"videoNo":"VI1","videoNos":["VI2"]}"#, Some("the body has both videoNo and videoNos")),
        ("[]", Some("the body is an empty list")),
        (r#"{"videoNos":[]}"#, Some("videoNos is an empty list")),
        (r#"{"videoNo":1}"#, Some("videoNo is a number, expected a string")),
        (r#"{"videoNo":null}"#, Some("videoNo is null, expected a string")),
        (r#"{"videoNo":["VI1"]}"#, Some("videoNo is a list, expected a string")),
        (r#"{"videoNo":{"a":1}}"#, Some("videoNo is an object, expected a string")),
        (r#"{"videoNo":""}"#, Some("videoNo is empty")),
        (r#"{"videoNos":"VI1"}"#, Some("videoNos is a string, expected a list")),
        (r#"{"videoNos":null}"#, Some("videoNos is null, expected a list")),
        (r#"{"videoNos":["VI1",null]}"#, Some("videoNos[1] is null, expected a string")),
        (r#"{"videoNos":["a","b","c"," d"]}"#, Some("videoNos[3] has white space at character 0")),
        (r#"{"videoNos":["a","ä\u00a0"]}"#, Some("videoNos[1] has white space at character 1")),
        (r#"{"videoNos":["a\u0085"]}"#, Some("videoNos[0] has white space at character 1")),
        (r#"["VI1","VI\u00002"]"#, Some("[1] has a control character at character 2")),
        (r#"["VI1",["VI2"]]"#, Some("[1] is a list, expected a string")),
        (r#"{"videoNo":"VI1","namespace":""}"#, Some("namespace is empty")),
        (r#"{"videoNo":"VI1","namespace":"a b"}"#, Some("namespace has white space at character 1")),
        (r#"{"videoNo":"VI1","namespace":7}"#, Some("namespace is a number, expected a string or null")),
        (r#"{"videoNo":"VI1","requestId":7}"#, Some("requestId is a number, expected a string or null")),
        (r#"{"videoNo":"VI1","requestedBy":[]}"#, Some("requestedBy is a list, expected a string or null")),
        (r#"{"videoNo":"VI1","reason":false}"#, Some("reason is a boolean, expected a string or null")),
    ]
    .into_iter()
    .map(|(body, sentence)| (body.to_owned(), sentence))
    .chain([
        (format!(r#"["{}"]"#, "ä".repeat(128)), None),
        (format!(r#"["{long}"]"#), Some("[0] has 129 characters, more than 128")),
        (crowd(1000), None),
        (crowd(1001), Some("the body has more than 1000 members")),
    ])
    .collect()
}

/// A request with so many members.
fn crowd(members: usize) -> String {
    let others: String = (1..members).map(|n| format!(r#""{n}":0,"#)).collect();
    format!(r#"{{{others}"videoNo":"VI1"}}"#)
}

fn event_cases() -> Vec<(String, Option<&'static str>)> {
    let with =
        |members: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"t"{members}}}"#);
    vec![
        (with(r#","data":{"videoNo":"VI1"}"#), None),
        (
            with(r#","data":{"videoNos":["VI1"],"namespace":"n"},"time":"now","datacontenttype":"x"#) + "\"}",
            None,
        ),
        (with(r#","data":["VI1"],"videoNo":7"#), None),
        (with(""), Some("the event has no data")),
        (with(r#","data":null"#), Some("data is null, expected an object or a list")),
        (with(r#","data":"VI1""#), Some("data is a string, expected an object or a list")),
        (with(r#","data":[]"#), Some("data is an empty list")),
        (with(r#","data":["VI1",2]"#), Some("data[1] is a number, expected a string")),
        (with(&format!(r#","data":{}"#, crowd(1001))), Some("data has more than 1000 members")),
        (with(r#","data":{}"#), Some("data has neither videoNo nor videoNos")),
        (with(r#","data":{"videoNos":["a b"]}"#), Some("data.videoNos[0] has white space at character 1")),
        (with(r#","data_base64":"e30=""#), Some("data_base64 is not supported, expected data")),
        ("[]".to_owned(), Some("the body is a list, expected an event (an object)")),
        (r#"{"videoNo":"VI1"}"#.to_owned(), Some("the event has no specversion")),
        (
            r#"{"specversion":"1.0","source":"a","type":"t","data":["a"]}"#.to_owned(),
            Some("the event has no id"),
        ),
        (
            r#"{"specversion":"0.3","id":"1","source":"a","type":"t","data":["a"]}"#.to_owned(),
            Some("specversion is another string, expected the string 1.0"),
        ),
        (
            r#"{"specversion":1.0,"id":"1","source":"a","type":"t","data":["a"]}"#.to_owned(),
            Some("specversion is a number, expected the string 1.0"),
        ),
        (
            r#"{"specversion":"1.0","id":"","source":"a","type":"t","data":["a"]}"#.to_owned(),
            Some("id is empty, expected a string that is not empty"),
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":null,"type":"t","data":["a"]}"#.to_owned(),
            Some("source is null, expected a string that is not empty"),
        ),
    ]
}

#[track_caller]
fn check(body: &str, read: Result<Request, Malformed>, sentence: Option<&str>) {
    assert_eq!(read.as_ref().err().map(|fault| fault.0.as_str()), sentence, "{body}");
}

#[test]
fn every_shape_is_read_and_every_fault_named() {
    for (body, sentence) in plain_cases() {
        check(&body, plain(&body), sentence);
    }
    for (body, sentence) in event_cases() {
        check(&body, event(&body), sentence);
    }
}

#[test]
fn faults_below_the_json_value_are_named_by_byte() {
    let cases: [(&[u8], &str); 16] = [
        (b"", "the body is empty, at byte 0"),
        (b"  ", "the body ends within the JSON value, at byte 2"),
        (b"{\"videoNo\":\"VI1\"", "the body ends within the JSON value, at byte 16"),
        (b"{\"videoNo\":\"VI", "the body ends within the JSON value, at byte 14"),
        (b"\xef\xbb\xbf[\"VI1\"]", "the body starts with a byte order mark, at byte 0"),
        (b"\xff\xfe[\0", "the body is not UTF-8 at byte 0"),
        (b"[\"VI1\",\"\xed\xa0\x80\"]", "the body is not UTF-8 at byte 8"),
        (b"{\"videoNo\":\"VI1\",\"x\":\"\xc3\"}", "the body is not UTF-8 at byte 22"),
        (b"VI1", "the body is not JSON at byte 0: expected value"),
        (b"[\"VI1\",]", "the body is not JSON at byte 7: trailing comma"),
        (b"[\"VI1\"\n,\n!]", "the body is not JSON at byte 9: expected value"),
        (b"['VI1']", "the body is not JSON at byte 1: expected value"),
        (b"{\"videoNo\":\"VI1\"}{}", "the body has trailing data at byte 17"),
        (b"[\"VI1\"]\n\n x", "the body has trailing data at byte 10"),
        (b"[\"VI1\"]\0", "the body has trailing data at byte 7"),
        (
            b"[\"VI\n1\"]",
            "the body is not JSON at byte 4: control character (\\u0000-\\u001F) found while parsing a string",
        ),
    ];
    for (body, sentence) in cases {
        check(&String::from_utf8_lossy(body), plain(body), Some(sentence));
    }
}

#[test]
fn surrogates_must_come_in_pairs() {
    for body in [r#"["\ud800"]"#, r#"["\udc00"]"#, r#"["\ud800\ud800"]"#, r#"{"\ud800":1,"videoNo":"VI1"}"#] {
        let fault = plain(body).expect_err(body);
        assert!(fault.0.starts_with("the body is not JSON at byte "), "{body}: {fault}");
    }
}

#[test]
fn a_member_may_appear_once() {
    let twice = "the body has the member `videoNo` twice";
    check("", plain(r#"{"videoNo":"VI1","videoNo":"VI1"}"#), Some(twice));
    check("", plain(r#"{"videoNo":"VI1","video\u004eo":"VI1"}"#), Some(twice));
    let unknown = r#"{"a\n":1,"b":2,"videoNo":"VI1","a\u000a":3}"#;
    check("", plain(unknown), Some(r"the body has the member `a\n` twice"));
    let body = r#"{"specversion":"1.0","id":"1","source":"a","type":"t","data":["a"],"data":["b"]}"#;
    check("", event(body), Some("the body has the member `data` twice"));
    let body = r#"{"specversion":"1.0","id":"1","source":"a","type":"t","data":{"videoNo":"a","x":1,"x":2}}"#;
    check("", event(body), Some("data has the member `x` twice"));
}

#[test]
fn a_message_holds_ids_up_to_the_bound() {
    assert_eq!(plain(r#"["1","2","3","4","5"]"#).expect("at the bound").ids.len(), IDS_MAX);
    let sentence = "videoNos has more than 5 IDs";
    check("", plain(r#"{"videoNos":["1","2","3","4","5","6"]}"#), Some(sentence));
}

#[test]
fn what_the_message_says_is_carried_along() {
    let body = r#"{"reason":"gone","videoNos":["VI2","VI1","VI2"],"namespace":"n","requestId":"r","requestedBy":"b"}"#;
    let request = plain(body).expect("a request");
    assert_eq!(ids(&request), ["VI2", "VI1", "VI2"]);
    assert_eq!(request.namespace.as_ref().map(Namespace::as_str), Some("n"));
    let origin =
        Origin { request_id: Some("r".into()), requested_by: Some("b".into()), reason: Some("gone".into()) };
    assert_eq!(request.origin.as_deref(), Some(&origin));
    assert_eq!(plain(r#"{"videoNo":"VI1","reason":null}"#).expect("a request").origin, None);
}

#[test]
fn a_long_reason_is_cut() {
    let body = format!(r#"{{"videoNo":"VI1","reason":"{}"}}"#, "ä".repeat(1000));
    let origin = plain(body).expect("a request").origin.expect("a reason");
    assert_eq!(origin.reason.expect("a reason"), "ä".repeat(128));
}

#[test]
fn a_structured_event_is_told_by_its_media_type() {
    let body = br#"{"specversion":"1.0","id":"1","source":"a","type":"t","data":["VI1"]}"#;
    for content_type in [
        "application/cloudevents+json",
        "Application/CloudEvents+JSON; charset=utf-8",
        " application/cloudevents+json ;charset=UTF-8",
    ] {
        assert!(parse(body, Some(content_type), None, IDS_MAX).is_ok(), "{content_type}");
    }
    for content_type in [None, Some("application/json"), Some("application/cloudevents-batch+json"), Some("")]
    {
        let hint = "the body has neither videoNo nor videoNos; an event needs the content type \
                    application/cloudevents+json";
        check("", parse(body, content_type, None, IDS_MAX), Some(hint));
    }
}

#[test]
fn deep_nesting_is_only_a_fault_where_it_matters() {
    let deep = |bracket: &str| bracket.repeat(200_000);
    check("", plain(deep("[")), Some("[0] is a list, expected a string"));
    check("", plain(deep(r#"{"videoNo":"#)), Some("videoNo is an object, expected a string"));
    let body = format!(r#"{{"x":{}{},"videoNo":"VI1"}}"#, deep("["), deep("]"));
    assert_eq!(ids(&plain(body).expect("a request")), ["VI1"]);
    let body = format!(r#"{{"x":{},"videoNo":"VI1"}}"#, deep("["));
    assert!(plain(body).is_err());
}

#[test]
fn encodings_other_than_gzip_are_refused() {
    let body = br#"["VI1"]"#;
    for encoding in [None, Some(""), Some("identity"), Some("Identity")] {
        assert!(parse(body, None, encoding, IDS_MAX).is_ok(), "{encoding:?}");
    }
    let sentence = "the content encoding is `br\\n`, expected none, identity or gzip";
    check("", parse(body, None, Some("br\n"), IDS_MAX), Some(sentence));
}

#[test]
fn gzip_is_unpacked_whole_or_refused() {
    let packed = |body: &[u8]| parse(body, EVENT, Some("GZIP"), IDS_MAX);
    let whole = gzip(br#"{"specversion":"1.0","id":"1","source":"a","type":"t","data":["VI1"]}"#);
    assert_eq!(ids(&packed(&whole).expect("a request")), ["VI1"]);

    for end in 0..whole.len() {
        let fault = packed(&whole[..end]).expect_err("a truncated body");
        assert!(fault.0.contains("at byte"), "{end}: {fault}");
    }
    for position in 0..whole.len() {
        let mut corrupt = whole.clone();
        corrupt[position] ^= 0x10;
        // Not everything in the header is checked (time, operating system); what matters is never read wrong.
        if let Ok(request) = packed(&corrupt) {
            assert_eq!(ids(&request), ["VI1"]);
        }
    }
    for garbage in [&b"\0"[..], b"garbage", b"\x1f", b"\x1f\x8b\x08"] {
        let fault = packed(&[&whole, garbage].concat()).expect_err("trailing garbage");
        assert!(fault.0.starts_with("the body is not gzip at byte "), "{fault}");
    }
    check(
        "",
        packed(br#"{"videoNo":"VI1"}"#),
        Some("the body is not gzip at byte 10 (before decompression): invalid gzip header"),
    );
    check("", packed(&gzip(b"")), Some("the body is empty, at byte 0"));
}

#[test]
fn a_gzip_bomb_is_refused_without_being_unpacked_whole() {
    let bomb = gzip(&vec![b' '; 64 * 1024 * 1024]);
    let sentence = "the body decompresses to more than 16777216 bytes";
    check("", parse(&bomb, None, Some("gzip"), IDS_MAX), Some(sentence));
}

#[test]
fn documented_requests_need_no_heap() {
    let request = plain(br#"{"videoNo":"VI625239098370850816"}"#).expect("a request");
    assert!(!request.ids.spilled());
}

fn schema(definition: &str) -> jsonschema::Validator {
    let mut schema: Value =
        serde_json::from_str(include_str!("../../docs/message.schema.json")).expect("the schema is JSON");
    if !definition.is_empty() {
        schema["anyOf"] = serde_json::json!([{ "$ref": format!("#/$defs/{definition}") }]);
    }
    jsonschema::meta::validate(&schema).expect("the schema is one");
    jsonschema::validator_for(&schema).expect("the schema compiles")
}

#[test]
fn schema_and_parser_agree() {
    for (definition, cases) in [("request", plain_cases()), ("event", event_cases())] {
        let schema = schema(definition);
        for (body, sentence) in cases {
            // Numbers beyond a double are JSON all the same, but not to this reader.
            let Ok(value) = serde_json::from_str::<Value>(&body.replace("1e999", "1e99")) else {
                panic!("not JSON: {body}");
            };
            assert_eq!(schema.is_valid(&value), sentence.is_none(), "{body}");
        }
    }
}

#[test]
fn the_schemas_examples_are_requests() {
    let (whole, event) = (schema(""), schema("event"));
    let text: Value = serde_json::from_str(include_str!("../../docs/message.schema.json")).expect("JSON");
    let examples = text["examples"].as_array().expect("examples");
    assert_eq!(examples.len(), 5, "one for each shape, and one with every member");
    for example in examples {
        assert!(whole.is_valid(example), "{example}");
        let content_type = event.is_valid(example).then_some("application/cloudevents+json");
        parse(example.to_string().as_bytes(), content_type, None, IDS_MAX).expect("an example is a request");
    }
}

/// Text that gets past the first checks more often than noise does.
fn json_like() -> impl Strategy<Value = String> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\ud800",
        "\\u0041",
        "null",
        "1e9",
        "-",
        " ",
        "\n",
        "ä",
        "\u{0}",
        "\"videoNo\":",
        "\"videoNos\":[",
        "\"VI1\"",
        "\"namespace\":",
        "\"data\":",
        "\"specversion\":\"1.0\",",
        "\"id\":\"1\",",
        "\"source\":\"a\",",
        "\"type\":\"t\",",
        " at line 9 column 9",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..24)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_panic(
        body in proptest::collection::vec(any::<u8>(), 0..64),
        is_event: bool,
        is_gzip: bool,
    ) {
        let _ = parse(&body, is_event.then_some("application/cloudevents+json"), is_gzip.then_some("gzip"), 3);
    }

    #[test]
    fn sentences_are_short_and_printable(body in json_like(), is_event: bool) {
        let content_type = is_event.then_some("application/cloudevents+json");
        if let Err(Malformed(sentence)) = parse(body.as_bytes(), content_type, None, 3) {
            prop_assert!(sentence.len() < 512 && !sentence.chars().any(char::is_control), "{sentence:?}");
        }
    }

    #[test]
    fn what_is_sent_is_what_is_read(sent in proptest::collection::vec("[!-~ä-ÿ]{1,128}", 1..5)) {
        let body = serde_json::json!({ "videoNos": sent }).to_string();
        let request = plain(&body).expect("a request");
        prop_assert_eq!(ids(&request), sent);
        for (end, _) in body.char_indices() {
            prop_assert!(plain(&body[..end]).is_err());
        }
    }
}
