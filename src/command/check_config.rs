//! `check-config`: what the worker would run with, or everything that keeps it from running.

use std::io::{self, Write};

use crate::config::{Loaded, Problems};

/// Writes the effective configuration to `out` as TOML, each value with where it comes from, and warnings to
/// `err`; or every problem to `err`, one per line, each beginning with its key. Returns the exit code: 0 or 2.
///
/// # Errors
/// What `out` or `err` say.
pub fn run(loaded: Result<Loaded, Problems>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    match loaded {
        Ok(loaded) => {
            for note in &loaded.notes {
                writeln!(err, "warning: {note}")?;
            }
            write!(out, "{}", loaded.effective)?;
            out.flush()?;
            Ok(0)
        }
        Err(problems) => {
            writeln!(err, "{problems}")?;
            Ok(2)
        }
    }
}
