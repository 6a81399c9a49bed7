//! The fault matrix: each row a fault in the middle of a drain, at different moments, and the count at its end.
//!
//! An ordinary run takes each row at one moment; `make test-faults` at all of them, and the slow rows too.

mod drain;
mod endpoint;
mod network;
mod worker;
