//! The `Authorization` value, kept up to date with its file.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::HeaderValue;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::config::SecretSource;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The longest token file; what is longer is something else.
const BYTES_MAX: usize = 64 * 1024;

/// The token. Clones see the same one; with the last of them the watch on its file ends.
#[derive(Clone, Debug)]
pub struct Token {
    value: watch::Receiver<HeaderValue>,
    _watch: Option<Arc<Watch>>,
}

impl Token {
    /// Takes the token from `source`, and from now on again whenever its file's content changes.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If it is empty, unreadable, or can't stand in a header. Names the file, never the value.
    pub fn open(source: &SecretSource) -> anyhow::Result<Self> {
        match source {
            SecretSource::Value(secret) => {
                let value = header(secret.expose()).context("failed to use endpoint.token")?;
                Ok(Self { value: watch::channel(value).1, _watch: None })
            }
            SecretSource::File(path) => {
                let value = read(path)
                    .with_context(|| format!("failed to use endpoint.token_file {}", path.display()))?;
                let (sender, value) = watch::channel(value);
                let follower = Follower { path: path.as_path().into(), value: sender, is_usable: true };
                let task = tokio::spawn(follower.run());
                Ok(Self { value, _watch: Some(Arc::new(Watch(task.abort_handle()))) })
            }
        }
    }

    /// Waits until there is another token than at the last call; for ever, if it isn't in a file.
    ///
    /// Cancel-safe: a change is seen by the next call.
    pub async fn changed(&mut self) {
        if self.value.changed().await.is_err() {
            // A token given as a value has nobody who could replace it.
            std::future::pending::<()>().await;
        }
    }

    /// The header's value, marked so that nothing prints it.
    pub(super) fn header(&self) -> HeaderValue {
        self.value.borrow().clone()
    }
}

/// Owns the task that follows the file.
#[derive(Debug)]
struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes what is read from the file, again and again.
struct Follower {
    path: Arc<Path>,
    value: watch::Sender<HeaderValue>,
    is_usable: bool,
}

impl Follower {
    /// Compares the content rather than time, inode and length: the file is as small as they are, and neither a
    /// symbolic link swapped above it nor a quick second write goes unnoticed.
    async fn run(mut self) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let path = Arc::clone(&self.path);
            let now = tokio::task::spawn_blocking(move || read(&path)).await;
            self.take(now.map_err(anyhow::Error::from).and_then(|now| now));
        }
    }

    fn take(&mut self, now: anyhow::Result<HeaderValue>) {
        let path = self.path.display();
        match now {
            Ok(now) => {
                if self.value.send_if_modified(|value| std::mem::replace(value, now.clone()) != now) {
                    info!(%path, "the endpoint's token was replaced");
                }
                self.is_usable = true;
            }
            Err(error) if self.is_usable => {
                let error = format!("{error:#}");
                warn!(%path, error, "keeping the endpoint's old token: its file is unusable");
                self.is_usable = false;
            }
            Err(_) => {}
        }
    }
}

fn read(path: &Path) -> anyhow::Result<HeaderValue> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(|error| {
        // The standard text is about a "stream".
        if error.kind() == io::ErrorKind::InvalidData { io::Error::other("it is not text") } else { error }
    })?;
    header(&text)
}

fn header(text: &str) -> anyhow::Result<HeaderValue> {
    let text = text.trim();
    if text.is_empty() {
        bail!("it is empty");
    }
    if text.len() > BYTES_MAX {
        bail!("it has more than {BYTES_MAX} bytes");
    }
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| anyhow::anyhow!("it holds a character that can't stand in an HTTP header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
