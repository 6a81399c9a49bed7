use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::*;
use crate::status::BrokerState;
use crate::status::tests::status;

/// Longer than anything may take; what is awaited comes much sooner.
const DEADLINE: Duration = Duration::from_secs(60);

/// A server, and the other ends of its channels.
struct Bench {
    admin: Admin,
    metrics: Arc<Metrics>,
    readiness: watch::Sender<Readiness>,
    questions: Option<mpsc::Receiver<Question>>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (readiness, watched) = watch::channel(Readiness::NotReady("starting".into()));
        let (asked, questions) = mpsc::channel(4);
        let admin = Admin::start_within(limits, ([127, 0, 0, 1], 0).into(), metrics.clone(), watched, asked)
            .expect("a free port");
        Self { admin, metrics, readiness, questions: Some(questions) }
    }

    /// Answers questions on a thread, as the event loop would, until the server is gone.
    fn turn(&mut self) -> JoinHandle<()> {
        let mut questions = self.questions.take().expect("not turning yet");
        std::thread::spawn(move || {
            while let Some(question) = questions.blocking_recv() {
                let asker_waits = match question {
                    Question::Ping(pong) => pong.send(()).is_ok(),
                    Question::Status(reply) => reply.send(status(BrokerState::Consuming)).is_ok(),
                };
                assert!(asker_waits);
            }
        })
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.admin.address()).expect("listening");
        stream.set_read_timeout(Some(DEADLINE)).expect("a valid timeout");
        stream
    }

    /// The whole answer to a request, head and body.
    fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: worker\r\n\r\n").expect("sendable");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask("GET", path);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.strip_prefix("HTTP/1.1 ").expect("a status line")[..3].parse().expect("a status");
        (status, body.to_owned())
    }
}

/// Answers what must be a ping.
fn pong(question: Option<Question>) {
    let Some(Question::Ping(asker)) = question else { panic!("not a ping: {question:?}") };
    asker.send(()).expect("the asker remembers its ping");
}

/// Whether the server has closed the connection; waits for it up to [`DEADLINE`].
fn is_cut(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0; 1024]) {
        Ok(0) => true,
        Ok(_) => is_cut(stream),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        Err(error) => panic!("failed to see the end of the connection: {error}"),
    }
}

#[test]
fn each_page_shows_what_it_is_for() {
    let mut bench = Bench::new(LIMITS);
    let turning = bench.turn();
    bench.metrics.retries_total.inc_by(7);
    let (code, text) = bench.get("/metrics");
    assert_eq!(code, 200);
    assert!(text.contains("\ndeletion_worker_retries_total 7\n"), "{text}");
    assert!(
        bench.ask("GET", "/metrics").contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n")
    );

    assert_eq!(bench.get("/healthz"), (200, "ok\n".into()));

    let (code, text) = bench.get("/status");
    assert_eq!(code, 200);
    assert_eq!(serde_json::from_str::<Status>(&text).expect("JSON"), status(BrokerState::Consuming));

    bench.admin.stop();
    turning.join().expect("every question had an asker");
}

#[test]
fn readiness_follows_the_worker_and_says_why_not() {
    let bench = Bench::new(LIMITS);
    assert_eq!(bench.get("/readyz"), (503, "not ready: starting\n".into()));
    bench.readiness.send_replace(Readiness::Ready);
    assert_eq!(bench.get("/readyz"), (200, "ready\n".into()));
    bench.readiness.send_replace(Readiness::NotReady("connecting to the broker".into()));
    assert_eq!(bench.get("/readyz"), (503, "not ready: connecting to the broker\n".into()));
    // Brokers have words of their own.
    bench.readiness.send_replace(Readiness::NotReady("refused:\n\u{1b}[31mready\u{9b}".into()));
    assert_eq!(bench.get("/readyz"), (503, "not ready: refused:\\n\\u{1b}[31mready\\u{9b}\n".into()));
}

#[test]
fn it_is_read_only() {
    let bench = Bench::new(LIMITS);
    assert_eq!(bench.get("/").0, 404);
    assert_eq!(bench.get("/metrics/").0, 404);
    assert!(bench.get("/nothing").1.contains("/healthz"));
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(bench.ask(method, "/metrics").starts_with("HTTP/1.1 405 "), "{method}");
    }
    let head = bench.ask("HEAD", "/readyz");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_loop_that_is_stuck_is_healthy_at_first_then_not_and_healthy_again_when_it_turns() {
    let brief = Duration::from_millis(20);
    let mut bench = Bench::new(Limits { answer: brief, stuck: Duration::from_millis(300), ..LIMITS });
    let (code, text) = bench.get("/healthz");
    assert!(code == 503 || text.contains("though the event loop has not turned"), "{code} {text}");
    let mut answers = std::iter::repeat_with(|| bench.get("/healthz"));
    let (_, text) = answers.find(|(code, _)| *code == 503).expect("endless");
    assert!(text.starts_with("the event loop has not turned for "), "{text}");
    let (code, text) = bench.get("/status");
    assert_eq!((code, text.as_str()), (503, "the event loop has not answered within 20ms\n"));
    assert_eq!(bench.get("/metrics").0, 200);

    // However often it was asked, the loop finds one ping; the old status question's asker has gone.
    let mut questions = bench.questions.take().expect("not turning");
    pong(questions.try_recv().ok());
    assert!(matches!(questions.try_recv(), Ok(Question::Status(reply)) if reply.is_closed()));
    assert!(questions.try_recv().is_err());
    bench.questions = Some(questions);
    let turning = bench.turn();
    let mut answers = std::iter::repeat_with(|| bench.get("/healthz"));
    assert!(answers.any(|answer| answer == (200, "ok\n".into())));
    bench.admin.stop();
    turning.join().expect("every question had an asker");
}

#[test]
fn ten_seconds_of_silence_are_not_counted_from_a_ping_that_was_answered_late() {
    let limits = Limits { answer: Duration::from_millis(1), stuck: DEADLINE, ..LIMITS };
    let mut bench = Bench::new(limits);
    assert!(bench.get("/healthz").1.contains("though"));
    let mut questions = bench.questions.take().expect("not turning");
    pong(questions.blocking_recv());
    // The late pong is no news: the next probe sends a ping of its own.
    assert!(bench.get("/healthz").1.contains("though"));
    assert!(matches!(questions.try_recv(), Ok(Question::Ping(_))));
}

#[test]
fn a_loop_that_has_ended_is_not_healthy() {
    let mut bench = Bench::new(LIMITS);
    drop(bench.questions.take());
    assert_eq!(bench.get("/healthz"), (503, "the event loop has ended\n".into()));
    assert_eq!(bench.get("/status"), (503, "the event loop has ended\n".into()));
}

#[test]
fn a_full_question_channel_is_waited_for_like_an_answer() {
    let mut bench = Bench::new(Limits { answer: Duration::from_millis(50), ..LIMITS });
    for _ in 0..5 {
        assert_eq!(bench.get("/status").0, 503);
    }
    assert!(bench.get("/healthz").1.starts_with("ok, though"));
    let mut questions = bench.questions.take().expect("not turning");
    for _ in 0..4 {
        assert!(matches!(questions.try_recv(), Ok(Question::Status(_))));
    }
    bench.questions = Some(questions);
    let turning = bench.turn();
    let mut answers = std::iter::repeat_with(|| bench.get("/healthz"));
    assert!(answers.any(|answer| answer == (200, "ok\n".into())));
    bench.admin.stop();
    turning.join().expect("every question had an asker");
}

#[test]
fn a_client_that_dawdles_is_cut_and_blocks_nobody() {
    let bench = Bench::new(Limits { head: Duration::from_secs(2), ..LIMITS });
    let silent = bench.connect();
    let mut half = bench.connect();
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost: wor").expect("sendable");
    assert_eq!(bench.get("/readyz").0, 503);
    assert!(is_cut(&half));
    assert!(is_cut(&silent));
}

#[test]
fn a_connection_has_a_deadline_whatever_goes_on_in_it() {
    let bench = Bench::new(Limits { connection: Duration::from_millis(300), head: DEADLINE, ..LIMITS });
    let mut drip = bench.connect();
    drip.write_all(b"GET /metrics HTTP/1.1\r\n").expect("sendable");
    assert!(is_cut(&drip));
}

#[test]
fn a_flood_of_connections_is_bounded_and_keeps_no_probe_out() {
    let bench = Bench::new(Limits { connections: 8, head: DEADLINE, connection: DEADLINE, ..LIMITS });
    let flood: Vec<TcpStream> = (0..100).map(|_| bench.connect()).collect();
    assert_eq!(bench.get("/readyz").0, 503);
    let (older, newer) = flood.split_at(100 - 7);
    assert!(older.iter().all(is_cut));
    for stream in newer {
        stream.set_nonblocking(true).expect("a socket");
        let error = (&*stream).read(&mut [0; 1]).expect_err("nothing was sent, and nothing cut");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn an_oversized_head_is_refused() {
    let bench = Bench::new(LIMITS);
    let mut stream = bench.connect();
    let head = format!("GET /metrics HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    // The server may hang up before it has read everything.
    let sent = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let received = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 431 ") || sent.is_err() || received.is_err(), "{text}");
    assert!(!text.contains(" 200 "), "{text}");
    assert_eq!(bench.get("/readyz").0, 503);
}

#[test]
fn a_connection_carries_one_request() {
    let bench = Bench::new(LIMITS);
    let mut stream = bench.connect();
    let request = "GET /readyz HTTP/1.1\r\nHost: worker\r\n\r\n";
    stream.write_all(request.repeat(2).as_bytes()).expect("sendable");
    let mut answers = Vec::new();
    let _reset_or_end = stream.read_to_end(&mut answers);
    assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1").count(), 1);
}

#[test]
fn a_taken_port_is_named_with_its_key() {
    let bench = Bench::new(LIMITS);
    let address = bench.admin.address();
    let (_, readiness) = watch::channel(Readiness::Ready);
    let (questions, _) = mpsc::channel(1);
    let error =
        Admin::start(address, bench.metrics.clone(), readiness, questions).expect_err("the port is taken");
    let text = error.to_string();
    assert!(text.starts_with(&format!("listen on {address} (admin.listen): ")), "{text}");
}

#[test]
fn stopping_frees_the_port_at_once_even_with_open_connections() {
    let bench = Bench::new(LIMITS);
    let address = bench.admin.address();
    let mut half = bench.connect();
    half.write_all(b"GET ").expect("sendable");
    assert_eq!(bench.get("/readyz").0, 503);
    bench.admin.stop();
    assert!(is_cut(&half));
    assert_eq!(TcpStream::connect(address).expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
}
