//! Faults of the network, on the way to the broker and on the way to the endpoint.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use deletion_worker::status::EndpointState;

use crate::support::names::Names;
use crate::support::proxy::{Mode, Proxy};

use super::drain::{BATCH, Bounds, CALLS, Calm, Drain, Moment, Row, moments};

/// Many times the 2 s that it may take to meet a broker that is back; for a busy machine.
const AGAIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_broker_is_cut_off() {
    let mut row = Row::new("network: connections to the broker reset, refused, and back");
    for moment in moments(Moment::Calls) {
        let mut drain = Drain::new(moment).await;
        let mut proxy = drain.world.proxy().await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        proxy.set(Mode::Reset).await;
        worker.disconnected().await;
        proxy.set(Mode::Refuse).await;
        drain.calls_ended().await;
        proxy.set(Mode::Pass).await;
        let lifted = drain.lifted();
        let took = drain.consumed_again(&worker, lifted).await;
        assert!(took < AGAIN, "{took:?}");
        row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
    }
    row.print();
}

#[tokio::test]
async fn the_broker_is_in_a_black_hole() {
    let mut row = Row::new("network: the broker in a black hole until heartbeats are missed, and back");
    for moment in moments(Moment::Letters) {
        let mut drain = Drain::new(moment).await;
        let mut proxy = drain.world.set("amqp.heartbeat", "1s").proxy().await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        proxy.set(Mode::Pause).await;
        let calm = Calm::from_now_on(&worker);
        worker.disconnected().await;
        calm.verify(&worker);
        drain.calls_ended().await;
        proxy.set(Mode::Pass).await;
        let lifted = drain.lifted();
        let took = drain.consumed_again(&worker, lifted).await;
        assert!(took < AGAIN, "{took:?}");
        row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
    }
    row.print();
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn the_endpoint_is_cut_off() {
    let mut row =
        Row::new("network: connections to the endpoint reset, refused until the breaker opens, and back");
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::new(moment).await;
        let mut proxy = drain.world.endpoint_proxy().await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        proxy.set(Mode::Reset).await;
        proxy.set(Mode::Refuse).await;
        drain.endpoint_is(&worker, EndpointState::Open).await;
        proxy.set(Mode::Pass).await;
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        // The calls that were under way: carried out, but the answer never came.
        row.add(drain.verify(worker, Bounds::CALLS_UNDER_WAY).await);
    }
    row.print();
}

#[tokio::test]
async fn the_endpoint_is_in_a_black_hole() {
    let mut row = Row::new("network: the endpoint in a black hole until the breaker opens, and back");
    for moment in moments(Moment::Percent(85)) {
        let mut drain = Drain::new(moment).await;
        let mut proxy = drain.world.endpoint_proxy().await;
        drain.world.set("endpoint.timeout", "500ms").set("endpoint.connect_timeout", "500ms");
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        proxy.set(Mode::Pause).await;
        let calm = Calm::from_now_on(&worker);
        drain.endpoint_is(&worker, EndpointState::Open).await;
        calm.verify(&worker);
        proxy.set(Mode::Pass).await;
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        // What was sent into the black hole arrives after all, when it has been given up long since: the calls
        // that were under way, and as many as the breaker takes to open.
        let sent = (CALLS + FAILURE_THRESHOLD) * BATCH;
        row.add(drain.verify(worker, Bounds { ids_twice: sent as u64, ..Bounds::NONE }).await);
    }
    row.print();
}

/// `health.failure_threshold` by default.
const FAILURE_THRESHOLD: usize = 5;

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn segments_are_lost() {
    slow_network("network: 5 % of all segments lost, both ways", Mode::Lossy(5)).await;
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn bytes_trickle() {
    // Less than a full call and its answer each second.
    slow_network("network: 20 kB/s, both ways", Mode::Trickle(20_000)).await;
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn everything_takes_its_time() {
    slow_network("network: 100 ms, both ways", Mode::Delay(Duration::from_millis(100))).await;
}

/// A network that is bad, but not so bad that anything is given up: nothing happens twice.
async fn slow_network(name: &'static str, mode: Mode) {
    let mut row = Row::new(name);
    for moment in moments(Moment::Calls) {
        let mut drain = Drain::new(moment).await;
        let mut proxies = [drain.world.proxy().await, drain.world.endpoint_proxy().await];
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        for proxy in &mut proxies {
            proxy.set(mode).await;
        }
        let begun = drain.lifted();
        // It goes on meanwhile.
        drain.consumed_again(&worker, begun).await;
        drain.deletes_more(2_000).await;
        for proxy in &mut proxies {
            proxy.set(Mode::Pass).await;
        }
        assert_eq!(worker.metric("broker_reconnects_total", &[]).await, 0.0);
        row.add(drain.verify(worker, Bounds::NONE).await);
    }
    row.print();
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn names_lead_elsewhere() {
    const OLD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const NEW: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
    let mut row =
        Row::new("network: the names of broker and endpoint lead to other addresses, the old ones are dead");
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::new(moment).await;
        let names = Names::of(&mut drain.world);
        names.lead([("broker.test", OLD), ("endpoint.test", OLD)]);
        let targets = [drain.world.vhost.address(), drain.world.mock.addr.to_string()];
        let [(mut broker, _new_broker), (mut endpoint, _new_endpoint)] =
            [twins(&targets[0], OLD, NEW).await, twins(&targets[1], OLD, NEW).await];
        let url = drain.world.vhost.url_through(broker.address).replace(&OLD.to_string(), "broker.test");
        drain.world.set("amqp.urls", &url);
        let port = endpoint.address.port();
        drain.world.set("endpoint.url", &format!("http://endpoint.test:{port}/api/serve/video/delete"));
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        names.lead([("broker.test", NEW), ("endpoint.test", NEW)]);
        for old in [&mut broker, &mut endpoint] {
            old.set(Mode::Reset).await;
            old.set(Mode::Refuse).await;
        }
        let lifted = drain.lifted();
        worker.reconnected(1).await;
        drain.consumed_again(&worker, lifted).await;
        let bounds = Bounds { ids_twice: Bounds::CALLS_UNDER_WAY.ids_twice, ..Bounds::ONE_CONNECTION };
        row.add(drain.verify(worker, bounds).await);
    }
    row.print();
}

/// Two proxies to the same target, on the same port of two addresses.
async fn twins(target: &str, one: Ipv4Addr, other: Ipv4Addr) -> (Proxy, Proxy) {
    for _ in 0..100 {
        let port = fastrand::u16(12_000..20_000);
        let at = async |address: Ipv4Addr| Proxy::at(SocketAddr::from((address, port)), target).await;
        if let (Ok(first), Ok(second)) = (at(one).await, at(other).await) {
            return (first, second);
        }
    }
    panic!("no free port");
}
