//! `deletion-worker demo`, run as its audience runs it.

use std::time::Duration;

use tokio::process::Command;

use crate::support::process::Process;
use crate::support::{PATIENCE, broker, wait_for};

/// The demo on the shared broker.
async fn demo(messages: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deletion-worker"));
    let shared = broker::shared().await;
    command.args(["demo", "--messages", messages]).env("AMQP_URL", shared.amqp_url("/"));
    if let Some(management) = shared.management() {
        command.env("RABBITMQ_MANAGEMENT_URL", management.base().as_str());
    }
    Process::spawn(command)
}

/// Workers whose environment names the demo's virtual host.
fn workers_in(vhost: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
        .filter(|environ| {
            let environ = String::from_utf8_lossy(environ);
            environ.split('\0').any(|it| it.starts_with("DELETION_WORKER__AMQP__URLS=") && it.contains(vhost))
        })
        .count()
}

/// The virtual host that the demo's worker was seen in.
async fn vhost_of(demo: &Process) -> String {
    demo.stderr.wait_for("Publishing", PATIENCE).await;
    let connections = broker::shared().await.management().expect("the tests need it");
    crate::support::wait_for_some("the demo's virtual host", PATIENCE, async || {
        let all = connections.vhosts().await.ok()?;
        all.into_iter().find(|vhost| vhost.starts_with("deletion-worker-demo-") && workers_in(vhost) > 0)
    })
    .await
}

#[tokio::test]
async fn what_is_planned_is_what_happens_and_an_interrupt_leaves_nothing() {
    let mut whole = demo("5000").await;
    let status = whole.exit(Duration::from_secs(120)).await;
    let (out, err) = (whole.stdout.all().join("\n"), whole.stderr.all().join("\n"));
    assert_eq!(status.code(), Some(0), "{out}\n{err}");
    assert!(out.contains("  ok     dead letters: malformed: 6\n"), "{out}");
    assert!(out.contains("  ok     dead letters: rejected: 5\n"), "{out}");
    assert!(!out.contains("WRONG"), "{out}");

    for signal in ["TERM", "KILL"] {
        let mut cut = demo("1000000").await;
        let vhost = vhost_of(&cut).await;
        cut.signal(signal).await;
        let status = cut.exit(PATIENCE).await;
        assert_ne!(status.code(), Some(0));
        wait_for("the worker's end", PATIENCE, async || workers_in(&vhost) == 0).await;
        let management = broker::shared().await.management().expect("the tests need it");
        if signal == "KILL" {
            // Nobody was left to do it; what is private to the demo is harmless.
            management.delete_vhost(&vhost).await.expect("it is there");
        } else {
            let all = management.vhosts().await.expect("the broker serves");
            assert!(!all.contains(&vhost), "{vhost} is left");
        }
    }
}
