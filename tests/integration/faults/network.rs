//! Faults of the network, on the way to the broker and on the way to the endpoint.

use crate::support::proxy::Mode;

use super::drain::{Bounds, Drain, Moment, Row, moments};

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
        drain.consumed_again(&worker, lifted).await;
        row.add(drain.verify(worker, Bounds::ONE_CONNECTION).await);
    }
    row.print();
}
