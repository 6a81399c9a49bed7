//! What is wrong at the start: waited for where that helps, and said in a sentence where it doesn't.

use std::time::Duration;

use serde_json::json;

use crate::support::PATIENCE;
use crate::support::proxy::{Mode, Proxy};
use crate::support::world::{TOKEN, World, ids};

#[tokio::test]
async fn a_broker_that_is_not_there_yet_is_awaited() {
    let mut world = World::new().await;
    let mut proxy = world.proxy().await;
    proxy.set(Mode::Refuse).await;
    let mut worker = world.launch().await;
    let line = worker.process.stderr.wait_for("waiting for the broker", PATIENCE).await;
    assert!(line.contains(&proxy.address.to_string()), "it says which one: {line}");
    assert_eq!(worker.readyz().await, 503);
    proxy.set(Mode::Pass).await;
    worker.wait_until("it consumes", async |worker| worker.is_consuming().await).await;
    assert_eq!(worker.readyz().await, 200);
    world.publish_ids(ids(3)).await;
    world.deleted(3).await;
    worker.stop().await;
}

#[tokio::test]
async fn one_of_several_brokers_is_enough() {
    let mut world = World::new().await;
    let (mut dead, mut silent) = (dead_end(&world).await, dead_end(&world).await);
    dead.set(Mode::Refuse).await;
    silent.set(Mode::Pause).await;
    let [dead, silent] = [&dead, &silent].map(|proxy| world.vhost.url_through(proxy.address));
    let urls = format!("{dead},{silent},{}", world.vhost.url);
    world.set("amqp.urls", &urls);
    let mut worker = world.start().await;
    world.publish_ids(ids(3)).await;
    world.deleted(3).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_refused_login_names_user_and_vhost_and_no_password() {
    let mut world = World::new().await;
    let url = world.vhost.url_as("guest", "hunter2");
    let sentence = world.set("amqp.urls", &url).refused().await;
    assert!(sentence.contains("`guest`") && sentence.contains("amqp.urls"), "{sentence}");

    let (mut url, name) = (url::Url::parse(&world.vhost.url).expect("well-formed"), "no-such-vhost");
    url.set_path(name);
    let sentence = world.set("amqp.urls", url.as_str()).refused().await;
    assert!(
        sentence.contains("vhost `no-such-vhost`") && sentence.contains("create the vhost"),
        "{sentence}"
    );

    let (api, user) = (&world.vhost.management, world.vhost.name.clone());
    api.set_user(&user, "hunter2", "").await.expect("the broker serves");
    api.set_permissions(&world.vhost.name, &user, ["^$", ".*", ".*"]).await.expect("the user exists");
    let url = world.vhost.url_as(&user, "hunter2");
    let sentence = world.set("amqp.urls", &url).refused().await;
    world.vhost.management.delete_user(&user).await.expect("it exists");
    assert!(sentence.contains(&format!("user `{user}` has no permission for exchange")), "{sentence}");
    assert!(sentence.contains("`verify`"), "{sentence}");
}

#[tokio::test]
async fn a_queue_that_is_not_as_configured_is_named() {
    let mut world = World::new().await;
    let api = &world.vhost.management;
    api.declare_queue(&world.vhost.name, "deletions", json!({ "x-queue-type": "classic" }))
        .await
        .expect("a fresh queue");
    let sentence = world.refused().await;
    assert!(sentence.contains("queue `deletions`") && sentence.contains("not as configured"), "{sentence}");
    assert!(sentence.contains("inequivalent arg") && sentence.contains("amqp.declare"), "{sentence}");

    // The way out that it names.
    let mut worker = world.set("amqp.declare", "verify").start().await;
    worker.stop().await;
}

#[tokio::test]
async fn what_is_only_verified_has_to_be_there() {
    let mut world = World::new().await;
    let sentence = world.set("amqp.declare", "verify").refused().await;
    assert!(sentence.contains("exchange `deletions.dlx` does not exist"), "{sentence}");
    world.set("amqp.declare", "create").prepare().await;
    world.vhost.management.delete_queue(&world.vhost.name, "deletions").await.expect("it exists");
    for declare in ["verify", "skip"] {
        let sentence = world.set("amqp.declare", declare).refused().await;
        assert!(sentence.contains("queue `deletions` does not exist"), "{declare}: {sentence}");
        assert!(sentence.contains("set amqp.declare to `create`"), "{declare}: {sentence}");
    }
    world.set("amqp.declare", "create").prepare().await;
    for (declare, deleted) in [("verify", 3), ("skip", 6)] {
        let mut worker = world.set("amqp.declare", declare).start().await;
        world.publish_ids((0..3).map(|n| format!("{declare}{n}"))).await;
        world.deleted(deleted).await;
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_taken_admin_port_is_named() {
    let mut world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let sentence = world.set("admin.listen", &address).refused().await;
    assert!(sentence.contains("admin.listen") && sentence.contains(&address), "{sentence}");
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_listed_before_anything_starts() {
    let mut world = World::new().await;
    world.set("batch.linger", "soon").set("endpoint.max_concurency", "3").unset("endpoint.token");
    for command in ["run", "check-config"] {
        let mut process = world.process(&[command]);
        assert_eq!(process.exit(PATIENCE).await.code(), Some(2));
        let said = process.stderr.all().join("\n");
        for part in ["batch.linger", "endpoint.token", "MAX_CONCURENCY", "MAX_CONCURRENCY"] {
            assert!(said.contains(part), "{command}: {part} in\n{said}");
        }
    }
    world.unset("batch.linger").unset("endpoint.max_concurency");
    world.set("endpoint.token_file", "/no/such/token");
    let mut process = world.process(&["run"]);
    assert_eq!(process.exit(PATIENCE).await.code(), Some(2));
    let said = process.stderr.all().join("\n");
    assert!(said.contains("endpoint.token_file") && said.contains("/no/such/token"), "{said}");
}

#[tokio::test]
async fn a_checked_configuration_shows_no_secret() {
    let mut world = World::new().await;
    let url = world.vhost.url_as("somebody", "hunter2");
    world.set("amqp.urls", &url);
    let mut process = world.process(&["check-config"]);
    assert_eq!(process.exit(PATIENCE).await.code(), Some(0), "{:#?}", process.stderr.all());
    let said = [process.stdout.all(), process.stderr.all()].concat().join("\n");
    assert!(said.contains("somebody") && said.contains("DELETION_WORKER__AMQP__URLS"), "{said}");
    assert!(!said.contains("hunter2") && !said.contains(TOKEN), "{said}");
}

/// A proxy to be switched to something that leads nowhere.
async fn dead_end(world: &World) -> Proxy {
    Proxy::start(&world.vhost.address()).await
}

impl World {
    /// Starts a worker that ends by itself with exit code 1; returns the line that says why, with the passwords that
    /// the tests use in none.
    async fn refused(&self) -> String {
        let mut process = self.process(&["run"]);
        let status = process.exit(Duration::from_secs(30)).await;
        let lines = process.stderr.all();
        assert_eq!(status.code(), Some(1), "{lines:#?}");
        assert!(!lines.concat().contains("hunter2") && !lines.concat().contains(TOKEN), "{lines:#?}");
        lines.into_iter().next_back().expect("it says why")
    }
}
