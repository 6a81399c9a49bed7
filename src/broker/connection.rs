//! Connections that can be had from a broker that is away, and that never outlive their owner.
//!
//! lapin knows no deadline while it connects, and keeps a thread and a socket for as long as the peer stays silent.
//! So every connection here is made over a socket of which we hold a second handle, and whoever loses patience shuts
//! that. lapin's own recovery is not used: when its tries are used up it falls silent for ever.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_compat::Compat;
use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, Stream};
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::address::{self, Address};
use super::fault::{Fault, code, reply_code, words};
use super::kit::{self, Kit, Raw};
use super::muffle::Muffle;
use super::sieve::{Notes, Sieve};
use crate::config::Amqp;

/// The largest frame for whoever consumes by the thousand, in bytes. lapin goes round and round in a buffer of 32 of them,
/// which shall fit a processor's cache; and RabbitMQ wants 8192 at least.
const SMALL_FRAME_BYTES_MAX: u32 = 16 * 1024;
/// How long one attempt to connect may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// After this long without success the next attempt starts beside the last.
const HEDGE: Duration = Duration::from_secs(1);
/// Attempts alive at once.
const ATTEMPTS_MAX: usize = 4;
/// Between two rounds through all addresses, less up to half by chance.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the broker may take to answer.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How often deliveries are let in that nobody takes, and how much of them. RabbitMQ gives a client 15 s to read what
/// it has for it, or rather what the buffers between don't hold, which may be megabytes.
const RELENT_INTERVAL: Duration = Duration::from_millis(250);
const RELENT_BYTES: u64 = 256 * 1024;
/// How long a polite goodbye may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

type Sifted = AsyncTcpStream<Sieve<Raw>>;
/// What happens to a connection outside of what is asked of it.
pub(crate) type Signals = Pin<Box<dyn Stream<Item = lapin::Event> + Send>>;

/// A connection; dropping it shuts its socket.
pub(crate) struct Line {
    connection: Connection,
    grip: Grip,
    who: String,
    notes: Notes,
}

/// Connects, again and again.
#[derive(Debug)]
pub(crate) struct Dialer {
    amqp: Amqp,
    name: String,
    /// Makes what its connections tell of deliveries.
    notes: fn() -> Notes,
    /// The largest frame its connections agree to, in bytes.
    frame_max: u32,
    muffle: Muffle,
    /// The last fault that was worth another attempt.
    pub(crate) last: Option<Fault>,
}

impl Dialer {
    /// A dialer whose connections the broker lists as `deletion-worker <version> <purpose>`.
    pub(crate) fn new(amqp: &Amqp, purpose: &str) -> Self {
        let name = format!("deletion-worker {} {purpose}", env!("CARGO_PKG_VERSION"));
        Self {
            amqp: amqp.clone(),
            name,
            notes: Notes::default,
            frame_max: address::FRAME_BYTES_MAX,
            muffle: Muffle::default(),
            last: None,
        }
    }

    /// A dialer for whoever lets go of deliveries as fast as they come: what is too much waits at the socket.
    pub(crate) fn patient(amqp: &Amqp, purpose: &str) -> Self {
        Self { notes: Notes::patient, ..Self::new(amqp, purpose) }
    }

    /// A dialer for whoever takes in thousands of deliveries, whose properties are found in their notes alone.
    pub(crate) fn keeping_properties(amqp: &Amqp, purpose: &str) -> Self {
        // Only properties have to fit a frame, and of these lapin sees none.
        let frame_max = SMALL_FRAME_BYTES_MAX;
        Self { notes: Notes::keeping_properties, frame_max, ..Self::new(amqp, purpose) }
    }

    /// Connects however long it takes, so that a broker that comes back is met within 2 s.
    ///
    /// Attempts are hedged: a silent peer holds one up for [`CONNECT_DEADLINE`], so after [`HEDGE`] the next starts
    /// beside it. The oldest keeps its whole deadline, for brokers that are slow; the younger ones make room for
    /// fresh ones, for brokers that were replaced.
    ///
    /// # Errors
    /// Lasting faults only.
    pub(crate) async fn dial(&mut self) -> Result<Line, Fault> {
        let mut addresses = VecDeque::new();
        let mut attempts = FuturesUnordered::new();
        let mut plugs: VecDeque<Plug> = VecDeque::new();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                Some(ended) = attempts.next() => {
                    match ended {
                        Ok(line) => {
                            self.connected();
                            return Ok(line);
                        }
                        Err(fault) => self.note(fault)?,
                    }
                    plugs.retain(|plug| !plug.is_pulled());
                    if plugs.is_empty() {
                        let spread = 0.5 + fastrand::f64() / 2.0;
                        let pause = if addresses.is_empty() { PAUSE.mul_f64(spread) } else { Duration::ZERO };
                        next = Instant::now() + pause;
                    }
                }
                () = sleep_until(next) => {
                    if addresses.is_empty() {
                        addresses.extend(address::read(&self.amqp).await?);
                    }
                    if plugs.len() == ATTEMPTS_MAX && let Some(plug) = plugs.remove(1) {
                        plug.pull();
                    }
                    let mut address = addresses.pop_front().expect("there is at least one address");
                    address.uri.query.frame_max = Some(self.frame_max);
                    let plug = Plug::default();
                    plugs.push_back(plug.clone());
                    attempts.push(attempt(address, self.name.clone(), Grip(plug), (self.notes)()));
                    next = Instant::now() + HEDGE;
                }
            }
        }
    }

    fn connected(&mut self) {
        self.last = None;
        if self.muffle.reset() {
            tracing::info!(connection = self.name, "the broker is back");
        }
    }

    fn note(&mut self, fault: Fault) -> Result<(), Fault> {
        if fault.is_lasting() {
            return Err(fault);
        }
        if let Some(kept) = self.muffle.speak(Instant::now()) {
            tracing::warn!(connection = self.name, more_attempts = kept, "waiting for the broker: {fault}");
        }
        self.last = Some(fault);
        Ok(())
    }
}

impl Line {
    /// Awaits `work`, what we asked of the broker in order to do `doing`.
    ///
    /// While the broker blocks the connection (out of memory or disk) an answer can't come, which is no fault of the
    /// connection: the deadline waits too.
    ///
    /// # Errors
    /// With the deadline missed the socket is shut.
    pub(crate) async fn within<T>(
        &self,
        doing: &str,
        deadline: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Fault> {
        let mut work = pin!(work);
        let mut muffle = Muffle::default();
        loop {
            if let Ok(done) = timeout(deadline, &mut work).await {
                return Ok(done);
            }
            if !self.connection.status().blocked() {
                self.grip.0.pull();
                return Err(Fault::passing(format!("the broker did not {doing} within {deadline:?}")));
            }
            if muffle.speak(Instant::now()).is_some() {
                tracing::warn!(
                    "the broker blocks our connection, it is short of memory or disk: waiting to {doing}"
                );
            }
        }
    }

    /// Like [`Self::within`], for what lapin may refuse.
    pub(crate) async fn ask<T>(
        &self,
        doing: &str,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Fault> {
        let done = self.within(doing, ANSWER_DEADLINE, work).await?;
        done.map_err(|error| Fault::amqp(doing, &error))
    }

    /// Opens a channel.
    pub(crate) async fn channel(&self) -> Result<Channel, Fault> {
        self.ask("open a channel", self.connection.create_channel()).await
    }

    /// Listens from now on.
    ///
    /// # Errors
    /// The connection is gone already, which nobody would hear of any more.
    pub(crate) fn listen(&self) -> Result<Signals, Fault> {
        let signals = Box::pin(self.connection.events_listener());
        if self.connection.status().connected() {
            Ok(signals)
        } else {
            Err(Fault::passing("the connection is gone"))
        }
    }

    /// Who we are, as in [`Address::who`], and the vhost we are in, for people.
    pub(crate) fn whereabouts(&self) -> (String, String) {
        (self.who.clone(), self.connection.status().vhost().to_string())
    }

    /// Awaits `work` that isn't the broker's, and meanwhile lets deliveries in slowly that nobody takes: the broker closes
    /// connections that don't read.
    pub(crate) async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            match timeout(RELENT_INTERVAL, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.notes.relent(RELENT_BYTES),
            }
        }
    }

    /// What is remarkable about deliveries of this connection.
    pub(super) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Takes leave of the broker, at most for [`CLOSE_DEADLINE`]; lapin can't even say goodbye while blocked.
    pub(crate) async fn close(self) {
        match timeout(CLOSE_DEADLINE, self.connection.close(200, "OK".into())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the connection was closed already"),
            Err(_) => tracing::debug!("the broker did not say goodbye"),
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// A second handle on a socket that may not be open yet; clones share it.
#[derive(Clone, Debug)]
struct Plug(Arc<Socket>);

#[derive(Debug)]
struct Socket {
    handle: Mutex<Option<std::net::TcpStream>>,
    pulled: watch::Sender<bool>,
}

impl Default for Plug {
    fn default() -> Self {
        Self(Arc::new(Socket { handle: Mutex::default(), pulled: watch::Sender::new(false) }))
    }
}

impl Plug {
    /// Takes a handle on `stream`.
    ///
    /// # Errors
    /// If it was pulled already, or no file descriptor is left.
    fn plug_in(&self, stream: &TcpStream) -> io::Result<()> {
        let handle = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        let mut slot = self.0.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_pulled() {
            return Err(pulled());
        }
        *slot = Some(handle);
        Ok(())
    }

    /// Shuts the socket, now or as soon as there is one; lapin's thread ends by it.
    fn pull(&self) {
        let mut slot = self.0.handle.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.pulled.send_replace(true);
        if let Some(handle) = slot.take() {
            // An error says that the peer was faster.
            let _ = handle.shutdown(Shutdown::Both);
        }
    }

    fn is_pulled(&self) -> bool {
        *self.0.pulled.borrow()
    }

    /// Waits until it is pulled.
    async fn wait(&self) {
        let mut pulled = self.0.pulled.subscribe();
        pulled.wait_for(|pulled| *pulled).await.expect("the sender lives in self");
    }
}

/// Owns a socket: dropping it pulls the plug.
#[derive(Debug)]
struct Grip(Plug);

impl Drop for Grip {
    fn drop(&mut self) {
        self.0.pull();
    }
}

async fn attempt(address: Address, name: String, grip: Grip, notes: Notes) -> Result<Line, Fault> {
    let place = address.place();
    let work = async {
        tokio::select! {
            connected = connector(&address, name, grip.0.clone(), notes.clone()) => {
                connected.map_err(|error| refusal(&address, &error))
            }
            () = grip.0.wait() => Err(Fault::passing(format!("{place} stays silent"))),
        }
    };
    let connection = timeout(CONNECT_DEADLINE, work).await.unwrap_or_else(|_| {
        Err(Fault::passing(format!("{place} did not let us in within {CONNECT_DEADLINE:?}")))
    })?;
    Ok(Line { connection, grip, who: address.who(), notes })
}

async fn connector(address: &Address, name: String, plug: Plug, notes: Notes) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), env!("CARGO_PKG_NAME").into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let tls = address.tls.clone();
    let connect = async move |uri: AMQPUri, _: async_rs::Runtime<Kit>| -> lapin::Result<Sifted> {
        tokio::select! {
            opened = open(&uri, &tls, &plug) => {
                Ok(AsyncTcpStream::Plain(Sieve::new(opened?, notes.clone())))
            }
            () = plug.wait() => Err(pulled().into()),
        }
    };
    Connection::connector(address.uri.clone(), kit::current(), connect, properties).await
}

async fn open(uri: &AMQPUri, tls: &OwnedTLSConfig, plug: &Plug) -> io::Result<Raw> {
    let host = uri.authority.host.as_str();
    let stream = TcpStream::connect((host, uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    plug.plug_in(&stream)?;
    let stream = AsyncTcpStream::Plain(Compat::new(stream));
    match uri.scheme {
        AMQPScheme::AMQP => Ok(stream),
        AMQPScheme::AMQPS => stream.into_tls(host, tls.as_ref()).await,
    }
}

fn pulled() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "given up by ourselves")
}

/// What to do about it when the broker at `address` does not let us in.
fn refusal(address: &Address, error: &lapin::Error) -> Fault {
    let (place, vhost, who) = (address.place(), &address.uri.vhost, address.who());
    let words = words(error);
    match reply_code(error) {
        Some(code::ACCESS_REFUSED) if address.is_external() => Fault::lasting(format!(
            "{place} refuses {who}: {words}; check amqp.tls.cert_file, and that the broker has a user of the name \
             that it takes from the certificate (ssl_cert_login_from)"
        )),
        Some(code::ACCESS_REFUSED) => Fault::lasting(format!(
            "{place} refuses {who}: {words}; check user and password in amqp.urls, or the user at the broker"
        )),
        Some(code::NOT_ALLOWED | code::INVALID_PATH) => Fault::lasting(format!(
            "{place} does not let {who} into vhost `{vhost}`: {words}; create the vhost, or give the user permissions \
             in it"
        )),
        _ => Fault::amqp(&format!("connect to {place}"), error),
    }
}
