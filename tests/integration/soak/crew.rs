//! The workers.

use std::time::Duration;

use fastrand::Rng;

use super::{DRAIN_PATIENCE, Soak, WORKERS, wait_for};
use crate::support::PATIENCE;
use crate::support::world::Worker;

/// The elder, and those who come and go.
pub(super) struct Crew {
    elder: Worker,
    others: [Option<Worker>; WORKERS],
}

impl Crew {
    pub(super) fn new(elder: Worker) -> Self {
        Self { elder, others: Default::default() }
    }

    /// Starts, kills, stops, and ends one after another.
    pub(super) async fn come_and_go(&mut self, soak: &Soak, mut rng: Rng) {
        soak.gauge.borrow_mut().elder = Some(self.elder.process.pid());
        while soak.rest(&mut rng, 500..5_000).await {
            let index = rng.usize(..WORKERS);
            let Some(mut worker) = self.others[index].take() else {
                soak.struck("worker: started");
                let worker = soak.world.launch().await;
                soak.gauge.borrow_mut().others[index] = Some(worker.process.pid());
                self.others[index] = Some(worker);
                continue;
            };
            match rng.u32(..4) {
                0 => {
                    soak.struck("worker: kill -9");
                    soak.gauge.borrow_mut().others[index] = None;
                    worker.process.signal("KILL").await;
                    assert_eq!(worker.process.exit(PATIENCE).await.code(), None, "a signal ended it");
                }
                1 => {
                    soak.struck("worker: SIGTERM");
                    soak.gauge.borrow_mut().others[index] = None;
                    worker.stop().await;
                }
                2 => {
                    soak.struck("worker: SIGSTOP, SIGCONT");
                    worker.process.signal("STOP").await;
                    soak.rest(&mut rng, 500..20_000).await;
                    worker.process.signal("CONT").await;
                    self.others[index] = Some(worker);
                }
                // Some live longer than others.
                _ => self.others[index] = Some(worker),
            }
        }
    }

    /// Waits until the queue is empty and nobody has anything in hand.
    pub(super) async fn settled(&self, soak: &Soak) {
        let vhost = &soak.world.vhost;
        wait_for("everything is settled", DRAIN_PATIENCE, async || {
            let Ok(queue) = vhost.management.queue(&vhost.name, "deletions").await else { return false };
            let mut unsettled = queue.messages;
            for worker in [&self.elder].into_iter().chain(self.others.iter().flatten()) {
                let Some(status) = worker.status().await else { return false };
                unsettled += status.held.messages_unsettled;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            unsettled == 0
        })
        .await;
    }

    /// Asks all to go, and sees that each does so in good order.
    pub(super) async fn stop(mut self) {
        for mut worker in self.others.into_iter().flatten() {
            worker.stop().await;
        }
        self.elder.stop().await;
    }
}
