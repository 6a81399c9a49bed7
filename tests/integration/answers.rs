//! Every kind of answer is taken for what it is; nothing doubtful is a success, and no message pays for it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::TcpListener;
use std::time::Duration;

use deletion_worker::mock::{Faults, Reply};
use deletion_worker::status::EndpointState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::letter::{find, header};
use crate::support::world::{Worker, World, ids};
use crate::support::{PATIENCE, wait_for};
use EndpointState::{Blocked, Healthy, Open};

/// An answer, and what it is to be counted as.
struct Case {
    reply: Reply,
    code: &'static str,
}

fn json(status: u16, body: &str, code: &'static str) -> Case {
    Case { reply: reply(status, body), code }
}

fn bare(status: u16) -> Case {
    json(status, "", "none")
}

fn reply(status: u16, body: &str) -> Reply {
    Reply { status, headers: BTreeMap::new(), body: body.to_owned(), calls: None, applies: false }
}

fn with_header(status: u16, name: &str, value: &str) -> Case {
    Case {
        reply: Reply { headers: [(name.to_owned(), value.to_owned())].into(), ..reply(status, "") },
        code: "none",
    }
}

#[tokio::test]
async fn what_speaks_against_us_or_the_url_blocks() {
    // Whoever follows a redirect contacts this.
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a free port");
    stranger.set_nonblocking(true).expect("a socket");
    let elsewhere = format!("http://{}/", stranger.local_addr().expect("bound"));
    let redirects = [301, 302, 303, 307, 308].map(|status| with_header(status, "location", &elsewhere));
    let plain = [401, 402, 403, 404, 405, 407, 410].map(bare);
    let codes = [
        json(200, r#"{"code":"0401"}"#, "0401"),
        json(200, r#"{"code":"0402"}"#, "0402"),
        json(200, r#"{"code":"0403"}"#, "0403"),
        json(200, r#"{"code":"9009"}"#, "9009"),
        json(200, r#"{"code":401}"#, "401"),
        json(200, r#"{"code":402}"#, "402"),
        json(200, r#"{"code":403}"#, "403"),
        json(200, r#"{"code":405}"#, "405"),
        json(200, r#"{"code":415}"#, "415"),
    ];
    let no_documented_body = [
        json(200, "<html>please log in</html>", "none"),
        json(200, "", "none"),
        json(204, "", "none"),
        json(200, r#"{"msg":"success"}"#, "none"),
        json(200, r#"["0000"]"#, "none"),
        json(404, r#"{"code":"0000"}"#, "0000"),
    ];
    let cases = redirects.into_iter().chain(plain).chain(codes).chain(no_documented_body);
    hold_and_recover("blocked", Blocked, cases).await;
    let visit = stranger.accept().expect_err("nobody was to follow");
    assert_eq!(visit.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let plain = [408, 425, 500, 502, 503, 504].map(bare);
    let codes = [
        json(200, r#"{"code":"7777","msg":"success"}"#, "other"),
        json(200, r#"{"code":200}"#, "200"),
        json(200, r#"{"code":"500"}"#, "500"),
        json(500, r#"{"code":"0000"}"#, "0000"),
    ];
    hold_and_recover("transient", Open, plain.into_iter().chain(codes)).await;
}

#[tokio::test]
async fn what_asks_for_patience_throttles() {
    let cases = [
        bare(429),
        json(200, r#"{"code":"0429","msg":"too busy"}"#, "0429"),
        json(200, r#"{"code":429}"#, "429"),
        with_header(503, "retry-after", "0"),
        with_header(404, "retry-after", "1"),
    ];
    hold_and_recover("throttled", Healthy, cases).await;
}

/// Answers one ID's calls with each of these in turn: it is kept, counted, and deleted once they are over.
async fn hold_and_recover(outcome: &str, state: EndpointState, cases: impl IntoIterator<Item = Case>) {
    let mut world = World::new().await;
    world.set("health.failure_threshold", "1").set("retry.max", "50ms").set("health.probe_max", "50ms");
    // Each throttled answer halves it: so high that a dozen of them cost the test no time.
    world.set("endpoint.requests_per_second", "100000");
    let mut worker = world.start().await;
    for (n, Case { reply, code }) in cases.into_iter().enumerate() {
        let ended = worker.metric("endpoint_requests_total", &[("outcome", outcome)]).await;
        let coded = worker.metric("endpoint_response_codes_total", &[("code", code)]).await;
        world.faults(|faults| faults.reply = Some(reply));
        world.publish_ids([format!("VI{n}")]).await;
        worker.counted("endpoint_requests_total", &[("outcome", outcome)], ended + 2.0).await;
        worker.counted("endpoint_response_codes_total", &[("code", code)], coded + 2.0).await;
        worker.endpoint_is(state).await;
        assert_eq!(world.mock.stats().ids_deleted, n as u64);
        assert_eq!(worker.metric("messages_unsettled", &[]).await, 1.0);
        world.faults(|faults| faults.reply = None);
        world.deleted(n as u64 + 1).await;
        worker.settled(&world).await;
        worker.endpoint_is(Healthy).await;
    }
    assert_eq!(worker.metric("endpoint_requests_total", &[("outcome", "rejected")]).await, 0.0);
    worker.stop().await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn what_speaks_against_a_lone_id_condemns_it() {
    let world = World::new().await;
    let mut worker = world.start().await;
    let cases = [
        json(200, r#"{"code":"0001","msg":"no such video"}"#, "0001"),
        json(200, r#"{"code":"0003"}"#, "0003"),
        json(200, r#"{"code":400}"#, "400"),
        json(200, r#"{"code":409}"#, "409"),
        bare(400),
        bare(409),
        bare(422),
        bare(413),
    ];
    let count = cases.len();
    for (n, Case { reply, code }) in cases.into_iter().enumerate() {
        let status = reply.status.to_string();
        world.faults(|faults| faults.reply = Some(Reply { calls: Some(1), ..reply }));
        world.publish_ids([format!("VI{n}")]).await;
        let letters = world.dead_letters(1).await;
        assert_eq!(header(&letters[0], "x-deletion-reason"), "rejected");
        assert_eq!(find(&letters[0], "x-deletion-code").as_deref().unwrap_or("none"), code);
        assert_eq!(header(&letters[0], "x-deletion-http-status"), status);
        assert_eq!(header(&letters[0], "x-deletion-failed-ids"), format!("VI{n}"));
        worker.settled(&world).await;
        // A success in between: rejections alone would at some time be the endpoint's fault.
        world.publish_ids([format!("good{n}")]).await;
        world.deleted(n as u64 + 1).await;
        worker.settled(&world).await;
    }
    assert_eq!(worker.metric("endpoint_requests_total", &[("outcome", "rejected")]).await, count as f64);
    worker.stop().await;
}

#[tokio::test]
async fn a_lone_id_that_is_deleted_already_is_done() {
    let world = World::new().await;
    let mut worker = world.start().await;
    world.publish_ids(["VI1"]).await;
    world.deleted(1).await;
    worker.settled(&world).await;
    world.faults(|faults| faults.duplicates_answer_0409 = true);
    world.publish_ids(["VI1"]).await;
    worker.counted("messages_settled_total", &[("outcome", "deleted")], 2.0).await;
    // Among others it is found, and costs them nothing.
    world.publish_ids((0..100).map(|n| format!("VI{n}"))).await;
    world.deleted(100).await;
    worker.settled(&world).await;
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "deleted")]).await, 102.0);
    assert!(worker.metric("endpoint_response_codes_total", &[("code", "0409")]).await >= 2.0);
    world.all_deleted_once(&ids(100));
    worker.stop().await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn configured_success_codes_are_successes() {
    let mut world = World::new().await;
    world.set("endpoint.success_codes", "0000,200");
    world.faults(|faults| {
        faults.reply = Some(Reply { applies: true, ..reply(200, r#"{"code":200,"msg":"ok"}"#) });
    });
    let mut worker = world.start().await;
    world.publish_ids(ids(10)).await;
    world.deleted(10).await;
    worker.settled(&world).await;
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "deleted")]).await, 10.0);
    worker.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_too_large_teaches_a_smaller_one() {
    let mut world = World::new().await;
    world.unset("batch.linger"); // a busy broker must not cost a call
    world.prepare().await;
    world.faults(|faults| faults.reply = Some(Reply { calls: Some(1), ..reply(413, "") }));
    let all = ids(2000);
    world.publish_ids(&all[..500]).await;
    let mut worker = world.start().await;
    world.deleted(500).await;
    world.publish_ids(&all[500..]).await;
    world.deleted(2000).await;
    worker.settled(&world).await;
    let sizes: Vec<usize> = world.mock.calls().iter().map(|call| call.size).collect();
    assert!(sizes[0] == 500 && sizes[1..].iter().all(|size| *size <= 250), "{sizes:?}");
    world.all_deleted_once(&all);
    worker.stop().await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn retry_after_is_obeyed_within_its_ceiling() {
    let mut world = World::new().await;
    // Without the ceiling the test would have to wait for a day.
    world.set("retry.max_retry_after", "1s");
    world.faults(|faults| {
        let Case { reply, .. } = with_header(429, "retry-after", "86400");
        *faults = Faults { reply: Some(Reply { calls: Some(1), ..reply }), ..Faults::default() };
    });
    let mut worker = world.start().await;
    world.publish_ids(["VI1"]).await;
    world.deleted(1).await;
    worker.settled(&world).await;
    let calls = world.mock.calls();
    let pause = calls[1].at.duration_since(calls[0].at).expect("in order");
    assert!(pause >= Duration::from_secs(1), "{pause:?}: the backoff alone is 20 ms");
    worker.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut world = World::new().await;
    world.set("endpoint.url", &format!("http://{}/", listener.local_addr().expect("bound")));
    tokio::spawn(async move {
        while let Ok((mut call, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = call.read(&mut request).await;
            let mut answer = Vec::new();
            // It would have been a success.
            write!(answer, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{{\"code\":\"0000\"}}")
                .expect("memory");
            let _ = call.write_all(&answer).await;
        }
    });
    let mut worker = world.start().await;
    world.publish_ids(["VI1"]).await;
    worker.counted("endpoint_requests_total", &[("outcome", "transient")], 5.0).await;
    worker.endpoint_is(Open).await;
    assert_eq!(worker.metric("endpoint_requests_total", &[("outcome", "deleted")]).await, 0.0);
    worker.stop().await;
    world.ready(1).await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let world = World::new().await;
    let mut worker = world.start().await;
    world.faults(|faults| faults.lose_next = 2);
    world.publish_ids(ids(10)).await;
    worker.counted("messages_settled_total", &[("outcome", "deleted")], 10.0).await;
    wait_for("both lost", PATIENCE, async || world.mock.faults().lose_next == 0).await;
    is_deleted_again(&worker, &world).await;
    worker.stop().await;
}

async fn is_deleted_again(worker: &Worker, world: &World) {
    assert_eq!(worker.metric("endpoint_requests_total", &[("outcome", "transient")]).await, 2.0);
    assert_eq!(world.mock.deleted().values().copied().collect::<Vec<_>>(), [3; 10]);
}
