//! A wall clock of the worker's own, to be stepped. The machine's stays as it is.

use std::fs;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::Command;

use super::scratch::Scratch;
use super::world::World;

/// The clock of the workers that are started after it was made; it must outlive them.
pub(crate) struct SteppedClock {
    step: fs::File,
    _directory: Scratch,
}

impl SteppedClock {
    /// Needs a C compiler named `cc`, as building the worker does.
    pub(crate) fn of(world: &mut World) -> Self {
        let directory = Scratch::new("clock");
        let (library, step) = (directory.path("clock.so"), directory.path("step"));
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/integration/support/clock.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &library])
            .arg(source)
            .output()
            .expect("cc is installed, as building the worker needs it");
        assert!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
        let mut clock =
            Self { step: fs::File::create_new(&step).expect("the directory is ours"), _directory: directory };
        clock.step_to(0);
        world.environment("LD_PRELOAD", &library).environment("STEPPED_CLOCK", &step);
        clock
    }

    /// From now on the clock is so many seconds ahead of the machine's, or behind it.
    pub(crate) fn step_to(&mut self, seconds: i64) {
        // In place: the workers have mapped it.
        self.step.rewind().expect("a file");
        self.step.write_all(&seconds.to_ne_bytes()).expect("the file is ours");
    }
}
