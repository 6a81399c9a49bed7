//! More letters than one consumer holds.

use deletion_worker::config::QueueType;

use super::{QUEUE, QUEUE_TYPES, dead, drain, epitaph, fill, numbers, run, same_order, waiting, world};
use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, amqp, wait_for};

const LETTERS: u32 = 25_000;

#[tokio::test]
async fn reading_removes_nothing_and_reorders_nothing() {
    for queue_type in QUEUE_TYPES {
        let world = world(queue_type).await;
        fill(&world, 0..LETTERS, LETTERS).await;
        waiting(&world, QUEUE, LETTERS).await;
        for _ in 0..2 {
            let list = run(&world, &["list", "--output", "json"]).await.fine().json();
            assert_eq!(list["letters"], LETTERS, "{list}");
            assert_eq!(list["complete"], true, "{list}");
        }
        let export = run(&world, &["export"]).await.fine();
        assert_eq!(export.out.lines().count(), LETTERS as usize);
        waiting(&world, QUEUE, LETTERS).await;
        let left = numbers(&drain(&world, QUEUE).await);
        same_order(&left, &(0..LETTERS).collect::<Vec<_>>(), &format!("{queue_type:?}"));
    }
}

#[tokio::test]
async fn a_killed_reader_loses_nothing_and_reorders_nothing() {
    for queue_type in QUEUE_TYPES {
        let world = world(queue_type).await;
        fill(&world, 0..LETTERS, LETTERS).await;
        waiting(&world, QUEUE, LETTERS).await;
        let mut process = world.process(&["dead-letters", "export"]);
        // Many consumers were at work by then.
        process.stdout.wait_for("VI22000", PATIENCE).await;
        process.signal("KILL").await;
        process.exit(PATIENCE).await;
        waiting(&world, QUEUE, LETTERS).await;
        let left = numbers(&drain(&world, QUEUE).await);
        same_order(&left, &(0..LETTERS).collect::<Vec<_>>(), &format!("{queue_type:?}"));
    }
}

#[tokio::test]
async fn large_letters_are_read_whatever_they_add_up_to() {
    const LARGE: usize = 1024 * 1024;
    const COUNT: usize = 150;
    let world = world(QueueType::Quorum).await;
    let bodies = (0..COUNT).map(|number| format!(r#"{{"videoNo":"VI{number}"}}"#) + &" ".repeat(LARGE));
    amqp::publish(&world.connection, "deletions.dlx", "delete", amqp::persistent(), bodies).await;
    let list = run(&world, &["list", "--output", "json"]).await.fine().json();
    assert_eq!(list["letters"], COUNT, "{list}");
    let mut export = world.process(&["dead-letters", "export"]);
    assert_eq!(export.exit(PATIENCE).await.code(), Some(0));
    assert_eq!(export.stdout.all().len(), COUNT);
    waiting(&world, QUEUE, COUNT as u32).await;
}

#[tokio::test]
async fn a_pager_may_pause_for_longer_than_the_broker_waits_for_a_client_that_does_not_read() {
    const COUNT: usize = 400;
    let world = world(QueueType::Quorum).await;
    let bodies = (0..COUNT).map(|number| format!(r#"{{"videoNo":"VI{number}"}}"#) + &" ".repeat(200_000));
    amqp::publish(&world.connection, "", QUEUE, dead(epitaph("rejected", "0001")), bodies).await;
    waiting(&world, QUEUE, COUNT as u32).await;
    let scratch = Scratch::new("pager");
    let pipe = scratch.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("coreutils");
    assert!(made.success());
    let mut shell = tokio::process::Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_deletion-worker");
    let (url, path) = (&world.vhost.url, pipe.clone());
    let command = "dead-letters export --set amqp.heartbeat=1s --set amqp.urls=";
    shell.args(["-c", &format!("exec {binary} {command}{url} > {path}")]);
    let mut export = Process::spawn(shell);
    let output = tokio::task::spawn_blocking(move || std::fs::File::open(pipe).expect("it was made"));
    let output = output.await.expect("opening doesn't panic");
    // It lets letters in at 1 MiB a second, so this takes it longer than a broker's 15 s and 2 heartbeats.
    wait_for("letters to be let in though nobody reads", 2 * PATIENCE, async || {
        export.peak_rss() > 48 * 1024 * 1024
    })
    .await;
    let lines = tokio::task::spawn_blocking(move || {
        std::io::BufRead::lines(std::io::BufReader::new(output)).map_while(Result::ok).count()
    });
    assert_eq!(lines.await.expect("reading doesn't panic"), COUNT, "{:?}", export.stderr.all());
    assert_eq!(export.exit(PATIENCE).await.code(), Some(0), "{:?}", export.stderr.all());
    waiting(&world, QUEUE, COUNT as u32).await;
}
