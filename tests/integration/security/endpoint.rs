//! An endpoint that means no good: it costs a call, never memory, and no message is lost or blamed for it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deletion_worker::status::EndpointState;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::memory;
use crate::support::world::World;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// Less than what flows in the second that a call may take, many times over.
const GROWTH_MAX: u64 = 24 << 20;

/// How an endpoint answers.
#[derive(Clone, Debug)]
struct Answer {
    name: &'static str,
    /// What comes first.
    start: Vec<u8>,
    /// What follows, again and again until the caller hangs up.
    then: Vec<u8>,
    /// Before each of these.
    pause: Duration,
}

fn endless(name: &'static str, start: &str, then: &str) -> Answer {
    Answer { name, start: start.into(), then: then.repeat(65_536 / then.len()).into(), pause: Duration::ZERO }
}

fn dripping(name: &'static str, start: &str) -> Answer {
    Answer { name, start: start.into(), then: b"x".into(), pause: Duration::from_millis(100) }
}

fn whole(name: &'static str, headers: &str, body: &[u8]) -> Answer {
    let start = [format!("{HEAD}{headers}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    Answer { name, start, then: Vec::new(), pause: Duration::ZERO }
}

fn answers() -> Vec<Answer> {
    let mut headers = String::new();
    for n in 0..5_000 {
        write!(headers, "x-{n}: {n}\r\n").expect("memory");
    }
    let bomb = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        (0..64).for_each(|_| encoder.write_all(&[b' '; 1 << 20]).expect("memory"));
        encoder.finish().expect("memory")
    };
    let long = "ä".repeat(15_000);
    let deep = format!(r#"{{"code":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    vec![
        endless("a body without end or length", &format!("{HEAD}\r\n"), "{\"code\":"),
        endless("a body of chunks", &format!("{HEAD}transfer-encoding: chunked\r\n\r\n"), "5\r\n12345\r\n"),
        endless(
            "a chunk of any size",
            &format!("{HEAD}transfer-encoding: chunked\r\n\r\nfffffffffffffff\r\n"),
            " ",
        ),
        endless(
            "a size beyond numbers",
            &format!("{HEAD}transfer-encoding: chunked\r\n\r\n"),
            "ffffffffffffffffff",
        ),
        endless("an extension of a chunk", &format!("{HEAD}transfer-encoding: chunked\r\n\r\n5;"), "x=y;"),
        endless("trailers", &format!("{HEAD}transfer-encoding: chunked\r\n\r\n0\r\n"), "x-trailer: 1\r\n"),
        endless(
            "a body of the largest length",
            &format!("{HEAD}content-length: 18446744073709551615\r\n\r\n"),
            " ",
        ),
        endless("headers", HEAD, "x-header: value\r\n"),
        endless("a header", &format!("{HEAD}x-header: "), "value"),
        endless("a status line", "HTTP/1.1 200 ", "OK"),
        endless("interim answers", "", "HTTP/1.1 100 Continue\r\n\r\n"),
        endless("early hints", "", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"),
        endless("no HTTP", "", "\u{1b}[31m\n"),
        dripping("a head by the byte", "HTTP/1.1 200 OK\r\nx-slow: "),
        dripping("a body by the byte", &format!("{HEAD}\r\n")),
        dripping("nothing at first", ""),
        whole("compressed", "content-encoding: gzip\r\n", &bomb),
        whole("many headers", &headers, br#"{"code":"0000"}"#),
        whole("a long code", "", format!(r#"{{"code":"{long}"}}"#).as_bytes()),
        whole("a long message", "", format!(r#"{{"code":"7777","msg":"{long}"}}"#).as_bytes()),
        whole("a deep code", "", deep.as_bytes()),
        whole("a wait of ages", "retry-after: 99999999999999999999999999\r\n", br#"{"code":"0429"}"#),
        whole("a wait until the end of time", "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n", b""),
        whole("two lengths", "content-length: 5\r\n", br#"{"code":"0000"}"#),
    ]
}

/// The redirects lead to where they come from.
fn redirects(address: SocketAddr) -> Vec<Answer> {
    [301, 302, 303, 307, 308]
        .map(|status| {
            let start = format!(
                "HTTP/1.1 {status} Elsewhere\r\nlocation: http://{address}/{status}\r\ncontent-length: 0\r\n\r\n"
            );
            Answer { name: "a redirect", start: start.into(), then: Vec::new(), pause: Duration::ZERO }
        })
        .to_vec()
}

/// Gives the answer of the moment to every call; counts them.
async fn serve(listener: TcpListener, answer: watch::Receiver<Arc<Answer>>, calls: watch::Sender<u64>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (answer, calls) = (Arc::clone(&answer.borrow()), calls.clone());
        connections.spawn(async move {
            // The caller hanging up is the usual end.
            let _ = give(stream, &answer, &calls).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn give(mut stream: TcpStream, answer: &Answer, calls: &watch::Sender<u64>) -> std::io::Result<()> {
    let mut request = [0; 4096];
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    calls.send_modify(|calls| *calls += 1);
    stream.write_all(&answer.start).await?;
    if answer.then.is_empty() {
        // One call a connection.
        return stream.shutdown().await;
    }
    loop {
        sleep(answer.pause).await;
        stream.write_all(&answer.then).await?;
    }
}

#[tokio::test]
async fn whatever_it_answers_costs_a_call_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut world = World::new().await;
    world.set("endpoint.url", &format!("http://{address}/")).set("endpoint.timeout", "1s");
    world.set("endpoint.connect_timeout", "1s").set("retry.max_retry_after", "50ms");
    world.set("retry.max", "50ms").set("health.probe_max", "50ms").set("log.level", "info");
    // Each throttled answer halves it.
    world.set("endpoint.requests_per_second", "100000");
    let all: Vec<_> = answers().into_iter().chain(redirects(address)).collect();
    let (change, answer) = watch::channel(Arc::new(all[0].clone()));
    let (counted, calls) = watch::channel(0);
    tokio::spawn(serve(listener, answer, counted));
    let mut worker = world.start().await;
    world.publish_ids(["VI1"]).await;
    worker.counted("messages_received_total", &[], 1.0).await;
    let before = memory(worker.process.pid(), "VmHWM");
    for each in all {
        let name = each.name;
        change.send_replace(Arc::new(each));
        let seen = *calls.borrow();
        // One may be under way since before; these two are not, and the first of them has ended.
        let what = format!("{name}: calls that end");
        worker.wait_until(&what, async |_| *calls.borrow() >= seen + 3).await;
        let grown = memory(worker.process.pid(), "VmHWM") - before;
        assert!(grown < GROWTH_MAX, "{name}: {} KiB more than before", grown >> 10);
        let status = worker.status().await.expect("the loop turns");
        assert_eq!((status.held.messages_unsettled, status.totals.ids_deleted), (1, 0), "{name}");
        assert_eq!(status.totals.messages_dead_lettered, 0, "{name}");
    }
    change.send_replace(Arc::new(whole("a success", "connection: close\r\n", br#"{"code":"0000"}"#)));
    worker.counted("ids_deleted_total", &[], 1.0).await;
    worker.endpoint_is(EndpointState::Healthy).await;
    worker.settled(&world).await;
    worker.stop().await;
    world.no_dead_letters().await;
}
