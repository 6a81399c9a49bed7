//! A million dead letters, in the memory of a thousand.

use std::io::Write as _;

use deletion_worker::config::QueueType;

use super::{PATIENCE, QUEUE, dead, drain, epitaph, numbers, waiting, world};
use crate::support::amqp;
use crate::support::process::Process;
use crate::support::world::World;

/// What the memory may grow by from a thousand letters to a million, in KiB.
const GROWTH_MAX: u64 = 16 * 1024;

#[tokio::test]
#[ignore = "run by make test-slow, as it takes minutes"]
async fn a_million_letters_need_no_more_memory_than_a_thousand() {
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        let world = world(queue_type).await;
        let mut peaks = Vec::new();
        for letters in [1_000, 1_000_000] {
            let start = amqp::ready(&world.connection, QUEUE).await;
            for from in (start..letters).step_by(20_000) {
                let to = letters.min(from + 20_000);
                let bodies = (from..to).map(|number| format!(r#"{{"videoNo":"VI{number}"}}"#));
                amqp::publish(&world.connection, "", QUEUE, dead(epitaph("rejected", "0001")), bodies).await;
            }
            waiting(&world, QUEUE, letters).await;
            for task in [&["list"][..], &["show"], &["export"], &["replay", "--dry-run"]] {
                let peak = peak(&world, task).await;
                let _ =
                    writeln!(std::io::stderr(), "{queue_type:?}, {letters} letters, {task:?}: {peak} KiB");
                peaks.push((letters, peak));
                waiting(&world, QUEUE, letters).await;
            }
        }
        let most = |letters| peaks.iter().filter(|(of, _)| *of == letters).map(|(_, peak)| *peak).max();
        let growth =
            most(1_000_000).zip(most(1_000)).map(|(million, thousand)| million.saturating_sub(thousand));
        assert!(growth.is_some_and(|growth| growth < GROWTH_MAX), "{peaks:?}");
        let left = numbers(&drain(&world, QUEUE).await);
        assert!(left.iter().copied().eq(0..1_000_000), "{queue_type:?}: in their order");
    }
}

/// The most memory that a task has needed, in KiB.
async fn peak(world: &World, task: &[&str]) -> u64 {
    let binary = env!("CARGO_BIN_EXE_deletion-worker");
    let mut shell = tokio::process::Command::new("sh");
    let url = &world.vhost.url;
    let command = format!("exec {binary} dead-letters {} --set amqp.urls={url} > /dev/null", task.join(" "));
    shell.args(["-c", &command]);
    let mut process = Process::spawn(shell);
    let status = format!("/proc/{}/status", process.pid());
    let mut peak = 0;
    let code = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = now.map_or(peak, |now: u64| now.max(peak));
        let end = tokio::time::timeout(std::time::Duration::from_millis(20), process.wait()).await;
        if let Ok(code) = end {
            break code;
        }
    };
    assert_eq!(code, Some(0), "{:?} after {PATIENCE:?} at most", process.stderr.all());
    peak
}
