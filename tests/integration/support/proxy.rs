//! A TCP proxy whose faults can be switched on and off while connections are open.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// What happens to connections, those already open included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Bytes pass.
    Pass,
    /// Connections are accepted and stay open, but no byte passes either way; those held pass later.
    Pause,
    /// Open connections are reset (RST, both ways), and new ones as soon as they are accepted.
    Reset,
    /// Nobody listens; open connections go on.
    Refuse,
    /// So many bytes pass each second, each way.
    Trickle(usize),
    /// Bytes pass after this time; as many at a time as come.
    Delay(Duration),
    /// So many segments of a hundred are lost, and come when they are sent again; those behind wait for them.
    Lossy(u32),
    /// When something has come from the server, the connection is closed in the next moment, without a word; what
    /// the client has sent by then is not passed on.
    HangUp,
}

/// A proxy in front of one address. Its connections are closed when it is dropped.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    listening: watch::Receiver<bool>,
    counts: Arc<Counts>,
    acceptor: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl Proxy {
    /// Starts one that passes everything to `target` (host and port).
    pub(crate) async fn start(target: &str) -> Self {
        Self::with(bind_anywhere().await, target)
    }

    /// The same on an address of the caller's choice, if it is free.
    pub(crate) async fn at(address: SocketAddr, target: &str) -> io::Result<Self> {
        TcpListener::bind(address).await.map(|listener| Self::with(listener, target))
    }

    fn with(listener: TcpListener, target: &str) -> Self {
        let address = listener.local_addr().expect("a bound listener");
        let (mode, modes) = watch::channel(Mode::Pass);
        let (heard, listening) = watch::channel(true);
        let counts = Arc::new(Counts::default());
        let acceptor =
            tokio::spawn(accept(listener, address, target.to_owned(), modes, heard, Arc::clone(&counts)));
        Self { address, mode, listening, counts, acceptor }
    }

    /// Switches, and returns once the listener is open or closed accordingly, and what was open is reset if it is
    /// to be.
    pub(crate) async fn set(&mut self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Reset {
            super::wait_for("open connections are reset", super::PATIENCE, async || self.open() == 0).await;
        }
        let wanted = mode != Mode::Refuse;
        self.listening.wait_for(|is| *is == wanted).await.expect("the acceptor runs as long as we do");
    }

    /// Connections accepted since the start.
    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// Below the range that systems take the local ports of connections from, so that the port is still ours after a
/// while of refusing.
async fn bind_anywhere() -> TcpListener {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", fastrand::u16(12_000..20_000))).await {
            return listener;
        }
    }
    panic!("no free port");
}

async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    target: String,
    mut modes: watch::Receiver<Mode>,
    heard: watch::Sender<bool>,
    counts: Arc<Counts>,
) {
    let mut listener = Some(listener);
    // Aborted with us.
    let mut connections = JoinSet::new();
    loop {
        let refuse = *modes.borrow_and_update() == Mode::Refuse;
        if refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.expect("nobody else takes this port"));
        }
        heard.send_replace(!refuse);
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
            accepted = next(listener.as_ref()) => if let Ok(client) = accepted {
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                counts.open.fetch_add(1, Ordering::SeqCst);
                let (target, modes, counts) = (target.clone(), modes.clone(), Arc::clone(&counts));
                connections.spawn(async move {
                    // Either end closing its connection is the usual end of this one.
                    let _ = serve(client, &target, modes).await;
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    }
}

async fn next(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

async fn serve(mut client: TcpStream, target: &str, modes: watch::Receiver<Mode>) -> io::Result<()> {
    let mut until_reset = modes.clone();
    let mut server = tokio::select! {
        biased;
        _ = until_reset.wait_for(|mode| *mode == Mode::Reset) => return client.set_zero_linger(),
        server = connect(target, modes.clone()) => server?,
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let hung_up = AtomicBool::new(false);
        tokio::select! {
            biased;
            _ = until_reset.wait_for(|mode| *mode == Mode::Reset) => {}
            ends = futures_util::future::try_join(
                carry(from_client, to_server, Way::ToServer(&hung_up), modes.clone()),
                carry(from_server, to_client, Way::ToClient(&hung_up), modes),
            ) => return ends.map(|_| ()),
        }
    }
    client.set_zero_linger()?;
    server.set_zero_linger()
}

async fn connect(target: &str, mut modes: watch::Receiver<Mode>) -> io::Result<TcpStream> {
    let _ = modes.wait_for(|mode| *mode != Mode::Pause).await;
    TcpStream::connect(target).await
}

/// Where bytes are going, and whether the connection is about to be closed under the client.
#[derive(Clone, Copy)]
enum Way<'a> {
    ToServer(&'a AtomicBool),
    ToClient(&'a AtomicBool),
}

/// Carries bytes one way until their end, as the mode of the moment says.
async fn carry(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    way: Way<'_>,
    modes: watch::Receiver<Mode>,
) -> io::Result<()> {
    // What is delayed must not keep what comes after it from being read.
    let (arrivals, arrived) = mpsc::channel(64);
    futures_util::future::try_join(take_in(from, arrivals), pass_on(arrived, to, way, modes))
        .await
        .map(|_| ())
}

async fn take_in(
    mut from: impl AsyncRead + Unpin,
    arrivals: mpsc::Sender<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 || arrivals.send((Instant::now(), buffer[..count].to_vec())).await.is_err() {
            return Ok(());
        }
    }
}

async fn pass_on(
    mut arrived: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: impl AsyncWrite + Unpin,
    way: Way<'_>,
    mut modes: watch::Receiver<Mode>,
) -> io::Result<()> {
    while let Some((at, bytes)) = arrived.recv().await {
        let mut rest = &bytes[..];
        // What was on its way when the mode changed falls under the new one.
        while !rest.is_empty() {
            let mode = modes.wait_for(|mode| *mode != Mode::Pause).await.map(|mode| *mode);
            let Ok(mode) = mode else { return Ok(()) };
            let portion = portion(mode, at, rest.len()).await;
            match (mode, way) {
                (_, Way::ToServer(hung_up)) if hung_up.load(Ordering::SeqCst) => {
                    std::future::pending::<()>().await;
                }
                (Mode::HangUp, Way::ToClient(hung_up)) => {
                    hung_up.store(true, Ordering::SeqCst);
                    to.write_all(rest).await?;
                    tokio::time::sleep(Duration::from_micros(fastrand::u64(..2000))).await;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                (Mode::Reset, _) => return Ok(()),
                (_, Way::ToServer(_) | Way::ToClient(_)) => {}
            }
            to.write_all(&rest[..portion]).await?;
            rest = &rest[portion..];
        }
    }
    let _ = modes.wait_for(|mode| *mode != Mode::Pause).await;
    to.shutdown().await
}

/// Waits as `mode` says, and returns how many of `len` bytes pass then.
async fn portion(mode: Mode, arrived: Instant, len: usize) -> usize {
    const TICKS_PER_SECOND: usize = 20;
    /// What fits into a packet of an Ethernet.
    const SEGMENT: usize = 1448;
    /// When Linux sends a segment again, at the earliest.
    const AGAIN: Duration = Duration::from_millis(200);
    match mode {
        Mode::Trickle(rate) => {
            tokio::time::sleep(Duration::from_secs(1) / TICKS_PER_SECOND as u32).await;
            len.min((rate / TICKS_PER_SECOND).max(1))
        }
        Mode::Delay(time) => {
            tokio::time::sleep_until(arrived + time).await;
            len
        }
        Mode::Lossy(percent) => {
            if fastrand::u32(..100) < percent {
                tokio::time::sleep(AGAIN).await;
            }
            len.min(SEGMENT)
        }
        Mode::Pass | Mode::Pause | Mode::Reset | Mode::Refuse | Mode::HangUp => len,
    }
}
