//! lapin's way to I/O: tokio's, with a [`Sieve`] over every stream.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use async_compat::Compat;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::{AsyncRead, AsyncWrite, Stream};
use lapin::AsyncTcpStream;
use tokio::net::TcpStream;

use super::sieve::{Notes, Sieve};

/// A stream to a broker, with or without TLS.
pub(super) type Raw = AsyncTcpStream<Compat<TcpStream>>;
/// What lapin runs on.
pub(super) type Kit = RuntimeParts<Tokio, SiftingReactor>;

/// The tokio runtime we are in, for lapin.
pub(super) fn current() -> Runtime<Kit> {
    Runtime::new(RuntimeParts::new(Tokio::current(), SiftingReactor(Tokio::current())))
}

/// tokio's reactor, but for the type of its streams.
#[derive(Clone, Debug)]
pub(super) struct SiftingReactor(Tokio);

impl Reactor for SiftingReactor {
    type TcpStream = Sieve<Raw>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async { Ok(Sieve::new(AsyncTcpStream::Plain(connecting.await?), Notes::default())) }
    }
}
