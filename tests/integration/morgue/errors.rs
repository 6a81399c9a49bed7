//! What goes wrong is said clearly, and costs nothing.

use deletion_worker::config::QueueType;
use lapin::options::QueueDeclareOptions;
use lapin::types::AMQPValue;

use super::{QUEUE, dead, epitaph, fill, headers, prepared, run, text, waiting, world};
use crate::support::amqp;
use crate::support::broker::{self, Vhost};
use crate::support::world::World;

const TASKS: [&[&str]; 5] = [&["list"], &["show"], &["replay"], &["export"], &["purge", "--yes"]];

#[tokio::test]
async fn no_queue_no_permission_no_broker() {
    let mut world = world(QueueType::Quorum).await;
    fill(&world, 0..3, 3).await;
    world.set("dead_letter.queue", "elsewhere");
    for task in TASKS {
        let end = run(&world, task).await;
        assert_eq!((end.code, end.out.as_str()), (Some(1), ""), "{end:?}");
        assert!(end.err.contains("queue `elsewhere` does not exist"), "{end:?}");
    }
    world.set("dead_letter.queue", QUEUE);
    world.vhost.management.set_user("stranger", "secret", "").await.expect("the broker serves");
    let vhost = world.vhost.name.clone();
    world
        .vhost
        .management
        .set_permissions(&vhost, "stranger", ["", "", ""])
        .await
        .expect("the broker serves");
    let url = world.vhost.url_as("stranger", "secret");
    world.set("amqp.urls", &url);
    for task in TASKS {
        let end = run(&world, task).await;
        assert_eq!((end.code, end.out.as_str()), (Some(1), ""), "{end:?}");
        assert!(end.err.contains("user `stranger` has no permission for queue `deletions.dead`"), "{end:?}");
        assert!(!end.err.contains("secret"), "{end:?}");
    }
    world.set("amqp.urls", "amqp://guest:guest@127.0.0.1:1/%2f");
    let end = run(&world, &["list"]).await;
    assert_eq!((end.code, end.out.as_str()), (Some(1), ""), "{end:?}");
    assert!(end.err.contains("the broker can't be reached within 10s"), "{end:?}");
    waiting(&world, QUEUE, 3).await;
}

#[tokio::test]
async fn a_queue_that_does_not_answer_is_not_taken_for_an_empty_one() {
    let node = broker::node().await;
    let world = prepared(World::on(Vhost::on(&node).await).await, QueueType::Quorum).await;
    fill(&world, 0..3, 3).await;
    // Whoever counts is told zero. The first run asks four times, and gives up; the second has its answer at the third.
    broker::hold_leader(&node, &world.vhost.name, QUEUE, 7).await;
    let end = run(&world, &["list"]).await;
    assert_eq!((end.code, end.out.as_str()), (Some(1), ""), "{end:?}");
    assert!(end.err.contains("queue `deletions.dead`, whose leader doesn't answer"), "{end:?}");
    let end = run(&world, &["list", "--output", "json"]).await.fine();
    assert_eq!((&end.json()["letters"], &end.json()["complete"]), (&3.into(), &true.into()), "{end:?}");
    waiting(&world, QUEUE, 3).await;
}

#[tokio::test]
async fn a_letter_that_is_looked_at_too_often_is_not_thrown_away() {
    let world = world(QueueType::Quorum).await;
    let channel = world.connection.create_channel().await.expect("an open connection");
    let limited = [("x-queue-type", text("quorum")), ("x-delivery-limit", AMQPValue::LongLongInt(20))];
    channel
        .queue_declare("limited".into(), QueueDeclareOptions::durable(), headers(&limited))
        .await
        .expect("a fresh virtual host");
    let letters = dead(epitaph("rejected", "0001"));
    amqp::publish(&world.connection, "", "limited", letters, ["1", "2", "3"]).await;
    let limited = ["list", "--set", "dead_letter.queue=limited"];
    for _ in 0..10 {
        run(&world, &limited).await.fine();
        waiting(&world, "limited", 3).await;
    }
    let end = run(&world, &limited).await;
    assert_eq!((end.code, end.out.as_str()), (Some(1), ""), "{end:?}");
    assert!(end.err.contains("has been given back 10 times") && end.err.contains("--returns-max"), "{end:?}");
    waiting(&world, "limited", 3).await;
    run(&world, &[&limited[..], &["--returns-max", "15"]].concat()).await.fine();
    waiting(&world, "limited", 3).await;
}

#[tokio::test]
async fn a_queue_of_our_own_may_be_looked_at_as_often_as_one_likes() {
    let mut world = world(QueueType::Quorum).await;
    world.set("amqp.declare", "create");
    fill(&world, 0..3, 3).await;
    for _ in 0..12 {
        assert_eq!(run(&world, &["list", "--output", "json"]).await.fine().json()["letters"], 3);
        waiting(&world, QUEUE, 3).await;
    }
}
