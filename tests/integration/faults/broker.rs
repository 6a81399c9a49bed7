//! Faults of one broker: it stops, dies, runs short of memory or patience, or somebody changes what stands on it.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions};
use lapin::types::FieldTable;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::broker::{Vhost, node};
use crate::support::world::{Worker, World};
use crate::support::{PATIENCE, wait_for, wait_for_some};

use super::drain::{Bounds, Calm, Drain, LATENCY, Lifted, Moment, PREFETCH, Row, moments};

/// The worker's connections, by what the broker lists them as.
const CONNECTIONS: [&str; 2] = ["consume", "publish"];

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn stop_app() {
    let mut row = Row::new("broker: `stop_app`, `start_app`");
    let node = node().await;
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::on(moment, Vhost::on(&node).await).await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        linger(&drain.world);
        node.ctl(&["stop_app"]).await.expect("it runs");
        worker.disconnected().await;
        drain.world.faults(|faults| faults.latency = LATENCY);
        drain.calls_ended().await;
        assert_eq!(worker.readyz().await, 503);
        let (started, lifted) = tokio::join!(node.ctl(&["start_app"]), listens(&drain, &worker));
        started.expect("it was stopped");
        drain.consumed_again(&worker, lifted).await;
        drain.world.connection = drain.world.vhost.connect().await;
        row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
    }
    row.print();
}

#[tokio::test]
async fn kill_9() {
    let mut row = Row::new("broker: `kill -9`, it starts again");
    let mut node = node().await;
    for moment in moments(Moment::Letters) {
        let mut drain = Drain::on(moment, Vhost::on(&node).await).await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        node.kill().await.expect("it runs");
        worker.disconnected().await;
        drain.calls_ended().await;
        assert_eq!(worker.readyz().await, 503);
        let (started, lifted) = tokio::join!(node.start_again(), listens(&drain, &worker));
        started.expect("its ports and files are its own");
        drain.consumed_again(&worker, lifted).await;
        drain.world.connection = drain.world.vhost.connect().await;
        row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
    }
    row.print();
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn memory_alarm() {
    let mut row = Row::new("broker: memory alarm until all in hand waits for its dead letter");
    let node = node().await;
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::on(moment, Vhost::on(&node).await).await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        linger(&drain.world);
        node.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await.expect("it runs");
        wait_for("the alarm", PATIENCE, async || {
            node.ctl(&["eval", "rabbit_alarm:get_alarms()."]).await.is_ok_and(|all| all.contains("memory"))
        })
        .await;
        drain.world.faults(|faults| faults.latency = LATENCY);
        // Acknowledgements go by a connection of their own, which is not blocked.
        only_letters_wait(&drain.world, &worker).await;
        assert_eq!(worker.readyz().await, 200);
        let placed = worker.status().await.expect("it runs").totals.messages_dead_lettered;
        let lifted = drain.lifted();
        node.ctl(&["set_vm_memory_high_watermark", "0.9"]).await.expect("it runs");
        drain
            .again("dead letters are stored again", lifted, async |_| placed_more(&worker, placed).await)
            .await;
        assert_eq!(worker.metric("broker_reconnects_total", &[]).await, 0.0);
        row.add(drain.verify(worker, Bounds::NONE).await);
    }
    row.print();
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn consumer_timeout() {
    let mut row = Row::new("broker: calls take longer than the `consumer_timeout`");
    let node = node().await;
    // For new channels.
    let impatient = "application:set_env(rabbit, consumer_timeout, 2000), \
                     application:set_env(rabbit, channel_tick_interval, 500).";
    node.ctl(&["eval", impatient]).await.expect("it runs");
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::on(moment, Vhost::on(&node).await).await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        drain.world.faults(|faults| faults.latency = Duration::from_secs(4));
        worker.process.stderr.wait_for("consumer_timeout", PATIENCE).await;
        drain.world.faults(|faults| faults.latency = LATENCY);
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
    }
    row.print();
}

#[tokio::test]
async fn connections_closed_by_an_operator() {
    let mut row = Row::new("broker: connections closed by an operator");
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::new(moment).await;
        drain.fill().await;
        let worker = drain.world.start().await;
        let names = connections(&drain.world.vhost).await;
        drain.reached().await;
        close(&drain.world.vhost, &names).await;
        let lifted = drain.lifted();
        worker.reconnected(1).await;
        drain.consumed_again(&worker, lifted).await;
        row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
    }
    row.print();
}

#[tokio::test]
async fn queue_deleted() {
    let mut row = Row::new("broker: queue deleted, declared again by the worker, everything published again");
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::new(moment).await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        let vhost = &drain.world.vhost;
        vhost.management.delete_queue(&vhost.name, "deletions").await.expect("it exists");
        let lifted = drain.lifted();
        drain
            .again("it consumes from the new queue", lifted, async |_| {
                let status = worker.status().await.expect("it runs");
                status.totals.broker_reconnects > 0 && worker.is_consuming().await
            })
            .await;
        worker.process.stderr.wait_for("queue `deletions` was deleted", PATIENCE).await;
        drain.fill_again().await;
        row.add(drain.verify(worker, Bounds::NONE).await);
    }
    row.print();
}

#[tokio::test]
async fn permissions_revoked() {
    let mut row = Row::new("broker: permissions revoked, connections closed; granted again");
    for moment in moments(Moment::Calls) {
        let mut drain = Drain::new(moment).await;
        let (api, name) = (drain.world.vhost.management.clone(), drain.world.vhost.name.clone());
        // A user of the worker's own, named as its virtual host.
        api.set_user(&name, "secret", "").await.expect("the broker serves");
        api.set_permissions(&name, &name, [".*"; 3]).await.expect("the user exists");
        let url = drain.world.vhost.url_as(&name, "secret");
        drain.world.set("amqp.urls", &url);
        drain.fill().await;
        let worker = drain.world.start().await;
        let names = connections(&drain.world.vhost).await;
        drain.reached().await;
        api.clear_permissions(&name, &name).await.expect("it has some");
        close(&drain.world.vhost, &names).await;
        let line = worker.process.stderr.wait_for("does not let user", PATIENCE).await;
        assert!(line.contains(&format!("into vhost `{name}`")), "{line}");
        assert_eq!(worker.readyz().await, 503);
        drain.calls_ended().await;
        api.set_permissions(&name, &name, [".*"; 3]).await.expect("the user exists");
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
        api.delete_user(&name).await.expect("it exists");
    }
    row.print();
}

#[tokio::test]
async fn dead_letter_exchange_deleted() {
    let mut row = Row::new("broker: dead-letter exchange deleted, declared again by an operator");
    for moment in moments(Moment::Letters) {
        let mut drain = Drain::new(moment).await;
        drain.fill().await;
        let worker = drain.world.set("amqp.declare", "verify").start().await;
        drain.reached().await;
        let channel = drain.world.connection.create_channel().await.expect("an open connection");
        let (exchange, queue) = ("deletions.dlx", "deletions.dead");
        let delete = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
        delete.await.expect("it exists");
        worker.process.stderr.wait_for("dead letters can't be stored", PATIENCE).await;
        only_letters_wait(&drain.world, &worker).await;
        let placed = worker.status().await.expect("it runs").totals.messages_dead_lettered;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let none = FieldTable::default();
        let declare = channel.exchange_declare(exchange.into(), ExchangeKind::Fanout, durable, none.clone());
        declare.await.expect("nobody else declares it");
        let bind =
            channel.queue_bind(queue.into(), exchange.into(), "".into(), QueueBindOptions::default(), none);
        bind.await.expect("both exist");
        let lifted = drain.lifted();
        drain
            .again("dead letters are stored again", lifted, async |_| placed_more(&worker, placed).await)
            .await;
        row.add(drain.verify(worker, Bounds::NONE).await);
    }
    row.print();
}

#[tokio::test]
async fn dead_letter_queue_full() {
    let mut row = Row::new("broker: dead-letter queue full with `reject-publish`, then emptied of its limit");
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::new(moment).await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        limit_dead_letters(&drain.world, 1).await;
        let line = worker.process.stderr.wait_for("refused", PATIENCE).await;
        assert!(line.contains("deletions.dlx") && line.contains("deletions.dead"), "{line}");
        only_letters_wait(&drain.world, &worker).await;
        let placed = worker.status().await.expect("it runs").totals.messages_dead_lettered;
        limit_dead_letters(&drain.world, 1_000_000).await;
        let lifted = drain.lifted();
        drain
            .again("dead letters are stored again", lifted, async |_| placed_more(&worker, placed).await)
            .await;
        row.add(drain.verify(worker, Bounds::NONE).await);
    }
    row.print();
}

/// Has the endpoint take its time from now on, so that something is left to be done when a tool has done its work.
fn linger(world: &World) {
    world.faults(|faults| faults.latency = Duration::from_secs(2));
}

/// Waits until the broker takes connections again, which is when its fault has ended. Until then the worker has to be
/// calm.
async fn listens(drain: &Drain, worker: &Worker) -> Lifted {
    let address = drain.world.vhost.address();
    let calm = Calm::from_now_on(worker);
    wait_for("the broker listens", 2 * PATIENCE, async || TcpStream::connect(&address).await.is_ok()).await;
    calm.verify(worker);
    drain.lifted()
}

/// Waits until everything that the worker may have in hand waits for its dead letter: by its own word, and by the
/// broker's all else is acknowledged.
async fn only_letters_wait(world: &World, worker: &Worker) {
    wait_for("all in hand waits for its dead letter", PATIENCE, async || {
        let Some(held) = worker.status().await.map(|status| status.held) else { return false };
        let queue = world.vhost.management.queue(&world.vhost.name, "deletions").await;
        let is_acknowledged = queue.is_ok_and(|queue| {
            queue.unacked == held.messages_unsettled && (queue.ready == 0 || queue.unacked == PREFETCH)
        });
        is_acknowledged && held.messages_unsettled > 0 && held.ids_pending == 0 && held.ids_in_flight == 0
    })
    .await;
}

async fn placed_more(worker: &Worker, before: u64) -> bool {
    worker.status().await.is_some_and(|status| status.totals.messages_dead_lettered > before)
}

async fn limit_dead_letters(world: &World, max: u64) {
    let limit = json!({ "max-length": max, "overflow": "reject-publish" });
    let vhost = &world.vhost;
    vhost.management.set_policy(&vhost.name, "full", "^deletions.dead$", limit).await.expect("it serves");
}

/// The broker's names for the worker's connections.
async fn connections(vhost: &Vhost) -> Vec<String> {
    wait_for_some("both connections of the worker show", PATIENCE, async || {
        let connections = vhost.management.connections(&vhost.name).await.expect("the broker serves");
        let names: Vec<_> = connections
            .into_iter()
            .filter(|connection| {
                let client = connection.client.as_deref().unwrap_or_default();
                CONNECTIONS.iter().any(|purpose| client.ends_with(purpose))
            })
            .map(|connection| connection.name)
            .collect();
        (names.len() == CONNECTIONS.len()).then_some(names)
    })
    .await
}

/// Closes connections as an operator would.
async fn close(vhost: &Vhost, names: &[String]) {
    for name in names {
        vhost.management.close_connection(name).await.expect("it is open");
    }
}
