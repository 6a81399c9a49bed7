//! From the message on the queue to the settled message.

use crate::support::world::World;

#[tokio::test]
async fn a_backlog_leaves_in_full_calls() {
    let world = World::new().await;
    world.prepare().await;
    world.publish_ids((0..1234).map(|n| format!("VI{n}"))).await;
    let mut worker = world.start().await;
    world.deleted(1234).await;
    worker.settled(&world).await;
    let calls = world.mock.calls();
    assert_eq!(calls.iter().map(|call| call.size).collect::<Vec<_>>(), [500, 500, 234]);
    assert!(calls.iter().all(|call| call.method == "DELETE"));
    worker.stop().await;
}
