use super::*;

use Outcome::{Blocked, Deleted, Rejected, Throttled, Transient};

const INVALID: Outcome = Rejected(Rejection::Invalid);
const DUPLICATE: Outcome = Rejected(Rejection::Duplicate);
const TOO_LARGE: Outcome = Rejected(Rejection::TooLarge);

fn classified(status: u16, body: &str) -> Answer {
    classify(status, Body::Whole(body.as_bytes()), None, &["0000".to_owned()], None)
}

#[track_caller]
fn check(status: u16, body: &str, outcome: Outcome) {
    let answer = classified(status, body);
    assert_eq!(answer.outcome, outcome, "HTTP {status} {body}");
    assert_eq!(answer.http_status, Some(status));
    assert!(answer.detail.len() <= Answer::DETAIL_BYTES_MAX, "{}", answer.detail);
}

/// Both spellings of the documented reply.
fn replies(code: &str) -> Vec<String> {
    let string = format!(r#"{{"code":"{code}","msg":"why","data":null,"success":false}}"#);
    let integer = format!(r#" {{"msg":"why","code":{code}}} "#);
    // A leading zero is a string's privilege.
    if code.starts_with('0') { vec![string] } else { vec![string, integer] }
}

#[test]
fn codes_with_http_2xx_decide() {
    let rows = [
        ("0000", Deleted),
        ("0001", INVALID),
        ("0003", INVALID),
        ("0409", DUPLICATE),
        ("0429", Throttled),
        ("0401", Blocked),
        ("9009", Blocked),
        ("0402", Blocked),
        ("0403", Blocked),
        ("200", Transient), // Not configured as success.
        ("400", INVALID),
        ("401", Blocked),
        ("402", Blocked),
        ("403", Blocked),
        ("405", Blocked),
        ("409", INVALID),
        ("415", Blocked),
        ("429", Throttled),
        ("500", Transient),
        ("1234", Transient),
        ("-1", Transient),
    ];
    for (code, outcome) in rows {
        for status in [200, 201, 202, 299] {
            for reply in replies(code) {
                check(status, &reply, outcome);
            }
        }
        assert_eq!(classified(200, &replies(code)[0]).code.as_deref(), Some(code));
    }
    for known in KNOWN_CODES {
        assert!(rows.iter().any(|(code, _)| *code == known), "{known} has no row");
    }
}

#[test]
fn success_codes_are_compared_as_text() {
    let codes = ["0000".to_owned(), "200".to_owned()];
    for body in [r#"{"code":200}"#, r#"{"code":"200"}"#, r#"{"code":"0000"}"#] {
        assert_eq!(
            classify(200, Body::Whole(body.as_bytes()), None, &codes, None).outcome,
            Deleted,
            "{body}"
        );
    }
    for body in [r#"{"code":0}"#, r#"{"code":"0"}"#, r#"{"code":"0000 "}"#, r#"{"code":""}"#] {
        assert_eq!(
            classify(200, Body::Whole(body.as_bytes()), None, &codes, None).outcome,
            Transient,
            "{body}"
        );
    }
}

#[test]
fn http_2xx_without_the_documented_json_is_blocked() {
    let nested = "[".repeat(30_000);
    let bodies = [
        "",
        " ",
        "<html><body>Please log in</body></html>",
        "OK",
        "null",
        r#""0000""#,
        "0",
        "[]",
        r#"["0000"]"#,
        r#"[{"code":"0000"}]"#,
        "{}",
        r#"{"msg":"success","success":true}"#,
        r#"{"Code":"0000"}"#,
        r#"{"code":null}"#,
        r#"{"code":true}"#,
        r#"{"code":200.0}"#,
        r#"{"code":1e3}"#,
        r#"{"code":["0000"]}"#,
        r#"{"code":{"code":"0000"}}"#,
        r#"{"code":"0000""#,
        r#"{"code":"0000"}{}"#,
        r#"{"code":"0401","code":"0000"}"#,
        r#"{"data":{"code":"0000"}}"#,
        "\u{feff}{\"code\":\"0000\"}",
        nested.as_str(),
    ];
    for body in bodies {
        check(200, body, Blocked);
        assert_eq!(classified(200, body).code, None, "{body}");
    }
    assert_eq!(classify(200, Body::Whole(b"\xff{}"), None, &[], None).outcome, Blocked);
    assert_eq!(classify(200, Body::TooLong, None, &[], None).outcome, Blocked);
    assert_eq!(classify(200, Body::Broken("reset"), None, &[], None).outcome, Transient);
}

#[test]
fn deep_nesting_beside_the_code_does_no_harm() {
    let body = format!(r#"{{"data":{}{},"code":"0000"}}"#, "[".repeat(30_000), "]".repeat(30_000));
    check(200, &body, Deleted);
}

#[test]
fn every_other_status_has_a_class() {
    for status in 100..=999_u16 {
        let outcome = match status {
            200..=299 => continue,
            408 | 425 | 500..=599 => Transient,
            429 => Throttled,
            400 | 409 | 422 => INVALID,
            413 => TOO_LARGE,
            _ => Blocked,
        };
        // No code, an unknown one, and a success code, which counts for nothing here.
        for body in ["", "<html>", "[]", r#"{"code":"1234"}"#, r#"{"code":"0000"}"#] {
            check(status, body, outcome);
        }
        assert_eq!(classify(status, Body::TooLong, None, &[], None).outcome, outcome);
    }
}

#[test]
fn of_status_and_code_the_milder_wins() {
    let rows = [
        (400, "0001", INVALID),
        (400, "0409", DUPLICATE),
        (409, "0409", DUPLICATE),
        (422, "0409", DUPLICATE),
        (409, "409", INVALID),
        (400, "0429", Throttled),
        (400, "0401", Blocked),
        (400, "500", Transient),
        (413, "0001", TOO_LARGE),
        (413, "0409", TOO_LARGE),
        (413, "0402", Blocked),
        (401, "0429", Throttled),
        (401, "0001", Blocked),
        (404, "0409", Blocked),
        (404, "500", Blocked),
        (302, "0001", Blocked),
        (429, "0401", Throttled),
        (429, "0001", Throttled),
        (503, "0001", Transient),
        (500, "0409", Transient),
        (503, "0403", Blocked),
        (503, "0429", Throttled),
    ];
    for (status, code, outcome) in rows {
        for reply in replies(code) {
            check(status, &reply, outcome);
        }
    }
}

#[test]
fn what_a_broken_body_would_have_said_is_not_held_against_the_messages() {
    let rows = [
        (400, Transient),
        (413, Transient),
        (503, Transient),
        (401, Blocked),
        (404, Blocked),
        (429, Throttled),
    ];
    for (status, outcome) in rows {
        assert_eq!(
            classify(status, Body::Broken("reset"), None, &[], None).outcome,
            outcome,
            "HTTP {status}"
        );
    }
}

#[test]
fn retry_after_means_throttled_on_all_but_success() {
    let wait = Some(Duration::from_secs(7));
    let codes = ["0000".to_owned()];
    for (status, body) in [
        (200, r#"{"code":"0001"}"#),
        (200, r#"{"code":"0401"}"#),
        (200, ""),
        (302, ""),
        (401, ""),
        (413, ""),
        (503, ""),
    ] {
        let answer = classify(status, Body::Whole(body.as_bytes()), wait, &codes, None);
        assert_eq!((answer.outcome, answer.retry_after), (Throttled, wait), "HTTP {status} {body}");
        assert!(answer.detail.contains("Retry-After: 7 s"), "{}", answer.detail);
    }
    let answer = classify(200, Body::Whole(br#"{"code":"0000"}"#), wait, &codes, None);
    assert_eq!((answer.outcome, answer.retry_after), (Deleted, wait));
}

#[test]
fn details_say_what_happened() {
    let rows = [
        (200, r#"{"code":"0001","msg":"bad\nid"}"#, r"answered code `0001` with HTTP 200: `bad\nid`"),
        (200, r#"{"code":"0000","msg":"success"}"#, "answered code `0000` with HTTP 200"),
        (200, r#"{"code":9,"msg":7}"#, "answered code `9` with HTTP 200"),
        (503, "", "answered HTTP 503 with an empty body"),
        (404, "<p>", "answered HTTP 404 with a body that is not the documented JSON: `<p>`"),
    ];
    for (status, body, detail) in rows {
        assert_eq!(classified(status, body).detail, detail);
    }
    let long = format!(r#"{{"code":"{0}","msg":"{0}"}}"#, "\u{202e}".repeat(5000));
    let answer = classify(200, Body::Whole(long.as_bytes()), Some(Duration::MAX), &[], None);
    assert!(answer.detail.len() <= Answer::DETAIL_BYTES_MAX, "{}", answer.detail.len());
    assert!(answer.detail.ends_with("(Retry-After: 18446744073709551615 s)"), "{}", answer.detail);
    assert!(answer.code.expect("a code").len() <= 64);
    assert!(Answer::lost(&"ä".repeat(500)).detail.len() <= Answer::DETAIL_BYTES_MAX);
}

#[test]
fn nothing_that_is_quoted_can_break_a_line() {
    let body = r#"{"code":"a\nb\u001b[2J\u009b\u2028\u202e","msg":"c\nd"}"#;
    let answer = classify(400, Body::Whole(body.as_bytes()), None, &[], None);
    assert_eq!(answer.code.as_deref(), Some(r"a\nb\u{1b}[2J\u{9b}\u{2028}\u{202e}"));
    assert!(answer.detail.ends_with(r": `c\nd`"), "{}", answer.detail);
    let broken = classify(200, Body::Broken("reset\n\u{9b}"), None, &[], None);
    let lost = Answer::lost("reset\n\u{9b}");
    for Answer { detail, .. } in [answer, broken, lost] {
        assert!(!detail.contains(crate::text::is_harmful), "{detail:?}");
    }
    // A code is compared as it was sent, whole.
    let long = format!(r#"{{"code":"{}"}}"#, "a".repeat(65));
    let cut = ["a".repeat(64)];
    assert_eq!(classify(200, Body::Whole(long.as_bytes()), None, &cut, None).outcome, Transient);
}

#[test]
fn label_values_are_bounded() {
    assert_eq!(code_label(&classified(200, r#"{"code":"0429"}"#)), "0429");
    assert_eq!(code_label(&classified(200, r#"{"code":429}"#)), "429");
    assert_eq!(code_label(&classified(200, r#"{"code":"0430"}"#)), "other");
    assert_eq!(code_label(&classified(200, "")), "none");
    assert_eq!(code_label(&Answer::lost("timed out")), "none");
}
