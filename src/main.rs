//! The `deletion-worker` binary.
fn main() {}
