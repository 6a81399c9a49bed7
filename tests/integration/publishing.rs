//! `deletion-worker publish` as an operator uses it.

use tokio::process::Command;

use crate::support::process::Process;
use crate::support::world::World;
use crate::support::{PATIENCE, amqp, wait_for};

/// A run of `publish` that reads what `source` writes.
fn publish(world: &World, source: &str, arguments: &str) -> Process {
    let binary = env!("CARGO_BIN_EXE_deletion-worker");
    let mut shell = Command::new("sh");
    let url = &world.vhost.url;
    shell.args(["-c", &format!("{source} | {binary} publish --set amqp.urls={url} {arguments}")]);
    Process::spawn(shell)
}

#[tokio::test]
async fn a_hundred_thousand_ids_come_from_standard_input() {
    let world = World::new().await;
    let mut process = publish(&world, "seq -f VI%.0f 100000", "--file - --per-message 100");
    let code = process.exit(PATIENCE).await.code();
    assert_eq!(code, Some(0), "{:?}", process.stderr.all());
    assert_eq!(process.stdout.all(), ["published 1000 messages with 100000 IDs to exchange `deletions`"]);
    assert_eq!(amqp::ready(&world.connection, "deletions").await, 1_000);
}

#[tokio::test]
async fn a_line_without_an_id_is_named_and_nothing_is_sent() {
    let world = World::new().await;
    world.prepare().await;
    let mut process = publish(&world, r"printf 'VI1\nV I2\nVI3\n'", "--file -");
    assert_eq!(process.exit(PATIENCE).await.code(), Some(2));
    let said = process.stderr.all().join("\n");
    assert!(
        said.contains("standard input line 2 has white space at character 1; nothing was sent"),
        "{said}"
    );
    assert_eq!(amqp::ready(&world.connection, "deletions").await, 0);
    let mut process = publish(&world, r"printf 'VI1\nV I2\nVI3\n'", "--file - --skip-invalid");
    assert_eq!(process.exit(PATIENCE).await.code(), Some(0));
    assert_eq!(amqp::ready(&world.connection, "deletions").await, 2);
}

#[tokio::test]
async fn interrupted_it_says_exactly_how_far_it_came() {
    let world = World::new().await;
    world.prepare().await;
    let ids: String = (0..300_000).map(|number| format!("VI{number}\n")).collect();
    let path = std::env::temp_dir().join(format!("deletion-worker-publish-{}", std::process::id()));
    std::fs::write(&path, ids).expect("writable");
    let mut process = world.process(&["publish", "--file", path.to_str().expect("UTF-8")]);
    wait_for("some to be published", PATIENCE, async || {
        amqp::ready(&world.connection, "deletions").await > 0
    })
    .await;
    process.signal("INT").await;
    let code = process.exit(PATIENCE).await.code();
    std::fs::remove_file(&path).expect("it is there");
    let said = process.stderr.all().join("\n");
    assert_eq!(code, Some(1), "{said}");
    let sent = amqp::ready(&world.connection, "deletions").await;
    let expected = format!(
        "error: interrupted; {sent} messages with {sent} IDs are confirmed, among them the first {sent} IDs; \
         to publish an ID twice does no harm"
    );
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_load_goes_on_until_it_is_told_to_stop() {
    let world = World::new().await;
    world.prepare().await;
    let mut process = world.process(&["load", "--rate", "2000", "--listen", "127.0.0.1:0"]);
    wait_for("more than two seconds' worth", PATIENCE, async || {
        amqp::ready(&world.connection, "deletions").await > 4000
    })
    .await;
    let health = process.stdout.all().join(" ");
    let url = health.split("/healthz").next().expect("it says where it listens");
    let mut check = world.process(&["healthcheck", "--url", url]);
    assert_eq!(check.exit(PATIENCE).await.code(), Some(0), "{:?}", check.stderr.all());
    process.signal("TERM").await;
    assert_eq!(process.exit(PATIENCE).await.code(), Some(0), "{:?}", process.stderr.all());
    let said = process.stdout.all().pop().expect("a summary");
    let published = said.strip_prefix("published ").and_then(|rest| rest.split(' ').next());
    let published: u32 = published.and_then(|number| number.parse().ok()).expect(&said);
    // A barrier may be on its way when the signal comes.
    let sent = amqp::ready(&world.connection, "deletions").await;
    assert!(sent >= published && sent - published <= 200, "{sent} in the queue: {said}");
}
