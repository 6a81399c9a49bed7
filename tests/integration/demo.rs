//! `deletion-worker demo`, run as its audience runs it.

use std::fs;

use tokio::process::Command;

use crate::support::process::Process;
use crate::support::{PATIENCE, broker, wait_for, wait_for_some};

const URLS: &str = "DELETION_WORKER__AMQP__URLS";
const QUEUE: &str = "DELETION_WORKER__AMQP__QUEUE";
const DEAD_QUEUE: &str = "DELETION_WORKER__DEAD_LETTER__QUEUE";

/// The demo on the shared broker.
async fn demo(messages: &str) -> Process {
    let shared = broker::shared().await;
    let management = shared.management().expect("the tests need it");
    demo_at(&shared.amqp_url("/"), management.base().as_str(), messages)
}

fn demo_at(amqp: &str, management: &str, messages: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deletion-worker"));
    command
        .args(["demo", "--messages", messages])
        .env("AMQP_URL", amqp)
        .env("RABBITMQ_MANAGEMENT_URL", management)
        // Neither is the demo's worker's business.
        .env("DELETION_WORKER__BATCH__LINGER", "none of it")
        .env("HTTP_PROXY", "http://127.0.0.1:1");
    Process::spawn(command)
}

/// A variable of a process, if it can be looked into.
fn variable(pid: &str, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let environ = String::from_utf8_lossy(&environ).into_owned();
    environ.split('\0').find_map(|it| Some(it.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn processes() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Shells and workers that were told to find their broker there.
fn workers_at(url: &str) -> Vec<String> {
    processes().filter(|pid| variable(pid, URLS).as_deref() == Some(url)).collect()
}

/// Where a running demo has its worker.
async fn stage_of(demo: &Process) -> String {
    told(demo, URLS).await
}

/// What a running demo tells its worker under this name.
async fn told(demo: &Process, name: &str) -> String {
    demo.stderr.wait_for("Publishing", PATIENCE).await;
    let parent = format!("PPid:\t{}", demo.pid());
    wait_for_some("the worker's shell", PATIENCE, async || {
        let is_child = |pid: &String| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|status| status.lines().any(|line| line == parent))
        };
        processes().filter(is_child).find_map(|pid| variable(&pid, name))
    })
    .await
}

/// The virtual host in a URL.
fn vhost(url: &str) -> &str {
    let (_, vhost) = url.rsplit_once('/').expect("the demo has one of its own");
    assert!(vhost.starts_with("deletion-worker-demo-"), "{vhost}");
    vhost
}

async fn vhosts() -> Vec<String> {
    let management = broker::shared().await.management().expect("the tests need it");
    management.vhosts().await.expect("the broker serves")
}

#[tokio::test]
async fn what_is_planned_is_what_happens() {
    let mut demo = demo("5000").await;
    let url = stage_of(&demo).await;
    let status = demo.exit(2 * PATIENCE).await;
    let (out, err) = (demo.stdout.all().join("\n"), demo.stderr.all().join("\n"));
    assert_eq!(status.code(), Some(0), "{out}\n{err}");
    for line in [
        "  messages                5000",
        "  ok     messages left in the queue: 0",
        "  ok     IDs the endpoint didn't delete: 0",
        "  ok     dead letters: malformed: 6",
        "  ok     dead letters: rejected: 5",
        "  ok     dead letters: retries_exhausted: 0",
        "  ok     the worker's exit code: 0",
    ] {
        assert!(out.lines().any(|it| it == line), "{line:?} in\n{out}");
    }
    assert!(!out.contains("WRONG"), "{out}");
    for step in
        ["the endpoint throttles", "the quota is back", "the endpoint is down", "the endpoint is back"]
    {
        assert!(err.contains(step), "{step:?} in\n{err}");
    }
    assert!(demo.stderr.all().len() < 30, "a flood:\n{err}");
    assert_eq!(workers_at(&url), [""; 0]);
    assert!(!vhosts().await.iter().any(|it| it == vhost(&url)), "{url} is left");
}

#[tokio::test]
async fn an_interrupt_leaves_nothing() {
    for signal in ["TERM", "INT"] {
        let mut demo = demo("200000").await;
        let url = stage_of(&demo).await;
        assert!(vhosts().await.iter().any(|it| it == vhost(&url)), "there is no {url}");
        demo.signal(signal).await;
        let status = demo.exit(PATIENCE).await;
        let err = demo.stderr.all().join("\n");
        assert_eq!(status.code(), Some(1), "{err}");
        assert!(err.ends_with("error: interrupted"), "{err}");
        assert_eq!(demo.stdout.all(), [""; 0]);
        assert_eq!(workers_at(&url), [""; 0]);
        assert!(!vhosts().await.iter().any(|it| it == vhost(&url)), "{url} is left");
    }
}

#[tokio::test]
async fn without_the_management_api_queues_of_its_own_are_used_and_deleted() {
    let stage = broker::vhost().await;
    let mut demo = demo_at(&stage.url, "http://127.0.0.1:1", "200000");
    assert_eq!(stage_of(&demo).await, stage.url);
    let queues = [told(&demo, QUEUE).await, told(&demo, DEAD_QUEUE).await];
    for queue in &queues {
        assert!(queue.starts_with("deletion-worker-demo-"), "{queue}");
        stage.management.queue(&stage.name, queue).await.expect("it is there");
    }
    demo.signal("TERM").await;
    assert_eq!(demo.exit(PATIENCE).await.code(), Some(1));
    for queue in &queues {
        let gone = stage.management.queue(&stage.name, queue).await.expect_err("it is deleted");
        assert_eq!(gone.status().map(|status| status.as_u16()), Some(404), "{gone}");
    }
}

#[tokio::test]
async fn the_worker_does_not_survive_a_killed_demo() {
    let mut demo = demo("200000").await;
    let url = stage_of(&demo).await;
    demo.signal("KILL").await;
    demo.exit(PATIENCE).await;
    wait_for("the worker's end", PATIENCE, async || workers_at(&url).is_empty()).await;
    // Nobody was left to do it.
    let management = broker::shared().await.management().expect("the tests need it");
    management.delete_vhost(vhost(&url)).await.expect("it is there");
}

#[tokio::test]
async fn a_worker_that_dies_ends_the_demo_and_is_quoted() {
    let mut demo = demo("200000").await;
    let url = stage_of(&demo).await;
    let program = fs::canonicalize(env!("CARGO_BIN_EXE_deletion-worker")).expect("it was built");
    let is_worker = |pid: &&String| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    let workers = workers_at(&url);
    let worker = workers.iter().find(is_worker).expect("it runs");
    let killed = Command::new("kill").args(["-s", "KILL", worker]).status().await;
    assert!(killed.is_ok_and(|status| status.success()));
    let status = demo.exit(PATIENCE).await;
    let err = demo.stderr.all().join("\n");
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("The worker's log ends with:\n{\"timestamp\""), "{err}");
    assert!(err.contains("the worker ended with exit code 137"), "{err}");
    assert!(!vhosts().await.iter().any(|it| it == vhost(&url)), "{url} is left");
}
