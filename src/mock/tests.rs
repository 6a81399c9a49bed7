use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::answer::{Answer, Outcome, Rejection};
use crate::config::{Api, Endpoint, Secret, SecretSource};
use crate::endpoint::{Client, Token};
use crate::id::{Id, Namespace};
use ledger::Fate;

const TOKEN: &str = "mai-token";
const DEADLINE: Duration = Duration::from_secs(30);
const V1_0: &str = "/api/serve/video/delete";
const V1_2: &str = "/serve/api/v1/delete_videos";

async fn start(faults: Faults) -> MockHandle {
    let settings = Settings { token: Some(TOKEN.to_owned()), faults, ..Settings::default() };
    Mock::start("127.0.0.1:0".parse().expect("an address"), settings).await.expect("a mock")
}

fn client(mock: &MockHandle, api: Api, timeout: Duration) -> Client {
    let path = match api {
        Api::V1_0 => V1_0,
        Api::V1_2 => V1_2,
    };
    let endpoint = Endpoint {
        api,
        url: format!("http://{}{path}", mock.addr).parse().expect("a URL"),
        token: Some(SecretSource::Value(Secret::new(TOKEN))),
        namespace: None,
        timeout,
        connect_timeout: timeout,
        max_concurrency: 4,
        requests_per_second: None,
        success_codes: vec!["0000".to_owned()],
    };
    Client::new(&endpoint, Token::open(endpoint.token.as_ref().expect("one is set")).expect("a token"))
        .expect("a client")
}

fn ids(ids: &[&str]) -> Vec<Id> {
    ids.iter().map(|id| Id::new(id).expect("an ID")).collect()
}

async fn call(mock: &MockHandle, call: &[&str]) -> Answer {
    client(mock, Api::V1_0, DEADLINE).call(None, &ids(call)).await
}

/// A request by hand: its status and body.
async fn raw(
    mock: &MockHandle,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().tls_certs_only([]).build().expect("a client");
    let mut request = http.request(method, format!("http://{}{path}", mock.addr)).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("a body"))
}

async fn admin(mock: &MockHandle, method: Method, path: &str, body: &str) -> (u16, Value) {
    let (status, text) = raw(mock, method, path, &[("content-type", "application/json")], body).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

const GOOD: [(&str, &str); 2] =
    [("authorization", TOKEN), ("content-type", "application/json; charset=utf-8")];

#[tokio::test]
async fn both_versions_answer_as_documented() {
    let mock = start(Faults::default()).await;
    let (status, body) = raw(&mock, Method::DELETE, V1_0, &GOOD, r#"["VI1"]"#).await;
    assert_eq!(status, 200);
    assert_eq!(
        serde_json::from_str::<Value>(&body).expect("JSON"),
        json!({"code": "0000", "msg": "success"})
    );
    let (status, body) =
        raw(&mock, Method::POST, &format!("{V1_2}?unique_id=a%26b"), &GOOD, r#"["VI2"]"#).await;
    assert_eq!(status, 200);
    assert_eq!(
        serde_json::from_str::<Value>(&body).expect("JSON"),
        json!({"code": "0000", "msg": "success", "data": null, "success": true, "failed": false})
    );
    assert_eq!(mock.deleted(), BTreeMap::from([("VI1".to_owned(), 1), ("VI2".to_owned(), 1)]));
    assert_eq!(mock.calls()[1].namespace.as_deref(), Some("a&b"));
}

#[tokio::test]
async fn the_worker_s_client_and_the_mock_agree() {
    let mock = start(Faults::default()).await;
    let namespace = Namespace::new("customer-ä").expect("a namespace");
    for (api, limit) in [(Api::V1_0, 500), (Api::V1_2, 100)] {
        let client = client(&mock, api, DEADLINE);
        let many: Vec<String> = (0..=limit).map(|n| format!("VI{n}")).collect();
        let many: Vec<Id> = many.iter().map(|id| Id::new(id).expect("an ID")).collect();
        let answer = client.call(Some(&namespace), &many[..limit]).await;
        assert_eq!(answer.outcome, Outcome::Deleted, "{}", answer.detail);
        let answer = client.call(Some(&namespace), &many).await;
        assert_eq!(answer.outcome, Outcome::Rejected(Rejection::Invalid), "{}", answer.detail);
    }
    let namespaces: Vec<_> = mock.calls().into_iter().map(|call| call.namespace).collect();
    let sent = Some("customer-ä".to_owned());
    assert_eq!(namespaces, [None, None, sent.clone(), sent]);
}

#[tokio::test]
async fn what_the_documentation_asks_for_is_checked() {
    let mock = start(Faults::default()).await;
    let json = ("content-type", "application/json");
    let token = ("authorization", TOKEN);
    let body = r#"["VI1"]"#;
    let many = format!("[{}]", vec![r#""VI1""#; 501].join(","));
    let huge = format!("[\"{}\"]", "x".repeat(2 * 1024 * 1024));
    let bearer = format!("Bearer {TOKEN}");
    type Row<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);
    let rows: [Row<'_>; 14] = [
        (Method::DELETE, V1_0, &[json], body, 200, "0401"),
        (Method::DELETE, V1_0, &[json, ("authorization", "other")], body, 200, "0401"),
        (Method::DELETE, V1_0, &[json, ("authorization", &bearer)], body, 200, "0401"),
        (Method::DELETE, V1_0, &[token], body, 200, "0001"),
        (Method::DELETE, V1_0, &[token, ("content-type", "text/plain")], body, 200, "0001"),
        (Method::DELETE, V1_0, &GOOD, "", 200, "0001"),
        (Method::DELETE, V1_0, &GOOD, "[]", 200, "0001"),
        (Method::DELETE, V1_0, &GOOD, r#"["VI1",""]"#, 200, "0001"),
        (Method::DELETE, V1_0, &GOOD, r#"["VI1",2]"#, 200, "0001"),
        (Method::DELETE, V1_0, &GOOD, r#"{"videoNos":["VI1"]}"#, 200, "0001"),
        (Method::DELETE, V1_0, &GOOD, &many, 200, "0001"),
        (Method::DELETE, V1_0, &GOOD, &huge, 413, "413"),
        (Method::POST, V1_0, &GOOD, body, 405, "405"),
        (Method::POST, "/api/serve/video", &GOOD, body, 404, "404"),
    ];
    let count = rows.len();
    for (method, path, headers, body, status, code) in rows {
        let answer = raw(&mock, method, path, headers, body).await;
        let start = &body[..body.len().min(20)];
        assert!(answer.0 == status && answer.1.contains(code), "{path} {headers:?} {start}: {answer:?}");
    }
    assert!(mock.deleted().is_empty());
    assert_eq!(mock.calls().len(), count);
    let shown = format!("{:?}", mock.calls());
    assert!(!shown.contains(TOKEN) && shown.contains("content-type"), "{shown}");
}

/// For each fault: the class the worker sees, how the mock books it, and whether the IDs are gone.
#[tokio::test]
async fn each_fault_shows() {
    use Outcome::{Blocked, Deleted, Rejected, Throttled, Transient};
    let set = |id: &str| [id.to_owned()].into();
    let none = Faults::default;
    let invalid = Rejected(Rejection::Invalid);
    let block = |block| Faults { blocked: Some(block), ..none() };
    let down = |down| Faults { down: Some(down), ..none() };
    let lose = |lose_as| Faults { lose_next: 1, lose_as, ..none() };
    let reply = |status, applies| {
        let headers = [("retry-after".to_owned(), "5".to_owned())].into();
        Faults {
            reply: Some(Reply { status, headers, body: "<html>".into(), calls: None, applies }),
            ..none()
        }
    };
    let rows = [
        (none(), Deleted, Fate::Deleted, true),
        (Faults { bad_ids: set("VI2"), ..none() }, invalid, Fate::Invalid, false),
        (Faults { bad_ids: set("VI"), ..none() }, Deleted, Fate::Deleted, true),
        (Faults { bad_prefix: Some("VI2".into()), ..none() }, invalid, Fate::Invalid, false),
        (Faults { failing_ids: set("VI2"), ..none() }, Transient, Fate::Failed, false),
        (Faults { failing_prefix: Some("V".into()), ..none() }, Transient, Fate::Failed, false),
        (Faults { fail_next: 1, ..none() }, Transient, Fate::Failed, false),
        (Faults { failure_ratio: 1.0, ..none() }, Transient, Fate::Failed, false),
        (lose(Loss::Reset), Transient, Fate::Lost, true),
        (lose(Loss::Truncated), Transient, Fate::Lost, true),
        (lose(Loss::Endless), Blocked, Fate::Lost, true),
        (down(Down::Unavailable), Transient, Fate::Unavailable, false),
        (down(Down::Reset), Transient, Fate::Reset, false),
        (down(Down::ResetAfterApplying), Transient, Fate::Lost, true),
        (down(Down::Hang), Transient, Fate::Hung, false),
        (block(Block::Unauthorized), Blocked, Fate::Blocked, false),
        (block(Block::OutOfCredits), Blocked, Fate::Blocked, false),
        (block(Block::Disabled), Blocked, Fate::Blocked, false),
        (block(Block::Denied), Blocked, Fate::Blocked, false),
        (block(Block::Http401), Blocked, Fate::Blocked, false),
        (reply(503, false), Throttled, Fate::Scripted, false),
        (reply(200, true), Throttled, Fate::Scripted, true),
    ];
    let mock = start(none()).await;
    for (faults, outcome, fate, is_deleted) in rows {
        mock.reset();
        mock.set_faults(faults.clone());
        let timeout = if fate == Fate::Hung { Duration::from_millis(200) } else { DEADLINE };
        let answer = client(&mock, Api::V1_0, timeout).call(None, &ids(&["VI1", "VI2"])).await;
        assert_eq!(answer.outcome, outcome, "{faults:?}: {}", answer.detail);
        assert_eq!(mock.stats().calls, BTreeMap::from([(fate, 1)]), "{faults:?}");
        const SIGNS: [&str; 3] = ["connection reset by ", "truncated: ", "more than 65536 bytes"];
        let signs: Vec<_> = SIGNS.into_iter().filter(|sign| answer.detail.contains(sign)).collect();
        let expected = match faults.lose_as {
            Loss::Reset if matches!(fate, Fate::Reset | Fate::Lost) => &SIGNS[..1],
            Loss::Reset => &[],
            Loss::Truncated => &SIGNS[1..2],
            Loss::Endless => &SIGNS[2..],
        };
        assert_eq!(signs, expected, "{faults:?}: {}", answer.detail);
        assert_eq!(mock.deleted().len(), if is_deleted { 2 } else { 0 }, "{faults:?}");
    }
}

#[tokio::test]
async fn counted_faults_run_out() {
    let body = r#"{"code":"7777"}"#.to_owned();
    let reply = Reply { status: 200, headers: [].into(), body, calls: Some(2), applies: false };
    let mock = start(Faults { fail_next: 2, lose_next: 1, reply: Some(reply), ..Faults::default() }).await;
    let client = client(&mock, Api::V1_0, DEADLINE);
    for fate in [Fate::Scripted, Fate::Scripted, Fate::Failed, Fate::Failed, Fate::Lost, Fate::Deleted] {
        client.call(None, &ids(&["VI1"])).await;
        assert_eq!(mock.calls().last().expect("a call").outcome, fate);
    }
    assert_eq!(mock.faults(), Faults::default());
    assert_eq!(mock.deleted(), BTreeMap::from([("VI1".to_owned(), 2)]));
}

#[tokio::test]
async fn an_id_deleted_twice_is_a_duplicate_if_asked_for() {
    let mock = start(Faults { duplicates_answer_0409: true, ..Faults::default() }).await;
    assert_eq!(call(&mock, &["VI1", "VI2"]).await.outcome, Outcome::Deleted);
    assert_eq!(call(&mock, &["VI3", "VI2"]).await.outcome, Outcome::Rejected(Rejection::Duplicate));
    assert_eq!(mock.deleted().len(), 2, "the whole call is refused");
    mock.set_faults(Faults::default());
    assert_eq!(call(&mock, &["VI3", "VI2"]).await.outcome, Outcome::Deleted);
    let stats = mock.stats();
    assert_eq!((stats.ids_deleted, stats.ids_deleted_again), (3, 1));
}

#[tokio::test]
async fn random_faults_repeat_with_their_seed() {
    let mock = start(Faults::default()).await;
    let client = client(&mock, Api::V1_0, DEADLINE);
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        mock.set_faults(Faults { failure_ratio: 0.5, seed, ..Faults::default() });
        let mut run = Vec::new();
        for _ in 0..64 {
            run.push(client.call(None, &ids(&["VI1"])).await.outcome);
        }
        assert!(run.contains(&Outcome::Deleted) && run.contains(&Outcome::Transient));
        runs.push(run);
    }
    assert!(runs[0] == runs[1] && runs[0] != runs[2]);
}

#[tokio::test]
async fn over_the_quota_calls_are_throttled() {
    let throttled = |faults: Faults| async move {
        let mock = start(Faults { requests_per_second: 1, ..faults }).await;
        let client = client(&mock, Api::V1_2, DEADLINE);
        let calls = async {
            loop {
                let answer = client.call(None, &ids(&["VI1"])).await;
                if answer.outcome == Outcome::Throttled {
                    return (answer.http_status, answer.code, answer.retry_after);
                }
            }
        };
        tokio::time::timeout(DEADLINE, calls).await.expect("two calls within a second")
    };
    assert_eq!(throttled(Faults::default()).await, (Some(200), Some("0429".into()), None));
    let by_status = Faults { throttle_by_status: true, retry_after: Some(3), ..Faults::default() };
    assert_eq!(throttled(by_status).await, (Some(429), Some("0429".into()), Some(Duration::from_secs(3))));
}

#[test]
fn the_quota_holds_in_any_one_second() {
    let start = Instant::now();
    let mut judge = Judge::new(Faults { requests_per_second: 2, ..Faults::default() });
    let mut ledger = Ledger::new(0, false, start);
    let call = judge::Call { api: Api::V1_0, is_authorized: true, ids: Ok(vec!["VI1".into()]) };
    let fates = [0, 600, 700, 999, 1000, 1001, 1599, 1600, 2000].map(|millis| {
        let now = start + Duration::from_millis(millis);
        ledger.enter(now);
        judge.decide(&call, &mut ledger, now).0
    });
    let (yes, no) = (Fate::Deleted, Fate::Throttled);
    assert_eq!(fates, [yes, yes, no, no, yes, no, no, yes, yes]);
    assert_eq!(ledger.stats().peaks.in_one_second, 6, "from 600 to 1599");
}

#[tokio::test]
async fn latency_holds_back_the_answer_not_the_deletion() {
    let mock = start(Faults { latency: Duration::from_secs(3600), ..Faults::default() }).await;
    let answer = client(&mock, Api::V1_0, Duration::from_millis(200)).call(None, &ids(&["VI1"])).await;
    assert_eq!(answer.outcome, Outcome::Transient);
    assert_eq!(mock.deleted().len(), 1);
    // The client is gone, and its call with it.
    let gone = async {
        while mock.stats().concurrent > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("the call ends");

    let latency = Duration::from_millis(100);
    mock.set_faults(Faults { latency, jitter: latency, ..Faults::default() });
    let started = Instant::now();
    assert_eq!(call(&mock, &["VI1"]).await.outcome, Outcome::Deleted);
    assert!(started.elapsed() >= latency);
}

#[tokio::test]
async fn the_numbers_add_up() {
    let mock = start(Faults { latency: Duration::from_millis(50), ..Faults::default() }).await;
    let client = client(&mock, Api::V1_2, DEADLINE);
    let (four, one, two) = (ids(&["1", "2", "3", "4"]), ids(&["1"]), ids(&["1", "5"]));
    tokio::join!(client.call(None, &four), client.call(None, &one), client.call(None, &two));
    let stats = mock.stats();
    assert_eq!(stats.calls, BTreeMap::from([(Fate::Deleted, 3)]));
    assert_eq!((stats.ids_deleted, stats.ids_deleted_again), (5, 1));
    let Sizes { count, sum, max, mean_fill } = stats.sizes;
    assert_eq!((count, sum, max), (3, 7, 4));
    assert!((mean_fill - 7.0 / 300.0).abs() < 1e-9);
    assert!(stats.peaks.concurrent <= 3 && stats.peaks.in_one_second <= 3);

    let (status, body) = admin(&mock, Method::GET, "/_mock/stats", "").await;
    assert_eq!((status, &body["calls"]["deleted"], &body["sizes"]["max"]), (200, &json!(3), &json!(4)));
    assert_eq!(admin(&mock, Method::POST, "/_mock/reset", "").await.0, 204);
    let down = Faults { down: Some(Down::Unavailable), ..Faults::default() };
    mock.set_faults(down);
    assert_eq!(raw(&mock, Method::GET, "/healthz", &[], "").await, (200, "ok\n".to_owned()));
    assert_eq!(mock.stats(), Stats::default(), "being asked for its health is no call");
    assert!(mock.calls().is_empty() && mock.deleted().is_empty());
}

#[tokio::test]
async fn faults_are_changed_at_run_time() {
    let mock = start(Faults { fail_next: 3, ..Faults::default() }).await;
    let (_, faults) = admin(&mock, Method::GET, "/_mock/faults", "").await;
    assert_eq!((&faults["fail_next"], &faults["latency"]), (&json!(3), &json!("0s")));

    let (status, _) =
        admin(&mock, Method::PATCH, "/_mock/faults", r#"{"down":"hang","latency":"5ms"}"#).await;
    let expected = Faults {
        fail_next: 3,
        down: Some(Down::Hang),
        latency: Duration::from_millis(5),
        ..Faults::default()
    };
    assert_eq!((status, mock.faults()), (200, expected.clone()));

    for (method, body) in [
        (Method::PUT, r#"{"dwon":"hang"}"#),
        (Method::PATCH, r#"{"down":"sideways"}"#),
        (Method::PUT, r#"{"failure_ratio":1.5}"#),
        (Method::PUT, r#"{"reply":{"status":99}}"#),
        (Method::PUT, r#"{"reply":{"status":200,"headers":{"a b":"c"}}}"#),
    ] {
        let (status, sentence) = admin(&mock, method, "/_mock/faults", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY.as_u16(), "{body}: {sentence}");
    }
    assert_eq!(mock.faults(), expected, "what is refused changes nothing");

    let body = r#"{"blocked":"0402","reply":{"status":204},"bad_ids":["VI1"]}"#;
    assert_eq!(admin(&mock, Method::PUT, "/_mock/faults", body).await.0, 200);
    let faults = mock.faults();
    assert_eq!((faults.fail_next, faults.down, faults.blocked), (0, None, Some(Block::OutOfCredits)));
}

#[tokio::test]
async fn deletions_are_listed_in_pages() {
    let mock = start(Faults::default()).await;
    call(&mock, &["VI3", "VI1", "VI2", "VI1"]).await;
    let page = |query: &'static str| admin(&mock, Method::GET, query, "");
    assert_eq!(
        page("/_mock/deleted?limit=2").await.1,
        json!({ "deleted": { "VI1": 2, "VI2": 1 }, "next": "VI2" })
    );
    assert_eq!(
        page("/_mock/deleted?limit=2&after=VI2").await.1,
        json!({ "deleted": { "VI3": 1 }, "next": null })
    );
    assert_eq!(page("/_mock/deleted?after=VI3").await.1, json!({ "deleted": {}, "next": null }));
}

#[tokio::test]
async fn only_the_last_calls_are_kept() {
    let settings = Settings { calls_kept: 2, keep_ids: false, ..Settings::default() };
    let mock = Mock::start("127.0.0.1:0".parse().expect("an address"), settings).await.expect("a mock");
    for call_ids in [&["1"][..], &["1", "2"], &["1", "2", "3"]] {
        assert_eq!(call(&mock, call_ids).await.outcome, Outcome::Deleted, "any token will do");
    }
    let sizes: Vec<_> = mock.calls().iter().map(|call| (call.size, call.ids.len())).collect();
    assert_eq!(sizes, [(2, 0), (3, 0)]);
    let (_, calls) = admin(&mock, Method::GET, "/_mock/calls", "").await;
    assert_eq!(calls[0]["outcome"], "deleted");
    assert_eq!(calls[0]["path"], V1_0);
    assert!(humantime::parse_rfc3339(calls[0]["at"].as_str().expect("a time")).is_ok());
    assert!(calls[0]["headers"].get("authorization").is_none());
    assert_eq!(mock.stats().sizes.count, 3);
}

#[tokio::test]
async fn shutdown_frees_the_port_whatever_hangs() {
    let mock = start(Faults { down: Some(Down::Hang), ..Faults::default() }).await;
    let addr = mock.addr;
    let client = client(&mock, Api::V1_0, DEADLINE);
    let hung = tokio::spawn(async move { client.call(None, &ids(&["VI1"])).await });
    while mock.stats().concurrent == 0 {
        tokio::task::yield_now().await;
    }
    mock.shutdown().await;
    let answer = tokio::time::timeout(DEADLINE, hung).await.expect("an end").expect("no panic");
    assert_eq!(answer.outcome, Outcome::Transient);
    Mock::start(addr, Settings::default()).await.expect("the port is free");
}
