//! Files of a test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory that is removed when this is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// An empty one; `name` is for whoever comes across it.
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{count}", std::process::id());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).expect("the target directory is writable");
        Self(directory)
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("the target directory's name is UTF-8").to_owned()
    }

    /// Writes a file in place: whoever holds it open, or has it mounted, sees what is new.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("the directory is ours");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: the next build may clean up.
        let _ = fs::remove_dir_all(&self.0);
    }
}
