//! Standard output, which may be slower than the broker, or pause for as long as somebody reads.

use std::io::{self, Write};

use super::{End, Reading};

/// What is written at once.
const GATHERED_BYTES: usize = 64 * 1024;

/// Results on their way to standard output. Whoever reads letters meanwhile writes by [`Self::pass_on`], beside which
/// the connection is served; a thread that waits for a pager answers no heartbeats.
#[derive(Debug, Default)]
pub(super) struct Output {
    gathered: Vec<u8>,
}

impl Output {
    /// Writes what has gathered, if that is worth it.
    pub(super) async fn gather(&mut self, reading: &mut Reading) -> Result<(), End> {
        if self.gathered.len() < GATHERED_BYTES { Ok(()) } else { self.pass_on(reading).await }
    }

    /// Writes what has gathered.
    pub(super) async fn pass_on(&mut self, reading: &mut Reading) -> Result<(), End> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.gathered);
        let writing = tokio::task::spawn_blocking(move || {
            write(&bytes)?;
            bytes.clear();
            bytes.shrink_to(2 * GATHERED_BYTES);
            Ok::<_, io::Error>(bytes)
        });
        tokio::select! {
            written = reading.morgue.line.beside(writing) => {
                self.gathered = written.expect("writing doesn't panic")?;
                Ok(())
            }
            () = reading.interrupts.wait() => Err(End::Interrupted),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.write(bytes)
    }

    /// For when no connection is open any more.
    fn flush(&mut self) -> io::Result<()> {
        write(&std::mem::take(&mut self.gathered))
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}
