//! Engine tests as data: events in, exact actions out, and nothing left over.

mod batching;
mod bench;
mod outage;
mod settling;
mod simulation;
mod splitting;
