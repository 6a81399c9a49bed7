mod faults;
mod server;
mod tls;

use std::net::SocketAddr;

use super::*;
use crate::answer::{Outcome, Rejection};
use crate::config::{Secret, SecretSource};
use server::{Reply, Server};

const TOKEN: &str = "mai-secret-token";

fn settings(api: Api, url: &str) -> Endpoint {
    Endpoint {
        api,
        url: url.parse().expect("a test's URL"),
        token: Some(SecretSource::Value(Secret::new(TOKEN))),
        namespace: None,
        timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(10),
        max_concurrency: 4,
        requests_per_second: None,
        success_codes: vec!["0000".to_owned()],
    }
}

fn at(addr: SocketAddr) -> Endpoint {
    settings(Api::V1_0, &format!("http://{addr}/api/serve/video/delete"))
}

fn client(endpoint: &Endpoint) -> Client {
    Client::new(endpoint, Token::open(endpoint.token.as_ref().expect("one is set")).expect("a token"))
        .expect("a client")
}

fn ids(ids: &[&str]) -> Vec<Id> {
    ids.iter().map(|id| Id::new(id).expect("a test's ID")).collect()
}

fn json(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn ok() -> Reply {
    Reply::Send(json("200", "", r#"{"code":"0000","msg":"success"}"#))
}

async fn call(endpoint: &Endpoint) -> Answer {
    client(endpoint).call(None, &ids(&["VI1"])).await
}

#[tokio::test]
async fn a_token_that_is_said_back_goes_no_further() {
    let said = format!(r#"{{"code":"{TOKEN}","msg":"bad token {TOKEN}, really {TOKEN}"}}"#);
    let server = Server::start([Reply::Send(json("401", "", &said))]).await;
    let answer = call(&at(server.addr)).await;
    assert_eq!(answer.code.as_deref(), Some("***"));
    assert!(answer.detail.contains("bad token ***, really ***"), "{answer:?}");
    assert!(!format!("{answer:?}").contains(TOKEN), "{answer:?}");
    // However JSON writes it, in whatever JSON, and as a code that is too long to keep.
    let secret = r#"mai"\"#.repeat(40);
    let said = serde_json::Value::from(secret.as_str()).to_string();
    for body in [
        format!(r#"{{"code":{said},"msg":{said}}}"#),
        format!(r#"{{"error":{said}}}"#),
        format!("<p>{secret}</p>"),
        format!(r#"{{"code":"\u{:04x}{}}}"#, u32::from('m'), &said[2..]),
    ] {
        let server = Server::start([Reply::Send(json("400", "", &body))]).await;
        let mut endpoint = at(server.addr);
        endpoint.token = Some(SecretSource::Value(Secret::new(secret.as_str())));
        let answer = call(&endpoint).await;
        assert!(answer.detail.contains("***") && !answer.detail.contains("mai"), "{answer:?}");
        assert!(!format!("{answer:?}").contains("mai"), "{answer:?}");
    }
    // Even a token that looks like a part of every answer.
    let server = Server::start([ok()]).await;
    let mut endpoint = at(server.addr);
    endpoint.token = Some(SecretSource::Value(Secret::new("0")));
    assert_eq!(call(&endpoint).await.outcome, Outcome::Deleted);
}

#[tokio::test]
async fn v1_0_is_spoken_as_documented() {
    let server = Server::start([ok(), ok()]).await;
    let client = client(&at(server.addr));
    let namespace = Namespace::new("ignored").expect("a namespace");
    let answer = client.call(Some(&namespace), &ids(&["VI1", "ä\"\\"])).await;
    assert_eq!(answer.outcome, Outcome::Deleted);
    assert_eq!((answer.http_status, answer.code.as_deref()), (Some(200), Some("0000")));
    client.call(None, &ids(&["VI2"])).await;

    let requests = server.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<&str> = head.lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(
        lines,
        [
            "DELETE /api/serve/video/delete HTTP/1.1",
            "accept: */*",
            "authorization: mai-secret-token",
            "content-length: 16",
            "content-type: application/json",
            &format!("host: {}", server.addr),
            &format!("user-agent: deletion-worker/{}", env!("CARGO_PKG_VERSION")),
        ]
    );
    assert_eq!(body, r#"["VI1","ä\"\\"]"#);
    assert!(requests[1].ends_with("\r\n\r\n[\"VI2\"]"));
}

#[tokio::test]
async fn v1_2_names_the_namespace_in_the_query() {
    let server = Server::start([ok(), ok(), ok()]).await;
    let mut endpoint = settings(Api::V1_2, &format!("http://{}/serve/api/v1/delete_videos", server.addr));
    let unnamed = client(&endpoint);
    endpoint.namespace = Some(Namespace::new("configured").expect("a namespace"));
    let named = client(&endpoint);
    let namespace = Namespace::new("a&b=ä+%/#?").expect("a namespace");

    assert_eq!(unnamed.call(None, &ids(&["VI1"])).await.outcome, Outcome::Deleted);
    assert_eq!(named.call(None, &ids(&["VI1"])).await.outcome, Outcome::Deleted);
    assert_eq!(named.call(Some(&namespace), &ids(&["VI1"])).await.outcome, Outcome::Deleted);
    let targets: Vec<_> =
        server.requests().iter().map(|request| request.lines().next().expect("a line").to_owned()).collect();
    assert_eq!(
        targets,
        [
            "POST /serve/api/v1/delete_videos?unique_id=default HTTP/1.1",
            "POST /serve/api/v1/delete_videos?unique_id=configured HTTP/1.1",
            "POST /serve/api/v1/delete_videos?unique_id=a%26b%3D%C3%A4%2B%25%2F%23%3F HTTP/1.1",
        ]
    );
}

#[tokio::test]
async fn answers_are_classified_as_they_come() {
    let rows = [
        ("200", "", r#"{"code":"0001","msg":"bad"}"#, Outcome::Rejected(Rejection::Invalid)),
        ("200", "", r#"{"code":"0409"}"#, Outcome::Rejected(Rejection::Duplicate)),
        ("200", "", r#"{"code":429}"#, Outcome::Throttled),
        ("200", "", r#"{"code":"9009"}"#, Outcome::Blocked),
        ("200", "", r#"{"code":"7777"}"#, Outcome::Transient),
        ("200", "content-type: text/html\r\n", "<html>log in</html>", Outcome::Blocked),
        ("200", "", "", Outcome::Blocked),
        ("200", "content-type: text/html\r\n", r#"{"code":"0000"}"#, Outcome::Deleted),
        ("400", "", "", Outcome::Rejected(Rejection::Invalid)),
        ("409", "", r#"{"code":"0409"}"#, Outcome::Rejected(Rejection::Duplicate)),
        ("413", "", "", Outcome::Rejected(Rejection::TooLarge)),
        ("422", "", "", Outcome::Rejected(Rejection::Invalid)),
        ("401", "", "", Outcome::Blocked),
        ("402", "", "", Outcome::Blocked),
        ("403", "", "", Outcome::Blocked),
        ("404", "", "", Outcome::Blocked),
        ("405", "", "", Outcome::Blocked),
        ("407", "", "", Outcome::Blocked),
        ("410", "", "", Outcome::Blocked),
        ("408", "", "", Outcome::Transient),
        ("425", "", "", Outcome::Transient),
        ("500", "", r#"{"code":"0000"}"#, Outcome::Transient),
        ("503", "", "", Outcome::Transient),
        ("503", "retry-after: 7\r\n", "", Outcome::Throttled),
        ("429", "", "", Outcome::Throttled),
    ];
    let replies = rows.map(|(status, headers, body, _)| Reply::Send(json(status, headers, body)));
    let server = Server::start(replies).await;
    let client = client(&at(server.addr));
    for (status, headers, body, outcome) in rows {
        let answer = client.call(None, &ids(&["VI1"])).await;
        assert_eq!(answer.outcome, outcome, "{status} {headers} {body}: {}", answer.detail);
        assert_eq!(answer.http_status, status.parse().ok());
        assert_eq!(answer.retry_after.is_some(), headers.starts_with("retry-after"));
    }
    assert!(server.is_done());
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    let date = |time| format!("retry-after: {}\r\n", httpdate::fmt_http_date(time));
    let (past, future) = (SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_secs(3600));
    let server = Server::start([
        Reply::Send(json("503", &date(past), "")),
        Reply::Send(json("503", &date(future), "")),
        Reply::Send(json("503", "retry-after: soon\r\n", "")),
        Reply::Send(json("200", "retry-after: 3\r\n", r#"{"code":"0000"}"#)),
    ])
    .await;
    let client = client(&at(server.addr));
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(client.call(None, &ids(&["VI1"])).await);
    }
    assert_eq!((answers[0].outcome, answers[0].retry_after), (Outcome::Throttled, Some(Duration::ZERO)));
    assert_eq!(answers[1].outcome, Outcome::Throttled);
    let wait = answers[1].retry_after.expect("a wait");
    assert!(wait > Duration::from_secs(3000) && wait <= Duration::from_secs(3600), "{wait:?}");
    assert_eq!((answers[2].outcome, answers[2].retry_after), (Outcome::Transient, None));
    assert_eq!(
        (answers[3].outcome, answers[3].retry_after),
        (Outcome::Deleted, Some(Duration::from_secs(3)))
    );
}

#[tokio::test]
async fn chunked_bodies_and_interim_answers_are_read() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                   8\r\n{\"code\":\r\n7\r\n\"0000\"}\r\n0\r\n\r\n";
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let server = Server::start([
        Reply::Send(chunked.to_owned()),
        Reply::Send(format!("{interim}{chunked}")),
        Reply::SendThenClose("HTTP/1.0 200 OK\r\n\r\n{\"code\":\"0000\"}".to_owned()),
    ])
    .await;
    let client = client(&at(server.addr));
    for _ in 0..3 {
        let answer = client.call(None, &ids(&["VI1"])).await;
        assert_eq!(answer.outcome, Outcome::Deleted, "{}", answer.detail);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = elsewhere.local_addr().expect("an address");
    for status in ["301", "302", "303", "307", "308"] {
        for location in [format!("http://{target}/"), "/elsewhere".to_owned()] {
            let reply = Reply::Send(json(status, &format!("location: {location}\r\n"), ""));
            let server = Server::start([reply, ok()]).await;
            let answer = call(&at(server.addr)).await;
            assert_eq!((answer.outcome, answer.http_status), (Outcome::Blocked, status.parse().ok()));
            assert_eq!(server.requests().len(), 1);
        }
    }
    let contact = futures_util::FutureExt::now_or_never(elsewhere.accept());
    assert!(contact.is_none(), "the redirect's target was contacted");
}

#[tokio::test]
async fn a_replaced_token_is_sent_with_the_next_call() {
    let path = std::env::temp_dir().join(format!("deletion-worker-endpoint-token-{}", std::process::id()));
    std::fs::write(&path, "one\n").expect("a file");
    let server = Server::start([ok(), ok()]).await;
    let endpoint = at(server.addr);
    let mut token = Token::open(&SecretSource::File(path.clone())).expect("a token");
    let client = Client::new(&endpoint, token.clone()).expect("a client");
    client.call(None, &ids(&["VI1"])).await;
    std::fs::write(&path, "two\n").expect("a file");
    tokio::time::timeout(Duration::from_secs(30), token.changed()).await.expect("a change");
    client.call(None, &ids(&["VI1"])).await;
    std::fs::remove_file(&path).expect("a file");
    let requests = server.requests();
    assert!(requests[0].contains("authorization: one\r\n") && requests[1].contains("authorization: two\r\n"));
}

#[tokio::test]
async fn the_token_is_never_printed() {
    let server = Server::start([]).await;
    let client = client(&at(server.addr));
    assert!(!format!("{client:?}").contains(TOKEN));
    assert!(!format!("{:?}", client.call(None, &ids(&["VI1"])).await).contains(TOKEN));
}
