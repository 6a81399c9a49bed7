//! Engine tests as data: events in, exact actions out, and nothing left over.

mod bench;
mod outage;
mod simulation;
