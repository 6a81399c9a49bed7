//! Faults of the worker itself.

use crate::support::PATIENCE;

use super::drain::{Bounds, Drain, Moment, Row, moments};

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
