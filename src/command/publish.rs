//! The `publish` command.
