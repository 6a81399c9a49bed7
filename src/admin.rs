//! The admin server: `/metrics`, `/healthz`, `/readyz` and `/status`.
//!
//! It has a thread and a runtime of its own, so that it can tell of a worker that is stuck, and so that nobody
//! who scrapes it, however slowly or often, takes time from the worker. It shares the metrics with the worker,
//! watches its [`Readiness`], and puts [`Question`]s to its event loop; an idle loop is woken by nothing else.
//!
//! It answers one request per connection, reads no bodies, and gives every connection a deadline. When too many
//! are open the oldest one is cut, so that idle sockets can't keep a probe out.

mod page;
mod pulse;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::metrics::Metrics;
use crate::status::Status;

/// A running admin server; dropping it stops it.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    /// Dropped first: the thread takes that as its signal to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the server asks the worker's event loop.
#[derive(Debug)]
pub enum Question {
    /// Do you turn?
    Ping(oneshot::Sender<()>),
    /// How are you?
    Status(oneshot::Sender<Status>),
}

/// Whether the worker does its work, as far as it is up to the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Connected, topology in place, and consuming or paused on purpose.
    Ready,
    /// Not yet, or not any more: the reason in words.
    NotReady(Cow<'static, str>),
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken, or the address isn't ours.
    #[error("listen on {0} (admin.listen): {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The system refuses a thread or its event queue.
    #[error("start the admin server's thread: {0}")]
    Thread(#[source] io::Error),
}

/// How much, and for how long.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Open connections.
    connections: usize,
    /// Bytes of a request's head.
    head_bytes: usize,
    /// For a request's head to arrive.
    head: Duration,
    /// For a connection, from accepting to closing it.
    connection: Duration,
    /// For the answer to one ping, and for the answer to a status question.
    answer: Duration,
    /// For a ping to stay unanswered before the loop counts as stuck.
    stuck: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    head_bytes: 16 * 1024,
    head: Duration::from_secs(5),
    connection: Duration::from_secs(10),
    answer: Duration::from_secs(1),
    stuck: Duration::from_secs(10),
};

impl Admin {
    /// Listens on `listen` and answers from then on.
    ///
    /// `questions` leads to the event loop, which answers them in the course of its turns; a capacity of a few
    /// is enough.
    ///
    /// # Errors
    /// [`Error`], fit for "failed to ...".
    pub fn start(
        listen: SocketAddr,
        metrics: Arc<Metrics>,
        readiness: watch::Receiver<Readiness>,
        questions: mpsc::Sender<Question>,
    ) -> Result<Self, Error> {
        Self::start_within(LIMITS, listen, metrics, readiness, questions)
    }

    fn start_within(
        limits: Limits,
        listen: SocketAddr,
        metrics: Arc<Metrics>,
        readiness: watch::Receiver<Readiness>,
        questions: mpsc::Sender<Question>,
    ) -> Result<Self, Error> {
        let (listener, address) = bind(listen).map_err(|error| Error::Listen(listen, error))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let listener = {
            let _runtime = runtime.enter();
            TcpListener::from_std(listener).map_err(Error::Thread)?
        };
        let pages = page::router(metrics, readiness, questions, limits);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || runtime.block_on(serve(listener, pages, limits, stopped)))
            .map_err(Error::Thread)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens; tells the port if `admin.listen` left the choice to the system.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts what is open, and returns when the port is free and the thread gone: within milliseconds.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin server's thread panicked");
        }
    }
}

fn bind(listen: SocketAddr) -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Accepts until `stopped`; owns every connection.
async fn serve(listener: TcpListener, pages: Router, limits: Limits, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    let mut oldest_first = VecDeque::<AbortHandle>::new();
    loop {
        let stream = tokio::select! {
            biased;
            _ = &mut stopped => break,
            stream = accept(&listener) => stream,
        };
        while let Some(end) = connections.try_join_next() {
            if let Err(error) = end
                && error.is_panic()
            {
                tracing::error!(%error, "answering an admin request panicked");
            }
        }
        oldest_first.retain(|connection| !connection.is_finished());
        if oldest_first.len() >= limits.connections
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        oldest_first.push_back(connections.spawn(answer(stream, pages.clone(), limits)));
    }
    connections.shutdown().await;
}

/// The next connection, however long the system has no file descriptor for it.
async fn accept(listener: &TcpListener) -> TcpStream {
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // It may take long, and whoever waits for an answer tries again and again.
            Err(error) if told => tracing::debug!(%error, "still failing to accept an admin connection"),
            Err(error) => {
                tracing::warn!(%error, "failed to accept an admin connection");
                told = true;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn answer(stream: TcpStream, pages: Router, limits: Limits) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    match tokio::time::timeout(limits.connection, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection failed"),
        Err(_) => tracing::debug!("an admin connection took too long"),
    }
}

#[cfg(test)]
mod tests;
