//! Reading the selected letters, until an end that may come at any time.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Common;
use super::filter::Filter;
use super::say;
use crate::broker::corpse::Corpse;
use crate::broker::fault::Fault;
use crate::broker::morgue::{Morgue, Slip};
use crate::config::Config;

/// Why a task ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Usage(String),
    Fault(String),
    /// SIGINT or SIGTERM.
    Interrupted,
    /// Nobody reads our output any more, as with `| head`.
    Closed,
}

/// The dead-letter queue, seen through a filter.
pub(super) struct Reading {
    pub(super) morgue: Morgue,
    pub(super) interrupts: Interrupts,
    /// Letters seen so far, and those among them that the filter passed over.
    pub(super) seen: u64,
    pub(super) passed_over: u64,
    filter: Filter,
}

/// SIGINT and SIGTERM.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Reading {
    /// Opens the queue; says so if others have letters in hand.
    pub(super) async fn open(common: Common, config: &Config) -> Result<Self, End> {
        let mut interrupts = Interrupts::new()?;
        let morgue = tokio::select! {
            morgue = Morgue::open(config, common.returns_max) => morgue?,
            () = interrupts.wait() => return Err(End::Interrupted),
        };
        let filter = common.filter.under(config);
        let reading = Self { morgue, interrupts, seen: 0, passed_over: 0, filter };
        if reading.morgue.readers > 0 {
            say(&format!(
                "{} other consumers are reading queue `{}`: letters that they hold are left out",
                reading.morgue.readers, reading.morgue.names.dead_queue
            ));
        }
        Ok(reading)
    }

    /// The next letter that is selected.
    pub(super) async fn next(&mut self) -> Result<Option<(Slip, Corpse)>, End> {
        loop {
            let next = tokio::select! {
                biased;
                () = self.interrupts.wait() => return Err(End::Interrupted),
                next = self.morgue.next() => next?,
            };
            let Some((slip, corpse)) = next else { return Ok(None) };
            self.seen += 1;
            if self.filter.admits(&corpse) {
                return Ok(Some((slip, corpse)));
            }
            self.passed_over += 1;
        }
    }

    /// Whether all letters were seen that waited when we began.
    pub(super) fn is_complete(&self) -> bool {
        self.morgue.readers == 0 && self.seen == self.morgue.waiting
    }

    /// Gives back what is left; says so if somebody else took letters meanwhile, unless we stopped by a limit.
    pub(super) async fn close(self, ended: Result<(), End>, is_limited: bool) -> Result<(), End> {
        let (seen, waiting) = (self.seen, self.morgue.waiting);
        let released = self.morgue.release().await;
        ended?;
        if let Err(fault) = released {
            say(&format!("the connection was lost at the end, the letters are in the queue again: {fault}"));
        }
        if seen < waiting && !is_limited {
            say(&format!("{waiting} letters waited at the start, but others took some: {seen} were seen"));
        }
        Ok(())
    }
}

impl Interrupts {
    fn new() -> Result<Self, End> {
        let listen =
            |kind| signal(kind).map_err(|error| End::Fault(format!("failed to listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault.sentence)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Fault(format!("failed to write: {error}"))
        }
    }
}
