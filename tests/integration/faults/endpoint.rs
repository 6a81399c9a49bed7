//! Faults of the endpoint, and of what stands before it.

use std::time::Duration;

use deletion_worker::mock::{Down, Faults, Loss};
use deletion_worker::status::EndpointState;

use crate::support::proxy::Mode;
use crate::support::scratch::Scratch;
use crate::support::tls_front::{Certificate, TlsFront};
use crate::support::world::Worker;

use super::drain::{Bounds, Drain, Moment, Row, moments};

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn it_resets_before_the_effect() {
    let down: fn(&mut Faults) = |faults| faults.down = Some(Down::Reset);
    faulty("endpoint: resets before the effect", Moment::Percent(5), down, EndpointState::Open).await;
}

#[tokio::test]
async fn it_resets_after_the_effect() {
    let lose: fn(&mut Faults) = |faults| lose(faults, Loss::Reset);
    faulty("endpoint: resets after the effect", Moment::Percent(5), lose, EndpointState::Open).await;
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn its_bodies_are_truncated() {
    let lose: fn(&mut Faults) = |faults| lose(faults, Loss::Truncated);
    faulty("endpoint: truncated bodies", Moment::Letters, lose, EndpointState::Open).await;
}

#[tokio::test]
async fn its_bodies_are_endless() {
    let lose: fn(&mut Faults) = |faults| lose(faults, Loss::Endless);
    faulty("endpoint: endless bodies", Moment::Percent(50), lose, EndpointState::Blocked).await;
}

fn lose(faults: &mut Faults, lose_as: Loss) {
    faults.lose_next = u32::MAX;
    faults.lose_as = lose_as;
}

/// A fault until the worker takes the endpoint for `state`, and then none.
async fn faulty(name: &'static str, moment: Moment, fault: fn(&mut Faults), state: EndpointState) {
    let mut row = Row::new(name);
    for moment in moments(moment) {
        let mut drain = Drain::new(moment).await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        let healthy = drain.world.mock.faults();
        drain.world.faults(fault);
        drain.endpoint_is(&worker, state).await;
        drain.world.mock.set_faults(healthy);
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        // What is deleted again is what was deleted without an answer.
        let ids_twice = drain.ids_of_lost_calls();
        row.add(drain.verify(worker, Bounds { ids_twice, ..Bounds::NONE }).await);
    }
    row.print();
}

#[tokio::test]
async fn it_stalls() {
    stalls("endpoint: stalls for 3 s (timeout 1 s)", Duration::from_secs(3), Some("1s")).await;
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn it_stalls_for_long() {
    stalls("endpoint: stalls for 31 s (timeout 30 s)", Duration::from_secs(31), None).await;
}

/// All calls of one moment are carried out, and answered when the worker has given them up.
async fn stalls(name: &'static str, stall: Duration, timeout: Option<&str>) {
    let mut row = Row::new(name);
    for moment in moments(Moment::Percent(50)) {
        let mut drain = Drain::new(moment).await;
        if let Some(timeout) = timeout {
            drain.world.set("endpoint.timeout", timeout).set("endpoint.connect_timeout", timeout);
        }
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        drain.calls_under_way(stall).await;
        let stalled = drain.lifted();
        drain.consumed_again(&worker, stalled).await;
        row.add(drain.verify(worker, Bounds::CALLS_UNDER_WAY).await);
    }
    row.print();
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn its_handshakes_are_nonsense() {
    tls("endpoint: TLS handshakes answered in plain HTTP", Certificate::Nonsense, "TLS failure").await;
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn its_handshakes_break_off() {
    tls("endpoint: TLS handshakes broken off", Certificate::Closed, "can't be reached").await;
}

#[tokio::test]
async fn its_certificate_expires_and_is_renewed() {
    tls("endpoint: certificate expired, then renewed", Certificate::Expired, "expired").await;
}

/// Behind TLS: its connections are closed, and new ones meet `fault` until the breaker opens.
async fn tls(name: &'static str, fault: Certificate, detail: &str) {
    let mut row = Row::new(name);
    for moment in moments(Moment::Percent(85)) {
        let mut drain = Drain::new(moment).await;
        let front = TlsFront::start(&drain.world.mock.addr.to_string()).await;
        let files = Scratch::new("endpoint");
        files.write("authority.pem", &front.authority);
        drain.world.environment("SSL_CERT_FILE", &files.path("authority.pem"));
        let url = format!("https://localhost:{}/api/serve/video/delete", front.address.port());
        drain.world.set("endpoint.url", &url);
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        front.show(fault);
        drain.endpoint_is(&worker, EndpointState::Open).await;
        let why = failure(&worker).await;
        assert!(why.contains(detail), "{why}");
        front.show(Certificate::Valid);
        let lifted = drain.lifted();
        drain.consumed_again(&worker, lifted).await;
        // Carried out, but their connections were closed.
        row.add(drain.verify(worker, Bounds::CALLS_UNDER_WAY).await);
    }
    row.print();
}

/// Why the last call failed.
async fn failure(worker: &Worker) -> String {
    let status = worker.status().await.expect("it runs");
    status.endpoint.last_failure.expect("there was one").detail
}

#[tokio::test]
async fn it_closes_kept_connections_under_us() {
    let mut row = Row::new("endpoint: every kept connection closed as it is used again");
    for moment in moments(Moment::Percent(5)) {
        let mut drain = Drain::new(moment).await;
        let mut proxy = drain.world.endpoint_proxy().await;
        drain.fill().await;
        let worker = drain.world.start().await;
        drain.reached().await;
        proxy.set(Mode::HangUp).await;
        let hung_up = drain.lifted();
        // To the end of the drain: it goes on all the same.
        drain.consumed_again(&worker, hung_up).await;
        row.add(drain.verify(worker, Bounds::NONE).await);
    }
    row.print();
}
