//! The shell round lapin: sessions with the broker, their deliveries, and the settling of them.
//!
//! The only module that knows lapin. One task supervises: it connects, prepares the topology, runs a `session` to
//! its end, and begins anew; a second one places dead letters (`publisher`).

mod address;
pub(crate) mod connection;
pub(crate) mod corpse;
mod dead_letter;
pub(crate) mod desk;
pub(crate) mod fault;
mod kit;
pub(crate) mod morgue;
mod muffle;
mod pace;
pub(crate) mod press;
mod publisher;
pub(crate) mod revival;
mod session;
mod settle;
mod shelf;
mod sieve;
mod sight;
mod supervisor;
pub(crate) mod topology;
mod unpack;
mod watch;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
pub use crate::delivery::Extent;
use crate::delivery::{Arrival, Obituary, Reason, Tag};

/// Events on their way to the worker.
const EVENTS_MAX: usize = 64;

/// A running broker shell.
#[derive(Debug)]
pub struct Broker {
    /// What it tells the worker, in order. Ends with the shell.
    pub events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

/// Starts the broker shell: it connects and stays connected until it is told to close.
///
/// Has to be called within a tokio runtime that drives I/O and time; a current-thread one will do.
#[must_use]
pub fn start(config: &Config) -> Broker {
    prepare_for_dropped_sockets();
    let (events_told, events) = mpsc::channel(EVENTS_MAX);
    let supervisor =
        supervisor::run(config.amqp.clone(), config.dead_letter.clone(), config.batch, events_told);
    Broker { events, task: tokio::spawn(supervisor) }
}

/// lapin's own thread drops its sockets by way of `async-compat`, which starts a runtime when that happens for the
/// first time. Without a file descriptor to spare it panics, and so it does whenever a connection ends afterwards. So
/// the first time is now, on a thread that has no runtime either.
fn prepare_for_dropped_sockets() {
    let first = std::thread::Builder::new().spawn(|| drop(async_compat::Compat::new(())));
    // Only a machine without threads or file descriptors at the start fails here, and then in what follows too.
    let _ = first.map(std::thread::JoinHandle::join);
}

impl Broker {
    /// Waits until the shell has ended; without [`Command::Close`] before, sockets are just shut.
    pub async fn join(self) {
        drop(self.events);
        if let Err(error) = self.task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

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
    DeadLettered(Vec<(Tag, Reason)>),
    /// So many dead letters could not be stored this time; they are tried again.
    DeadLettersRefused(u64),
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
