//! v1.2's namespaces: part of the call, never mixed. v1.0 knows none.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::world::World;

fn message(id: &str, namespace: &str) -> String {
    format!(r#"{{"videoNo":"{id}","namespace":"{namespace}"}}"#)
}

/// The IDs that were called, by namespace.
fn called(world: &World) -> BTreeMap<Option<String>, BTreeSet<String>> {
    let mut called = BTreeMap::<_, BTreeSet<_>>::new();
    for call in world.mock.calls() {
        called.entry(call.namespace).or_default().extend(call.ids.iter().map(ToString::to_string));
    }
    called
}

#[tokio::test]
async fn the_same_id_of_two_namespaces_is_two_ids() {
    let mut world = World::new().await;
    world.v1_2();
    world.prepare().await;
    let bodies = (0..250).flat_map(|n| {
        let id = format!("VI{n}");
        [message(&id, "a"), message(&id, "b&unique_id=c"), format!(r#"["{id}"]"#), message(&id, "a")]
    });
    world.publish(bodies).await;
    let mut worker = world.start().await;
    worker.counted("messages_settled_total", &[("outcome", "deleted")], 1000.0).await;
    worker.settled(&world).await;
    let all: BTreeSet<String> = (0..250).map(|n| format!("VI{n}")).collect();
    let namespaces = ["a", "b&unique_id=c", "default"].map(|namespace| (Some(namespace.into()), all.clone()));
    assert_eq!(called(&world), BTreeMap::from(namespaces));
    for call in world.mock.calls() {
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/serve/api/v1/delete_videos"));
        assert_eq!(call.headers["content-type"], "application/json");
        assert!(call.size <= 100, "{call:?}");
    }
    worker.stop().await;
    world.no_dead_letters().await;
}

#[tokio::test]
async fn a_backlog_of_v1_2_leaves_in_calls_of_its_limit() {
    let mut world = World::new().await;
    world.unset("batch.linger"); // a busy broker must not cost a call
    world.v1_2();
    world.prepare().await;
    world.publish_ids((0..320).map(|n| format!("VI{n}"))).await;
    let mut worker = world.start().await;
    world.deleted(320).await;
    worker.settled(&world).await;
    let mut sizes: Vec<usize> = world.mock.calls().iter().map(|call| call.size).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [20, 100, 100, 100]);
    worker.stop().await;
}

#[tokio::test]
async fn a_configured_namespace_is_for_messages_that_name_none() {
    let mut world = World::new().await;
    world.v1_2().set("endpoint.namespace", "tenant-7");
    let mut worker = world.start().await;
    world.publish([message("VI1", "other"), r#"["VI2"]"#.into(), message("VI3", "tenant-7")]).await;
    world.deleted(3).await;
    worker.settled(&world).await;
    let called = called(&world);
    assert_eq!(called[&Some("other".into())], ["VI1".to_owned()].into());
    assert_eq!(called[&Some("tenant-7".into())], ["VI2".to_owned(), "VI3".to_owned()].into());
    assert_eq!(called.len(), 2);
    worker.stop().await;
}

#[tokio::test]
async fn v1_0_ignores_namespaces() {
    let world = World::new().await;
    world.prepare().await;
    world.publish((0..30).map(|n| message(&format!("VI{}", n / 3), &format!("ns{}", n % 3)))).await;
    let mut worker = world.start().await;
    world.deleted(10).await;
    worker.settled(&world).await;
    // One call, in which each ID stands once.
    assert_eq!(called(&world).into_keys().collect::<Vec<_>>(), [None]);
    assert_eq!(world.mock.calls().iter().map(|call| call.size).collect::<Vec<_>>(), [10]);
    assert_eq!(worker.metric("messages_settled_total", &[("outcome", "deleted")]).await, 30.0);
    worker.stop().await;
}
