//! Engine tests as data: events in, exact actions out, and nothing left over.

mod batching;
mod bench;
mod charging;
mod draining;
mod epochs;
mod health;
mod outage;
mod pacing;
mod release;
mod settling;
mod simulation;
mod splitting;
mod trials;
