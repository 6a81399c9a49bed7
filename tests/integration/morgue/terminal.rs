//! On a terminal: util-linux's `script` gives the program one.

use deletion_worker::config::QueueType;
use tokio::process::Command;

use super::{PATIENCE, QUEUE, drain, fill, numbers, run, waiting, world};
use crate::support::process::Process;
use crate::support::world::World;

/// Runs `dead-letters` on a terminal of its own, with `input` typed, and returns the exit code and all that was seen.
async fn on_terminal(world: &World, arguments: &str, input: &str) -> (Option<i32>, String) {
    let binary = env!("CARGO_BIN_EXE_deletion-worker");
    let command = format!("{binary} dead-letters {arguments} --set amqp.urls={}", world.vhost.url);
    let mut shell = Command::new("sh");
    let typed = format!("printf '%s' '{input}' | script --quiet --return --command '{command}' /dev/null");
    shell.args(["-c", &typed]).env("TERM", "xterm");
    let mut process = Process::spawn(shell);
    let code = process.exit(PATIENCE).await.code();
    (code, process.stdout.all().join("\n"))
}

#[tokio::test]
async fn a_replay_shows_its_rate_and_the_time_left() {
    let world = world(QueueType::Quorum).await;
    fill(&world, 0..5_000, 5_000).await;
    waiting(&world, QUEUE, 5_000).await;
    let (code, seen) = on_terminal(&world, "replay --rate 2500", "").await;
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("/5,000 letters, ") && seen.contains("/s, ") && seen.contains(" left"), "{seen}");
    assert!(seen.contains("replayed 5000 letters, skipped 0, refused 0"), "{seen}");
    assert_eq!(numbers(&drain(&world, "deletions").await), (0..5_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn without_a_terminal_there_are_no_bars() {
    let world = world(QueueType::Quorum).await;
    fill(&world, 0..30, 30).await;
    let end = run(&world, &["replay", "--rate", "5"]).await.fine();
    assert!(end.err.contains(" of 30; ") && end.err.contains("/s, "), "{end:?}");
    assert!(!end.err.contains('\u{1b}') && !end.out.contains('\u{1b}'), "{end:?}");
}

#[tokio::test]
async fn purge_asks_and_takes_no_for_an_answer() {
    let world = world(QueueType::Quorum).await;
    fill(&world, 0..3, 4).await;
    waiting(&world, QUEUE, 3).await;
    for (answer, said, left) in
        [("n\n", "removed nothing", 3), ("\n", "removed nothing", 3), ("y\n", "removed 3 dead", 0)]
    {
        let (code, seen) = on_terminal(&world, "purge", answer).await;
        assert_eq!(code, Some(0), "{seen}");
        assert!(seen.contains("Remove these 3 dead letters for good? [y/N]"), "{seen}");
        assert!(seen.contains("3      rejected") && seen.contains(said), "{seen}");
        waiting(&world, QUEUE, left).await;
    }
}
