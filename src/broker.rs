//! The shell round lapin: sessions with the broker, their deliveries, and the settling of them.
//!
//! The only module that knows lapin.

use tokio::sync::mpsc;

pub use crate::delivery::Extent;
use crate::delivery::{Arrival, Obituary, Tag};

/// What the broker shell tells the worker.
#[derive(Debug)]
pub enum Event {
    /// A new epoch: channel open, prefetch set, topology in place. Nothing is consumed yet.
    Up(Session),
    /// The broker confirmed our consumer.
    Consuming,
    /// The broker confirmed that our consumer is cancelled, and every delivery that had been on its way was
    /// handed over or given back.
    Cancelled,
    /// These messages are stored in the dead-letter queue: confirmed and routed.
    DeadLettered(Vec<Tag>),
    /// The epoch is over; every delivery of it that was not settled comes back from the broker.
    Down {
        /// For the log: what ended it.
        reason: String,
        /// Acks that could not be handed to the broker any more.
        acks_lost: u64,
    },
    /// Trying again won't mend it: the worker exits with 1 and this sentence.
    Failed(String),
}

/// The worker's end of one epoch. Dropping it forgets the epoch: its deliveries and its commands go nowhere.
#[derive(Debug)]
pub struct Session {
    /// Deliveries in tag order, in chunks; not received, they stay unparsed with the broker shell.
    pub arrivals: mpsc::Receiver<Vec<Arrival>>,
    /// Unbounded, as each delivery in hand causes a command or two at most.
    pub commands: mpsc::UnboundedSender<Command>,
}

/// What the worker asks of a session. Carried out in order.
#[derive(Debug)]
pub enum Command {
    /// Start consuming.
    Consume,
    /// Cancel the consumer; deliveries in hand stay in hand.
    Cancel,
    /// Acknowledge.
    Ack(Extent),
    /// `basic.nack` with requeue: through no fault of its own.
    GiveBack(Extent),
    /// Publish to the dead-letter exchange until it is confirmed; answered by [`Event::DeadLettered`].
    DeadLetter(Tag, Box<Obituary>),
    /// Finish what was commanded, then close channel and connections; answered by [`Event::Down`].
    Close,
}
