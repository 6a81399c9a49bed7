//! Calls that get no answer, or only the beginning of one.

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(15);
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n";

#[track_caller]
fn check_lost(answer: &Answer, detail: &str) {
    assert_eq!((answer.outcome, answer.http_status), (Outcome::Transient, None), "{}", answer.detail);
    assert!(answer.detail.contains(detail), "{} lacks: {detail}", answer.detail);
    assert!(!answer.detail.contains(TOKEN), "{}", answer.detail);
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    // No label has more than 63 characters, so no resolver is asked.
    let host = format!("{}.invalid", "x".repeat(64));
    let answer = call(&settings(Api::V1_0, &format!("http://{host}/"))).await;
    check_lost(&answer, &format!("can't be reached: {host} could not be resolved: "));
}

#[tokio::test]
async fn a_port_nobody_listens_on() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    drop(listener);
    check_lost(&call(&at(addr)).await, &format!("can't be reached: connection refused by {addr}"));
}

#[tokio::test]
async fn a_connection_that_is_never_accepted() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let addr = listener.local_addr().expect("an address");
    // Once the backlog is full, Linux drops what asks for a connection.
    let mut backlog = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(500), TcpStream::connect(addr)).await {
        backlog.push(stream.expect("a connection"));
        assert!(backlog.len() < 100, "the backlog never fills");
    }
    let endpoint = Endpoint { connect_timeout: Duration::from_millis(200), ..at(addr) };
    let answer = timeout(DEADLINE, call(&endpoint)).await.expect("an answer in time");
    check_lost(&answer, &format!("can't be reached: connecting to {addr} timed out after 200ms"));
}

#[tokio::test]
async fn connections_that_end_before_the_answer() {
    for (reply, reason) in [
        (Reply::ResetUnread, "gave no answer: connection "),
        (Reply::SendThenReset(String::new()), "gave no answer: connection reset by "),
        (Reply::SendThenClose(String::new()), "gave no answer: connection closed by "),
        (Reply::SendThenClose("HTTP/1.1 200 OK\r\ncont".to_owned()), "gave no answer: connection closed by "),
        (Reply::SendThenClose("SSH-2.0-OpenSSH_9.6\r\n".to_owned()), "gave no usable answer: "),
    ] {
        let server = Server::start([reply.clone(), ok()]).await;
        let answer = call(&at(server.addr)).await;
        check_lost(&answer, reason);
        check_lost(&answer, &server.addr.to_string());
        assert!(!server.is_done(), "{reply:?}: the call was repeated");
    }
}

#[tokio::test]
async fn answers_that_break_off() {
    for reply in [
        Reply::SendThenClose(format!("{HEAD}{{\"code\":\"000")),
        Reply::SendThenReset(format!("{HEAD}{{\"code\":\"000")),
        Reply::SendThenClose(HEAD.to_owned()),
        Reply::SendThenClose(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nf\r\n{\"code\":\"0000\"}\r\n".to_owned(),
        ),
        Reply::SendThenClose("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned()),
    ] {
        let server = Server::start([reply.clone(), ok()]).await;
        let answer = call(&at(server.addr)).await;
        // A reset may overtake the head.
        let is_reset =
            answer.detail.contains("connection reset by ") && matches!(reply, Reply::SendThenReset(_));
        assert_eq!(answer.outcome, Outcome::Transient, "{reply:?}: {}", answer.detail);
        assert!(
            answer.detail.contains("but its body broke off: truncated: ") || is_reset,
            "{}",
            answer.detail
        );
        assert!(!server.is_done(), "{reply:?}: the call was repeated");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let lengths = ["", "content-length: 999999999999\r\n", "transfer-encoding: chunked\r\n"];
    for length in lengths {
        let chunk = if length.starts_with("transfer") { "7fffffff\r\n" } else { "" };
        let server = Server::start([Reply::Endless(format!("HTTP/1.1 200 OK\r\n{length}\r\n{chunk}"))]).await;
        let answer = timeout(DEADLINE, call(&at(server.addr))).await.expect("an answer in time");
        assert_eq!((answer.outcome, answer.http_status), (Outcome::Blocked, Some(200)), "{}", answer.detail);
        assert!(answer.detail.contains("more than 65536 bytes"), "{}", answer.detail);
    }
    let server = Server::start([Reply::Endless("HTTP/1.1 503 X\r\nretry-after: 9\r\n\r\n".to_owned())]).await;
    let answer = timeout(DEADLINE, call(&at(server.addr))).await.expect("an answer in time");
    assert_eq!((answer.outcome, answer.retry_after), (Outcome::Throttled, Some(Duration::from_secs(9))));
}

#[tokio::test]
async fn an_answer_may_be_as_long_as_allowed() {
    for (bytes, outcome) in [(Body::BYTES_MAX, Outcome::Deleted), (Body::BYTES_MAX + 1, Outcome::Blocked)] {
        let reply = r#"{"code":"0000"}"#;
        let body = " ".repeat(bytes - reply.len()) + reply;
        let server = Server::start([Reply::Send(json("200", "", &body))]).await;
        let answer = call(&at(server.addr)).await;
        assert_eq!(answer.outcome, outcome, "{bytes}: {}", answer.detail);
    }
}

#[tokio::test]
async fn the_timeout_covers_the_whole_answer() {
    let limit = Duration::from_millis(300);
    let interval = Duration::from_millis(50);

    let server = Server::start([Reply::Hang]).await;
    let answer = call(&Endpoint { timeout: limit, ..at(server.addr) }).await;
    check_lost(&answer, &format!("gave no answer: {} timed out after 300ms", server.addr));

    let server = Server::start([Reply::Trickle(json("200", "", r#"{"code":"0000"}"#), interval)]).await;
    let answer = call(&Endpoint { timeout: limit, ..at(server.addr) }).await;
    check_lost(&answer, "timed out after 300ms");

    let server = Server::start([Reply::Trickle(format!("{HEAD}{{\"code\":"), Duration::ZERO)]).await;
    let answer = call(&Endpoint { timeout: limit, ..at(server.addr) }).await;
    assert_eq!((answer.outcome, answer.http_status), (Outcome::Transient, Some(200)));
    assert!(answer.detail.ends_with("but its body broke off: timed out after 300ms"), "{}", answer.detail);
}

#[tokio::test]
async fn after_a_connection_ended_under_a_call_none_is_kept() {
    for end in [Reply::SendThenClose(String::new()), Reply::SendThenReset(String::new())] {
        let server = Server::start([ok(), ok(), end, ok(), ok()]).await;
        let client = client(&at(server.addr));
        for _ in 0..5 {
            // A clone, as what one learns holds for all.
            client.clone().call(None, &ids(&["VI1"])).await;
        }
        let is_last = |request: &String| request.to_lowercase().contains("\r\nconnection: close\r\n");
        let last: Vec<bool> = server.requests().iter().map(is_last).collect();
        assert_eq!(last, [false, false, false, true, true]);
        assert_eq!(server.connections(), 3, "one until it ended, then one for each call");
    }
}

#[tokio::test]
async fn calls_that_ended_otherwise_take_no_trust_from_kept_connections() {
    let nonsense = Reply::SendThenClose("SSH-2.0-OpenSSH_9.6\r\n".to_owned());
    let server = Server::start([Reply::Hang, nonsense, ok(), ok()]).await;
    let client = client(&Endpoint { timeout: Duration::from_secs(1), ..at(server.addr) });
    for _ in 0..4 {
        client.call(None, &ids(&["VI1"])).await;
    }
    let closes = |request: &String| request.to_lowercase().contains("\r\nconnection: close\r\n");
    assert!(!server.requests().iter().any(closes), "{:#?}", server.requests());
    assert_eq!(server.connections(), 3, "the last two share one");
}

#[tokio::test]
async fn after_a_fault_the_next_call_stands_alone() {
    let server = Server::start([
        Reply::Hang,
        Reply::SendThenClose(HEAD.to_owned()),
        Reply::Endless("HTTP/1.1 200 OK\r\n\r\n".to_owned()),
        Reply::SendThenReset(String::new()),
        ok(),
        ok(),
    ])
    .await;
    let client = client(&Endpoint { timeout: Duration::from_secs(1), ..at(server.addr) });
    let mut outcomes = Vec::new();
    for _ in 0..6 {
        outcomes.push(client.call(None, &ids(&["VI1"])).await.outcome);
    }
    use Outcome::{Blocked, Deleted, Transient};
    assert_eq!(outcomes, [Transient, Transient, Blocked, Transient, Deleted, Deleted]);
    assert_eq!(server.requests().len(), 6);
}
