//! Faults of the worker itself, and of the machine under it.

use std::collections::BTreeSet;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::clock::SteppedClock;
use crate::support::proxy::Mode;
use crate::support::world::{Worker, World};
use crate::support::{PATIENCE, wait_for, wait_for_some};

use super::drain::{Bounds, Calm, Drain, Moment, Row, moments};

#[tokio::test]
async fn kill_9() {
    let mut row = Row::new("worker: `kill -9`, another one starts");
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::new(moment).await;
        drain.fill().await;
        let mut worker = drain.world.launch().await;
        drain.reached().await;
        worker.process.signal("KILL").await;
        assert_eq!(worker.process.exit(PATIENCE).await.code(), None, "a signal ended it");
        let lifted = drain.lifted();
        let worker = drain.world.launch().await;
        drain.consumed_again(&worker, lifted).await;
        row.add(drain.verify(worker, Bounds::ONE_DEATH).await);
    }
    row.print();
}

#[tokio::test]
async fn sigterm() {
    let mut row = Row::new("worker: SIGTERM, a standby takes over");
    for moment in moments(Moment::Letters) {
        let mut drain = Drain::new(moment).await;
        drain.fill().await;
        let mut worker = drain.world.start().await;
        let standby = drain.world.start().await;
        drain.reached().await;
        worker.stop().await;
        let lifted = drain.lifted();
        drain.consumed_again(&standby, lifted).await;
        row.add(drain.verify(standby, Bounds::NONE).await);
    }
    row.print();
}

#[tokio::test]
async fn sigstop_alone() {
    let mut row = Row::new("worker: SIGSTOP until the broker gives it up, SIGCONT");
    for moment in moments(Moment::Calls) {
        let mut drain = Drain::new(moment).await;
        drain.world.set("amqp.heartbeat", "1s");
        drain.fill().await;
        let worker = drain.world.start().await;
        let connections = connections(&drain.world).await;
        drain.reached().await;
        worker.process.signal("STOP").await;
        given_up(&drain.world, &connections).await;
        worker.process.signal("CONT").await;
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
    }
    row.print();
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn sigstop_beside_a_standby() {
    let mut row = Row::new("worker: the same, a standby takes over meanwhile");
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::new(moment).await;
        drain.world.set("amqp.heartbeat", "1s");
        drain.fill().await;
        let mut worker = drain.world.start().await;
        let connections = connections(&drain.world).await;
        let standby = drain.world.start().await;
        drain.reached().await;
        worker.process.signal("STOP").await;
        given_up(&drain.world, &connections).await;
        let lifted = drain.lifted();
        drain.consumed_again(&standby, lifted).await;
        worker.process.signal("CONT").await;
        worker.reconnected(1).await;
        worker.stop().await;
        row.add(drain.verify(standby, Bounds::ONE_DEATH).await);
    }
    row.print();
}

#[tokio::test]
async fn out_of_file_descriptors() {
    let mut row = Row::new("worker: no file descriptor left for any new connection");
    for moment in moments(Moment::Percent(5)) {
        let mut drain = Drain::new(moment).await;
        let mut to_broker = drain.world.proxy().await;
        let mut to_endpoint = drain.world.endpoint_proxy().await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        allow_files(&worker, 3).await;
        let calm = Calm::from_now_on(&worker);
        for proxy in [&mut to_endpoint, &mut to_broker] {
            proxy.set(Mode::Reset).await;
            proxy.set(Mode::Pass).await;
        }
        let said = async |what: &str, times: usize| {
            wait_for(&format!("{times} lines of log: {what}"), PATIENCE, async || {
                let lines = worker.process.stderr.all();
                lines.iter().filter(|line| line.contains(what) && line.contains("os error 24")).count()
                    >= times
            })
            .await;
        };
        said("waiting for the broker", 1).await;
        // A visitor who is not let in for a while.
        let _visitor = TcpStream::connect(worker.admin_address()).await.expect("somebody listens");
        said("failed to accept", 10).await;
        calm.verify(&worker);
        drain.calls_ended().await;
        allow_files(&worker, 1024).await;
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        let bounds = Bounds { ids_twice: Bounds::CALLS_UNDER_WAY.ids_twice, ..Bounds::ONE_CONNECTION };
        row.add(drain.verify(worker, bounds).await);
    }
    row.print();
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn the_clock_is_stepped() {
    const YEAR: i64 = 365 * 24 * 60 * 60;
    let mut row = Row::new("worker: clock ten years ahead, then ten years back");
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::new(moment).await;
        let mut clock = SteppedClock::of(&mut drain.world);
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        let real = worker.metric("last_success_timestamp_seconds", &[]).await;
        for (years, what) in [(10, "its clock is ahead"), (-10, "its clock is behind")] {
            clock.step_to(years * YEAR);
            let lifted = drain.lifted();
            drain.consumed_again(&worker, lifted).await;
            let half = (years * YEAR / 2) as f64;
            worker
                .wait_until(what, async |worker| {
                    let stepped = worker.metric("last_success_timestamp_seconds", &[]).await - real;
                    stepped / half > 1.0
                })
                .await;
        }
        row.add(drain.verify(worker, Bounds::NONE).await);
    }
    row.print();
}

/// The broker's names for the connections of the only worker there is.
async fn connections(world: &World) -> BTreeSet<String> {
    let is_ours = |client: &Option<String>| client.as_ref().is_some_and(|name| name.contains("consume"));
    wait_for_some("the worker's connection shows", PATIENCE, async || {
        let open = world.vhost.management.connections(&world.vhost.name).await.ok()?;
        let ours = open.into_iter().filter(|connection| is_ours(&connection.client));
        Some(ours.map(|connection| connection.name).collect()).filter(|ours: &BTreeSet<_>| !ours.is_empty())
    })
    .await
}

/// Waits until the broker has closed these for want of heartbeats.
async fn given_up(world: &World, connections: &BTreeSet<String>) {
    wait_for("the broker has given the stopped worker up", PATIENCE, async || {
        let open = world.vhost.management.connections(&world.vhost.name).await;
        open.is_ok_and(|open| open.iter().all(|connection| !connections.contains(&connection.name)))
    })
    .await;
}

/// Sets how many files it may have open; those that are open stay so.
async fn allow_files(worker: &Worker, count: usize) {
    let pid = worker.process.pid().to_string();
    let limit = format!("--nofile={count}:");
    let prlimit = Command::new("prlimit").args(["--pid", &pid, &limit]).status().await;
    assert!(prlimit.is_ok_and(|status| status.success()), "prlimit changes the limits of a process of ours");
}
