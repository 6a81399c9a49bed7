//! What brokers have of late, and what they have no more.

use std::fs::File;
use std::io::Write;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::version;
use crate::support::broker::{Vhost, node};
use crate::support::world::{World, ids};
use crate::support::{PATIENCE, amqp};

/// From here on features can be deprecated, and denied.
const DEPRECATES: super::Version = (3, 12);

#[tokio::test]
async fn nothing_deprecated_is_needed() {
    let mut node = node().await;
    let denies = version(&node.management()).await >= DEPRECATES;
    if denies {
        node.stop().await.expect("it was running");
        let path = node.directory().join("rabbitmq.conf");
        let mut file = File::options().append(true).open(path).expect("the node's configuration");
        for feature in ["transient_nonexcl_queues", "global_qos"] {
            writeln!(file, "deprecated_features.permit.{feature} = false").expect("writable");
        }
        node.start_again().await.expect("nothing deprecated is in use");
    }
    let world = World::on(Vhost::on(&node).await).await;
    assert_eq!(declares_transient(&world).await, !denies, "else the rest shows nothing");

    world.faults(|faults| faults.bad_prefix = Some("BAD".into()));
    let mut worker = world.start().await;
    let ids = ids(1000);
    world.publish_ids(&ids).await;
    world.publish_ids(["BAD"]).await;
    world.publish(["garbage"]).await;
    world.dead_letters(2).await;
    world.deleted(1000).await;
    worker.settled(&world).await;
    worker.stop().await;
    world.all_deleted_once(&ids);
    world.ready(0).await;
}

#[tokio::test]
async fn feature_flags_can_be_enabled_in_a_drain() {
    let mut node = node().await;
    let mut world = World::on(Vhost::on(&node).await).await;
    world.slow_down().prepare().await;
    let ids = ids(4000);
    world.publish_ids(&ids).await;
    let mut worker = world.start().await;
    world.deleted_at_least(500).await;
    node.ctl(&["enable_feature_flag", "all"]).await.expect("none is left out by default");
    // The new store for queues and bindings, where there is one: it has to be asked for by name.
    let flags = node.ctl(&["list_feature_flags", "name", "state"]).await.expect("the node serves");
    if flags.contains("khepri_db") {
        node.ctl(&["enable_feature_flag", "--opt-in", "khepri_db"]).await.expect("it can move");
        let flags = node.ctl(&["list_feature_flags", "name", "state"]).await.expect("the node serves");
        let khepri = flags.lines().find(|line| line.starts_with("khepri_db"));
        assert!(khepri.is_some_and(|line| line.ends_with("enabled")), "{flags}");
    }
    world.deleted_at_least(1500).await;
    node.kill().await.expect("it was running");
    worker.disconnected().await;
    node.start_again().await.expect("its ports and files are its own");
    worker.reconnected(1).await;

    world.connection = world.vhost.connect().await;
    world.publish(["garbage"]).await;
    world.dead_letters(1).await;
    world.deleted(4000).await;
    worker.settled(&world).await;
    worker.stop().await;
    world.all_deleted(&ids);
    world.ready(0).await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn a_classic_queue_is_drained_likewise() {
    let mut world = World::new().await;
    world.set("amqp.queue_type", "classic").slow_down().prepare().await;
    let queue = world.vhost.management.queue(&world.vhost.name, "deletions").await.expect("it is declared");
    assert_eq!(queue.arguments["x-queue-type"], "classic");
    world.faults(|faults| faults.bad_prefix = Some("BAD".into()));
    let ids = ids(2000);
    world.publish(["garbage"]).await;
    world.publish_ids(["BAD"]).await;
    world.publish_ids(&ids).await;
    let mut killed = world.launch().await;
    world.deleted_at_least(500).await;
    killed.process.signal("KILL").await;
    killed.process.exit(PATIENCE).await;
    let mut worker = world.start().await;
    world.deleted(2000).await;
    worker.settled(&world).await;
    worker.stop().await;
    world.all_deleted(&ids);
    world.ready(0).await;
    // A kill between a dead letter and the acknowledgement of its original makes two of it.
    let letters = amqp::take_all(&world.connection, "deletions.dead").await;
    let bodies: std::collections::BTreeSet<_> = letters.iter().map(|letter| letter.data.clone()).collect();
    assert_eq!(bodies, [br#"{"videoNo":"BAD"}"#.to_vec(), b"garbage".to_vec()].into());
}

/// Whether the broker lets a queue be declared that is neither durable nor exclusive.
async fn declares_transient(world: &World) -> bool {
    let connection = world.vhost.connect().await;
    let channel = connection.create_channel().await.expect("an open connection");
    let options = QueueDeclareOptions::default();
    channel.queue_declare("transient".into(), options, FieldTable::default()).await.is_ok()
}
