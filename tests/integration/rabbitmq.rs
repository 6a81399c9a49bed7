//! Private nodes: they keep what they should, and leave nothing.

use std::fs;
use std::io::Write;
use std::path::Path;

use lapin::types::FieldTable;
use serde_json::json;
use tokio::process::Command;

use crate::support::process::Process;
use crate::support::{PATIENCE, amqp, broker, wait_for};

/// Set for [`starts_a_node_and_waits_to_be_killed`], which is no test.
const VICTIM: &str = "DELETION_WORKER_TEST_VICTIM";

#[tokio::test]
async fn durable_messages_survive_stop_and_kill_and_nothing_is_left_after_the_drop() {
    let mut node = broker::node().await;
    let arguments = [json!({ "x-queue-type": "quorum" }), json!({ "x-queue-type": "classic" })];
    for (queue, arguments) in ["quorum", "classic"].iter().zip(arguments) {
        node.management().declare_queue("/", queue, arguments).await.expect("the node serves");
    }
    let connection = broker::connect(&node.amqp_url("/")).await;
    for queue in ["quorum", "classic"] {
        amqp::publish(&connection, "", queue, amqp::persistent(), ["one", "two", "three"]).await;
    }

    let (first, url) = (node.pid(), node.amqp_url("/"));
    node.stop().await.expect("it was running");
    assert_eq!(node.pid(), None);
    node.start_again().await.expect("its ports and files are its own");
    node.kill().await.expect("it was running");
    assert!(node.kill().await.is_err(), "it is not running any more");
    node.start_again().await.expect("its ports and files are its own");
    assert_ne!(node.pid(), first);
    assert_eq!(node.amqp_url("/"), url);

    let connection = broker::connect(&url).await;
    for queue in ["quorum", "classic"] {
        wait_for("the queue is back", PATIENCE, async || {
            amqp::counts(&connection, queue).await.is_some_and(|(ready, _)| ready == 3)
        })
        .await;
        let bodies: Vec<_> =
            amqp::take_all(&connection, queue).await.into_iter().map(|m| m.delivery.data).collect();
        assert_eq!(bodies, [&b"one"[..], b"two", b"three"]);
    }
    let directory = node.directory().to_owned();
    assert!(!processes_of(&directory).is_empty());
    drop(node);
    assert!(!directory.exists());
    wait_for("every process has ended", PATIENCE, async || processes_of(&directory).is_empty()).await;
}

#[tokio::test]
async fn a_memory_alarm_can_be_raised_and_cleared() {
    let node = broker::node().await;
    let alarms = async || node.ctl(&["eval", "rabbit_alarm:get_alarms()."]).await.expect("the node serves");
    assert_eq!(alarms().await.trim(), "[]");
    node.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await.expect("the node serves");
    wait_for("the alarm", PATIENCE, async || alarms().await.contains("memory")).await;
    node.ctl(&["set_vm_memory_high_watermark", "0.4"]).await.expect("the node serves");
    wait_for("the end of the alarm", PATIENCE, async || alarms().await.trim() == "[]").await;
    let error = node.ctl(&["no_such_command"]).await.expect_err("unknown");
    assert!(error.to_string().contains("no_such_command"), "{error}");
}

#[tokio::test]
async fn a_kill_of_its_owner_takes_the_node_along() {
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command
        .args(["--exact", "rabbitmq::starts_a_node_and_waits_to_be_killed", "--ignored", "--nocapture"])
        .env(VICTIM, "yes");
    let mut victim = Process::spawn(command);
    let line = victim.stdout.wait_for("node in ", 2 * PATIENCE).await;
    let directory = line.split_once("node in ").expect("as awaited").1.trim();
    let directory = Path::new(directory);
    assert!(directory.join("rabbitmq.conf").exists());
    assert!(processes_of(directory).len() >= 3, "at least shell, port mapper and node");
    victim.signal("KILL").await;
    victim.exit(PATIENCE).await;
    wait_for("directory and processes are gone", PATIENCE, async || {
        !directory.exists() && processes_of(directory).is_empty()
    })
    .await;
}

#[tokio::test]
#[ignore = "run by another test, as its victim"]
async fn starts_a_node_and_waits_to_be_killed() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let node = broker::node().await;
    writeln!(std::io::stdout(), "node in {}", node.directory().display()).expect("our reader waits");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn queues_connections_and_messages_show_in_the_management_api() {
    let vhost = broker::vhost().await;
    let api = &vhost.management;
    api.declare_queue(&vhost.name, "q", json!({ "x-queue-type": "quorum" })).await.expect("a fresh queue");
    assert!(api.publish(&vhost.name, "amq.default", "q", "hello").await.expect("the broker serves"));
    assert!(!api.publish(&vhost.name, "amq.default", "nowhere", "hello").await.expect("the broker serves"));
    wait_for("the sample shows the message", PATIENCE, async || {
        api.queue(&vhost.name, "q").await.is_ok_and(|queue| queue.ready == 1 && queue.unacked == 0)
    })
    .await;
    let queue = api.queue(&vhost.name, "q").await.expect("it exists");
    assert_eq!(queue.arguments["x-queue-type"], "quorum");
    let messages = api.get(&vhost.name, "q", 10).await.expect("it exists");
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].payload.as_str(), messages[0].redelivered), ("hello", false));

    let connection = vhost.connect().await;
    let name = crate::support::wait_for_some("the connection shows", PATIENCE, async || {
        let connections = api.connections(&vhost.name).await.expect("the broker serves");
        connections.into_iter().next().map(|connection| connection.name)
    })
    .await;
    api.close_connection(&name).await.expect("it is open");
    wait_for("the client notices", PATIENCE, async || !connection.status().connected()).await;

    api.delete_queue(&vhost.name, "q").await.expect("it exists");
    let error = api.queue(&vhost.name, "q").await.expect_err("deleted");
    assert_eq!(error.status().map(|status| status.as_u16()), Some(404));
}

#[tokio::test]
async fn permissions_are_obeyed() {
    let vhost = broker::vhost().await;
    let (api, user) = (&vhost.management, vhost.name.as_str());
    api.set_user(user, "secret", "").await.expect("the broker serves");
    api.set_permissions(&vhost.name, user, ["^$", "^allowed$", "^$"]).await.expect("the user exists");
    let mut url = url::Url::parse(&vhost.url).expect("well-formed");
    url.set_username(user).expect("an amqp URL has a user");
    url.set_password(Some("secret")).expect("an amqp URL has a password");
    let channel = broker::connect(url.as_str()).await.create_channel().await.expect("an open connection");
    let declared = channel.queue_declare("q".into(), Default::default(), FieldTable::default()).await;
    let refused = declared.expect_err("may not configure anything").to_string();
    assert!(refused.contains("ACCESS_REFUSED"), "{refused}");
    api.delete_user(user).await.expect("it exists");
}

/// The IDs of the processes that were started for the node in `directory`: all of them have it in their
/// environment. Linux only; elsewhere none are found.
fn processes_of(directory: &Path) -> Vec<u32> {
    let needle = directory.to_str().expect("our own name").as_bytes();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            environment.windows(needle.len()).any(|window| window == needle).then_some(pid)
        })
        .collect()
}
