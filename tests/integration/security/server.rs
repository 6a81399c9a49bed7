//! The admin server among clients that mean no good: bounded, read-only, and there for whoever asks properly.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::memory;
use crate::support::process::Process;
use crate::support::{PATIENCE, http};

/// More than the limit on connections, and a few for everything else.
const DESCRIPTORS_MAX: usize = 100;

/// A worker whose broker is away: its admin server is there all the same.
struct Server {
    process: Process,
    address: SocketAddr,
    memory_before: u64,
}

impl Server {
    async fn start() -> Self {
        let environment = [
            ("DELETION_WORKER__AMQP__URLS", "amqp://guest:guest@127.0.0.1:1/%2f"),
            ("DELETION_WORKER__ENDPOINT__TOKEN", "t"),
            ("DELETION_WORKER__ADMIN__LISTEN", "127.0.0.1:0"),
        ];
        let process = Process::start(&["run"], &environment);
        let line = process.stderr.wait_for("\"started\"", PATIENCE).await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
        let address = line["admin"].as_str().expect("the address is logged").parse().expect("an address");
        let mut server = Self { process, address, memory_before: 0 };
        server.is_scraped().await;
        server.memory_before = memory(server.process.pid(), "VmRSS");
        server
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a valid timeout");
        stream
    }

    /// Whoever asks properly is answered.
    async fn is_scraped(&self) {
        let (status, text) =
            http::get(&format!("http://{}/metrics", self.address)).await.expect("it answers");
        assert!(status == 200 && text.contains("deletion_worker_build_info"), "{status}");
    }

    fn is_bounded(&self) {
        let pid = self.process.pid();
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs, on Linux").count();
        assert!(descriptors <= DESCRIPTORS_MAX, "{descriptors} descriptors");
        let grown = memory(pid, "VmHWM").saturating_sub(self.memory_before);
        assert!(grown < 16 << 20, "{} KiB more than before", grown >> 10);
    }

    /// All that is answered to these bytes, until the connection is closed.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        // It may hang up before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn idle_connections_by_the_thousand_keep_nobody_out() {
    let server = Server::start().await;
    let mut crowd = Vec::new();
    for n in 0..2000 {
        let mut stream = server.connect();
        match n % 4 {
            0 => {}
            1 => stream.write_all(b"GET /metr").expect("sendable"),
            2 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: worker\r\nX-Slow: ").expect("sendable"),
            // Answered, but never read.
            _ => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: worker\r\n\r\n").expect("sendable"),
        }
        crowd.push(stream);
        if n % 200 == 199 {
            server.is_scraped().await;
            server.is_bounded();
        }
    }
    drop(crowd);
    server.is_scraped().await;
}

#[tokio::test]
async fn a_request_is_as_large_as_its_head_may_be() {
    let server = Server::start().await;
    let megabyte = "x".repeat(1 << 20);
    let endless = [
        "",
        "GET /",
        "GET /metrics HTTP/1.1\r\nHost: ",
        "GET /metrics HTTP/1.1\r\n\r\n",
        "POST /metrics HTTP/1.1\r\nHost: w\r\nContent-Length: 99999999999\r\n\r\n",
        "PUT /status HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n",
        "POST /readyz HTTP/1.1\r\nHost: w\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n",
    ];
    for start in endless {
        let mut stream = server.connect();
        stream.set_write_timeout(Some(PATIENCE)).expect("a valid timeout");
        stream.write_all(start.as_bytes()).expect("sendable");
        // Cut long before the end, be it by the size or by the deadline.
        let cut = (0..1024).find_map(|_| stream.write_all(megabyte.as_bytes()).err());
        let cut = cut.unwrap_or_else(|| panic!("a gigabyte after {start:?} was taken"));
        assert_ne!(cut.kind(), std::io::ErrorKind::WouldBlock, "{start:?} blocks");
        server.is_bounded();
    }
    let headers = "X-Many: 1\r\n".repeat(100_000);
    let answer = server.ask(&format!("GET /metrics HTTP/1.1\r\nHost: w\r\n{headers}\r\n"));
    assert!(!answer.contains(" 200 "), "{answer}");
    server.is_bounded();
    server.is_scraped().await;
}

#[tokio::test]
async fn nothing_but_looking_does_anything() {
    let server = Server::start().await;
    let request = |method: &str, target: &str| format!("{method} {target} HTTP/1.1\r\nHost: w\r\n\r\n");
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "SHUTDOWN", "get"] {
        for path in ["/metrics", "/status", "/healthz", "/readyz"] {
            let answer = server.ask(&request(method, path));
            assert!(answer.starts_with("HTTP/1.1 405 "), "{method} {path}: {answer}");
        }
    }
    let targets = [
        "/",
        "/metrics/",
        "/metrics/../status",
        "//metrics",
        "/%6detrics",
        "/debug/pprof",
        "/_mock/faults",
        "/shutdown",
        "/status/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "*",
    ];
    for target in targets {
        for method in ["GET", "POST", "DELETE"] {
            let answer = server.ask(&request(method, target));
            assert!(
                answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 "),
                "{target}: {answer}"
            );
            assert!(!answer.contains("root:"), "{target}: {answer}");
        }
    }
    let answer = server.ask(&request("CONNECT", "127.0.0.1:1"));
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    let answer =
        server.ask("GET /metrics HTTP/1.1\r\nHost: w\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = server.ask(&request("GET", "/readyz").repeat(10_000));
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one request a connection");
    server.is_bounded();
    server.is_scraped().await;
}

#[tokio::test]
async fn slow_clients_are_cut_off_in_the_end() {
    let server = Server::start().await;
    let mut slow: Vec<_> = (0..20).map(|_| server.connect()).collect();
    // A byte now and then resets no deadline.
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n", "w".repeat(8000));
    let mut bytes = request.bytes();
    let mut open = slow.len();
    while open > 0 {
        let byte = bytes.next().expect("cut off before it has said everything");
        slow.retain_mut(|stream| stream.write_all(&[byte]).is_ok());
        open = slow.len();
        server.is_scraped().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.is_bounded();
}
