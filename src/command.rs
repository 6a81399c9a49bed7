//! What the binary can be told to do.

pub mod check_config;
pub mod publish;
