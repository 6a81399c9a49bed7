//! Facts that the engine counts for the metrics.

use std::time::Duration;

/// What happened since the last [`take_tally`](super::Engine::take_tally).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Deliveries received.
    pub messages_received: u64,
    /// Deliveries to be acknowledged because all their IDs are deleted.
    pub messages_deleted: u64,
    /// Deliveries to be acknowledged because their dead letter is stored.
    pub messages_dead_lettered: u64,
    /// Deliveries given back.
    pub messages_released: u64,
    /// IDs that the endpoint confirmed.
    pub ids_deleted: u64,
    /// IDs that needed no place in a call: named twice, pending, in flight, or deleted just before a redelivery.
    pub ids_deduplicated: u64,
    /// IDs that a dry run would have deleted.
    pub ids_dry_run: u64,
    /// Batches called again after a failure.
    pub retries: u64,
    /// Batches split in halves.
    pub batch_splits: u64,
    /// Age by their own timestamp of the messages deleted or dead-lettered, where they had one.
    pub ages: Vec<Duration>,
    /// How long calls that were ready waited for the pace alone.
    pub rate_limit_waits: Vec<Duration>,
}
