//! What the broker says of a queue: how much waits in it, and for how many.

use std::time::Duration;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use tokio::time::Instant;

use super::fault::Fault;

/// A quorum queue whose leader doesn't answer the broker within so long is said to be empty, and to have no consumer
/// (`stat/1` of RabbitMQ's `rabbit_quorum_queue.erl`, 3.10 to 4.1). One whose leader is gone is too, at once.
const STAT_DEADLINE: Duration = Duration::from_millis(250);
/// How often we ask at most.
const LOOKS_MAX: u32 = 4;

/// What is seen in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// Messages that were not handed out.
    pub(super) ready: u32,
    pub(super) consumers: u32,
}

impl Sight {
    /// The queue is empty and nobody consumes from it, or it has no leader.
    pub(super) const NOTHING: Self = Self { ready: 0, consumers: 0 };

    /// Looks at `queue`; `None` if its leader doesn't answer.
    ///
    /// # Errors
    /// There is no such queue, by which the channel is lost too, or the connection is gone.
    pub(super) async fn of(queue: &ShortString, channel: &Channel) -> lapin::Result<Option<Self>> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        for _ in 0..LOOKS_MAX {
            let asked = Instant::now();
            let seen = channel.queue_declare(queue.clone(), passive, FieldTable::default()).await?;
            let sight = Self { ready: seen.message_count(), consumers: seen.consumer_count() };
            if sight != Self::NOTHING || asked.elapsed() < STAT_DEADLINE {
                return Ok(Some(sight));
            }
        }
        Ok(None)
    }
}

/// What to say of a queue that is looked at in vain.
pub(super) fn silent(queue: &ShortString) -> Fault {
    Fault::passing(format!(
        "the broker can't tell what is in queue `{queue}`, whose leader doesn't answer: try again"
    ))
}
