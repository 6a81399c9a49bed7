//! A server that is a list of replies in order, down to the bytes and the way a connection ends.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is done about one request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// These bytes; the connection stays open.
    Send(String),
    /// These bytes, then the end of the stream.
    SendThenClose(String),
    /// These bytes, then a reset.
    SendThenReset(String),
    /// These bytes, one by one at this interval.
    Trickle(String, Duration),
    /// These bytes, and then `x` for as long as anyone listens.
    Endless(String),
    /// Nothing, while the connection stays open.
    Hang,
    /// A reset without reading the request.
    ResetUnread,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    script: Arc<Script>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Script {
    replies: Mutex<VecDeque<Reply>>,
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

impl Server {
    pub(super) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let script =
            Arc::new(Script { replies: Mutex::new(replies.into_iter().collect()), ..Script::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&script)));
        Self { addr, script, _tasks: tasks }
    }

    /// Every request so far, byte for byte.
    pub(super) fn requests(&self) -> Vec<String> {
        self.script.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections there have been.
    pub(super) fn connections(&self) -> usize {
        self.script.connections.load(Ordering::SeqCst)
    }

    pub(super) fn is_done(&self) -> bool {
        self.script.replies.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Script {
    fn next(&self) -> Option<Reply> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn takes_reset_next(&self) -> bool {
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        let is_reset = matches!(replies.front(), Some(Reply::ResetUnread));
        is_reset && replies.pop_front().is_some()
    }
}

async fn accept(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        script.connections.fetch_add(1, Ordering::SeqCst);
        if script.takes_reset_next() {
            reset(stream);
        } else {
            connections.spawn(serve(stream, Arc::clone(&script)));
        }
    }
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("a socket");
}

async fn serve(mut stream: TcpStream, script: Arc<Script>) {
    while let Some(request) = request(&mut stream).await {
        script.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        // Past the end of the script the client sees a closed connection.
        let Some(reply) = script.next() else { return };
        match reply {
            Reply::Send(bytes) => stream.write_all(bytes.as_bytes()).await.expect("a client"),
            Reply::SendThenClose(bytes) => {
                stream.write_all(bytes.as_bytes()).await.expect("a client");
                return;
            }
            Reply::SendThenReset(bytes) => {
                stream.write_all(bytes.as_bytes()).await.expect("a client");
                return reset(stream);
            }
            Reply::Trickle(bytes, interval) => {
                for byte in bytes.bytes() {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(interval).await;
                }
            }
            Reply::Endless(bytes) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
                return;
            }
            Reply::Hang => {
                // Ends when the client gives up.
                let _ = stream.read(&mut [0]).await;
                return;
            }
            Reply::ResetUnread => return reset(stream),
        }
    }
}

async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, length)| length.trim().parse().ok())
            .unwrap_or(0);
        if body.len() >= length {
            return Some(text.into_owned());
        }
    }
}
