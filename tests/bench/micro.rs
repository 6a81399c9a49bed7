//! What a message costs in the parser and the engine, without broker, endpoint and loop: in time, by criterion, and in
//! instructions and allocations, counted by valgrind, which don't depend on what else the machine does.

use std::hint::black_box;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, io};

use criterion::{Criterion, Throughput};
use deletion_worker::answer::{Answer, Outcome};
use deletion_worker::config::OnOutage;
use deletion_worker::delivery::{Arrival, Tag};
use deletion_worker::engine::{Action, CallId, Engine, Settings, Time};
use deletion_worker::request::{self, Request};
use deletion_worker::retry::Ladder;

/// Does its work for so many messages, and says how long that took without what has to be made ready first.
type Work = fn(u64) -> Duration;

struct Operation {
    name: &'static str,
    work: Work,
    /// Instructions a message, on x86-64.
    instructions: f64,
    /// Allocations a message.
    allocations: f64,
}

const OPERATIONS: [Operation; 5] = [
    Operation { name: "parse one ID", work: parse::<1>, instructions: 1_610.0, allocations: 0.0 },
    Operation { name: "parse ten IDs", work: parse::<10>, instructions: 7_860.0, allocations: 4.0 },
    Operation { name: "engine, one ID", work: decide::<1>, instructions: 2_010.0, allocations: 0.17 },
    Operation { name: "parse and engine, one ID", work: both::<1>, instructions: 3_470.0, allocations: 0.17 },
    Operation {
        name: "parse and engine, ten IDs",
        work: both::<10>,
        instructions: 17_580.0,
        allocations: 4.22,
    },
];

/// By how much a budget may be exceeded, with the compiler that it was counted with, and with another.
const TOLERANCE: f64 = 1.05;
const COMPILER: &str = "rustc 1.95.";
const TOLERANCE_ELSEWHERE: f64 = 1.15;
/// An allocation or two in a thousand messages are a matter of where a vector's growth falls.
const ALLOCATIONS_TOLERANCE: f64 = 0.02;
/// Messages that valgrind runs; twice as many less these are what is counted.
const COUNTED: u64 = 20_000;

#[test]
#[ignore = "run by make micro"]
fn times() {
    let mut criterion = Criterion::default().warm_up_time(Duration::from_secs(1)).without_plots();
    let mut group = criterion.benchmark_group("a message");
    group.throughput(Throughput::Elements(1));
    for Operation { name, work, .. } in OPERATIONS {
        group.bench_function(name, |bencher| bencher.iter_custom(work));
    }
    group.finish();
}

/// What `BENCH` names, `COUNT` times.
#[test]
#[ignore = "run by budgets"]
fn counted() {
    let name = env::var("BENCH").expect("BENCH names an operation");
    let count = env::var("COUNT").ok().and_then(|count| count.parse().ok()).expect("COUNT says how often");
    let operation =
        OPERATIONS.iter().find(|operation| operation.name == name).expect("there is such an operation");
    (operation.work)(count);
}

#[test]
#[ignore = "run by make budget"]
fn budgets() {
    let mut out = io::stdout().lock();
    let head =
        "| a message | instructions | budget | allocations | budget |\n| --- | --- | --- | --- | --- |";
    writeln!(out, "{head}").expect("somebody listens");
    let compiler =
        Command::new("rustc").arg("--version").output().expect("cargo was there, so rustc is").stdout;
    let is_known = compiler.starts_with(COMPILER.as_bytes());
    let tolerance = if is_known { TOLERANCE } else { TOLERANCE_ELSEWHERE };
    let mut exceeded = Vec::new();
    for operation in &OPERATIONS {
        let Operation { name, instructions: most, allocations: most_allocations, .. } = operation;
        let instructions =
            growth(operation, &["--tool=callgrind", "--callgrind-out-file=/dev/null"], "Collected :");
        let allocations = growth(operation, &["--tool=memcheck", "--leak-check=no"], "total heap usage:");
        let row = format!("| {name} | {instructions:.0} | {most} | {allocations:.3} | {most_allocations} |");
        writeln!(out, "{row}").expect("somebody listens");
        if instructions > most * tolerance || allocations > most_allocations + ALLOCATIONS_TOLERANCE {
            exceeded.push(*name);
        }
    }
    // The budgets are those of one instruction set.
    assert!(exceeded.is_empty() || cfg!(not(target_arch = "x86_64")), "over budget: {}", exceeded.join("; "));
}

/// How much a count of valgrind's grows with each message.
fn growth(operation: &Operation, tool: &[&str], label: &str) -> f64 {
    let count = |messages: u64| {
        let myself = env::current_exe().expect("a test knows its program");
        let output = Command::new("valgrind")
            .args(tool)
            .arg(myself)
            .args(["--ignored", "--exact", "micro::counted"])
            .envs([("BENCH", operation.name), ("COUNT", &messages.to_string())])
            .output()
            .expect("valgrind is installed: it is Debian's package of that name");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let rest = said.split_once(label).unwrap_or_else(|| panic!("no `{label}` in {said}")).1;
        let number = rest.split_whitespace().next().expect("a number").replace(',', "");
        number.parse::<f64>().expect("a number")
    };
    (count(2 * COUNTED) - count(COUNTED)) / COUNTED as f64
}

/// A body of `IDS` documented video numbers, none of which was there before.
fn body<const IDS: usize>(message: u64) -> Vec<u8> {
    let id = |place| format!("\"VI{}\"", 600_000_000_000_000_000 + message * IDS as u64 + place);
    match IDS {
        1 => format!("{{\"videoNo\":{}}}", id(0)),
        _ => format!("{{\"videoNos\":[{}]}}", (0..IDS as u64).map(id).collect::<Vec<_>>().join(",")),
    }
    .into_bytes()
}

fn read(body: &[u8]) -> Request {
    request::parse(black_box(body), Some("application/json"), None, 10_000).expect("a request")
}

fn parse<const IDS: usize>(count: u64) -> Duration {
    let bodies: Vec<_> = (0..1_000).map(body::<IDS>).collect();
    let begun = Instant::now();
    for body in bodies.iter().cycle().take(count as usize) {
        black_box(read(body));
    }
    begun.elapsed()
}

/// The engine, with what it needs to be told of each message.
fn decide<const IDS: usize>(count: u64) -> Duration {
    let requests: Vec<_> = (0..WINDOW / IDS as u64).map(|message| read(&body::<IDS>(message))).collect();
    let mut desk = Desk::new();
    let begun = Instant::now();
    for request in requests.iter().cycle().take(count as usize) {
        desk.take(request.clone());
    }
    begun.elapsed()
}

fn both<const IDS: usize>(count: u64) -> Duration {
    let bodies: Vec<_> = (0..WINDOW / IDS as u64).map(body::<IDS>).collect();
    let mut desk = Desk::new();
    let begun = Instant::now();
    for body in bodies.iter().cycle().take(count as usize) {
        desk.take(read(body));
    }
    begun.elapsed()
}

/// IDs: more than the engine remembers, so that each is new to it when its turn comes again.
const WINDOW: u64 = 30_000;
/// Messages between two turns of the loop.
const CHUNK: u64 = 128;

/// An engine in the midst of a backlog, with a broker and an endpoint that do as they are told.
struct Desk {
    engine: Engine,
    calls: Vec<CallId>,
    tag: u64,
}

impl Desk {
    fn new() -> Self {
        let settings = Settings {
            batch_max: 500,
            linger: Duration::from_secs(1),
            concurrency_max: 4,
            rate_max: None,
            retry: Ladder::new(Duration::from_millis(500), Duration::from_secs(60), 2.0),
            strikes_max: 8,
            retry_after_max: Duration::from_secs(300),
            failure_threshold: 5,
            probe: Ladder::new(Duration::from_secs(1), Duration::from_secs(60), 2.0),
            release_after: Duration::from_secs(300),
            on_outage: OnOutage::Hold,
            prefetch: 4_500,
            namespace: None,
            grace: Duration::from_secs(25),
            dry_run: false,
        };
        let mut desk = Self { engine: Engine::new(settings, 7), calls: Vec::new(), tag: 0 };
        desk.engine.handle_connected(desk.now());
        desk.poll(desk.now());
        desk.engine.handle_consuming(desk.now());
        desk
    }

    /// A microsecond a message.
    fn now(&self) -> Time {
        Time::after_start(Duration::from_micros(self.tag))
    }

    fn take(&mut self, request: Request) {
        self.tag += 1;
        let now = self.now();
        let arrival =
            Arrival { tag: Tag(self.tag), redelivered: false, waited: true, age: None, request: Ok(request) };
        self.engine.handle_arrival(arrival, now);
        if self.tag.is_multiple_of(CHUNK) {
            self.turn(now);
        }
    }

    fn turn(&mut self, now: Time) {
        self.poll(now);
        while let Some(call) = self.calls.pop() {
            let outcome = Outcome::Deleted;
            let answer =
                Answer { outcome, code: None, http_status: None, retry_after: None, detail: String::new() };
            self.engine.handle_answer(call, answer, now);
            self.poll(now);
        }
        black_box(self.engine.take_tally());
        black_box(self.engine.deadline());
    }

    fn poll(&mut self, now: Time) {
        while let Some(action) = self.engine.poll(now) {
            if let Action::Call(call) = black_box(action) {
                self.calls.push(call.id);
            }
        }
    }
}
