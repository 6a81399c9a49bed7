//! The fault matrix: each row a fault in the middle of a drain, at different moments, and the count at its end.
//!
//! An ordinary run takes each row at one moment; `make test-faults` at all of them, and the slow rows too.

mod broker;
mod cluster;
mod drain;
mod endpoint;
mod messages;
mod network;
mod worker;
