//! The binary's commands.

pub mod mock_endpoint;
