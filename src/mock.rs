//! An honest stand-in for the delete endpoint, both API versions, with faults that can be switched on.
//!
//! It checks what the documentation asks for (method, path, token, content type, body, limit, quota), remembers
//! what it deleted and how often, and answers as documented. [`Faults`] make it misbehave in the ways endpoints,
//! proxies and networks do. In tests it runs in-process ([`Mock::start`]); `deletion-worker mock-endpoint` serves
//! the same over HTTP, with these paths beside the two of the API:
//!
//! | path | |
//! | --- | --- |
//! | `GET`, `PUT`, `PATCH /_mock/faults` | [`Faults`] as JSON: read, replaced, changed member by member |
//! | `GET /_mock/stats` | [`Stats`] |
//! | `GET /_mock/deleted?after=ID&limit=N` | IDs in order and how often each was deleted, in pages |
//! | `GET /_mock/calls` | the last [`Settings::calls_kept`] calls |
//! | `POST /_mock/reset` | forgets all of it, not the faults |
//! | `GET /healthz` | that it is there, whatever its faults: for `deletion-worker healthcheck --url` |

mod connection;
mod faults;
mod judge;
mod ledger;
mod service;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use judge::Judge;
use ledger::Ledger;

pub use faults::{Block, Down, Faults, Loss, Reply};
pub use ledger::{Fate, Peaks, RecordedCall, Sizes, Stats};

/// What a mock is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What `Authorization` must be; `None`: anything goes.
    pub token: Option<String>,
    /// The faults to begin with.
    pub faults: Faults,
    /// How many of the last calls are remembered.
    pub calls_kept: usize,
    /// Remember their IDs too.
    pub keep_ids: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { token: None, faults: Faults::default(), calls_kept: 1000, keep_ids: true }
    }
}

/// The stand-in.
#[derive(Debug)]
pub struct Mock;

/// A running mock; it ends when this is dropped.
#[derive(Debug)]
pub struct MockHandle {
    /// Where it listens.
    pub addr: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Mock {
    /// Listens on `listen` (port 0: any) and serves from then on.
    ///
    /// # Errors
    /// If the address can't be listened on.
    pub async fn start(listen: SocketAddr, settings: Settings) -> io::Result<MockHandle> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let state = Arc::new(State {
            token: settings.token,
            book: Mutex::new(Book {
                judge: Judge::new(settings.faults),
                ledger: Ledger::new(settings.calls_kept, settings.keep_ids, Instant::now()),
            }),
        });
        let task = tokio::spawn(connection::accept(listener, service::router(Arc::clone(&state))));
        Ok(MockHandle { addr, state, task })
    }
}

impl MockHandle {
    /// The faults as they are: counted ones count down.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.state.book().judge.faults().clone()
    }

    /// Replaces all faults, from the next call on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.book().judge.set_faults(faults);
    }

    /// The numbers so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state.book().ledger.stats()
    }

    /// Every deleted ID, and how often it was deleted.
    #[must_use]
    pub fn deleted(&self) -> BTreeMap<String, u32> {
        let book = self.state.book();
        book.ledger.deleted().iter().map(|(id, times)| (id.to_string(), *times)).collect()
    }

    /// The last calls, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.state.book().ledger.calls().cloned().collect()
    }

    /// Forgets deletions, calls and numbers.
    pub fn reset(&self) {
        self.state.book().ledger.reset(Instant::now());
    }

    /// Stops listening and closes every connection.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // Cancelled, which is what was asked for.
        let _ = (&mut self.task).await;
    }
}

impl Drop for MockHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the connections share.
#[derive(Debug)]
struct State {
    token: Option<String>,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    judge: Judge,
    ledger: Ledger,
}

impl State {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
