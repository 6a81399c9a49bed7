//! More letters than one consumer holds.

use deletion_worker::config::QueueType;

use super::{QUEUE, QUEUE_TYPES, drain, fill, numbers, run, same_order, waiting, world};
use crate::support::{PATIENCE, amqp};

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
        // The third consumer is at work by then.
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
