//! What the binary can be told to do.

pub mod check_config;
pub mod publish;
//! The binary's commands.

pub mod mock_endpoint;
