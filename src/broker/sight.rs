//! What the broker says of a queue: how much waits in it, and for how many.

use std::time::Duration;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use tokio::time::Instant;

/// A quorum queue whose leader doesn't answer the broker within so long is said to be empty, and to have no consumer
/// (`stat/1` of RabbitMQ's `rabbit_quorum_queue.erl`, 3.10 to 4.1). One without a leader is too, at once.
const GIVEN_UP: Duration = Duration::from_millis(250);
/// How often a leader that was given up on is asked.
const LOOKS_MAX: u32 = 8;

/// What is seen in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// Messages that were not handed out.
    pub(super) ready: u32,
    pub(super) consumers: u32,
}

impl Sight {
    /// Nothing is seen, or nobody looked.
    pub(super) const NOTHING: Self = Self { ready: 0, consumers: 0 };

    /// Looks at `queue`, again if the broker may have given up.
    ///
    /// [`Self::NOTHING`] is no proof even so: the queue may be without a leader.
    ///
    /// # Errors
    /// There is no such queue, by which the channel is lost too, or the connection is gone.
    pub(super) async fn of(queue: &ShortString, channel: &Channel) -> lapin::Result<Self> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let mut looks = 0;
        loop {
            let asked = Instant::now();
            let seen = channel.queue_declare(queue.clone(), passive, FieldTable::default()).await?;
            let sight = Self { ready: seen.message_count(), consumers: seen.consumer_count() };
            looks += 1;
            if sight != Self::NOTHING || asked.elapsed() < GIVEN_UP || looks == LOOKS_MAX {
                return Ok(sight);
            }
        }
    }
}
